"""One HTTP/1.1 exchange with a program that is not trusted: a POST and its response, every size of it bounded."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

import httptools

HEAD_BYTES_MAX = 64 * 1024
"""Of a response before its body; servers and proxies take less."""

_PIECE_BYTES_MAX = 256 * 1024


class ExchangeError(Exception):
    """What came back is not a whole HTTP response."""


class ClosedError(ExchangeError):
    """The connection was closed before the response was whole."""


class TooLargeError(ExchangeError):
    """The response's body is larger than is taken."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a body of {size} bytes")
        self.size = size


@dataclass
class Response:
    """What was answered; as httptools' protocol it is filled piece by piece."""

    body_bytes_max: int
    status: int = 0
    reason: str = ""
    body: bytearray = field(default_factory=bytearray)
    headed: bool = False  # whether the head of the final response is there
    complete: bool = False
    _until_end: bool = True
    _size: int = 0

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take the next piece; b"" is the end of the connection. Raises ExchangeError."""
        if not data:
            if not self.headed or not self._until_end:
                raise ClosedError("the connection was closed in the middle of the response")
            self.complete = True
            return
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                raise (
                    error.__context__
                    if isinstance(error.__context__, ExchangeError)
                    else ExchangeError(f"not HTTP: {error}")
                ) from None
        if not self.headed and self._size > HEAD_BYTES_MAX:
            raise ExchangeError(f"the head of the response is longer than {HEAD_BYTES_MAX} bytes")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._until_end = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # 100 Continue and its like come before the response
            self.status, self.headed = status, True

    def on_body(self, piece: bytes) -> None:
        if len(self.body) + len(piece) > self.body_bytes_max:
            raise TooLargeError(len(self.body) + len(piece))
        self.body += piece

    def on_message_complete(self) -> None:
        if self.headed:
            self.complete = True
        else:
            self.reason, self._until_end = "", True


async def post(
    connection: socket.socket, host: str, path: str, headers: Mapping[str, str], body: bytes, body_bytes_max: int
) -> Response:
    """POST `body` over a connected socket, which is closed after. Raises OSError, ExchangeError."""
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {' '.join(value.split())}" for name, value in headers.items()]  # a line end would end it
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        response = Response(body_bytes_max)
        while not response.complete:
            response.feed(await reader.read(_PIECE_BYTES_MAX))
        return response
    finally:
        writer.transport.abort()
