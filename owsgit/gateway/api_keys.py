"""API keys: who may call a stage, how fast, and how often in a day, a week or a month.

A plan says it for its keys; only hashes of them are known here. Plans and gateways come and go in any order.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response, Step
from owsgit.gateway.limits import Rate
from owsgit.gateway.throttle import Bucket, Pace, too_many

HEADER = b"x-api-key"
Period = Literal["DAY", "WEEK", "MONTH"]


@dataclass(frozen=True)
class Quota:
    """At most `limit` requests in each period. `offset` is the day on which a week (0: Sunday) or month (0: the first)
    begins, in UTC.

    AWS's reference has described it as this and as requests that are subtracted from the first period's limit
    (QuotaSettings). What it takes speaks for days, and so does Terraform: 0 of a DAY, 0 to 6 of a WEEK, 0 to 27 of a
    MONTH.
    """

    limit: int
    period: Period
    offset: int = 0

    def span(self, now: float) -> tuple[float, float]:
        """The period that `now` is in: its begin and its end, in seconds since 1970."""
        today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "DAY":
            return today.timestamp(), (today + timedelta(days=1)).timestamp()
        if self.period == "WEEK":
            begin = today - timedelta(days=(today.isoweekday() - self.offset) % 7)
            return begin.timestamp(), (begin + timedelta(days=7)).timestamp()
        first = today - timedelta(days=self.offset)  # as if the month began on its first day
        begin = first.replace(day=1) + timedelta(days=self.offset)
        following = (first.replace(day=1) + timedelta(days=32)).replace(day=1) + timedelta(days=self.offset)
        return begin.timestamp(), following.timestamp()


@dataclass
class Count:
    """What a key has used of its quota, in the period from `begin` to `end`."""

    used: int = 0
    begin: float = 0.0
    end: float = 0.0

    def turn(self, quota: Quota, now: float) -> None:
        """Begin anew if the period is over, or another."""
        begin, self.end = quota.span(now)
        if begin != self.begin:
            self.begin, self.used = begin, 0


@dataclass(frozen=True)
class KeySpec:
    """One key of a plan."""

    digest: bytes  # SHA-256 of the key
    enabled: bool


@dataclass(frozen=True)
class Plan:
    """What a usage plan says. `rates` are those of single routes, by gateway, stage and route key."""

    name: str
    keys: Mapping[str, KeySpec]
    stages: frozenset[tuple[str, str]]  # gateway, stage
    rate: Rate | None = None
    rates: Mapping[tuple[str, str, str], Rate] = field(default_factory=dict)
    quota: Quota | None = None


class Key:
    """A key that is in use: what it may, and what it has used. It outlives its plan's changes."""

    def __init__(self, name: str, count: Count) -> None:
        self.name, self.count = name, count
        self.enabled = False
        self.plan: Plan = _NO_PLAN
        self._bucket: Bucket | None = None
        self._pace = Pace()
        self._buckets: dict[tuple[str, str, str], Bucket] = {}

    def change(self, plan: Plan, enabled: bool) -> None:
        self.plan, self.enabled = plan, enabled
        self._bucket = _changed(self._bucket, plan.rate) if plan.rate is not None else None
        self._buckets = {place: _changed(self._buckets.get(place), rate) for place, rate in plan.rates.items()}
        if plan.quota is not None:
            self.count.turn(plan.quota, time.time())

    def admit(self, place: tuple[str, str, str], now: float) -> bool:
        """Take one request to a route: whether it counts towards a quota. Raises RefusedError. `now` is the event
        loop's time."""
        bucket = self._buckets.get(place, self._bucket)
        if bucket is not None and (wait := bucket.take(now)):
            raise self._pace.slowed(too_many(wait), now)
        quota = self.plan.quota
        if quota is None:
            return False
        count, today = self.count, time.time()
        if not count.begin <= today < count.end:
            count.turn(quota, today)
        if count.used >= quota.limit:
            after = (b"retry-after", b"%d" % (count.end - today + 1))
            raise self._pace.slowed(RefusedError(429, "Limit Exceeded", "QUOTA_EXCEEDED", [after]), now)
        count.used += 1
        return True


def _changed(bucket: Bucket | None, rate: Rate) -> Bucket:
    if bucket is None:
        return Bucket(rate)
    if bucket.rate != rate:
        bucket.change(rate)
    return bucket


class UsagePlans:
    """All plans of a node and their keys, for its gateways."""

    def __init__(self) -> None:
        self._plans: dict[str, dict[bytes, Key]] = {}
        self._by_digest: dict[bytes, Key] = {}
        self.counted: Callable[[Key], None] = lambda key: None
        """Told of every request that counts towards a quota."""

    def put(self, plan: Plan, count: Callable[[str], Count]) -> None:
        """Have a plan, in place of what it was. `count` gives what a key, by its name, has used."""
        before = self._plans.pop(plan.name, {})
        now: dict[bytes, Key] = {}
        for name, spec in plan.keys.items():
            known = before.get(spec.digest)
            key = known if known is not None and known.name == name else Key(name, count(name))
            key.change(plan, spec.enabled)
            now[spec.digest] = key
        self._forget(before, but=now)
        self._plans[plan.name] = now
        self._by_digest.update(now)

    def remove(self, name: str) -> None:
        self._forget(self._plans.pop(name, {}), but={})

    def _forget(self, keys: Mapping[bytes, Key], but: Mapping[bytes, Key]) -> None:
        for digest, key in keys.items():
            if digest not in but and self._by_digest.get(digest) is key:  # else it is in another plan by now
                del self._by_digest[digest]

    def keys(self, name: str) -> list[Key]:
        """The keys of a plan."""
        return list(self._plans.get(name, {}).values())

    def has(self, name: str) -> bool:
        return name in self._plans

    def find(self, api: str, stage: str, key: bytes) -> Key | None:
        """The key, if it is good for a stage."""
        found = self._by_digest.get(hashlib.sha256(key).digest())
        return found if found is not None and found.enabled and (api, stage) in found.plan.stages else None

    def problem(self, api: str, stage: str, key: bytes) -> str:
        """Why a key, which may be empty, is not good for a stage."""
        if not key:
            return "there is no API key (x-api-key)"
        found = self._by_digest.get(hashlib.sha256(key).digest())
        if found is None:
            return "no usage plan has this API key"
        name = f"the API key {found.name} of the usage plan {found.plan.name}"
        return f"{name} is not enabled" if not found.enabled else f"{name} is not for the stage {stage} of {api}"


def asked_for_key(plans: UsagePlans, api: str, stage: str, route_key: str, *, by_authorizer: bool) -> Step:
    """Let through what comes with a good API key: in x-api-key, or as what an authorizer gave (usageIdentifierKey)."""
    place = api, stage, route_key

    def step(handler: Handler) -> Handler:
        def handle(exchange: Exchange) -> Awaitable[Response]:
            given = str(exchange.identity.get("apiKey", "")).encode() if by_authorizer else exchange.header(HEADER)
            key = plans.find(api, stage, given) if given else None
            if key is None:
                raise RefusedError(403, "Forbidden", "INVALID_API_KEY")
            # before it is admitted: the access log tells whose requests are refused
            exchange.identity["apiKey"] = given.decode("latin-1")
            exchange.identity["apiKeyId"] = f"{key.plan.name}/{key.name}"
            if key.admit(place, exchange.began):
                plans.counted(key)
            return handler(exchange)

        return handle

    return step


_NO_PLAN = Plan("", {}, frozenset())
