"""Query: forms with Action and Version, answered in XML. https://smithy.io/2.0/aws/protocols/aws-query-protocol.html"""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from owsgit.aws.api import ServiceError
from owsgit.aws.protocols import xml
from owsgit.aws.protocols.wire import Incoming, Protocol, Reply, fields, operation_of
from owsgit.aws.readers import DEPTH_MAX, Readers, check
from owsgit.aws.sigv4 import Request

FORM = b"application/x-www-form-urlencoded"

_NUMBER = re.compile(r"[1-9][0-9]{0,7}")
"""Of a member of a list, in a form: in one spelling each, and none that takes its time to read."""


class QueryProtocol(Protocol):
    """A form with Action and Version; answered in XML."""

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self._version = str(model.metadata["apiVersion"])
        self._space = str(model.metadata.get("xmlNamespace", ""))
        self._readers = Readers(text=True)

    def suits(self, request: Request) -> bool:
        form = (b"content-type", FORM)
        return b"Action=" in request.query or any((name, value[: len(FORM)]) == form for name, value in request.headers)

    def find(self, incoming: Incoming) -> OperationModel | None:
        form = _form(incoming)
        name = form.get("Action", "")
        if form.get("Version") != self._version or name not in self.model.operation_names:
            return None
        return operation_of(self.model, name)

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        if operation.input_shape is None:
            return {}
        tree = _grown({name: value for name, value in _form(incoming).items() if name not in ("Action", "Version")})
        return check(self._readers.of(operation.input_shape), _shaped(operation.input_shape, tree))

    def write(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Reply:
        root = Element(f"{operation.name}Response", xmlns=self._space)
        shape = operation.output_shape
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result")
            xml.write(SubElement(root, wrapper), shape, result)
        SubElement(SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
        return _xml(200, root, request_id)

    def refuse(self, error: ServiceError, request_id: str) -> Reply:
        root = Element("ErrorResponse", xmlns=self._space)
        told = SubElement(root, "Error")
        SubElement(told, "Type").text = "Sender" if error.status < 500 else "Receiver"
        SubElement(told, "Code").text = _QUERY_CODES.get(error.code, error.code)
        SubElement(told, "Message").text = xml.CONTROLS.sub("?", error.message)
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


def _form(incoming: Incoming) -> dict[str, str]:
    in_body = incoming.header(b"content-type").startswith(FORM.decode())
    assert isinstance(incoming.body, bytes)
    pairs = fields(incoming.body if in_body else incoming.query, plus_is_space=in_body)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ServiceError("MalformedQueryString", "a field is there more than once")
    return found


def _grown(form: Mapping[str, str]) -> dict[str, Any]:
    """`a.b.1` and its like as nested objects."""
    root: dict[str, Any] = {}
    for name, value in form.items():
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


def _xml(status: int, root: Element, request_id: str) -> Reply:
    headers = [(b"content-type", b"text/xml"), (b"x-amzn-requestid", request_id.encode())]
    return Reply(status, headers, xml.text(root))
