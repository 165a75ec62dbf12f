"""Bodies piece by piece: a request's as it comes, a response's over HTTP/1.1 as it is made."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from owsgit.gateway.exchange import BODILESS, BrokenError, ClientGoneError, Exchange, Response
from owsgit.gateway.limits import UNSENT

if TYPE_CHECKING:
    from owsgit.gateway.cycle import Cycle


CUT_BYTES = 64 * 1024


async def received(exchange: Exchange) -> AsyncIterator[bytes]:
    """The body as it comes, to be passed on. Raises RefusedError (too large, too slow), ClientGoneError."""
    whole = exchange.whole
    if whole is not None:
        if whole:
            yield whole
        return
    room = exchange.limits.body_bytes
    while piece := await exchange.piece(room):
        room -= len(piece)
        yield piece


async def cut(body: bytes) -> AsyncIterator[bytes]:
    """A whole body in pieces, of which what is left counts as memory. Raises BrokenError if there is none for it.

    Over TLS a large one that is written at once waits where nobody sees it, below what encrypts it.
    """
    left = len(body)
    if not UNSENT.take(left):
        raise BrokenError
    try:
        for start in range(0, len(body), CUT_BYTES):
            piece = body[start : start + CUT_BYTES]
            left -= len(piece)
            UNSENT.give_back(len(piece))
            yield piece
    finally:
        UNSENT.give_back(left)


async def send(cycle: "Cycle", response: Response, pieces: AsyncIterator[bytes]) -> None:
    """Send head and body. Raises ClientGoneError, and ValueError for a body that is not as long as its head says."""
    connection, exchange = cycle.connection, cycle.exchange
    bodiless = response.status in BODILESS
    chunked = response.length is None and exchange.protocol == "HTTP/1.1" and not bodiless
    if (response.length is None and not chunked) or cycle.body.awaited:
        cycle.keep_alive = False
    framing = b"" if bodiless or response.length is None else b"content-length: %d\r\n" % response.length
    head = cycle.head(response, b"transfer-encoding: chunked\r\n" if chunked else framing)
    sends_body = not bodiless and exchange.method != "HEAD"
    try:
        if cycle.gone:
            raise ClientGoneError
        connection.transport.write(head)
        sent = await _send_body(cycle, pieces, chunked) if sends_body else 0
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
    if cycle.gone:
        return
    if chunked and exchange.method != "HEAD":
        connection.transport.write(b"0\r\n\r\n")
    elif sends_body and response.length is not None and sent != response.length:
        raise ValueError(f"{sent} bytes of {response.length} came")  # the client waits for the rest
    if not cycle.keep_alive:
        connection.end()


async def _send_body(cycle: "Cycle", pieces: AsyncIterator[bytes], chunked: bool) -> int:
    """Send the pieces as they come; how many bytes they were."""
    connection, sent = cycle.connection, 0
    async for piece in pieces:
        if cycle.gone:
            raise ClientGoneError
        sent += len(piece)
        if piece:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if connection.flow.write_paused:  # the connection watches who reads it, and how fast
                await connection.flow.drain()
    return sent
