"""API keys and their plans: whom they let through, how fast and how often."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from owsgit.gateway import context
from owsgit.gateway.api_keys import Count, KeySpec, Plan, Quota, UsagePlans, asked_for_key
from owsgit.gateway.app import wrapped
from owsgit.gateway.exchange import Exchange, Handler, Response
from owsgit.gateway.limits import Rate
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.services.gateways import usage
from owsgit.services.gateways.usage import Usage
from owsgit.services.gateways.usage_plans import UsagePlanSpec
from tests.gateway.served import Served

STAGES = frozenset({("api", "$default")})


def key(name: str, enabled: bool = True) -> KeySpec:
    return KeySpec(hashlib.sha256(name.encode()).digest(), enabled)


async def show(exchange: Exchange) -> Response:
    return Response(200, [], f"{exchange.identity['apiKey']} {exchange.identity['apiKeyId']}".encode())


class Keyed:
    def __init__(self, gateway: Served) -> None:
        self.gateway, self.plans = gateway, UsagePlans()
        self.counts: dict[str, Count] = {}
        gateway.handle(
            [
                (route, wrapped(show, [asked_for_key(self.plans, "api", "$default", route, by_authorizer=False)]))
                for route in ("GET /a", "GET /b")
            ]
        )

    def put(self, plan: Plan) -> None:
        self.plans.put(plan, lambda name: self.counts.setdefault(name, Count()))

    def get(self, path: str = "/a", key: str = "ann's") -> httpx.Response:
        return self.gateway.client.get(path, headers={"x-api-key": key} if key else {})


@pytest.fixture
def keyed(gateway: Served) -> Iterator[Keyed]:
    yield Keyed(gateway)


def test_a_key_is_good_for_the_stages_of_its_plan_while_it_is_enabled(keyed: Keyed) -> None:
    assert keyed.get().status_code == 403
    keyed.put(Plan("p", {"ann": key("ann's"), "bob": key("bob's", False)}, STAGES))
    assert keyed.get().text == "ann's p/ann"
    for wrong in ("", "bob's", "ann", "x" * 1000):
        refused = keyed.get(key=wrong)
        assert (refused.status_code, refused.json()) == (403, {"message": "Forbidden"})
    keyed.put(Plan("p", {"ann": key("ann's")}, frozenset({("api", "prod")})))
    assert keyed.get().status_code == 403


def test_a_key_may_move_to_another_plan_in_any_order(keyed: Keyed) -> None:
    keyed.put(Plan("p", {"ann": key("ann's")}, STAGES))
    keyed.put(Plan("q", {"ann": key("ann's")}, STAGES))
    keyed.put(Plan("p", {}, STAGES))
    assert keyed.get().text == "ann's q/ann"
    keyed.plans.remove("q")
    assert keyed.get().status_code == 403


def test_each_key_has_rates_of_its_own_and_routes_may_have_others(keyed: Keyed) -> None:
    slow, rates = Rate(0.001, 2), {("api", "$default", "GET /b"): Rate(0.001, 1)}
    plan = Plan("p", {"ann": key("ann's"), "bob": key("bob's")}, STAGES, slow, rates)
    keyed.put(plan)
    assert [keyed.get().status_code for _ in range(3)] == [200, 200, 429]
    assert [keyed.get("/b").status_code for _ in range(2)] == [200, 429]
    assert keyed.get(key="bob's").status_code == 200
    keyed.put(plan)
    refused = keyed.get()
    assert refused.json() == {"message": "Too Many Requests"}, "a deployment refills nothing"


def test_a_quota_is_used_up_and_what_is_throttled_uses_nothing(keyed: Keyed) -> None:
    keyed.put(Plan("p", {"ann": key("ann's")}, STAGES, Rate(0.001, 2), {}, Quota(3, "DAY")))
    assert [keyed.get().status_code for _ in range(3)] == [200, 200, 429]
    keyed.put(Plan("p", {"ann": key("ann's")}, STAGES, None, {}, Quota(3, "DAY")))
    assert [keyed.get().status_code for _ in range(2)] == [200, 429]
    refused = keyed.get()
    assert refused.json() == {"message": "Limit Exceeded"} and 0 < int(refused.headers["retry-after"]) <= 86401
    keyed.counts["ann"].end = keyed.counts["ann"].begin = 0  # the day is over
    assert keyed.get().status_code == 200 and keyed.counts["ann"].used == 1


def test_whose_requests_are_refused_is_known(keyed: Keyed) -> None:
    seen: list[Any] = []

    def step(handler: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            try:
                return await handler(exchange)
            finally:
                seen.append(context.value(exchange, "identity.apiKeyId"))

        return handle

    asked = asked_for_key(keyed.plans, "api", "$default", "GET /a", by_authorizer=False)
    keyed.gateway.handle([("GET /a", wrapped(show, [step, asked]))])
    keyed.put(Plan("p", {"ann": key("ann's")}, STAGES, Rate(0.001, 1), {}))
    assert [keyed.get(key=each).status_code for each in ("ann's", "ann's", "nobody's")] == [200, 429, 403]
    assert seen == ["p/ann", "p/ann", None]


@pytest.mark.parametrize(
    ("quota", "now", "begin", "end"),
    [
        (Quota(1, "DAY"), "2026-02-28T23:59:59", "2026-02-28", "2026-03-01"),
        (Quota(1, "WEEK"), "2026-11-24T12:00:00", "2026-11-22", "2026-11-29"),  # from Sunday
        (Quota(1, "WEEK"), "2026-11-22T00:00:00", "2026-11-22", "2026-11-29"),
        (Quota(1, "WEEK", 1), "2026-11-22T23:00:00", "2026-11-16", "2026-11-23"),  # from Monday
        (Quota(1, "WEEK", 6), "2026-11-24T12:00:00", "2026-11-21", "2026-11-28"),
        (Quota(1, "MONTH"), "2026-12-31T12:00:00", "2026-12-01", "2027-01-01"),
        (Quota(1, "MONTH", 27), "2026-03-01T12:00:00", "2026-02-28", "2026-03-28"),
        (Quota(1, "MONTH", 14), "2026-01-14T12:00:00", "2025-12-15", "2026-01-15"),
        (Quota(1, "MONTH", 14), "2026-01-15T00:00:00", "2026-01-15", "2026-02-15"),
    ],
)
def test_periods_begin_on_the_day_that_is_said(quota: Quota, now: str, begin: str, end: str) -> None:
    found = quota.span(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp())
    assert tuple(datetime.fromtimestamp(each, UTC).isoformat()[:10] for each in found) == (begin, end)


def test_counts_are_kept_and_a_disk_that_is_full_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "WRITE_SECONDS", 0.01)
    path = tmp_path / "usage.db"
    quota = Quota(10, "MONTH")
    now = datetime.now(UTC).timestamp()

    def kept() -> list[tuple[str, str, int]]:
        with sqlite3.connect(path) as database:
            return database.execute("SELECT plan, key, used FROM usage").fetchall()

    async def go() -> None:
        counts = Usage(path)
        counts.open()
        count = counts.count("p", "ann")
        count.turn(quota, now)
        count.used = 3
        counts.changed("p", "ann")
        for _ in range(500):
            if kept():
                break
            await asyncio.sleep(0.01)
        assert kept() == [("p", "ann", 3)]
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        assert counts._database is not None
        counts._database.execute("PRAGMA busy_timeout = 0")
        count.used = 4
        counts.changed("p", "ann")
        await asyncio.sleep(0.05)
        lock.execute("ROLLBACK")
        lock.close()
        await counts.close()
        assert kept() == [("p", "ann", 4)]
        again = Usage(path)
        again.open()
        count = again.count("p", "ann")
        count.turn(quota, now)
        assert count.used == 4
        count.turn(Quota(10, "DAY"), now + 86400 * 2)
        assert count.used == 0
        await again.close()
        other = tmp_path / "other.db"
        other.write_bytes(b"not a database, but something else" * 100)
        with pytest.raises(UnavailableError, match="usage of API keys cannot be read"):
            Usage(other).open()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ('{"quota": {"limit": 1, "period": "DAY", "offset": 1}}', "the offset of a DAY is 0, not 1"),
        ('{"quota": {"limit": 1, "period": "WEEK", "offset": 7}}', "0 to 6, not 7"),
        ('{"apis": [{"gateway": "a"}, {"gateway": "a", "stage": "$default"}]}', "again: remove one"),
        ('{"keys": {"ann": {"sha256": "HASH"}, "bob": {"sha256": "HASH"}}}', "are the same"),
        ('{"keys": {"ann": {"sha256": "secret"}}}', "$.keys.ann.sha256"),
        ('{"apis": [{"gateway": "a", "throttle": {"x": {"rate": 1, "burst": 1}}}]}', "not 'METHOD /path'"),
    ],
)
def test_a_mistake_in_a_plan_is_told(document: str, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        UsagePlanSpec.parse(document.replace("HASH", "0" * 64).encode(), "usageplans/p.json")
    assert told in str(caught.value)
