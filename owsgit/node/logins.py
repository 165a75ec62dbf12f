"""Who logs in with a key, by the ledger."""

import hashlib
from collections.abc import Sequence

from owsgit.ledger import signatures
from owsgit.model.core import UserSpec
from owsgit.model.state import State

CERTIFIED = "certified by "
"""What the names begin with that stand for keys of certificates."""


def certified(user: str, authorities: Sequence[str]) -> str:
    """What stands for the key of a session of a user with a certificate, while the ledger names these authorities."""
    digest = hashlib.sha256("\n".join(sorted(authorities)).encode()).hexdigest()
    return f"{CERTIFIED}{digest} {user}"


def user_of(state: State, fingerprint: str) -> str | None:
    """The user of the ledger who has a key, by its fingerprint or by what `certified` calls it."""
    if fingerprint.startswith(CERTIFIED):
        user = fingerprint.partition(" ")[2].rpartition(" ")[2]
        authorities = signatures.authorities_of(user, state)
        return user if authorities and fingerprint == certified(user, authorities) else None
    holder = state.holder("key", fingerprint)
    return holder.name if holder is not None and isinstance(holder.spec, UserSpec) else None
