"""Going on after a majority of the nodes was lost for good: what the roots state, and what follows from it.

The roots name the head and the lost nodes. From then on the successor of that head is decided by the survivors: all of
them have to be heard, so that nothing that one of them has voted for is forgotten, and a majority of them decides. The
statement is an SSH signature of a root's key (namespace `owsgit-recovery`) over its JSON text.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from owsgit.ledger import sshsig
from owsgit.model import strictjson
from owsgit.model.core import UserSpec
from owsgit.model.errors import InvalidError, NotAllowedError, RefusedError
from owsgit.model.spec import Document
from owsgit.model.state import State
from owsgit.peers import members
from owsgit.peers.certificates import CommitId, NodeId

NAMESPACE = b"owsgit-recovery"
SIGNATURES_MAX = 100
TOLD_MAX = 16
"""Recoveries that one node tells another of."""


class Recovery(Document):
    """The statement: at `head`, `lost` (ids of nodes, with their names for people) are lost for good.

    `lost` may be empty: then nodes that were restored from backups, and may have forgotten votes, vote again.
    """

    project: str = Field(max_length=100)
    head: CommitId
    lost: dict[NodeId, Annotated[str, StringConstraints(max_length=64)]] = Field(max_length=1000)
    nonce: Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]  # so that no statement is ever used twice

    def text(self) -> bytes:
        """What is signed: one form for one statement."""
        value = {
            "project": self.project,
            "head": self.head,
            "lost": dict(sorted(self.lost.items())),
            "nonce": self.nonce,
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @property
    def id(self) -> str:
        return hashlib.sha256(self.text()).hexdigest()


class SignedRecovery(Document):
    """A statement with the roots' signatures."""

    recovery: Recovery
    signatures: list[Annotated[str, StringConstraints(max_length=16384)]] = Field(max_length=SIGNATURES_MAX)


@dataclass(frozen=True)
class Accepted:
    """A recovery that was checked, and who signed it."""

    signed: SignedRecovery
    roots: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.signed.recovery.id

    @property
    def lost(self) -> frozenset[str]:
        return frozenset(self.signed.recovery.lost)


def parse(data: bytes, file: str = "recovery") -> SignedRecovery:
    """A signed statement from its JSON, of which nothing is proven yet. Raises InvalidError."""
    value = strictjson.loads(data, file)
    try:
        return SignedRecovery.model_validate(value)
    except ValueError as error:
        raise InvalidError(
            f"not a recovery statement: {str(error).splitlines()[0]}",
            file=file,
            remedy="make it with owsgit node recover",
        ) from None


def told(answer: Mapping[str, Any]) -> list[SignedRecovery]:
    """The recoveries in a neighbour's message, of which nothing is proven yet. Raises InvalidError."""
    values = answer.get("recoveries")
    listed = values[:TOLD_MAX] if isinstance(values, list) else []
    return [parse(json.dumps(value).encode()) for value in listed]


def document(signed: SignedRecovery) -> dict[str, Any]:
    """The JSON of a signed statement."""
    return signed.model_dump(mode="json", by_alias=True)


def check(signed: SignedRecovery, state: State) -> Accepted:
    """Check a statement by the state at its head. Raises RefusedError or NotAllowedError."""
    statement = signed.recovery
    if statement.project != state.project_id:
        raise RefusedError("the recovery is of another project", remedy="sign one in a clone of this project")
    nodes = members.of(state)
    _check_lost(statement.lost, nodes)
    roots: set[str] = set()
    for signature in signed.signatures:
        key = sshsig.verify(statement.text(), signature.encode(), NAMESPACE)
        holder = state.holder("key", key.fingerprint)
        if holder is None or not isinstance(holder.spec, UserSpec) or not state.is_root(holder.name):
            raise NotAllowedError(
                f"the recovery is signed by {key.fingerprint}, which is no root's key at {statement.head[:10]}",
                remedy="have a root sign it: owsgit node recover",
            )
        roots.add(holder.name)
    if len(roots) < state.project.root_quorum:
        raise NotAllowedError(
            f"a recovery needs the signatures of {state.project.root_quorum} roots and has {len(roots)}",
            file="project.json",
            path="$.rootQuorum",
            remedy="have another root sign it too: owsgit node recover --with FILE",
        )
    return Accepted(signed, tuple(sorted(roots)))


def _check_lost(lost: Mapping[str, str], nodes: Mapping[str, members.Member]) -> None:
    for node, name in lost.items():
        if node not in nodes or nodes[node].name != name:
            raise RefusedError(f"the ledger names no node {name!r} with the key {node}", remedy="owsgit status")
    if len(lost) == len(nodes):
        raise RefusedError("all nodes are named as lost: nobody would be left to go on", remedy="name the lost ones")
