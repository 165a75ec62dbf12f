"""HTTP/2 (RFC 9113) into exchanges: h2 keeps the state of the protocol, here is what it leaves unbounded bounded.

A stream is one exchange and one task, as in `protocol`, with the same bounds for its head, its body and its time.
What a client can make a server do for next to nothing (resets, pings, settings, empty frames: CVE-2019-9511 to 9518,
CVE-2023-44487) is counted, and paid for by time.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from owsgit.gateway.exchange import (
    BODILESS,
    Application,
    BrokenError,
    Client,
    ClientGoneError,
    Exchange,
    Headers,
    Response,
    head_size,
    too_slow,
)
from owsgit.gateway.protocol import FIRST_LOOK_SECONDS, client_of

STREAMS_MAX = 100
"""At once on one connection, whether the client still waits for them or not."""

STREAM_WINDOW_BYTES = 256 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024
"""Of bodies that nobody has read yet; then the client has to wait."""

SEND_SECONDS_MAX = 60.0
"""A client that takes nothing of a response for so long does not get the rest."""

TOLL_MAX = 300.0
TOLL_PER_SECOND = 30.0
"""How many frames that only cost the server something may come at once, and how fast they are forgotten."""

FRAME_BYTES_MAX = 16_384
"""The smallest bound that a server may set (RFC 9113 4.2), and the one that counts if it sets none."""

WRITE_BYTES_MAX = 64 * 1024
"""Of a response in one frame, so that others come between."""

TABLE_BYTES_MAX = 4096
"""Of HPACK's table of what was sent (RFC 7541 4.2)."""

ANSWER_BYTES = 13
"""Of a frame that h2 answers with by itself, about."""

PIECE_BYTES = 4 * 1024
"""Of what came, that is parsed before it is looked at whether the client is sent away: it may be 28,000 frames."""

ABORT_SECONDS = 0.5
"""How long a client that is sent away has to read why."""

SMALL_BYTES = 128
"""A window that is opened by less, or a piece of a body that is smaller, counts as such a frame."""

_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
"""As HTTP/1.1's parser takes them: `post` would match no policy of POST, and be POST to what takes capitals of it."""

_DROPPED = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
log = logging.getLogger("owsgit.gateway")


class Lengths:
    """Watches the lengths of frames: h2 looks at one when the whole of it, up to 16 MiB, has come."""

    def __init__(self) -> None:
        self._skip = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._head = b""

    def fit(self, data: bytes) -> bool:
        """Whether all frames that begin in `data`, the next bytes of the connection, are of a length that is taken."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(3 - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == 3:
                    length, self._head = int.from_bytes(self._head, "big"), b""
                    if length > FRAME_BYTES_MAX:
                        return False
                    self._skip = 6 + length  # kind, flags, stream
            at += step
        return True


class Stream:
    """One request and its response; also the request's body."""

    __slots__ = (
        "_awaited",
        "_connection",
        "_leaving",
        "_pieces",
        "_wanted",
        "began",
        "complete",
        "gone",
        "id",
        "late",
        "received",
        "room",
        "task",
        "timer",
    )

    def __init__(self, connection: "Http2Protocol", id_: int, awaited: bool) -> None:
        """`awaited`: the client sends nothing before it is told to continue."""
        self._connection, self.id = connection, id_
        self._awaited = awaited
        self._leaving: Callable[[], object] | None = None
        self._pieces: list[tuple[bytes, int]] = []
        self._wanted: asyncio.Future[None] | None = None
        self.complete = self.gone = self.late = False
        self.began = connection.now()
        self.received = 0  # bytes of the body
        self.room = asyncio.Event()  # set when the client may have made some for the response
        self.timer: asyncio.TimerHandle | None = None

    def on_gone(self, act: Callable[[], object] | None) -> None:
        self._leaving = act
        if self.gone:
            self.lose()

    def rest(self) -> bytes | None:
        return None

    def lose(self) -> None:
        """The client takes nothing of it any more."""
        self.gone = True
        self.wake()
        act, self._leaving = self._leaving, None
        if act is not None:
            act()

    def feed(self, piece: bytes, counted: int) -> None:
        self._pieces.append((piece, counted))
        self.received += len(piece)
        self.wake()

    def wake(self) -> None:
        self.room.set()
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def leave(self) -> int:
        """What came and is not read any more, as its window counts it."""
        counted = sum(counted for _, counted in self._pieces)
        self._pieces = []
        return counted

    async def next(self) -> bytes:
        while True:
            if self._pieces:
                data = b"".join(piece for piece, _ in self._pieces)
                self._connection.acknowledge(self, self.leave())
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
                self._connection.headers(self, [(b":status", b"100")], False)
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None

    async def run(self, application: Application, exchange: Exchange) -> None:
        connection = self._connection
        try:
            response = await application.handle(exchange)
            await self._answer(response, exchange.method)
            self._leaving = None
            if not self.complete:  # RFC 9113 8.1: the answer is whole, the rest of the request is not wanted
                connection.reset(self, ErrorCodes.NO_ERROR)
        except ClientGoneError:
            connection.reset(self, ErrorCodes.CANCEL)
        except BrokenError:
            connection.reset(self, ErrorCodes.INTERNAL_ERROR)  # the client must not take half of it for the whole
        except asyncio.CancelledError:
            connection.reset(self, ErrorCodes.CANCEL)
            raise
        except Exception:
            log.exception("a request failed")
            connection.reset(self, ErrorCodes.INTERNAL_ERROR)

    async def _answer(self, response: Response, method: str) -> None:
        body = response.body
        bodiless = response.status in BODILESS
        head = [(b":status", b"%d" % response.status)]
        head += [pair for pair in response.headers if pair[0] not in _DROPPED]
        if response.length is not None and not bodiless:
            head.append((b"content-length", b"%d" % response.length))
        pieces = body if not isinstance(body, bytes) else _one(body)
        try:
            if bodiless or method == "HEAD" or body == b"":
                self._connection.headers(self, head, True)
                return
            self._connection.headers(self, head, False)
            sent = 0
            async for piece in pieces:
                sent += len(piece)
                if piece:
                    await self._connection.data(self, piece)
            if response.length is not None and sent != response.length:
                raise ValueError(f"{sent} bytes of {response.length} came")
            self._connection.end(self)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()


class Http2Protocol(asyncio.Protocol):
    """One connection. uvicorn's server state knows it as one of its own, so that a port closes in order."""

    def __init__(self, application: Application, state: ServerState, idle_seconds: float) -> None:
        self._application, self._state, self._idle_seconds = application, state, idle_seconds
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._running: set[Stream] = set()  # also those whose client does not wait any more
        self._lengths = Lengths()
        self._toll, self._toll_at = 0.0, 0.0
        self._draining = self._counted = False
        self._timer: asyncio.TimerHandle | None = None
        self._client = Client("")
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: application.limits.head_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
            },
        )
        self._h2.decoder.max_header_list_size = application.limits.head_bytes

    # what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are not of that class
        self._transport = transport
        self._flow = FlowControl(transport)
        self._client = client_of(transport, transport.get_extra_info("peername"))
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._counted = self._application.connections.enter(self._client.address, self._application.limits)
        if not self._counted:
            transport.close()
            return
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65_535)
        self._write()
        self._rest(self._application.limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        if self._counted:
            self._application.connections.leave(self._client.address)
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self._streams.values()):
            self._gone(stream)
        self._flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            self._parse(data[start : start + PIECE_BYTES])
            if self._transport.is_closing():
                return

    def _parse(self, data: bytes) -> None:
        if not self._lengths.fit(data):
            self._say_goodbye(ErrorCodes.FRAME_SIZE_ERROR)
            self._transport.close()
            return
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._write()  # the GOAWAY that says why
            self._transport.close()
            return
        answers = self._h2.data_to_send()  # what h2 says by itself: acknowledgements, resets of what has ended
        self._transport.write(answers)
        self._pay(len(answers) // ANSWER_BYTES)
        for event in events:
            self._take(event)
            if self._transport.is_closing():
                return
        self._write()

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        """The client reads too slowly. What it sends makes only more to be read, so that has to wait as well."""
        self._flow.pause_writing()
        self._flow.pause_reading()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        self._flow.resume_reading()

    def shutdown(self) -> None:
        """Take no more requests, and close when those that have begun are answered."""
        self._draining = True
        self._say_goodbye(ErrorCodes.NO_ERROR)
        self._close_if_idle()

    # what h2 says

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event.stream_id, event.headers, event.stream_ended is not None)
            case DataReceived():
                self._body(event)
            case StreamEnded():
                self._complete(event.stream_id)
            case StreamReset():
                self._pay()
                if (stream := self._streams.get(event.stream_id)) is not None:
                    self._gone(stream)
            case WindowUpdated():
                self._pay(event.delta < SMALL_BYTES)
                self._make_room(event.stream_id)
            case RemoteSettingsChanged():
                self._pay()
                encoder = self._h2.encoder  # a client may allow gigabytes, and has nothing to lose
                encoder.header_table_size = min(encoder.header_table_size, TABLE_BYTES_MAX)
                self._make_room(0)
            case ConnectionTerminated():
                self._draining = True
                self._close_if_idle()
            case _:
                self._pay()

    def _begin(self, id_: int, pairs: Iterable[tuple[bytes, bytes]], bodiless: bool) -> None:
        stream = Stream(self, id_, False)
        if self._draining or len(self._running) >= STREAMS_MAX:
            self._pay()
            self.reset(stream, ErrorCodes.REFUSED_STREAM)  # nothing was done of it: the client may ask again
            return
        read = _read(pairs)
        promised = any(name == b"content-length" and value.strip(b"0") for name, value in read[2]) if read else False
        if read is None or (bodiless and promised):  # RFC 9113 8.1.1: malformed
            self._pay()
            self.reset(stream, ErrorCodes.PROTOCOL_ERROR)
            return
        method, target, headers = read
        stream = Stream(self, id_, any(pair == (b"expect", b"100-continue") for pair in headers))
        exchange = Exchange(method, target, headers, stream, self._client, "https", "HTTP/2.0")
        exchange.head_bytes = head_size(exchange)
        self._streams[id_] = stream
        self._running.add(stream)
        self._unrest()
        if not bodiless:
            stream.timer = self._loop.call_later(FIRST_LOOK_SECONDS, self._look_at_body, stream, exchange)
        task = self._loop.create_task(stream.run(self._application, exchange))
        self._state.tasks.add(task)
        task.add_done_callback(lambda done: self._done(stream, done))
        task.add_done_callback(lambda done: exchange.close())

    def _done(self, stream: Stream, task: "asyncio.Task[None]") -> None:
        self._state.tasks.discard(task)
        self._state.total_requests += 1
        self._running.discard(stream)
        stream.on_gone(None)
        self._gone(stream)
        if not self._running:
            self._rest(self._idle_seconds)
            self._close_if_idle()

    def _body(self, event: DataReceived) -> None:
        self._pay(len(event.data) < SMALL_BYTES and event.stream_ended is None)
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.gone:
            self._acknowledge(event.flow_controlled_length, None)
        else:
            stream.feed(event.data, event.flow_controlled_length)

    def _complete(self, id_: int) -> None:
        if (stream := self._streams.get(id_)) is not None:
            if stream.timer is not None:
                stream.timer.cancel()
            stream.complete = True
            stream.wake()

    def _gone(self, stream: Stream) -> None:
        """Nothing comes of the stream any more, and nothing may be sent on it."""
        if self._streams.pop(stream.id, None) is None:
            return
        if stream.timer is not None:
            stream.timer.cancel()
        if left := stream.leave():
            self._acknowledge(left, None)
            self._write()
        stream.lose()

    def _look_at_body(self, stream: Stream, exchange: Exchange) -> None:
        """Let nobody wait for the rest of a body that comes too slowly: the rule of BoundedProtocol.cut_off."""
        if self._h2.remote_flow_control_window(stream.id) <= 0:  # it is we who are slow
            stream.began = self.now()
        deadline = exchange.limits.body_deadline(stream.began, stream.received)
        if self.now() < deadline:
            stream.timer = self._loop.call_at(deadline, self._look_at_body, stream, exchange)
            return
        stream.late = True
        stream.wake()

    def _make_room(self, id_: int | None) -> None:
        for stream in list(self._streams.values()) if not id_ else [self._streams.get(id_)]:
            if stream is not None:
                stream.room.set()

    def _pay(self, count: int = 1) -> None:
        """Count frames that only cost; a client that sends too many of them is sent away."""
        if not count:
            return
        now = self._loop.time()
        self._toll = max(0.0, self._toll - (now - self._toll_at) * TOLL_PER_SECOND) + count
        self._toll_at = now
        if self._toll > TOLL_MAX and not self._transport.is_closing():
            self._say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM)
            self._transport.close()
            self._loop.call_later(ABORT_SECONDS, self._transport.abort)

    # what streams say

    def now(self) -> float:
        return self._loop.time()

    def acknowledge(self, stream: Stream, counted: int) -> None:
        """So much of the request was read: the client may send more."""
        self._acknowledge(counted, None if stream.gone else stream.id)
        self._write()

    def _acknowledge(self, counted: int, id_: int | None) -> None:
        if not counted or self._transport.is_closing():
            return
        with contextlib.suppress(ProtocolError):
            self._h2.increment_flow_control_window(counted)
        if id_ is not None:
            with contextlib.suppress(ProtocolError):  # the client may have ended it
                self._h2.increment_flow_control_window(counted, id_)

    def headers(self, stream: Stream, headers: Headers, end: bool) -> None:
        """Raises ClientGoneError."""
        if stream.gone or self._transport.is_closing():
            raise ClientGoneError
        self._h2.send_headers(stream.id, headers, end_stream=end)
        self._write()

    async def data(self, stream: Stream, piece: bytes) -> None:
        """Send a piece of a response, as fast as the client takes it. Raises ClientGoneError."""
        view = memoryview(piece)
        while view:
            size = min(await self._window(stream), len(view))
            self._h2.send_data(stream.id, view[:size])
            view = view[size:]
            self._write()
            if self._flow.write_paused:
                await self._in_time(self._flow.drain())

    async def _window(self, stream: Stream) -> int:
        """How many bytes can be sent now; waits until it is some."""
        while True:
            if stream.gone or self._transport.is_closing():
                raise ClientGoneError
            window, most = self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size
            size = min(window, most, WRITE_BYTES_MAX)
            if size > 0:
                return size
            stream.room.clear()
            await self._in_time(stream.room.wait())

    @staticmethod
    async def _in_time(waiting: "asyncio.Future[object] | object") -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await waiting  # type: ignore[misc]
        except TimeoutError:
            raise ClientGoneError from None

    def end(self, stream: Stream) -> None:
        """Raises ClientGoneError."""
        if stream.gone or self._transport.is_closing():
            raise ClientGoneError
        self._h2.end_stream(stream.id)
        self._write()

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        if not stream.gone and not self._transport.is_closing():
            with contextlib.suppress(StreamClosedError, ProtocolError):
                self._h2.reset_stream(stream.id, code)
            self._write()
        self._gone(stream)

    # the connection's end

    def _write(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _say_goodbye(self, code: ErrorCodes) -> None:
        """h2 would send nothing any more after its own GOAWAY, and there are streams to be answered."""
        if not self._transport.is_closing():
            frame = GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=code)
            self._transport.write(frame.serialize())

    def _close_if_idle(self) -> None:
        if self._draining and not self._running:
            self._transport.close()

    def _rest(self, seconds: float) -> None:
        """Nothing is asked for: the connection ends if it stays so."""
        self._unrest()
        self._timer = self._loop.call_later(seconds, self.shutdown)

    def _unrest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _read(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes, Headers] | None:
    """Method, target and headers of a request, as HTTP/1.1 would have them; None if they cannot be that."""
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    cookies: list[bytes] = []
    for name, value in pairs:
        name, value = bytes(name), bytes(value)  # noqa: PLW2901 - hpack's own kinds of tuples and bytes
        if name.startswith(b":"):
            pseudo[name] = value
        elif name == b"cookie":  # RFC 9113 8.2.3: in pieces, for the sake of compression
            cookies.append(value)
        else:
            headers.append((name, value))
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD.fullmatch(method) or not target or b":protocol" in pseudo:
        return None
    hosts = {value.lower() for name, value in headers if name == b"host"}
    if authority := pseudo.get(b":authority"):
        hosts.add(authority.lower())
    if len(hosts) != 1:
        return None
    headers = [(b"host", authority or hosts.pop()), *(pair for pair in headers if pair[0] != b"host")]
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    return method.decode(), target, headers


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body
