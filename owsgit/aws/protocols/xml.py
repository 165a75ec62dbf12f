"""Values in XML, as query and REST with XML have them: written by their shape, and read back into what readers take.

https://smithy.io/2.0/spec/protocol-traits.html#xml-bindings
"""

import base64
import math
import re
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring
from xml.parsers import expat

from botocore.model import ListShape, MapShape, Shape, StructureShape

from owsgit.aws.api import ServiceError
from owsgit.aws.readers import DEPTH_MAX
from owsgit.aws.writers import written_time

ELEMENTS_MAX = 100_000
"""Of a document, attributes among them: ten thousand parts of an upload with five checksums each have 80,000."""

_TEXT_BYTES = 1024 * 1024
"""That are gathered of a text before it is put together."""

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
"""What XML has no way to say."""


def write(parent: Element, shape: Shape, value: Any) -> None:
    """Write a value into an element."""
    if isinstance(shape, StructureShape):
        for name, given in value.items():
            if given is not None:
                _write_member(parent, shape.members[name], name, given)
    elif isinstance(shape, ListShape):
        name = shape.member.serialization.get("name", "member")
        for each in value:
            write(_below(parent, name, shape.member), shape.member, each)
    elif isinstance(shape, MapShape):
        for key, each in value.items():
            _write_entry(SubElement(parent, "entry"), shape, key, each)
    else:
        parent.text = text_of(shape, value)


def text(root: Element) -> bytes:
    """The document, which a carriage return comes through: readers take a bare one for the end of a line."""
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=False)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + written.replace(b"\r", b"&#13;")


def _write_member(parent: Element, shape: Shape, name: str, value: Any) -> None:
    wire = shape.serialization.get("name", name)
    if shape.serialization.get("xmlAttribute"):
        parent.set(wire, text_of(shape, value))
    elif isinstance(shape, ListShape) and shape.serialization.get("flattened"):
        for each in value:
            write(_below(parent, shape.member.serialization.get("name", wire), shape.member), shape.member, each)
    elif isinstance(shape, MapShape) and shape.serialization.get("flattened"):
        for key, each in value.items():
            _write_entry(SubElement(parent, wire), shape, key, each)
    else:
        write(_below(parent, wire, shape), shape, value)


def _below(parent: Element, name: str, shape: Shape) -> Element:
    space = shape.serialization.get("xmlNamespace")
    if space is None:
        return SubElement(parent, name)
    return SubElement(parent, name, {f"xmlns:{space['prefix']}" if space.get("prefix") else "xmlns": space["uri"]})


def _write_entry(entry: Element, shape: MapShape, key: str, value: Any) -> None:
    SubElement(entry, shape.key.serialization.get("name", "key")).text = CONTROLS.sub("?", key)
    write(SubElement(entry, shape.value.serialization.get("name", "value")), shape.value, value)


def text_of(shape: Shape, value: Any, times: str = "iso8601") -> str:
    """A scalar as text, such as in an element or a header. `times`: the form of timestamps without one of their own."""
    if shape.type_name == "timestamp":
        return str(written_time(value, shape.serialization.get("timestampFormat", times)))
    if shape.type_name == "blob":
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return CONTROLS.sub("?", str(value))


class Node:
    """An element of a document that was read. Names are without their namespaces' prefixes."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name, self.attributes = name, attributes
        self.children: list[Node] = []
        self.text = ""


def parse(body: bytes) -> Node:
    """The root of a document without a type of its own, hence without entities. Raises ServiceError (MalformedXML)."""
    reading = _Reading()
    parser = expat.ParserCreate()
    parser.buffer_text, parser.buffer_size = True, _TEXT_BYTES
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = reading.refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError):  # the latter of odd encodings
        raise malformed() from None
    return reading.root.children[0]


def malformed(why: str = "") -> ServiceError:
    """What S3 says of XML that is not of the service's schema."""
    text = "The XML you provided was not well-formed or did not validate against our published schema"
    return ServiceError("MalformedXML", f"{text}: {why}" if why else text)


class _Reading:
    """What has been read of a document so far."""

    def __init__(self) -> None:
        self.root = Node("", {})
        self._open = [self.root]
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1 + len(attributes)
        if self._count > ELEMENTS_MAX:
            raise malformed("it has too many elements")
        if len(self._open) > DEPTH_MAX:
            raise malformed("it is nested too deep")
        named = [key for key in attributes if key != "xmlns" and not key.startswith("xmlns:")]
        node = Node(_local(name), {_local(key): attributes[key] for key in named} if named else attributes)
        if len(node.attributes) < len(named):
            raise malformed("an attribute is there more than once")
        self._open[-1].children.append(node)
        self._open.append(node)

    def end(self, name: str) -> None:
        self._open.pop()

    def text(self, text: str) -> None:
        self._open[-1].text += text

    def refuse(self, *_: object) -> None:
        raise malformed("a document type is not taken")


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def read(shape: Shape, nodes: Sequence[Node]) -> Any:
    """What readers of texts take (shapes.py): of one element, or of the elements of a flattened list or map.

    Raises ServiceError for what could be read in two ways.
    """
    flat = shape.serialization.get("flattened")
    if isinstance(shape, ListShape):
        wire = shape.member.serialization.get("name", "member")
        members = nodes if flat else _children(_only(nodes), wire)
        return [read(shape.member, [each]) for each in members]
    if isinstance(shape, MapShape):
        return _read_map(shape, nodes if flat else _children(_only(nodes), "entry"))
    node = _only(nodes)
    if isinstance(shape, StructureShape):
        return _read_structure(shape, node)
    if node.children:
        raise malformed(f"{node.name[:40]} holds elements")
    return node.text


def _only(nodes: Sequence[Node]) -> Node:
    if len(nodes) != 1:
        raise malformed(f"{nodes[0].name[:40]} is there more than once")
    return nodes[0]


def _children(node: Node, name: str) -> list[Node]:
    if any(each.name != name for each in node.children):
        raise malformed(f"{node.name[:40]} holds something else than {name}")
    return node.children


def _read_structure(shape: StructureShape, node: Node) -> dict[str, Any]:
    below: dict[str, list[Node]] = {}
    for child in node.children:
        below.setdefault(child.name, []).append(child)
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        wire = _local(member.serialization.get("name", name))
        if member.serialization.get("xmlAttribute"):
            if wire in node.attributes:
                found[name] = node.attributes[wire]
        elif wire in below:
            found[name] = read(member, below[wire])
    return found


def _read_map(shape: MapShape, entries: Sequence[Node]) -> dict[str, Any]:
    names = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
    found: dict[str, Any] = {}
    for entry in entries:
        parts = {each.name: each for each in entry.children}
        if set(parts) != set(names) or len(entry.children) != 2 or parts[names[0]].text in found:
            raise malformed("the entries of a map have a key each, and a value")
        found[parts[names[0]].text] = read(shape.value, [parts[names[1]]])
    return found
