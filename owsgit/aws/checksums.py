"""Checksums of bodies that clients send along: in a header, or in a trailer once all is sent.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Callable
from typing import Protocol

from awscrt import checksums

from owsgit.aws.api import ServiceError

PREFIX = "x-amz-checksum-"


class _Running(Protocol):
    """A checksum of what came so far."""

    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A cyclic redundancy check of so many bytes."""

    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self._function, self._size, self._value = function, size, 0

    def update(self, data: bytes) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _XxHash:
    def __init__(self, running: checksums.XXHash) -> None:
        self._running = running

    def update(self, data: bytes) -> None:
        self._running.update(data)

    def digest(self) -> bytes:
        return bytes(self._running.finalize())


def _md5() -> _Running:
    return hashlib.md5(usedforsecurity=False)


def _sha1() -> _Running:
    return hashlib.sha1(usedforsecurity=False)


_ALGORITHMS: dict[str, Callable[[], _Running]] = {
    "crc32": lambda: _Crc(zlib.crc32, 4),
    "crc32c": lambda: _Crc(checksums.crc32c, 4),
    "crc64nvme": lambda: _Crc(checksums.crc64nvme, 8),
    "md5": _md5,
    "sha1": _sha1,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "xxhash3": lambda: _XxHash(checksums.XXHash.new_xxhash3_64()),
    "xxhash64": lambda: _XxHash(checksums.XXHash.new_xxhash64()),
    "xxhash128": lambda: _XxHash(checksums.XXHash.new_xxhash3_128()),
}

HEADERS = frozenset(PREFIX + name for name in _ALGORITHMS)


class Checksum:
    """One that a client says, and what it is of what came."""

    def __init__(self, header: str, said: str | None) -> None:
        """`header` is its name, one of HEADERS or content-md5; `said` is None if it comes in a trailer.

        Raises ServiceError for a value that cannot be one.
        """
        self.header = header
        self._running = _md5() if header == "content-md5" else _ALGORITHMS[header.removeprefix(PREFIX)]()
        self._size = len(self._empty())
        self._said: bytes | None = None
        if said is not None:
            self.say(said)

    def _empty(self) -> bytes:
        made = _md5() if self.header == "content-md5" else _ALGORITHMS[self.header.removeprefix(PREFIX)]()
        return made.digest()

    def say(self, text: str) -> None:
        """What it has to be, in base64. Raises ServiceError."""
        try:
            said = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            said = b""
        if len(said) != self._size:
            if self.header == "content-md5":
                raise ServiceError("InvalidDigest", "The Content-MD5 you specified is not valid.")
            raise ServiceError("InvalidRequest", f"Value for {self.header} header is invalid.")
        self._said = said

    def update(self, data: bytes) -> None:
        self._running.update(data)

    def check(self) -> str:
        """Its value, in base64. Raises ServiceError if it is not what was said, or nothing was."""
        found = self._running.digest()
        if self._said is None:
            raise ServiceError("MalformedTrailerError", f"The request's trailer has no {self.header}.")
        if not hmac.compare_digest(found, self._said):
            name = "Content-MD5" if self.header == "content-md5" else self.header.removeprefix(PREFIX).upper()
            raise ServiceError("BadDigest", f"The {name} you specified did not match the calculated checksum.")
        return base64.b64encode(found).decode("ascii")
