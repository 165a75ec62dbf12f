"""What requests had before expressions, with the messages that DynamoDB has for it."""

from typing import Any

import pytest

from owsgit.services.tables import legacy
from owsgit.services.tables.keys import Attribute, KeySchema
from owsgit.services.tables.values import AttributeValue, Item, ValidationError

INVALID = "One or more parameter values were invalid: "

ITEM: Item = {
    "s": {"S": "hello"},
    "n": {"N": "10"},
    "b": {"B": b"\x01\x02\x03"},
    "t": {"BOOL": True},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "bs": {"BS": [b"x"]},
    "l": {"L": [{"S": "a"}, {"N": "1"}]},
    "m": {"M": {"a": {"S": "x"}}},
    "z": {"NULL": True},
}


def condition(operator: str, *values: AttributeValue) -> dict[str, Any]:
    return {"ComparisonOperator": operator, "AttributeValueList": list(values)}


HOLDS: list[tuple[str, str, list[AttributeValue], bool]] = [
    ("s", "EQ", [{"S": "hello"}], True),
    ("s", "EQ", [{"S": "x"}], False),
    ("n", "EQ", [{"N": "1e1"}], True),
    ("n", "EQ", [{"S": "10"}], False),
    ("ss", "EQ", [{"SS": ["b", "a"]}], True),
    ("m", "EQ", [{"M": {"a": {"S": "x"}}}], True),
    ("t", "EQ", [{"BOOL": True}], True),
    ("none", "EQ", [{"S": "x"}], False),
    ("s", "NE", [{"S": "x"}], True),
    ("s", "NE", [{"S": "hello"}], False),
    ("s", "NE", [{"N": "1"}], True),
    ("none", "NE", [{"S": "x"}], True),
    ("s", "IN", [{"S": "x"}, {"S": "hello"}], True),
    ("s", "IN", [{"S": "x"}], False),
    ("none", "IN", [{"S": "x"}], False),
    ("n", "LE", [{"N": "10"}], True),
    ("n", "LT", [{"N": "10"}], False),
    ("n", "LT", [{"N": "10.5"}], True),
    ("n", "GE", [{"N": "10"}], True),
    ("n", "GT", [{"N": "9"}], True),
    ("n", "GT", [{"S": "9"}], False),
    ("none", "GT", [{"N": "9"}], False),
    ("b", "LT", [{"B": b"\x01\x03"}], True),
    ("n", "BETWEEN", [{"N": "9"}, {"N": "10"}], True),
    ("n", "BETWEEN", [{"N": "11"}, {"N": "12"}], False),
    ("n", "BETWEEN", [{"S": "1"}, {"S": "2"}], False),
    ("none", "BETWEEN", [{"N": "1"}, {"N": "2"}], False),
    ("s", "NOT_NULL", [], True),
    ("z", "NOT_NULL", [], True),
    ("none", "NOT_NULL", [], False),
    ("none", "NULL", [], True),
    ("z", "NULL", [], False),
    ("s", "CONTAINS", [{"S": "ell"}], True),
    ("s", "CONTAINS", [{"N": "1"}], False),
    ("b", "CONTAINS", [{"B": b"\x02\x03"}], True),
    ("ss", "CONTAINS", [{"S": "a"}], True),
    ("ss", "CONTAINS", [{"S": "ab"}], False),
    ("ns", "CONTAINS", [{"N": "2.0"}], True),
    ("bs", "CONTAINS", [{"B": b"x"}], True),
    ("l", "CONTAINS", [{"N": "1.0"}], True),
    ("l", "CONTAINS", [{"BOOL": True}], False),
    ("n", "CONTAINS", [{"N": "1"}], False),
    ("t", "CONTAINS", [{"BOOL": True}], False),
    ("none", "CONTAINS", [{"S": "a"}], False),
    ("s", "NOT_CONTAINS", [{"S": "ell"}], False),
    ("s", "NOT_CONTAINS", [{"S": "x"}], True),
    ("none", "NOT_CONTAINS", [{"S": "x"}], True),
    ("s", "BEGINS_WITH", [{"S": "he"}], True),
    ("s", "BEGINS_WITH", [{"S": "x"}], False),
    ("b", "BEGINS_WITH", [{"B": b"\x01"}], True),
    ("b", "BEGINS_WITH", [{"S": "x"}], False),
    ("none", "BEGINS_WITH", [{"S": "x"}], False),
]


@pytest.mark.parametrize(("name", "operator", "values", "holds"), HOLDS, ids=range(len(HOLDS)))
def test_operators(name: str, operator: str, values: list[AttributeValue], holds: bool) -> None:
    given = {name: condition(operator, *values)}
    assert legacy.filters(given).holds(ITEM) is holds
    assert legacy.expected(given).holds(ITEM) is holds


def test_expected_without_an_operator() -> None:
    assert legacy.expected({"s": {"Value": {"S": "hello"}}}).holds(ITEM)
    assert legacy.expected({"s": {"Exists": True, "Value": {"S": "hello"}}}).holds(ITEM)
    assert not legacy.expected({"s": {"Value": {"S": "x"}}}).holds({})
    assert legacy.expected({"s": {"Exists": False}}).holds({})
    assert not legacy.expected({"s": {"Exists": False}}).holds(ITEM)
    assert legacy.expected({"s": {"ComparisonOperator": "BEGINS_WITH", "Value": {"S": "h"}}}).holds(ITEM)
    assert legacy.expected({"x": {"ComparisonOperator": "NULL"}}).holds(ITEM)


def test_several_conditions() -> None:
    given = {"s": condition("EQ", {"S": "hello"}), "n": condition("EQ", {"N": "1"})}
    assert not legacy.filters(given).holds(ITEM)
    assert not legacy.filters(given, "AND").holds(ITEM)
    assert legacy.filters(given, "OR").holds(ITEM)
    assert legacy.expected(given, "OR").holds(ITEM)
    assert legacy.filters(given).attributes() == {"s", "n"}
    assert legacy.filters({}).holds(ITEM)


def test_a_query_filter_is_not_on_keys() -> None:
    schema = KeySchema((Attribute("pk", "S"),), (Attribute("sk", "S"),))
    legacy.check_query_filter(legacy.filters({"a": condition("NULL")}), schema)
    for name in ("pk", "sk"):
        with pytest.raises(ValidationError) as error:
            legacy.check_query_filter(legacy.filters({name: condition("NULL")}), schema)
        message = f"QueryFilter can only contain non-primary key attributes: Primary key attribute: {name}"
        assert error.value.message == message


S: AttributeValue = {"S": "a"}
BAD: list[tuple[dict[str, Any], str]] = [
    (condition("EQ", {}, S), "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
    (condition("EQ", {"N": "1"}, {"N": "b"}), "The parameter cannot be converted to a numeric value: b"),
    (condition("EQ", {"N": "1"}, {"SS": []}), f"{INVALID}An string set  may not be empty"),
    *(
        (condition(operator, *values), f"{INVALID}Invalid number of argument(s) for the {operator} ComparisonOperator")
        for operator, values in [
            ("EQ", []), ("NE", []), ("LE", []), ("LT", []), ("GE", []), ("GT", []), ("CONTAINS", []), ("NOT_CONTAINS", []),
            ("BEGINS_WITH", []), ("IN", []), ("BETWEEN", []), ("BETWEEN", [S]), ("BETWEEN", [S, S, S]), ("NULL", [S]),
            ("NOT_NULL", [S]), ("EQ", [S, S]), ("CONTAINS", [S, S]), ("EQ", [S, {"N": "1"}]),
        ]
    ),
    *(
        (condition(operator, value), f"{INVALID}ComparisonOperator {operator} is not valid for {next(iter(value))} AttributeValue type")
        for operator, value in [
            *((each, {"BOOL": True}) for each in ("LT", "LE", "GT", "GE", "IN")), ("LT", {"NULL": True}), ("GE", {"SS": ["a"]}),
            ("IN", {"M": {}}), ("CONTAINS", {"SS": ["a"]}), ("NOT_CONTAINS", {"L": []}), ("CONTAINS", {"M": {}}),
            ("BEGINS_WITH", {"N": "1"}), ("BEGINS_WITH", {"BOOL": True}),
        ]
    ),
    (condition("BETWEEN", {"L": []}, {"L": []}), f"{INVALID}ComparisonOperator BETWEEN is not valid for L AttributeValue type"),
    (condition("IN", S, {"N": "1"}), f"{INVALID}AttributeValues inside AttributeValueList must be of same type"),
    (condition("BETWEEN", S, {"N": "1"}), f"{INVALID}AttributeValues inside AttributeValueList must be of same type"),
    (
        condition("BETWEEN", {"N": "10"}, {"N": "9"}),
        "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), BAD, ids=range(len(BAD)))
def test_bad_conditions(given: dict[str, Any], message: str) -> None:
    for parse in (legacy.filters, legacy.expected):
        with pytest.raises(ValidationError) as error:
            parse({"a": given})
        assert (error.value.code, error.value.message) == ("ValidationException", message)


BAD_EXPECTED: list[tuple[dict[str, Any], str]] = [
    ({}, "Value must be provided when Exists is null for Attribute: a"),
    ({"Exists": True}, "Value must be provided when Exists is true for Attribute: a"),
    ({"Exists": False, "Value": S}, "Value cannot be used when Exists is false for Attribute: a"),
    (
        {"ComparisonOperator": "EQ", "Exists": True, "Value": S},
        "Exists and ComparisonOperator cannot be used together for Attribute: a",
    ),
    (
        {"ComparisonOperator": "EQ", "Value": S, "AttributeValueList": [S]},
        "Value and AttributeValueList cannot be used together for Attribute: a",
    ),
    (
        {"ComparisonOperator": "EQ"},
        "Value or AttributeValueList must be used with ComparisonOperator: EQ for Attribute: a",
    ),
    ({"AttributeValueList": [S]}, "AttributeValueList can only be used with a ComparisonOperator for Attribute: a"),
    ({"ComparisonOperator": "NULL", "Value": S}, "Invalid number of argument(s) for the NULL ComparisonOperator"),
]


@pytest.mark.parametrize(("given", "message"), BAD_EXPECTED, ids=range(len(BAD_EXPECTED)))
def test_bad_expected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        legacy.expected({"a": given})
    assert error.value.message == f"{INVALID}{message}"


def test_a_conditional_operator_needs_two_conditions() -> None:
    for given, message in (
        ({}, "ConditionalOperator cannot be used without Filter or Expected"),
        (
            {"a": condition("NULL")},
            "ConditionalOperator can only be used when Filter or Expected has two or more elements",
        ),
    ):
        for parse in (legacy.filters, legacy.expected):
            with pytest.raises(ValidationError) as error:
                parse(given, "AND")
            assert error.value.message == message
    legacy.check_operator(None, None)


CHANGES: list[tuple[dict[str, Any], AttributeValue | None, AttributeValue | None]] = [
    ({"Value": S}, None, S),
    ({"Action": "PUT", "Value": S}, {"N": "1"}, S),
    ({"Action": "PUT", "Value": {"N": "1.0"}}, None, {"N": "1"}),
    ({"Action": "DELETE"}, S, None),
    ({"Action": "DELETE"}, None, None),
    ({"Action": "ADD", "Value": {"N": "5"}}, None, {"N": "5"}),
    ({"Action": "ADD", "Value": {"N": "-5"}}, {"N": "3"}, {"N": "-2"}),
    ({"Action": "ADD", "Value": {"SS": ["c", "a"]}}, {"SS": ["a", "b"]}, {"SS": ["a", "b", "c"]}),
    ({"Action": "ADD", "Value": {"SS": ["a"]}}, None, {"SS": ["a"]}),
    ({"Action": "ADD", "Value": {"BS": [b"a"]}}, {"BS": [b"a"]}, {"BS": [b"a"]}),
    ({"Action": "ADD", "Value": {"L": [S]}}, {"L": [{"N": "1"}]}, {"L": [{"N": "1"}, S]}),
    ({"Action": "ADD", "Value": {"L": [S]}}, None, {"L": [S]}),
    ({"Action": "DELETE", "Value": {"NS": ["1.0", "9"]}}, {"NS": ["1", "2"]}, {"NS": ["2"]}),
    ({"Action": "DELETE", "Value": {"SS": ["a", "b"]}}, {"SS": ["a", "b"]}, None),
    ({"Action": "DELETE", "Value": {"SS": ["a"]}}, None, None),
]


@pytest.mark.parametrize(("update", "old", "new"), CHANGES, ids=range(len(CHANGES)))
def test_updates(update: dict[str, Any], old: AttributeValue | None, new: AttributeValue | None) -> None:
    updates = legacy.attribute_updates({"a": update})
    before: Item = {"pk": S} | ({"a": old} if old else {})
    after: Item = {"pk": S} | ({"a": new} if new else {})
    copy = dict(before)
    assert updates.apply(before) == after
    assert before == copy
    assert updates.attributes() == {"a"}
    assert updates.creates is (update.get("Action") != "DELETE")
    assert updates.updated_old(before) == ({"a": old} if old else {})
    assert updates.updated_new(after) == ({"a": new} if new else {})


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({}, "Only DELETE action is allowed when no attribute value is specified"),
        ({"Action": "ADD"}, "Only DELETE action is allowed when no attribute value is specified"),
        *(
            ({"Action": "DELETE", "Value": value}, f"DELETE action with value is not supported for the type {next(iter(value))}")
            for value in (S, {"N": "1"}, {"B": b"b"}, {"NULL": True}, {"BOOL": True}, {"M": {}}, {"L": []})
        ),
        *(
            ({"Action": "ADD", "Value": value}, f"ADD action is not supported for the type {next(iter(value))}")
            for value in (S, {"B": b"b"}, {"NULL": True}, {"BOOL": True}, {"M": {}})
        ),
    ],
    ids=range(14),
)  # fmt: skip
def test_bad_updates(update: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        legacy.attribute_updates({"a": update})
    assert error.value.message == f"{INVALID}{message}"


@pytest.mark.parametrize(
    ("update", "old"),
    [
        ({"Action": "ADD", "Value": {"N": "1"}}, S),
        ({"Action": "ADD", "Value": {"NS": ["1"]}}, {"SS": ["a"]}),
        ({"Action": "ADD", "Value": {"L": []}}, {"N": "1"}),
        ({"Action": "DELETE", "Value": {"NS": ["1"]}}, {"N": "1"}),
    ],
    ids=range(4),
)
def test_an_attribute_of_another_type(update: dict[str, Any], old: AttributeValue) -> None:
    with pytest.raises(ValidationError) as error:
        legacy.attribute_updates({"a": update}).apply({"a": old})
    assert error.value.message == "Type mismatch for attribute to update"


def test_attributes_to_get() -> None:
    assert legacy.attributes_to_get(["n", "none", "m.a", "t"]).of(ITEM) == {"n": {"N": "10"}, "t": {"BOOL": True}}
    with pytest.raises(ValidationError) as error:
        legacy.attributes_to_get(["a", "b", "a"])
    assert error.value.message == f"{INVALID}Duplicate value in attribute name: a"


COMPOSITE = KeySchema((Attribute("pk", "S"),), (Attribute("sk", "N"),))
STRINGS = KeySchema((Attribute("pk", "S"),), (Attribute("sk", "S"),))
SIMPLE = KeySchema((Attribute("pk", "S"),))
HASH = {"pk": condition("EQ", {"S": "x"})}


@pytest.mark.parametrize(
    ("operator", "values", "found"),
    [
        ("EQ", ["b"], ["b"]),
        ("LT", ["b"], ["a", "aa"]),
        ("LE", ["b"], ["a", "aa", "b"]),
        ("GT", ["b"], ["ba", "c"]),
        ("GE", ["b"], ["b", "ba", "c"]),
        ("BETWEEN", ["aa", "b"], ["aa", "b"]),
        ("BEGINS_WITH", ["b"], ["b", "ba"]),
    ],
    ids=range(7),
)
def test_key_conditions(operator: str, values: list[str], found: list[str]) -> None:
    given = HASH | {"sk": condition(operator, *({"S": value} for value in values))}
    bounds = legacy.key_conditions(given).range(STRINGS).bounds()
    assert bounds.hash == b"x"
    stored = [value.encode() for value in ("a", "aa", "b", "ba", "c")]
    low, high = bounds.low or b"", bounds.high
    assert [key.decode() for key in stored if low <= key and (high is None or key <= high)] == found


def test_key_conditions_on_the_hash_key_alone() -> None:
    for schema in (SIMPLE, COMPOSITE):
        assert tuple(legacy.key_conditions(HASH).range(schema).bounds()) == (b"x", None, None)


@pytest.mark.parametrize(
    ("schema", "given", "message"),
    [
        (SIMPLE, HASH | {"b": condition("EQ", S)}, "Query key condition not supported"),
        (SIMPLE, {"pk": condition("LE", S)}, "Query key condition not supported"),
        (SIMPLE, {"pk": condition("BETWEEN", S, S)}, "Query key condition not supported"),
        (SIMPLE, {"pk": condition("BEGINS_WITH", S)}, "Query key condition not supported"),
        (SIMPLE, {"b": condition("NULL")}, "Query condition missed key schema element: pk"),
        (COMPOSITE, HASH | {"b": condition("EQ", S)}, "Query condition missed key schema element: sk"),
        *(
            (schema, start | {name: condition(operator, *values)}, "Attempted conditional constraint is not an indexable operation")
            for schema, start, name in [(SIMPLE, {}, "pk"), (COMPOSITE, HASH, "sk")]
            for operator, values in [
                ("NULL", []), ("NOT_NULL", []), ("NE", [{"N": "1"}]), ("CONTAINS", [S]), ("NOT_CONTAINS", [S]), ("IN", [S])
            ]
        ),
        (COMPOSITE, {"pk": condition("EQ", {"N": "1"})}, f"{INVALID}Condition parameter type does not match schema type"),
        (COMPOSITE, HASH | {"sk": condition("EQ", S)}, f"{INVALID}Condition parameter type does not match schema type"),
        (
            SIMPLE,
            {"pk": condition("EQ", {"S": ""})},
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk",
        ),
    ],
    ids=range(21),
)  # fmt: skip
def test_key_conditions_that_do_not_fit(schema: KeySchema, given: dict[str, Any], message: str) -> None:
    conditions = legacy.key_conditions(given)
    with pytest.raises(ValidationError) as error:
        conditions.range(schema)
    assert error.value.message == message


def test_bad_key_conditions() -> None:
    for given, message in [
        ({}, "Conditions can be of length 1 or 2 only"),
        ({f"a{i}": condition("NULL") for i in range(9)}, "Conditions can be of length 1 or 2 only"),
        (
            {"pk": condition("EQ")},
            f"{INVALID}Invalid number of argument(s) for the EQ ComparisonOperator",
        ),
    ]:
        with pytest.raises(ValidationError) as error:
            legacy.key_conditions(given)
        assert error.value.message == message
