"""Condition and filter expressions: whether an item is as a request wants it.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.OperatorsAndFunctions.html. From
what DynamoDB does and the page does not say: what is missing is unequal (<>) to anything, and otherwise as any operator
that does not fit the type of a value: the comparison is false.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions.operands import (
    CONDITION_FUNCTIONS,
    UPDATE_FUNCTIONS,
    Call,
    Getter,
    Literal,
    Operand,
    OperandReader,
    Path,
    Steps,
    at,
    bind,
    check_count,
    requires_path,
    shown,
    wrong_type,
)
from owsgit.services.tables.expressions.placeholders import Placeholders
from owsgit.services.tables.expressions.tokens import END, Problem
from owsgit.services.tables.values import AttributeValue, Item, compare, equal, type_of, value_size

IN_OPERANDS_MAX = 100
TYPES = ("B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M")
ORDERED = ("S", "N", "B")
"""Types whose values have an order."""

_KEYWORDS = frozenset({"BETWEEN", "IN", "AND", "OR", "NOT"})
_COMPARATORS = ("=", "<>", "<", "<=", ">", ">=")

Test = Callable[[Item], bool]


class Condition(NamedTuple):
    """`holds`: whether it does for an item ({} for none). `paths`: all that it looks at. `again`: what makes the same
    once more of what, in another process."""

    holds: Test
    paths: Sequence[Steps]
    again: tuple[Callable[..., "Condition"], tuple[Any, ...]]

    def __reduce__(self) -> tuple[Callable[..., "Condition"], tuple[Any, ...]]:
        return self.again

    def attributes(self) -> set[str]:
        """The names of the attributes that it looks at."""
        return {str(path[0]) for path in self.paths}


class Compared(NamedTuple):
    """One comparison. `operator`: a comparator, BETWEEN (of three operands), IN (of two or more), or a function."""

    operator: str
    operands: tuple[Operand, ...]


class Joined(NamedTuple):
    """`operator`: AND, OR (of two or more), or NOT (of one)."""

    operator: str
    conditions: tuple["Tree", ...]


Tree = Compared | Joined


def parse(text: str, placeholders: Placeholders, what: str = "ConditionExpression") -> Condition:
    """`what` is the parameter's name: ConditionExpression or FilterExpression."""
    try:
        return _without_placeholders(text) or made(bound(read(text), placeholders))
    except Problem as problem:
        raise ValidationError(f"Invalid {what}: {problem}") from None


@lru_cache(maxsize=512)
def _without_placeholders(text: str) -> Condition | None:
    """The condition, if it is the same with each request: most often attribute_not_exists(pk)."""
    return None if "#" in text or ":" in text else made(bound(read(text), Placeholders()))


def made(tree: Tree) -> Condition:
    """Of a tree that is bound."""
    paths: list[Steps] = []
    return Condition(_test(tree, paths), paths, (made, (tree,)))


# Reading


@lru_cache(maxsize=512)
def read(text: str) -> Tree:
    """The tree of a text, with its placeholders. Raises Problem."""
    reader = OperandReader(text, _KEYWORDS, CONDITION_FUNCTIONS, UPDATE_FUNCTIONS, "a condition expression")
    tree = _read_or(reader)
    reader.expect(END)
    if reader.has_redundant_parentheses():
        raise Problem("The expression has redundant parentheses;")
    reader.check()
    return tree


def _read_or(reader: OperandReader) -> Tree:
    found = [_read_and(reader)]
    while reader.accept("OR"):
        reader.count()
        found.append(_read_and(reader))
    return found[0] if len(found) == 1 else Joined("OR", tuple(found))


def _read_and(reader: OperandReader) -> Tree:
    found = [_read_not(reader)]
    while reader.accept("AND"):
        reader.count()
        found.append(_read_not(reader))
    return found[0] if len(found) == 1 else Joined("AND", tuple(found))


def _read_not(reader: OperandReader) -> Tree:
    negations = 0
    while reader.accept("NOT"):
        reader.count()
        negations += 1
    found = _read_one(reader)
    # Twice NOT is nothing; the tree need not be as deep as the text has words.
    return found if not negations else Joined("NOT", (found,)) if negations % 2 else Joined("AND", (found,))


def _read_one(reader: OperandReader) -> Tree:
    goes_on = (*_COMPARATORS, "BETWEEN", "IN", ".", "[")
    if reader.kind == "(" and reader.after_closing() not in goes_on:
        reader.take()
        reader.deeper()
        found = _read_or(reader)
        reader.expect(")")
        reader.higher()
        return found
    return _read_comparison(reader)


def _read_comparison(reader: OperandReader) -> Tree:
    left = reader.operand()
    _note_misuse(reader, left)
    if reader.kind in _COMPARATORS:
        reader.count()
        operator = reader.take()
        return _compared(reader, operator, left, reader.operand())
    if reader.accept("BETWEEN"):
        reader.count()
        low = reader.operand()
        reader.expect("AND")
        return _compared(reader, "BETWEEN", left, low, reader.operand())
    if reader.accept("IN"):
        reader.count()
        reader.expect("(")
        operands = [left, reader.operand()]
        while reader.accept(","):
            operands.append(reader.operand())
        reader.expect(")")
        return _compared(reader, "IN", *operands)
    if not isinstance(left, Call):
        raise reader.unexpected()
    if left.name == "size":
        reader.misuse(left)
    return Compared(left.name, left.operands)


def _compared(reader: OperandReader, operator: str, *operands: Operand) -> Compared:
    for operand in operands:
        _note_misuse(reader, operand)
        if isinstance(operand, Call) and operand.name != "size":
            reader.misuse(operand)
    return Compared(operator, operands)


def _note_misuse(reader: OperandReader, operand: Operand) -> None:
    """Of the operands of a function, only size() may be a function."""
    if isinstance(operand, Call):
        for inner in operand.operands:
            _note_misuse(reader, inner)
            if isinstance(inner, Call) and inner.name != "size":
                reader.misuse(inner)


# Binding


def bound(tree: Tree, placeholders: Placeholders) -> Tree:
    """The tree with what its placeholders stand for. Raises Problem for what is wrong with it now."""
    if isinstance(tree, Joined):
        return Joined(tree.operator, tuple(bound(each, placeholders) for each in tree.conditions))
    operands = tuple([bind(operand, placeholders) for operand in tree.operands])
    operator = tree.operator
    for operand in operands:
        if isinstance(operand, Call):
            _check_sizes(operand)
    count = CONDITION_FUNCTIONS.get(operator)
    if count is not None:
        check_count(Call(operator, operands), count)
    if operator == "IN" and len(operands) - 1 > IN_OPERANDS_MAX:
        raise Problem(f"The IN operator is provided with too many operands; number of operands: {len(operands) - 1}")
    if operator != "BETWEEN":
        _check_distinct(operator, operands)
    check = _CHECKS.get(operator)
    if check is not None:
        check(operator, operands)
    return Compared(operator, operands)


def _check_distinct(operator: str, operands: tuple[Operand, ...]) -> None:
    first = operands[0]
    if not isinstance(first, Path):
        return
    for other in operands[1:]:
        if isinstance(other, Path) and other.steps == first.steps:
            raise Problem(
                "The first operand must be distinct from the remaining operands for this operator or function; "
                f"operator: {operator}, first operand: {shown(first.steps)}"
            )


def _kind(operand: Operand) -> str | None:
    """The type of an operand, as far as it is known without an item."""
    if isinstance(operand, Literal):
        return type_of(operand.value)
    return "N" if isinstance(operand, Call) else None


def _check_sizes(call: Call) -> None:
    for inner in call.operands:
        if isinstance(inner, Call):
            _check_sizes(inner)
    check_count(call, 1)
    kind = _kind(call.operands[0])
    if kind in ("N", "BOOL", "NULL"):
        raise wrong_type("size", kind)


def _check_exists(operator: str, operands: tuple[Operand, ...]) -> None:
    requires_path(Call(operator, operands))


def _check_type(operator: str, operands: tuple[Operand, ...]) -> None:
    kind = _kind(operands[1])
    if kind is None:
        raise wrong_type(operator, "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}")
    if kind != "S":
        raise wrong_type(operator, kind)
    name = operands[1].value["S"] if isinstance(operands[1], Literal) else ""
    if name not in TYPES:
        raise Problem(f"Invalid attribute type name found; type: {name}, valid types: {{{','.join(TYPES)}}}")


def _check_begins_with(operator: str, operands: tuple[Operand, ...]) -> None:
    for operand in operands:
        kind = _kind(operand)
        if kind is not None and kind not in ("S", "B"):
            raise wrong_type(operator, kind)


def _check_ordered(operator: str, operands: tuple[Operand, ...]) -> None:
    for operand in operands:
        kind = _kind(operand)
        if kind is not None and kind not in ORDERED:
            raise wrong_type(operator, kind)


def _check_between(operator: str, operands: tuple[Operand, ...]) -> None:
    _check_ordered(operator, operands)
    low, high = operands[1:]
    if not isinstance(low, Literal) or not isinstance(high, Literal):
        return
    order = compare(low.value, high.value)
    if order is not None and order <= 0:
        return
    wanted = (
        "same data type for lower and upper bounds"
        if order is None
        else "upper bound to be greater than or equal to lower bound"
    )
    raise Problem(
        f"The BETWEEN operator requires {wanted}; lower bound operand: AttributeValue: {_shown_value(low.value)}, "
        f"upper bound operand: AttributeValue: {_shown_value(high.value)}"
    )


def _shown_value(value: AttributeValue) -> str:
    kind = type_of(value)
    return f"{{{kind}:{value[kind]}}}"


_CHECKS: dict[str, Callable[[str, tuple[Operand, ...]], None]] = {
    "attribute_exists": _check_exists,
    "attribute_not_exists": _check_exists,
    "attribute_type": _check_type,
    "begins_with": _check_begins_with,
    "BETWEEN": _check_between,
    **dict.fromkeys(("<", "<=", ">", ">="), _check_ordered),
}


# Evaluation: a function is made of each part of the tree, once for all items that are to be tested.


def _test(tree: Tree, paths: list[Steps]) -> Test:
    """`paths` get the paths that are looked at."""
    if isinstance(tree, Joined):
        tests = [_test(each, paths) for each in tree.conditions]
        if tree.operator == "AND":
            return _all(tests)
        if tree.operator == "OR":
            return _any(tests)
        [test] = tests
        return lambda item: not test(item)
    paths.extend(_paths(tree.operands))
    return _TESTS[tree.operator](*map(_getter, tree.operands))


def _all(tests: Sequence[Test]) -> Test:
    def test(item: Item) -> bool:
        for each in tests:  # noqa: SIM110 - a generator costs more than what it goes through
            if not each(item):
                return False
        return True

    return test


def _any(tests: Sequence[Test]) -> Test:
    def test(item: Item) -> bool:
        for each in tests:  # noqa: SIM110 - as above
            if each(item):
                return True
        return False

    return test


def _paths(operands: Sequence[Operand]) -> Iterator[Steps]:
    for operand in operands:
        if isinstance(operand, Path):
            yield operand.steps
        elif isinstance(operand, Call):
            yield from _paths(operand.operands)


def _getter(operand: Operand) -> Getter:
    if isinstance(operand, Path):
        return at(operand.steps)
    if isinstance(operand, Literal):
        value = operand.value
        return lambda _: value
    assert isinstance(operand, Call)  # of size(), the only function that has a value; all others are bound
    return _size(_getter(operand.operands[0]))


def _size(get: Getter) -> Getter:
    def size(item: Item) -> AttributeValue | None:
        value = get(item)
        found = None if value is None else value_size(value)
        return None if found is None else {"N": str(found)}

    return size


def _equal(left: Getter, right: Getter) -> Test:
    def test(item: Item) -> bool:
        a, b = left(item), right(item)
        return a is not None and b is not None and equal(a, b)

    return test


def _unequal(left: Getter, right: Getter) -> Test:
    same = _equal(left, right)
    return lambda item: not same(item)


def _ordered(wanted: Callable[[int], bool]) -> Callable[[Getter, Getter], Test]:
    def make(left: Getter, right: Getter) -> Test:
        def test(item: Item) -> bool:
            a, b = left(item), right(item)
            if a is None or b is None:
                return False
            order = compare(a, b)
            return order is not None and wanted(order)

        return test

    return make


_at_least = _ordered(lambda order: order >= 0)
_at_most = _ordered(lambda order: order <= 0)


def _between(value: Getter, low: Getter, high: Getter) -> Test:
    above, below = _at_least(value, low), _at_most(value, high)
    return lambda item: above(item) and below(item)


def _in(value: Getter, *others: Getter) -> Test:
    return _any([_equal(value, other) for other in others])


def _exists(get: Getter) -> Test:
    return lambda item: get(item) is not None


def _not_exists(get: Getter) -> Test:
    return lambda item: get(item) is None


def _is_of_type(get: Getter, kind: Getter) -> Test:
    def test(item: Item) -> bool:
        value, wanted = get(item), kind(item)
        return value is not None and wanted is not None and wanted["S"] in value

    return test


def _begins_with(get: Getter, prefix: Getter) -> Test:
    def test(item: Item) -> bool:
        value, start = get(item), prefix(item)
        return value is not None and start is not None and begins(value, start)

    return test


def _contains(get: Getter, inner: Getter) -> Test:
    def test(item: Item) -> bool:
        value, wanted = get(item), inner(item)
        return value is not None and wanted is not None and contains(value, wanted)

    return test


def begins(value: AttributeValue, start: AttributeValue) -> bool:
    """Whether a string or binary begins with another."""
    return any(
        kind in value and kind in start and value[kind].startswith(start[kind])  # of str or bytes
        for kind in ("S", "B")
    )


def contains(value: AttributeValue, wanted: AttributeValue) -> bool:
    """Whether a string or binary has another in it, or a set or a list an element."""
    kind = type_of(value)
    # Numbers have their normal form in items and requests. A list may have a hundred thousand elements.
    if kind == "L":
        inner = type_of(wanted)
        return wanted in value["L"] or (
            inner in ("SS", "NS", "BS", "L", "M")
            and any(inner in element and equal(element, wanted) for element in value["L"])
        )
    return kind in ("S", "B", "SS", "NS", "BS") and kind[0] in wanted and wanted[kind[0]] in value[kind]


_TESTS: dict[str, Callable[..., Test]] = {
    "=": _equal,
    "<>": _unequal,
    "<": _ordered(lambda order: order < 0),
    "<=": _at_most,
    ">": _ordered(lambda order: order > 0),
    ">=": _at_least,
    "BETWEEN": _between,
    "IN": _in,
    "attribute_exists": _exists,
    "attribute_not_exists": _not_exists,
    "attribute_type": _is_of_type,
    "begins_with": _begins_with,
    "contains": _contains,
}
