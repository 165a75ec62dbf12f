"""Compression through real HTTP: what is encoded, for whom, and that a stream stays one."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Iterator

import brotli
import pytest
import zstandard

from owsgit.gateway import encodings
from owsgit.gateway.compression import Compression
from owsgit.gateway.exchange import Exchange, Headers, RefusedError, Response
from owsgit.gateway.limits import Limits
from owsgit.gateway.pieces import received
from tests.gateway.served import Served

TEXT = b"All nodes are equal. " * 200
LARGE = TEXT * 40


class Answers:
    """What the test's route answers next, and the body that it was asked with."""

    def __init__(self) -> None:
        self.status, self.body = 200, TEXT
        self.headers: Headers = [(b"content-type", b"text/plain")]
        self.asked = b""
        self.asked_headers: Headers = []
        self.more = asyncio.Event()

    async def answer(self, exchange: Exchange) -> Response:
        self.asked, self.asked_headers = await exchange.read(), exchange.headers
        return Response(self.status, list(self.headers), self.body)

    async def stream(self, exchange: Exchange) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: one\n\n"
            await self.more.wait()
            yield b"data: two\n\n"
            yield LARGE

        return Response(200, [(b"content-type", b"text/event-stream")], pieces())


@pytest.fixture
def answers(gateway: Served) -> Iterator[Answers]:
    made = Answers()
    routes = [("ANY /", made.answer), ("GET /stream", made.stream)]
    gateway.handle(routes, [Compression(1024, ("br", "zstd", "gzip"))])
    yield made


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip, br", "br"),
        ("br;q=0.5, gzip;q=0.9", "gzip"),
        ("zstd, gzip", "zstd"),
        ("*", "br"),
        ("br;q=0, *;q=0.1", "zstd"),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("br;q=0", None),
        ("br;q=nonsense", None),
        ("deflate", None),
        ("", None),
        ("x-gzip", "gzip"),
        ("*;q=0, gzip;q=0.1", "gzip"),
    ],
)
def test_the_encoding_is_negotiated(gateway: Served, answers: Answers, accepted: str, encoding: str | None) -> None:
    answers.headers.append((b"etag", b'"abc"'))
    found = gateway.client.get("/", headers={"accept-encoding": accepted})
    assert found.headers.get("content-encoding") == encoding and found.headers["vary"] == "Accept-Encoding"
    assert found.headers["etag"] == ('"abc"' if encoding is None else 'W/"abc"')
    with gateway.client.stream("GET", "/", headers={"accept-encoding": accepted}) as raw:
        data = b"".join(raw.iter_raw())
    assert int(raw.headers["content-length"]) == len(data)
    assert decoded(encoding, data) == TEXT and (encoding is None or len(data) < 200)


def decoded(encoding: str | None, data: bytes) -> bytes:
    if encoding is None:
        return data
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if encoding == "gzip" else bytes(brotli.decompress(data))


def test_a_client_that_takes_nothing_is_told(gateway: Served, answers: Answers) -> None:
    assert gateway.client.get("/", headers={"accept-encoding": "*;q=0"}).status_code == 406
    with pytest.raises(LookupError):
        encodings.negotiated("identity;q=0", ("br",))


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, [(b"content-type", b"image/png")], TEXT),
        (200, [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")], gzip.compress(LARGE, 0, mtime=0)),
        (200, [(b"content-type", b"text/plain"), (b"cache-control", b"max-age=1, no-transform")], TEXT),
        (206, [(b"content-type", b"text/plain"), (b"content-range", b"bytes 0-4199/9999")], TEXT),
        (200, [(b"content-type", b"text/plain")], b"x" * 1023),
        (204, [(b"content-type", b"text/plain")], b""),
    ],
)
def test_what_is_left_as_it_is(gateway: Served, answers: Answers, status: int, headers: Headers, body: bytes) -> None:
    answers.status, answers.headers, answers.body = status, headers, body
    with gateway.client.stream("GET", "/", headers={"accept-encoding": "br"}) as found:
        assert b"".join(found.iter_raw()) == body
    assert found.headers.get("content-encoding") in (None, "gzip") and "vary" not in found.headers


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip"])
def test_large_bodies_and_heads(gateway: Served, answers: Answers, encoding: str) -> None:
    answers.body = LARGE
    assert gateway.client.get("/", headers={"accept-encoding": encoding}).content == LARGE
    head = gateway.client.head("/", headers={"accept-encoding": encoding})
    assert head.headers["content-encoding"] == encoding and 0 < int(head.headers["content-length"]) < 10_000
    answers.body = b""
    assert "content-encoding" not in gateway.client.head("/", headers={"accept-encoding": encoding}).headers


def test_vary_is_added_to(gateway: Served, answers: Answers) -> None:
    for given, found in [(b"Origin", "Origin, Accept-Encoding"), (b"accept-encoding", "accept-encoding"), (b"*", "*")]:
        answers.headers = [(b"content-type", b"application/hal+json; charset=utf-8"), (b"vary", given)]
        assert gateway.client.get("/").headers["vary"] == found


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip"])
def test_a_stream_is_read_as_it_is_written(gateway: Served, answers: Answers, encoding: str) -> None:
    decoder = {
        "br": brotli.Decompressor().process,
        "zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
        "gzip": zlib.decompressobj(31).decompress,
    }[encoding]
    with gateway.client.stream("GET", "/stream", headers={"accept-encoding": encoding}) as found:
        assert found.headers["content-encoding"] == encoding
        pieces = found.iter_raw()
        data = b""
        while data != b"data: one\n\n":  # the second is not written before the first was read
            data += decoder(next(pieces))
        gateway.loop.call_soon_threadsafe(answers.more.set)
        for piece in pieces:
            data += decoder(piece)
    assert data == b"data: one\n\ndata: two\n\n" + LARGE


def test_a_client_that_leaves_a_stream_ends_it(gateway: Served, answers: Answers) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\n\r\n")
        assert b"content-encoding: br" in client.recv(1000)
    gateway.loop.call_soon_threadsafe(answers.more.set)
    assert gateway.client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT, wbits=-15)),
    ],
    ids=["gzip", "upper case", "deflate", "raw deflate"],
)
def test_requests_are_decompressed(gateway: Served, answers: Answers, encoding: str, data: bytes) -> None:
    headers = {"content-encoding": encoding}
    assert gateway.client.post("/", content=data, headers=headers).status_code == 200 and answers.asked == TEXT
    assert not {b"content-encoding", b"content-length"} & {name for name, _ in answers.asked_headers}
    byte_wise = iter([data[at : at + 1] for at in range(len(data))])
    assert gateway.client.post("/", content=byte_wise, headers=headers).status_code == 200 and answers.asked == TEXT


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense", 400),
        (gzip.compress(TEXT, mtime=0)[:-9], 400),
        (gzip.compress(TEXT, mtime=0) + b"x", 400),
        (gzip.compress(bytes(24 * 1024 * 1024), 1, mtime=0), 413),
        (b"", 200),
    ],
    ids=["nonsense", "cut off", "more behind it", "bomb", "empty"],
)
def test_bombs_and_damaged_requests_are_refused(gateway: Served, answers: Answers, data: bytes, status: int) -> None:
    assert gateway.client.post("/", content=data, headers={"content-encoding": "gzip"}).status_code == status


def test_other_encodings_of_requests_go_through(gateway: Served, answers: Answers) -> None:
    gateway.client.post("/", content=b"x", headers={"content-encoding": "br"})
    assert answers.asked == b"x" and (b"content-encoding", b"br") in answers.asked_headers


def test_without_the_step_nothing_is_encoded(gateway: Served) -> None:
    async def refuse(exchange: Exchange) -> Response:
        raise RefusedError(418, "I am a teapot")

    gateway.handle([("GET /", refuse)])
    found = gateway.client.get("/", headers={"accept-encoding": "br"})
    assert found.status_code == 418 and "vary" not in found.headers


def test_a_gateway_that_takes_more_or_less_takes_it_decompressed_too(gateway: Served) -> None:
    data, limits = gzip.compress(b"x" * 11_000_000), Limits(body_bytes=12_000_000)
    headers = {"content-encoding": "gzip"}
    gateway.handle([("POST /size", size)], [Compression(1024, ["gzip"])], limits=limits)
    assert gateway.client.post("/size", content=data, headers=headers).text == "11000000"
    gateway.handle([("POST /size", size)], [Compression(1024, ["gzip"])], limits=Limits(body_bytes=10_000_000))
    assert gateway.client.post("/size", content=data, headers=headers).status_code == 413


async def size(exchange: Exchange) -> Response:
    count = 0
    async for piece in received(exchange):
        count += len(piece)
    return Response(200, [(b"content-type", b"text/plain")], str(count).encode())
