"""Bodies in pieces: AWS's own examples of signed chunks, and what is wrong with those that are not whole."""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from awscrt import checksums as crt

from owsgit.aws import checksums, payload
from owsgit.aws.api import ServiceError
from owsgit.aws.checksums import Checksum
from owsgit.aws.payload import SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER, Payload, without_framing
from owsgit.aws.sigv4 import Headers, Signed, chunk_signature

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
DATA = b"a" * 66560
CRC = base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big"))


def signed(mode: str, seed: str = SEED) -> Signed:
    at = datetime(2013, 5, 24, tzinfo=UTC)
    return Signed(
        "AKIAIOSFODNN7EXAMPLE", "20130524", "us-east-1", "s3", "20130524T000000Z", at, ("host",), seed, "", mode
    )


def headers(length: int = len(DATA), trailer: bytes = b"", **more: bytes) -> Headers:
    found = [(b"x-amz-decoded-content-length", b"%d" % length)]
    found += [(b"x-amz-trailer", trailer)] if trailer else []
    return found + [(name.replace("_", "-").encode(), value) for name, value in more.items()]


def got(body: bytes, mode: str, said: Headers, piece: int = 1000, seed: str = SEED) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), piece):
            yield body[at : at + piece]

    async def read() -> bytes:
        taken = Payload(pieces(), signed(mode, seed), SECRET, said)
        found = await taken.read(1 << 20)
        assert await anext(taken, None) is None
        return found

    return asyncio.run(read())


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        got(*arguments, **options)
    return caught.value.code


def chunk(data: bytes, signature: str = "") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), f";chunk-signature={signature}".encode() if signature else b"", data)


PARTS = (
    chunk(DATA[:65536], "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    chunk(DATA[65536:], "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    chunk(b"", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
EXAMPLE = b"".join(PARTS)


@pytest.mark.parametrize("piece", [1, 77, 70_000])
def test_the_published_example_is_read(piece: int) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html"""
    assert got(EXAMPLE, SIGNED, headers(), piece) == DATA


def test_the_published_example_with_a_trailer_is_read() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html"""
    body = (
        chunk(DATA[:65536], "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2")
        + chunk(DATA[65536:], "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7")
        + chunk(b"", "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992")[:-2]
        + b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
        + b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    )
    seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    said = headers(trailer=b"x-amz-checksum-crc32c")
    assert got(body, SIGNED_TRAILER, said, seed=seed) == DATA
    for old, new in [
        (b"sOO8", b"sOO9"),
        (b"signature:d8", b"signature:d9"),
        (b"x-amz-trailer-signature", b"x-amz-other"),
    ]:
        assert refused(body.replace(old, new), SIGNED_TRAILER, said, seed=seed) in (
            "InvalidSignatureException", "MalformedTrailerError"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"ad80c7", b"ad80c8", "InvalidSignatureException"),
        (b"0055627c", b"1055627c", "InvalidSignatureException"),
        (b"b6c6ea8a", b"b6c6ea8b", "InvalidSignatureException"),
        (b"\r\naaaa", b"\r\nbaaa", "InvalidSignatureException"),
        (b";chunk-signature", b";chunk-signatur", "IncompleteBody"),
        (b"10000;", b"1000;", "IncompleteBody"),
        (b"10000;", b"+10000;", "IncompleteBody"),
        (b"10000;", b"0x10000;", "IncompleteBody"),
        (b"10000;", b"fffffffffffffff;", "EntityTooLarge"),
        (b"10000;", b"1" * 30 + b";", "IncompleteBody"),
        (b"10000;", b"\n10000;", "IncompleteBody"),
        (b"400;", b"401;", "IncompleteBody"),
        (b"\r\n400;", b"400;", "IncompleteBody"),
    ],
)
def test_chunks_that_were_changed_are_refused(old: bytes, new: bytes, code: str) -> None:
    assert EXAMPLE.count(old)
    assert refused(EXAMPLE.replace(old, new, 1), SIGNED, headers()) == code


def test_chunks_are_all_there_and_in_their_order() -> None:
    first, second, last = PARTS
    for body in (first + last, second + first + last, first + second, first + second + last + last, last, b"", first):
        assert refused(body, SIGNED, headers()) in ("InvalidSignatureException", "IncompleteBody"), body[-200:]
    assert refused(EXAMPLE, SIGNED, headers(len(DATA) - 1)) == "IncompleteBody"
    assert refused(EXAMPLE, SIGNED, headers(len(DATA) + 1)) == "IncompleteBody"
    for end in range(1, len(EXAMPLE), 4001):
        assert refused(EXAMPLE[:end], SIGNED, headers()) in ("IncompleteBody", "InvalidSignatureException")


def test_chunks_of_another_request_are_refused() -> None:
    assert refused(EXAMPLE, SIGNED, headers(), seed="0" * 64) == "InvalidSignatureException"


def unsigned(*trailers: bytes, data: bytes = DATA) -> bytes:
    return chunk(data) + b"0\r\n" + b"".join(each + b"\r\n" for each in trailers) + b"\r\n"


def test_chunks_that_only_the_connection_protects_are_held_against_their_checksum() -> None:
    said = headers(trailer=b"x-amz-checksum-crc32")
    good = b"x-amz-checksum-crc32:" + CRC
    assert got(unsigned(good), UNSIGNED_TRAILER, said) == DATA
    for trailers, code in [
        ((b"x-amz-checksum-crc32:AAAAAA==",), "BadDigest"),
        ((b"x-amz-checksum-crc32:AAAA",), "InvalidRequest"),
        ((), "MalformedTrailerError"),
        ((good, good), "MalformedTrailerError"),
        ((b"x-amz-checksum-sha1:" + CRC,), "MalformedTrailerError"),
        ((good, b"x-amz-meta-a:b"), "MalformedTrailerError"),
        ((good, b"x-amz-trailer-signature:" + b"0" * 64), "MalformedTrailerError"),
        ((b"x" * 5000,), "IncompleteBody"),
        ((b"no colon",), "MalformedTrailerError"),
    ]:
        assert refused(unsigned(*trailers), UNSIGNED_TRAILER, said) == code, trailers
    assert refused(unsigned(good) + b"GET / HTTP/1.1", UNSIGNED_TRAILER, said) == "IncompleteBody"
    assert refused(EXAMPLE, UNSIGNED_TRAILER, said) == "IncompleteBody"
    assert refused(unsigned(good), SIGNED_TRAILER, said) == "IncompleteBody"


def test_chunks_are_not_made_small_to_cost_much() -> None:
    body = b"".join(chunk(b"a" * 100) for _ in range(10)) + b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    assert refused(body, UNSIGNED_TRAILER, headers(1000, b"x-amz-checksum-crc32")) == "InvalidChunkSizeError"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([], "MissingContentLength"),
        ([(b"x-amz-decoded-content-length", b"-1")], "InvalidArgument"),
        ([(b"x-amz-decoded-content-length", b"9" * 13)], "EntityTooLarge"),
        (headers(), "InvalidRequest"),
        (headers(trailer=b"x-amz-meta-a"), "InvalidRequest"),
        (headers(trailer=b"x-amz-checksum-crc32,x-amz-checksum-crc32"), "InvalidRequest"),
        (headers(trailer=b"x-amz-checksum-crc9"), "InvalidRequest"),
    ],
)
def test_what_is_to_come_is_said_before(said: Headers, code: str) -> None:
    assert refused(unsigned(b"x-amz-checksum-crc32:" + CRC), UNSIGNED_TRAILER, said) == code


VALUES = {
    "crc32": zlib.crc32(DATA).to_bytes(4, "big"),
    "crc32c": crt.crc32c(DATA).to_bytes(4, "big"),
    "crc64nvme": crt.crc64nvme(DATA).to_bytes(8, "big"),
    "sha1": hashlib.sha1(DATA).digest(),
    "sha256": hashlib.sha256(DATA).digest(),
    "sha512": hashlib.sha512(DATA).digest(),
    "md5": hashlib.md5(DATA).digest(),
    "xxhash64": crt.XXHash.compute_xxhash64(DATA),
    "xxhash3": crt.XXHash.compute_xxhash3_64(DATA),
    "xxhash128": crt.XXHash.compute_xxhash3_128(DATA),
}


def test_all_checksums_are_known() -> None:
    assert {checksums.PREFIX + name for name in VALUES} == checksums.HEADERS


@pytest.mark.parametrize("name", VALUES)
def test_a_checksum_is_of_all_that_came(name: str) -> None:
    """Of the check input of the catalogue of CRCs where it has one: reveng.sourceforge.io/crc-catalogue"""
    header, value = checksums.PREFIX + name, base64.b64encode(VALUES[name]).decode()
    check = Checksum(header, value)
    check.update(DATA[:70])
    check.update(DATA[70:])
    assert check.check() == value
    with pytest.raises(ServiceError, match="did not match"):
        Checksum(header, value).check()
    for bad in ("", "x", value[:-4], value + "AAAA"):
        with pytest.raises(ServiceError, match="is invalid"):
            Checksum(header, bad)


@pytest.mark.parametrize(("name", "value"), [("crc32c", 0xE3069283), ("crc64nvme", 0xAE8B14860A799888)])
def test_a_check_is_the_catalogues(name: str, value: int) -> None:
    size = 8 if name == "crc64nvme" else 4
    check = Checksum(checksums.PREFIX + name, base64.b64encode(value.to_bytes(size, "big")).decode())
    check.update(b"123456789")
    check.check()


def test_a_whole_body_is_held_against_its_hash_and_headers() -> None:
    said = [(b"content-length", b"%d" % len(DATA)), (b"x-amz-checksum-crc32", CRC)]
    assert got(DATA, hashlib.sha256(DATA).hexdigest(), said) == DATA
    assert refused(DATA, "0" * 64, said) == "XAmzContentSHA256Mismatch"
    assert refused(b"b" * len(DATA), payload.sigv4.UNSIGNED_PAYLOAD, said) == "BadDigest"
    assert refused(DATA[1:], payload.sigv4.UNSIGNED_PAYLOAD, said) == "IncompleteBody"
    assert refused(DATA, payload.sigv4.UNSIGNED_PAYLOAD, [(b"content-md5", b"AAAA")]) == "InvalidDigest"
    assert refused(DATA, payload.sigv4.UNSIGNED_PAYLOAD, [(b"transfer-encoding", b"chunked")]) == "MissingContentLength"


def test_what_failed_once_fails_again() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield DATA

    async def read() -> None:
        taken = Payload(pieces(), signed("0" * 64), SECRET, [])
        assert await anext(taken) == DATA
        for _ in range(2):
            with pytest.raises(ServiceError):
                await anext(taken)

    asyncio.run(read())


def test_what_frames_a_body_is_not_told_of_it() -> None:
    said = [(b"content-encoding", b"aws-chunked, gzip"), (b"content-length", b"99"), *headers(5), (b"a", b"b")]
    assert without_framing(signed(SIGNED), said) == [
        (b"content-encoding", b"gzip"), (b"content-length", b"5"), (b"a", b"b")
    ]  # fmt: skip
    assert without_framing(signed(SIGNED), [(b"content-encoding", b"aws-chunked")]) == []
    assert without_framing(signed("0" * 64), said) == said


def test_a_chunk_signature_is_of_its_kind() -> None:
    assert chunk_signature(signed(SIGNED), SECRET, "PAYLOAD", SEED, "0" * 64) != chunk_signature(
        signed(SIGNED), SECRET, "TRAILER", SEED, "0" * 64
    )
