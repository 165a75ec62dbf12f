"""Updates: what becomes of which items, by a table of cases and against a plain model."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions import Placeholders, update
from owsgit.services.tables.values import AttributeValue, Item, equal

NO_ATTRIBUTE = "The provided expression refers to an attribute that does not exist in the item"
NO_PATH = "The document path provided in the update expression is invalid for update"
WRONG_TYPE = "An operand in the update expression has an incorrect data type"


def wire(content: Any) -> AttributeValue:
    match content:
        case bool():
            return {"BOOL": content}
        case int():
            return {"N": str(content)}
        case str():
            return {"S": content}
        case set():
            return (
                {"SS": sorted(content)} if isinstance(min(content), str) else {"NS": [str(n) for n in sorted(content)]}
            )
        case list():
            return {"L": [wire(each) for each in content]}
        case _:
            return {"M": {name: wire(each) for name, each in content.items()}}


def item_of(contents: dict[str, Any]) -> Item:
    return {name: wire(content) for name, content in contents.items()}


def updated(text: str, item: Item, values: dict[str, Any] | None = None, names: dict[str, str] | None = None) -> Item:
    placeholders = Placeholders(names, item_of(values) if values else None)
    parsed = update.parse(text, placeholders)
    placeholders.finish()
    before = copy.deepcopy(item)
    after = parsed.apply(item)
    assert item == before
    return after


OLD = {"p": "key", "n": 5, "s": "x", "ss": {"a", "b"}, "ns": {1, 2}, "l": [1, 2, 3], "m": {"a": 1, "l": [{"x": 1}, 2]}}

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SET q = :v", {":v": "new"}, {"q": "new"}),
    ("SET n = n + :v", {":v": 2}, {"n": 7}),
    ("SET n = :v - n", {":v": 2}, {"n": -3}),
    ("SET n = (n + :v)", {":v": 2}, {"n": 7}),
    ("SET n = ((m.a)) + (n)", {}, {"n": 6}),
    ("SET n = s, s = n", {}, {"n": "x", "s": 5}),
    ("SET a = l[1], b = m.l[0].x", {}, {"a": 2, "b": 1}),
    ("SET c = if_not_exists(c, :v) + :w", {":v": 0, ":w": 1}, {"c": 1}),
    ("SET n = if_not_exists(n, absent)", {}, {}),
    ("SET n = if_not_exists(gone, if_not_exists(n, absent))", {}, {}),
    ("SET l = list_append(l, :v)", {":v": [4]}, {"l": [1, 2, 3, 4]}),
    ("SET l = list_append(:v, list_append(l, :v))", {":v": [0]}, {"l": [0, 1, 2, 3, 0]}),
    ("SET l2 = list_append(if_not_exists(l2, :e), :v)", {":e": [], ":v": [1]}, {"l2": [1]}),
    ("SET l[1] = :v", {":v": "x"}, {"l": [1, "x", 3]}),
    ("SET l[9] = :v, l[7] = :w, l[3] = :u", {":v": 9, ":w": 7, ":u": 3}, {"l": [1, 2, 3, 3, 7, 9]}),
    ("SET m.b = :v, m.l[0].y = :w", {":v": 1, ":w": 2}, {"m": {"a": 1, "b": 1, "l": [{"x": 1, "y": 2}, 2]}}),
    ("SET m.l[1] = m.l[0], m.l[0].x = m.l[1]", {}, {"m": {"a": 1, "l": [{"x": 2}, {"x": 1}]}}),
    ("REMOVE s, absent", {}, {"s": None}),
    ("REMOVE l[0], l[2], l[8]", {}, {"l": [2]}),
    ("REMOVE l[2], l[1], l[0]", {}, {"l": []}),
    ("REMOVE m.a, m.l[0].x, m.b", {}, {"m": {"l": [{}, 2]}}),
    ("REMOVE m.l[0].x, m.l[1]", {}, {"m": {"a": 1, "l": [{}]}}),
    ("SET l[1] = :v, l[5] = :w REMOVE l[0]", {":v": "x", ":w": "y"}, {"l": ["x", 3, "y"]}),
    ("REMOVE l[0] SET n = l[0], l[3] = l[1]", {}, {"l": [2, 3, 2], "n": 1}),
    ("ADD n :v, q :v", {":v": 3}, {"n": 8, "q": 3}),
    ("ADD ss :v", {":v": {"b", "c"}}, {"ss": {"a", "b", "c"}}),
    ("ADD ns :v, t :v", {":v": {2, 3}}, {"ns": {1, 2, 3}, "t": {2, 3}}),
    ("ADD m.a :v, m.c :v, l[7] :v", {":v": 1}, {"m": {"a": 2, "c": 1, "l": [{"x": 1}, 2]}, "l": [1, 2, 3, 1]}),
    ("DELETE ss :v", {":v": {"b", "c"}}, {"ss": {"a"}}),
    ("DELETE ss :v, gone :v", {":v": {"a", "b"}}, {"ss": None}),
    ("SET q = s REMOVE s ADD n :v DELETE ss :w", {":v": 1, ":w": {"a"}}, {"q": "x", "s": None, "n": 6, "ss": {"b"}}),
    ("set q = :v remove s", {":v": 1}, {"q": 1, "s": None}),
]


@pytest.mark.parametrize(("text", "values", "changed"), CASES, ids=[case[0] for case in CASES])
def test_updates(text: str, values: dict[str, Any], changed: dict[str, Any]) -> None:
    expected = item_of({name: content for name, content in {**OLD, **changed}.items() if content is not None})
    after = updated(text, item_of(OLD), values)
    assert after.keys() == expected.keys()
    for name, value in after.items():
        assert equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("SET q = gone", {}, NO_ATTRIBUTE),
        ("SET q = n + gone", {}, NO_ATTRIBUTE),
        ("SET q = list_append(l, gone)", {}, NO_ATTRIBUTE),
        ("SET q = l[3]", {}, NO_ATTRIBUTE),
        ("SET q = if_not_exists(gone, absent)", {}, NO_ATTRIBUTE),
        ("SET q = s + :v", {":v": 1}, WRONG_TYPE),
        ("SET q = m - :v", {":v": 1}, WRONG_TYPE),
        ("SET q = list_append(ns, l)", {}, WRONG_TYPE),
        ("ADD s :v", {":v": 1}, WRONG_TYPE),
        ("ADD ns :v", {":v": 1}, WRONG_TYPE),
        ("ADD m :v", {":v": {1}}, WRONG_TYPE),
        ("DELETE ns :v", {":v": {"a"}}, WRONG_TYPE),
        ("DELETE n :v", {":v": {1}}, WRONG_TYPE),
        ("ADD s :v, gone.a :v", {":v": 1}, WRONG_TYPE),
        ("ADD gone.a :v, s :v", {":v": 1}, NO_PATH),
        ("SET gone.a = gone", {}, NO_ATTRIBUTE),
        *[
            (text, {":v": {"a"}}, NO_PATH)
            for path in ("s.a", "s[1]", "gone.a", "gone[1]", "m[1]", "l.x", "l[7].x", "m.a.b", "m.b.c")
            for text in (f"SET {path} = :v", f"REMOVE {path} SET q = :v", f"ADD {path} :v", f"DELETE {path} :v")
        ],
    ],
)
def test_what_does_not_fit_the_item(text: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        updated(text, item_of(OLD), values)
    assert raised.value.message == message


def test_values_are_not_nested_deeper_than_items_may_be() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    item = item_of({"m": {"a": {"b": {}}}})
    assert updated("SET m.a = :v", item, {":v": deep[0]})
    with pytest.raises(ValidationError, match="Nesting Levels have exceeded supported limits"):
        updated("SET m.a.b = :v", item, {":v": deep})


@pytest.mark.parametrize(
    "text",
    [
        "SET q = " + "list_append(l, " * 5 + "l" + ")" * 5,
        "SET " + ", ".join(f"q{n} = list_append(l, l)" for n in range(5)),
        "SET " + ", ".join(f"q{n} = l" for n in range(5)),
    ],
)
def test_lists_do_not_grow_beyond_any_item(text: str) -> None:
    item: Item = {"l": {"L": [{"NULL": True}] * 100_000}}
    with pytest.raises(ValidationError) as raised:
        updated_at_once(text, item)
    assert raised.value.message == "Item size to update has exceeded the maximum allowed size"


def updated_at_once(text: str, item: Item) -> Item:
    return update.parse(text, Placeholders()).apply(item)


def test_a_whole_number_has_38_digits() -> None:
    item: Item = {"n": {"N": "1" + "0" * 37}}
    assert updated("SET n = n + :v", item, {":v": 1})["n"] == {"N": "1" + "0" * 36 + "1"}


@pytest.mark.parametrize(
    ("text", "creates"), [("SET a = b", True), ("ADD a :v", True), ("REMOVE a", False), ("DELETE a :v", False)]
)
def test_what_makes_an_item(text: str, creates: bool) -> None:
    assert update.parse(text, Placeholders(None, item_of({":v": {1}}))).creates is creates


def test_what_an_update_touches() -> None:
    text = "SET #x.b = if_not_exists(c[1], d) + e REMOVE f[0] ADD g :v"
    parsed = update.parse(text, Placeholders({"#x": "a"}, item_of({":v": 1})))
    assert parsed.attributes() == {"a", "f", "g"}
    assert parsed.paths == [("a", "b"), ("f", 0), ("g",)]
    assert list(parsed.reads) == [("c", 1), ("d",), ("e",)]


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("SET s = :v, q = :v", {"s": "x"}, {"s": 8, "q": 8}),
        ("REMOVE s", {"s": "x"}, {}),
        ("SET m.a = :v", {"m": {"a": 1}}, {"m": {"a": 8}}),
        ("SET m.l[1] = :v, m.a = :v", {"m": {"a": 1, "l": [2]}}, {"m": {"a": 8, "l": [8]}}),
        ("SET m.b = :v", {}, {"m": {"b": 8}}),
        ("REMOVE l[1], l[3]", {"l": [2]}, {"l": [3]}),  # the element that moved there
        ("SET l[100] = :v", {}, {}),  # not where it came to be
    ],
)
def test_what_return_values_show(text: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    item = item_of(OLD)
    parsed = update.parse(text, Placeholders(None, {":v": {"N": "8"}}))
    assert parsed.updated_old(item) == item_of(old)
    assert parsed.updated_new(parsed.apply(item)) == item_of(new)


# Against a model: values of Python, changed one after the other, of a copy of the item.

leaves = st.one_of(st.integers(-9, 9), st.sampled_from(["x", "y"]))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=8,
)
items = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)
Steps = tuple[str | int, ...]
paths = st.tuples(
    st.sampled_from("abc"), st.lists(st.one_of(st.sampled_from("abc"), st.integers(0, 3)), max_size=2)
).map(lambda parts: (parts[0], *parts[1]))


def text_of(path: Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


def touch(one: Steps, two: Steps) -> bool:
    """Whether one leads into the other, or they cannot both be in an item."""
    for a, b in zip(one, two, strict=False):
        if type(a) is not type(b):
            return True
        if a != b:
            return False
    return True


def found(item: Any, path: Steps) -> Any:
    for step in path:
        if isinstance(step, str):
            item = item.get(step) if isinstance(item, dict) else None
        else:
            item = item[step] if isinstance(item, list) and step < len(item) else None
    return item


GONE = object()
"""Of an element that is removed, until all are."""


def model(item: dict[str, Any], sets: list[tuple[Steps, Any]], removals: list[Steps]) -> dict[str, Any] | None:
    """None if a path leads nowhere."""
    new = copy.deepcopy(item)
    behind: list[tuple[list[Any], int, Any]] = []
    for path, content in [*sets, *((path, GONE) for path in removals)]:
        outer, last = found(new, path[:-1]), path[-1]
        if not isinstance(outer, dict if isinstance(last, str) else list):
            return None
        if isinstance(outer, dict):
            outer[last] = copy.deepcopy(content)
            if content is GONE:
                del outer[last]
        elif isinstance(last, int) and last < len(outer):
            outer[last] = content if content is GONE else copy.deepcopy(content)
        elif content is not GONE:
            behind.append((outer, int(last), copy.deepcopy(content)))
    for outer, _, content in sorted(behind, key=lambda each: each[1]):
        outer.append(content)
    return without(new)


def without(content: Any) -> Any:
    if isinstance(content, list):
        return [without(each) for each in content if each is not GONE]
    return {name: without(each) for name, each in content.items()} if isinstance(content, dict) else content


@given(items, st.lists(st.tuples(paths, st.one_of(trees, paths)), max_size=3), st.lists(paths, max_size=3))
def test_updates_are_as_a_model_has_them(
    item: dict[str, Any], wanted: list[tuple[Steps, Any]], removed: list[Steps]
) -> None:
    taken: list[Steps] = []
    sets: list[tuple[Steps, Any]] = []
    removals: list[Steps] = []
    for path, value in [*wanted, *((path, GONE) for path in removed)]:
        if any(touch(path, other) for other in taken):
            continue
        taken.append(path)
        if value is GONE:
            removals.append(path)
        else:
            sets.append((path, value))
    parts, values, contents = [], {}, []
    missing = False
    for number, (path, value) in enumerate(sets):
        if isinstance(value, tuple):
            parts.append(f"{text_of(path)} = {text_of(value)}")
            content = found(item, value)
            missing = missing or content is None
        else:
            parts.append(f"{text_of(path)} = :v{number}")
            values[f":v{number}"] = content = value
        contents.append((path, content))
    sections = (["SET " + ", ".join(parts)] if parts else []) + (
        ["REMOVE " + ", ".join(map(text_of, removals))] if removals else []
    )
    if not sections:
        return
    expected = None if missing else model(item, contents, removals)
    try:
        after: Item | None = updated(" ".join(sections[::-1]), item_of(item), values)
    except ValidationError as error:
        assert error.message in (NO_ATTRIBUTE, NO_PATH)
        after = None
    assert after == (None if expected is None else item_of(expected))


@given(st.text("ab.[]()=:#1 ,SETADRMOV+-", max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = update.parse(text, Placeholders({"#a": "a"}, {":a": {"N": "1"}}))
        parsed.apply({"a": {"N": "1"}})
    except ValidationError:
        pass
