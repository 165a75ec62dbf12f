"""Metrics of gateways, by route: counted as requests end, put together when somebody looks.

What is counted follows API Gateway's own metrics (Count, 4xx, 5xx, Latency, IntegrationLatency, DataProcessed,
CacheHitCount: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html).
Only the event loop counts; a reader in another thread may see a request half counted, and never a wrong sum for long.
"""

import math
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import log
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from owsgit.gateway.exchange import Exchange
from owsgit.gateway.observing import Outcome

LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNMATCHED: Final = "unmatched"
"""The route of all requests that none of the gateway's routes took."""

CLASSES = ("2xx", "3xx", "4xx", "5xx")
WINDOW_SECONDS: Final = 60.0
WINDOWS_MAX = 5
"""Status tells of the last five minutes."""

_STEPS_A_FOLD: Final = 1 / math.log(1.1)
"""Recent latencies are kept to a tenth of themselves."""

THROTTLED: Final = 429


class _Window:
    """What happened within one window."""

    __slots__ = ("errors", "latencies", "number", "requests")

    def __init__(self, number: float) -> None:
        self.number = number
        self.requests = self.errors = 0
        self.latencies: defaultdict[int, int] = defaultdict(int)  # by logarithm


class Recent:
    """How the requests of the last minutes went."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: list[_Window] = []

    def add(self, at: float, seconds: float, failed: bool) -> None:
        """A request ended `at` a time of time.monotonic(), and took so many seconds."""
        number = at // WINDOW_SECONDS
        windows = self._windows
        if not windows or windows[-1].number != number:
            self._windows = windows = [*windows[1 - WINDOWS_MAX :], _Window(number)]
        window = windows[-1]
        window.requests += 1
        if failed:
            window.errors += 1
        step = int(log(seconds * 1e6) * _STEPS_A_FOLD) if seconds > 1e-6 else 0
        window.latencies[step] += 1

    def windows(self, now: float) -> list[_Window]:
        return [each for each in self._windows if each.number > now // WINDOW_SECONDS - WINDOWS_MAX]


def lately(recent: Iterable[Recent]) -> dict[str, Any]:
    """For status: requests of the last minutes taken together, how many failed, and latencies in ms."""
    now = time.monotonic()
    windows = [window for each in recent for window in each.windows(now)]
    requests = sum(each.requests for each in windows)
    latencies: dict[int, int] = {}
    for each in windows:
        for step, count in list(each.latencies.items()):
            latencies[step] = latencies.get(step, 0) + count
    return {
        "minutes": round(WINDOWS_MAX * WINDOW_SECONDS / 60),
        "requests": requests,
        "errorRate": round(sum(each.errors for each in windows) / requests, 4) if requests else 0.0,
        **({"latencyMs": {f"p{of}": _percentile(latencies, of) for of in (50, 99)}} if latencies else {}),
    }


class RouteMetrics:
    """What is counted of one route of one stage."""

    __slots__ = (
        "cache_hits",
        "cache_misses",
        "classes",
        "integration",
        "integration_seconds",
        "latency",
        "received",
        "recent",
        "seconds",
        "sent",
        "throttles",
    )

    def __init__(self) -> None:
        self.classes = [0, 0, 0, 0]
        self.latency = [0] * (len(LATENCY_SECONDS) + 1)
        self.integration = [0] * (len(LATENCY_SECONDS) + 1)
        self.seconds = self.integration_seconds = 0.0
        self.sent = self.received = self.throttles = self.cache_hits = self.cache_misses = 0
        self.recent = Recent()

    def count(self, exchange: Exchange, outcome: Outcome) -> None:
        status, seconds = outcome.status, outcome.seconds
        self.classes[min(max(status // 100, 2), 5) - 2] += 1
        self.latency[bisect_left(LATENCY_SECONDS, seconds)] += 1
        self.seconds += seconds
        self.sent += outcome.sent
        self.received += exchange.received
        if (asked := exchange.integration_seconds) >= 0:
            self.integration[bisect_left(LATENCY_SECONDS, asked)] += 1
            self.integration_seconds += asked
        if status == THROTTLED:
            self.throttles += 1
        if exchange.facts and (cache := exchange.facts.get("cache")) is not None:
            if cache == "HIT":
                self.cache_hits += 1
            else:
                self.cache_misses += 1
        self.recent.add(outcome.at, seconds, status >= 500)


@dataclass
class StageMetrics:
    """A watcher of one stage. Routes without requests have no series: a gateway may have ten thousand."""

    routes: dict[str, RouteMetrics] = field(default_factory=dict)
    in_flight: int = 0

    def began(self, exchange: Exchange) -> None:
        self.in_flight += 1

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        self.in_flight -= 1
        key = exchange.route_key or UNMATCHED
        route = self.routes.get(key)
        if route is None:
            route = self.routes[key] = RouteMetrics()
        route.count(exchange, outcome)


class GatewayMetrics(Collector):
    """All metrics of all gateways of a node."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._gateways: dict[str, dict[str, StageMetrics]] = {}
        if registry is not None:
            registry.register(self)

    def stage(self, gateway: str, stage: str) -> StageMetrics:
        """What is counted of a stage; it outlives deployments."""
        return self._gateways.setdefault(gateway, {}).setdefault(stage, StageMetrics())

    def retain(self, gateway: str, stages: Collection[str], routes: Collection[str]) -> None:
        """Forget stages and routes that a gateway does not have any more."""
        found = self._gateways.get(gateway, {})
        for stage in [stage for stage in found if stage not in stages]:
            del found[stage]
        for metrics in found.values():
            for route in [route for route in metrics.routes if route not in routes and route != UNMATCHED]:
                del metrics.routes[route]

    def remove(self, gateway: str) -> None:
        self._gateways.pop(gateway, None)

    def summary(self, gateway: str) -> dict[str, Any]:
        """For status: since the node started, and of the last minutes, as a whole and by stage and route."""
        stages = self._gateways.get(gateway, {})
        routes = [(stage, key, each) for stage, found in stages.items() for key, each in list(found.routes.items())]
        if not routes:
            return {}
        busy = sorted(routes, key=lambda route: -sum(route[2].classes))[:ROUTES_SHOWN_MAX]
        return {
            **_summary([each for _, _, each in routes]),
            "inFlight": sum(each.in_flight for each in stages.values()),
            "routes": [{"stage": stage, "route": key, **_summary([each])} for stage, key, each in busy],
        }

    def collect(self) -> Iterator[Metric]:
        made = _Families()
        for gateway, stages in list(self._gateways.items()):
            for stage, found in list(stages.items()):
                made.in_flight.add_metric((gateway, stage), found.in_flight)
                for key, route in list(found.routes.items()):
                    made.add((gateway, stage, key), route)
        return iter(made.all())

    def describe(self) -> Iterable[Metric]:
        return _Families().all()


ROUTES_SHOWN_MAX = 100
"""Of a gateway, in status: those with the most requests."""


def _summary(routes: Iterable[RouteMetrics]) -> dict[str, Any]:
    routes = list(routes)
    return {
        "requests": sum(sum(route.classes) for route in routes),
        "4xx": sum(route.classes[2] for route in routes),
        "5xx": sum(route.classes[3] for route in routes),
        "recent": lately(route.recent for route in routes),
    }


def _percentile(latencies: Mapping[int, int], percent: int) -> float:
    """In milliseconds, to a tenth of itself."""
    left = sum(latencies.values()) * percent / 100
    step = 0
    for step, count in sorted(latencies.items()):  # noqa: B007
        left -= count
        if left <= 0:
            break
    value = math.exp((step + 0.5) / _STEPS_A_FOLD) / 1000
    return float(f"{value:.3g}")


class _Families:
    def __init__(self) -> None:
        of = ("gateway", "stage", "route")
        name = "owsgit_gateway_"

        def counter(what: str, text: str, *more: str) -> CounterMetricFamily:
            return CounterMetricFamily(name + what, text, labels=(*of, *more))

        self.requests = counter("requests", "Requests, by the class of their status (Count, 4xx, 5xx).", "status")
        self.throttles = counter("throttles", "Requests that were answered 429.")
        self.sent = counter("response_bytes", "Bytes of the bodies of responses (DataProcessed).")
        self.received = counter("request_bytes", "Bytes of the bodies of requests that were read (DataProcessed).")
        self.hits = counter("cache_hits", "Requests that were answered from the cache (CacheHitCount).")
        self.misses = counter("cache_misses", "Requests that the cache could not answer (CacheMissCount).")
        self.latency = HistogramMetricFamily(
            f"{name}latency_seconds", "From a request's head to the end of its response (Latency).", labels=of
        )
        self.integration = HistogramMetricFamily(
            f"{name}integration_latency_seconds",
            "Time that the integration took to begin its answer (IntegrationLatency).",
            labels=of,
        )
        self.in_flight = GaugeMetricFamily(f"{name}requests_in_flight", "Requests under way.", labels=of[:2])

    def add(self, labels: tuple[str, str, str], route: RouteMetrics) -> None:
        for name, count in zip(CLASSES, route.classes, strict=True):
            if count:
                self.requests.add_metric((*labels, name), count)
        self.latency.add_metric(labels, _buckets(route.latency), route.seconds)
        if any(route.integration):
            self.integration.add_metric(labels, _buckets(route.integration), route.integration_seconds)
        self.sent.add_metric(labels, route.sent)
        self.received.add_metric(labels, route.received)
        self.throttles.add_metric(labels, route.throttles)
        if route.cache_hits or route.cache_misses:
            self.hits.add_metric(labels, route.cache_hits)
            self.misses.add_metric(labels, route.cache_misses)

    def all(self) -> tuple[Metric, ...]:
        return (
            self.requests,
            self.throttles,
            self.sent,
            self.received,
            self.hits,
            self.misses,
            self.latency,
            self.integration,
            self.in_flight,
        )


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, count in zip((*map(float, LATENCY_SECONDS), math.inf), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == math.inf else str(bound), float(total)))
    return found
