"""From the wire to what operations get: readers for the shapes of botocore's models.

A reader takes what was parsed (JSON, a query, headers): blobs become bytes, timestamps datetimes with a zone. What has
the wrong type is refused at once (SerializationException); what breaks the model's constraints is gathered, as AWS
tells of all of it together (ValidationException).
"""

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from owsgit.aws.api import ServiceError
from owsgit.aws.shapes import ByShape

Place = tuple[Any, int | str, int, bool] | None
"""Where a value stands: the place above it, its name or number there, how deep it is, and whether it is one of many.
A path is written only for what is wrong: a client that names things at length must not have it copied for each of them.
"""

PROBLEMS_MAX = 10
SHOWN_CHARACTERS_MAX = 200
DEPTH_MAX = 96
"""Of values in each other: an item of DynamoDB has 32 levels, of two each, in a request around it."""

PATTERN_CHARACTERS_MAX = 4096
"""Longer texts are not held against a pattern: the models' are written for short ones, and some take their time."""

REDACTED = "*** Sensitive Data Redacted ***"
"""In place of what the model calls sensitive: errors stand in the audit log."""

ENUM_ORDERS = {
    frozenset(order): order
    for order in (
        ("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"),
        ("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"),
        ("OR", "AND"),
    )
}
"""In which AWS was seen to name the values of an enumeration, where that is not the model's order."""

_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
_INTEGERS = {"integer": 31, "long": 63, "short": 15, "byte": 7}


class Problems:
    """What is wrong with a request: all of it is counted, and the first of it is told."""

    def __init__(self) -> None:
        self.count = 0
        self._texts: list[str] = []

    def add(self, value: Any, place: Place, constraint: str) -> None:
        """One broken constraint."""
        self.count += 1
        if self.count <= PROBLEMS_MAX:
            shown = "null" if value is None else f"'{_shown(value)}'"
            where = path_of(place)
            self._texts.append(f"Value {shown} at '{where}' failed to satisfy constraint: Member must {constraint}")

    def check(self) -> None:
        """Raises ServiceError, in AWS's words, if anything is wrong."""
        if self.count:
            what = "error" if self.count == 1 else "errors"
            text = f"{self.count} validation {what} detected: {'; '.join(self._texts)}"
            raise ServiceError("ValidationException", text)


Reader = Callable[[Any, Place, Problems], Any]
"""Takes a value, where it stands, and what is wrong so far. Raises ServiceError for the wrong type."""


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        first = ", ".join(_shown(each) for each in itertools.islice(value, PROBLEMS_MAX))
        return f"[{first[:SHOWN_CHARACTERS_MAX]}]"
    return value[:SHOWN_CHARACTERS_MAX] if isinstance(value, str) else str(value)[:SHOWN_CHARACTERS_MAX]


def member_of(place: Place, name: str) -> Place:
    """Where a member of a structure stands."""
    return place, name, place[2] + 1 if place is not None else 1, False


def path_of(place: Place) -> str:
    """A place as AWS writes it: `writeItems.orders.member.2.member`."""
    parts: list[str] = []
    while place is not None:
        above, name, _, one_of_many = place
        text = str(name)[:SHOWN_CHARACTERS_MAX]
        parts.append(f"{text}.member" if one_of_many else text[:1].lower() + text[1:])
        place = above
    return ".".join(reversed(parts))[:SHOWN_CHARACTERS_MAX]


def _deeper(place: Place) -> int:
    """How deep what stands in `place` is. Raises ServiceError if that is too deep."""
    depth = place[2] + 1 if place is not None else 1
    if depth > DEPTH_MAX:
        raise ServiceError("SerializationException", "the request is nested too deep")
    return depth


class Readers(ByShape[Reader]):
    """The readers of one service. `text`: scalars come as texts, as in queries and headers, not as JSON's."""

    def __init__(self, *, text: bool = False, wire_names: bool = False, binary: bool = False) -> None:
        """`wire_names`: members are called as the model's locationName says, where it says one. `binary`: bytes and
        times come as such, as in CBOR."""
        super().__init__()
        self._text, self._wire_names, self._binary = text, wire_names, binary

    def _scalar(self, shape: Shape) -> Reader:
        scalars = {
            "string": self._string,
            "character": self._string,
            "blob": self._blob,
            "boolean": self._boolean,
            "timestamp": self._timestamp,
            "float": self._float,
            "double": self._float,
        }
        return self._integer(shape) if shape.type_name in _INTEGERS else scalars[shape.type_name](shape)

    def _structure(self, shape: StructureShape) -> Reader:
        if getattr(shape, "is_document_type", False):
            return lambda value, place, problems: value
        names: dict[str, tuple[str, Shape]] = {}
        for name, member in shape.members.items():
            wire = member.serialization.get("name", name) if self._wire_names else name
            names[wire] = name, member
        readers: dict[str, tuple[str, Reader]] = {}  # made as they are needed: shapes hold themselves
        required = tuple(shape.required_members)
        union = bool(getattr(shape, "is_tagged_union", False))

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if type(value) is not dict:
                raise _wrong(value, "structure")
            depth = _deeper(place)
            found: dict[str, Any] = {}
            for wire, given in value.items():
                if given is None:
                    continue
                known = readers.get(wire)
                if known is None:
                    if wire not in names:
                        continue  # of a newer model: AWS takes no notice of it either
                    name, member = names[wire]
                    known = readers[wire] = name, self.of(member)
                name, reader = known
                if reader is _any_text and type(given) is str:  # as most are: without a call
                    found[name] = given
                else:
                    found[name] = reader(given, (place, name, depth, False) if not union else place, problems)
            for name in required:
                if name not in found:
                    problems.add(None, (place, name, depth, False), "not be null")
            return found

        return read

    def _list(self, shape: ListShape) -> Reader:
        made: list[Reader] = []
        check = _lengths(shape)
        sparse = _sparse(shape)

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if type(value) is not list:
                raise _wrong(value, "list")
            if not made:
                made.append(self.of(shape.member))
            reader, depth = made[0], _deeper(place)
            found = [
                reader(each, (place, index, depth, True), problems) if each is not None else None
                for index, each in enumerate(value, 1)
                if each is not None or sparse
            ]
            if check is not None:
                check(len(value), value, place, problems)
            return found

        return read

    def _map(self, shape: MapShape) -> Reader:
        made: list[tuple[Reader, Reader, frozenset[str]]] = []
        check = _lengths(shape)

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if type(value) is not dict:
                raise _wrong(value, "map")
            if not made:
                made.append((self.of(shape.key), self.of(shape.value), self._texts_of(shape.value)))
            (key, reader, texts), depth = made[0], _deeper(place)
            found: dict[str, Any] = {}
            for name, each in value.items():
                if each is None:
                    continue
                if type(each) is dict and len(each) == 1 and depth < DEPTH_MAX:  # most are {"S": "..."}: without a call
                    [(member, content)] = each.items()
                    if member in texts and type(content) is str:
                        found[key(name, place, problems)] = each
                        continue
                found[key(name, place, problems)] = reader(each, (place, name, depth, True), problems)
            if check is not None:
                check(len(value), value, place, problems)
            return found

        return read

    def _texts_of(self, shape: Shape) -> frozenset[str]:
        """The members of a structure that are any text: with one of them alone, it is read as it is."""
        if not isinstance(shape, StructureShape) or shape.required_members or getattr(shape, "is_document_type", False):
            return frozenset()
        kept = {
            name: member
            for name, member in shape.members.items()
            if not self._wire_names or member.serialization.get("name", name) == name
        }
        return frozenset(name for name, member in kept.items() if self.of(member) is _any_text)

    def _string(self, shape: Shape) -> Reader:
        check = _lengths(shape)
        pattern = _pattern(shape)
        enum = frozenset(shape.metadata.get("enum", ()))
        shown_enum = ", ".join(ENUM_ORDERS.get(enum, shape.metadata.get("enum", ())))
        sensitive = bool(shape.metadata.get("sensitive"))
        most = shape.metadata.get("max", PATTERN_CHARACTERS_MAX)
        if check is None and pattern is None and not enum:
            return _any_text

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if type(value) is not str:
                raise _wrong(value, "string")
            shown = REDACTED if sensitive else value
            if check is not None:
                check(len(value), shown, place, problems)
            if pattern is not None and (len(value) > most or pattern.fullmatch(value) is None):
                problems.add(shown, place, f"satisfy regular expression pattern: {shape.metadata['pattern']}")
            if enum and value not in enum:
                problems.add(shown, place, f"satisfy enum value set: [{shown_enum}]")
            return value

        return read

    def _blob(self, shape: Shape) -> Reader:
        check = _lengths(shape)
        sensitive = bool(shape.metadata.get("sensitive"))

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if isinstance(value, bytes):  # a payload, which is not encoded
                found = value
            elif type(value) is not str or self._binary:
                raise _wrong(value, "blob")
            else:
                try:
                    found = base64.b64decode(value, validate=True)
                except (binascii.Error, ValueError):
                    shown = REDACTED if sensitive else value[:40]
                    raise ServiceError("SerializationException", f"Base64 encoded data is invalid: '{shown}'") from None
            if check is not None:
                check(len(found), f"[{len(found)} bytes]", place, problems)
            return found

        return read

    def _boolean(self, shape: Shape) -> Reader:
        texts = {"true": True, "false": False} if self._text else {}

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if type(value) is str and value in texts:
                return texts[value]
            if type(value) is not bool:
                raise _wrong(value, "boolean")
            return value

        return read

    def _integer(self, shape: Shape) -> Reader:
        check = _range(shape)
        bound = 1 << _INTEGERS[shape.type_name]
        words = shape.type_name

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if self._text and type(value) is str and re.fullmatch(r"[+-]?[0-9]{1,20}", value):
                value = int(value)
            if type(value) is float and value.is_integer():
                value = int(value)
            if type(value) is not int or not -bound <= value < bound:
                raise _wrong(value, words)
            if check is not None:
                check(value, place, problems)
            return value

        return read

    def _float(self, shape: Shape) -> Reader:
        check = _range(shape)

        def read(value: Any, place: Place, problems: Problems) -> Any:
            if type(value) is str and (value in _NO_NUMBERS or (self._text and _FLOAT.fullmatch(value[:400]))):
                value = float(value[:400])
            if type(value) not in (int, float):
                raise _wrong(value, "double")
            if check is not None:
                check(value, place, problems)
            return float(value)

        return read

    def _timestamp(self, shape: Shape) -> Reader:
        def read(value: Any, place: Place, problems: Problems) -> Any:
            if self._binary and isinstance(value, datetime):
                return value
            return timestamp(value)

        return read


def _any_text(value: Any, place: Place, problems: Problems) -> Any:
    if type(value) is not str:
        raise _wrong(value, "string")
    return value


def timestamp(value: Any) -> datetime:
    """A time in any of AWS's three forms: seconds since 1970, RFC 3339, RFC 9110's. Raises ServiceError."""
    try:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", value):
            value = float(value)
        if type(value) in (int, float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            found = datetime.fromisoformat(value) if "-" in value[:5] else parsedate_to_datetime(value)
            return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise _wrong(value, "timestamp")


_FOUND = {str: "STRING_VALUE", bool: "TRUE_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}
_WANTED = {
    "string": "String", "boolean": "Boolean", "integer": "Integer", "long": "Long", "short": "Short", "byte": "Byte",
    "double": "Double", "timestamp": "Timestamp", "blob": "byte[]",
}  # fmt: skip


def _wrong(value: Any, wanted: str) -> ServiceError:
    """What AWS says of a value of another type."""
    if isinstance(value, dict | list):
        what = "structure or map" if isinstance(value, dict) else "list"
        message = f"Start of {what} found where not expected"
    elif wanted in ("structure", "map"):
        message = "Unexpected value type in payload"
    elif wanted == "list":
        message = "Unexpected field type"
    else:
        found = "FALSE_VALUE" if value is False else _FOUND.get(type(value), "NULL_VALUE")
        message = f"{found} cannot be converted to {_WANTED[wanted]}"
    return ServiceError("SerializationException", message)


def _sparse(shape: Shape) -> bool:
    """Whether a list may hold nulls: botocore's own classes do not say it."""
    model: Mapping[str, Any] = getattr(shape, "_shape_model", {})
    return bool(model.get("sparse"))


def _lengths(shape: Shape) -> Callable[[int, Any, Place, Problems], None] | None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return None

    def check(length: int, value: Any, place: Place, problems: Problems) -> None:
        if least is not None and length < least:
            problems.add(value, place, f"have length greater than or equal to {least}")
        if most is not None and length > most:
            problems.add(value, place, f"have length less than or equal to {most}")

    return check


def _range(shape: Shape) -> Callable[[Any, Place, Problems], None] | None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return None

    def check(value: Any, place: Place, problems: Problems) -> None:
        if least is not None and not value >= least:  # which is so of NaN, too
            problems.add(value, place, f"have value greater than or equal to {least}")
        if most is not None and not value <= most:
            problems.add(value, place, f"have value less than or equal to {most}")

    return check


def _pattern(shape: Shape) -> re.Pattern[str] | None:
    """The pattern of a text, where Python's means the same: a few are Java's own."""
    text = shape.metadata.get("pattern")
    try:
        return re.compile(text) if text else None
    except re.error:
        return None


def check(reader: Reader, value: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an operation. Raises ServiceError for whatever is wrong with them."""
    problems = Problems()
    found: dict[str, Any] = reader(value, None, problems)
    problems.check()
    return found
