"""The body of a request to a service that takes it in pieces, held against what the request says of it as it comes.

    whole       its SHA-256 is signed, or it is not signed at all (UNSIGNED-PAYLOAD)
    chunked     aws-chunked, as SDKs upload: chunks of which each signs the one before, trailers with a checksum

    1000;chunk-signature=<64 hex digits>\r\n <data> \r\n ... 0;chunk-signature=...\r\n <trailers> \r\n

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import AsyncIterator, Iterable

from owsgit.aws import checksums, sigv4
from owsgit.aws.api import Pieces, ServiceError
from owsgit.aws.checksums import Checksum
from owsgit.aws.sigv4 import Headers, Signed

STREAM_BYTES_MAX = 5 * 1024**3
"""S3's limit for one upload."""

CHUNK_BYTES_MIN = 8 * 1024
"""Of all chunks but the last, as S3 has it: each costs a signature, and a line that may be longer than itself."""

LINE_BYTES_MAX = 1024
TRAILERS_MAX = 4

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CHUNKED = (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER)

TRAILER_SIGNATURE = "x-amz-trailer-signature"

_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER = re.compile(rb"([A-Za-z0-9-]{1,64}):([!-~ ]{0,512})")


class Payload(Pieces):
    """What was sent, without what frames it. After its end, `checksums` are those that were found to be right."""

    def __init__(
        self, source: AsyncIterator[bytes], signed: Signed, secret: str, headers: Headers, *, checked: bool = True
    ) -> None:
        """`checked`: whether headers with checksums are of this body. Raises ServiceError for what is not whole."""
        self.length = _length(signed, headers)
        if self.length is not None and self.length > STREAM_BYTES_MAX:
            raise _too_large()
        self._checks = list(_said(headers)) if checked else []
        self._hash = None if signed.payload in (*CHUNKED, sigv4.UNSIGNED_PAYLOAD) else hashlib.sha256()
        self._wanted = signed.payload
        self._pieces = source
        if signed.payload in CHUNKED:
            trailers = _Trailers.of(headers) if signed.payload != SIGNED else _Trailers({})
            self._checks += trailers.checks.values()
            chain = None if signed.payload == UNSIGNED_TRAILER else _Chain(signed, secret)
            self._pieces = _decoded(_Wire(source), chain, trailers)
        self._size = 0
        self._ended = False
        self._failed: Exception | None = None
        self.checksums: dict[str, str] = {}

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if self._failed is not None:
            raise self._failed
        try:
            piece = await anext(self._pieces, b"")
            if piece:
                self._take(piece)
                return piece
            self._check()
        except Exception as error:
            self._failed = error
            raise
        self._ended = True
        raise StopAsyncIteration

    def _take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > STREAM_BYTES_MAX:
            raise _too_large()
        if self.length is not None and self._size > self.length:
            raise _incomplete()
        if self._hash is not None:
            self._hash.update(piece)
        for check in self._checks:
            check.update(piece)

    def _check(self) -> None:
        """Raises ServiceError unless all that was said of the body is so."""
        if self.length is not None and self._size != self.length:
            raise _incomplete()
        if self._hash is not None and not hmac.compare_digest(self._hash.hexdigest(), self._wanted):
            raise ServiceError(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )
        self.checksums = {check.header: check.check() for check in self._checks}

    async def drain(self) -> None:
        """Hold what nobody has read against what was said of it, too. Raises ServiceError."""
        async for _ in self:
            pass

    async def aclose(self) -> None:
        """The rest of the body is the connection's."""


def without_framing(signed: Signed, headers: Headers) -> Headers:
    """The headers as they are of what was sent: aws-chunked is no encoding of what is kept, nor its length that."""
    if signed.payload not in CHUNKED:
        return headers
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"content-encoding":
            codings = [each.strip() for each in value.split(b",")]
            left = b",".join(each for each in codings if each.lower() != b"aws-chunked")
            kept += [(name, left)] if left else []
        elif name == b"x-amz-decoded-content-length":
            kept.append((b"content-length", value))
        elif name != b"content-length":
            kept.append((name, value))
    return kept


def inflated(body: bytes, headers: Headers, most: int) -> bytes:
    """The body, of at most `most` bytes, as it was before its client compressed it: SDKs do so with what is large.

    Raises ServiceError. https://smithy.io/2.0/spec/behavior-traits.html#requestcompression-trait
    """
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if encodings != [b"gzip"]:
        return body
    inflating = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = inflating.decompress(body, most + 1)
    except zlib.error:
        raise ServiceError("SerializationException", "the body is not compressed with gzip as it says") from None
    if len(found) > most:
        raise ServiceError("RequestEntityTooLarge", "the body is too large once it is decompressed", status=413)
    if not inflating.eof or inflating.unused_data:
        raise ServiceError("SerializationException", "the body is not compressed with gzip as it says")
    return found


def _header(headers: Headers, name: bytes) -> str | None:
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise ServiceError("InvalidRequest", f"the header {name.decode()} is there more than once")
    return values[0].decode("latin-1").strip() if values else None


def _length(signed: Signed, headers: Headers) -> int | None:
    """In bytes, of what was sent. Raises ServiceError where it has to be said and is not."""
    name = b"x-amz-decoded-content-length" if signed.payload in CHUNKED else b"content-length"
    text = _header(headers, name)
    if text is None and (signed.payload in CHUNKED or _header(headers, b"transfer-encoding") is not None):
        raise ServiceError("MissingContentLength", "You must provide the Content-Length HTTP header.", status=411)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,19}", text) is None:
        raise ServiceError("InvalidArgument", f"{name.decode()} must be a number of bytes")
    return int(text)


def _said(headers: Headers) -> Iterable[Checksum]:
    """The checksums that headers say."""
    for key, _ in headers:
        name = key.decode("latin-1")
        if name in checksums.HEADERS or name == "content-md5":
            yield Checksum(name, _header(headers, key))


class _Chain:
    """Signatures of chunks: each is also of the one before, and the first of the request's."""

    def __init__(self, signed: Signed, secret: str) -> None:
        self._signed, self._secret = signed, secret
        self._previous = signed.signature

    def check(self, kind: str, digest: str, signature: str) -> None:
        """Raises ServiceError unless it is the next one."""
        found = sigv4.chunk_signature(self._signed, self._secret, kind, self._previous, digest)
        if not hmac.compare_digest(found, signature):
            raise ServiceError("InvalidSignatureException", str(sigv4.mismatch()), status=403)
        self._previous = found


class _Trailers:
    """What is to come behind the last chunk."""

    def __init__(self, checks: dict[str, Checksum]) -> None:
        self.checks = checks

    @classmethod
    def of(cls, headers: Headers) -> "_Trailers":
        """By what x-amz-trailer says. Raises ServiceError."""
        names = [each.strip().lower() for each in (_header(headers, b"x-amz-trailer") or "").split(",")]
        if len(names) > TRAILERS_MAX or len(set(names)) < len(names) or not checksums.HEADERS.issuperset(names):
            raise ServiceError(
                "InvalidRequest", "The value specified in the x-amz-trailer header is not supported", status=400
            )
        return cls({name: Checksum(name, None) for name in names})

    async def read(self, wire: "_Wire", chain: _Chain | None) -> None:
        """To the end of the body. Raises ServiceError."""
        lines: dict[str, str] = {}
        while line := await wire.line():
            match = _TRAILER.fullmatch(line.rstrip(b"\n"))
            name = match[1].decode().lower() if match is not None else ""
            if match is None or name in lines or len(lines) > TRAILERS_MAX:
                raise _malformed_trailer()
            lines[name] = match[2].decode().strip()
        signature = lines.pop(TRAILER_SIGNATURE, None)
        if set(lines) != set(self.checks) or (signature is None) == (chain is not None and bool(self.checks)):
            raise _malformed_trailer()
        if chain is not None and signature is not None:
            text = "".join(f"{name}:{value}\n" for name, value in sorted(lines.items()))
            chain.check("TRAILER", hashlib.sha256(text.encode()).hexdigest(), signature)
        for name, value in lines.items():
            self.checks[name].say(value)


class _Wire:
    """Pieces that come, read by lines and by counts."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._buffer = b""

    async def line(self) -> bytes:
        """Without its end. Raises ServiceError."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LINE_BYTES_MAX or not await self._more():
                raise _malformed()
        if end > LINE_BYTES_MAX:
            raise _malformed()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    async def some(self, most: int) -> bytes:
        """At least one byte. Raises ServiceError at the end of all."""
        if not self._buffer and not await self._more():
            raise _incomplete()
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    async def expect_end(self) -> None:
        if self._buffer or await self._more():
            raise _malformed()

    async def _more(self) -> bool:
        piece = await anext(self._source, b"")
        self._buffer = self._buffer + piece if self._buffer else piece
        return bool(piece)


async def _decoded(wire: _Wire, chain: _Chain | None, trailers: _Trailers) -> AsyncIterator[bytes]:
    """What is in the chunks. Raises ServiceError."""
    small = False
    while True:
        size, signature = _chunk_head(await wire.line(), chain)
        if size and small:
            raise ServiceError(
                "InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes"
            )
        small = size < CHUNK_BYTES_MIN
        digest, left = hashlib.sha256(), size
        while left:
            piece = await wire.some(left)
            left -= len(piece)
            if chain is not None:
                digest.update(piece)
            yield piece
        if size and await wire.line():
            raise _malformed()
        if chain is not None:
            chain.check("PAYLOAD", digest.hexdigest(), signature)
        if not size:
            break
    await trailers.read(wire, chain)
    await wire.expect_end()


def _chunk_head(line: bytes, chain: _Chain | None) -> tuple[int, str]:
    match = _CHUNK.fullmatch(line)
    if match is None or (match[2] is None) == (chain is not None):
        raise _malformed()
    size = int(match[1], 16)
    if size > STREAM_BYTES_MAX:
        raise _too_large()
    return size, (match[2] or b"").decode()


def _malformed() -> ServiceError:
    return ServiceError("IncompleteBody", "The request body is not in chunks as aws-chunked has them.")


def _malformed_trailer() -> ServiceError:
    return ServiceError(
        "MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform."
    )


def _incomplete() -> ServiceError:
    return ServiceError(
        "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header."
    )


def _too_large() -> ServiceError:
    return ServiceError("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
