"""What a node says of itself, signed, so that others can pass it on: which commit it runs, and how it is."""

import base64
import json
from collections.abc import Mapping
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass

from owsgit.ledger import sshsig
from owsgit.model.errors import RefusedError
from owsgit.model.keys import SshKey
from owsgit.model.spec import Document
from owsgit.peers.certificates import CommitId, Signature

NAMESPACE = b"owsgit-status"
FAILED_MAX = 100
_Text = Annotated[str, StringConstraints(max_length=200)]


class NodeStatus(Document):
    """The status of a node, by itself."""

    node: _Text = Field(description="Name of the node.")
    head: CommitId | None = Field(description="Where its main is.")
    applied: CommitId | None = Field(description="The last commit for which everything was tried.")
    failed: list[_Text] = Field(max_length=FAILED_MAX, description="Resources that failed.")
    version: _Text = Field(description="Version of owsgit.")
    time: _Text = Field(description="When this was so, by the node's own clock (UTC).")
    problem: Annotated[str, StringConstraints(max_length=2000)] = Field(
        "", description="Why main is not followed, or may not be."
    )

    def text(self) -> bytes:
        """What is signed: one form for one status."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1).encode() + b"\n"


@dataclass(frozen=True)
class SignedStatus:
    """A status and its node's signature."""

    status: NodeStatus
    signature: Signature

    def document(self) -> dict[str, Any]:
        return {"status": self.status.model_dump(mode="json", by_alias=True), "signature": self.signature}


def sign(key: Ed25519PrivateKey, status: NodeStatus) -> SignedStatus:
    """A node's status, signed with its key."""
    return SignedStatus(status, base64.b64encode(sshsig.sign_bare(key, NAMESPACE, status.text())).decode())


def check(value: Any, key: SshKey, name: str) -> SignedStatus:
    """The status in `value`, if it is by the node `name` with `key`. Raises RefusedError."""
    if not isinstance(value, Mapping):
        raise RefusedError("a status is a JSON object")
    try:
        status = NodeStatus.model_validate(value.get("status"))
        found = SignedStatus(status, value.get("signature", ""))
    except ValidationError as error:
        raise RefusedError(f"not a status: {str(error).splitlines()[0]}") from None
    sshsig.verify_bare(key, NAMESPACE, status.text(), base64.b64decode(found.signature))
    if status.node != name:
        raise RefusedError(f"a status of {status.node!r}, signed by {name}")
    return found
