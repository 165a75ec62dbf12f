"""REST with bodies of XML, as S3 has it. https://smithy.io/2.0/aws/protocols/aws-restxml-protocol.html"""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from botocore.model import OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import ServiceError
from owsgit.aws.protocols import xml
from owsgit.aws.protocols.rest import RestProtocol
from owsgit.aws.protocols.wire import Header, Reply, operation_of
from owsgit.aws.readers import Readers


class RestXmlProtocol(RestProtocol):
    """Method and path name the operation; bodies are XML both ways."""

    content_type = b"application/xml"

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._space = _namespace(model)
        self._s3 = self.name == "s3"

    @property
    def _objects(self) -> Readers:
        return self._texts

    def _read_body(self, shape: StructureShape, body: bytes) -> dict[str, Any]:
        found: dict[str, Any] = self._read_value(shape, body) if body else {}
        return {name: value for name, value in found.items() if "location" not in shape.members[name].serialization}

    def _read_value(self, shape: Shape, body: bytes) -> Any:
        root = xml.parse(body)
        if root.name not in (shape.serialization.get("name"), shape.name):
            raise xml.malformed(f"{root.name[:40]} is not {shape.serialization.get('name', shape.name)}")
        return xml.read(shape, [root])

    def _write_body(self, operation: OperationModel, shape: StructureShape, value: Mapping[str, Any]) -> bytes:
        if operation.name == "GetBucketLocation" and self._s3:  # the one whose result is its only member
            return self._document("LocationConstraint", None, value.get("LocationConstraint"))
        placed = ("location" in member.serialization for member in shape.members.values())
        if all(placed):
            return b""
        name = _ROOTS.get(operation.name, shape.name) if self._s3 else shape.name
        return self._document(shape.serialization.get("name", name), shape, value)

    def _write_value(self, shape: Shape, value: Any) -> bytes:
        return self._document(shape.serialization.get("name", shape.name), shape, value)

    def _document(self, name: str, shape: Shape | None, value: Any) -> bytes:
        root = Element(name, {"xmlns": self._space} if self._space else {})
        if shape is not None:
            xml.write(root, shape, value)
        elif value is not None:
            root.text = xml.CONTROLS.sub("?", str(value))
        return xml.text(root)

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        shape, more, placed, status = self._error_members(error)
        code, known = _S3_CODES.get(error.code, (error.code, status)) if self._s3 else (error.code, status)
        told = Element("Error")
        root = told
        if not self._s3:
            root = Element("ErrorResponse", {"xmlns": self._space} if self._space else {})
            root.append(told)
            SubElement(told, "Type").text = "Sender" if status < 500 else "Receiver"
        SubElement(told, "Code").text = code
        SubElement(told, "Message").text = xml.CONTROLS.sub("?", error.message)
        if shape is not None:
            xml.write(told, shape, more)
        for name, value in error.fields.items():  # such as the bucket that is not there
            if shape is None or name not in shape.members:
                SubElement(told, name).text = xml.CONTROLS.sub("?", str(value))
        SubElement(root, "RequestId").text = request_id
        headers = [*self._head(request_id), *placed, (b"content-type", self.content_type)]
        return Reply(known, headers, xml.text(root))

    def _head(self, request_id: str) -> list[Header]:
        head = super()._head(request_id)
        return [*head, (b"x-amz-request-id", request_id.encode())] if self._s3 else head


def _namespace(model: ServiceModel) -> str:
    """That of the service's documents: of its inputs, where nothing else says it."""
    for name in model.operation_names:
        shape = operation_of(model, name).input_shape
        space = shape.serialization.get("xmlNamespace") if shape is not None else None
        if space is not None:
            return str(space["uri"])
    return str(model.metadata.get("xmlNamespace", ""))


_ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult",
    "ListDirectoryBuckets": "ListAllMyDirectoryBucketsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListParts": "ListPartsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateSession": "CreateSessionResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetObjectAttributes": "GetObjectAttributesResponse",
}
"""What the roots of S3's results are called, which its models do not say, and older clients look at.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html"""

_S3_CODES = {
    "ValidationException": ("InvalidArgument", 400),
    "SerializationException": ("MalformedXML", 400),
    "AccessDeniedException": ("AccessDenied", 403),
    "UnrecognizedClientException": ("InvalidAccessKeyId", 403),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403),
    "MissingAuthenticationTokenException": ("AccessDenied", 403),
    "IncompleteSignatureException": ("AuthorizationHeaderMalformed", 400),
    "ExpiredTokenException": ("ExpiredToken", 400),
    "UnknownOperationException": ("MethodNotAllowed", 405),
    "RequestEntityTooLarge": ("EntityTooLarge", 400),
    "RequestTimeout": ("RequestTimeout", 400),
    "InternalFailure": ("InternalError", 500),
}
"""What common errors are called there, and their statuses.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""
