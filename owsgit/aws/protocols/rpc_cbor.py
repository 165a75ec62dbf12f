"""Smithy RPC v2 with CBOR: the path names the operation, bodies are CBOR (RFC 8949) both ways.

https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
"""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import cbor2
from botocore.model import OperationModel, ServiceModel

from owsgit.aws.api import ServiceError
from owsgit.aws.protocols.wire import (
    OBJECTS_MAX,
    Header,
    Incoming,
    Protocol,
    Reply,
    error_shape,
    operation_of,
    query_error,
    says,
)
from owsgit.aws.readers import DEPTH_MAX, Readers, check
from owsgit.aws.sigv4 import Request
from owsgit.aws.writers import Writers

BODY_BYTES_MAX = 8 * 1024 * 1024
"""Of a request: eight times what CloudWatch takes. The smallest text that is no constant takes three bytes here."""

EPOCH = 1
"""The one tag that is taken: seconds since 1970."""

_PATH = re.compile(rb"/service/([A-Za-z0-9_.]{1,128})/operation/([A-Za-z0-9_]{1,128})")
_PARTS = bytes(range(0x80, 0xC0))
"""First bytes of lists and maps: they stand for other things as well, in texts, so what is counted is never too low."""


class RpcCborProtocol(Protocol):
    """What current SDKs choose where a service has it."""

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._target = str(model.metadata["targetPrefix"]).encode()
        self._readers, self._writers = Readers(binary=True), Writers(binary=True)

    def suits(self, request: Request) -> bool:
        return any(name == b"smithy-protocol" for name, _ in request.headers)

    def find(self, incoming: Incoming) -> OperationModel | None:
        match = _PATH.fullmatch(incoming.path)
        if match is None or incoming.method != "POST" or incoming.header(b"smithy-protocol") != "rpc-v2-cbor":
            return None
        name = match[2].decode()
        if match[1] != self._target or name not in self.model.operation_names:
            return None
        return operation_of(self.model, name)

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        if operation.input_shape is None:
            return {}
        assert isinstance(incoming.body, bytes)
        return check(self._readers.of(operation.input_shape), loads(incoming.body))

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        shape = operation.output_shape
        body = cbor2.dumps(self._writers.of(shape)(result)) if shape is not None else b""
        return Reply(200, self._head(request_id, typed=shape is not None), body)

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        shape, fields = error_shape(self.model, error)
        more = self._writers.of(shape)(fields) if shape is not None else {}
        named = "Message" if says(shape, "Message") else "message"
        body = cbor2.dumps({"__type": error.code, named: error.message, **more})
        return Reply(error.status, [*self._head(request_id), *query_error(self.model, error)], body)

    @staticmethod
    def _head(request_id: str, *, typed: bool = True) -> list[Header]:
        head = [(b"smithy-protocol", b"rpc-v2-cbor"), (b"x-amzn-requestid", request_id.encode())]
        return [*head, (b"content-type", b"application/cbor")] if typed else head


def loads(body: bytes) -> Any:
    """What CBOR says, in bounds: one value, with times as its only tags. Raises ServiceError."""
    if not body:
        return {}
    if len(body) > BODY_BYTES_MAX or len(body) - len(body.translate(None, _PARTS)) > OBJECTS_MAX:
        raise ServiceError("SerializationException", "the request has too many parts")
    source = io.BytesIO(body)
    decoder = cbor2.CBORDecoder(
        source,
        max_depth=DEPTH_MAX,
        semantic_decoders=_TAGS,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        found = decoder.decode()
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError):
        raise _not_cbor() from None
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return found
    raise _not_cbor()


def _not_cbor() -> ServiceError:
    return ServiceError("SerializationException", "the body is not one value of CBOR that is taken here")


class _Tags(dict[int, Callable[..., Any]]):
    """Refuses what is not there: references that share or loop, numbers without a bound, patterns."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        if tag == EPOCH:
            raise KeyError(tag)  # the decoder's own
        return _refuse


def _refuse(*_: object) -> Any:
    raise ValueError("a tag that is not taken")


_TAGS = _Tags()
