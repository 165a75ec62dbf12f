"""REST with JSON: method and path name the operation. https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import ServiceError, Streamed
from owsgit.aws.eventstream import Encoded, EventStream
from owsgit.aws.protocols.wire import Incoming, Protocol, Reply, fields, header_value, operation_of, parsed, says
from owsgit.aws.shapes import Problems, Readers, Writers, member_of


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
        found = [_address(operation_of(model, name)) for name in model.operation_names]
        self._addresses = sorted(found, key=lambda each: ([part is None for part in each.segments], -len(each.query)))

    def find(self, incoming: Incoming) -> OperationModel | None:
        found = self._found(incoming)
        return operation_of(self.model, found[0].operation) if found is not None else None

    def _found(self, incoming: Incoming) -> tuple[_Address, dict[str, str]] | None:
        if any(part in _NOT_SEGMENTS for part in incoming.path[1:].removesuffix(b"/").split(b"/")):
            return None
        segments = incoming.path.decode("latin-1").strip("/").split("/")
        query = fields(incoming.query, plus_is_space=False)
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
                given[payload] = parsed(incoming.body)
        else:
            body = parsed(incoming.body)
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
        query = fields(incoming.query, plus_is_space=False)
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
                headers.append((wire.lower().encode(), header_value(value)))
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
                    headers.append((place.get("name", name).lower().encode(), header_value(value)))
                else:
                    more[name] = value
        named = "Message" if says(shape, "Message") else "message"
        return Reply(status, headers, orjson.dumps({**more, named: error.message}))


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
