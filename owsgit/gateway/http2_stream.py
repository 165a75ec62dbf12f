"""One stream of HTTP/2: a request and its response, which are one Exchange and one task, as over HTTP/1.1."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from h2.errors import ErrorCodes

from owsgit.gateway.exchange import (
    BODILESS,
    Application,
    BrokenError,
    ClientGoneError,
    Exchange,
    Headers,
    Response,
    too_slow,
)
from owsgit.gateway.limits import BYTES_PER_SECOND_MIN

_DROPPED = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Headers that HTTP/2 has no place for (RFC 9113 8.2.2)."""

log = logging.getLogger("owsgit.gateway")


class Carrier(Protocol):
    """The connection of a stream. What sends raises ClientGoneError."""

    def now(self) -> float: ...

    def acknowledge(self, stream: "Stream", counted: int) -> None: ...

    def send_head(self, stream: "Stream", headers: Headers, *, last: bool) -> None: ...

    async def send(self, stream: "Stream", piece: bytes, *, last: bool) -> None: ...

    def reset(self, stream: "Stream", code: ErrorCodes) -> None: ...


class Stream:
    """One request and its response; also the request's body."""

    __slots__ = (
        "_awaited",
        "_carrier",
        "_leaving",
        "_pieces",
        "_room",
        "_wanted",
        "began",
        "bytes_per_second",
        "complete",
        "gone",
        "id",
        "late",
        "received",
        "timer",
    )

    def __init__(self, carrier: Carrier, id_: int, awaited: bool) -> None:
        """`awaited`: the client sends nothing before it is told to continue."""
        self._carrier, self.id = carrier, id_
        self._awaited = awaited
        self._leaving: Callable[[], object] | None = None
        self._pieces: list[tuple[bytes, int]] = []
        self._wanted: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.complete = self.gone = self.late = False
        self.began = carrier.now()
        self.received = 0  # bytes of the body
        self.bytes_per_second = BYTES_PER_SECOND_MIN
        self.timer: asyncio.TimerHandle | None = None  # looks at how fast the body comes

    def on_gone(self, act: Callable[[], object] | None) -> None:
        self._leaving = act
        if self.gone:
            self.lose()

    def lose(self) -> None:
        """The client takes nothing of it any more."""
        self.gone = True
        self.wake()
        self.make_room()
        act, self._leaving = self._leaving, None
        if act is not None:
            act()

    def feed(self, piece: bytes, counted: int) -> None:
        self._pieces.append((piece, counted))
        self.received += len(piece)
        self.wake()

    def end(self) -> None:
        """The body is whole."""
        self.complete = True
        if self.timer is not None:
            self.timer.cancel()
        self.wake()

    def wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def make_room(self) -> None:
        """The client may have made some for the response."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def room(self) -> "asyncio.Future[None]":
        self._room = asyncio.get_running_loop().create_future()
        return self._room

    def leave(self) -> int:
        """What came and is not read any more, as its window counts it."""
        counted = sum(counted for _, counted in self._pieces)
        self._pieces = []
        return counted

    def rest(self) -> bytes | None:
        if not self.complete:
            return None
        data = b"".join(piece for piece, _ in self._pieces)
        self._carrier.acknowledge(self, self.leave())
        return data

    async def next(self) -> bytes:
        while True:
            if self._pieces:
                data = b"".join(piece for piece, _ in self._pieces)
                self._carrier.acknowledge(self, self.leave())
                if data:
                    return data
            if self.complete:
                return b""
            if self.gone:
                raise ClientGoneError
            if self.late:
                raise too_slow()
            if self._awaited:
                self._awaited = False
                self._carrier.send_head(self, [(b":status", b"100")], last=False)
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None

    async def run(self, application: Application, exchange: Exchange) -> None:
        carrier = self._carrier
        try:
            response = await application.handle(exchange)
            self.bytes_per_second = exchange.limits.bytes_per_second
            if isinstance(response.body, bytes):
                await self._answer(response, b"" if exchange.method == "HEAD" else response.body)
            else:
                await self._pass_on(response, response.body, exchange.method == "HEAD")
            self._leaving = None
            if not self.complete:  # RFC 9113 8.1: the answer is whole, the rest of the request is not wanted
                carrier.reset(self, ErrorCodes.NO_ERROR)
        except ClientGoneError:
            carrier.reset(self, ErrorCodes.CANCEL)
        except BrokenError:
            carrier.reset(self, ErrorCodes.INTERNAL_ERROR)  # the client must not take half of it for the whole
        except asyncio.CancelledError:
            carrier.reset(self, ErrorCodes.CANCEL)
            raise
        except Exception:
            log.exception("a request failed")
            carrier.reset(self, ErrorCodes.INTERNAL_ERROR)
        finally:
            exchange.close()

    async def _answer(self, response: Response, body: bytes) -> None:
        if not body or response.status in BODILESS:
            self._carrier.send_head(self, _head(response), last=True)
        else:
            self._carrier.send_head(self, _head(response), last=False)
            await self._carrier.send(self, body, last=True)

    async def _pass_on(self, response: Response, pieces: AsyncIterator[bytes], headless: bool) -> None:
        """Send a body as it is made."""
        sent = 0
        try:
            bodiless = headless or response.status in BODILESS
            self._carrier.send_head(self, _head(response), last=bodiless)
            if bodiless:
                return
            async for piece in pieces:
                sent += len(piece)
                if piece:
                    await self._carrier.send(self, piece, last=False)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        if response.length is not None and sent != response.length:
            raise ValueError(f"{sent} bytes of {response.length} came")
        await self._carrier.send(self, b"", last=True)


def _head(response: Response) -> Headers:
    head = [(b":status", b"%d" % response.status)]
    # a client may refuse a head for white space around a value (RFC 9113 8.2.1)
    head += [(name, value.strip(b" \t")) for name, value in response.headers if name not in _DROPPED]
    if response.length is not None and response.status not in BODILESS:
        head.append((b"content-length", b"%d" % response.length))
    return head
