"""Key conditions: which keys are in the range that an engine gets."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from owsgit.services.tables.expressions import Placeholders, keycondition
from owsgit.services.tables.keys import Attribute, KeySchema, encode, encode_key
from owsgit.services.tables.numbers import normal
from owsgit.services.tables.values import AttributeValue, compare

SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
PK: AttributeValue = {"S": "p"}


def schema(kind: str) -> KeySchema:
    return KeySchema((Attribute("pk", "S"),), (Attribute("sk", kind),))


def is_in(key: bytes, text: str, keys: KeySchema, **values: AttributeValue) -> bool:
    placeholders = Placeholders(None, {":pk": PK, **{f":{name}": value for name, value in values.items()}})
    parsed = keycondition.parse(text, placeholders, keys)
    placeholders.finish()
    _, low, high = parsed.bounds()
    return (low is None or low <= key) and (high is None or key <= high)


strings = st.builds(lambda text: {"S": text}, st.text("ab\x00\x01é\U0010ffff", min_size=1, max_size=4))
binaries = st.builds(
    lambda data: {"B": data}, st.lists(st.sampled_from([0, 1, 254, 255]), min_size=1, max_size=4).map(bytes)
)
numbers = st.builds(lambda n, e: {"N": normal(f"{n}e{e}")}, st.integers(-12, 12), st.integers(-3, 3))
ranges = st.sampled_from([strings, binaries, numbers]).flatmap(lambda values: st.tuples(values, values, values))


@given(ranges, st.sampled_from([*SIGNS]), st.booleans())
@example(({"B": b"\x00"}, {"B": b"\x01"}, {"B": b"\x01"}), "<", False)
@example(({"B": b"\xff\xff"}, {"B": b"\xff"}, {"B": b"\xff"}), ">", False)
def test_comparisons(values: tuple[AttributeValue, AttributeValue, AttributeValue], sign: str, flipped: bool) -> None:
    key, value, _ = values
    order = compare(key, value)
    assert order is not None
    mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)
    text = f":v {mirrored} sk AND :pk = pk" if flipped else f"pk = :pk AND sk {sign} :v"
    assert is_in(encode(key), text, schema(next(iter(key))), v=value) == SIGNS[sign](order, 0)


@given(ranges)
def test_between(values: tuple[AttributeValue, AttributeValue, AttributeValue]) -> None:
    key, low, high = values
    if (compare(low, high) or 0) > 0:
        low, high = high, low
    expected = (compare(key, low) or 0) >= 0 and (compare(key, high) or 0) <= 0
    text = "pk = :pk and sk between :low and :high"
    assert is_in(encode(key), text, schema(next(iter(key))), low=low, high=high) == expected


@given(st.sampled_from([strings, binaries]).flatmap(lambda values: st.tuples(values, values)))
def test_begins_with(values: tuple[AttributeValue, AttributeValue]) -> None:
    key, start = values
    [(kind, content)] = key.items()
    text = "begins_with(sk, :v) AND pk = :pk"
    assert is_in(encode(key), text, schema(kind), v=start) == content.startswith(start[kind])


SEVERAL = KeySchema(
    (Attribute("h1", "S"), Attribute("h2", "N")),
    (Attribute("r1", "S"), Attribute("r2", "B"), Attribute("r3", "N")),
)
few_strings = st.builds(lambda text: {"S": text}, st.text("a\x00\x01", min_size=1, max_size=2))
few_binaries = st.builds(
    lambda data: {"B": data}, st.sampled_from([b"\x00", b"\x00\xff", b"\x01", b"\xff", b"\xff\xff", b"a"])
)
few_numbers = st.builds(lambda n: {"N": str(n)}, st.integers(-2, 2))
tuples = st.tuples(few_strings, few_binaries, few_numbers)


@given(tuples, tuples, st.integers(1, 3), st.sampled_from([*SIGNS, "begins_with", "BETWEEN"]))
def test_several_attributes(
    key: tuple[AttributeValue, ...], values: tuple[AttributeValue, ...], count: int, sign: str
) -> None:
    if sign == "begins_with" and count == 3:
        sign = "="
    terms = [f"r{n} = :r{n}" for n in range(1, count)]
    match sign:
        case "begins_with":
            terms.append(f"begins_with(r{count}, :r{count})")
        case "BETWEEN":
            terms.append(f"r{count} BETWEEN :r{count} AND :r{count}")
        case _:
            terms.append(f"r{count} {sign} :r{count}")
    placeholders = Placeholders(
        None, {":h1": {"S": "h"}, ":h2": {"N": "1"}, **{f":r{n + 1}": values[n] for n in range(count)}}
    )
    parsed = keycondition.parse(" AND ".join([*reversed(terms), "h2 = :h2", "h1 = :h1"]), placeholders, SEVERAL)
    placeholders.finish()
    hashed, low, high = parsed.bounds()
    assert hashed == encode_key(SEVERAL.hash, [{"S": "h"}, {"N": "1"}])
    encoded = encode_key(SEVERAL.range, key)
    order = compare(key[count - 1], values[count - 1])
    assert order is not None
    match sign:
        case "begins_with":
            [(kind, content)] = key[count - 1].items()
            last = content.startswith(values[count - 1][kind])
        case "BETWEEN":
            last = order == 0
        case _:
            last = SIGNS[sign](order, 0)
    expected = last and all(compare(key[n], values[n]) == 0 for n in range(count - 1))
    assert ((low is None or low <= encoded) and (high is None or encoded <= high)) == expected


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("pk = :pk", None, None),
        ("pk = :pk AND sk = :v", b"b", b"b"),
        ("pk = :pk AND sk >= :v", b"b", None),
        ("pk = :pk AND sk <= :v", None, b"b"),
        ("(pk = :pk) AND (sk <= :v)", None, b"b"),
    ],
)
def test_spans_of_a_table(text: str, low: bytes | None, high: bytes | None) -> None:
    values = {":pk": PK, ":v": {"S": "b"}}
    parsed = keycondition.parse(text, Placeholders(None, values), schema("S"))
    span = parsed.span("orders", "by_day", backwards=True)
    assert (span.table, span.index, span.backwards, span.after) == ("orders", "by_day", True, None)
    assert (span.hash, span.low, span.high) == (b"p", low, high)
    assert parsed.bounds() == (b"p", low, high)


def test_a_hash_key_alone() -> None:
    parsed = keycondition.parse("id = :n", Placeholders(None, {":n": {"N": "1.0"}}), KeySchema((Attribute("id", "N"),)))
    assert parsed.bounds() == (encode({"N": "1"}), None, None)
