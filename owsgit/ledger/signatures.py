"""Who signed a commit: one good signature of a key that the given state knows."""

from collections.abc import Iterator
from dataclasses import dataclass

from owsgit.ledger import openpgp, sshsig
from owsgit.ledger.commits import Commit
from owsgit.ledger.sshcert import SshCertificate
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.model import keys
from owsgit.model.core import UserSpec
from owsgit.model.keys import SshKey
from owsgit.model.state import State

_SIGN = "git commit --amend --no-edit -S (or: git rebase --exec 'git commit --amend --no-edit -S' origin/main)"


@dataclass(frozen=True)
class Signer:
    """The user who signed, and with which key; `validity` is that of the key's certificate, in seconds since 1970."""

    user: str
    algorithm: str
    fingerprint: str
    validity: tuple[int, int] | None = None

    def check_validity(self, now: float | None) -> None:
        """Raises BadSignatureError if the signer's certificate is not valid at `now` (None: nobody asks any more)."""
        if now is None or self.validity is None:
            return
        after, before = self.validity
        if not after <= now < before:
            raise BadSignatureError(
                f"the certificate of {self.user} {'has expired' if now >= before else 'is not valid yet'}",
                remedy="get a new certificate, then sign again: git commit --amend --no-edit -S",
            )


def signer(commit: Commit, state: State) -> Signer:
    """The user of `state` who signed `commit`. Raises BadSignatureError."""
    if commit.signature is None:
        raise BadSignatureError("it is not signed", remedy=_SIGN)
    return signed_by(commit.payload, commit.signature, state)


def signed_by(payload: bytes, signature: bytes, state: State) -> Signer:
    """The user of `state` who made the armoured `signature` over `payload`. Raises BadSignatureError."""
    if signature.startswith(sshsig.BEGIN):
        key, certificate = sshsig.verify_certified(payload, signature)
        if certificate is not None:
            return _certified(key, certificate, state)
        holder = state.holder("key", key.fingerprint)
        if holder is None or not isinstance(holder.spec, UserSpec):
            raise BadSignatureError(
                f"it is signed by {key.fingerprint} ({key.algorithm}), which is no user's key",
                remedy="sign with a key of your users/<you>.json, or have somebody add this one there first",
            )
        return Signer(holder.name, key.algorithm, key.fingerprint)
    if signature.startswith(openpgp.BEGIN):
        user, fingerprint = openpgp.verify(payload, signature, lambda: _certificates(state))
        return Signer(user, "openpgp", fingerprint)
    raise BadSignatureError("its signature is neither an SSH nor an OpenPGP signature", remedy=_SIGN)


def authorities_of(user: str, state: State) -> list[str]:
    """The authorities, as OpenSSH lines, whose certificates can stand for a user: none for a root."""
    if state.get("user", user) is None or state.is_root(user):
        return []
    return [keys.parse_ssh(line).line for line in state.project.certificate_authorities]


def _certified(key: SshKey, certificate: SshCertificate, state: State) -> Signer:
    """Whom a certificate of one of the project's authorities stands for."""
    authorities = {keys.parse_ssh(line).fingerprint for line in state.project.certificate_authorities}
    if certificate.authority.fingerprint not in authorities:
        raise BadSignatureError(
            f"it is signed with a certificate of {certificate.authority.fingerprint}, no authority of the project",
            remedy="a root can add the authority to certificateAuthorities in project.json",
        )
    if state.holder("key", key.fingerprint) is not None:
        raise BadSignatureError("a key that the ledger names needs no certificate", remedy="sign with the key itself")
    named = [name for name in certificate.principals if state.get("user", name) is not None]
    if len(named) != 1 or state.is_root(named[0]):
        raise BadSignatureError(
            f"the certificate has to name exactly one user of the project, and no root; it names "
            f"{', '.join(map(repr, certificate.principals))}",
            remedy="ssh-keygen -s CA_KEY -I ID -n USER KEY.pub, for a user of users/<user>.json",
        )
    validity = certificate.valid_after, certificate.valid_before
    return Signer(named[0], f"{key.algorithm} certificate", certificate.key.fingerprint, validity)


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
