"""Names, ARNs and the ids that follow from the genesis commit."""

import hashlib
import re
import string
from dataclasses import dataclass
from functools import lru_cache

import bech32

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A resource's name: the strictest of what Lambda, IAM and DynamoDB take, so that every ARN of it is valid there."""

NAME_RULE = "letters, digits, '_', '-' and '.', starting with a letter or digit, at most 64"

SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
"""RoleSessionName of sts:AssumeRole."""

SUFFIX_CHARACTERS = 6
_SUFFIX = string.ascii_letters + string.digits

PROJECT_ID_PREFIX = "ows"

KEPT_CHARACTERS_MAX = 256
"""Of a name whose ARNs are kept: some come from requests, before it is known whether there is such a thing."""


def is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


COMMIT = re.compile(r"[0-9a-f]{40}")
"""All digits of a commit's id: shorter ones may come to mean another commit."""

ALIAS_NEED = "alias:"
"""What names a version of a function by an alias needs of it (Reference.need)."""


def unqualified(name: str) -> str:
    """The function that a name of a version of it means: f of f, f:alias and f@commit."""
    return re.split("[:@]", name, maxsplit=1)[0]


def project_id(genesis: str) -> str:
    """The project's id: bech32 (BIP 173) of the genesis commit's id, so that a mistyped one is noticed."""
    words = bech32.convertbits(bytes.fromhex(genesis), 8, 5) or []
    encoded: str = bech32.bech32_encode(PROJECT_ID_PREFIX, words)
    return encoded


def genesis_of(project: str) -> str | None:
    """The genesis commit's id (40 hex digits) of a project id, or None if it is mistyped."""
    prefix, words = bech32.bech32_decode(project)
    if prefix != PROJECT_ID_PREFIX or words is None:
        return None
    octets = bech32.convertbits(words, 5, 8, False)
    return bytes(octets).hex() if octets is not None and len(octets) == 20 else None


def account_id(genesis: str) -> str:
    """The 12 digits that stand where AWS has an account number; derived, so that every node has the same."""
    return f"{int(genesis, 16) % 10**12:012d}"


@lru_cache(maxsize=4096)
def suffix_of(account: str, name: str) -> str:
    """The six characters that end the ARN of a secret, as on AWS, so that policies may write `secret:name-??????`."""
    digest = hashlib.sha256(f"{account}/{name}".encode()).digest()
    return "".join(_SUFFIX[octet % len(_SUFFIX)] for octet in digest[:SUFFIX_CHARACTERS])


@dataclass(frozen=True)
class Scope:
    """What ARNs of one project have in common."""

    region: str
    account: str

    def arn(self, template: str, name: str) -> str:
        make = _arn if len(name) <= KEPT_CHARACTERS_MAX else _arn.__wrapped__
        return make(self.region, self.account, template, name)


@lru_cache(maxsize=4096)
def _arn(region: str, account: str, template: str, name: str) -> str:
    suffix = suffix_of(account, name) if "{suffix}" in template else ""
    return template.format(region=region, account=account, name=name, suffix=suffix)
