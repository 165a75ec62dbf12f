"""Metrics of functions, for Prometheus: counted as requests end, asked for when somebody looks.

Names and labels follow https://prometheus.io/docs/practices/naming/; what is counted follows Lambda's own metrics
(https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html): a throttled request is no invocation, an
error is a request that the function, or its runtime, did not answer.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from owsgit.model.service import Answer
from owsgit.runtime.logs import Report

DURATION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
INIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
MEBIBYTE = 1024 * 1024
MEMORY_BYTES = tuple(mebibytes * MEBIBYTE for mebibytes in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 10240))

RECENT_MAX = 256
"""Requests from which the percentiles of status are computed."""

REPORT_BYTES_MAX = 64 * 1024
"""Longer error objects are not looked into: they are the function's own."""

KINDS = {
    "Sandbox.Timedout": "timeout",
    "Runtime.ExitError": "exit",
    "Runtime.OutOfMemory": "memory",
    "Runtime.FuelExhausted": "fuel",
    "Function.ResponseSizeTooLarge": "response_size",
    "Runtime.ImportModuleError": "init",
    "Runtime.HandlerNotFound": "init",
    "Runtime.MalformedHandlerName": "init",
    "Runtime.UserCodeSyntaxError": "init",
    "Runtime.InvalidEntrypoint": "init",
    "Extension.Crash": "exit",
}
HANDLED = "handled"
"""The kind of all other errors: those that the function's code raised or returned. No function can add a kind."""


def kind_of(answer: Answer) -> str:
    """The kind of an answer's error."""
    if len(answer.payload) > REPORT_BYTES_MAX:
        return HANDLED
    try:
        report = json.loads(answer.payload)
    except (ValueError, RecursionError):
        return HANDLED
    named = report.get("errorType") if isinstance(report, dict) else None
    return KINDS.get(named, HANDLED) if isinstance(named, str) else HANDLED


@dataclass(frozen=True)
class Workers:
    """The workers of a function, now."""

    function: str
    idle: int
    busy: int


class FunctionMetrics:
    """What is counted of one function. Used after the function was removed, it counts where nobody looks."""

    def __init__(self, of: "Metrics", function: str) -> None:
        self._of, self._function = of, function
        self.invocations = self.errors = self.throttles = 0
        self._recent: deque[float] = deque(maxlen=RECENT_MAX)
        self._invocations, self._throttles, self._duration, self._init, self._memory = (
            family.labels(function) for family in of.plain
        )
        self._errors = {kind: of.errors.labels(function, kind) for kind in {*KINDS.values(), HANDLED}}

    def answered(self, answer: Answer) -> None:
        """Count a request that was answered."""
        self.invocations += 1
        self._invocations.inc()
        if answer.error is not None:
            self.errors += 1
            self._errors[kind_of(answer)].inc()

    def throttled(self) -> None:
        self.throttles += 1
        self._throttles.inc()

    def report(self, report: Report) -> None:
        """Take what a worker tells of a request that ended."""
        self._recent.append(report.duration_seconds)
        self._duration.observe(report.duration_seconds)
        if report.memory_bytes:
            self._memory.observe(report.memory_bytes)
        if report.init_seconds is not None:
            self._init.observe(report.init_seconds)

    def summary(self) -> dict[str, Any]:
        """For status: since the function was first applied; the percentiles are of the last requests."""
        found: dict[str, Any] = {
            "invocations": self.invocations,
            "errors": self.errors,
            "throttles": self.throttles,
        }
        recent = sorted(self._recent)
        if recent:
            found["durationMs"] = {
                f"p{percent}": round(recent[min(len(recent) * percent // 100, len(recent) - 1)] * 1000, 2)
                for percent in (50, 95)
            }
        return found


class Metrics:
    """All metrics of functions of one node, in its registry."""

    def __init__(self, registry: CollectorRegistry, workers: Callable[[], Iterable[Workers]]) -> None:
        """`workers` is asked when the metrics are."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"owsgit_function_{name}", text, ("function", *labels), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"owsgit_function_{name}", text, ("function",), registry=registry, buckets=buckets)

        self.errors = counter("errors", "Invocations that ended with an error, by its kind.", "kind")
        self.plain: tuple[Any, ...] = (
            counter("invocations", "Requests that a worker answered, or failed to."),
            counter("throttles", "Requests that no worker could take."),
            histogram("duration_seconds", "Time that the handler took.", DURATION_SECONDS),
            histogram("init_duration_seconds", "Time that the start of a worker took, init included.", INIT_SECONDS),
            histogram("memory_bytes", "Peak memory of the worker at the end of a request.", MEMORY_BYTES),
        )
        self._functions: dict[str, FunctionMetrics] = {}
        registry.register(_Live(workers))

    def function(self, name: str) -> FunctionMetrics:
        """What is counted of a function."""
        if name not in self._functions:
            self._functions[name] = FunctionMetrics(self, name)
        return self._functions[name]

    def remove(self, name: str) -> None:
        """Forget a function that was deleted."""
        if self._functions.pop(name, None) is not None:
            for family in (*self.plain, self.errors):
                family.remove_by_labels({"function": name})


class _Live(Collector):
    """The gauges, computed as they are read."""

    def __init__(self, workers: Callable[[], Iterable[Workers]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        concurrent = GaugeMetricFamily(
            "owsgit_function_concurrent_executions", "Requests under way.", labels=("function",)
        )
        workers = GaugeMetricFamily(
            "owsgit_function_workers", "Workers that are started.", labels=("function", "state")
        )
        for each in self._workers():
            concurrent.add_metric((each.function,), each.busy)
            workers.add_metric((each.function, "idle"), each.idle)
            workers.add_metric((each.function, "busy"), each.busy)
        yield from (concurrent, workers)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return self.collect()
