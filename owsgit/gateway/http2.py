"""HTTP/2 (RFC 9113) into exchanges: h2 keeps the state of the protocol, here is what it leaves unbounded bounded.

A stream has the same bounds for its head, its body and its time as a request over HTTP/1.1 (`protocol`).
"""

import asyncio
import contextlib
from collections.abc import Iterable
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
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame
from uvicorn.server import ServerState

from owsgit.gateway.exchange import Application, Client, ClientGoneError, Exchange, Headers, head_size
from owsgit.gateway.http2_bounds import Lengths, Toll
from owsgit.gateway.http2_heads import HeadEncoder, read_head
from owsgit.gateway.http2_sending import Sending
from owsgit.gateway.http2_stream import Stream
from owsgit.gateway.protocol import FIRST_LOOK_SECONDS, client_of

STREAMS_MAX = 100
"""At once on one connection, whether the client still waits for them or not."""

STREAM_WINDOW_BYTES = 256 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024
"""Of bodies that nobody has read yet; then the client has to wait."""

ANSWER_BYTES = 13
"""Of a frame that h2 answers with by itself, about."""

PIECE_BYTES = 4 * 1024
"""Of what came, that is parsed before it is looked at whether the client is sent away: it may be 28,000 frames."""

ABORT_SECONDS = 0.5
"""How long a client that is sent away has to read why."""

SMALL_BYTES = 128
"""A window that is opened by less counts as a frame that only costs; so does, in part, a smaller piece of a body."""

SMALL_COST = 0.125
"""Of such a piece: whoever sends a body line by line means no harm, and a request, which is free, costs more."""


class _Connection(H2Connection):
    """h2 takes a GOAWAY for the end of the connection. A client that says so takes the responses to what it has asked
    for (RFC 9113 6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        return [], [ConnectionTerminated()]


class Http2Protocol(asyncio.Protocol):
    """One connection. uvicorn's server state knows it as one of its own, so that a port closes in order."""

    def __init__(self, application: Application, state: ServerState, idle_seconds: float) -> None:
        self._application, self._state, self._idle_seconds = application, state, idle_seconds
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._running: set[Stream] = set()  # also those whose client does not wait any more
        self._lengths = Lengths()
        self._toll = Toll()
        self._draining = self._counted = self._writes = False
        self._timer: asyncio.TimerHandle | None = None
        self._client = Client("")
        self._h2 = _Connection(_CONFIGURATION)
        self._h2.encoder = HeadEncoder()
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
        self._sending = Sending(self._h2, transport, self._write, self._write_soon)
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
        self._sending.flow.resume_writing()

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
        if self._writes:  # responses: what h2 says by itself is counted
            self._write()
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._write()  # the GOAWAY that says why
            self._transport.close()
            return
        if answers := self._h2.data_to_send():  # what h2 says by itself: acknowledgements, resets of what has ended
            self._transport.write(answers)
            self._pay(len(answers) // ANSWER_BYTES)
        for event in events:
            self._take(event)
            if self._transport.is_closing():
                return

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        """The client reads too slowly. What it sends makes only more to be read, so that has to wait as well."""
        self._sending.flow.pause_writing()
        self._sending.flow.pause_reading()

    def resume_writing(self) -> None:
        self._sending.flow.resume_reading()  # first: who writes may pause both again before anything is read
        self._sending.flow.resume_writing()

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
        read = read_head(pairs)
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
        if bodiless:
            stream.complete = True
        else:
            stream.timer = self._loop.call_later(FIRST_LOOK_SECONDS, self._look_at_body, stream, exchange)
        task = self._loop.create_task(stream.run(self._application, exchange))
        self._state.tasks.add(task)
        task.add_done_callback(lambda done: self._done(stream, done))

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
        if len(event.data) < SMALL_BYTES and event.stream_ended is None:
            self._pay(SMALL_COST if event.data else 1)
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.gone:
            self._acknowledge(event.flow_controlled_length, None)
            self._write_soon()
        else:
            stream.feed(event.data, event.flow_controlled_length)

    def _complete(self, id_: int) -> None:
        if (stream := self._streams.get(id_)) is not None:
            stream.end()

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
                stream.make_room()

    def _pay(self, count: float = 1) -> None:
        """Count frames that only cost; a client that sends too many of them is sent away."""
        if count and not self._toll.charge(count, self._loop.time()) and not self._transport.is_closing():
            self._say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM)
            self._transport.close()
            self._loop.call_later(ABORT_SECONDS, self._transport.abort)

    # what streams say

    def now(self) -> float:
        return self._loop.time()

    def acknowledge(self, stream: Stream, counted: int) -> None:
        """So much of the request was read: the client may send more."""
        if counted:
            self._acknowledge(counted, None if stream.gone or stream.complete else stream.id)
            self._write_soon()

    def _acknowledge(self, counted: int, id_: int | None) -> None:
        if not counted or self._transport.is_closing():
            return
        with contextlib.suppress(ProtocolError):
            self._h2.increment_flow_control_window(counted)
        if id_ is not None:
            with contextlib.suppress(ProtocolError):  # the client may have ended it
                self._h2.increment_flow_control_window(counted, id_)

    def send_head(self, stream: Stream, headers: Headers, *, last: bool) -> None:
        if stream.gone or self._transport.is_closing():
            raise ClientGoneError
        self._h2.send_headers(stream.id, headers, end_stream=last)
        self._write_soon()
        if last:
            self._running.discard(stream)

    async def send(self, stream: Stream, piece: bytes, *, last: bool) -> None:
        if self._transport.is_closing():
            raise ClientGoneError
        await self._sending.send(stream, piece, last=last)
        if last:  # its client asks for more when it has the end, and that may be before the task is over
            self._running.discard(stream)

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        if not stream.gone and not self._transport.is_closing():
            self._write()  # curl 7.88 takes nothing of a response that comes in one record with the reset
            with contextlib.suppress(ProtocolError):
                self._h2.reset_stream(stream.id, code)
            self._write()
        self._gone(stream)

    # the connection's end

    def _write_soon(self) -> None:
        """Send what this turn of the event loop makes together."""
        if not self._writes:
            self._writes = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._writes = False
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _say_goodbye(self, code: ErrorCodes) -> None:
        """h2 would send nothing any more after its own GOAWAY, and there are streams to be answered."""
        self._write()
        if not self._transport.is_closing():
            frame = GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=code)
            self._transport.write(frame.serialize())

    def _close_if_idle(self) -> None:
        if self._draining and not self._running:
            self._write()
            self._transport.close()

    def _rest(self, seconds: float) -> None:
        """Nothing is asked for: the connection ends if it stays so."""
        self._unrest()
        self._timer = self._loop.call_later(seconds, self.shutdown)

    def _unrest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_CONFIGURATION = H2Configuration(
    client_side=False,
    header_encoding=None,
    normalize_outbound_headers=False,  # they are in lower case, and so checked that they can be sent over HTTP/1.1
    validate_outbound_headers=False,
)
