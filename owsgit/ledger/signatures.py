"""Who signed a commit: one good signature of a key that the given state knows."""

from collections.abc import Iterator
from dataclasses import dataclass

from owsgit.ledger import openpgp, sshsig
from owsgit.ledger.commits import Commit
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.model import keys
from owsgit.model.core import UserSpec
from owsgit.model.state import State

_SIGN = "git commit --amend --no-edit -S (or: git rebase --exec 'git commit --amend --no-edit -S' origin/main)"


@dataclass(frozen=True)
class Signer:
    """The user who signed, and with which key."""

    user: str
    algorithm: str
    fingerprint: str


def signer(commit: Commit, state: State) -> Signer:
    """The user of `state` who signed `commit`. Raises BadSignatureError."""
    if commit.signature is None:
        raise BadSignatureError("it is not signed", remedy=_SIGN)
    if commit.signature.startswith(sshsig.BEGIN):
        key = sshsig.verify(commit.payload, commit.signature)
        holder = state.holder("key", key.fingerprint)
        if holder is None or not isinstance(holder.spec, UserSpec):
            raise BadSignatureError(
                f"it is signed by {key.fingerprint} ({key.algorithm}), which is no user's key",
                remedy="sign with a key of your users/<you>.json, or have somebody add this one there first",
            )
        return Signer(holder.name, key.algorithm, key.fingerprint)
    if commit.signature.startswith(openpgp.BEGIN):
        user, fingerprint = openpgp.verify(commit.payload, commit.signature, lambda: _certificates(state))
        return Signer(user, "openpgp", fingerprint)
    raise BadSignatureError("its signature is neither an SSH nor an OpenPGP signature", remedy=_SIGN)


def pusher(certificate: bytes, state: State) -> str:
    """The user of `state` who signed a push certificate (git push --signed, gitprotocol-pack(5)).

    Raises BadSignatureError. The commits' own signatures are what counts; this says who brought them.
    """
    at = certificate.find(sshsig.BEGIN)
    if at < 0:
        raise BadSignatureError("the push certificate has no SSH signature", remedy="push without --signed")
    key = sshsig.verify(certificate[:at], certificate[at:])
    holder = state.holder("key", key.fingerprint)
    if holder is None or not isinstance(holder.spec, UserSpec):
        raise BadSignatureError(
            f"the push is signed by {key.fingerprint}, which is no user's key", remedy="sign with a key of your user's"
        )
    return holder.name


def _certificates(state: State) -> Iterator[tuple[str, str]]:
    for user in state.of_kind("user"):
        assert isinstance(user.spec, UserSpec)
        for text in user.spec.keys:
            if keys.is_openpgp(text):
                yield user.name, text
