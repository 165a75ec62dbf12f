"""Metrics of functions, for Prometheus: counted as requests end, asked for when somebody looks.

Names and labels follow https://prometheus.io/docs/practices/naming/; what is counted follows Lambda's own metrics
(https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html): a throttled request is no invocation, an
error is a request that the function, or its runtime, did not answer.
"""

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

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


class _Distribution:
    """A histogram, counted as cheaply as can be: there is one with every request."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        names = (*map(floatToGoString, self._bounds), "+Inf")
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class FunctionMetrics:
    """What is counted of one function. Used after the function was removed, it counts where nobody looks."""

    def __init__(self) -> None:
        self.invocations = self.errors = self.throttles = 0
        self.duration, self.init = _Distribution(DURATION_SECONDS), _Distribution(INIT_SECONDS)
        self.memory = _Distribution(MEMORY_BYTES)
        self.kinds = dict.fromkeys((*KINDS.values(), HANDLED), 0)
        self._recent: deque[float] = deque(maxlen=RECENT_MAX)

    def answered(self, answer: Answer) -> None:
        """Count a request that was answered."""
        self.invocations += 1
        if answer.error is not None:
            self.errors += 1
            self.kinds[kind_of(answer)] += 1

    def throttled(self) -> None:
        self.throttles += 1

    def report(self, report: Report) -> None:
        """Take what a worker tells of a request that ended."""
        seconds, init, memory = report.duration_seconds, report.init_seconds, report.memory_bytes
        self._recent.append(seconds)
        self.duration.observe(seconds)
        if memory:
            self.memory.observe(memory)
        if init is not None:
            self.init.observe(init)

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


class Metrics(Collector):
    """All metrics of functions of one node, in its registry."""

    def __init__(self, registry: CollectorRegistry, workers: Callable[[], Iterable[Workers]]) -> None:
        """`workers` is asked when the metrics are."""
        self._workers = workers
        self._functions: dict[str, FunctionMetrics] = {}
        registry.register(self)

    def function(self, name: str) -> FunctionMetrics:
        """What is counted of a function."""
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = FunctionMetrics()
        return found

    def remove(self, name: str) -> None:
        """Forget a function that was deleted."""
        self._functions.pop(name, None)

    def collect(self) -> Iterator[Metric]:
        functions = list(self._functions.items())
        errors = _counter("errors", "Invocations that ended with an error, by its kind.", "kind")
        invocations = _counter("invocations", "Requests that a worker answered, or failed to.")
        throttles = _counter("throttles", "Requests that no worker could take.")
        duration = _histogram("duration_seconds", "Time that the handler took.")
        init = _histogram("init_duration_seconds", "Time that the start of a worker took, init included.")
        memory = _histogram("memory_bytes", "Peak memory of the worker at the end of a request.")
        for name, counted in functions:
            for kind, count in counted.kinds.items():
                errors.add_metric((name, kind), count)
            invocations.add_metric((name,), counted.invocations)
            throttles.add_metric((name,), counted.throttles)
            counted.duration.add_to(duration, (name,))
            counted.init.add_to(init, (name,))
            counted.memory.add_to(memory, (name,))
        yield from (errors, invocations, throttles, duration, init, memory)
        yield from self._live()

    def _live(self) -> Iterator[Metric]:
        """The gauges, computed as they are read."""
        concurrent = _gauge("concurrent_executions", "Requests under way.")
        workers = _gauge("workers", "Workers that are started.", "state")
        for each in self._workers():
            concurrent.add_metric((each.function,), each.busy)
            workers.add_metric((each.function, "idle"), each.idle)
            workers.add_metric((each.function, "busy"), each.busy)
        yield from (concurrent, workers)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"owsgit_function_{name}", text, labels=("function", *labels))


def _histogram(name: str, text: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"owsgit_function_{name}", text, labels=("function",))


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"owsgit_function_{name}", text, labels=("function", *labels))
