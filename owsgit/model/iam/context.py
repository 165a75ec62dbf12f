"""What is known of a request: condition keys and their values."""

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any


class Unknowable(Enum):
    """A key that has a value in principle, but not one that everybody who checks the decision would see."""

    UNKNOWABLE = "unknowable"


UNKNOWABLE = Unknowable.UNKNOWABLE
Values = tuple[str, ...]

VARYING_KEYS = frozenset(
    {
        "aws:currenttime", "aws:epochtime", "aws:tokenissuetime", "aws:sourceip", "aws:vpcsourceip", "aws:sourcevpc",
        "aws:sourcevpce", "aws:useragent", "aws:referer", "aws:multifactorauthage", "aws:multifactorauthpresent",
    }
)  # fmt: skip
"""Keys that a signed commit has no value for that every node would agree on, now and in ten years."""


APPROVAL_COUNT = "ows:approvalcount"
"""Nobody's approval is a count of 0, never the lack of a key: a Deny of what too few approved has to see it."""


class Later(Mapping[str, Any]):
    """A mapping that is made when somebody looks into it: few decisions look at what is known of a request."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make
        self._made: Mapping[str, Any] | None = None

    def _all(self) -> Mapping[str, Any]:
        made = self._made
        if made is None:
            made = self._made = self._make()
        return made

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@dataclass(slots=True, eq=False)
class Context:
    """Condition keys (lower case, as they are case-insensitive) and their values."""

    values: Mapping[str, Values] = field(default_factory=dict)
    unknowable: frozenset[str] = frozenset()

    @classmethod
    def of(cls, values: Mapping[str, str | Iterable[str]], unknowable: frozenset[str] = frozenset()) -> "Context":
        """From keys in any case to one value or several."""
        return cls(
            {key.lower(): (value,) if isinstance(value, str) else tuple(value) for key, value in values.items()},
            unknowable,
        )

    def with_values(self, values: Mapping[str, str | Iterable[str]]) -> "Context":
        """This context with more keys; given ones win."""
        if type(values) is Later or type(self.values) is Later:
            return Context(Later(lambda: {**self.values, **Context.of(values).values}), self.unknowable)
        return Context({**self.values, **Context.of(values).values}, self.unknowable)

    def or_values(self, values: Mapping[str, str | Iterable[str]]) -> "Context":
        """This context with more keys; its own win."""
        if type(values) is Later or type(self.values) is Later:
            return Context(Later(lambda: {**Context.of(values).values, **self.values}), self.unknowable)
        return Context({**Context.of(values).values, **self.values}, self.unknowable)

    def get(self, key: str) -> Values | Unknowable | None:
        """The values of `key` (lower case); None if the request does not have it."""
        if key in self.unknowable:
            return UNKNOWABLE
        found = self.values.get(key)
        if found is None and key.startswith(APPROVAL_COUNT):
            return ("0",)
        return found


EMPTY = Context()

SECURE_TRANSPORT = "aws:securetransport"


def of_request(address: str, headers: Iterable[tuple[bytes, bytes]], now: float, *, secure: bool) -> Context:
    """The condition keys that every request over HTTP has. A private network is what a VPC is on AWS.

    `headers` have names in lower case; `now` is in seconds since 1970; `secure`: it came over TLS.
    """
    known = {
        "aws:currenttime": (iso(now),),
        "aws:epochtime": (str(int(now)),),
        "aws:sourceip": (address,),
        SECURE_TRANSPORT: ("true" if secure else "false",),
    }
    if _is_private(address):
        known["aws:vpcsourceip"] = (address,)
    for name, value in headers:
        key = _OF_HEADERS.get(name)
        if key is not None and key not in known and value:
            known[key] = (value.decode("latin-1"),)
    return Context(known)


_OF_HEADERS = {b"user-agent": "aws:useragent", b"referer": "aws:referer"}


@lru_cache(maxsize=4096)
def _is_private(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return False


def iso(seconds: float) -> str:
    """A time in seconds since 1970, as policies write it."""
    return _iso(int(seconds))


@lru_cache(maxsize=1024)
def _iso(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """Three-valued and."""
    result: bool | None = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            result = None
    return result


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """Three-valued or."""
    result: bool | None = False
    for answer in answers:
        if answer:
            return True
        if answer is None:
            result = None
    return result


def negation(answer: bool | None) -> bool | None:
    """Three-valued not."""
    return None if answer is None else not answer
