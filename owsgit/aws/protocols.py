"""AWS's protocols, from the server's side: requests into operations and their parameters, results and errors into
responses. Everything about a service comes from botocore's model of it.

JSON 1.0 and 1.1 (X-Amz-Target), query (forms and XML), and REST with JSON.
https://smithy.io/2.0/aws/protocols/index.html
"""

import base64
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.etree.ElementTree import Element, SubElement, tostring

import orjson
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import ServiceError, Streamed
from owsgit.aws.eventstream import Encoded, EventStream
from owsgit.aws.shapes import DEPTH_MAX, Problems, Readers, Writers, check, member_of, written_time
from owsgit.aws.sigv4 import Headers

FIELDS_MAX = 1000
"""Of a query or a form."""

_NUMBER = re.compile(r"[1-9][0-9]{0,7}")
"""Of a member of a list, in a form: in one spelling each, and none that takes its time to read."""

_OBJECTS_MAX = 2_000_000
"""Of a body of JSON, lists among them. Each takes 64 bytes of memory and more, and two on the wire; the smallest thing
that means something, {"N":"1"} in a list, takes ten.
"""


@dataclass(frozen=True)
class Incoming:
    """A request as it came, its signature found to be good."""

    method: str
    path: bytes
    query: bytes
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> str:
        """The first header of that name; empty without one."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


@dataclass(frozen=True)
class Reply:
    """A response; `content_type` aside, what frames it is the listener's. A body in pieces has to be closed."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | Encoded


class Protocol(ABC):
    """How one service is spoken to."""

    def __init__(self, model: ServiceModel) -> None:
        self.model = model
        self.name = str(model.service_name)

    @abstractmethod
    def find(self, incoming: Incoming) -> OperationModel | None:
        """The operation that a request asks for; None if it is not of this service, or of none of its operations."""

    @abstractmethod
    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """The operation's parameters, in AWS's names. Raises ServiceError."""

    @abstractmethod
    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        """The response with an operation's output, which is in AWS's names."""

    @abstractmethod
    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        """The response with an error."""


def _parsed(body: bytes) -> Any:
    if not body:
        return {}
    if body.count(b"{") + body.count(b"[") > _OBJECTS_MAX:
        raise ServiceError("SerializationException", "the request has too many parts")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ServiceError("SerializationException", "the body is not JSON") from None


class JsonProtocol(Protocol):
    """X-Amz-Target names the operation; bodies are JSON both ways."""

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._prefix = f"{model.metadata['targetPrefix']}."
        self._type = f"application/x-amz-json-{model.metadata['jsonVersion']}".encode()
        self._readers, self._writers = Readers(), Writers()
        self._space = _NAMESPACES.get(self.name, "")

    def find(self, incoming: Incoming) -> OperationModel | None:
        target = incoming.header(b"x-amz-target")
        name = target.removeprefix(self._prefix)
        if name == target or name not in self.model.operation_names:
            return None
        return _operation(self.model, name)

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        if operation.input_shape is None:
            return {}
        return check(self._readers.of(operation.input_shape), _parsed(incoming.body))

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        shape = operation.output_shape
        body = orjson.dumps(self._writers.of(shape)(result)) if shape is not None else b"{}"
        return self._reply(200, body, request_id)

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        space = _SPACES.get(error.code, self._space)
        shape = self.model.shape_for(error.code) if error.code in self.model.shape_names else None
        more = self._writers.of(shape)(error.fields) if isinstance(shape, StructureShape) else {}
        named = "Message" if error.code in _CAPITAL or _has(shape, "Message") else "message"
        body = orjson.dumps({"__type": f"{space}{error.code}", named: error.message, **more})
        return self._reply(error.status, body, request_id)

    def _reply(self, status: int, body: bytes, request_id: str) -> Reply:
        headers = [
            (b"content-type", self._type),
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amz-crc32", b"%d" % zlib.crc32(body)),
        ]
        return Reply(status, headers, body)


_NAMESPACES = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#",
    "dynamodbstreams": "com.amazonaws.dynamodb.v20120810#",
}
_SPACES = {
    "ValidationException": "com.amazon.coral.validate#",
    "SerializationException": "com.amazon.coral.service#",
    "AccessDeniedException": "com.amazon.coral.service#",
    "UnknownOperationException": "com.amazon.coral.service#",
    "UnrecognizedClientException": "com.amazon.coral.service#",
    "MissingAuthenticationTokenException": "com.amazon.coral.service#",
    "InvalidSignatureException": "com.amazon.coral.service#",
    "IncompleteSignatureException": "com.amazon.coral.service#",
    "ExpiredTokenException": "com.amazon.coral.service#",
    "InternalFailure": "com.amazon.coral.service#",
}
"""What stands before the names of errors: SDKs look at what comes behind it, some programs do not."""

_CAPITAL = {"AccessDeniedException", "SerializationException", "TransactionCanceledException"}
"""Errors whose text is called Message."""


def _has(shape: Shape | None, member: str) -> bool:
    return isinstance(shape, StructureShape) and member in shape.members and "message" not in shape.members


class QueryProtocol(Protocol):
    """A form with Action and Version; answered in XML."""

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._version = str(model.metadata["apiVersion"])
        self._space = str(model.metadata.get("xmlNamespace", ""))
        self._readers = Readers(text=True)

    def find(self, incoming: Incoming) -> OperationModel | None:
        fields = _form(incoming)
        name = fields.get("Action", "")
        if fields.get("Version") != self._version or name not in self.model.operation_names:
            return None
        return _operation(self.model, name)

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        if operation.input_shape is None:
            return {}
        fields = {name: value for name, value in _form(incoming).items() if name not in ("Action", "Version")}
        tree = _grown(fields)
        return check(self._readers.of(operation.input_shape), _shaped(operation.input_shape, tree))

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        root = Element(f"{operation.name}Response", xmlns=self._space)
        shape = operation.output_shape
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result")
            _into(SubElement(root, wrapper), shape, result)
        SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
        return _xml(200, root, request_id)

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        root = Element("ErrorResponse", xmlns=self._space)
        told = SubElement(root, "Error")
        SubElement(told, "Type").text = "Sender" if error.status < 500 else "Receiver"
        SubElement(told, "Code").text = _QUERY_CODES.get(error.code, error.code)
        SubElement(told, "Message").text = _CONTROLS.sub("?", error.message)
        SubElement(root, "RequestId").text = request_id
        return _xml(error.status, root, request_id)


_QUERY_CODES = {
    "ValidationException": "ValidationError",
    "AccessDeniedException": "AccessDenied",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "IncompleteSignatureException": "IncompleteSignature",
    "ExpiredTokenException": "ExpiredToken",
    "UnknownOperationException": "InvalidAction",
}
"""What common errors are called in this protocol.
https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"""

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
"""What XML has no way to say."""


def _form(incoming: Incoming) -> dict[str, str]:
    in_body = incoming.header(b"content-type").startswith("application/x-www-form-urlencoded")
    fields = _fields(incoming.body if in_body else incoming.query, plus_is_space=in_body)
    found = dict(fields)
    if len(found) != len(fields):
        raise ServiceError("MalformedQueryString", "a field is there more than once")
    return found


def _fields(source: bytes, *, plus_is_space: bool) -> list[tuple[str, str]]:
    """The fields of a query or of a form, in their order. Raises ServiceError.

    In a query a plus is a plus: that is how it is signed, so that nobody on the way can make it one from %2B.
    """
    try:
        text = source.decode("utf-8") if plus_is_space else source.decode("utf-8").replace("+", "%2B")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise ServiceError("MalformedQueryString", "the form is no query string of at most 1000 fields") from None


def _grown(fields: Mapping[str, str]) -> dict[str, Any]:
    """`a.b.1` and its like as nested objects."""
    root: dict[str, Any] = {}
    for name, value in fields.items():
        *before, last = name.split(".", DEPTH_MAX + 1)
        if len(before) > DEPTH_MAX:
            raise ServiceError("MalformedQueryString", f"{name[:80]} is nested too deep")
        place = root
        for part in before:
            below = place.setdefault(part, {})
            if not isinstance(below, dict):
                raise ServiceError("MalformedQueryString", f"{name[:80]} is there in two forms")
            place = below
        if isinstance(place.get(last), dict):
            raise ServiceError("MalformedQueryString", f"{name[:80]} is there in two forms")
        place[last] = value
    return root


def _shaped(shape: Shape, tree: Any) -> Any:
    """Objects whose names are numbers, as the lists and maps that the shape says they are."""
    if isinstance(shape, StructureShape) and isinstance(tree, dict):
        wire = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
        return {wire[name][0]: _shaped(wire[name][1], each) for name, each in tree.items() if name in wire}
    if isinstance(shape, ListShape) and tree == "":
        return []  # as an empty list is written
    if isinstance(shape, ListShape) and isinstance(tree, dict):
        flat = shape.serialization.get("flattened")
        below = tree if flat else tree.get(shape.member.serialization.get("name", "member"), {})
        return [_shaped(shape.member, each) for each in _numbered(below)]
    if isinstance(shape, MapShape) and isinstance(tree, dict):
        entries = tree if shape.serialization.get("flattened") else tree.get("entry", {})
        names = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
        found: dict[str, Any] = {}
        for each in _numbered(entries):
            key = each.get(names[0]) if isinstance(each, dict) else None
            if not isinstance(key, str) or key in found or names[1] not in each:
                raise ServiceError("MalformedQueryString", "the entries of a map have a key each, and a value")
            found[key] = _shaped(shape.value, each[names[1]])
        return found
    return tree


def _numbered(members: Any) -> list[Any]:
    """What is numbered in a form, in the order of the numbers. Raises ServiceError."""
    if not isinstance(members, dict) or not all(map(_NUMBER.fullmatch, members)):
        raise ServiceError("MalformedQueryString", "members of lists and maps are numbered from 1")
    return [members[each] for each in sorted(members, key=int)]


def _into(parent: Element, shape: Shape, value: Any) -> None:
    """Write a value into an element, as XML has it."""
    if isinstance(shape, StructureShape):
        for name, given in value.items():
            if given is not None:
                _member(parent, shape.members[name], name, given)
    elif isinstance(shape, ListShape):
        for each in value:
            _into(SubElement(parent, shape.member.serialization.get("name", "member")), shape.member, each)
    elif isinstance(shape, MapShape):
        for key, each in value.items():
            entry = SubElement(parent, "entry")
            SubElement(entry, shape.key.serialization.get("name", "key")).text = str(key)
            _into(SubElement(entry, shape.value.serialization.get("name", "value")), shape.value, each)
    elif shape.type_name == "timestamp":
        parent.text = str(written_time(value, shape.serialization.get("timestampFormat", "iso8601")))
    elif shape.type_name == "blob":
        parent.text = base64.b64encode(value).decode("ascii")
    else:
        parent.text = str(value).lower() if isinstance(value, bool) else _CONTROLS.sub("?", str(value))


def _member(parent: Element, shape: Shape, name: str, value: Any) -> None:
    wire = shape.serialization.get("name", name)
    if isinstance(shape, ListShape) and shape.serialization.get("flattened"):
        for each in value:
            _into(SubElement(parent, wire), shape.member, each)
    else:
        _into(SubElement(parent, wire), shape, value)


def _xml(status: int, root: Element, request_id: str) -> Reply:
    headers = [(b"content-type", b"text/xml"), (b"x-amzn-requestid", request_id.encode())]
    return Reply(status, headers, tostring(root, encoding="utf-8"))


@dataclass(frozen=True)
class _Address:
    """Where an operation of a REST service is: its method, and the path in segments (None for a parameter)."""

    operation: str
    method: str
    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    greedy: bool
    query: tuple[tuple[str, str], ...]  # what stands in it beside the parameters

    def match(self, method: str, segments: Sequence[str], query: Sequence[tuple[str, str]]) -> dict[str, str] | None:
        if method != self.method or not all(pair in query for pair in self.query):
            return None
        if len(segments) < len(self.segments) if self.greedy else len(segments) != len(self.segments):
            return None
        values: list[str] = []
        for index, wanted in enumerate(self.segments):
            if wanted is not None:
                if segments[index] != wanted:
                    return None
            elif self.greedy and index == len(self.segments) - 1:
                values.append("/".join(segments[index:]))
            else:
                values.append(segments[index])
        return dict(zip(self.names, map(unquote, values), strict=True)) if all(values) else None


_NOT_SEGMENTS = (b"", b".", b"..")
"""Signatures are made without them: whoever has a signed request could put some in, and so ask for something else."""


class RestJsonProtocol(Protocol):
    """Method and path name the operation; parameters are in the path, the query, headers and a body of JSON."""

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._texts, self._json = Readers(text=True), Readers(wire_names=True)
        self._writers = Writers(wire_names=True)
        found = [_address(_operation(model, name)) for name in model.operation_names]
        self._addresses = sorted(found, key=lambda each: ([part is None for part in each.segments], -len(each.query)))

    def find(self, incoming: Incoming) -> OperationModel | None:
        found = self._found(incoming)
        return _operation(self.model, found[0].operation) if found is not None else None

    def _found(self, incoming: Incoming) -> tuple[_Address, dict[str, str]] | None:
        if any(part in _NOT_SEGMENTS for part in incoming.path[1:].removesuffix(b"/").split(b"/")):
            return None
        segments = incoming.path.decode("latin-1").strip("/").split("/")
        query = _fields(incoming.query, plus_is_space=False)
        for address in self._addresses:
            values = address.match(incoming.method, segments, query)
            if values is not None:
                return address, values
        return None

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        shape = operation.input_shape
        found = self._found(incoming)
        if shape is None or found is None:
            return {}
        texts = dict(self._outside(shape, incoming, found[1]))
        payload = shape.serialization.get("payload")
        given: dict[str, Any] = {}
        if payload is not None:
            member = shape.members[payload]
            if member.type_name in ("blob", "string"):
                if incoming.body:
                    given[payload] = (
                        incoming.body if member.type_name == "blob" else incoming.body.decode("utf-8", "replace")
                    )
            elif incoming.body:
                given[payload] = _parsed(incoming.body)
        else:
            body = _parsed(incoming.body)
            if not isinstance(body, dict):
                raise ServiceError("SerializationException", "the body is no object")
            outside = {name for name, member in shape.members.items() if "location" in member.serialization}
            wire = {
                member.serialization.get("name", name): name
                for name, member in shape.members.items()
                if name not in outside
            }
            given = {wire[name]: value for name, value in body.items() if name in wire}
        return _checked(shape, self._texts, self._json, texts, given)

    @staticmethod
    def _outside(shape: Shape, incoming: Incoming, path: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """What stands in the path, the query and the headers."""
        assert isinstance(shape, StructureShape)
        query = _fields(incoming.query, plus_is_space=False)
        for name, member in shape.members.items():
            location, wire = member.serialization.get("location"), member.serialization.get("name", name)
            if location == "uri" and wire in path:
                yield name, path[wire]
            elif location == "querystring":
                values = [value for key, value in query if key == wire]
                if len(values) > 1 and not isinstance(member, ListShape):
                    raise ServiceError("ValidationException", f"{wire} is there more than once")
                if values:
                    yield name, values if isinstance(member, ListShape) else values[0]
            elif location == "header":
                value = incoming.header(wire.lower().encode())
                if value:
                    yield name, value
            elif location == "headers":
                start = wire.lower()
                found = {key.decode("latin-1"): value.decode("latin-1") for key, value in incoming.headers}
                yield name, {key[len(start) :]: value for key, value in found.items() if key.startswith(start)}

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        status = int(operation.http.get("responseCode", 200))
        headers = [(b"x-amzn-requestid", request_id.encode())]
        shape = operation.output_shape
        if shape is None:
            return Reply(status, headers, b"")
        inside: dict[str, Any] = {}
        for name, value in result.items():
            member = shape.members[name]
            location = member.serialization.get("location")
            wire = member.serialization.get("name", name)
            if value is None:
                continue
            if location == "statusCode":
                status = int(value)
            elif location == "header":
                headers.append((wire.lower().encode(), _header_value(value)))
            else:
                inside[name] = value
        payload = shape.serialization.get("payload")
        body: bytes | Encoded
        if payload is not None and isinstance(streamed := inside.get(payload), Streamed):
            member = shape.members[payload]
            assert isinstance(member, StructureShape)
            body = Encoded(EventStream(member, self._dump), streamed.events)
            headers.append((b"content-type", streamed.content_type.encode()))
        elif payload is None:
            body = orjson.dumps(self._writers.of(shape)(inside))
        else:
            body = self._payload(shape.members[payload], inside.get(payload))
        if not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", b"application/json"))
        return Reply(status, headers, body)

    def _dump(self, shape: Shape, value: Any) -> bytes:
        return orjson.dumps(self._writers.of(shape)(value))

    def _payload(self, shape: Shape, value: Any) -> bytes:
        if value is None:
            return b""
        if shape.type_name == "blob":
            return bytes(value)
        return value.encode("utf-8") if shape.type_name == "string" else orjson.dumps(self._writers.of(shape)(value))

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        shape = self.model.shape_for(error.code) if error.code in self.model.shape_names else None
        more: dict[str, Any] = {}
        headers = [
            (b"content-type", b"application/json"),
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amzn-errortype", error.code.encode()),
        ]
        status = 403 if error.code == "AccessDeniedException" else error.status
        if isinstance(shape, StructureShape):
            status = int(shape.metadata.get("error", {}).get("httpStatusCode", status))
            for name, value in error.fields.items():
                place = shape.members[name].serialization if name in shape.members else {}
                if place.get("location") == "header":
                    headers.append((place.get("name", name).lower().encode(), _header_value(value)))
                else:
                    more[name] = value
        named = "Message" if _has(shape, "Message") else "message"
        return Reply(status, headers, orjson.dumps({**more, named: error.message}))


def _header_value(value: Any) -> bytes:
    """As it may stand in a head: no line of its own, whatever an operation returns."""
    return _UNPRINTABLE.sub("?", str(value)).encode("utf-8", "replace")


_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


def _checked(
    shape: StructureShape, texts: Readers, objects: Readers, outside: Mapping[str, Any], inside: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of two kinds, checked together: members are looked at in the order of the model."""
    problems = Problems()
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        reader = texts if name in outside else objects
        value = outside.get(name, inside.get(name))
        if value is not None:
            found[name] = reader.of(member)(value, member_of(None, name), problems)
        elif name in shape.required_members:
            problems.add(None, member_of(None, name), "not be null")
    problems.check()
    return found


def _address(operation: OperationModel) -> _Address:
    path, _, query = operation.http["requestUri"].partition("?")
    parts = path.strip("/").split("/")
    names = tuple(part[1:-1].rstrip("+") for part in parts if part.startswith("{"))
    greedy = parts[-1].endswith("+}")
    segments = tuple(None if part.startswith("{") else part for part in parts)
    return _Address(operation.name, operation.http["method"], segments, names, greedy, tuple(parse_qsl(query)))


@lru_cache(4096)
def _operation(model: ServiceModel, name: str) -> OperationModel:
    return model.operation_model(name)


_PROTOCOLS: Mapping[str, type[Protocol]] = {
    "json": JsonProtocol,
    "query": QueryProtocol,
    "rest-json": RestJsonProtocol,
}


@cache
def protocol_of(service: str) -> Protocol:
    """How a service (in botocore's name) is spoken to. Raises KeyError if it is in none of the ways that are built."""
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    names = model.metadata.get("protocols", [model.metadata["protocol"]])
    found = next((_PROTOCOLS[name] for name in names if name in _PROTOCOLS), None)
    if found is None:
        raise KeyError(service)
    return found(model)
