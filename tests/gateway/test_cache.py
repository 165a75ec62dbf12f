"""Cached and conditional responses through real HTTP."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from owsgit.gateway.cache import ENTRY_BYTES, Store
from owsgit.gateway.compression import Compression
from owsgit.gateway.exchange import Exchange, Handler, Headers, Response
from owsgit.services.gateways import caching
from owsgit.services.gateways.caching import CacheSpec
from tests.gateway.served import Served


class Origin:
    """A route that counts its requests."""

    def __init__(self, gateway: Served) -> None:
        self.gateway, self.store = gateway, Store()
        self.count, self.status, self.body = 0, 200, b"x"
        self.headers: Headers = [(b"content-type", b"text/plain")]
        self.seen: Headers = []
        self.wait: asyncio.Event | None = None
        self.asked = threading.Event()
        self.streams = False

    def serve(self, spec: dict[str, Any] | None = None, *, etag: bool = False, around: Callable[[Handler], Handler] | None = None, print_: str = "p") -> None:  # fmt: skip
        found = CacheSpec.model_validate(spec) if spec is not None else None
        steps = caching.steps(found, etag, self.store, "api", print_)
        handler: Handler = self.answer
        for step in reversed(steps):
            handler = step(handler)
        handler = around(handler) if around else handler
        self.gateway.handle([("ANY /", handler), ("ANY /{id}", handler)], [Compression(1024, ("br", "gzip"))])

    async def answer(self, exchange: Exchange) -> Response:
        self.count += 1
        self.seen = exchange.headers
        self.asked.set()
        if self.wait is not None:
            await self.wait.wait()
        body = self.body
        if self.streams:

            async def pieces() -> AsyncIterator[bytes]:
                yield body[:1]
                yield body[1:]

            return Response(self.status, list(self.headers), pieces(), len(body))
        return Response(self.status, list(self.headers), body)

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        return self.gateway.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def origin(gateway: Served) -> Iterator[Origin]:
    yield Origin(gateway)


def test_a_response_is_answered_again(origin: Origin) -> None:
    origin.serve({"ttl": 60})
    first, second = origin.get(), origin.get()
    assert origin.count == 1 and first.content == second.content == b"x"
    assert first.headers["x-cache"] == "MISS" and "age" not in first.headers
    assert second.headers["x-cache"] == "HIT" and second.headers["age"] == "0"
    assert first.headers["apigw-requestid"] != second.headers["apigw-requestid"]
    assert len(second.headers.get_list("apigw-requestid")) == 1
    origin.gateway.client.post("/")
    origin.gateway.client.head("/")
    assert origin.count == 3


def test_what_tells_requests_apart(origin: Origin) -> None:
    origin.serve({"ttl": 60})
    for path in ("/?a=1", "/?a=2", "/b", "/b%2Fc", "/?a=1", "/b"):
        origin.get(path)
    assert origin.count == 4
    origin.get("/b", host="other.example")
    assert origin.count == 5
    origin.serve({"ttl": 60, "key": ["method.request.querystring.a", "header.accept-language", "path.id"]}, print_="q")
    origin.count = 0
    for path, language in [("/?a=1&b=1", "de"), ("/?b=2&a=1", "de"), ("/?a=1", "fr"), ("/?a=2", "de"), ("/?a=1&a=1", "de")]:  # fmt: skip
        origin.get(path, accept_language=language)
    assert origin.count == 4


@pytest.mark.parametrize(
    ("status", "headers", "stored"),
    [
        (200, {}, True),
        (200, {"set-cookie": "a=1"}, False),
        (200, {"cache-control": "private"}, False),
        (200, {"cache-control": "max-age=9, no-store"}, False),
        (200, {"cache-control": "no-cache"}, False),
        (200, {"cache-control": "max-age=0"}, False),
        (200, {"cache-control": "max-age=0, s-maxage=9"}, True),
        (200, {"vary": "*"}, False),
        (500, {}, False),
        (404, {}, False),
        (404, {"cache-control": "max-age=9"}, True),
        (206, {}, False),
    ],
)
def test_what_is_stored(origin: Origin, status: int, headers: dict[str, str], stored: bool) -> None:
    origin.status = status
    origin.headers += [(name.encode(), value.encode()) for name, value in headers.items()]
    origin.serve({"ttl": 60})
    assert [origin.get().status_code for _ in range(2)] == [status, status]
    assert origin.count == (1 if stored else 2)


def test_vary_is_respected(origin: Origin) -> None:
    origin.headers.append((b"vary", b"Accept-Language"))
    origin.serve({"ttl": 60})
    for language in ("de", "fr", "de", "fr"):
        origin.get(accept_language=language)
    assert origin.count == 2


def test_an_entry_ends(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("owsgit.gateway.cache._now", lambda: now[0])
    origin.headers.append((b"cache-control", b"max-age=10"))
    origin.serve({"ttl": 60})
    origin.get()
    now[0] += 9
    assert origin.get().headers["age"] == "9"
    now[0] += 2
    assert origin.get().headers["x-cache"] == "MISS" and origin.count == 2


@pytest.mark.parametrize(("rule", "count"), [("ignore", 1), ("allow", 2), ("authorized", 1)])
def test_who_may_have_it_fetched_anew(origin: Origin, rule: str, count: int) -> None:
    origin.serve({"ttl": 60, "invalidation": rule})
    origin.get()
    origin.get(cache_control="max-age=0")
    assert origin.count == count


def test_callers_share_nothing_that_is_theirs(origin: Origin) -> None:
    origin.serve({"ttl": 60})
    for who in ("a", "b", "a"):  # the gateway does not know them: what their credentials brought is not stored
        origin.get(authorization=who)
    assert origin.count == 3

    def let_in(handler: Handler) -> Handler:
        async def answer(exchange: Exchange) -> Response:
            exchange.authorizer = {"principalId": exchange.header(b"authorization").decode()}
            return await handler(exchange)

        return answer

    for per_caller, count in ((True, 2), (False, 1)):
        origin.count, origin.store = 0, Store()
        origin.serve({"ttl": 60, "perAuthorizer": per_caller, "invalidation": "authorized"}, around=let_in)
        for who in ("a", "b", "a"):
            origin.get(authorization=who)
        assert origin.count == count
        origin.get(authorization="a", cache_control="max-age=0")
        assert origin.count == count + 1


def test_one_asks_for_all(origin: Origin) -> None:
    origin.wait = asyncio.Event()
    origin.serve({"ttl": 60})
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(httpx.get, f"http://127.0.0.1:{origin.gateway.port}/") for _ in range(8)]
        assert origin.asked.wait(10)
        origin.gateway.loop.call_soon_threadsafe(origin.wait.set)
        assert {each.result().content for each in asked} == {b"x"}
    assert origin.count == 1
    origin.headers.append((b"set-cookie", b"a=1"))  # not stored: then each asks, and none after the other
    origin.store, origin.count = Store(), 0
    origin.serve({"ttl": 60})
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(httpx.get, f"http://127.0.0.1:{origin.gateway.port}/") for _ in range(4)]
        assert {each.result().status_code for each in asked} == {200}
    assert origin.count == 4 and not origin.store.flights


def test_memory_is_bounded_and_the_least_used_goes(origin: Origin) -> None:
    origin.body = b"x" * 10_000
    origin.store = Store(40_000)
    origin.serve({"ttl": 60})
    for path in ("/a", "/b", "/c", "/a", "/d", "/a", "/b"):
        origin.get(path)
    assert origin.count == 5 and origin.store.size <= 40_000
    origin.serve({"ttl": 60, "maxBytes": 9999}, print_="small")
    for _ in range(2):
        origin.get("/z")
    assert origin.count == 7
    origin.store.retain("api", {"small"})
    assert origin.store.size == 0
    origin.body = b""
    origin.get("/z")
    assert ENTRY_BYTES <= origin.store.size < 2 * ENTRY_BYTES


def test_streams_of_a_known_length_are_stored(origin: Origin) -> None:
    origin.streams, origin.body = True, b"whole"
    origin.serve({"ttl": 60}, etag=True)
    assert [origin.get().content for _ in range(2)] == [b"whole"] * 2 and origin.count == 1


def test_a_cached_response_is_compressed_once(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    origin.body = json.dumps(list(range(1000))).encode()
    origin.serve({"ttl": 60}, etag=True)
    assert origin.get(accept_encoding="br").headers["content-encoding"] == "br"
    size = origin.store.size
    assert origin.get(accept_encoding="br").content == origin.body and size < origin.store.size < size + len(
        origin.body
    )
    monkeypatch.setattr("owsgit.gateway.encodings.encode", lambda encoding, data: 1 / 0)
    found = origin.get(accept_encoding="br")
    assert found.content == origin.body and found.headers["x-cache"] == "HIT"
    tag = found.headers["etag"]
    again = origin.get(accept_encoding="br", if_none_match=tag)
    assert tag.startswith("W/") and again.status_code == 304 and again.headers["etag"] == tag and origin.count == 1


@pytest.mark.parametrize("cached", [False, True])
def test_etags(origin: Origin, cached: bool) -> None:
    origin.serve({"ttl": 60} if cached else None, etag=True)
    found = origin.get()
    tag = found.headers["etag"]
    assert tag.startswith('"') and origin.get().headers["etag"] == tag
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = origin.get(if_none_match=condition)
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"].endswith(tag)
        assert "content-type" not in again.headers
    assert origin.get(if_none_match='"other"').status_code == 200
    assert not cached or origin.count == 1
    origin.store, origin.body = Store(), b"y"
    origin.serve({"ttl": 60} if cached else None, etag=True)
    assert origin.get(if_none_match=tag).status_code == 200  # the condition does not reach what is asked
    assert not cached or b"if-none-match" not in dict(origin.seen)
    origin.status = 500
    assert "etag" not in origin.get("/failing").headers


def test_modification_times(origin: Origin) -> None:
    origin.headers.append((b"last-modified", b"Wed, 21 Oct 2015 07:28:00 GMT"))
    origin.serve({"ttl": 60})
    for since, status in [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 304),
        ("Thu, 22 Oct 2015 07:28:00 GMT", 304),
        ("Tue, 20 Oct 2015 07:28:00 GMT", 200),
        ("yesterday", 200),
    ]:
        assert origin.get(if_modified_since=since).status_code == status
    assert origin.get(if_modified_since="Thu, 22 Oct 2015 07:28:00 GMT", if_none_match='"x"').status_code == 200
    assert origin.count == 1


def test_ranges_and_bodies_pass_by(origin: Origin) -> None:
    origin.serve({"ttl": 60})
    origin.get()
    origin.get(range="bytes=0-1")
    origin.gateway.client.request("GET", "/", content=b"a body")  # no key has a part of it
    assert origin.count == 3
