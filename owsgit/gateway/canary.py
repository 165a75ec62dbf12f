"""A canary release: a part of a route's requests goes to another integration, mostly another version of its function.

https://docs.aws.amazon.com/apigateway/latest/developerguide/canary-release.html
"""

import random
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from owsgit.gateway.exchange import ClientGoneError, Exchange, Handler, RefusedError, Response
from owsgit.gateway.metrics import Recent, lately


@dataclass
class Side:
    """What is known of one side of a release on this node: how its requests went."""

    requests: int = 0
    errors: int = 0
    _recent: Recent = field(default_factory=Recent)

    def add(self, seconds: float, failed: bool) -> None:
        self.requests += 1
        self.errors += failed
        self._recent.add(time.monotonic(), seconds, failed)

    def summary(self) -> Mapping[str, Any]:
        """Requests and 5xx since it is there, and the same of the last minutes with latencies."""
        return {"requests": self.requests, "errors": self.errors, "recent": lately([self._recent])}


@dataclass
class Release:
    """Both sides of a release; it outlives deployments that do not change what is released."""

    described: object
    main: Side = field(default_factory=Side)
    canary: Side = field(default_factory=Side)

    def summary(self) -> Mapping[str, Any]:
        return {"main": self.main.summary(), "canary": self.canary.summary()}


class Releases:
    """The releases of a node, by gateway, stage and route key."""

    def __init__(self) -> None:
        self._by_route: dict[tuple[str, str, str], Release] = {}

    def of(self, route: tuple[str, str, str], described: object) -> Release:
        """The release of a route; a new one if `described`, what is compared with what, is not what it was."""
        found = self._by_route.get(route)
        if found is None or found.described != described:
            found = self._by_route[route] = Release(described)
        return found

    def keep(self, gateway: str, routes: Collection[str]) -> None:
        """Forget those of a gateway's other routes."""
        gone = [route for route in self._by_route if route[0] == gateway and route[2] not in routes]
        for route in gone:
            del self._by_route[route]

    def details(self, gateway: str) -> Mapping[str, Any]:
        """For status: what is known of a gateway's releases; nothing without any."""
        found = {
            key if stage == "$default" else f"{stage} {key}": release.summary()
            for (api, stage, key), release in self._by_route.items()
            if api == gateway
        }
        return {"canaries": found} if found else {}


class CanaryIntegration:
    """Asks `canary` for the requests that have one of the headers, and for `percent` of the others; else `main`."""

    def __init__(
        self,
        main: Handler,
        canary: Handler,
        percent: float,
        headers: Sequence[tuple[bytes, "re.Pattern[bytes]"]],
        release: Release,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._main, self._canary, self._release = main, canary, release
        self._share, self._headers, self._draw = percent / 100, headers, draw

    async def __call__(self, exchange: Exchange) -> Response:
        chosen = self._chosen(exchange)
        exchange.facts["isCanaryRequest"] = "true" if chosen else "false"
        handler, side = (self._canary, self._release.canary) if chosen else (self._main, self._release.main)
        began = time.monotonic()
        try:
            response = await handler(exchange)
        except ClientGoneError:  # which is no fault of either side; neither is to be told to stop
            raise
        except Exception as error:
            failed = not isinstance(error, RefusedError) or error.status >= 500
            side.add(time.monotonic() - began, failed)
            raise
        side.add(time.monotonic() - began, response.status >= 500)
        return response

    def _chosen(self, exchange: Exchange) -> bool:
        for name, pattern in self._headers:
            if pattern.fullmatch(exchange.header(name)):
                return True
        return self._draw() < self._share
