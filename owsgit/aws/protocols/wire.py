"""What is common to all protocols: a request as it came, a response as it goes, and the contract between them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson
from botocore.model import OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import Pieces, ServiceError
from owsgit.aws.eventstream import Encoded
from owsgit.aws.sigv4 import Headers, Request

FIELDS_MAX = 20_000
"""Of a query or a form: a thousand metrics with some dimensions each."""

OBJECTS_MAX = 2_000_000
"""Of a body of JSON, lists among them. Each takes 64 bytes of memory and more, and two on the wire; the smallest thing
that means something, {"N":"1"} in a list, takes ten.
"""


Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Incoming:
    """A request as it came, its signature found to be good. Its body is in pieces for operations that take it so."""

    method: str
    path: bytes
    query: bytes
    headers: Headers
    body: bytes | Pieces

    def header(self, name: bytes) -> str:
        """The first header of that name; empty without one."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


@dataclass(slots=True)
class Reply:
    """A response; what frames it is the listener's. A body in pieces has to be closed."""

    status: int
    headers: Sequence[Header]
    body: bytes | Encoded | Pieces
    length: int | None = None  # of the body in bytes, where it is in pieces, or is only told of


class Protocol(ABC):
    """How one service is spoken to."""

    def __init__(self, model: ServiceModel) -> None:
        self.model = model
        self.name = str(model.service_name)

    @abstractmethod
    def suits(self, request: Request) -> bool:
        """Whether a request looks as if its client spoke this way, by its head."""

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


def parsed(body: bytes | Pieces) -> Any:
    """What JSON says. Raises ServiceError."""
    assert isinstance(body, bytes)
    if not body:
        return {}
    if body.count(b"{") + body.count(b"[") > OBJECTS_MAX:
        raise ServiceError("SerializationException", "the request has too many parts")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ServiceError("SerializationException", "the body is not JSON") from None


def fields(source: bytes, *, plus_is_space: bool) -> list[tuple[str, str]]:
    """The fields of a query or of a form, in their order. Raises ServiceError.

    In a query a plus is a plus: that is how it is signed, so that nobody on the way can make it one from %2B.
    """
    try:
        text = source.decode("utf-8") if plus_is_space else source.decode("utf-8").replace("+", "%2B")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise ServiceError(
            "MalformedQueryString", f"the form is no query string of at most {FIELDS_MAX:,} fields"
        ) from None


def header_value(value: Any) -> bytes:
    """As it may stand in a head: no line of its own, whatever an operation returns."""
    return _UNPRINTABLE.sub("?", str(value)).encode("utf-8", "replace")


_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


def signing_name(model: ServiceModel) -> str:
    """What the service is called in signatures."""
    return str(model.metadata.get("signingName", model.metadata["endpointPrefix"]))


def error_shape(model: ServiceModel, error: ServiceError) -> tuple[StructureShape | None, dict[str, Any]]:
    """The shape of an error, if the service has one, and what of the error's fields are members of it."""
    shape = model.shape_for(error.code) if error.code in model.shape_names else None
    if not isinstance(shape, StructureShape):
        return None, {}
    return shape, {name: value for name, value in error.fields.items() if name in shape.members}


def query_error(model: ServiceModel, error: ServiceError) -> list[Header]:
    """How clients are told an error by its old name, of a service that was spoken to in query before.

    https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#aws-protocols-awsquerycompatible-trait
    """
    if "awsQueryCompatible" not in model.metadata:
        return []
    shape = model.shape_for(error.code) if error.code in model.shape_names else None
    code = shape.metadata.get("error", {}).get("code", error.code) if shape is not None else error.code
    side = "Sender" if error.status < 500 else "Receiver"
    return [(b"x-amzn-query-error", header_value(f"{code};{side}"))]


def says(shape: Shape | None, member: str) -> bool:
    return isinstance(shape, StructureShape) and member in shape.members and "message" not in shape.members


@lru_cache(4096)
def operation_of(model: ServiceModel, name: str) -> OperationModel:
    return model.operation_model(name)
