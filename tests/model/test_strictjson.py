"""JSON as the ledger takes it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.model import strictjson
from owsgit.model.errors import InvalidError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(VALUES)
def test_what_the_standard_library_writes_is_read_as_it_was(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        try:
            assert strictjson.loads(text.encode(), "x.json") == value
        except InvalidError as error:
            assert "surrogate" in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        value = strictjson.loads(data, "x.json")
    except InvalidError:
        return
    assert value == json.loads(data)


@pytest.mark.parametrize(
    ("text", "path", "told"),
    [
        ('{"a": {"b": [1, {"c": 1, "c": 2}]}}', "$.a.b[1]", "'c' appears twice"),
        ('{"a": 1, "\\u0061": 2}', "$", "'a' appears twice"),
        ('{"a": "\\ud800"}', "$.a", "lone surrogate"),
        ('{"a b": ["\\ud800"]}', "$['a b'][0]", "lone surrogate"),
        ("[NaN]", "", "NaN is not a JSON number"),
        ("-Infinity", "", "-Infinity is not a JSON number"),
        ("[1e400]", "", "1e400 is not a JSON number"),
        ("[" * 65 + "]" * 65, "", "nested deeper than 64"),
        ("[" * 10**5, "", "nested deeper than 64"),
        ('{"a": 1,}', "", "line 1 column"),
        ('{"a": "\n"}', "", "Invalid control character at line 1 column"),
        ("9" * 5000, "", ""),
        ("\ufeff{}", "", "byte-order mark"),
        ("", "", "not JSON"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, path: str, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        strictjson.loads(text.encode("utf-8", "surrogatepass"), "policies/p.json")
    (problem,) = caught.value.problems
    assert problem.file == "policies/p.json" and problem.path == path and told in problem.message


def test_too_much_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidError, match="may have"):
        strictjson.loads(b" " * (strictjson.JSON_BYTES_MAX + 1), "x.json")
    with pytest.raises(InvalidError, match="not UTF-8 at byte 2"):
        strictjson.loads(b'["\xff"]', "x.json")


def test_64_levels_are_fine() -> None:
    text = "[" * 64 + "]" * 64
    assert strictjson.loads(text.encode(), "x.json") == json.loads(text)
