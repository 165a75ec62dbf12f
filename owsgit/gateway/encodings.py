"""Content codings: br, zstd and gzip for responses, gzip and deflate of requests. The packages are imported when used.

RFC 9110 12.5.3 (Accept-Encoding), RFC 7932 (br), RFC 8878 (zstd), RFC 1952 (gzip).
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

BROTLI_QUALITY = 4
ZSTD_LEVEL = 3
GZIP_LEVEL = 4
"""Levels at which a core encodes some 50 to 300 MB a second: beyond them time grows faster than size shrinks."""

WINDOW_BITS = 18
"""256 KiB of window for a body, so that a thousand streams under way do not take gigabytes."""

INFLATED_PIECE_BYTES = 64 * 1024
ACCEPTED_MAX = 32
"""Codings of an Accept-Encoding that are looked at."""


class Encoder(Protocol):
    """One body on its way."""

    def piece(self, data: bytes) -> bytes:
        """What `data` becomes, all of it: a reader can decode to its end."""
        ...

    def end(self) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._made = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)

    def piece(self, data: bytes) -> bytes:
        return self._made.compress(data) + self._made.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._made.flush()


class _Brotli:
    def __init__(self) -> None:
        import brotli  # noqa: PLC0415 - no gateway that does not compress pays for it

        self._made = brotli.Compressor(quality=BROTLI_QUALITY, lgwin=WINDOW_BITS)

    def piece(self, data: bytes) -> bytes:
        return bytes(self._made.process(data) + self._made.flush())

    def end(self) -> bytes:
        return bytes(self._made.finish())


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - no gateway that does not compress pays for it

        options = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=WINDOW_BITS)
        self._made = zstandard.ZstdCompressor(compression_params=options).compressobj()
        self._flush_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK

    def piece(self, data: bytes) -> bytes:
        return self._made.compress(data) + self._made.flush(self._flush_block)

    def end(self) -> bytes:
        return self._made.flush()


_ENCODERS: Mapping[str, Callable[[], Encoder]] = {"br": _Brotli, "zstd": _Zstd, "gzip": _Gzip}


def encoder(encoding: str) -> Encoder:
    return _ENCODERS[encoding]()


def encode(encoding: str, data: bytes) -> bytes:
    """The whole of a body."""
    if encoding == "gzip":
        return zlib.compress(data, GZIP_LEVEL, 31)
    if encoding == "br":
        import brotli  # noqa: PLC0415 - see above

        return bytes(brotli.compress(data, quality=BROTLI_QUALITY, lgwin=WINDOW_BITS))
    import zstandard  # noqa: PLC0415 - see above

    return zstandard.compress(data, ZSTD_LEVEL)


@lru_cache(1024)
def negotiated(accepted: str, offered: Sequence[str]) -> str:
    """The best of `offered`, the most preferred first, for an Accept-Encoding; empty for none of them.

    Raises LookupError if the client takes none of them and the body as it is neither (identity;q=0).
    """
    quality: dict[str, float] = {}
    for part in accepted.lower().split(",")[:ACCEPTED_MAX]:
        name, *parameters = (each.strip() for each in part.split(";"))
        quality[{"x-gzip": "gzip"}.get(name, name)] = _quality(parameters)
    rest = quality.get("*", 0.0)
    rated = [(quality.get(name, rest), -index, name) for index, name in enumerate(offered)]
    best, _, name = max(rated, default=(0.0, 0, ""))
    identity = quality.get("identity", rest if "*" in quality and not rest else 0.0001)
    if best > 0 and best >= identity:
        return name
    if identity > 0:
        return ""
    raise LookupError(accepted)


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


class Decoder:
    """A body that was encoded by gzip or deflate (RFC 9110 8.4.1: zlib's format; some clients send it bare).

    Gives pieces of a bounded size, so that who reads them can stop in the middle of a bomb. Raises ValueError.
    """

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding == "gzip"
        self._made = zlib.decompressobj(31) if self._gzip else None
        self._rest = b""

    @property
    def is_whole(self) -> bool:
        return self._made is not None and self._made.eof

    def feed(self, data: bytes) -> None:
        """Take the next piece; what came before has been taken out."""
        if self._made is None:
            self._made = zlib.decompressobj(15 if _is_zlib(data) else -15)
        elif self._made.eof:
            raise ValueError("bytes after the end")
        self._rest = data

    def take(self) -> bytes:
        """The next decoded bytes; empty if more has to come first."""
        if not self._rest or self._made is None:
            return b""
        try:
            found = self._made.decompress(self._rest, INFLATED_PIECE_BYTES)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        self._rest = self._made.unconsumed_tail
        if self._made.unused_data:
            raise ValueError("bytes after the end")
        return found or (self.take() if self._rest else b"")


def _is_zlib(data: bytes) -> bool:
    """RFC 1950 2.2: the first two bytes are a multiple of 31; one byte alone is taken for the first of them."""
    return data[0] & 15 == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)
