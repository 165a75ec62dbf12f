"""One request over HTTP/1.1 and its response: one Exchange, one task and one write."""

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from owsgit.gateway import pieces
from owsgit.gateway.exchange import (
    BODILESS,
    MISDIRECTED,
    Application,
    BrokenError,
    ClientGoneError,
    Exchange,
    Response,
)
from owsgit.gateway.incoming import WAITING_BYTES_MAX, Incoming

if TYPE_CHECKING:
    from owsgit.gateway.protocol import BoundedProtocol

OUTBOX_BYTES_MAX: Final = 256 * 1024
"""Of responses that wait."""

BURST_SECONDS: Final = 0.00002
"""Responses that come farther apart do not wait, as the client would be woken for each; nor does any wait longer for
more of them."""

log = logging.getLogger("owsgit.gateway")


class Outbox:
    """Responses that are made shortly one after the other, and sent together: a client of many connections is woken
    once, and not by each of them while the next one is made. None waits beyond the turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Cycle, bytes]] = []
        self._bytes = 0
        self._last = self._since = 0.0  # when the last response was made, and the first that waits

    def note(self) -> bool:
        """Note that a response is made now; whether it follows another one so soon that it is to wait."""
        before, self._last = self._last, monotonic()
        return self._last - before < BURST_SECONDS

    def add(self, cycle: "Cycle", whole: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._send)
            self._since = self._last
        self._waiting.append((cycle, whole))
        self._bytes += len(whole)
        if self._bytes > OUTBOX_BYTES_MAX or self._last - self._since > BURST_SECONDS:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for cycle, whole in waiting:
            try:
                cycle.send(whole)
            except Exception:  # whatever it is, it is no other client's
                log.exception("a response was not sent")
                cycle.connection.transport.abort()


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

    @property
    def gone(self) -> bool:
        """Whether nobody gets what is written."""
        return self.disconnected or self.connection.transport.is_closing()

    async def run(self, application: Application) -> None:
        started = False
        whole = b""
        try:
            response = await application.handle(self.exchange)
            if response.status == MISDIRECTED:  # the client has to come over another connection
                self.keep_alive = False
            body = response.body
            if isinstance(body, bytes) and (len(body) < WAITING_BYTES_MAX or not self.connection.is_secure):
                whole = self._write(response, body)
            else:
                started = True
                await pieces.send(self, response, pieces.cut(body) if isinstance(body, bytes) else body)
        except ClientGoneError:
            if not started and not self.gone:
                self.connection.transport.write(self.connection.refusal)
            self.connection.end()
        except BrokenError:
            self.connection.transport.abort()  # the client must not take half of it for the whole
        except asyncio.CancelledError:
            self.connection.transport.abort()
            raise
        except Exception:
            log.exception("a request failed")
            whole = self._fail(started)
        finally:
            self.exchange.close()
            self.connection.tasks.discard(self.task)
        if whole:
            self.connection.outbox.add(self, whole)
        else:
            await self._end()

    def _fail(self, started: bool) -> bytes:
        if not started:
            return self._write(Response(500, [], b""), b"")
        self.connection.transport.abort()
        return b""

    def send(self, whole: bytes) -> None:
        """Send a response that lay in the outbox."""
        connection = self.connection
        if not self.gone:
            connection.transport.write(whole)
            if not self.keep_alive:
                connection.end()
        if connection.flow.write_paused:
            self.task = task = connection.loop.create_task(self._end())
            connection.tasks.add(task)
            task.add_done_callback(connection.tasks.discard)
        else:
            self._complete()

    async def _end(self) -> None:
        if self.connection.flow.write_paused:  # the next answer would only make the heap of unread ones higher
            await self.connection.flow.drain()
        self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.connection.on_response_complete()

    def _write(self, response: Response, body: bytes) -> bytes:
        """Send the response now; or return it, if it is sent with those of others."""
        if self.gone:  # uvloop's transports raise what nobody can act on
            return b""
        bodiless = response.status in BODILESS
        if self.body.awaited:  # RFC 9110 10.1.1: what it holds back is no request
            self.keep_alive = False
        head = self.head(response, b"" if bodiless else b"content-length: %d\r\n" % (response.length or 0))
        transport = self.connection.transport
        if bodiless or self.exchange.method == "HEAD" or not body:
            transport.write(head)
        elif len(body) >= WAITING_BYTES_MAX:
            transport.writelines([head, body])
        elif not self.exchange.prompt and self.connection.outbox.note():
            return head + body
        else:
            transport.write(head + body)
        if not self.keep_alive:
            self.connection.end()
        return b""

    def head(self, response: Response, framing: bytes) -> bytes:
        """The response's head as bytes; `framing`: its header lines that say where the body ends."""
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
