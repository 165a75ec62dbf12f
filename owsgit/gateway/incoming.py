"""The body of a request over HTTP/1.1, as it comes in."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from owsgit.gateway.exchange import ClientGoneError, too_slow

if TYPE_CHECKING:
    from owsgit.gateway.protocol import BoundedProtocol

WAITING_BYTES_MAX: Final = 64 * 1024
"""Of a body that nobody has read yet; then the client has to wait."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Incoming:
    """The body of a request, fed by its connection."""

    __slots__ = (
        "_connection",
        "_leaving",
        "_pieces",
        "_size",
        "_wanted",
        "awaited",
        "complete",
        "gone",
        "late",
    )

    def __init__(self, connection: "BoundedProtocol", awaited: bool) -> None:
        """`awaited`: the client sends nothing before it is told to continue."""
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted: asyncio.Future[None] | None = None
        self._leaving: Callable[[], object] | None = None
        self.awaited = awaited
        self.complete = self.gone = self.late = False

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > WAITING_BYTES_MAX:
            self._connection.flow.pause_reading()
        self.wake()

    def wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def on_gone(self, act: Callable[[], object] | None) -> None:
        self._leaving = act
        if self.gone:
            self.lose()

    def lose(self) -> None:
        """The connection is lost."""
        self.gone = True
        self.wake()
        if self._leaving is not None:
            act, self._leaving = self._leaving, None
            act()

    async def next(self) -> bytes:
        while not self._pieces:
            if self.complete:
                return b""
            if self.gone:
                raise ClientGoneError
            if self.late:
                raise too_slow()
            if self.awaited:
                self.awaited = False
                self._connection.transport.write(_CONTINUE)
            self._wanted = self._connection.loop.create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._connection.read_on()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def rest(self) -> bytes | None:
        if not self.complete:
            return None
        pieces, self._pieces, self._size = self._pieces, [], 0
        return b"".join(pieces)
