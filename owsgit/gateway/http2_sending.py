"""Bodies of responses over HTTP/2, as fast as their client takes them: the windows of RFC 9113 5.2, and for how long
and how much a client that does not open them is waited for."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from h2.connection import H2Connection
from uvicorn.protocols.http.flow_control import FlowControl

from owsgit.gateway.exchange import ClientGoneError
from owsgit.gateway.limits import READER_SECONDS, UNSENT
from owsgit.gateway.unread import unread

SMALL_BYTES = 4096
"""Pieces up to this are sent together with those of other responses."""

WRITE_BYTES_MAX = 64 * 1024
"""Of a response at once, so that others come between."""


class Receiver(Protocol):
    """A stream whose client takes a response."""

    @property
    def id(self) -> int: ...

    @property
    def gone(self) -> bool:
        """Whether nothing may be sent on it any more."""
        ...

    @property
    def bytes_per_second(self) -> int:
        """The slowest rate at which its response is sent."""
        ...

    def room(self) -> "asyncio.Future[None]":
        """Done when its client may have made room for more, or it is gone."""
        ...


class Sending:
    """What goes out on the streams of one connection."""

    def __init__(
        self, h2: H2Connection, transport: asyncio.Transport, write: Callable[[], None], soon: Callable[[], None]
    ) -> None:
        """`write` sends what h2 has to send; `soon` does so when this turn of the event loop is over."""
        self.flow = FlowControl(transport)
        self._h2, self._transport, self._write, self._soon = h2, transport, write, soon
        self._loop = asyncio.get_running_loop()
        self._waiting = 0  # streams whose client is waited for
        self._written = 0  # bytes of bodies

    async def send(self, stream: Receiver, piece: bytes, *, last: bool) -> None:
        """Send a piece of a response. Raises ClientGoneError, also if the client takes it more slowly than it may."""
        at_once = min(self._window(stream), SMALL_BYTES)
        if piece and (len(piece) > at_once or self.flow.write_paused):
            await self._send_large(stream, memoryview(piece), last)
        else:
            self._h2.send_data(stream.id, piece, end_stream=last)
            self._written += len(piece)
            self._soon()

    async def _send_large(self, stream: Receiver, rest: memoryview, last: bool) -> None:
        held = 0  # of the memory for what waits
        look = _Look(self._loop.time(), self._passed())
        try:
            while True:
                sent = 0 if self.flow.write_paused else self._send_now(stream, rest, last)
                rest, look.taken = rest[sent:], look.taken + sent
                if not rest and last:
                    return
                if not rest and not self.flow.write_paused:
                    await asyncio.sleep(0)  # what makes the pieces may have them at hand, and others wait
                    return
                UNSENT.give_back(held)
                held = len(rest) if UNSENT.take(len(rest)) else 0
                if held < len(rest):
                    raise ClientGoneError
                if (now := self._loop.time()) >= look.again:
                    look = self._looked(stream, look, now)
                if sent:
                    await asyncio.sleep(0)  # others come between, who have waited for longer
                else:
                    await self._wait(stream, look.again)
        finally:
            UNSENT.give_back(held)

    def _looked(self, stream: Receiver, look: "_Look", now: float) -> "_Look":
        """Look at how fast the client takes it. Streams that wait for windows share what is the least for one; what is
        written is the connection's. Raises ClientGoneError."""
        seconds, waiting, passed = now - look.since, max(self._waiting, 1), self._passed()
        if self.flow.write_paused:
            taken, patience = passed - look.passed, READER_SECONDS
        else:
            taken, patience = look.taken * waiting, READER_SECONDS * waiting
        if taken >= seconds * stream.bytes_per_second:
            return _Look(now, passed)
        if seconds >= patience:
            raise ClientGoneError
        look.again = now + READER_SECONDS
        return look

    def _passed(self) -> int:
        """The bytes of bodies that the client's connection has taken, about."""
        return self._written - unread(self._transport)

    def _send_now(self, stream: Receiver, rest: memoryview, last: bool) -> int:
        """Send what fits into the windows, and no more than others can wait for; how many bytes that is."""
        sent = 0
        most = min(len(rest), WRITE_BYTES_MAX)  # a frame may be of 16 MiB, if the client says so
        while sent < most and (window := self._window(stream)):
            size = min(window, most - sent)
            self._h2.send_data(stream.id, rest[sent : sent + size], end_stream=last and sent + size == len(rest))
            sent += size
        self._written += sent
        self._write()
        return sent

    async def _wait(self, stream: Receiver, until: float) -> None:
        """Until the client may take more, or that time. Raises ClientGoneError."""
        self._waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await (self.flow.drain() if self.flow.write_paused else stream.room())
        except TimeoutError:
            pass  # it is time to look how fast it reads
        finally:
            self._waiting -= 1
        if stream.gone:
            raise ClientGoneError

    def _window(self, stream: Receiver) -> int:
        """How many bytes can be sent in one frame now. Raises ClientGoneError."""
        if stream.gone:
            raise ClientGoneError
        return max(0, min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size))


class _Look:
    """What is known of a stream since it was looked at how fast it is read."""

    def __init__(self, since: float, passed: int) -> None:
        self.since, self.again = since, since + READER_SECONDS
        self.taken = 0  # bytes of this stream that had room
        self.passed = passed  # see Sending; then
