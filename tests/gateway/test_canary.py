"""Canary releases: which side answers, and what is known of both."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from owsgit.cli.status import _canaries
from owsgit.gateway.canary import CanaryIntegration, Releases, Side
from owsgit.gateway.exchange import ClientGoneError, Exchange, Handler, RefusedError, Response
from owsgit.model.errors import InvalidError
from owsgit.services.gateways.canary import CanarySpec
from owsgit.services.gateways.spec import GatewaySpec
from tests.gateway.served import Served


def answers(status: int, word: bytes) -> Handler:
    async def handler(exchange: Exchange) -> Response:
        if status == 503:
            raise RefusedError(503, "Service Unavailable")
        return Response(status, [], word)

    return handler


def canary(**fields: Any) -> CanarySpec:
    return CanarySpec.model_validate({"function": "f@" + "a" * 40, **fields})


@pytest.fixture
def releases() -> Releases:
    return Releases()


def served(
    gateway: Served, releases: Releases, spec: CanarySpec, bad: int = 500, draws: tuple[float, ...] = ()
) -> None:
    drawn = iter(draws)
    release = releases.of(("api", "$default", "GET /"), (1, spec.function))
    handler = CanaryIntegration(
        answers(200, b"main"),
        answers(bad, b"canary"),
        spec.percent_traffic,
        spec.patterns(),
        release,
        lambda: next(drawn),
    )
    gateway.handle([("GET /", handler)])


def test_a_share_of_the_requests_goes_to_the_canary_and_both_are_told_of(gateway: Served, releases: Releases) -> None:
    served(gateway, releases, canary(percentTraffic=25), draws=(0.1, 0.25, 0.9, 0.2499))
    assert [gateway.client.get("/").text for _ in range(4)] == ["canary", "main", "main", "canary"]
    found = releases.details("api")["canaries"]["GET /"]
    assert (found["main"]["requests"], found["main"]["errors"]) == (2, 0)
    assert (found["canary"]["requests"], found["canary"]["errors"]) == (2, 2)
    assert (found["canary"]["recent"]["requests"], found["canary"]["recent"]["errorRate"]) == (2, 1.0)
    assert found["main"]["recent"]["latencyMs"]["p99"] >= found["main"]["recent"]["latencyMs"]["p50"] > 0
    main, other = _canaries(json.loads(json.dumps(releases.details("api"))))
    assert main.startswith("GET /: main 2 requests, 0 failed; of late 0 % failed, p50 ")
    assert other.startswith("GET /: canary 2 requests, 2 failed; of late 100 % failed, p50 ")


def test_who_has_the_header_gets_the_canary(gateway: Served, releases: Releases) -> None:
    served(gateway, releases, canary(headers={"X-Group": "beta*", "X-Me": "1"}), bad=201, draws=(0.5,) * 9)
    for headers, word in [
        ({"x-group": "beta-7"}, "canary"),
        ({"x-me": "1"}, "canary"),
        ({"x-me": "10"}, "main"),
        ({"x-group": "alpha"}, "main"),
        ({}, "main"),
    ]:
        assert gateway.client.get("/", headers=headers).text == word, headers


def test_refusals_of_an_integration_count_as_its_failures(gateway: Served, releases: Releases) -> None:
    served(gateway, releases, canary(percentTraffic=100), bad=503, draws=(0.0,))
    assert gateway.client.get("/").status_code == 503
    assert releases.details("api")["canaries"]["GET /"]["canary"]["errors"] == 1


def test_what_is_known_stays_as_long_as_the_same_is_released(releases: Releases) -> None:
    route = ("api", "$default", "GET /")
    first = releases.of(route, ("f", "f@1"))
    assert releases.of(route, ("f", "f@1")) is first and releases.of(route, ("f", "f@2")) is not first
    releases.keep("other", [])
    assert releases.details("api")
    releases.keep("api", ["POST /"])
    assert releases.details("api") == {}


def test_what_is_told_of_late_is_of_all_requests_of_the_time() -> None:
    side = Side()
    for number in range(5000):
        side.add(0.001 if number % 100 else 1.0, number < 2500)
    recent = side.summary()["recent"]
    assert (recent["requests"], recent["errorRate"]) == (5000, 0.5)
    assert 0.9 < recent["latencyMs"]["p50"] < 1.2 and recent["latencyMs"]["p99"] < 1100


def test_a_client_that_leaves_is_no_failure_of_a_side(gateway: Served, releases: Releases) -> None:
    async def gone(exchange: Exchange) -> Response:
        raise ClientGoneError

    release = releases.of(("api", "$default", "GET /"), 1)
    gateway.handle([("GET /", CanaryIntegration(gone, gone, 0, [], release))])
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.client.get("/")
    assert release.main.summary()["errors"] == release.main.requests == 0


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({"function": "f", "canary": {"function": "f@1"}}, "gets no request"),
        ({"function": "f", "canary": {"function": "f@1", "percentTraffic": 101}}, "100"),
        ({"function": "f", "canary": {"function": "a b", "percentTraffic": 1}}, "function"),
        ({"canary": {"function": "f", "percentTraffic": 1}}, "exactly one"),
    ],
)
def test_what_says_nothing_is_refused(route: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        GatewaySpec.parse(json.dumps({"port": 80, "routes": {"GET /": route}}).encode(), "gateways/api.json")


def test_the_canarys_function_is_a_reference() -> None:
    route = {"function": "f", "canary": {"function": "g:live", "percentTraffic": 0.5}}
    spec = GatewaySpec.parse(json.dumps({"port": 80, "routes": {"GET /": route}}).encode(), str(Path("x.json")))
    assert [(each.name, each.path) for each in spec.references()] == [
        ("f", "$.routes['GET /'].function"),
        ("g", "$.routes['GET /'].canary.function"),
    ]
