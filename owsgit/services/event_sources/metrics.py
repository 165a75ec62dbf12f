"""Metrics of event sources, for Prometheus: asked for when somebody looks."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from owsgit.services.event_sources.feed import Feed


class Metrics(Collector):
    """Of those that this node feeds from."""

    def __init__(self, registry: CollectorRegistry, feeds: Callable[[], Iterable[Feed]]) -> None:
        self._feeds = feeds
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        age, records = self._families()
        for feed in self._feeds():
            age.add_metric([feed.name, feed.spec.function], feed.age)
            for result, count in vars(feed.counts).items():
                records.add_metric([feed.name, feed.spec.function, result], count)
        yield from (age, records)

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, CounterMetricFamily]:
        labels = ["event_source", "function"]
        return (
            GaugeMetricFamily(
                "owsgit_event_source_iterator_age_seconds",
                "Time since the oldest record came that waits for the function.",
                labels=labels,
            ),
            CounterMetricFamily(
                "owsgit_event_source_records",
                "Records that were delivered, left out by filters, or given up.",
                labels=[*labels, "result"],
            ),
        )
