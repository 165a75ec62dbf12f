"""What REST with JSON and REST with XML share: method and path name the operation; its members are in the path, the
query, headers, the status and the body.

https://smithy.io/2.0/spec/http-bindings.html
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import Pieces, ServiceError, Streamed
from owsgit.aws.eventstream import Encoded, EventStream
from owsgit.aws.protocols import xml
from owsgit.aws.protocols.wire import (
    Header,
    Incoming,
    Protocol,
    Reply,
    error_shape,
    fields,
    header_value,
    operation_of,
    signing_name,
)
from owsgit.aws.readers import Problems, Readers, member_of
from owsgit.aws.sigv4 import S3, Request

_NOT_SEGMENTS = (b"", b".", b"..")
"""Signatures are made without them: whoever has a signed request could put some in, and so ask for something else."""

METADATA = "ResponseMetadata"
"""In a result, as boto3 shows it: {"HTTPStatusCode": 206}, where the model does not know of more than one."""

_LISTED = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^",]*?))\s*(?:,|$)')
_ESCAPED = re.compile(r"\\(.)")
_BARE = re.compile(r"[^\s\",]+(?: [^\s\",]+)*")


@dataclass(frozen=True)
class Address:
    """Where an operation is: its method, and the path in segments (None for a parameter)."""

    operation: str
    method: str
    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    greedy: bool
    query: tuple[tuple[str, str], ...]  # what stands in it beside the parameters
    fields: tuple[str, ...]  # of the query and
    headers: tuple[bytes, ...]  # of the head, what has to be there
    deprecated: bool

    @classmethod
    def of(cls, operation: OperationModel) -> "Address":
        path, _, query = operation.http["requestUri"].partition("?")
        parts = path.strip("/").split("/")
        shape = operation.input_shape
        wanted = [shape.members[name].serialization for name in shape.required_members] if shape is not None else []
        return cls(
            operation.name,
            operation.http["method"],
            tuple(None if part.startswith("{") else part for part in parts),
            tuple(part[1:-1].rstrip("+") for part in parts if part.startswith("{")),
            parts[-1].endswith("+}"),
            tuple(parse_qsl(query, keep_blank_values=True)),
            tuple(each["name"] for each in wanted if each.get("location") == "querystring"),
            tuple(each["name"].lower().encode() for each in wanted if each.get("location") == "header"),
            operation.deprecated,
        )

    @property
    def order(self) -> tuple[Any, ...]:
        """The one that says most of a request is asked first."""
        said = len(self.query), len(self.fields) + len(self.headers)
        return [part is None for part in self.segments], -said[0], -said[1], self.deprecated, self.operation

    def match(self, segments: Sequence[str], query: Sequence[tuple[str, str]]) -> dict[str, str] | None:
        """The parameters in the path; None if it is not this one's."""
        if self.query and not all(pair in query for pair in self.query):
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

    def complete(self, query: Sequence[tuple[str, str]], headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether all is there that the operation cannot do without."""
        names = {name for name, _ in query} if self.fields else set()
        given = {name for name, _ in headers} if self.headers else set()
        return names.issuperset(self.fields) and given.issuperset(self.headers)


class RestProtocol(Protocol):
    """A protocol of this kind, but for what it makes of a body."""

    content_type: bytes
    times = "iso8601"

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._texts = Readers(text=True)
        self._plain = signing_name(model) == S3
        self._addresses: dict[str, list[Address]] = {}  # by method
        for address in sorted((Address.of(self._operation(name)) for name in model.operation_names), key=_order):
            self._addresses.setdefault(address.method, []).append(address)

    def _operation(self, name: str) -> OperationModel:
        return operation_of(self.model, name)

    # -- requests --------------------------------------------------------------------------------

    def suits(self, request: Request) -> bool:
        return True

    def find(self, incoming: Incoming) -> OperationModel | None:
        found = self._found(incoming)
        return self._operation(found[0].operation) if found is not None else None

    def _found(self, incoming: Incoming) -> tuple[Address, dict[str, str]] | None:
        segments = self._segments(incoming.path)
        if segments is None:
            return None
        query = fields(incoming.query, plus_is_space=False)
        lacking: tuple[Address, dict[str, str]] | None = None
        for address in self._addresses.get(incoming.method, ()):
            values = address.match(segments, query)
            if values is None:
                continue
            if address.complete(query, incoming.headers):
                return address, values
            if lacking is None or address.query == lacking[0].query:
                lacking = address, values  # the one of them that wants the least, to be told what it lacks
        return lacking

    def _segments(self, path: bytes) -> list[str] | None:
        """None where what was signed could be the path of something else."""
        if self._plain:
            text = path.decode("latin-1")[1:]
            bucket = text.removesuffix("/")
            return [bucket] if "/" not in bucket else text.split("/")
        if any(part in _NOT_SEGMENTS for part in path[1:].removesuffix(b"/").split(b"/")) and path != b"/":
            return None
        return path.decode("latin-1").strip("/").split("/")

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        shape = operation.input_shape
        found = self._found(incoming)
        if shape is None or found is None:
            return {}
        texts = dict(_outside(shape, incoming, found[1]))
        payload = shape.serialization.get("payload")
        given: dict[str, Any] = {}
        if payload is None:
            if any("location" not in member.serialization for member in shape.members.values()):
                given = self._read_body(shape, _whole(incoming))
        elif not isinstance(incoming.body, bytes):
            given[payload] = incoming.body
        elif incoming.body:
            given[payload] = self._read_payload(shape.members[payload], incoming.body)
        return _checked(shape, self._texts, self._objects, texts, given)

    def _read_payload(self, member: Shape, body: bytes) -> Any:
        if member.type_name == "blob":
            return body
        return body.decode("utf-8", "replace") if member.type_name == "string" else self._read_value(member, body)

    @property
    @abstractmethod
    def _objects(self) -> Readers:
        """Of what is in bodies."""

    @abstractmethod
    def _read_body(self, shape: StructureShape, body: bytes) -> dict[str, Any]:
        """The members that stand in no place of their own, by their names in the model, as `_objects` takes them."""

    @abstractmethod
    def _read_value(self, shape: Shape, body: bytes) -> Any:
        """A member that is the whole body."""

    # -- responses -------------------------------------------------------------------------------

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        status = int(operation.http.get("responseCode", 200))
        headers = self._head(request_id)
        shape = operation.output_shape
        if shape is None:
            return Reply(status, headers, b"")
        inside: dict[str, Any] = {}
        length: int | None = None
        for name, value in result.items():
            if name == METADATA:
                status = int(value["HTTPStatusCode"])
                continue
            place = shape.members[name].serialization
            if value is None:
                continue
            if place.get("location") == "statusCode":
                status = int(value)
            elif place.get("location") in ("header", "headers"):
                if place.get("name") == "Content-Length":
                    length = int(value)
                else:
                    headers += _headers(shape.members[name], name, value)
            else:
                inside[name] = value
        body, content_type = self._body(operation, shape, inside)
        if body != b"" and not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", content_type))
        return Reply(status, headers, body, length)

    def _body(self, operation: OperationModel, shape: StructureShape, inside: Mapping[str, Any]) -> tuple[Any, bytes]:
        """The body of a response, and its content type."""
        payload = shape.serialization.get("payload")
        if payload is None:
            written = self._write_body(operation, shape, inside)
            return written, self.content_type
        member, value = shape.members[payload], inside.get(payload)
        if isinstance(value, Streamed):
            assert isinstance(member, StructureShape)
            stream = EventStream(member, self._write_value, self.content_type.decode())
            return Encoded(stream, value.events), value.content_type.encode()
        if isinstance(value, Pieces):
            return value, b"application/octet-stream"
        if value is None:
            return b"", self.content_type
        if member.type_name == "blob":
            return bytes(value), self.blob_type
        return value.encode() if member.type_name == "string" else self._write_value(member, value), self.content_type

    blob_type = b"application/octet-stream"

    def _head(self, request_id: str) -> list[Header]:
        return [(b"x-amzn-requestid", request_id.encode())]

    @abstractmethod
    def _write_body(self, operation: OperationModel, shape: StructureShape, value: Mapping[str, Any]) -> bytes:
        """The members of a result that have no place of their own."""

    @abstractmethod
    def _write_value(self, shape: Shape, value: Any) -> bytes:
        """A member that is the whole body."""

    def _error_members(self, error: ServiceError) -> tuple[StructureShape | None, dict[str, Any], list[Header], int]:
        """An error's shape, the members of it that are in the body, those that are headers, and its status."""
        shape, fields = error_shape(self.model, error)
        if shape is None:
            return None, {}, [], error.status
        more: dict[str, Any] = {}
        headers: list[Header] = []
        for name, value in fields.items():
            if shape.members[name].serialization.get("location") == "header":
                headers += _headers(shape.members[name], name, value)
            else:
                more[name] = value
        return shape, more, headers, int(shape.metadata.get("error", {}).get("httpStatusCode", error.status))


def _order(address: Address) -> tuple[Any, ...]:
    return address.order


def _whole(incoming: Incoming) -> bytes:
    assert isinstance(incoming.body, bytes)
    return incoming.body


def _outside(shape: StructureShape, incoming: Incoming, path: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """What stands in the path, the query and the headers."""
    query = fields(incoming.query, plus_is_space=False) if incoming.query else []
    for name, member in shape.members.items():
        location, wire = member.serialization.get("location"), member.serialization.get("name", name)
        if location == "uri" and wire in path:
            yield name, path[wire]
        elif location == "querystring" and isinstance(member, MapShape):
            yield name, _mapped(member, shape, query)
        elif location == "querystring":
            values = [value for key, value in query if key == wire]
            if len(values) > 1 and not isinstance(member, ListShape):
                raise ServiceError("ValidationException", f"{wire} is there more than once")
            if values:
                yield name, values if isinstance(member, ListShape) else values[0]
        elif location == "header":
            value = _one_header(incoming, wire.lower().encode())
            if value:
                yield name, _listed(value) if isinstance(member, ListShape) else value
        elif location == "headers":
            start = wire.lower()
            names = {key.decode("latin-1"): value for key, value in incoming.headers}
            found = {key[len(start) :]: _text(value) for key, value in names.items() if key.startswith(start)}
            if found:
                yield name, found


def _mapped(member: MapShape, shape: StructureShape, query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """All fields of a query that no other member has."""
    places = (each.serialization for each in shape.members.values())
    others = {place.get("name") for place in places if place.get("location") == "querystring"}
    found: dict[str, Any] = {}
    for key, value in query:
        if key in others:
            continue
        if isinstance(member.value, ListShape):
            found.setdefault(key, []).append(value)
        elif found.setdefault(key, value) is not value:
            raise ServiceError("ValidationException", f"{key[:40]} is there more than once")
    return found


def _one_header(incoming: Incoming, name: bytes) -> str:
    """Empty without one. Raises ServiceError for two: what is signed of them is the same as of one with both values."""
    values = [value for key, value in incoming.headers if key == name]
    if len(values) > 1:
        raise ServiceError("ValidationException", f"the header {name.decode()} is there more than once")
    return _text(values[0]) if values else ""


def _text(value: bytes) -> str:
    """A header's value, which is in UTF-8 as it is in responses, if it is more than ASCII at all."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _listed(value: str) -> list[str]:
    """The members of a list in a header: bare, or in quotes."""
    found: list[str] = []
    at = 0
    while at < len(value):
        match = _LISTED.match(value, at)
        if match is None:
            raise ServiceError("ValidationException", "a list in a header has its members between commas")
        quoted = match[1]
        found.append(_ESCAPED.sub(r"\1", quoted) if quoted is not None else match[2])
        at = match.end()
    return found


def _headers(shape: Shape, name: str, value: Any) -> list[Header]:
    """A member of a result as headers."""
    wire = shape.serialization.get("name", name).lower()
    if isinstance(shape, MapShape):
        return [(header_value(f"{wire}{key}".lower()), header_value(each)) for key, each in value.items()]
    if isinstance(shape, ListShape):
        texts = [xml.text_of(shape.member, each, "rfc822") for each in value]
        value = ", ".join(each if _bare(shape.member, each) else _quoted(each) for each in texts)
        return [(wire.encode(), header_value(value))]
    return [(wire.encode(), header_value(xml.text_of(shape, value, "rfc822")))]


def _bare(shape: Shape, text: str) -> bool:
    return shape.type_name == "timestamp" or _BARE.fullmatch(text) is not None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(
    shape: StructureShape, texts: Readers, objects: Readers, outside: Mapping[str, Any], inside: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of two kinds, checked together: members are looked at in the order of the model."""
    problems = Problems()
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        reader = texts if name in outside else objects
        value = outside.get(name, inside.get(name))
        if isinstance(value, Pieces | bytes):  # the whole body: how long it may be, the operation says in its own error
            found[name] = value
        elif value is not None:
            found[name] = reader.of(member)(value, member_of(None, name), problems)
        elif name in shape.required_members:
            problems.add(None, member_of(None, name), "not be null")
    problems.check()
    return found
