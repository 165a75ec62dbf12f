"""JSON 1.0 and 1.1: X-Amz-Target names the operation. https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from botocore.model import OperationModel, ServiceModel

from owsgit.aws.api import ServiceError
from owsgit.aws.protocols.wire import (
    Header,
    Incoming,
    Protocol,
    Reply,
    error_shape,
    operation_of,
    parsed,
    query_error,
    says,
)
from owsgit.aws.readers import Readers, check
from owsgit.aws.sigv4 import Request
from owsgit.aws.writers import Writers


class JsonProtocol(Protocol):
    """X-Amz-Target names the operation; bodies are JSON both ways."""

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._prefix = f"{model.metadata['targetPrefix']}."
        self._type = f"application/x-amz-json-{model.metadata['jsonVersion']}".encode()
        self._readers, self._writers = Readers(), Writers()
        self._space = _NAMESPACES.get(self.name, "")

    def suits(self, request: Request) -> bool:
        return b"x-amz-target" in request.values

    def find(self, incoming: Incoming) -> OperationModel | None:
        target = incoming.header(b"x-amz-target")
        name = target.removeprefix(self._prefix)
        if name == target or name not in self.model.operation_names:
            return None
        return operation_of(self.model, name)

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        if operation.input_shape is None:
            return {}
        return check(self._readers.of(operation.input_shape), parsed(incoming.body))

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        shape = operation.output_shape
        body = self._writers.json(shape, result) if shape is not None else b"{}"
        return self._reply(200, body, request_id)

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        space = _SPACES.get(error.code, self._space)
        shape, fields = error_shape(self.model, error)
        more = self._writers.of(shape)(fields) if shape is not None else {}
        named = "Message" if error.code in _CAPITAL or says(shape, "Message") else "message"
        body = orjson.dumps({"__type": f"{space}{error.code}", named: error.message, **more})
        return self._reply(error.status, body, request_id, query_error(self.model, error))

    def _reply(self, status: int, body: bytes, request_id: str, more: Sequence[Header] = ()) -> Reply:
        headers = [
            (b"content-type", self._type),
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amz-crc32", b"%d" % zlib.crc32(body)),
            *more,
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
