"""AttributeValues and items: validation in DynamoDB's words, sizes, equality, storage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owsgit.services.tables import numbers, values
from owsgit.services.tables.errors import older
from owsgit.services.tables.values import AttributeValue, Item, ValidationError

INVALID = "One or more parameter values were invalid: "
EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
SEVERAL = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
NOT_A_NUMBER = "The parameter cannot be converted to a numeric value"
TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
number_texts = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(-1000, 1000, places=3).map(str),
    st.sampled_from(["1e125", "-1e-130", "1.50", "-0", "007"]),
)
binaries = st.binary(max_size=6)
scalars = st.one_of(
    texts.map(lambda content: {"S": content}),
    number_texts.map(lambda content: {"N": content}),
    binaries.map(lambda content: {"B": content}),
    st.booleans().map(lambda content: {"BOOL": content}),
    st.just({"NULL": True}),
    st.lists(texts, min_size=1, max_size=4, unique=True).map(lambda content: {"SS": content}),
    st.lists(number_texts, min_size=1, max_size=4, unique_by=numbers.normal).map(lambda content: {"NS": content}),
    st.lists(binaries, min_size=1, max_size=4, unique=True).map(lambda content: {"BS": content}),
)
attribute_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda content: {"L": content}),
        st.dictionaries(texts, inner, max_size=3).map(lambda content: {"M": content}),
    ),
    max_leaves=8,
)
items = st.dictionaries(texts.filter(bool), attribute_values, max_size=6)


def nested(levels: int, kind: str = "M") -> AttributeValue:
    """A string with so many maps or lists around it."""
    value: AttributeValue = {"S": "leaf"}
    for _ in range(levels):
        value = {"M": {"n": value}} if kind == "M" else {"L": [value]}
    return value


BAD: list[tuple[AttributeValue, str]] = [
    ({}, EMPTY),
    ({"a": ""}, EMPTY),
    ({"M": {"a": {}}}, EMPTY),
    ({"L": [{}]}, EMPTY),
    ({"L": [{"a": {}}]}, EMPTY),
    ({"S": "a", "N": "1"}, SEVERAL),
    ({"M": {}, "L": []}, SEVERAL),
    ({"L": [{"S": "a", "B": b""}]}, SEVERAL),
    ({"S": "", "N": ""}, f"{NOT_A_NUMBER}: "),
    ({"S": "a", "N": "b"}, f"{NOT_A_NUMBER}: b"),
    ({"N": "b"}, f"{NOT_A_NUMBER}: b"),
    ({"M": {"x": {"N": "b"}}}, f"{NOT_A_NUMBER}: b"),
    ({"NS": ["1", ""]}, f"{NOT_A_NUMBER}: "),
    ({"NS": ["1", "b"]}, f"{NOT_A_NUMBER}: b"),
    ({"NS": ["1", "1"]}, f"{INVALID}Input collection contains duplicates."),
    ({"NS": ["1", "1.0"]}, f"{INVALID}Input collection contains duplicates."),
    ({"NULL": False}, f"{INVALID}Null attribute value types must have the value of true"),
    ({"SS": []}, f"{INVALID}An string set  may not be empty"),
    ({"NS": []}, f"{INVALID}An number set  may not be empty"),
    ({"BS": []}, f"{INVALID}Binary sets should not be empty"),
    ({"SS": ["a", "a"]}, f'{INVALID}Input collection ["a", "a"] contains duplicates.'),
    ({"SS": ["a", "b", "a"]}, f'{INVALID}Input collection ["a", "b", "a"] contains duplicates.'),
    ({"BS": [b"b", b"b"]}, f'{INVALID}Input collection ["Yg==","Yg=="]of type BS contains duplicates.'),
    ({"BS": [b"", b""]}, f'{INVALID}Input collection ["",""]of type BS contains duplicates.'),
    ({"N": "1" * 39}, "Attempting to store more than 38 significant digits in a Number"),
    ({"N": "1e126"}, "Number overflow. Attempting to store a number with magnitude larger than supported range"),
    ({"NS": ["1e-131"]}, "Number underflow. Attempting to store a number with magnitude smaller than supported range"),
    (nested(32), TOO_DEEP),
    (nested(32, "L"), TOO_DEEP),
    (nested(5_000), TOO_DEEP),
    ({"S": "\ud800"}, f"{INVALID}The string contains characters that have no form in UTF-8"),
    ({"SS": ["\ud800"]}, f"{INVALID}The string contains characters that have no form in UTF-8"),
    ({"M": {"\ud800": {"S": ""}}}, f"{INVALID}The string contains characters that have no form in UTF-8"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_value_is_refused_in_the_words_of_dynamodb(value: AttributeValue, message: str) -> None:
    for check in (lambda: values.check_item({"pk": {"S": "x"}, "a": value}), lambda: values.check_value(value)):
        with pytest.raises(ValidationError) as error:
            check()
        assert (error.value.code, error.value.message) == ("ValidationException", message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"N": ""}, NOT_A_NUMBER),
        ({"NS": ["1", "1.0"]}, "Input collection contains duplicates"),
        ({"SS": ["b", "a", "b"]}, f"{INVALID}Input collection [b, a, b] contains duplicates."),
        ({"BS": [b"b", b"b"]}, f"{INVALID}Input collection [Yg==, Yg==]of type BS contains duplicates."),
        ({"NS": []}, f"{INVALID}An number set  may not be empty"),
    ],
)
def test_older_operations_say_it_in_other_words(value: AttributeValue, message: str) -> None:
    with pytest.raises(ValidationError) as error, older():
        values.check_value(value)
    assert error.value.message == message


def test_sets_are_in_order() -> None:
    item = {"s": {"SS": ["b", "é", "a", "B"]}, "n": {"NS": ["10", "9.50", "-1"]}, "b": {"BS": [b"b", b"", b"a"]}}
    assert values.check_item(item) == {
        "s": {"SS": ["B", "a", "b", "é"]}, "n": {"NS": ["-1", "9.5", "10"]}, "b": {"BS": [b"", b"a", b"b"]}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Empty attribute name"),
        ("\ud800", "The string contains characters that have no form in UTF-8"),
        ("x" * 65_536, "Attribute name is too large, must be less than 65536 bytes"),
        ("é" * 32_768, "Attribute name is too large, must be less than 65536 bytes"),
    ],
    ids=range(4),
)
def test_a_bad_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        values.check_item({name: {"S": ""}})
    assert error.value.message == f"{INVALID}{message}"
    if name:
        with pytest.raises(ValidationError) as error:
            values.check_value({"M": {name: {"S": ""}}})
        assert error.value.message == f"{INVALID}{message}"


@pytest.mark.parametrize(
    "value",
    [
        {"S": ""}, {"B": b""}, {"SS": [""]}, {"BS": [b""]}, {"L": []}, {"M": {}}, {"BOOL": False}, {"NULL": True},
        {"M": {"": {"S": ""}}}, nested(31), nested(31, "L"), {"S": "é𝄞"},
    ],
    ids=range(12),
)  # fmt: skip
def test_what_dynamodb_takes_is_taken_as_it_is(value: AttributeValue) -> None:
    item = {"a": value}
    assert values.check_item(item) is item


def test_numbers_come_back_normal_and_what_was_given_is_left_alone() -> None:
    given_ = {"a": {"N": "1e2"}, "b": {"NS": ["1.0", "02"]}, "c": {"L": [{"M": {"d": {"N": "-0"}}}, {"S": "x"}]}}
    before = values.dump(given_)
    assert values.check_item(given_) == {
        "a": {"N": "100"},
        "b": {"NS": ["1", "2"]},
        "c": {"L": [{"M": {"d": {"N": "0"}}}, {"S": "x"}]},
    }
    assert values.dump(given_) == before


def test_a_member_that_no_type_has_is_dropped() -> None:
    assert values.check_item({"a": {"S": "x", "X": 1}}) == {"a": {"S": "x"}}


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({}, 0),
        ({"a": {"S": "bc"}}, 3),
        ({"é": {"S": "é𝄞"}}, 2 + 6),
        ({"n": {"N": "0"}}, 1 + 1),
        ({"n": {"N": "12"}}, 1 + 2),
        ({"n": {"N": "-123"}}, 1 + 4),
        ({"n": {"N": "1" + "0" * 100}}, 1 + 2),
        ({"n": {"N": "9" * 38}}, 1 + 20),
        ({"b": {"B": b"123"}}, 4),
        ({"t": {"BOOL": True}, "z": {"NULL": True}}, 4),
        ({"s": {"SS": ["a", "é"]}}, 1 + 3),
        ({"s": {"NS": ["1", "100"]}}, 1 + 4),
        ({"s": {"BS": [b"", b"12"]}}, 1 + 2),
        ({"l": {"L": []}}, 1 + 3),
        ({"l": {"L": [{"S": "a"}, {"NULL": True}]}}, 1 + 3 + 2 + 2),
        ({"m": {"M": {"ab": {"S": "c"}}}}, 1 + 3 + 1 + 2 + 1),
    ],
    ids=range(16),
)
def test_size(item: Item, size: int) -> None:
    assert values.size(item) == size


def test_the_largest_item() -> None:
    assert values.check_size({"a": {"S": "x" * (400 * 1024 - 1)}}) == 400 * 1024
    larger = {"a": {"S": "x" * 400 * 1024}}
    for update, message in ((False, "Item size has"), (True, "Item size to update has")):
        with pytest.raises(ValidationError) as error:
            values.check_size(larger, update=update)
        assert error.value.message == f"{message} exceeded the maximum allowed size"


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "abc"}, 3), ({"S": "é𝄞"}, 3), ({"B": b"\xff\x00"}, 2), ({"SS": ["a", "b"]}, 2), ({"NS": ["1"]}, 1),
        ({"BS": [b"1", b"2", b"3"]}, 3), ({"L": [{"S": "a"}]}, 1), ({"M": {"a": {"S": ""}, "b": {"S": ""}}}, 2),
        ({"N": "1"}, None), ({"BOOL": True}, None), ({"NULL": True}, None),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_the_function_size_gives(value: AttributeValue, size: int | None) -> None:
    assert values.value_size(value) == size


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ({"N": "1"}, {"N": "1.0"}, True),
        ({"N": "1"}, {"S": "1"}, False),
        ({"S": "a"}, {"S": "b"}, False),
        ({"SS": ["a", "b"]}, {"SS": ["b", "a"]}, True),
        ({"SS": ["a", "b"]}, {"L": [{"S": "a"}, {"S": "b"}]}, False),
        ({"NS": ["1", "2"]}, {"NS": ["2.0", "1"]}, True),
        ({"NS": ["1"]}, {"NS": ["1", "2"]}, False),
        ({"BS": [b"a", b"b"]}, {"BS": [b"b", b"a"]}, True),
        ({"L": [{"SS": ["a", "b"]}]}, {"L": [{"SS": ["b", "a"]}]}, True),
        ({"L": [{"S": "a"}, {"S": "b"}]}, {"L": [{"S": "b"}, {"S": "a"}]}, False),
        ({"L": [{"S": "a"}]}, {"L": []}, False),
        ({"M": {"a": {"NS": ["1", "2"]}}}, {"M": {"a": {"NS": ["2", "1"]}}}, True),
        ({"M": {"a": {"S": ""}}}, {"M": {"b": {"S": ""}}}, False),
        ({"BOOL": True}, {"BOOL": False}, False),
    ],
    ids=range(14),
)
def test_equality(a: AttributeValue, b: AttributeValue, same: bool) -> None:
    assert values.equal(a, b) is same
    assert values.equal(b, a) is same


@pytest.mark.parametrize(
    ("a", "b", "order"),
    [
        ({"S": "a"}, {"S": "b"}, -1),
        ({"S": "\uffff"}, {"S": "\U00010000"}, -1),  # by UTF-8; by UTF-16 it were the other way
        ({"N": "10"}, {"N": "9"}, 1),
        ({"N": "-0.5"}, {"N": "0"}, -1),
        ({"B": b"\x7f"}, {"B": b"\x80"}, -1),
        ({"B": b"a"}, {"B": b"a"}, 0),
        ({"S": "1"}, {"N": "1"}, None),
        ({"BOOL": True}, {"BOOL": True}, None),
        ({"SS": ["a"]}, {"SS": ["a"]}, None),
    ],
    ids=range(9),
)
def test_order(a: AttributeValue, b: AttributeValue, order: int | None) -> None:
    assert values.compare(a, b) == order


@settings(max_examples=150)
@given(items)
def test_a_valid_item_comes_back_from_its_bytes_exactly(item: Item) -> None:
    checked = values.check_item(item)
    assert values.check_item(checked) is checked
    stored = values.dump(checked)
    assert values.load(stored) == checked
    assert values.dump(values.load(stored)) == stored
    assert values.size(checked) >= sum(map(len, checked))
    assert all(values.equal(value, item[name]) for name, value in checked.items())


def test_what_looks_like_base64_stays_a_string() -> None:
    item = {"a": {"S": "Yg=="}, "b": {"M": {"B": {"S": "Yg=="}, "x": {"BS": [b"\x00\xff"]}}}, "c": {"L": [{"B": b""}]}}
    assert values.load(values.dump(item)) == item


def test_what_is_no_item_is_not_stored() -> None:
    with pytest.raises(TypeError):
        values.dump({"a": {"S": object()}})
