"""uvicorn's HTTP/1.1 protocol, asked for exchanges instead of ASGI, with what it leaves unbounded bounded.

uvicorn keeps the connections (keep-alive, pipelining, flow control, upgrades, shutdown), httptools parses. What is
between a request's bytes and its response's is one Exchange, one task and one write.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakKeyDictionary, ref

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from owsgit.gateway.exchange import (
    BODILESS,
    MISDIRECTED,
    Application,
    BrokenError,
    Client,
    ClientGoneError,
    Exchange,
    Headers,
    Response,
    head_size,
)
from owsgit.gateway.incoming import WAITING_BYTES_MAX, Incoming
from owsgit.gateway.limits import HEAD_BYTES_SMALL, UNSENT

if TYPE_CHECKING:  # most nodes need no WebSockets
    from owsgit.gateway.socket_protocol import BoundedSocketProtocol

FIRST_LOOK_SECONDS = 1.0
"""When a body is not there yet: by then it is known whose request it is, and how long it may take."""

READER_SECONDS = 10.0
"""How long a client may take for what the slowest rate allows in that time; how long a closed connection lingers."""

PIPELINED_MAX = 256
"""Requests that a client sends before it has the answer of the first."""

PIECE_BYTES = 4096
"""Parsed at once. Which of its bytes are whose head is not known, so all of them count as the last one's: requests that
come together must not add up to one with too large a head."""

CHUNK_OVERHEAD_MAX = 16
"""Bytes that frame one byte of a chunked body, at the worst."""

WATCH_SECONDS = 0.5
"""How exactly these times are kept."""

NEVER = float("inf")
_PROTOCOLS = {"1.1": "HTTP/1.1", "1.0": "HTTP/1.0"}
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 25\r\nconnection: close\r\n\r\n"
    b'{"message":"Bad Request"}'
)
_MISDIRECTED = b"HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

log = logging.getLogger("owsgit.gateway")


class Cycle:
    """One request and its response. Its attributes are those that uvicorn's protocol asks of its own."""

    __slots__ = ("body", "connection", "disconnected", "exchange", "keep_alive", "response_complete", "task")

    def __init__(self, connection: "BoundedProtocol", exchange: Exchange, body: Incoming, keep_alive: bool) -> None:
        self.connection, self.exchange, self.body = connection, exchange, body
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self.response_complete = self.disconnected = False

    @property
    def message_event(self) -> "Cycle":
        """What uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        self.body.lose()

    async def run(self, application: Application) -> None:
        started = False
        try:
            response = await application.handle(self.exchange)
            if self.disconnected:
                raise ClientGoneError
            if isinstance(response.body, bytes):
                self._write(response, response.body)
            else:
                started = True
                await self._stream(response, response.body)
        except ClientGoneError:
            if not started and not self.disconnected:
                self.connection.transport.write(self.connection.refusal)
            self.connection.end()
        except BrokenError:
            self.connection.transport.abort()  # the client must not take half of it for the whole
        except asyncio.CancelledError:
            self.connection.transport.abort()
            raise
        except Exception:
            log.exception("a request failed")
            if started:
                self.connection.transport.abort()
            else:
                self._write(Response(500, [], b""), b"")
        finally:
            self.exchange.close()
            self.connection.tasks.discard(self.task)
        if self.connection.flow.write_paused:  # the next answer would only make the heap of unread ones higher
            await self.connection.flow.drain()
        self.response_complete = True
        self.connection.on_response_complete()

    def _write(self, response: Response, body: bytes) -> None:
        if self.disconnected:  # uvloop's transports raise what nobody can act on
            return
        bodiless = response.status in BODILESS
        if response.status == MISDIRECTED:  # the client has to come over another connection
            self.keep_alive = False
        if self.body.awaited:  # RFC 9110 10.1.1: what it holds back is no request
            self.keep_alive = False
        head = self._head(response, b"" if bodiless else b"content-length: %d\r\n" % (response.length or 0))
        transport = self.connection.transport
        if bodiless or self.exchange.method == "HEAD" or not body:
            transport.write(head)
        elif len(body) < WAITING_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines([head, body])
        if not self.keep_alive:
            self.connection.end()

    async def _stream(self, response: Response, pieces: AsyncIterator[bytes]) -> None:
        connection, method = self.connection, self.exchange.method
        bodiless = response.status in BODILESS
        chunked = response.length is None and self.exchange.protocol == "HTTP/1.1" and not bodiless
        if (response.length is None and not chunked) or self.body.awaited:
            self.keep_alive = False
        framing = b"" if bodiless or response.length is None else b"content-length: %d\r\n" % response.length
        head = self._head(response, b"transfer-encoding: chunked\r\n" if chunked else framing)
        sent = 0
        try:
            if self.disconnected:
                raise ClientGoneError
            connection.transport.write(head)
            async for piece in _nothing() if bodiless or method == "HEAD" else pieces:
                if self.disconnected:
                    raise ClientGoneError
                sent += len(piece)
                if piece:
                    connection.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    if connection.flow.write_paused:  # the connection watches who reads it, and how fast
                        await connection.flow.drain()
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        if self.disconnected:
            return
        if chunked and method != "HEAD":
            connection.transport.write(b"0\r\n\r\n")
        elif response.length is not None and sent != response.length and method != "HEAD" and not bodiless:
            raise ValueError(f"{sent} bytes of {response.length} came")  # the client waits for the rest
        if not self.keep_alive:
            connection.end()

    def _head(self, response: Response, framing: bytes) -> bytes:
        lines = [STATUS_LINE[response.status]]
        for name, value in response.headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(framing)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        elif self.exchange.protocol == "HTTP/1.0":
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    cycle: Cycle  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.application: Application = self.config.app  # type: ignore[assignment]
        self._in_head = True
        self._framing_bytes = 0  # of this request, that are not its body: head, sizes of chunks, trailers
        self._body_bytes = 0
        self._all_body_bytes = 0  # of all requests of the connection
        self._arriving = 0  # bytes that are being parsed
        self._counted = False
        self.deadline = NEVER  # of what is awaited of the client
        self._body_began = 0.0
        self._unsent = 0
        self._reader: asyncio.TimerHandle | None = None  # looks at what the client has read
        self._lingering: asyncio.TimerHandle | None = None
        self._upgrading = self._leaving = False
        self.refusal = b""  # what is answered to what is no HTTP; nothing is read after it
        self._client = Client("")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._client = client_of(transport, self.client)
        application = self.application
        self._counted = application.connections.enter(self._client.address, application.limits)
        if self._counted:
            self.deadline = self.loop.time() + application.limits.head_seconds
            _Watch.over(self.server_state, self.loop)
        else:
            transport.write(_FULL)
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        for timer in (self._reader, self._lingering):
            if timer is not None:
                timer.cancel()
        self._sent()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        if self.refusal or not self._counted:
            return
        self.deadline = NEVER
        super().handle_websocket_upgrade()
        self._counted = False  # from now on it is another protocol's, and counts until that loses it
        protocol = cast("BoundedSocketProtocol", self.transport.get_protocol())
        protocol.leave = partial(self.application.connections.leave, self._client.address)

    def _leave(self) -> None:
        self.deadline = NEVER
        if self._counted:
            self._counted = False
            self.application.connections.leave(self._client.address)

    def end(self) -> None:
        """Close, once what is written is sent; a client that does not take it does not keep the connection."""
        transport = self.transport
        transport.close()
        if self._lingering is None and transport.get_write_buffer_size():
            self._lingering = self.loop.call_later(READER_SECONDS, self._linger)

    def _linger(self) -> None:
        if self._reader is None:  # else its rate is watched
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = size = self.transport.get_write_buffer_size()
        if not UNSENT.take(size):
            self._unsent = 0
            self.transport.abort()
        elif self._reader is None:
            self._reader = self.loop.call_later(READER_SECONDS, self._look_at_reader)

    def resume_writing(self) -> None:
        self._sent()
        super().resume_writing()

    def _sent(self) -> None:
        UNSENT.give_back(self._unsent)
        self._unsent = 0
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _look_at_reader(self) -> None:
        size = self.transport.get_write_buffer_size()
        read = self._unsent - size
        if read < READER_SECONDS * self.cycle.exchange.limits.bytes_per_second:
            self.transport.abort()
            return
        UNSENT.give_back(read)
        self._unsent = size
        self._reader = self.loop.call_later(READER_SECONDS, self._look_at_reader)

    def data_received(self, data: bytes) -> None:
        if len(data) <= PIECE_BYTES:
            self._parse(data)
            return
        pieces = memoryview(data)
        for start in range(0, len(data), PIECE_BYTES):
            if not self._parse(pieces[start : start + PIECE_BYTES]):
                return

    def _parse(self, data: bytes | memoryview) -> bool:
        """Whether to go on with what is behind it."""
        if self.refusal:
            return False
        before = self._all_body_bytes
        self._arriving = len(data)
        goes_on = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(_BAD)
        except httptools.HttpParserUpgrade:
            goes_on = False
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        self._framing_bytes += len(data) - (self._all_body_bytes - before)
        # bytes of the head that came with the body are counted as well, hence twice the bound
        most = self.application.limits.head_bytes
        bound = most if self._in_head else 2 * most + CHUNK_OVERHEAD_MAX * self._body_bytes
        if self._framing_bytes > bound and not self.transport.is_closing():
            self._refuse(_TOO_LARGE)
        return goes_on

    def _refuse(self, answer: bytes) -> None:
        """Take no more of this connection. What came before gets its own answer, and no other."""
        self.deadline = NEVER
        self.transport.pause_reading()
        self.refusal = answer
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(answer)
            self.end()
        else:
            self.cycle.keep_alive = False
            if not self.cycle.body.complete:
                self.cycle.set()

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers: Headers = []
        self._in_head = True
        self.deadline = self.loop.time() + self.application.limits.head_seconds

    def on_headers_complete(self) -> None:
        received = self._framing_bytes + self._arriving  # or less: there may be more in it than the head
        self._in_head, self._framing_bytes = False, 0
        self._body_began = self.loop.time()
        self.deadline = self._body_began + FIRST_LOOK_SECONDS
        parser = self.parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        upgrade = parser.should_upgrade()
        self._upgrading = upgrade and self._should_upgrade()
        body = Incoming(self, self.expect_100_continue)
        protocol = _PROTOCOLS.get(version) or f"HTTP/{version}"
        exchange = Exchange(method, self.url, self.headers, body, self._client, self.scheme or "http", protocol)
        if self._upgrading and not self.application.admits(exchange):
            self._refuse(_MISDIRECTED)
            return
        if self._upgrading:
            self.scope = {"method": method, "headers": self.headers}  # type: ignore[typeddict-item]
            return
        self.headers = []  # for trailers, which nobody gets: no limit, authorizer or cache has looked at them
        if self.refusal:
            return
        coding = exchange.first.get(b"transfer-encoding")
        odd = version not in _PROTOCOLS or (coding is not None and _is_odd(coding, version))
        if odd or len(self.pipeline) >= PIPELINED_MAX:
            self._refuse(_BAD)
            return
        if received > HEAD_BYTES_SMALL:
            exchange.head_bytes = head_size(exchange)
        # after an upgrade that is not made, the parser takes nothing more
        kept = parser.should_keep_alive() and not upgrade and not self._leaving
        cycle = Cycle(self, exchange, body, kept)
        previous, self.cycle = self.cycle, cycle
        if previous is None or previous.response_complete:
            self._run(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.config.loaded_app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._run(cycle)

    def _run(self, cycle: Cycle) -> None:
        cycle.task = task = self.loop.create_task(cycle.run(self.application))
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._run(self.pipeline.pop()[0])  # type: ignore[arg-type]
        elif self.deadline == NEVER:  # the whole request is there
            self.deadline = self.loop.time() + self.timeout_keep_alive
            rests = self.cycle.exchange.rests
            if rests is not None:
                rests(self)

    def give_away(self, take: Callable[[socket.socket | None], bool]) -> None:
        """Have another process go on with the connection, which is between two requests. `take` sends it there soon,
        and says whether it did; then it is that process's alone. It gets None if the connection stays here."""
        if self._can_be_given():
            self.flow.pause_reading()  # the next request is that process's
            self.loop.call_soon(self._give_away, take)  # what was answered is sent at the end of this turn of the loop
        else:
            take(None)

    @property
    def is_secure(self) -> bool:
        """Whether it has TLS: what is read and written there is this process's to encrypt."""
        return self.scheme == "https"

    def send_away(self) -> None:
        """Have the client come over another connection: the next answer says so."""
        self._leaving = True

    def _can_be_given(self) -> bool:
        cycle = self.cycle
        return (
            self._counted
            and not self.is_secure
            and not (self.refusal or self._in_head or self.pipeline or self.transport.is_closing())
            and cycle.response_complete
            and cycle.body.complete
            and cycle.keep_alive
        )

    def _give_away(self, take: Callable[[socket.socket | None], bool]) -> None:
        copy = self._copy()
        if copy is None:
            take(None)
        else:
            with copy:
                if take(copy):
                    self.transport.abort()  # this process's end, which tells the client nothing: the other is open
                    return
        self.flow.resume_reading()

    def _copy(self) -> socket.socket | None:
        """Its socket, if another process may have it."""
        if not self._can_be_given() or self.transport.get_write_buffer_size():
            return None
        try:
            return socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        except OSError:  # as many files are open as may be
            return None

    def on_body(self, body: bytes) -> None:
        if self.refusal:
            return
        self._body_bytes += len(body)
        self._all_body_bytes += len(body)
        if not self._upgrading and not self.cycle.response_complete:
            self.cycle.body.feed(body)

    def on_message_complete(self) -> None:
        self._framing_bytes = self._body_bytes = 0
        self.deadline = NEVER
        if not self._upgrading and not self.refusal:
            incoming = self.cycle.body
            incoming.complete = True
            incoming.wake()

    def cut_off(self) -> None:
        """Close it: the client is too slow, or says nothing more. Not if its body may still come."""
        cycle = self.cycle
        if not self._in_head and not self._upgrading and cycle is not None and not cycle.body.complete:
            if self.flow.read_paused:  # it is we who are slow
                self._body_began = self.loop.time()
            self.deadline = cycle.exchange.limits.body_deadline(self._body_began, self._body_bytes)
            if self.loop.time() < self.deadline:
                return
        self.deadline = NEVER
        if not self.refusal and not self.transport.is_closing():
            self._too_slow()

    def _too_slow(self) -> None:
        cycle = self.cycle
        if cycle is None or self._upgrading or cycle.response_complete:
            self.end()
            return
        cycle.keep_alive = False  # the answer, of whoever waits for the body or of whoever does not, is the last
        if not self._in_head:
            cycle.body.late = True
            cycle.body.wake()


class _Watch:
    """Cuts off the connections of one port that are over their time. Timers of their own would cost each request more
    than its parsing."""

    _all: ClassVar[WeakKeyDictionary[ServerState, "_Watch"]] = WeakKeyDictionary()

    def __init__(self, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self._state, self._loop = ref(state), loop
        self._waits = False

    @classmethod
    def over(cls, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        """Watch over the connections of a port, which has one now."""
        watch = cls._all.get(state)
        if watch is None:
            watch = cls._all[state] = cls(state, loop)
        watch._wait()

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._loop.call_later(WATCH_SECONDS, self._look)

    def _look(self) -> None:
        self._waits = False
        state, now = self._state(), self._loop.time()
        if state is None or not state.connections:
            return
        for connection in list(state.connections):
            if isinstance(connection, BoundedProtocol) and connection.deadline < now:
                connection.cut_off()
        self._wait()


def client_of(transport: asyncio.Transport, peer: tuple[str, int] | None) -> Client:
    """Who is at the other end of a connection whose handshake, if it has one, is made."""
    ssl_object = transport.get_extra_info("ssl_object")
    address, port = (peer[0], peer[1]) if peer else ("", 0)
    if ssl_object is None:
        return Client(address, port)
    certificate = ssl_object.getpeercert(binary_form=True) or b""
    return Client(address, port, certificate, getattr(ssl_object.context, "secured", None))


def _is_odd(coding: bytes, version: str) -> bool:
    """Whether the body is framed in a way that another server may read otherwise."""
    return version == "1.0" or coding.strip().lower() != b"chunked"


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
