"""What lies between an SSH connection and its transport, and bounds what asyncssh leaves unbounded.

asyncssh parses all that came at once, copying the rest with each packet; keeps what comes while it is busy with one;
and reads on when its answers are not read. Its client may be anybody.
"""

import asyncio
from typing import cast

import asyncssh

PIECE_BYTES = 16 * 1024
"""Of what came, that is parsed in one turn of the loop."""

HELD_BYTES_MAX = 256 * 1024
"""Of what asyncssh has not taken yet: its own packets have up to 32 KiB of data."""

LOOK_SECONDS = 0.005
"""Until it is looked again whether it has."""


class Turns(asyncio.Protocol):
    """Gives a connection what comes, in pieces, so that others have their turns; reads no more than is parsed."""

    def __init__(self, connection: asyncssh.SSHServerConnection, transport: asyncio.Transport) -> None:
        self._connection, self._transport = connection, transport
        self._loop = asyncio.get_running_loop()
        self._unparsed = b""
        self._next: asyncio.Handle | None = None
        self._unread = False  # the client does not read what it is answered

    @classmethod
    def between(cls, connection: asyncssh.SSHServerConnection) -> None:
        """Take the place of a connection that was just made."""
        transport = cast(asyncio.Transport, connection._transport)  # asyncssh tells it to nobody
        transport.set_protocol(cls(connection, transport))

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        if self._next is None:
            self._parse()

    def _parse(self) -> None:
        self._next = None
        if self._transport.is_closing():
            self._unparsed = b""
            return
        if not self._unread and len(self._connection._inpbuf) <= HELD_BYTES_MAX:
            piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
            self._connection.data_received(piece)
            if self._unparsed:
                self._next = self._loop.call_soon(self._parse)
        elif not self._unread:
            self._next = self._loop.call_later(LOOK_SECONDS, self._parse)
        if self._transport.is_closing():
            return
        if self._unparsed or self._unread:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """What it asks makes only more to be read, so that has to wait."""
        self._unread = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._unread = False
        if self._next is None:
            self._parse()

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
        self._connection.connection_lost(exc)
