"""What a gateway's file and a usage plan's file say, made real by their handlers, in any order."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from owsgit.model.errors import InvalidError
from owsgit.services.gateways.spec import GatewaySpec
from tests.support import projects
from tests.support.nodes import free_port
from tests.support.sites import Services

AUTHZ = """
def handler(event, context):
    key = event["headers"].get("authorization", "")
    return {"isAuthorized": True, "context": {"who": key}, "usageIdentifierKey": key}
"""
SHOW = """
def handler(event, context):
    return event["requestContext"].get("authorizer")
"""

SLOW = """
import time
def handler(event, context):
    time.sleep(0.03)
"""


class Placed:
    """A gateway on a free port, and what asks it."""

    def __init__(self, services: Services) -> None:
        self.services, self.port = services, free_port()

    def gateway(self, **document: Any) -> None:
        document = {"port": self.port, "routes": {"GET /": {"function": "show"}}, **document}
        self.services.apply(self.services.resource("gateway", "api", document))

    def plan(self, **document: Any) -> None:
        document = {"apis": [{"gateway": "api"}], "keys": {"ann": {"sha256": _hash("k" * 40)}}, **document}
        self.services.apply(self.services.resource("usageplan", "partners", document))

    def get(self, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(timeout=30) as client:
                return await client.get(f"http://127.0.0.1:{self.port}/", headers=headers)

        return self.services.run(ask())


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    services = Services(tmp_path_factory.mktemp("home"))
    services.site.targets.update(function=services.handlers["function"])  # type: ignore[attr-defined]
    services.apply(services.resource("function", "show", projects.function(), **{"app.py": SHOW}))
    services.apply(services.resource("function", "authz", projects.function(), **{"app.py": AUTHZ}))
    yield Placed(services)
    services.close()


def test_a_key_that_an_authorizer_gives_is_held_against_its_plan(placed: Placed, tmp_path: Path) -> None:
    placed.plan(quota={"limit": 2, "period": "DAY"})
    authorizer = {"type": "request", "function": "authz", "enableSimpleResponses": True}
    placed.gateway(authorizers={"a": authorizer}, auth="a", apiKeyRequired=True, apiKeySource="AUTHORIZER")
    assert placed.get().status_code == 401
    assert placed.get(authorization="nobody's").status_code == 403
    assert placed.get(authorization="k" * 40).json() == {"lambda": {"who": "k" * 40}}
    assert placed.get(authorization="k" * 40).status_code == 200
    assert placed.get(authorization="k" * 40).json() == {"message": "Limit Exceeded"}
    placed.services.run(placed.services.handlers["usageplan"].delete("partners"))
    assert placed.get(authorization="k" * 40).status_code == 403
    placed.plan(quota={"limit": 2, "period": "DAY"})
    assert placed.get(authorization="k" * 40).status_code == 429, "a plan that comes back has counted"


def test_throttles_outlive_deployments_and_go_with_their_gateway(placed: Placed) -> None:
    placed.gateway(throttle={"rate": 0.001, "burst": 3})
    assert [placed.get().status_code for _ in range(2)] == [200, 200]
    placed.gateway(throttle={"rate": 0.001, "burst": 3}, description="deployed again")
    assert [placed.get().status_code for _ in range(2)] == [200, 429]
    placed.gateway(throttle={"rate": 0.001, "burst": 4})
    assert [placed.get().status_code for _ in range(2)] == [200, 429]
    placed.gateway()
    assert placed.get().status_code == 200
    placed.gateway(throttle={"perClient": {"rate": 0.001, "burst": 1}})
    assert [placed.get().status_code for _ in range(2)] == [200, 429]
    placed.gateway(routes={"GET /": {"function": "show", "throttle": {"rate": 0.001, "burst": 1}, "concurrency": 5}})
    assert [placed.get().status_code for _ in range(2)] == [200, 429]
    placed.services.run(placed.services.handlers["gateway"].delete("api"))
    placed.gateway(limits={"headBytes": 8192}, throttle={"rate": 0.001, "burst": 1})
    assert placed.get(x="y" * 9000).status_code == 431
    assert placed.get().status_code == 200


def test_a_flooded_slow_function_leaves_the_others_alone(placed: Placed) -> None:
    slow = projects.function(maxConcurrency=1, timeout=60)
    placed.services.apply(placed.services.resource("function", "slow", slow, **{"app.py": SLOW}))
    placed.gateway(routes={"GET /": {"function": "show"}, "GET /slow": {"function": "slow"}})

    async def flooded() -> tuple[list[int], int, list[int]]:
        url = f"http://127.0.0.1:{placed.port}"
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=300)) as client:
            flood = [asyncio.ensure_future(client.get(f"{url}/slow")) for _ in range(100)]
            await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
            codes = [(await client.get(f"{url}/")).status_code for _ in range(10)]
            waiting = sum(not each.done() for each in flood)
            return codes, waiting, [answer.status_code for answer in await asyncio.gather(*flood)]

    codes, waiting, slow_codes = placed.services.run(flooded())
    assert codes == [200] * 10 and waiting > 0, "they are answered while the flood still waits"
    assert slow_codes == [200] * 100


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"throttle": {"rate": 1}}, "rate and burst belong together"),
        ({"throttle": {}}, "nothing is throttled"),
        ({"throttle": {"rate": 0, "burst": 1}}, "$.throttle.rate"),
        ({"limits": {"bodyBytes": 200_000_000}}, "$.limits.bodyBytes"),
        ({"limits": {"headBytes": 100}}, "$.limits.headBytes"),
        ({"concurrency": 0}, "$.concurrency"),
    ],
)
def test_a_mistake_is_told(document: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        GatewaySpec.parse(json.dumps({"port": 1, "routes": {}, **document}).encode(), "gateways/api.json")
    assert told in str(caught.value)
