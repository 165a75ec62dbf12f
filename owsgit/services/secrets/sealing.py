"""Sealed text: age (https://age-encryption.org/v1), to the SSH keys of the nodes.

Inside is a JSON object with the file that it belongs to, its version and the value, so that a sealed text that is
moved to another file, or brought back from an older version, is noticed by whoever opens it. The header of an age file
says for whom it is sealed (the first four bytes of each key's fingerprint), which everybody can read.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyrage

from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.service import SecretValue

VALUE_BYTES_MAX = 65_536
"""Secrets Manager's limit for a value."""

SEALED_CHARACTERS_MAX = 160_000
"""A value of the largest size as base64 in JSON, sealed and armoured, with room for a header of a hundred nodes."""

NAMESPACE = b"owsgit-rewrap"
"""Keeps a node's word on a sealed text from being taken for anything else."""

TAG_BYTES = 4
HEADER_LINES_MAX = 1_000
_BEGIN, _END = "-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----"
_ARMOUR = re.compile(rf"{_BEGIN}\n((?:[A-Za-z0-9+/=]{{1,64}}\n)+){_END}\n?")
_MAGIC = b"age-encryption.org/v1"
_STANZA = re.compile(rb"-> ssh-ed25519 ([A-Za-z0-9+/]{6}) [A-Za-z0-9+/]{43}")
_GREASE = re.compile(rb"-> [!-~]*-grease(?: [!-~]*)*")
_BODY = re.compile(rb"[A-Za-z0-9+/]{0,64}")
_MAC = re.compile(rb"--- [A-Za-z0-9+/]{43}")


class SealError(OwsgitError):
    """A sealed text that cannot be opened, or is not what it says. Never tells what is inside."""


@dataclass(frozen=True)
class Opened:
    """What was inside: the file that it belongs to, and the value at its version."""

    file: str
    value: SecretValue


def seal(value: SecretValue, file: str, keys: Iterable[str]) -> str:
    """The value, sealed for `keys` (OpenSSH lines of ssh-ed25519 keys), armoured."""
    content = {"file": file, "version": value.version}
    if value.binary:
        content["binary"] = base64.b64encode(value.content).decode()
    else:
        content["string"] = value.content.decode()
    recipients = [pyrage.ssh.Recipient.from_str(key) for key in keys]
    sealed: bytes = pyrage.encrypt(json.dumps(content).encode(), recipients, armored=True)
    return sealed.decode().rstrip("\n") + "\n"


def readers(sealed: str) -> set[str]:
    """The tags of the keys for which a text is sealed. Raises ValueError unless it is age's, for ssh-ed25519 keys."""
    match = _ARMOUR.fullmatch(sealed)
    if match is None:
        raise ValueError("not an armoured age file: owsgit secret set makes it")
    try:
        data = base64.b64decode(match[1].replace("\n", ""), validate=True)
    except binascii.Error:
        raise ValueError("the age file's armour is damaged") from None
    lines = data.split(b"\n", HEADER_LINES_MAX)
    if lines[0] != _MAGIC:
        raise ValueError("not an age file of version 1")
    tags: set[str] = set()
    in_stanza = False
    for line in lines[1:HEADER_LINES_MAX]:
        if _MAC.fullmatch(line):
            return tags
        if stanza := _STANZA.fullmatch(line):
            tags.add(stanza[1].decode())
            in_stanza = True
        elif _GREASE.fullmatch(line):  # noise, which age asks writers to add
            in_stanza = True
        elif not in_stanza or not _BODY.fullmatch(line):
            break
    raise ValueError("it is sealed for something else than the ssh-ed25519 keys of nodes, or its header is damaged")


def tag(fingerprint: str) -> str:
    """The tag of a key in the header of an age file, from its fingerprint (`SHA256:...`)."""
    digest = base64.b64decode(fingerprint.removeprefix("SHA256:") + "=")
    return base64.b64encode(digest[:TAG_BYTES]).decode().rstrip("=")


def statement(file: str, version: int, former: str, sealed: str) -> bytes:
    """What a node signs that has sealed anew what was in the text `former`."""
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (former, sealed)]
    return f"file {file}\nversion {version}\nformer sha256:{digests[0]}\nsealed sha256:{digests[1]}\n".encode()


class Vault:
    """Opens what is sealed for one node."""

    def __init__(self, key: bytes) -> None:
        """`key` is the node's private key, as OpenSSH writes it. Raises UnavailableError."""
        try:
            self._identity = pyrage.ssh.Identity.from_buffer(key)
        except Exception as error:  # pyrage's own, and ValueError
            raise UnavailableError(f"the node's key cannot open secrets: {error}") from None

    def open(self, sealed: str) -> Opened:
        """Raises SealError, which never tells what is inside."""
        try:
            content = json.loads(pyrage.decrypt(sealed.encode(), [self._identity]))
        except Exception:
            raise SealError("this node cannot open it", remedy="owsgit secret rewrap seals it for all nodes") from None
        return _opened(content)


def _opened(content: object) -> Opened:
    """Whoever sealed it is not trusted: any JSON may be inside."""
    try:
        match content:
            case {"version": bool()}:
                raise ValueError("no number")
            case {"file": str(file), "version": int(version), "string": str(text), **more} if not more:
                return Opened(file, SecretValue(version, text.encode()))
            case {"file": str(file), "version": int(version), "binary": str(text), **more} if not more:
                return Opened(file, SecretValue(version, base64.b64decode(text, validate=True), binary=True))
            case _:
                raise ValueError("other fields")
    except ValueError:  # also of texts that are no base64, or no Unicode
        raise SealError("what is sealed is no secret of owsgit", remedy="owsgit secret set makes it") from None
