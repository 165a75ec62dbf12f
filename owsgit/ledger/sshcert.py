"""OpenSSH certificates (PROTOCOL.certkeys): a key, the users that it may stand for, and a certificate authority's word.

Stricter than OpenSSH on purpose: user certificates only, with principals, without critical options, never signed with
SHA-1. Until when one is valid says nothing about a commit, whose own dates prove nothing: it is compared with the clock
of who takes the commit in, and with no clock afterwards.
"""

from dataclasses import dataclass
from functools import lru_cache

from owsgit.model.errors import RefusedError
from owsgit.model.keys import ALGORITHMS, CURVES, KeyFormatError, SshKey, Wire, check_blob

SUFFIX = "-cert-v01@openssh.com"
PRINCIPALS_MAX = 64
_USER = 1


class BadCertificateError(RefusedError):
    """A certificate that does not hold."""


@dataclass(frozen=True)
class SshCertificate:
    """A certificate whose authority's signature is not checked yet."""

    key: SshKey
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int  # seconds since 1970
    valid_before: int
    authority: SshKey
    signed: bytes
    signature: bytes


def is_certificate(algorithm: str) -> bool:
    return algorithm.endswith(SUFFIX)


@lru_cache(maxsize=1024)
def parse(blob: bytes) -> SshCertificate:
    """The certificate in `blob` (wire encoding). Raises KeyFormatError, BadCertificateError."""
    wire = Wire(blob)
    name = wire.string().decode("ascii", "replace")
    plain = _plain(name)
    wire.string()  # the nonce
    fields = [wire.string() for _ in range(_fields(plain))]
    key_blob = b"".join(_string(part) for part in (plain.encode(), *fields))
    check_blob(plain, key_blob)
    serial = int.from_bytes(wire.take(8), "big")
    kind = wire.uint32()
    key_id = wire.string()
    principals = Wire(wire.string())
    after, before = (int.from_bytes(wire.take(8), "big") for _ in range(2))
    critical = wire.string()
    wire.string()  # extensions are about sessions, not about signatures
    reserved = wire.string()
    authority_blob = wire.string()
    signed = wire.read()
    signature = wire.string()
    wire.end()
    if kind != _USER:
        raise BadCertificateError("the certificate is not one for users", remedy="sign it without ssh-keygen's -h")
    if critical or reserved:
        raise BadCertificateError("the certificate has critical options, which cannot be kept for a commit")
    names: list[str] = []
    while not principals.at_end() and len(names) < PRINCIPALS_MAX:
        names.append(principals.string().decode("utf-8", "replace"))
    if not names or not principals.at_end():
        raise BadCertificateError(
            f"the certificate names no user, or more than {PRINCIPALS_MAX}", remedy="sign it with: ssh-keygen -n USER"
        )
    algorithm = Wire(authority_blob).string().decode("ascii", "replace")
    if algorithm not in ALGORITHMS:
        raise KeyFormatError(f"the certificate authority's algorithm {algorithm!r:.60} is not taken")
    check_blob(algorithm, authority_blob)
    authority = SshKey(algorithm, authority_blob)
    told = key_id.decode("utf-8", "replace")
    return SshCertificate(
        SshKey(plain, key_blob), serial, told, tuple(names), after, before, authority, signed, signature
    )


def _plain(name: str) -> str:
    """The algorithm of the key in a certificate of the type `name`."""
    stem = name.removesuffix(SUFFIX)
    for plain in (stem, f"{stem}@openssh.com"):
        if plain in ALGORITHMS:
            return plain
    raise KeyFormatError(f"certificates of the type {name!r:.60} are not taken")


def _fields(plain: str) -> int:
    """How many fields the key has in a certificate (RFC 4253, RFC 5656, PROTOCOL.u2f)."""
    touched = 1 if plain.startswith("sk-") else 0
    name = plain.removeprefix("sk-").removesuffix("@openssh.com")
    return touched + (2 if name in CURVES or name == "ssh-rsa" else 1)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
