"""The proof that a head was decided: the signed votes of enough nodes, which anybody with a clone can count.

A certificate is kept as a git note on the head that it is for, in refs/notes/owsgit/votes, as one line of JSON. Each
vote is an Ed25519 signature of a node's key in the form of an SSH signature (PROTOCOL.sshsig, namespace `owsgit-vote`,
SHA-512) over the text of `statement`.
"""

import base64
import json
from collections.abc import Mapping
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

from owsgit.ledger import sshsig
from owsgit.model import strictjson
from owsgit.model.errors import InvalidError, RefusedError
from owsgit.model.keys import SshKey
from owsgit.model.spec import Document
from owsgit.peers.members import Member
from owsgit.peers.paxos import Ballot, Electorate, Instance, Voted

NAMESPACE = b"owsgit-vote"
MEMBERS_MAX = 1000
ROUND_MAX = 2**62

CommitId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
NodeId = Annotated[str, StringConstraints(pattern="^SHA256:[A-Za-z0-9+/]{43}$")]
Signature = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9+/]{86}==$")]
RecoveryId = Annotated[str, StringConstraints(pattern="^([0-9a-f]{64})?$")]


class CertificateError(RefusedError):
    """A certificate that does not prove what it says."""


def check_vote(voted: Voted, key: SshKey) -> None:
    """Check the signature of one vote. Raises BadSignatureError."""
    wanted = statement(voted.instance, voted.ballot, voted.value)
    sshsig.verify_bare(key, NAMESPACE, wanted, base64.b64decode(voted.signature))


class _Document(Document):
    """The JSON of a certificate."""

    head: CommitId
    recovery: RecoveryId = ""
    ballot: tuple[Annotated[int, Field(ge=1, le=ROUND_MAX)], NodeId] = Field(strict=False)
    value: CommitId
    votes: dict[NodeId, Signature] = Field(max_length=MEMBERS_MAX)


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class Certificate:
    """Enough votes for `value` as the successor of `instance.head`."""

    instance: Instance
    ballot: Ballot
    value: str
    votes: Mapping[str, str]  # node id → signature in base64

    def document(self) -> dict[str, Any]:
        recovery = {"recovery": self.instance.recovery} if self.instance.recovery else {}
        return {
            "head": self.instance.head,
            **recovery,
            "ballot": [self.ballot.round, self.ballot.node],
            "value": self.value,
            "votes": dict(sorted(self.votes.items())),
        }

    def text(self) -> str:
        """One line of JSON, the same for the same certificate."""
        return json.dumps(self.document(), separators=(",", ":"))

    def check(self, electorate: Electorate, members: Mapping[str, Member]) -> None:
        """Count the votes of `electorate`. Raises CertificateError if there are not enough good ones."""
        good = 0
        for node, signature in self.votes.items():
            if node not in electorate.members:
                continue
            try:
                check_vote(Voted(self.instance, self.ballot, self.value, signature), members[node].key)
            except sshsig.BadSignatureError:
                continue
            good += 1
            if good >= electorate.votes_needed:
                return
        raise CertificateError(
            f"commit {self.value[:10]} has {good} good votes as the successor of {self.instance.head[:10]}, "
            f"and needs {electorate.votes_needed} of the {len(electorate.members)} nodes",
            remedy="fetch it from another node",
        )


def parse(text: str | bytes) -> Certificate:
    """A certificate from its JSON, of which nothing is proven yet. Raises InvalidError."""
    data = text.encode() if isinstance(text, str) else text
    value = strictjson.loads(data, "certificate")
    if not isinstance(value, dict):
        raise InvalidError("a certificate is a JSON object", file="certificate")
    try:
        found = _Document.model_validate(value)
    except ValueError as error:
        raise InvalidError(f"not a certificate: {str(error).splitlines()[0]}", file="certificate") from None
    return Certificate(Instance(found.head, found.recovery), Ballot(*found.ballot), found.value, found.votes)


def statement(instance: Instance, ballot: Ballot, value: str) -> bytes:
    """What a vote signs."""
    lines = [f"head {instance.head}", f"ballot {ballot.round} {ballot.node}", f"successor {value}"]
    if instance.recovery:
        lines.insert(1, f"recovery {instance.recovery}")
    return "".join(f"{line}\n" for line in lines).encode()


def sign(key: Ed25519PrivateKey, instance: Instance, ballot: Ballot, value: str) -> str:
    """A vote's signature, in base64."""
    return base64.b64encode(sshsig.sign_bare(key, NAMESPACE, statement(instance, ballot, value))).decode()
