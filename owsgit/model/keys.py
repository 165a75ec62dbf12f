"""Public keys as users write them: one OpenSSH line each, or an armoured OpenPGP certificate.

Only the shape is checked in here (RFC 4253 section 6.6, RFC 5656, OpenSSH's PROTOCOL.u2f); signatures are checked by
the ledger.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

RSA_BITS_MIN = 2048
"""NIST SP 800-57 disallows shorter RSA keys for signatures."""

OPENPGP_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
OPENPGP_END = "-----END PGP PUBLIC KEY BLOCK-----"

_OPENPGP_ARMOUR = re.compile(
    rf"{OPENPGP_BEGIN}\n(?:[A-Za-z]+: [ -~]*\n)*\n"
    rf"((?:[A-Za-z0-9+/]+={{0,2}}\n)+)(?:=[A-Za-z0-9+/]{{4}}\n)?{OPENPGP_END}"
)
CERTIFICATE_TAGS = (2, 6, 13, 14, 17)
"""Signatures, keys, user ids and attributes: what a certificate is made of. Others could hide packets from a reader."""

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
        """A number in its only form: not negative, without leading zeros."""
        data = self.string()
        number = int.from_bytes(data, "big", signed=True)
        if number < 0 or (number == 0 and data) or (len(data) > 1 and data[0] == 0 and data[1] < 0x80):
            raise KeyFormatError("has a number that is negative or not in its shortest form")
        return number

    def read(self) -> bytes:
        """All that was read so far."""
        return self._data[: self._at]

    def at_end(self) -> bool:
        return self._at == len(self._data)

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


def identities(text: str) -> tuple[str, ...]:
    """What makes a key the same key, whatever its comments: the SSH fingerprint, or the fingerprints of an OpenPGP
    certificate's primary key and subkeys. Raises KeyFormatError.
    """
    if is_openpgp(text):
        return tuple(f"OPENPGP:{fingerprint}" for fingerprint in openpgp_fingerprints(text))
    return (parse_ssh(text).fingerprint,)


def identity(text: str) -> str:
    """The first of the key's identities."""
    return identities(text)[0]


def openpgp_bytes(text: str) -> bytes:
    """The certificate in `text`, without its armour, which has one reading only. Raises KeyFormatError."""
    match = _OPENPGP_ARMOUR.fullmatch(text.strip(" \n"))
    if match is None:
        raise KeyFormatError("not one whole armoured OpenPGP certificate (gpg --armor --export KEY)")
    try:
        return base64.b64decode(match[1].replace("\n", ""), validate=True)
    except ValueError:
        raise KeyFormatError("the OpenPGP certificate's armour is damaged") from None


def openpgp_fingerprints(text: str) -> list[str]:
    """Fingerprints (lower case hex) of the primary key and the subkeys of one armoured certificate (RFC 9580, 5.5.4).

    Raises KeyFormatError.
    """
    data = openpgp_bytes(text)
    found = []
    for tag, packet in _packets(data):
        if tag in (5, 7):
            raise KeyFormatError("this is a private key: never commit it; use gpg --armor --export KEY")
        if tag in (6, 14):
            found.append(_openpgp_fingerprint(packet))
        if not found or (tag == 6 and len(found) > 1) or tag not in CERTIFICATE_TAGS:
            raise KeyFormatError("not one OpenPGP certificate, which begins with its primary key")
    if not found:
        raise KeyFormatError("the OpenPGP certificate has no key")
    return found


def _openpgp_fingerprint(packet: bytes) -> str:
    version = packet[0] if packet else 0
    if version == 4:
        return hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet, usedforsecurity=False).hexdigest()
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(packet).to_bytes(4, "big") + packet).hexdigest()
    raise KeyFormatError(f"OpenPGP keys of version {version} are not taken")


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The packets of an OpenPGP message: (tag, body) (RFC 9580, section 4.2)."""
    wire = Wire(data)
    while not wire.at_end():
        header = wire.take(1)[0]
        if not header & 0x80:
            raise KeyFormatError("the OpenPGP certificate is damaged")
        if header & 0x40:
            tag, first = header & 0x3F, wire.take(1)[0]
            if first < 192:
                length = first
            elif first < 224:
                length = ((first - 192) << 8) + wire.take(1)[0] + 192
            elif first == 255:
                length = wire.uint32()
            else:
                raise KeyFormatError("the OpenPGP certificate has packets of partial length")
        else:
            tag, kind = (header >> 2) & 0x0F, header & 0x03
            if kind == 3:
                raise KeyFormatError("the OpenPGP certificate has packets of unknown length")
            length = int.from_bytes(wire.take(1 << kind), "big")
        yield tag, wire.take(length)
