"""uvicorn's HTTP/1.1 protocol, asked for exchanges instead of ASGI, with what it leaves unbounded bounded.

uvicorn keeps the connections (keep-alive, pipelining, flow control, upgrades, shutdown), httptools parses. What is
between a request's bytes and its response's is one Exchange, one task and one write.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary, ref

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from owsgit.gateway.cycle import Cycle, Outbox
from owsgit.gateway.exchange import Application, Client, Exchange, head_size
from owsgit.gateway.incoming import Incoming
from owsgit.gateway.limits import HEAD_BYTES_SMALL, READER_SECONDS, UNSENT
from owsgit.gateway.unread import unread

if TYPE_CHECKING:  # most nodes need no WebSockets
    from owsgit.gateway.socket_protocol import BoundedSocketProtocol

FIRST_LOOK_SECONDS: Final = 1.0
"""When a body is not there yet: by then it is known whose request it is, and how long it may take."""

PIPELINED_MAX: Final = 256
"""Requests that a client sends before it has the answer of the first."""

PIECE_BYTES: Final = 4096
"""Parsed at once. Which of its bytes are whose head is not known, so all of them count as the last one's: requests that
come together must not add up to one with too large a head."""

CHUNK_OVERHEAD_MAX: Final = 16
"""Bytes that frame one byte of a chunked body, at the worst."""

WATCH_SECONDS = 0.5
"""How exactly these times are kept."""

NEVER: Final = float("inf")
_PROTOCOLS: Final = {"1.1": "HTTP/1.1", "1.0": "HTTP/1.0"}
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 25\r\nconnection: close\r\n\r\n"
    b'{"message":"Bad Request"}'
)
_MISDIRECTED = b"HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

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
        self._unsent = self._unread = 0  # bytes, when they were last looked at
        self._reader: asyncio.TimerHandle | None = None  # looks at what the client has read
        self._lingering: asyncio.TimerHandle | None = None
        self._upgrading = self._leaving = False
        self._upgrade_waits = False  # for the responses to what came before it
        self.refusal = b""  # what is answered to what is no HTTP; nothing is read after it
        self._client = Client("")
        self._names: dict[bytes, bytes] = {}  # of headers of this request, as it has them; see Exchange
        self.current: Cycle | None = None  # of the last request whose head came
        self._running: Cycle | None = None  # of the one that is answered, or was the last to be
        self.outbox: Outbox

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._client = client_of(transport, self.client)
        application = self.application
        self._counted = application.connections.enter(self._client.address, application.limits)
        if self._counted:
            self.deadline = self.loop.time() + application.limits.head_seconds
            self.outbox = _Watch.over(self.server_state, self.loop).outbox
        else:
            transport.write(_FULL)
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        for timer in (self._reader, self._lingering):
            if timer is not None:
                timer.cancel()
        self._sent()
        running = self._running
        if running is not None and running is not self.current and not running.response_complete:
            running.disconnected = True  # uvicorn tells only the last one whose head came
            running.set()
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
        if self._lingering is None and not self.is_secure and transport.get_write_buffer_size():
            self._lingering = self.loop.call_later(READER_SECONDS, self._linger)

    def _linger(self) -> None:
        if self._reader is None:
            self.transport.abort()
        else:  # its rate is watched, until what is left is little
            self._lingering = self.loop.call_later(READER_SECONDS, self._linger)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = size = self.transport.get_write_buffer_size()
        if not UNSENT.take(size):
            self._unsent = 0
            self.transport.abort()
        elif self._reader is None:
            self._unread = unread(self.transport)
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
        before, self._unread = self._unread, unread(self.transport)
        limits = self.application.limits if self.current is None else self.current.exchange.limits
        if before - self._unread < READER_SECONDS * limits.bytes_per_second:
            self.transport.abort()
            return
        size = self.transport.get_write_buffer_size()
        UNSENT.give_back(self._unsent - size)
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
            if self._upgrading and self._is_answering():
                self._upgrade_waits = True
                self.flow.pause_reading()
            elif self._upgrading:
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
        cycle = self.current
        if cycle is None or cycle.response_complete:
            self.transport.write(answer)
            self.end()
        else:
            cycle.keep_alive = False
            if not cycle.body.complete:
                cycle.set()

    def on_header(self, name: bytes, value: bytes) -> None:  # it does what uvicorn's does, which is not compiled
        key = name.lower()
        self.headers.append((key, value))
        if key != name:
            self._names[key] = name
        if key == b"expect":
            self.expect_100_continue = self.expect_100_continue or value.lower() == b"100-continue"

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._names = {}
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
            names = self._names
            headers = [(names.get(name, name), value) for name, value in self.headers]
            self.scope = {"method": method, "headers": headers}  # type: ignore[typeddict-item]
            return
        exchange.names = self._names
        # for trailers, which nobody gets: no limit, authorizer or cache has looked at them
        self.headers, self._names = [], {}
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
        answering = self._is_answering()
        self.current = cycle
        self.cycle = cycle  # type: ignore[assignment]  # which uvicorn tells that the connection is lost
        if answering:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.config.loaded_app))  # type: ignore[arg-type]
        else:
            self._run(cycle)

    def _is_answering(self) -> bool:
        """Whether there are requests whose responses come before that of another one."""
        return self.current is not None and not self.current.response_complete

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._run(cycle)

    def _run(self, cycle: Cycle) -> None:
        self._running = cycle
        cycle.task = task = self.loop.create_task(cycle.run(self.application))
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            following = self.pipeline.pop()[0]
            self.read_on()
            self._run(following)  # type: ignore[arg-type]
            return
        upgrades, self._upgrade_waits = self._upgrade_waits, False
        self.read_on()
        if upgrades:
            self.handle_websocket_upgrade()
        elif self.deadline == NEVER:  # the whole request is there
            self.deadline = self.loop.time() + self.timeout_keep_alive
            cycle = self.current
            if cycle is not None and cycle.exchange.rests is not None:
                cycle.exchange.rests(self)

    def read_on(self) -> None:
        """Go on to read; not if there is something yet that waits for the responses to what came before it."""
        if self.flow.read_paused and not self.pipeline and not self._upgrade_waits:
            self.flow.resume_reading()

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
        cycle = self.current
        return (
            self._counted
            and cycle is not None
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
        cycle = self.current
        if cycle is not None and not self._upgrading and not cycle.response_complete:
            cycle.body.feed(body)

    def on_message_complete(self) -> None:
        self._framing_bytes = self._body_bytes = 0
        self.deadline = NEVER
        cycle = self.current
        if cycle is not None and not self._upgrading and not self.refusal:
            incoming = cycle.body
            incoming.complete = True
            incoming.wake()

    def cut_off(self) -> None:
        """Close it: the client is too slow, or says nothing more. Not if its body may still come."""
        cycle = self.current
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
        cycle = self.current
        if cycle is None or self._upgrading or cycle.response_complete:
            self.end()
            return
        cycle.keep_alive = False  # the answer, of whoever waits for the body or of whoever does not, is the last
        if not self._in_head:
            cycle.body.late = True
            cycle.body.wake()


class GivenProtocol(BoundedProtocol):
    """One connection that another process has accepted."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._counted:
            self._in_head, self.deadline = False, self.loop.time() + self.timeout_keep_alive


class _Watch:
    """Cuts off the connections of one port that are over their time. Timers of their own would cost each request more
    than its parsing."""

    _all: ClassVar[WeakKeyDictionary[ServerState, "_Watch"]] = WeakKeyDictionary()

    def __init__(self, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self._state, self._loop = ref(state), loop
        self._waits = False
        self.outbox = Outbox(loop)

    @classmethod
    def over(cls, state: ServerState, loop: asyncio.AbstractEventLoop) -> "_Watch":
        """What watches over the connections of a port, which has one now."""
        watch = cls._all.get(state)
        if watch is None:
            watch = cls._all[state] = cls(state, loop)
        watch._wait()
        return watch

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
    secured, cipher = getattr(ssl_object.context, "secured", None), ssl_object.cipher()
    return Client(address, port, certificate, secured, ssl_object.version() or "", cipher[0] if cipher else "")


def _is_odd(coding: bytes, version: str) -> bool:
    """Whether the body is framed in a way that another server may read otherwise."""
    return version == "1.0" or coding.strip().lower() != b"chunked"
