"""Whatever the models allow, drawn at random: botocore writes it, it is read, it is written, botocore reads it."""

import string
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.protocols import SPOKEN, operations, parsed, spoken, written

DEPTH = 5
ASCII = st.text(string.ascii_letters + string.digits + "-_.~!$'()*+,:;@&=%/\"\\ ", min_size=1, max_size=12)
PLACED = ASCII.map(str.strip).filter(lambda text: text not in ("", ".", ".."))
"""What can stand in paths, queries and headers."""

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=12)
TIME = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))  # noqa: DTZ001 - given a zone
DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT, below, max_size=3),
    max_leaves=5,
)
BITS = {"integer": 31, "long": 63, "short": 15, "byte": 7}


def value_of(draw: Any, shape: Shape, depth: int = 0) -> Any:
    """A value of a shape. Empty lists, and structures in which nothing is, are not told apart in all protocols."""
    placed = "location" in shape.serialization
    if isinstance(shape, StructureShape):
        return draw(DOCUMENT) if getattr(shape, "is_document_type", False) else structure_of(draw, shape, depth)
    if isinstance(shape, ListShape):
        count = draw(st.integers(1, 3)) if depth < DEPTH else 1
        return [_placed(draw, shape.member, depth, placed=placed) for _ in range(count)]
    if isinstance(shape, MapShape):
        keys = draw(st.lists(KEYS if placed else TEXT.filter(bool), min_size=1, max_size=2, unique=True))
        return {key: _placed(draw, shape.value, depth, placed=placed) for key in keys}
    return draw(scalars(shape, placed=placed))


KEYS = st.text(string.ascii_lowercase + "-", min_size=1, max_size=8).map(lambda text: f"k{text}")


def _placed(draw: Any, shape: Shape, depth: int, *, placed: bool) -> Any:
    return draw(scalars(shape, placed=True)) if placed and _flat(shape) else value_of(draw, shape, depth + 1)


def scalars(shape: Shape, *, placed: bool) -> st.SearchStrategy[Any]:
    if shape.type_name in BITS:
        return st.integers(-(2 ** BITS[shape.type_name]), 2 ** BITS[shape.type_name] - 1)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "string": PLACED if placed else TEXT,
        "character": PLACED if placed else TEXT,
        "blob": st.binary(min_size=1, max_size=12),
        "boolean": st.booleans(),
        "timestamp": TIME,
        "float": st.floats(-60_000, 60_000, width=16),
        "double": st.floats(allow_nan=False, allow_infinity=False),
    }
    return kinds[shape.type_name]


def structure_of(draw: Any, shape: StructureShape, depth: int) -> dict[str, Any]:
    known = {name: member for name, member in shape.members.items() if not member.serialization.get("eventstream")}
    known = {name: each for name, each in known.items() if each.serialization.get("location") != "statusCode"}
    required = [name for name in known if name in shape.required_members]
    rest = [name for name in known if name not in required]
    if depth >= DEPTH:
        rest = [name for name in rest if _flat(known[name])]
    if getattr(shape, "is_tagged_union", False):
        chosen = [draw(st.sampled_from(rest or list(known)))]
    else:
        more = draw(st.lists(st.sampled_from(rest), max_size=4, unique=True)) if rest else []
        chosen = required + more or rest[:1] or list(known)[:1]
    found = {name: value_of(draw, known[name], depth + 1) for name in sorted(chosen, key=list(known).index)}
    payload = shape.serialization.get("payload")
    return {**found, payload: "x"} if found.get(payload) == "" else found  # a body of nothing is none


def _flat(shape: Shape) -> bool:
    return not isinstance(shape, StructureShape | ListShape | MapShape)


def told(reply: Any, name: str, operation: OperationModel, result: dict[str, Any]) -> dict[str, Any]:
    """What botocore reads, without what it makes up: bodies that are empty, and what every response has."""
    found = parsed(reply, name, operation.output_shape, stream=operation.has_streaming_output)
    read = {key: value.read() if hasattr(value, "read") else value for key, value in found.items()}
    made_up = ("ResponseMetadata", "ContentType", "Status", "StatusCode")
    return {
        key: value for key, value in read.items() if key in result or (value not in ({}, b"") and key not in made_up)
    }


SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(("service", "name"), SPOKEN)
@SETTINGS
@given(st.data())
def test_any_request_is_read_as_it_was_meant(service: str, name: str, data: st.DataObject) -> None:
    protocol = spoken(service, name)
    operation = data.draw(st.sampled_from([each for each in operations(protocol) if each.input_shape is not None]))
    assert operation.input_shape is not None
    parameters = value_of(data.draw, operation.input_shape)
    incoming = written(operation, name, parameters)
    found = protocol.find(incoming)
    assert found is not None and found.name == operation.name
    assert {name: value for name, value in protocol.read(found, incoming).items() if value != {}} == parameters


@pytest.mark.parametrize(("service", "name"), SPOKEN)
@SETTINGS
@given(st.data())
def test_any_result_is_read_by_botocore_as_it_was_meant(service: str, name: str, data: st.DataObject) -> None:
    protocol = spoken(service, name)
    able = [each for each in operations(protocol) if each.output_shape is not None and not each.has_event_stream_output]
    operation = data.draw(st.sampled_from(able))
    assert operation.output_shape is not None
    result = value_of(data.draw, operation.output_shape)
    assert told(protocol.write(operation, result, "id"), name, operation, result) == result
