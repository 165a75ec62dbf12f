"""Compression of responses as the client accepts it, and decompression of requests, as REST APIs do both.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-gzip-compression-decompression.html
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence

from owsgit.gateway import encodings
from owsgit.gateway.exchange import BODILESS, Body, Exchange, Handler, RefusedError, Response, too_large

IN_LOOP_BYTES_MAX = 64 * 1024
"""Larger bodies, and pieces of them, are encoded in a thread: so much takes less than a millisecond."""

_COMPRESSIBLE = re.compile(
    rb"text/.*"
    rb"|application/(.+\+)?(json|xml|text|yaml)"
    rb"|application/(javascript|ecmascript|x-javascript|x-www-form-urlencoded|graphql|x-ndjson|jsonl|jsonlines|json-seq"
    rb"|wasm|rtf|manifest|x-sh|x-yaml|sql|toml|x-amz-json-1\.[01]|vnd\.ms-fontobject|x-font-ttf)"
    rb"|image/(svg\+xml|bmp|x-icon|vnd\.microsoft\.icon)|font/(ttf|otf|collection)|message/.*|multipart/.*|model/.*",
    re.IGNORECASE,
)
_DECODED = {b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}


class Compression:
    """A step: encodes what is `minimum` bytes or more with the best of `offered` codings that the client takes."""

    def __init__(self, minimum: int, offered: Sequence[str]) -> None:
        self._minimum, self._offered = minimum, tuple(offered)

    def __call__(self, handler: Handler) -> Handler:
        async def compressed(exchange: Exchange) -> Response:
            if exchange.header(b"content-encoding"):
                decode_request(exchange)
            return await self._encode(exchange, await handler(exchange))

        return compressed

    async def _encode(self, exchange: Exchange, response: Response) -> Response:
        if not self._fits(exchange, response):
            return response
        response.vary(b"Accept-Encoding")
        if response.status == 304:
            _weaken(response, exchange.header(b"if-none-match"))
            return response
        accepted = b",".join(value for name, value in exchange.headers if name == b"accept-encoding").decode("latin-1")
        try:
            encoding = encodings.negotiated(accepted, self._offered) if accepted else ""
        except LookupError:
            await response.drop()
            raise RefusedError(
                406, "Not Acceptable", headers=[(b"accept-encoding", ", ".join(self._offered).encode())]
            ) from None
        if not encoding or (exchange.method == "HEAD" and response.body == b""):
            return response
        response.headers = [pair for pair in response.headers if pair[0] != b"accept-ranges"]
        response.headers.append((b"content-encoding", encoding.encode()))
        _weaken(response)
        if isinstance(response.body, bytes):
            response.body = await _whole(response, response.body, encoding)
            response.length = len(response.body)
        else:
            response.body, response.length = Encoded(response.body, encoding), None
        return response

    def _fits(self, exchange: Exchange, response: Response) -> bool:
        """Whether this response would be encoded for a client that accepts it."""
        if response.status == 304:
            return True
        if response.status in BODILESS or response.status == 206 or response.status < 200:
            return False
        if response.length is not None and response.length < max(1, self._minimum):
            return False
        kind = response.header(b"content-type").split(b";", 1)[0].strip()
        if _COMPRESSIBLE.fullmatch(kind) is None or response.header(b"content-encoding"):
            return False
        if response.header(b"content-range"):
            return False
        return b"no-transform" not in response.header(b"cache-control").lower()


async def _whole(response: Response, body: bytes, encoding: str) -> bytes:
    """The body encoded; what is answered from a cache is encoded once."""
    known = response.variants.get(encoding) if response.variants is not None else None
    if known is None:
        large = len(body) > IN_LOOP_BYTES_MAX
        known = await asyncio.to_thread(encodings.encode, encoding, body) if large else encodings.encode(encoding, body)
        if response.variants is not None:
            response.variants.put(encoding, known)
    return known


def _weaken(response: Response, wanted: bytes | None = None) -> None:
    """RFC 9110 8.8.1: a strong ETag names the very bytes. In a 304 it is weakened for who had it so (`wanted`)."""
    for index, (name, value) in enumerate(response.headers):
        if name == b"etag" and not value.startswith(b"W/") and (wanted is None or b"W/" + value in wanted):
            response.headers[index] = name, b"W/" + value


class Encoded:
    """A streamed body, encoded piece by piece as it comes: what a reader has, it can decode."""

    def __init__(self, pieces: AsyncIterator[bytes], encoding: str) -> None:
        self._pieces, self._encoder = pieces, encodings.encoder(encoding)
        self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        while True:
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                self._over = True
                return self._encoder.end()
            if len(piece) > IN_LOOP_BYTES_MAX:
                return await asyncio.to_thread(self._encoder.piece, piece)
            if piece:
                return self._encoder.piece(piece)

    async def aclose(self) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()


def decode_request(exchange: Exchange) -> None:
    """Have the body of a request decoded as it is read, if it came by gzip or deflate; others go on as they are."""
    encoding = _DECODED.get(exchange.header(b"content-encoding").strip().lower())
    if encoding is None:
        return
    undone = (b"content-encoding", b"content-length")
    exchange.replace_headers([pair for pair in exchange.headers if pair[0] not in undone])
    exchange.replace_body(lambda body: DecodedBody(body, encoding, exchange.limits.body_bytes))


class DecodedBody:
    """The body of a request, decoded: it has `most` bytes, as every body of its gateway, so that a bomb is cut off."""

    def __init__(self, body: Body, encoding: str, most: int) -> None:
        self._body, self._decoder, self._most = body, encodings.Decoder(encoding), most
        self._size = 0
        self._begun = self._over = False

    def on_gone(self, act: Callable[[], object] | None) -> None:
        self._body.on_gone(act)

    def rest(self) -> bytes | None:
        return None

    async def next(self) -> bytes:
        while not self._over:
            try:
                if piece := self._decoder.take():
                    self._size += len(piece)
                    if self._size > self._most:
                        raise too_large()
                    return piece
                raw = await self._body.next()
                if raw:
                    self._begun = True
                    self._decoder.feed(raw)
                    continue
            except ValueError:
                raise RefusedError(400, "Bad Request") from None
            self._over = True
            if self._begun and not self._decoder.is_whole:
                raise RefusedError(400, "Bad Request")
        return b""
