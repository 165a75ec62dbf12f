"""Large, slow and many: clients that would hold what others need, over real connections."""

import socket
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from owsgit.gateway import limits, protocol
from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, Mount, Response
from owsgit.gateway.hosts import Binding
from owsgit.gateway.limits import Limits
from owsgit.gateway.listener import Listener
from owsgit.gateway.pieces import received
from tests.gateway.served import Served, raw


async def read(exchange: Exchange) -> Response:
    return Response(200, [], b"%d" % len(await exchange.read()))


async def piecewise(exchange: Exchange) -> Response:
    return Response(200, [], b"%d" % sum([len(piece) async for piece in received(exchange)]))


async def large(exchange: Exchange) -> Response:
    return Response(200, [], b"x" * 32 * 1024 * 1024)


async def endless(exchange: Exchange) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    return Response(200, [], pieces())


ROUTES = [("POST /read", read), ("POST /pieces", piecewise), ("GET /large", large), ("GET /endless", endless)]


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def ends(client: socket.socket) -> bytes:
    """What comes until the gateway closes the connection."""
    client.settimeout(20)
    found = b""
    try:
        while piece := client.recv(1 << 20):
            found = (found + piece)[-1000:]
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize("path", ["/read", "/pieces"])
def test_a_gateway_takes_bodies_as_large_as_it_says(gateway: Served, path: str) -> None:
    gateway.handle(ROUTES, limits=Limits(body_bytes=200_000))
    assert gateway.client.post(path, content=b"x" * 200_000).text == "200000"
    refused = gateway.client.post(path, content=b"x" * 200_001)
    assert refused.status_code == 413 and refused.json() == {"message": "Request Entity Too Large"}

    def chunks() -> object:
        yield from [b"x" * 100_000] * 3

    assert gateway.client.post(path, content=chunks()).status_code == 413  # type: ignore[arg-type]


def test_bodies_share_a_bounded_room_and_give_it_back(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.handle(ROUTES)
    before = limits.ROOM.free
    assert gateway.client.post("/read", content=b"x" * 1_000_000).text == "1000000"
    until(lambda: limits.ROOM.free == before)
    monkeypatch.setattr(limits.ROOM, "free", 500_000)
    full = gateway.client.post("/read", content=b"x" * 1_000_000)
    assert full.status_code == 503 and full.headers["retry-after"] == "1"
    assert gateway.client.post("/read", content=b"x" * 100).text == "100"
    until(lambda: limits.ROOM.free == 500_000)


def test_of_gateways_that_share_a_port_each_has_its_own_limit_of_heads(gateway: Served) -> None:
    gateway.handle(ROUTES, limits=Limits(head_bytes=10_240))
    assert gateway.client.post("/read", headers={"x": "y" * 9000}).status_code == 200
    refused = raw(gateway.port, head("POST", "/read", "Connection: close", "x: " + "y" * 11_000))
    assert refused.startswith(b"HTTP/1.1 431")
    other = Served()
    try:
        small, big = (
            Api(Mount(name, "1"), ROUTES, limits=Limits(head_bytes=n)) for name, n in (("s", 10_240), ("b", 50_000))
        )
        other.do(other.listeners.serve("both", other.port, [Binding("s", (), small), Binding("b", (), big)]))
        codes = [other.client.post("/read", headers={"host": h, "x": "y" * 20_000}).status_code for h in ("s", "b")]
        assert codes == [431, 200]
    finally:
        other.close()


def test_a_body_may_take_as_long_as_its_rate_says(gateway: Served) -> None:
    gateway.handle(ROUTES, limits=Limits(body_seconds=0.2, bytes_per_second=10_000))
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(head("POST", "/read", "Content-Length: 40000") + b"x" * 20_000)
        time.sleep(1.2)  # longer than bodySeconds, and not than the bytes that came allow
        client.sendall(b"x" * 20_000)
        assert client.recv(1000).endswith(b"40000")
    for path in ("/read", "/pieces"):
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
            client.sendall(head("POST", path, "Content-Length: 40000") + b"x")
            answer = ends(client)
            assert answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer


def alone(gateway: Served, most: Limits = limits.DEFAULT) -> Listener:
    """The gateway's listener, when nobody is connected."""
    gateway.client.close()
    gateway.client = httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}")
    gateway.handle(ROUTES, limits=most)
    listener = gateway.listeners.of("api")
    assert listener is not None
    until(lambda: not listener.connections.count)
    return listener


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("lines", [(), ("Connection: close",)])
@pytest.mark.parametrize("path", ["/large", "/endless"])
def test_a_client_that_does_not_read_is_cut_off(
    gateway: Served, monkeypatch: pytest.MonkeyPatch, path: str, lines: tuple[str, ...]
) -> None:
    monkeypatch.setattr(protocol, "READER_SECONDS", 0.3)
    connections = alone(gateway).connections
    before = limits.UNSENT.free
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall(head("GET", path, *lines))
        until(lambda: limits.UNSENT.free < before)
        until(lambda: limits.UNSENT.free == before and not connections.count)


def test_a_client_that_reads_slowly_is_waited_for(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel takes some of it all the time, and the gateway's takes more only now and then."""
    monkeypatch.setattr(protocol, "READER_SECONDS", 1.0)
    connections = alone(gateway).connections
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall(head("GET", "/large"))
        ended = time.monotonic() + 4
        while time.monotonic() < ended:
            client.recv(20_000)
            time.sleep(0.03)
        assert connections.count


def test_who_asks_and_never_reads_fills_nothing(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READER_SECONDS", 0.3)
    gateway.handle(ROUTES)
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client, pytest.raises(OSError):
        for _ in range(100_000):
            client.sendall(head("POST", "/read", "Content-Length: 5000") + b"x" * 5000)
    assert gateway.client.post("/read").text == "0"
    answer = raw(gateway.port, head("POST", "/read") * (protocol.PIPELINED_MAX + 10))
    assert answer.count(b"HTTP/1.1 200") <= protocol.PIPELINED_MAX + 1 and b"connection: close" in answer


@pytest.mark.parametrize("most", [Limits(connections=3), Limits(connections_per_client=3)])
def test_connections_are_counted_in_all_and_by_client(gateway: Served, most: Limits) -> None:
    connections = alone(gateway, most).connections
    kept = [socket.create_connection(("127.0.0.1", gateway.port), 5) for _ in range(3)]
    for each in kept:
        each.sendall(head("POST", "/read"))
        assert each.recv(1000).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as refused:
        assert refused.recv(1000).startswith(b"HTTP/1.1 503")
    for each in kept:
        each.close()
    until(lambda: not connections.count)
    assert gateway.client.post("/read").status_code == 200
