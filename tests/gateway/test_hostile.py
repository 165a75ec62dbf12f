"""HTTP that is written to be read in two ways: refused, or read in one, before routing and authorization see it.

What is refused for its framing closes the connection, so that nothing behind it is taken for a request. Sources: RFC
9112 (11.1, 11.2), and what request smuggling and path confusion were found with in other servers.
"""

import re
import socket
from collections.abc import Iterator

import pytest

from owsgit.gateway.exchange import Exchange, Response
from tests.gateway.served import Served, raw

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

FRAMING = {
    "cl+te": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "te+cl": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "te xchunked": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te chunked,identity": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "te identity": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nabcd"
    + SMUGGLED,
    "te gzip,chunked": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te twice": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "te \\x0bchunked": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te space colon": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te in 1.0": b"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te quoted": b'POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + SMUGGLED,
    "te fold": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "cl twice same": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "cl list": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n" + SMUGGLED,
    "cl plus": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + SMUGGLED,
    "cl minus": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + SMUGGLED,
    "cl hex": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x0\r\n\r\n" + SMUGGLED,
    "cl empty": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n" + SMUGGLED,
    "cl huge": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
    "bare lf head": b"POST /a HTTP/1.1\nHost: x\nContent-Length: 0\n\n" + SMUGGLED,
    "bare cr": b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 5\r\n\r\n" + SMUGGLED,
    "nul value": b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n" + SMUGGLED,
    "fold": b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n" + SMUGGLED,
    "name space": b"GET /a HTTP/1.1\r\nHost: x\r\nX y: a\r\n\r\n" + SMUGGLED,
    "no name": b"GET /a HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n" + SMUGGLED,
    "first line ws": b"GET /a HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n" + SMUGGLED,
    "chunk neg": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
    "chunk 0x": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n" + SMUGGLED,
    "chunk big": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    "chunk lf": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n" + SMUGGLED,
    "chunk ext lf": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunk trailing": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n" + SMUGGLED,
    "chunk ws": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n" + SMUGGLED,
    "prior h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower method": b"get /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad version": b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
    "0.9": b"GET /a\r\n\r\n",
    "space target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab target": b"GET\t/a\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "utf8 target": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "q": b"GET /a?x=%zz&y=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
}

MEANING = {
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "bad host": b"GET /a HTTP/1.1\r\nHost: x/../y\r\n\r\n",
    "host @": b"GET /a HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "connect": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "options *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "%zz": b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    "%": b"GET /a% HTTP/1.1\r\nHost: x\r\n\r\n",
    "overlong": b"GET /%c0%ae%c0%ae HTTP/1.1\r\nHost: x\r\n\r\n",
    "..;": b"GET /a/..;/b HTTP/1.1\r\nHost: x\r\n\r\n",
    "%2f..": b"GET /a%2f..%2fb HTTP/1.1\r\nHost: x\r\n\r\n",
    "%5c": b"GET /a%5c..%5cb HTTP/1.1\r\nHost: x\r\n\r\n",
    "back": b"GET /a\\..\\b HTTP/1.1\r\nHost: x\r\n\r\n",
    "ctl": b"GET /a%0d%0ax HTTP/1.1\r\nHost: x\r\n\r\n",
    "frag": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
}


class Witness:
    """A handler that remembers what reached it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, exchange: Exchange) -> Response:
        await exchange.read()
        self.seen.append(f"{exchange.method} {exchange.host}{exchange.path}")
        return Response(200, [], b"ok")


@pytest.fixture
def witness(gateway: Served) -> Iterator[Witness]:
    made = Witness()
    gateway.handle([("$default", made)])
    yield made


def ask(gateway: Served, data: bytes) -> list[bytes]:
    """The statuses that come back; the connection is closed from our side once there is one answer and no more."""
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return re.findall(rb"HTTP/1\.1 (\d{3})", answer)


@pytest.mark.parametrize("name", FRAMING)
def test_what_is_framed_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    gateway: Served, witness: Witness, name: str
) -> None:
    assert raw_statuses(gateway, FRAMING[name]) == [b"400"]
    assert witness.seen == []


@pytest.mark.parametrize("name", MEANING)
def test_what_has_no_one_meaning_is_refused(gateway: Served, witness: Witness, name: str) -> None:
    assert ask(gateway, MEANING[name]) == [b"400"]
    assert witness.seen == []


def raw_statuses(gateway: Served, data: bytes) -> list[bytes]:
    """As `ask`, for what the gateway closes by itself."""
    return re.findall(rb"HTTP/1\.1 (\d{3})", raw(gateway.port, data))


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"GET http://Example.COM:8080/abs?x=1 HTTP/1.1\r\nHost: y\r\n\r\n", ["GET example.com/abs"]),
        (b"GET http://x HTTP/1.1\r\nHost: y\r\n\r\n", ["GET x/"]),
        (b"GET //a///b// HTTP/1.1\r\nHost: x.\r\n\r\n", ["GET x/a/b/"]),
        (b"GET /a%2Fb/%41 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", ["GET [::1]/a/b/A"]),
        (b"GET /a HTTP/1.0\r\n\r\n", ["GET /a"]),
        (b"GET /a;v=1/b;c HTTP/1.1\r\nHost: x\r\n\r\n", ["GET x/a;v=1/b;c"]),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent_Length: 5\r\nContent-Length: 0\r\n\r\n", ["POST x/a"]),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGARBAGE\r\n\r\n", ["GET x/a"]),  # its answer is not the garbage's
    ],
)
def test_what_has_one_meaning_is_read_so(gateway: Served, witness: Witness, data: bytes, seen: list[str]) -> None:
    assert ask(gateway, data) == [b"200"]
    assert witness.seen == seen


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"x"])
def test_an_upgrade_that_is_not_made_ends_with_its_answer(gateway: Served, witness: Witness, upgrade: bytes) -> None:
    """The parser takes what follows for another protocol, so nothing may follow."""
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade
    assert raw_statuses(gateway, head + b"\r\nContent-Length: 3\r\n\r\nabc" + SMUGGLED) == [b"200"]
    assert witness.seen == ["POST x/a"]


def test_a_body_that_is_broken_off_by_garbage_is_refused_in_its_turn(gateway: Served, witness: Witness) -> None:
    first = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
    second = b"POST /second HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX"
    assert raw_statuses(gateway, first + second) == [b"200", b"400"]
    assert witness.seen == ["GET x/first"]
