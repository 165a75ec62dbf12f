"""Condition blocks: every operator of IAM.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

import base64
import binascii
import ipaddress
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Protocol

from owsgit.model.iam import pattern
from owsgit.model.iam.context import UNKNOWABLE, Context, all_of, any_of, negation


class ConditionError(ValueError):
    """A condition that cannot mean what it says."""


class Matcher(Protocol):
    """One value of a condition, compared with one value of the request. None: it cannot be told."""

    def match(self, value: str, context: Context) -> bool | None: ...


@dataclass(frozen=True)
class Typed:
    """Compares values of a type; a value of the request that is not of the type cannot be told."""

    parse: Callable[[str], Any]
    compare: Callable[[Any, Any], bool]
    wanted: Any

    def match(self, value: str, context: Context) -> bool | None:
        try:
            return self.compare(self.parse(value), self.wanted)
        except (ValueError, TypeError):
            return None


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r:.40} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{text!r:.40} is not a finite number")
    return number


def _date(text: str) -> datetime:
    """ISO 8601 (W3C profile), or seconds since 1970."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r:.40} is not a date, such as 2026-01-31T12:00:00Z, nor seconds since 1970"
            ) from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r:.40} is neither 'true' nor 'false'")
    return text.lower() == "true"


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"{text!r:.40} is not base64") from None


@lru_cache(maxsize=4096)  # a policy of a hundred networks reads the one address of a request once
def _network(text: str) -> tuple[int, int, int]:
    """IP version, first and last address; an address is a network of one. An IPv4 address in IPv6's clothes
    (::ffff:10.0.0.1) is the IPv4 address."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen == 128 and network.network_address.ipv4_mapped:
        network = ipaddress.ip_network(network.network_address.ipv4_mapped)
    return network.version, int(network.network_address), int(network.broadcast_address)


def _in_network(address: tuple[int, int, int], network: tuple[int, int, int]) -> bool:
    return address[0] == network[0] and network[1] <= address[1] and address[2] <= network[2]


Maker = Callable[[str, bool], Matcher]


def _typed(parse: Callable[[str], Any], compare: Callable[[Any, Any], bool]) -> Maker:
    def make(text: str, variables: bool) -> Matcher:
        if variables and "${" in text:
            raise ConditionError("policy variables work with String and Arn operators only")
        return Typed(parse, compare, parse(text))

    return make


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "LessThanEquals": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanEquals": operator.ge,
}

_POSITIVE: dict[str, Maker] = {
    "StringEquals": pattern.exact,
    "StringEqualsIgnoreCase": lambda text, variables: pattern.exact(text, variables, ignore_case=True),
    "StringLike": pattern.like,
    "ArnEquals": pattern.arn,
    "ArnLike": pattern.arn,
    **{f"Numeric{name}": _typed(_number, compare) for name, compare in _COMPARISONS.items()},
    **{f"Date{name}": _typed(_date, compare) for name, compare in _COMPARISONS.items()},
    "Bool": _typed(_bool, operator.eq),
    "BinaryEquals": _typed(_binary, operator.eq),
    "IpAddress": _typed(_network, _in_network),
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}
NULL = "Null"
OPERATORS = (*_POSITIVE, *_NEGATED, NULL)
SETS = ("ForAllValues", "ForAnyValue")
IF_EXISTS = "IfExists"


@dataclass(frozen=True)
class Test:
    """One operator and key of a condition, ready to be asked."""

    key: str  # lower case
    matchers: tuple[Matcher, ...]
    negated: bool
    over: str  # "", "ForAllValues" or "ForAnyValue"
    if_exists: bool
    null: bool | None  # for the Null operator: whether the key is to be absent

    def answer(self, context: Context) -> bool | None:
        """Whether the condition holds; None if it cannot be told."""
        values = context.get(self.key)
        if values is UNKNOWABLE:
            return None
        assert not isinstance(values, type(UNKNOWABLE))
        if self.null is not None:
            return (not values) == self.null
        if not values:
            return self._absent()
        answers = [self._one(value, context) for value in values]
        every = self.over == "ForAllValues" or (not self.over and self.negated)
        return all_of(answers) if every else any_of(answers)

    def _absent(self) -> bool:
        if self.over:
            return self.over == "ForAllValues" or self.if_exists
        return self.if_exists or self.negated

    def _one(self, value: str, context: Context) -> bool | None:
        found = any_of(matcher.match(value, context) for matcher in self.matchers)
        return negation(found) if self.negated else found


def compile_test(name: str, key: str, texts: Iterable[str], variables: bool) -> Test:
    """The test for operator `name` on `key`. Raises ConditionError, ValueError."""
    over, _, plain = name.rpartition(":")
    if over and over not in SETS:
        raise ConditionError(f"{over!r} is not a set operator: {' or '.join(SETS)}")
    if_exists = plain.endswith(IF_EXISTS)
    plain = plain.removesuffix(IF_EXISTS)
    if plain == NULL:
        wanted = {_bool(text) for text in texts}
        if over or if_exists or len(wanted) != 1:
            raise ConditionError("Null takes one of 'true' and 'false', and neither a set operator nor IfExists")
        return Test(key.lower(), (), False, "", False, wanted.pop())
    maker = _POSITIVE.get(_NEGATED.get(plain, plain))
    if maker is None:
        raise ConditionError(f"{name!r} is not a condition operator")
    matchers = tuple(maker(text, variables) for text in texts)
    if not matchers:
        raise ConditionError("a condition needs a value")
    return Test(key.lower(), matchers, plain in _NEGATED, over, if_exists, None)


def variables_of(test: Test) -> Iterable[pattern.Variable]:
    """The policy variables in a test."""
    for matcher in test.matchers:
        if isinstance(matcher, pattern.Pattern):
            yield from matcher.variables
