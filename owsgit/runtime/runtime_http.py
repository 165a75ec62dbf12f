"""HTTP/1.1 (RFC 9112) as far as the Runtime API needs it, for clients that nobody trusts.

The client is a function's code: whatever it sends costs a bounded amount of memory, and of the node's time only what
`Pace` gives it. One request at a time on a connection; whoever sends the next before the answer is cut off.
"""

import asyncio
import fcntl
import socket
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, cast

import httptools
import orjson

from owsgit.runtime.pace import Pace

CONNECTIONS_MAX = 16
"""A runtime needs one, or two; further ones wait in the kernel's queue."""

HEADERS_MAX = 100
HEAD_BYTES_MAX = 1088 * 1024
"""Held unparsed of all connections together: awslambdaric sends X-Ray causes of up to 1 MiB as a header."""

DISCARDED_BYTES_MAX = 64 * 1024 * 1024
"""Read of a body that nobody wants, before the connection is ended: beyond that no client deserves a clean answer."""

READ_BYTES = 64 * 1024
"""Read at once: bounds how long one client keeps the loop."""

JOINED_BYTES_MAX = 64 * 1024
"""Sent at once, as a copy costs less than another system call and another wake-up of the client."""

PHRASES = {status.value: status.phrase for status in HTTPStatus}

WORK_OF_REQUEST = 50
"""What a request or a connection costs, in callbacks."""


@dataclass(frozen=True)
class Request:
    """The head of a request; names of headers in lower case."""

    method: bytes
    path: bytes
    headers: Mapping[bytes, bytes]


class RefusedError(Exception):
    """An answer that is an error, in AWS's shape."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message

    def reply(self) -> bytes:
        return reply(self.status, orjson.dumps({"errorMessage": self.message, "errorType": self.kind}))


TCP_CLOSE = 7
"""The state of a connection that was reset, in the first octet of Linux' struct tcp_info."""


class Body(Protocol):
    """Takes the body of one request."""

    def take(self, data: bytes) -> None:
        """The next piece. A RefusedError that is raised ends the connection."""
        ...

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        """The whole has come; the reply, or None if it comes later. Raises RefusedError."""
        ...

    def lost(self) -> None:
        """The connection ended before the body did, or before the reply that comes later."""
        ...


Application = Callable[[Request, "Connection"], Body]
"""Chooses who takes the body of a request. Raises RefusedError."""


def reply(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole response with a JSON body."""
    return head(status, len(body), headers) + body


def head(status: int, length: int, headers: Mapping[str, str] | None = None) -> bytes:
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
    start = f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: application/json\r\n"
    return f"{start}{fields}Content-Length: {length}\r\n\r\n".encode("latin-1", "replace")


class Discarded:
    """The body of a request that is refused: clients read the answer only after they have sent all of it."""

    def __init__(self, refused: RefusedError, bytes_max: int) -> None:
        self._refused, self._left = refused, bytes_max

    def take(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise self._refused

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        raise self._refused

    def lost(self) -> None:
        pass


class Server:
    """Accepts the connections of one worker on `listener`, which it then owns."""

    def __init__(self, listener: socket.socket, application: Application) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self.application = application
        self.buffer = memoryview(bytearray(READ_BYTES))  # of all connections: what is read is taken at once
        self.pace = Pace()
        self.held = 0  # bytes of heads and trailers that are not complete yet
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()  # set while there is none
        self.empty.set()
        self._accepting = asyncio.ensure_future(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                accepted, _ = await loop.sock_accept(self._listener)
                await loop.connect_accepted_socket(lambda: Connection(self), accepted)
            except OSError:  # it was gone again, or this node is out of descriptors
                self._free.release()
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.pace.spend(WORK_OF_REQUEST))

    def made(self, connection: "Connection") -> None:
        self.connections.add(connection)
        self.empty.clear()

    def lost(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()
        self._free.release()

    def close(self) -> None:
        self._accepting.cancel()
        self._listener.close()
        for connection in tuple(self.connections):
            connection.abort()


class Connection(asyncio.BufferedProtocol):
    """One connection: requests in, answers out, in turn. The callbacks `on_...` are httptools'."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._pauses: set[str] = set()
        self._body: Body | None = None  # of the request that is not answered yet
        self._begun = False  # a request that is not answered yet
        self._fresh = True  # no request has begun in what is being read
        self._keep_alive = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._held = 0
        self._work = 0
        self.on_unread: Callable[[], object] = _nothing  # what is done if the client never reads the last answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hold(0)
        self._server.lost(self)
        if isinstance(exc, ConnectionError):
            self.on_unread()
        self._lose_body()

    def eof_received(self) -> None:
        """Nothing more comes of the client. If it has not read all, Linux resets the connection; what is sent after its
        end is answered by a reset too, which is there now (state), or is to come (then it is not acknowledged)."""
        ours = self._transport.get_extra_info("socket")
        state = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == TCP_CLOSE or any(fcntl.ioctl(ours.fileno(), termios.TIOCOUTQ, bytes(4))):
            self.on_unread()
        self._lose_body()  # what is written from now on is not sent

    def _lose_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.lost()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, count: int) -> None:
        self._work, self._fresh = 1, True
        self._hold(self._held + count)
        try:
            if self._server.held > HEAD_BYTES_MAX:
                raise RefusedError(
                    431, "RequestHeaderFieldsTooLarge", f"Headers are limited to {HEAD_BYTES_MAX} bytes."
                )
            self._parser.feed_data(self._server.buffer[:count])
        except RefusedError as refused:
            self._cut_off(refused)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            reason = error.__context__
            wrong = RefusedError(400, "InvalidRequest", "This is not HTTP/1.1.")
            self._cut_off(reason if isinstance(reason, RefusedError) else wrong)
        if delay := self._server.pace.spend(self._work):
            self.pause("pace")
            asyncio.get_running_loop().call_later(delay, self.resume, "pace")

    def on_message_begin(self) -> None:
        if self._begun or not self._fresh:
            raise RefusedError(400, "InvalidRequest", "A request has to wait for the answer to the one before it.")
        self._begun, self._fresh = True, False
        self._url, self._headers, self._header_count = b"", {}, 0
        self._work += WORK_OF_REQUEST

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._work += 1
        self._header_count += 1
        if self._header_count > HEADERS_MAX:
            raise _too_large(str(HEADERS_MAX))
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        request = Request(self._parser.get_method(), self._url.partition(b"?")[0], self._headers)
        self._headers = {}  # from here on: trailers
        if self._parser.should_upgrade():
            raise RefusedError(400, "InvalidRequest", "There is nothing to upgrade to.")
        try:
            self._body = self._server.application(request, self)
        except RefusedError as refused:
            self._body = Discarded(refused, DISCARDED_BYTES_MAX)
        if request.headers.get(b"expect", b"").lower() == b"100-continue":  # curl, before it sends much
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._work += 1
        self._hold(0)
        assert self._body is not None
        self._body.take(data)

    def on_message_complete(self) -> None:
        self._hold(0)
        self._keep_alive = self._parser.should_keep_alive()
        assert self._body is not None
        try:
            answer = self._body.end(self._headers)
        except RefusedError as refused:
            answer = refused.reply()
        self._headers = {}
        if answer is not None:
            self.answer(answer)

    def answer(self, *pieces: bytes) -> None:
        """Send the response to the present request."""
        self._body, self._begun = None, False
        self.on_unread = _nothing
        if sum(map(len, pieces)) <= JOINED_BYTES_MAX:
            pieces = (b"".join(pieces),)
        for piece in pieces:
            self._transport.write(piece)
        if not self._keep_alive:
            self._transport.close()

    def pause(self, reason: str) -> None:
        """Read nothing until `resume` is called for every reason."""
        if not self._pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses.add(reason)

    def resume(self, reason: str) -> None:
        if reason in self._pauses:
            self._pauses.discard(reason)
            if not self._pauses and not self._transport.is_closing():
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self.pause("writing")

    def resume_writing(self) -> None:
        self.resume("writing")

    def abort(self) -> None:
        self._transport.abort()

    def _hold(self, count: int) -> None:
        self._server.held += count - self._held
        self._held = count

    def _cut_off(self, refused: RefusedError) -> None:
        self._transport.write(refused.reply())
        self._transport.close()


def _nothing() -> None:
    """Nobody asks whether it was read."""


def _too_large(limit: str) -> RefusedError:
    return RefusedError(431, "RequestHeaderFieldsTooLarge", f"Headers are limited to {limit}.")
