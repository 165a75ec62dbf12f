"""Public keys as users write them: one OpenSSH line each, or an armoured OpenPGP certificate.

Only the shape is checked in here (RFC 4253 section 6.6, RFC 5656, OpenSSH's PROTOCOL.u2f); signatures are checked by
the ledger.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

RSA_BITS_MIN = 2048
"""NIST SP 800-57 disallows shorter RSA keys for signatures."""

OPENPGP_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
OPENPGP_END = "-----END PGP PUBLIC KEY BLOCK-----"

CURVES = {"ecdsa-sha2-nistp256": 65, "ecdsa-sha2-nistp384": 97, "ecdsa-sha2-nistp521": 133}
"""Length in bytes of the uncompressed point of each curve."""

ALGORITHMS = (
    "ssh-ed25519",
    *CURVES,
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


class KeyFormatError(ValueError):
    """The text is not a public key that owsgit takes."""


class Wire:
    """Reads the SSH wire encoding (RFC 4251 section 5). Raises KeyFormatError at the first byte that is not there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise KeyFormatError("ends too early")
        self._at += count
        return piece

    def uint32(self) -> int:
        (number,) = struct.unpack("!I", self.take(4))
        return int(number)

    def string(self) -> bytes:
        return self.take(self.uint32())

    def mpint(self) -> int:
        return int.from_bytes(self.string(), "big", signed=True)

    def end(self) -> None:
        if self._at != len(self._data):
            raise KeyFormatError("has trailing bytes")


@dataclass(frozen=True)
class SshKey:
    """A public key: `algorithm` by its SSH name, `blob` in wire encoding."""

    algorithm: str
    blob: bytes
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        """As in an authorized_keys file, without options and comment."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode()}"


def parse_ssh(line: str) -> SshKey:
    """The key of one OpenSSH public key line. Raises KeyFormatError."""
    parts = line.strip().split(None, 2)
    if "PRIVATE" in line:
        raise KeyFormatError("this is a private key: never commit it; give the .pub file's line")
    if len(parts) < 2:
        raise KeyFormatError("not an OpenSSH public key line (algorithm, then base64)")
    algorithm, encoded = parts[0], parts[1]
    if algorithm not in ALGORITHMS:
        raise KeyFormatError(f"{algorithm!r:.60} is not a key algorithm that owsgit takes: {', '.join(ALGORITHMS)}")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise KeyFormatError("the key's base64 is damaged") from None
    check_blob(algorithm, blob)
    return SshKey(algorithm, blob, parts[2] if len(parts) > 2 else "")


def check_blob(algorithm: str, blob: bytes) -> None:
    """Check that `blob` is a whole key of `algorithm` and strong enough. Raises KeyFormatError."""
    wire = Wire(blob)
    if wire.string() != algorithm.encode():
        raise KeyFormatError("the key's blob is of another algorithm than its line says")
    if algorithm.endswith("ed25519") or algorithm == "sk-ssh-ed25519@openssh.com":
        if len(wire.string()) != 32:
            raise KeyFormatError("an Ed25519 key has 32 bytes")
    elif algorithm == "ssh-rsa":
        wire.mpint()
        if (bits := wire.mpint().bit_length()) < RSA_BITS_MIN:
            raise KeyFormatError(f"an RSA key of {bits} bits is too weak: use {RSA_BITS_MIN} or more, or ed25519")
    else:
        name = algorithm.removeprefix("sk-").removesuffix("@openssh.com")
        if wire.string().decode("ascii", "replace") != name.rsplit("-", 1)[-1]:
            raise KeyFormatError("the key's curve is of another algorithm than its line says")
        if len(wire.string()) != CURVES[name]:
            raise KeyFormatError("the key's point is not of its curve")
    if algorithm.startswith("sk-"):
        wire.string()  # the application, such as "ssh:"
    wire.end()


def is_openpgp(text: str) -> bool:
    return text.lstrip().startswith(OPENPGP_BEGIN)


def identity(text: str) -> str:
    """What makes a key the same key, for both kinds: the SSH fingerprint, or a digest of the OpenPGP certificate.

    Raises KeyFormatError.
    """
    if not is_openpgp(text):
        return parse_ssh(text).fingerprint
    if not text.rstrip().endswith(OPENPGP_END) or text.count(OPENPGP_BEGIN) != 1:
        raise KeyFormatError("not one whole armoured OpenPGP certificate (gpg --armor --export KEY)")
    return "OPENPGP:" + hashlib.sha256("".join(text.split()).encode()).hexdigest()
