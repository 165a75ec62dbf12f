"""A cache of responses, shared by all routes of a node that ask for one: bounded by bytes, the least used goes first.

What may be stored follows RFC 9111 for a shared cache; keys and invalidation follow API Gateway's
(https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-caching.html).
"""

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from owsgit.gateway.exchange import Exchange, Handler, Headers, RefusedError, Response

CACHE_BYTES_MAX = 64 * 1024 * 1024
"""Of a node, all its gateways together."""

ENTRY_BYTES = 1024
"""What an entry costs beside its body, its headers and its key."""

KEY_BYTES_MAX = 8192
"""Requests whose key is longer are not cached."""

STORED_BY_DEFAULT = (200, 203, 204, 300, 301, 308)
STORED_IF_TOLD = (302, 307, 404, 405, 410, 414, 501)
"""Only if the response says how long it is fresh."""

_SECONDS = re.compile(rb"(?:^|[\s,])(s-maxage|max-age)\s*=\s*\"?([0-9]{1,10})")
_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"})

_PASSED_BY = frozenset({b"range", b"if-match", b"if-unmodified-since", b"transfer-encoding"})
"""Requests with one of these, or with a body, which no key has a part of, are not answered from a cache."""

Key = tuple[object, ...]
Part = Callable[[Exchange], object]
"""One part of a key: what of a request it is."""


@dataclass
class Entry:
    """A stored response. `varies`, instead, are the names of the headers by which its place has several."""

    response: Response | None
    varies: tuple[bytes, ...]
    born: float
    expires: float
    size: int
    store: "Store"
    key: Key
    encoded: dict[str, bytes] = field(default_factory=dict)

    def get(self, name: str) -> bytes | None:
        return self.encoded.get(name)

    def put(self, name: str, body: bytes) -> None:
        if name not in self.encoded:
            self.encoded[name] = body
            self.store.grow(self, len(body))


class Store:
    """All entries. A key begins with the gateway's name and the fingerprint of the route."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self.size = 0
        self.flights: dict[Key, asyncio.Future[None]] = {}

    def get(self, key: Key, now: float) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            self.remove(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, response: Response | None, varies: tuple[bytes, ...], now: float, seconds: float) -> None:
        self.remove(key)
        size = ENTRY_BYTES + sum(len(part) for part in key if isinstance(part, str | bytes)) + len(varies) * 64
        if response is not None:
            assert isinstance(response.body, bytes)
            size += len(response.body) + sum(len(name) + len(value) + 100 for name, value in response.headers)
        self._entries[key] = entry = Entry(response, varies, now, now + seconds, 0, self, key)
        self.grow(entry, size)

    def grow(self, entry: Entry, size: int) -> None:
        """Count more bytes for an entry, and remove what was not used for longest until there is room."""
        if self._entries.get(entry.key) is not entry:
            return
        entry.size += size
        self.size += size
        while self.size > self._bytes_max and self._entries:
            self.remove(next(iter(self._entries)))

    def remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size

    def retain(self, api: str, fingerprints: Collection[str]) -> None:
        """Forget what a gateway has stored for routes that are not as they were."""
        for key in [key for key in self._entries if key[0] == api and key[1] not in fingerprints]:
            self.remove(key)


@dataclass(frozen=True)
class CacheRule:
    """How one route is cached."""

    api: str
    fingerprint: str  # of all that decides what the route answers
    ttl: float  # seconds
    parts: Sequence[Part]
    methods: frozenset[str]
    per_caller: bool
    keyed_headers: frozenset[bytes]
    bytes_max: int
    invalidation: Literal["ignore", "authorized", "allow"]


class Cached:
    """A step: answers from the store, and asks once for all who want the same at the same time."""

    def __init__(self, store: Store, rule: CacheRule) -> None:
        self._store, self._rule = store, rule

    def __call__(self, handler: Handler) -> Handler:
        async def answer(exchange: Exchange) -> Response:
            key = self._key(exchange)
            if key is None:
                return await handler(exchange)
            if b"max-age=0" in exchange.header(b"cache-control").replace(b" ", b"") and self._may_invalidate(exchange):
                self._store.remove(self._placed(key, exchange))
                return await self._ask(handler, exchange, key)
            return await self._shared(handler, exchange, key)

        return answer

    def _may_invalidate(self, exchange: Exchange) -> bool:
        rule = self._rule.invalidation
        return rule == "allow" or (rule == "authorized" and bool(exchange.authorizer or exchange.identity))

    def _key(self, exchange: Exchange) -> Key | None:
        """None for a request that is not answered from a cache."""
        rule = self._rule
        if exchange.method not in rule.methods:
            return None
        for name, value in exchange.headers:
            if name in _PASSED_BY or (name == b"content-length" and value != b"0"):
                return None
        mount = exchange.mount
        key = (
            rule.api,
            rule.fingerprint,
            mount.stage,
            exchange.method,
            exchange.scheme,
            exchange.host,
            *exchange.mount.base_path,
            "",
            *exchange.segments,
            *(part(exchange) for part in rule.parts),
            _caller(exchange) if rule.per_caller else "",
        )
        return key if sum(len(part) for part in key if isinstance(part, str)) <= KEY_BYTES_MAX else None

    def _placed(self, key: Key, exchange: Exchange) -> Key:
        """The key with the values of the headers that responses for it vary by."""
        entry = self._store.get(key, _now())
        if entry is None or not entry.varies:
            return key
        return (*key, *(_values(exchange, name) for name in entry.varies))

    async def _shared(self, handler: Handler, exchange: Exchange, key: Key) -> Response:
        flights = self._store.flights
        waited = False
        while True:
            now = _now()
            placed = self._placed(key, exchange)
            entry = self._store.get(placed, now)
            if entry is not None and entry.response is not None:
                exchange.facts["cache"] = "HIT"
                return _again(entry, now)
            flight = flights.get(placed)
            if flight is None or waited:  # what was waited for was not stored: nobody waits a second time
                break
            waited = True
            await asyncio.shield(flight)
        if flight is not None:
            return await self._ask(handler, exchange, key)
        flights[placed] = mine = asyncio.get_running_loop().create_future()
        try:
            return await self._ask(handler, exchange, key)
        finally:
            del flights[placed]
            mine.set_result(None)

    async def _ask(self, handler: Handler, exchange: Exchange, key: Key) -> Response:
        exchange.facts["cache"] = "MISS"
        # a condition is the client's: it is held against what is stored, not passed on
        exchange.replace_headers([pair for pair in exchange.headers if pair[0] not in _CONDITIONS])
        response = await handler(exchange)
        seconds = self._seconds(exchange, response)
        if seconds > 0 and await _is_whole(response, self._rule.bytes_max):
            self._keep(exchange, key, response, seconds)
        response.headers.append((b"x-cache", b"MISS"))
        return response

    def _keep(self, exchange: Exchange, key: Key, response: Response, seconds: float) -> None:
        now = _now()
        names = sorted({name.strip().lower() for name in response.header(b"vary").split(b",") if name.strip()})
        if names:
            known = self._store.get(key, now)
            names = sorted({*names, *(known.varies if known is not None else ())})
            self._store.put(key, None, tuple(names), now, max(seconds, self._rule.ttl))
            key = (*key, *(_values(exchange, name) for name in names))
        copy = Response(response.status, list(response.headers), response.body)
        self._store.put(key, copy, (), now, seconds)

    def _seconds(self, exchange: Exchange, response: Response) -> float:
        """For how long a response may be stored; 0 for not at all."""
        control = response.header(b"cache-control").lower()
        told = dict(reversed([(found[1], int(found[2])) for found in _SECONDS.finditer(control)]))
        fresh = told.get(b"s-maxage", told.get(b"max-age"))
        if response.status not in STORED_BY_DEFAULT and (response.status not in STORED_IF_TOLD or fresh is None):
            return 0
        if any(word in control for word in (b"no-store", b"private", b"no-cache")):
            return 0
        if any(name == b"set-cookie" or (name == b"vary" and b"*" in value) for name, value in response.headers):
            return 0
        shared = b"public" in control or b"s-maxage" in told  # RFC 9111 3.5
        if exchange.header(b"authorization") and not shared and not self._knows_the_caller(exchange):
            return 0
        return min(self._rule.ttl, fresh) if fresh is not None else self._rule.ttl

    def _knows_the_caller(self, exchange: Exchange) -> bool:
        """Whether a response to one caller's credentials is kept from the others, or need not be."""
        rule = self._rule
        if not rule.per_caller or b"authorization" in rule.keyed_headers:
            return True
        return bool(exchange.authorizer or exchange.identity)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _caller(exchange: Exchange) -> str:
    """Who was let in, as far as the gateway knows."""
    certificate = exchange.client.certificate
    if not exchange.authorizer and not exchange.identity and not certificate:
        return ""
    about = orjson.dumps([exchange.authorizer, exchange.identity], default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(about + certificate, digest_size=16).hexdigest()


def _values(exchange: Exchange, name: bytes) -> bytes:
    return b"\n".join(value for key, value in exchange.headers if key == name)


async def _is_whole(response: Response, bytes_max: int) -> bool:
    """Whether the body is small enough to be stored; one that is streamed, of a known length, is put together."""
    if response.length is None or response.length > bytes_max:
        return False
    if not isinstance(response.body, bytes):
        pieces = [piece async for piece in response.body]
        body = b"".join(pieces)
        if len(body) != response.length:
            raise RefusedError(502, "Bad Gateway", "INTEGRATION_FAILURE")
        response.body = body
    return len(response.body) <= bytes_max


def _again(entry: Entry, now: float) -> Response:
    response = entry.response
    assert response is not None
    headers: Headers = [pair for pair in response.headers if pair[0] != b"age"]
    headers += [(b"age", b"%d" % (now - entry.born + _age(response))), (b"x-cache", b"HIT")]
    found = Response(response.status, headers, response.body)
    found.variants = entry
    return found


def _age(response: Response) -> int:
    value = response.header(b"age")
    return int(value) if value.isdigit() and len(value) < 10 else 0
