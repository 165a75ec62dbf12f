"""Responses that are made in one turn of the event loop: each goes to whoever asked for it, whatever happens meanwhile."""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from owsgit.gateway.exchange import Exchange, Response
from tests.gateway.served import Served

CLIENTS = 60
SECONDS = 20
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: the connection is reset


class Stream:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> bytes:
        return b"more"

    async def aclose(self) -> None:
        self.closed.set()


class Burst:
    """A route whose requests wait until all of them are let go at once."""

    def __init__(self, served: Served) -> None:
        self.served, self.waiting, self.large = served, 0, b""
        self.stream: Stream | None = None
        self.gate = asyncio.Event()
        served.handle([("GET /{number}", self.answer)])

    async def answer(self, exchange: Exchange) -> Response:
        if exchange.parameters["number"] != "now":
            self.waiting += 1
            await self.gate.wait()
        return Response(200, [], self.stream or exchange.parameters["number"].encode() + self.large)

    def await_all(self, count: int = CLIENTS) -> None:
        deadline = time.monotonic() + SECONDS
        while self.waiting < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def release(self, and_then: Callable[[], object] = lambda: None, count: int = CLIENTS) -> None:
        """Let them go when they are all there, and do something else in the same turn."""
        self.await_all(count)

        def go() -> None:
            self.gate.set()
            self.served.loop.call_soon(and_then)  # behind their tasks, before what the tasks have called soon

        self.served.loop.call_soon_threadsafe(go)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(request.param)
    yield made
    made.close()


@pytest.fixture
def burst(served: Served) -> Burst:
    return Burst(served)


def ask(port: int, *paths: str, last: str = "keep-alive") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), SECONDS)
    for path in paths:
        ending = last if path == paths[-1] else "keep-alive"
        client.sendall(f"GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: {ending}\r\n\r\n".encode())
    return client


def answers(client: socket.socket, count: int) -> list[bytes]:
    """The bodies of so many responses, and nothing behind them."""
    data, found = b"", []
    while len(found) < count:
        head, between, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1]) if between else 0  # type: ignore[index]
        if between and len(rest) >= length:
            assert head.startswith(b"HTTP/1.1 200 ")
            found.append(rest[:length])
            data = rest[length:]
        else:
            piece = client.recv(1 << 16)
            assert piece, (found, data)
            data += piece
    assert data == b""
    return found


def ends(client: socket.socket) -> bool:
    return client.recv(1) == b""


def test_each_client_gets_its_own(burst: Burst) -> None:
    clients = [ask(burst.served.port, str(number)) for number in range(CLIENTS)]
    burst.release()
    for number, client in enumerate(clients):
        assert answers(client, 1) == [str(number).encode()]
        client.sendall(b"GET /again HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answers(client, 1) == [b"again"]
        client.close()


def test_what_a_client_pipelined_comes_in_its_order(burst: Burst) -> None:
    clients = [ask(burst.served.port, f"{number}a", f"{number}b", f"{number}c") for number in range(CLIENTS)]
    burst.release()
    for number, client in enumerate(clients):
        assert answers(client, 3) == [f"{number}{part}".encode() for part in "abc"]
        client.close()


def test_who_wants_no_other_is_answered_before_its_connection_is_closed(burst: Burst) -> None:
    clients = [ask(burst.served.port, str(number), last="close") for number in range(CLIENTS)]
    burst.release()
    for number, client in enumerate(clients):
        assert answers(client, 1) == [str(number).encode()] and ends(client)
        client.close()


def test_who_leaves_costs_nobody_else_an_answer(burst: Burst) -> None:
    clients = [ask(burst.served.port, str(number)) for number in range(CLIENTS)]
    for client in clients[::3]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client.close()
    burst.release()
    for number, client in enumerate(clients):
        if number % 3:
            assert answers(client, 1) == [str(number).encode()]
            client.close()


def test_who_leaves_and_wanted_more_is_no_fault(burst: Burst, caplog: pytest.LogCaptureFixture) -> None:
    clients = [ask(burst.served.port, "now", str(number), "more") for number in range(CLIENTS)]
    burst.await_all()  # the second of three, so that it is not the one that uvicorn tells
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client.close()
    time.sleep(0.02)
    burst.release()
    assert burst.served.client.get("/last").text == "last"
    assert caplog.text == ""


def test_a_stream_whose_client_left_before_its_head_is_closed(burst: Burst) -> None:
    burst.stream = Stream()
    client = ask(burst.served.port, "1")
    burst.await_all(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    client.close()
    time.sleep(0.02)
    burst.release(count=1)
    assert burst.stream.closed.wait(5)


def test_responses_that_fill_the_outbox_come_whole(burst: Burst) -> None:
    burst.large = bytes(60_000)
    clients = [ask(burst.served.port, str(number)) for number in range(CLIENTS)]
    burst.release()
    for number, client in enumerate(clients):
        assert answers(client, 1) == [str(number).encode() + burst.large]
        client.close()


def test_a_gateway_that_closes_meanwhile_answers_first(burst: Burst) -> None:
    clients = [ask(burst.served.port, str(number)) for number in range(CLIENTS)]
    (listener,) = burst.served.listeners._by_port.values()
    server = listener._server
    assert server is not None
    burst.release(lambda: [each.shutdown() for each in list(server.server_state.connections)])  # as uvicorn's end does
    for number, client in enumerate(clients):
        assert answers(client, 1) == [str(number).encode()] and ends(client)
        client.close()
