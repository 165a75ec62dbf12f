"""REST with bodies of JSON. https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html"""

from collections.abc import Mapping
from typing import Any

import orjson
from botocore.model import OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import ServiceError
from owsgit.aws.protocols.rest import RestProtocol
from owsgit.aws.protocols.wire import Reply, parsed, says
from owsgit.aws.readers import Readers
from owsgit.aws.writers import Writers


class RestJsonProtocol(RestProtocol):
    """Method and path name the operation; bodies are JSON both ways."""

    content_type = blob_type = b"application/json"

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._json, self._writers = Readers(wire_names=True), Writers(wire_names=True)

    @property
    def _objects(self) -> Readers:
        return self._json

    def _read_body(self, shape: StructureShape, body: bytes) -> dict[str, Any]:
        found = parsed(body)
        if not isinstance(found, dict):
            raise ServiceError("SerializationException", "the body is no object")
        wire = {
            member.serialization.get("name", name): name
            for name, member in shape.members.items()
            if "location" not in member.serialization
        }
        return {wire[name]: value for name, value in found.items() if name in wire}

    def _read_value(self, shape: Shape, body: bytes) -> Any:
        return parsed(body)

    def _write_body(self, operation: OperationModel, shape: StructureShape, value: Mapping[str, Any]) -> bytes:
        return self._write_value(shape, value)

    def _write_value(self, shape: Shape, value: Any) -> bytes:
        return orjson.dumps(self._writers.of(shape)(value))

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        shape, more, placed, status = self._error_members(error)
        if error.code == "AccessDeniedException" and shape is None:
            status = 403
        headers = [*self._head(request_id), (b"x-amzn-errortype", error.code.encode()), *placed]
        headers.append((b"content-type", self.content_type))
        named = "Message" if says(shape, "Message") else "message"
        told = self._writers.of(shape)(more) if shape is not None else {}
        return Reply(status, headers, orjson.dumps({**told, named: error.message}))
