"""The first message of a TLS connection (ClientHello, RFC 8446 4.1.2): read ahead, to choose what answers it.

OpenSSL tells a server the name that a client asks for only after the settings that count for it (whether a client's
certificate is needed) are made. So the message is looked at before: nothing here is trusted, as the handshake itself
is made with what was chosen, and a request is held against it.
"""

from dataclasses import dataclass

HELLO_BYTES_MAX = 16 * 1024
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16


@dataclass(frozen=True)
class Hello:
    """What a client asks for: a host name in lower case ('' if it names none), and protocols by ALPN names."""

    name: str = ""
    protocols: tuple[bytes, ...] = ()


class NotTlsError(ValueError):
    """The bytes are not the start of a TLS connection."""


def read(data: bytes) -> Hello | int:
    """The message that `data` begins with; or how many bytes are needed at least to read on. Raises NotTlsError."""
    message = b""
    at = 0
    while True:
        if len(data) - at < 5:
            return at + 5
        if data[at] != _HANDSHAKE or data[at + 1] != 3:
            raise NotTlsError
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= HELLO_BYTES_MAX or at + 5 + length > HELLO_BYTES_MAX:
            raise NotTlsError
        if len(data) - at - 5 < length:
            return at + 5 + length
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if len(message) >= 4:
            if message[0] != _CLIENT_HELLO:
                raise NotTlsError
            whole = 4 + int.from_bytes(message[1:4], "big")
            if whole > HELLO_BYTES_MAX:
                raise NotTlsError
            if len(message) >= whole:
                return _hello(_Bytes(message[4:whole]))


class _Bytes:
    """Reads fields of a message."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        if len(self.rest) < count:
            raise NotTlsError
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> "_Bytes":
        """What has its length in `size` bytes before it."""
        return _Bytes(self.take(self.number(size)))


def _hello(body: _Bytes) -> Hello:
    body.take(2 + 32)  # version, random
    body.vector(1)  # session id
    body.vector(2)  # cipher suites
    body.vector(1)  # compression
    name, protocols = "", []
    extensions = body.vector(2) if body.rest else body
    while extensions.rest:
        kind, value = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names = value.vector(2)
            while names.rest:
                sort, text = names.number(1), names.vector(2).rest
                if sort == 0:
                    name = text.decode("ascii", "replace").lower()
        elif kind == _ALPN:
            listed = value.vector(2)
            while listed.rest:
                protocols.append(listed.vector(1).rest)
    return Hello(name, tuple(protocols))
