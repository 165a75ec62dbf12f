"""Event patterns, held against EventBridge's own examples and against what is wrong in them."""

from typing import Any

import pytest

from owsgit.model.event_pattern import TESTS_MAX, Pattern
from owsgit.model.spec import PlacedError

EVENT = {
    "eventName": "INSERT",
    "dynamodb": {
        "Keys": {"id": {"S": "order#7"}},
        "NewImage": {"state": {"S": "Paid"}, "total": {"N": "12"}, "gone": {"NULL": True}},
        "SizeBytes": 26,
    },
    "tags": ["red", "blue"],
    "lines": [{"what": "tea", "many": 2}, {"what": "milk", "many": 0.5}],
    "from": "10.0.0.7",
    "empty": "",
    "nothing": None,
    "none": [],
}


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ({"eventName": ["INSERT"]}, True),
        ({"eventName": ["REMOVE", "INSERT"]}, True),
        ({"eventName": ["insert"]}, False),
        ({"eventName": [{"equals-ignore-case": "insert"}]}, True),
        ({"eventName": ["INSERT"], "from": ["elsewhere"]}, False),
        ({"dynamodb": {"NewImage": {"state": {"S": [{"prefix": "Pa"}]}}}}, True),
        ({"dynamodb": {"NewImage": {"state": {"S": [{"prefix": {"equals-ignore-case": "pA"}}]}}}}, True),
        ({"dynamodb": {"NewImage": {"state": {"S": [{"suffix": "aid"}]}}}}, True),
        ({"dynamodb": {"NewImage": {"state": {"S": [{"suffix": {"equals-ignore-case": "AID"}}]}}}}, True),
        ({"dynamodb": {"NewImage": {"state": {"S": [{"suffix": "Pa"}]}}}}, False),
        ({"dynamodb": {"NewImage": {"total": {"N": ["12"]}}}}, True),
        ({"dynamodb": {"NewImage": {"total": {"N": [{"numeric": ["=", 12]}]}}}}, False),  # a text is no number
        ({"dynamodb": {"SizeBytes": [{"numeric": [">", 0, "<=", 26]}]}}, True),
        ({"dynamodb": {"SizeBytes": [{"numeric": ["<", 26]}]}}, False),
        ({"dynamodb": {"SizeBytes": [26.0]}}, True),
        ({"dynamodb": {"SizeBytes": ["26"]}}, False),
        ({"dynamodb": {"NewImage": {"gone": {"NULL": [True]}}}}, True),
        ({"dynamodb": {"SizeBytes": [True]}}, False),
        ({"tags": ["blue"]}, True),
        ({"tags": ["green"]}, False),
        ({"tags": [{"anything-but": "red"}]}, True),  # one of them is something else
        ({"lines": {"what": ["milk"], "many": [2]}}, False),  # in one element
        ({"lines": {"what": ["milk"], "many": [0.5]}}, True),
        ({"from": [{"cidr": "10.0.0.0/24"}]}, True),
        ({"from": [{"cidr": "10.0.1.0/24"}]}, False),
        ({"eventName": [{"cidr": "10.0.1.0/24"}]}, False),
        ({"empty": [""]}, True),
        ({"nothing": [None]}, True),
        ({"empty": [None]}, False),
        ({"missing": [None]}, False),
        ({"missing": [{"exists": False}]}, True),
        ({"missing": {"deeper": [{"exists": False}]}}, True),
        ({"eventName": {"deeper": [{"exists": False}]}}, False),
        ({"missing": [{"exists": False}, "x"]}, True),
        ({"eventName": [{"exists": False}]}, False),
        ({"nothing": [{"exists": True}]}, True),
        ({"none": [{"exists": True}]}, True),
        ({"dynamodb": [{"exists": True}]}, False),  # it is no value
        ({"eventName": [{"anything-but": ["REMOVE", "MODIFY"]}]}, True),
        ({"eventName": [{"anything-but": "INSERT"}]}, False),
        ({"eventName": [{"anything-but": {"prefix": "INS"}}]}, False),
        ({"eventName": [{"anything-but": {"prefix": ["RE", "MO"]}}]}, True),
        ({"eventName": [{"anything-but": {"suffix": "RT"}}]}, False),
        ({"eventName": [{"anything-but": {"equals-ignore-case": ["insert"]}}]}, False),
        ({"eventName": [{"anything-but": {"wildcard": "I*T"}}]}, False),
        ({"missing": [{"anything-but": "x"}]}, False),
        ({"eventName": [{"wildcard": "I*S*T"}]}, True),
        ({"eventName": [{"wildcard": "*"}]}, True),
        ({"eventName": [{"wildcard": "INSERT*"}]}, True),
        ({"eventName": [{"wildcard": "INSERT*T"}]}, False),
        ({"eventName": [{"wildcard": "I*S*S*T"}]}, False),
        ({"eventName": [{"wildcard": r"INSERT\*"}]}, False),
        ({"$or": [{"eventName": ["REMOVE"]}, {"tags": ["red"]}]}, True),
        ({"$or": [{"eventName": ["REMOVE"]}, {"tags": ["green"]}]}, False),
        ({"from": ["10.0.0.7"], "$or": [{"eventName": ["REMOVE"]}, {"tags": ["green"]}]}, False),
        ({"dynamodb": {"$or": [{"SizeBytes": [1]}, {"Keys": {"id": {"S": ["order#7"]}}}]}}, True),
        ({"$or": ["INSERT"]}, False),  # a field of that name
    ],
)
def test_an_event_fits_a_pattern(pattern: dict[str, Any], fits: bool) -> None:
    assert Pattern(pattern).matches(EVENT) is fits


@pytest.mark.parametrize(
    ("pattern", "at", "words"),
    [
        ({}, (), "empty object"),
        ({"a": {}}, ("a",), "empty object"),
        ({"a": []}, ("a",), "empty list"),
        ({"a": "x"}, ("a",), "has to be in a list"),
        ({"a": [["x"]]}, ("a", 0), "a list in a list"),
        ({"a": [{"like": "x"}]}, ("a", 0), "'like' is no operator"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, ("a", 0), "alone"),
        ({"a": ["x", {"prefix": 7}]}, ("a", 1, "prefix"), "a text is needed, not 7"),
        ({"a": [{"prefix": {"wildcard": "x"}}]}, ("a", 0, "prefix"), "equals-ignore-case"),
        ({"a": [{"exists": "yes"}]}, ("a",), "true or false"),
        ({"a": [{"numeric": [">", "0"]}]}, ("a", 0, "numeric"), "a number is needed"),
        ({"a": [{"numeric": ["!", 0]}]}, ("a", 0, "numeric"), "is none of"),
        ({"a": [{"numeric": [">"]}]}, ("a", 0, "numeric"), "a list like"),
        ({"a": [{"cidr": "x"}]}, ("a", 0, "cidr"), "does not appear to be"),
        ({"a": [{"wildcard": "x**y"}]}, ("a", 0, "wildcard"), "two"),
        ({"a": [{"wildcard": r"x\y"}]}, ("a", 0, "wildcard"), "stands before"),
        ({"a": [{"anything-but": []}]}, ("a", 0, "anything-but"), "a value, or a list"),
        ({"a": [{"anything-but": {"numeric": 1}}]}, ("a", 0, "anything-but"), "one of prefix"),
        ({"a": list(map(str, range(TESTS_MAX + 1)))}, ("a",), "at most"),
        ({"$or": [{"a": ["x"]}, {"b": "x"}]}, ("$or", 1, "b"), "has to be in a list"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_told_with_its_place(
    pattern: dict[str, Any], at: tuple[str | int, ...], words: str
) -> None:
    with pytest.raises(PlacedError, match=words) as caught:
        Pattern(pattern)
    assert caught.value.at == at


def test_a_deep_pattern_is_refused() -> None:
    deep: dict[str, Any] = {"a": ["x"]}
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(PlacedError, match="at most 64 deep"):
        Pattern(deep)


def test_many_stars_do_not_take_long() -> None:
    assert not Pattern({"a": [{"wildcard": "*a" * 500 + "b"}]}).matches({"a": "a" * 100_000})
