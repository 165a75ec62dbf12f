"""Throttling and concurrency, as values and through real HTTP."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from owsgit.gateway import throttle
from owsgit.gateway.app import wrapped
from owsgit.gateway.clients import network
from owsgit.gateway.exchange import Exchange, Response
from owsgit.gateway.limits import Rate
from owsgit.gateway.throttle import Bucket, ClientBuckets, InFlight, Meters, Pace, limited, throttled, too_many
from tests.gateway.served import Served
from tests.support.flood import flooding


def test_a_bucket_gives_its_burst_at_once_and_its_rate_in_the_long_run() -> None:
    bucket = Bucket(Rate(10, 3))
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 0.1]
    assert bucket.take(100.05) == pytest.approx(0.05)
    assert [bucket.take(100.0 + n / 10) == 0 for n in range(1, 100)] == [True] * 99
    assert [bucket.take(1000.0) == 0 for _ in range(4)] == [True, True, True, False], "no more than a burst is saved"
    assert bucket.take(999.0) > 0, "a clock that goes back gives nothing"


def test_other_numbers_do_not_refill_a_bucket() -> None:
    meters = Meters()
    bucket = meters.bucket("a", Rate(1, 2))
    assert bucket.take(5) == bucket.take(5) == 0
    assert meters.bucket("a", Rate(100, 3)) is bucket
    assert bucket.take(5) == 0 and bucket.take(5) == 0.01, "one more at once, a hundred more a second"
    meters.keep(["b"])
    assert meters.bucket("a", Rate(1, 2)) is not bucket


def test_a_flood_of_addresses_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "CLIENTS_MAX", 100)
    clients = ClientBuckets(Rate(1, 1))
    assert clients.take("192.0.2.1", 0) == 0
    for n in range(99):
        assert clients.take(f"198.51.100.{n}", 0) == 0
    assert clients.take("192.0.2.1", 0) > 0, "who comes again stays known"
    for n in range(99):
        clients.take(f"203.0.113.{n}", 0)
    assert len(clients) == 100 and clients.take("192.0.2.1", 0) > 0


def test_a_client_is_an_address_or_a_64_of_ipv6() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:2") == "2001:db8::/64"
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1"
    assert network("fe80::1%eth0") == "fe80::/64" and network("nonsense:") == "nonsense:"


async def hello(exchange: Exchange) -> Response:
    return Response(200, [], b"hello")


def test_what_is_too_fast_gets_429_and_is_told_when_to_come_again(gateway: Served) -> None:
    bucket = Bucket(Rate(0.001, 2))
    gateway.handle([("GET /a", wrapped(hello, [throttled(bucket)])), ("GET /b", hello)])
    answers = [gateway.client.get("/a") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json() == {"message": "Too Many Requests"}
    assert 900 < int(answers[2].headers["retry-after"]) <= 1000
    assert gateway.client.get("/b").status_code == 200
    gateway.handle([("GET /a", hello)], [throttle.throttled_by_client(ClientBuckets(Rate(0.001, 1)))])
    assert [gateway.client.get("/a").status_code for _ in range(2)] == [200, 429]


def test_a_full_route_refuses_and_leaves_the_others_alone(gateway: Served) -> None:
    waiting, go_on = threading.Semaphore(0), asyncio.Event()

    async def slow(exchange: Exchange) -> Response:
        waiting.release()
        await go_on.wait()
        return Response(200, [], b"")

    gateway.handle([("GET /slow", wrapped(slow, [limited(counted := InFlight(50))])), ("GET /fast", hello)])
    codes: list[int] = []

    def ask() -> None:
        codes.append(httpx.get(f"http://127.0.0.1:{gateway.port}/slow", timeout=30).status_code)

    askers = [threading.Thread(target=ask) for _ in range(50)]
    for asker in askers:
        asker.start()
    for _ in askers:
        assert waiting.acquire(timeout=20)
    refused = gateway.client.get("/slow")
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert [gateway.client.get("/fast").status_code for _ in range(20)] == [200] * 20
    gateway.loop.call_soon_threadsafe(go_on.set)
    for asker in askers:
        asker.join()
    assert codes == [200] * 50 and counted.count == 0
    assert gateway.client.get("/slow").status_code == 200


def test_the_first_refusals_are_answered_at_once_and_those_of_a_flood_are_held_back() -> None:
    pace = Pace()
    held = [pace.slowed(too_many(1), 10.0).held for _ in range(250)]
    assert max(held[:100]) < 1e-6 and held[100] == pytest.approx(0.01) and held[149] == pytest.approx(0.5)
    assert held[200:] == [1.0] * 50, "no longer than a client is told to wait"
    assert pace.slowed(too_many(1), 13.0).held == 0


def test_refusals_that_are_held_back_take_nobodys_place(gateway: Served) -> None:
    refused = wrapped(hello, [throttled(Bucket(Rate(0.001, 1)))])
    counted = InFlight(10)
    gateway.handle([("GET /flooded", refused), ("GET /fast", hello)], [limited(counted)])
    with flooding(gateway.port, "/flooded", 200) as statuses:
        answers = [gateway.client.get("/fast").status_code for _ in range(20)]
    assert answers == [200] * 20
    assert set(statuses) <= {"429", "503", "200"} and statuses["200"] == 1 and counted.count == 0
    assert sum(statuses.values()) < 2000, "each connection has an answer a second"


def test_a_refusal_is_held_back_for_nobody(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "REFUSALS_PER_SECOND", 1 / 60)
    monkeypatch.setattr(throttle, "HELD_SECONDS_MAX", 60.0)
    began, ended = threading.Event(), threading.Event()

    def observed(handler: Any) -> Any:
        async def handle(exchange: Exchange) -> Response:
            began.set()
            try:
                response: Response = await handler(exchange)
                return response
            finally:
                ended.set()

        return handle

    gateway.handle([("GET /", wrapped(hello, [limited(InFlight(0))]))], observers=[observed])
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert began.wait(10) and not ended.wait(0.1)
    assert ended.wait(10)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_streamed_response_counts_until_it_is_sent(gateway: Served, method: str) -> None:
    go_on = asyncio.Event()
    counted = InFlight(1)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await go_on.wait()
        yield b"two"

    async def streamed(exchange: Exchange) -> Response:
        return Response(200, [], pieces())

    gateway.handle([("ANY /", wrapped(streamed, [limited(counted)]))])
    with gateway.client.stream(method, "/") as answer:
        if method == "GET":
            assert next(answer.iter_raw()) == b"one" and counted.count == 1
            assert gateway.client.get("/").status_code == 503
        gateway.loop.call_soon_threadsafe(go_on.set)
        answer.read() if method == "HEAD" else None
    gateway.client.get("/nothing")
    for _ in range(100):
        if not counted.count:
            break
        gateway.do(asyncio.sleep(0.02))
    assert counted.count == 0


def test_what_fails_is_not_counted_for_ever() -> None:
    counted = InFlight(1)

    async def fails(exchange: Any) -> Response:
        raise ValueError

    async def unread(exchange: Any) -> Response:
        return Response(200, [], _endless())

    async def go() -> None:
        with contextlib.suppress(ValueError):
            await limited(counted)(fails)(None)  # type: ignore[arg-type]
        assert counted.count == 0
        response = await limited(counted)(unread)(None)  # type: ignore[arg-type]
        assert counted.count == 1
        response.body = b""  # as a step does that answers in its place
        assert counted.count == 0

    asyncio.run(go())


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
