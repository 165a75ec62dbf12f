"""uvicorn's WebSocket protocol (RFC 6455, the websockets library without its input and output), with what it leaves
unbounded bounded.

Imported only by nodes that serve a WebSocket API, as the websockets library is.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from owsgit.gateway.protocol import client_of
from owsgit.gateway.sockets import CLIENT, CUT, MESSAGE_BYTES_MAX, NAMES
from owsgit.runtime.allowance import Allowance

FRAMES_MAX = 1024
"""Of one message: empty ones cost memory, too."""

PINGS_PER_SECOND, PINGS_BURST = 30, 300
"""Of a client, with pongs: each costs as much as a message, and no route throttles them."""

UNSENT_BYTES_MAX = 1024 * 1024
"""Of what a client does not take; then it is cut off."""

PIECE_BYTES = 4 * 1024
"""Of what came, that is parsed at once: the loop reads 64 times as much, which may be 40,000 messages."""

CLOSE_SECONDS_MAX = 5.0
"""How long a client may take to answer a close."""

PING_SECONDS = 20.0
"""Between two pings, and how long a client may take to answer one: a dead one is noticed within twice that."""

OPTIONS: dict[str, Any] = {
    "ws_max_size": MESSAGE_BYTES_MAX,
    "ws_ping_interval": PING_SECONDS,
    "ws_ping_timeout": PING_SECONDS,
    "ws_per_message_deflate": False,  # a context per connection costs more memory than all the rest of it
}
"""For uvicorn's configuration."""

log = logging.getLogger("owsgit.gateway.sockets")
log.setLevel(logging.WARNING)  # uvicorn tells of every handshake, with its query


def _uncounted() -> None:
    """Nobody counts it."""


class _Quiet(asyncio.Transport):
    """A transport to which what is written after its end goes nowhere. asyncio's are so; uvloop's, which nodes have,
    raise RuntimeError, in the middle of what has to be done when a connection is lost."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport

    def write(self, data: Any) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class BoundedSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = log
        self._dying: asyncio.TimerHandle | None = None
        self._unparsed = b""
        self._pings: Allowance | None = None  # that are left; most clients send none
        self.leave: Callable[[], None] = _uncounted
        """What is done when the connection is lost: so long it counts as one of its client."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Quiet(transport))

    def data_received(self, data: bytes) -> None:
        parses = bool(self._unparsed)
        self._unparsed += data
        if not parses:
            self._parse()

    def _parse(self) -> None:
        """Parse a piece; the rest when others had their turn. Until then nothing more is read: a client may send faster
        than what it sends is parsed."""
        piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
        if self._unparsed:
            self.loop.call_soon(self._parse)
            if not self.transport.is_closing():
                self.transport.pause_reading()
        if piece:
            self._feed(piece)
        if not self.read_paused:
            self._read_on()

    def _read_on(self) -> None:
        if not self._unparsed and not self.transport.is_closing():
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        if self.conn.parser_exc is not None:  # a fault, of which the client was told: nothing after it means anything
            self._unparsed = b""
            return
        try:
            super().data_received(data)
        except UnicodeError:  # of a path that is not ASCII
            self.transport.abort()
            return
        if not self.handshake_initiated:  # a whole request came, and is none
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._dying is not None:
            self._dying.cancel()
        self.leave()
        self._lose(exc)

    def _lose(self, exc: Exception | None) -> None:
        """Parse the next piece of what was said before the end, and then be lost."""
        piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
        if piece:
            self._feed(piece)
        if self._unparsed:
            self.loop.call_soon(self._lose, exc)
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": "Connection closed abnormally"})
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[CUT] = self.cut
            extensions[CLIENT] = client_of(self.transport, self.client)
            extensions[NAMES] = {name.lower().encode(): name.encode() for name, _ in event.headers.raw_items()}

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._read_on()
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # it is over; uvicorn would take this for a fault
        elif message["type"] == "websocket.accept":
            self.request = self.response = None  # type: ignore[assignment]  # of no use any more; there may be thousands
            self.scope["headers"] = []

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAMES_MAX:
            self.cut(1009, "too many frames")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        super().handle_ping()
        self._count_ping()
        if self.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self.transport.abort()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_ping()

    def _count_ping(self) -> None:
        if self._pings is None:
            self._pings = Allowance(PINGS_PER_SECOND, PINGS_BURST)
        if not self._pings.take(1):
            self.cut(1008, "too many pings")

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._let_die()

    def cut(self, code: int, reason: str) -> None:
        """Say goodbye, also to a client that takes nothing."""
        if self.close_sent or self.disconnected or not self.handshake_complete:
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            pass
        else:
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self._read_on()
        self.close_timer = self.loop.call_later(CLOSE_SECONDS_MAX, self.transport.abort)
        self._let_die()

    def _let_die(self) -> None:
        if self._dying is None and not self.disconnected:
            self._dying = self.loop.call_later(CLOSE_SECONDS_MAX, self.transport.abort)
