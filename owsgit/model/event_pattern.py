"""Event patterns: which events are wanted, in the language of EventBridge's rules and Lambda's filters. Pure.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html and
https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html. A pattern is an object like an event: under
each of its fields are further fields, or a list of what the value may be; of a list in an event, any element will do.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from owsgit.model.spec import PlacedError

Test = Callable[[Any], bool]
"""Of a value that is no object and no list."""

DEPTH_MAX = 64
TESTS_MAX = 1000
"""Of one pattern: each event is held against all of them."""

CHARACTERS_MAX = 4096
"""Of a pattern as JSON text, at AWS."""

_ABSENT = object()


class Pattern:
    """A pattern that was read."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises PlacedError, which says where in the document something is wrong."""
        self._count = 0
        self._matches = self._fields(document, ())

    def matches(self, event: Mapping[str, Any]) -> bool:
        return self._matches(event)

    def _fields(self, document: Mapping[str, Any], at: tuple[str | int, ...]) -> Test:
        """Of an object: all of its fields have to fit."""
        if not document:
            raise PlacedError("an empty object fits nothing: name a field", *at)
        if len(at) > DEPTH_MAX:
            raise PlacedError(f"patterns are at most {DEPTH_MAX} deep", *at)
        fields: list[tuple[str, Test]] = []
        others: list[Test] = []
        for name, wanted in document.items():
            place = (*at, name)
            if name == "$or" and _is_alternatives(wanted):
                others.append(self._any([self._fields(each, (*place, i)) for i, each in enumerate(wanted)]))
            elif isinstance(wanted, Mapping):
                fields.append((name, self._object(self._fields(wanted, place))))
            elif isinstance(wanted, list):
                fields.append((name, self._leaf(wanted, place)))
            else:
                raise PlacedError(f"{wanted!r:.60} has to be in a list: write [{wanted!r:.60}]", *place)

        def matches(value: Any) -> bool:
            if not isinstance(value, Mapping):
                return False
            return all(fits(value.get(name, _ABSENT)) for name, fits in fields) and all(fits(value) for fits in others)

        return matches

    def _object(self, fits: Test) -> Test:
        """Of a field that has fields: an object, a list with such an object, or nothing, as far as that is wanted."""

        def matches(value: Any) -> bool:
            if isinstance(value, list):
                return any(map(fits, value))
            return fits({} if value is _ABSENT else value)

        return matches

    def _leaf(self, wanted: Sequence[Any], at: tuple[str | int, ...]) -> Test:
        """Of a list of what a value may be."""
        if not wanted:
            raise PlacedError("an empty list fits nothing: write what the value may be", *at)
        self._count += len(wanted)
        if self._count > TESTS_MAX:
            raise PlacedError(f"a pattern says at most {TESTS_MAX} things of values", *at)
        exists = [each["exists"] for each in wanted if isinstance(each, Mapping) and set(each) == {"exists"}]
        for value in exists:
            if not isinstance(value, bool):
                raise PlacedError(f"exists is true or false, not {value!r:.60}", *at)
        tests = [
            _test(each, (*at, i))
            for i, each in enumerate(wanted)
            if not (isinstance(each, Mapping) and "exists" in each and len(each) == 1)
        ]
        fits = self._any(tests)

        def matches(value: Any) -> bool:
            if value is _ABSENT:
                return False in exists
            if isinstance(value, Mapping):
                return False  # it is no value: exists is about values alone, as at AWS
            if isinstance(value, list):
                return any(map(matches, value)) if value else True in exists
            return True in exists or fits(value)

        return matches

    @staticmethod
    def _any(tests: Sequence[Test]) -> Test:
        return tests[0] if len(tests) == 1 else lambda value: any(fits(value) for fits in tests)


def _is_alternatives(wanted: Any) -> bool:
    """Whether what stands under $or are alternatives, and it is not the name of a field."""
    return isinstance(wanted, list) and len(wanted) > 1 and all(isinstance(each, Mapping) and each for each in wanted)


def _test(wanted: Any, at: tuple[str | int, ...]) -> Test:
    """Of one thing that a value may be."""
    if isinstance(wanted, Mapping):
        if len(wanted) != 1:
            raise PlacedError(f"one of {', '.join(_OPERATORS)} is needed here, alone", *at)
        [(name, operand)] = wanted.items()
        make = _OPERATORS.get(name)
        if make is None:
            raise PlacedError(f"{name!r:.60} is no operator; those are {', '.join((*_OPERATORS, 'exists'))}", *at)
        try:
            return make(operand)
        except ValueError as error:
            raise PlacedError(f"{name}: {error}", *at, name) from None
    if isinstance(wanted, list):
        raise PlacedError("a list in a list says nothing: take the brackets off", *at)
    return _equals(wanted)


def _equals(wanted: Any) -> Test:
    """Strings, numbers, true, false and null are different things; 1 and 1.0 are the same number."""
    if isinstance(wanted, bool) or wanted is None:
        return lambda value: value is wanted
    if isinstance(wanted, str):
        return lambda value: isinstance(value, str) and value == wanted
    number = _number(wanted)
    return lambda value: _is_number(value) and _number(value) == number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> Decimal:
    if not _is_number(value):
        raise ValueError(f"a number is needed, not {value!r:.60}")
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r:.60} is no number") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text is needed, not {value!r:.60}")
    return value


def _of_text(make: Callable[[str], Callable[[str], bool]]) -> Callable[[Any], Test]:
    """An operator of texts that may be told to take upper and lower case for the same."""

    def operator(operand: Any) -> Test:
        if isinstance(operand, Mapping):
            if set(operand) != {"equals-ignore-case"}:
                raise ValueError("a text, or an object with equals-ignore-case, is needed")
            fits = make(_text(operand["equals-ignore-case"]).casefold())
            return lambda value: isinstance(value, str) and fits(value.casefold())
        fits = make(_text(operand))
        return lambda value: isinstance(value, str) and fits(value)

    return operator


def _begins(operand: str) -> Callable[[str], bool]:
    return lambda value: value.startswith(operand)


def _ends(operand: str) -> Callable[[str], bool]:
    return lambda value: value.endswith(operand)


def _ignoring_case(operand: Any) -> Test:
    folded = _text(operand).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _wildcard(operand: Any) -> Test:
    r"""`*` is any text, `\*` and `\\` are themselves."""
    parts: list[str] = [""]
    for found in re.finditer(r"\\(.?)|(\*+)|([^\\*]+)", _text(operand), re.DOTALL):
        escaped, stars, plain = found.groups()
        if stars is not None:
            if len(stars) > 1:
                raise ValueError("two * follow each other: write one")
            parts.append("")
        elif plain is not None:
            parts[-1] += plain
        elif escaped in ("*", "\\"):
            parts[-1] += escaped
        else:
            raise ValueError(r"a \ stands before a * or a \ alone")
    first, *middle = parts
    last = middle.pop() if middle else None

    def fits(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if last is None:
            return value == first
        if len(value) < len(first) + len(last) or not (value.startswith(first) and value.endswith(last)):
            return False
        place, end = len(first), len(value) - len(last)
        for part in middle:  # the leftmost place is as good as any: no other has to be tried
            place = value.find(part, place, end)
            if place < 0:
                return False
            place += len(part)
        return True

    return fits


_COMPARISONS: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _numeric(operand: Any) -> Test:
    """A list such as [">", 0, "<=", 5]."""
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise ValueError('a list like [">", 0, "<=", 5] is needed')
    bounds = []
    for sign, bound in zip(operand[::2], operand[1::2], strict=True):
        if not isinstance(sign, str) or sign not in _COMPARISONS:
            raise ValueError(f"{sign!r:.60} is none of {' '.join(_COMPARISONS)}")
        bounds.append((_COMPARISONS[sign], _number(bound)))
    return lambda value: _is_number(value) and all(holds(_number(value), bound) for holds, bound in bounds)


def _cidr(operand: Any) -> Test:
    network = ipaddress.ip_network(_text(operand), strict=False)

    @lru_cache(256)
    def within(value: str) -> bool:
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return lambda value: isinstance(value, str) and within(value)


def _anything_but(operand: Any) -> Test:
    """A value, a list of values, or an object with one operator of texts, whose operand may be a list too."""
    if isinstance(operand, Mapping):
        if len(operand) != 1 or next(iter(operand)) not in _NEGATED:
            raise ValueError(f"one of {', '.join(_NEGATED)} is needed")
        [(name, operands)] = operand.items()
        tests = [_NEGATED[name](each) for each in _several(operands)]
    else:
        tests = [_equals(each) for each in _several(operand)]
    return lambda value: not any(fits(value) for fits in tests)


def _several(operand: Any) -> Iterator[Any]:
    found = operand if isinstance(operand, list) else [operand]
    if not found or any(isinstance(each, list | Mapping) for each in found):
        raise ValueError("a value, or a list of values, is needed")
    yield from found


_NEGATED: Mapping[str, Callable[[Any], Test]] = {
    "prefix": _of_text(_begins),
    "suffix": _of_text(_ends),
    "equals-ignore-case": _ignoring_case,
    "wildcard": _wildcard,
}
_OPERATORS: Mapping[str, Callable[[Any], Test]] = {
    **_NEGATED,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
}
