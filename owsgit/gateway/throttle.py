"""Throttling as API Gateway does it, by token buckets: `rate` requests a second in the long run, `burst` at once.

A bucket outlives the deployment that uses it. Each node counts its own requests.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-request-throttling.html
"""

import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable

from owsgit.gateway.clients import network
from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response, Step
from owsgit.gateway.limits import RETRY_SECONDS, Rate

CLIENTS_MAX = 10_000
"""Whose buckets are kept, some 3 MB of them: whoever has not been seen for longest is forgotten first."""

RETRY_SECONDS_MAX = 3600
REFUSALS_PER_SECOND = 100
"""Answered at once, and as many more after a pause: then clients do not wait as they are told, and are made to."""

HELD_SECONDS_MAX = float(RETRY_SECONDS)
_ONE = 1.0 - 1e-6
"""A token, but for what adding up its parts loses."""


class Bucket:
    """One token bucket. It does not look at the clock: whoever takes a token says what time it is, in seconds."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._at = -math.inf

    def change(self, rate: Rate) -> None:
        """Go on with other numbers; what is taken stays taken."""
        self._tokens = max(0.0, self._tokens + rate.burst - self.rate.burst)
        self.rate = rate

    def take(self, now: float) -> float:
        """Take a token: 0 if there is one, else the seconds until there will be."""
        rate = self.rate
        tokens = self._tokens
        if now > self._at:
            tokens = min(tokens + (now - self._at) * rate.rate, rate.burst)
            self._at = now
        if tokens >= _ONE:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / rate.rate


class ClientBuckets:
    """A bucket for every client, in bounded memory."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def change(self, rate: Rate) -> None:
        self._rate = rate
        for bucket in self._buckets.values():
            bucket.change(rate)

    def take(self, address: str, now: float) -> float:
        """As Bucket.take, of the client at an address."""
        client = network(address)
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = Bucket(self._rate)
            if len(self._buckets) > CLIENTS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._buckets)


class Pace:
    """When refusals are answered: the first at once, those of a flood so slowly that they cost the others nothing.

    A client that asks again as soon as it is refused would have all of the node's time, as nothing is quicker answered.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = -math.inf

    def slowed(self, refusal: RefusedError, now: float) -> RefusedError:
        """The refusal, with the time that its answer is held back."""
        at = max(self._next, now - 1.0) + 1 / REFUSALS_PER_SECOND
        self._next = min(at, now + HELD_SECONDS_MAX)
        refusal.held = max(0.0, self._next - now)
        return refusal


class InFlight:
    """How many requests are on their way through something."""

    __slots__ = ("count", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0


class Meters:
    """The buckets and counts of a gateway, by what they are for: what outlives its deployments."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Bucket | ClientBuckets | InFlight] = {}

    def bucket(self, key: Hashable, rate: Rate) -> Bucket:
        bucket = self._made.get(("bucket", key))
        if isinstance(bucket, Bucket):
            if bucket.rate != rate:
                bucket.change(rate)
        else:
            bucket = self._made["bucket", key] = Bucket(rate)
        return bucket

    def clients(self, key: Hashable, rate: Rate) -> ClientBuckets:
        clients = self._made.get(("clients", key))
        if isinstance(clients, ClientBuckets):
            clients.change(rate)
        else:
            clients = self._made["clients", key] = ClientBuckets(rate)
        return clients

    def in_flight(self, key: Hashable, most: int) -> InFlight:
        counted = self._made.get(("in flight", key))
        if isinstance(counted, InFlight):
            counted.most = most
        else:
            counted = self._made["in flight", key] = InFlight(most)
        return counted

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forget what is for anything else."""
        kept = set(keys)
        for name in [name for name in self._made if name[1] not in kept]:  # type: ignore[index]
            del self._made[name]


def too_many(seconds: float) -> RefusedError:
    """`seconds` until it makes sense to try again."""
    after = min(max(1, math.ceil(seconds)), RETRY_SECONDS_MAX)
    return RefusedError(429, "Too Many Requests", "THROTTLED", [(b"retry-after", b"%d" % after)])


def throttled(bucket: Bucket) -> Step:
    """Refuse what comes faster than a bucket allows."""
    pace = Pace()

    def step(handler: Handler) -> Handler:
        def handle(exchange: Exchange) -> Awaitable[Response]:  # no coroutine of its own: this is on every request
            if wait := bucket.take(exchange.began):
                raise pace.slowed(too_many(wait), exchange.began)
            return handler(exchange)

        return handle

    return step


def throttled_by_client(buckets: ClientBuckets) -> Step:
    """Refuse what one client sends faster than its bucket allows."""
    pace = Pace()

    def step(handler: Handler) -> Handler:
        def handle(exchange: Exchange) -> Awaitable[Response]:
            if wait := buckets.take(exchange.client.address, exchange.began):
                raise pace.slowed(too_many(wait), exchange.began)
            return handler(exchange)

        return handle

    return step


def limited(counted: InFlight) -> Step:
    """Refuse what comes while too many requests are on their way; one is until its response is sent."""
    pace = Pace()

    def step(handler: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            if counted.count >= counted.most:
                full = RefusedError(503, "Service Unavailable", headers=[(b"retry-after", b"%d" % RETRY_SECONDS)])
                raise pace.slowed(full, exchange.began)
            counted.count += 1
            streams = False
            try:
                response = await handler(exchange)
                if not isinstance(response.body, bytes):
                    response.body = _Counted(response.body, counted)
                    streams = True
                return response
            finally:
                if not streams:
                    counted.count -= 1

        return handle

    return step


class _Counted:
    """The pieces of a response, whose request is on its way until they are at an end or closed, begun or not."""

    def __init__(self, pieces: AsyncIterator[bytes], counted: InFlight) -> None:
        self._pieces = pieces
        self._counted: InFlight | None = counted

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except BaseException:
            self._leave()
            raise

    async def aclose(self) -> None:
        self._leave()
        close: Callable[[], Awaitable[None]] | None = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    def _leave(self) -> None:
        if self._counted is not None:
            self._counted.count -= 1
            self._counted = None

    def __del__(self) -> None:
        self._leave()
