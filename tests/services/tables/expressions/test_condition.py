"""Conditions: what holds for which items, by a table of cases and against a plain model."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.services.tables.expressions import Placeholders, condition
from owsgit.services.tables.values import AttributeValue, Item

ITEM: Item = {
    "s": {"S": "hello"},
    "n": {"N": "5"},
    "m": {"N": "10"},
    "b": {"B": b"\x01\x02\x03"},
    "t": {"BOOL": True},
    "z": {"NULL": True},
    "ss": {"SS": ["x", "y"]},
    "ns": {"NS": ["1", "2.5"]},
    "bs": {"BS": [b"a", b"b"]},
    "l": {"L": [{"S": "x"}, {"N": "1"}, {"M": {"k": {"S": "deep"}}}]},
    "lists": {"L": [{"L": []}, {"SS": ["x", "y"]}]},
    "mm": {"M": {"a": {"M": {"b": {"N": "7"}}}, "x.y": {"S": "dot"}}},
}
VALUES: dict[str, AttributeValue] = {
    ":s": {"S": "hello"},
    ":he": {"S": "he"},
    ":x": {"S": "x"},
    ":z": {"S": "zz"},
    ":0": {"N": "0"},
    ":1": {"N": "1.0"},
    ":2": {"N": "2"},
    ":3": {"N": "3"},
    ":5": {"N": "5.00"},
    ":7": {"N": "7"},
    ":10": {"N": "1e1"},
    ":b": {"B": b"\x01\x02\x03"},
    ":b1": {"B": b"\x01"},
    ":true": {"BOOL": True},
    ":false": {"BOOL": False},
    ":null": {"NULL": True},
    ":yx": {"SS": ["y", "x"]},
    ":list": {"L": [{"S": "x"}, {"N": "1.00"}, {"M": {"k": {"S": "deep"}}}]},
    ":map": {"M": {"k": {"S": "deep"}}},
    ":S": {"S": "S"},
    ":NS": {"S": "NS"},
    ":NULL": {"S": "NULL"},
    ":deep": {"S": "deep"},
    ":dot": {"S": "dot"},
}


def holds(text: str, item: Item) -> bool:
    names = {"#xy": "x.y"} if "#xy" in text else None
    return condition.parse(text, Placeholders(names, VALUES)).holds(item)


@pytest.mark.parametrize(
    "text",
    [
        "s = :s",
        ":s = s",
        "n = :5",
        "n < m",
        "n <= :5 AND n >= :5",
        "m > n",
        "b = :b",
        "t = :true",
        "t <> :false",
        "z = :null",
        "ss = :yx",
        "l = :list",
        "n <> s",
        "n <> absent",
        "absent <> gone",
        "NOT absent = n",
        "NOT absent < n",
        "n BETWEEN :5 AND :10",
        "m between n and :10",
        "NOT n BETWEEN :7 AND :10",
        "n IN (:7, :5)",
        "NOT n IN (:7, :10)",
        ":x IN (l[0], s)",
        "attribute_exists(s)",
        "attribute_exists(l[2].k)",
        "attribute_exists(mm.a.b)",
        "attribute_not_exists(absent)",
        "attribute_not_exists(l[3])",
        "attribute_not_exists(s.x)",
        "attribute_not_exists(mm[0])",
        "attribute_type(s, :S)",
        "attribute_type(ns, :NS)",
        "attribute_type(z, :NULL)",
        "NOT attribute_type(n, :S)",
        "NOT attribute_type(absent, :S)",
        "begins_with(s, :he)",
        "begins_with(b, :b1)",
        "NOT begins_with(n, :he)",
        "NOT begins_with(b, :he)",
        "contains(s, :he)",
        "contains(b, :b1)",
        "contains(ss, :x)",
        "contains(ns, :1)",
        "contains(l, :1)",
        "contains(l, :map)",
        "contains(lists, :yx)",
        "NOT contains(lists, :list)",
        "contains(ss, l[0])",
        "NOT contains(ss, :z)",
        "NOT contains(n, :5)",
        "NOT contains(ss, :1)",
        "size(s) = :5",
        "size(b) = :3",
        "size(l) >= size(ss)",
        "size(mm) = :2",
        "NOT size(n) >= :0",
        "NOT size(absent) >= :0",
        "mm.a.b = :7",
        "l[2].k = :deep",
        "mm.#xy = :dot",
        "(mm.a).b = :7",
        "(s) = (:s)",
        "s = :z OR n = :5 AND m = :10",
        "(s = :s OR n = :7) AND m = :10",
        "NOT s = :z AND NOT (n = :7 OR m = :7)",
        "not not s = :s",
        "NOT (NOT (s = :s))",
        "s=:s AND(n=:5)",
        "attribute_exists (s)",
        "\ts\n=\r:s ",
    ],
)
def test_holds(text: str) -> None:
    assert holds(text, ITEM)
    assert not holds(f"NOT ({text})", ITEM)


def test_of_an_item_that_is_missing() -> None:
    assert holds("attribute_not_exists(pk)", {})
    assert not holds("s = :s", {})
    assert not holds("n BETWEEN :0 AND :10", {})


def test_and_binds_before_or_and_not_before_both() -> None:
    false, true = "s = :z", "s = :s"
    assert holds(f"{true} OR {true} AND {false}", ITEM)
    assert not holds(f"({true} OR {true}) AND {false}", ITEM)
    assert holds(f"NOT {false} OR {true}", ITEM)
    assert not holds(f"NOT {true} AND {false}", ITEM)


def test_characters_are_counted_as_utf_16() -> None:
    assert holds("size(a) = :2", {"a": {"S": "\N{GRINNING FACE}"}})


def test_what_a_condition_looks_at() -> None:
    parsed = condition.parse("a.b = :s OR size(c[1]) > d AND attribute_exists(#xy)", Placeholders({"#xy": "e"}, VALUES))
    assert parsed.attributes() == {"a", "c", "d", "e"}
    assert list(parsed.paths) == [("a", "b"), ("c", 1), ("d",), ("e",)]


def test_one_text_has_many_meanings() -> None:
    for value in ("1", "2"):
        parsed = condition.parse("#a = :a", Placeholders({"#a": f"x{value}"}, {":a": {"N": value}}))
        assert parsed.holds({f"x{value}": {"N": value}})
        assert not parsed.holds({"x3": {"N": value}})


# Against a model: small items of numbers and strings, in Python's own types.

Content = int | str
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
contents = st.one_of(st.integers(-3, 3), st.sampled_from(["", "a", "ab", "b"]))
names = st.sampled_from(["p", "q", "r"])


def attribute_value(content: Content) -> AttributeValue:
    return {"N": str(content)} if isinstance(content, int) else {"S": content}


def compared(sign: str, left: Content | None, right: Content | None) -> bool:
    if left is None or right is None or type(left) is not type(right):
        return sign == "<>"
    return COMPARE[sign](left, right)


Model = Callable[[dict[str, Content]], bool]


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Model]:
    name, content = draw(names), draw(contents)
    literal = f":{'n' if isinstance(content, int) else 's'}{content}".replace("-", "_")
    match draw(st.sampled_from([*COMPARE, "IN", "EXISTS", "BEGINS", "CONTAINS"])):
        case "IN":
            return f"{name} IN ({literal}, :n1)", lambda item: name in item and item[name] in (content, 1)
        case "EXISTS":
            return f"attribute_exists({name})", lambda item: name in item
        case "BEGINS":
            start = content if isinstance(content, str) else "a"
            return (
                f"begins_with({name}, :s{start})",
                lambda item: isinstance(item.get(name), str) and str(item[name]).startswith(start),
            )
        case "CONTAINS":
            part = content if isinstance(content, str) else "b"
            return (
                f"contains({name}, :s{part})",
                lambda item: isinstance(item.get(name), str) and part in str(item[name]),
            )
        case sign:
            if draw(st.booleans()):
                return f"{name} {sign} {literal}", lambda item: compared(sign, item.get(name), content)
            other = {"p": "q", "q": "r", "r": "p"}[name]
            return f"{name}{sign}{other}", lambda item: compared(sign, item.get(name), item.get(other))  # fmt: skip


def joined(parts: st.SearchStrategy[tuple[str, Model]]) -> st.SearchStrategy[tuple[str, Model]]:
    def both(left: tuple[str, Model], right: tuple[str, Model]) -> tuple[str, Model]:
        return f"({left[0]}) AND ({right[0]})", lambda item: left[1](item) and right[1](item)

    def either(left: tuple[str, Model], right: tuple[str, Model]) -> tuple[str, Model]:
        return f"({left[0]}) or ({right[0]})", lambda item: left[1](item) or right[1](item)

    def none(part: tuple[str, Model]) -> tuple[str, Model]:
        return f"NOT ({part[0]})", lambda item: not part[1](item)

    return st.one_of(st.builds(both, parts, parts), st.builds(either, parts, parts), st.builds(none, parts))


LITERALS = {f":n{n}".replace("-", "_"): {"N": str(n)} for n in range(-3, 4)} | {
    f":s{s}": {"S": s} for s in ("", "a", "ab", "b")
}


@given(st.recursive(comparisons(), joined, max_leaves=6), st.dictionaries(names, contents))
def test_conditions_are_as_a_model_has_them(expression: tuple[str, Model], item: dict[str, Content]) -> None:
    text, model = expression
    parsed = condition.parse(text, Placeholders(None, LITERALS))
    assert parsed.holds({name: attribute_value(content) for name, content in item.items()}) == model(item)


@given(st.text("ab.[]()=<>:#1 ,ANDORT+-", max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = condition.parse(text, Placeholders({"#a": "a"}, {":a": {"N": "1"}}))
    except condition.ValidationError:
        return
    assert parsed.holds({}) in (True, False)
