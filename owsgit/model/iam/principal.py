"""Who asks, and whom the Principal element of a policy names.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

from pydantic import AfterValidator

from owsgit.model.names import NAME, SESSION_NAME
from owsgit.model.spec import OneOrMany

EVERYBODY = "*"

_AWS = re.compile(
    r"\*|(?P<account>[0-9]{12})"
    rf"|arn:aws:iam::(?P<owner>[0-9]{{12}}|\*):(?:(?P<root>root)|(?P<kind>user|role)/(?P<name>{NAME.pattern}))"
    rf"|arn:aws:sts::(?P<place>[0-9]{{12}}|\*):assumed-role/(?P<role>{NAME.pattern})/(?P<session>{SESSION_NAME.pattern})"
)
_SERVICE = re.compile(r"[a-z0-9][a-z0-9.-]{0,100}\.amazonaws\.com")


class Match(IntEnum):
    """How closely a policy names somebody: the closer, the less else it takes."""

    NONE = 0
    ACCOUNT = 1
    """By the account: it is for the account's own policies to allow it as well."""

    WIDE = 2
    """By a role, or as everybody: boundaries and session policies bound it."""

    EXACT = 3
    """The very user, session or service."""


@dataclass(frozen=True)
class Caller:
    """Who asks: a user, a session of a role, or a service. `name` is for people."""

    name: str
    arn: str = ""
    account: str = ""
    role_arn: str = ""
    service: str = ""


def _check(kind: str, text: str) -> None:
    if kind == "AWS" and not _AWS.fullmatch(text):
        raise ValueError(
            f"{text!r:.120} is no principal: write an account's 12 digits, 'arn:aws:iam::ACCOUNT:root', "
            "'...:user/NAME', '...:role/NAME', 'arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION', or '*' "
            "(ACCOUNT may be *: this project)"
        )
    if kind == "Service" and not _SERVICE.fullmatch(text):
        raise ValueError(f"{text!r:.120} is no service principal, such as 'lambda.amazonaws.com'")
    if kind in ("Federated", "CanonicalUser"):
        raise ValueError(f"{kind} principals are not built: name users, roles (AWS) and services (Service)")
    if kind not in ("AWS", "Service"):
        raise ValueError(f"{kind!r:.40} is no kind of principal: AWS or Service")


def _principals(value: Any) -> Any:
    if isinstance(value, str):
        if value != EVERYBODY:
            raise ValueError('a principal is {"AWS": ...}, {"Service": ...} or "*"')
        return value
    if not value:
        raise ValueError("a Principal that names nobody")
    for kind, texts in value.items():
        for text in [texts] if isinstance(texts, str) else texts:
            _check(kind, text)
        if not texts:
            raise ValueError(f"{kind} names nobody")
    return value


PrincipalElement = Annotated[str | dict[str, OneOrMany[str]], AfterValidator(_principals)]


@dataclass(frozen=True)
class Named:
    """A user or a role that a policy names: in which account ('*': this one), and how it is written."""

    kind: str
    name: str
    account: str
    text: str


class Principals:
    """A Principal (or NotPrincipal) element, compiled."""

    def __init__(self, element: "str | Mapping[str, str | Sequence[str]]") -> None:
        given: Mapping[str, Any] = {"AWS": element} if isinstance(element, str) else element
        self._aws = [_fields(text) for text in _listed(given.get("AWS", ()))]
        self._services = frozenset(_listed(given.get("Service", ())))

    def match(self, caller: Caller) -> Match:
        """How closely `caller` is named."""
        if caller.service:
            wide = Match.WIDE if any(text == EVERYBODY for text, _ in self._aws) else Match.NONE
            return Match.EXACT if caller.service in self._services else wide
        return max((_match(text, found, caller) for text, found in self._aws), default=Match.NONE)

    def spares(self, caller: Caller) -> bool:
        """As NotPrincipal: whether `caller` is left out. As on AWS, the account alone spares nobody in it, and a role
        alone none of its sessions: who is meant has to be named itself.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html
        """
        return self.match(caller) is Match.EXACT or any(text == EVERYBODY for text, _ in self._aws)

    def services(self) -> Iterator[str]:
        """The services that it names."""
        yield from sorted(self._services)

    def named(self) -> Iterator[Named]:
        """The users and roles that it names."""
        for text, found in self._aws:
            if found["name"]:
                yield Named(found["kind"], found["name"], found["owner"], text)
            elif found["role"]:
                yield Named("role", found["role"], found["place"], text)

    def accounts(self) -> Iterator[tuple[str, str]]:
        """(account, text) of everything that names an account's number."""
        for text, found in self._aws:
            account = found["account"] or found["owner"] or found["place"]
            if account and account != EVERYBODY:
                yield account, text


def _listed(value: "str | Iterable[str]") -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _fields(text: str) -> tuple[str, dict[str, str]]:
    match = _AWS.fullmatch(text)
    assert match is not None  # checked when the policy was read
    return text, {name: value or "" for name, value in match.groupdict().items()}


def _match(text: str, found: Mapping[str, str], caller: Caller) -> Match:
    if text == EVERYBODY:
        return Match.WIDE
    account = found["account"] or found["owner"] or found["place"]
    if account not in (EVERYBODY, caller.account):
        return Match.NONE
    if found["account"] or found["root"]:
        return Match.ACCOUNT
    wanted = text.replace(f"::{account}:", f"::{caller.account}:", 1)
    if wanted == caller.arn:
        return Match.EXACT
    return Match.WIDE if wanted == caller.role_arn else Match.NONE
