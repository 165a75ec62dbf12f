"""From what operations return to the wire: writers for the shapes of botocore's models, in JSON and what is like it."""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import orjson
from botocore.model import ListShape, MapShape, Shape, StructureShape
from cbor2 import CBORTag

from owsgit.aws.shapes import ByShape

Writer = Callable[[Any], Any]


class Writers(ByShape[Writer]):
    """The writers of one service, for JSON and what is like it."""

    def __init__(self, times: str = "unixTimestamp", *, wire_names: bool = False, binary: bool = False) -> None:
        """`times`: the form of timestamps for which the model says none. `binary`: bytes stay such, and times are
        seconds with a tag, as in CBOR."""
        super().__init__()
        self._times, self._wire_names, self._binary = times, wire_names, binary
        self._plain: dict[str, bool] = {}

    def json(self, shape: Shape, value: Mapping[str, Any]) -> bytes:
        """The JSON of a structure. What has no times in it is what the operation returned, with bytes in base64: then
        nothing is made anew, unless there are members that are None."""
        plain = self._plain.get(shape.name)
        if plain is None:
            plain = self._plain[shape.name] = not self._wire_names and not _holds_times(shape, set())
        if plain and value.keys() <= shape.members.keys():
            body: bytes = orjson.dumps(value, default=_base64)
            if b":null" not in body:
                return body
        made: bytes = orjson.dumps(self.of(shape)(value))
        return made

    def _scalar(self, shape: Shape) -> Writer:
        if self._binary:
            return _tagged_time if shape.type_name == "timestamp" else _same
        if shape.type_name == "blob":
            return _base64
        if shape.type_name == "timestamp":
            form = shape.serialization.get("timestampFormat", self._times)
            return lambda value: written_time(value, form)
        return _same

    def _structure(self, shape: StructureShape) -> Writer:
        if getattr(shape, "is_document_type", False):
            return _same
        members: dict[str, tuple[str, Writer]] = {}

        def write(value: Any) -> Any:
            found = {}
            for name, given in value.items():
                if given is None:
                    continue
                known = members.get(name)
                if known is None:
                    member = shape.members[name]
                    wire = member.serialization.get("name", name) if self._wire_names else name
                    known = members[name] = wire, self.of(member)
                wire, writer = known
                found[wire] = given if writer is _same else writer(given)
            return found

        return write

    def _list(self, shape: ListShape) -> Writer:
        if shape.member.type_name not in ("structure", "list", "map", "blob", "timestamp"):
            return _same
        return lambda value: [self.of(shape.member)(each) if each is not None else None for each in value]

    def _map(self, shape: MapShape) -> Writer:
        def write(value: Any) -> Any:
            writer = self.of(shape.value)
            return {name: writer(each) for name, each in value.items()}

        return write


def _same(value: Any) -> Any:
    return value


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


def _holds_times(shape: Shape, seen: set[str]) -> bool:
    """Whether there are timestamps anywhere below it. `seen`: names of shapes that are being looked at, or were."""
    if shape.name in seen:
        return False
    seen.add(shape.name)
    if isinstance(shape, StructureShape):
        return any(_holds_times(member, seen) for member in shape.members.values())
    if isinstance(shape, ListShape):
        return _holds_times(shape.member, seen)
    if isinstance(shape, MapShape):
        return _holds_times(shape.value, seen)
    return bool(shape.type_name == "timestamp")


def _tagged_time(value: datetime) -> CBORTag:
    return CBORTag(1, written_time(value, "unixTimestamp"))


def written_time(value: datetime, form: str) -> Any:
    """A timestamp as the wire has it."""
    if form == "unixTimestamp":
        seconds = value.timestamp()
        return int(seconds) if seconds.is_integer() else round(seconds, 3)
    if form == "rfc822":
        return format_datetime(value.astimezone(UTC), usegmt=True)
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
