"""Keys of tables and indexes: their order, and DynamoDB's words for bad ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.services.tables import keys
from owsgit.services.tables.engine import Entry, Key
from owsgit.services.tables.keys import Attribute, KeySchema
from owsgit.services.tables.values import Item, ValidationError

INVALID = "One or more parameter values were invalid: "
NOT_VALID = "One or more parameter values are not valid. "
UPDATED = "The update expression attempted to update "
HASH_TOO_LARGE = f"{INVALID}Size of hashkey has exceeded the maximum size limit of2048 bytes"
RANGE_TOO_LARGE = f"{INVALID}Aggregated size of all range keys has exceeded the size limit of 1024 bytes"

SIMPLE = KeySchema((Attribute("pk", "S"),))
COMPOSITE = KeySchema((Attribute("pk", "S"),), (Attribute("sk", "N"),))
BINARY = KeySchema((Attribute("pk", "B"),), (Attribute("sk", "S"),))
INDEX = KeySchema((Attribute("g", "S"),), (Attribute("h", "B"),))
WIDE = KeySchema((Attribute("a", "S"), Attribute("b", "N")), (Attribute("c", "S"), Attribute("d", "B")))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
tuples = st.tuples(texts, st.integers(-1000, 1000), st.binary(max_size=4))


def encode_tuple(of: tuple[str, int, bytes]) -> bytes:
    return keys.encode_all([{"S": of[0]}, {"N": str(of[1])}, {"B": of[2]}])


@given(texts, texts)
def test_the_order_of_strings_is_that_of_their_utf8(a: str, b: str) -> None:
    assert (keys.encode({"S": a}) < keys.encode({"S": b})) == (a.encode() < b.encode())


@given(tuples, tuples)
def test_the_order_of_several_values_is_that_of_the_tuples(
    a: tuple[str, int, bytes], b: tuple[str, int, bytes]
) -> None:
    assert (encode_tuple(a) < encode_tuple(b)) == (a < b)
    assert (encode_tuple(a) == encode_tuple(b)) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"), [((b"", b"\xff"), (b"\x00", b"")), ((b"\x00", b"\x01"), (b"\x00\x00", b"")), ((b"a", b"\xff"), (b"a\x00", b""))]
)  # fmt: skip
def test_zero_bytes_do_not_mix_values_up(a: tuple[bytes, ...], b: tuple[bytes, ...]) -> None:
    left, right = ([{"B": content} for content in each] for each in (a, b))
    assert keys.encode_all(left) < keys.encode_all(right)


def test_the_first_values_are_a_prefix_of_all() -> None:
    first: Item = {"a": {"S": "x"}, "b": {"N": "1"}}
    assert keys.encode_all([*first.values(), {"B": b"z"}]).startswith(keys.encode_all([*first.values()]))


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_bounds(key: bytes, other: bytes) -> None:
    assert (other >= keys.after(key)) == (other > key)
    bound = keys.before(key)
    assert (bound is not None and other <= bound) == (other < key)
    assert (key <= other <= keys.last(key)) == other.startswith(key)


def test_keys() -> None:
    item: Item = {"pk": {"S": "é"}, "sk": {"N": "1"}, "x": {"S": ""}}
    assert keys.key_of(SIMPLE, item) == Key("é".encode())
    assert keys.key_of(COMPOSITE, item) == Key("é".encode(), keys.encode({"N": "1"}))
    assert keys.key_of(BINARY, {"pk": {"B": b"\x00"}, "sk": {"S": "s"}}) == Key(b"\x00", b"s")
    assert keys.key_from(SIMPLE, {"pk": {"S": "a"}}) == Key(b"a")
    assert COMPOSITE.names() == ["pk", "sk"]


@pytest.mark.parametrize(
    ("schema", "item", "message"),
    [
        (SIMPLE, {}, f"{INVALID}Missing the key pk in the item"),
        (COMPOSITE, {"pk": {"S": "a"}}, f"{INVALID}Missing the key sk in the item"),
        (COMPOSITE, {"pk": {"N": "1"}}, f"{INVALID}Type mismatch for key pk expected: S actual: N"),
        (SIMPLE, {"pk": {"L": []}}, f"{INVALID}Type mismatch for key pk expected: S actual: L"),
        (COMPOSITE, {"pk": {"S": "a"}, "sk": {"S": "1"}}, f"{INVALID}Type mismatch for key sk expected: N actual: S"),
        (
            SIMPLE,
            {"pk": {"S": ""}},
            f"{NOT_VALID}The AttributeValue for a key attribute cannot contain an empty string value. Key: pk",
        ),
        (
            BINARY,
            {"pk": {"B": b""}, "sk": {"S": "x"}},
            f"{NOT_VALID}The AttributeValue for a key attribute cannot contain an empty binary value. Key: pk",
        ),
        (SIMPLE, {"pk": {"S": "é" * 1025}}, HASH_TOO_LARGE),
        (BINARY, {"pk": {"B": b"x" * 2049}, "sk": {"S": "x"}}, HASH_TOO_LARGE),
        (BINARY, {"pk": {"B": b"x"}, "sk": {"S": "x" * 1025}}, RANGE_TOO_LARGE),
    ],
    ids=range(10),
)
def test_a_bad_key_of_an_item(schema: KeySchema, item: Item, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        keys.key_of(schema, item)
    assert (error.value.code, error.value.message) == ("ValidationException", message)


@pytest.mark.parametrize(
    "key",
    [
        {}, {"pk": {"S": "a"}}, {"pk": {"S": "a"}, "x": {"N": "1"}}, {"pk": {"N": "1"}, "sk": {"N": "1"}},
        {"pk": {"S": "a"}, "sk": {"L": []}}, {"pk": {"S": "a"}, "sk": {"N": "1"}, "x": {"S": ""}},
    ],
    ids=range(6),
)  # fmt: skip
def test_a_parameter_that_is_not_the_key_of_the_table(key: Item) -> None:
    with pytest.raises(ValidationError) as error:
        keys.key_from(COMPOSITE, key)
    assert error.value.message == "The provided key element does not match the schema"


def test_the_largest_keys() -> None:
    item: Item = {"pk": {"B": b"x" * 2048}, "sk": {"S": "y" * 1024}}
    assert keys.key_of(BINARY, item) == Key(b"x" * 2048, b"y" * 1024)


def test_entries_of_indexes() -> None:
    assert keys.entry_of("i", SIMPLE, {"pk": {"S": "a"}}) == Entry("i", b"a")
    assert keys.entry_of("i", INDEX, {"g": {"S": "a"}, "h": {"B": b"b"}}) == Entry("i", b"a", b"b")
    assert keys.entry_of("i", INDEX, {"g": {"S": "a"}}) is None
    assert keys.entry_of("i", INDEX, {}) is None
    wide: Item = {"a": {"S": "a"}, "b": {"N": "1"}, "c": {"S": "c"}, "d": {"B": b"d"}}
    assert keys.entry_of("i", WIDE, wide) == Entry(
        "i", keys.encode_all([wide["a"], wide["b"]]), keys.encode_all([wide["c"], wide["d"]])
    )
    assert keys.entry_of("i", WIDE, {name: wide[name] for name in "abc"}) is None


EMPTY = "The AttributeValue for a key attribute cannot contain an empty {} value."


@pytest.mark.parametrize(
    ("schema", "item", "message", "updated"),
    [
        (
            INDEX,
            {"h": {"N": "1"}},
            f"{INVALID}Type mismatch for Index Key h Expected: B Actual: N IndexName: i",
            f"{UPDATED}the secondary index key to unsupported type",
        ),
        (
            INDEX,
            {"g": {"S": ""}},
            f"{NOT_VALID}A value specified for a secondary index key is not supported. "
            f"{EMPTY.format('string')} IndexName: i, IndexKey: g",
            f"{NOT_VALID}{UPDATED}a secondary index key to a value that is not supported. {EMPTY.format('string')}",
        ),
        (
            INDEX,
            {"h": {"B": b""}},
            f"{NOT_VALID}A value specified for a secondary index key is not supported. "
            f"{EMPTY.format('binary')} IndexName: i, IndexKey: h",
            f"{NOT_VALID}{UPDATED}a secondary index key to a value that is not supported. {EMPTY.format('binary')}",
        ),
        (
            INDEX,
            {"g": {"S": "x" * 2049}},
            HASH_TOO_LARGE,
            f"{UPDATED}the secondary index key beyond allowed size limits",
        ),
        (
            WIDE,
            {"c": {"S": "x" * 512}, "d": {"B": b"x" * 513}},
            RANGE_TOO_LARGE,
            f"{UPDATED}the secondary index key beyond allowed size limits",
        ),
    ],
    ids=range(5),
)
def test_a_bad_key_of_an_index(schema: KeySchema, item: Item, message: str, updated: str) -> None:
    for update, expected in ((False, message), (True, updated)):
        with pytest.raises(ValidationError) as error:
            keys.entry_of("i", schema, item, update=update)
        assert error.value.message == expected
