"""uvicorn's HTTP protocol with what it leaves unbounded bounded: the size of a request's head, and the time for it."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers: six times what API Gateway takes (10,240 bytes), as others have larger cookies."""

HEAD_SECONDS_MAX = 20.0
"""A client that sends nothing, or a head byte by byte, is cut off."""

BODY_SECONDS_MAX = 60.0
"""From the end of the head to the end of the request: an answer that came before does not keep a connection open."""

CHUNK_OVERHEAD_MAX = 16
"""Bytes that frame one byte of a chunked body, at the worst."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._framing_bytes = 0  # of this request, that are not its body: head, sizes of chunks, trailers
        self._body_bytes = 0
        self._all_body_bytes = 0  # of all requests of the connection
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start(HEAD_SECONDS_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._all_body_bytes
        super().data_received(data)
        self._framing_bytes += len(data) - (self._all_body_bytes - before)
        # bytes of the head that came with the body are counted as well, hence twice the bound
        bound = HEAD_BYTES_MAX if self._in_head else 2 * HEAD_BYTES_MAX + CHUNK_OVERHEAD_MAX * self._body_bytes
        if self._framing_bytes > bound and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._start(HEAD_SECONDS_MAX)

    def on_headers_complete(self) -> None:
        self._in_head, self._framing_bytes = False, 0
        self._start(BODY_SECONDS_MAX)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._all_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._framing_bytes = self._body_bytes = 0
        self._stop()
        super().on_message_complete()

    def _start(self, seconds: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
