"""Metrics of functions: what is counted, and how it is shown."""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from owsgit.model.service import Answer
from owsgit.runtime import metrics
from owsgit.runtime.logs import Report
from owsgit.runtime.metrics import Metrics, Workers


class Counted:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.workers: list[Workers] = []
        self.metrics = Metrics(self.registry, lambda: self.workers)

    def samples(self) -> dict[tuple[str, ...], float]:
        """Of the exposition: by name and labels' values."""
        text = generate_latest(self.registry).decode()
        return {
            (sample.name.removeprefix("owsgit_function_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def counted() -> Iterator[Counted]:
    yield Counted()


def answer(kind: str) -> Answer:
    return Answer(b'{"errorType": "%s"}' % kind.encode(), "Unhandled")


def test_requests_errors_and_throttles_are_counted(counted: Counted) -> None:
    hello = counted.metrics.function("hello")
    hello.answered(Answer(b"1"))
    hello.answered(answer("Sandbox.Timedout"))
    hello.answered(answer("ValueError"))
    hello.answered(answer("Runtime.OutOfMemory"))
    hello.throttled()
    found = counted.samples()
    assert found["invocations_total", "hello"] == 4 and found["throttles_total", "hello"] == 1
    assert [found["errors_total", "hello", kind] for kind in ("timeout", "handled", "memory", "exit")] == [1, 1, 1, 0]
    assert hello.summary() == {"invocations": 4, "errors": 3, "throttles": 1}


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b'{"errorType": 1}', b"[" * 60_000, b'"' + b"x" * 70_000])
def test_no_error_object_makes_a_kind_of_its_own(counted: Counted, payload: bytes) -> None:
    assert metrics.kind_of(Answer(payload, "Unhandled")) == "handled"
    for number in range(100):
        counted.metrics.function("f").answered(answer(f"Error{number}"))
    assert len([key for key in counted.samples() if key[0] == "errors_total"]) == len({*metrics.KINDS.values()}) + 1


def test_durations_init_and_memory_are_histograms(counted: Counted) -> None:
    hello = counted.metrics.function("hello")
    for number in range(100):
        hello.report(Report(number / 1000, 0.2 if number == 0 else None, 40 << 20))
    found = counted.samples()
    assert found["duration_seconds_count", "hello"] == 100
    assert found["duration_seconds_bucket", "hello", "0.05"] == 51
    assert found["init_duration_seconds_count", "hello"] == 1
    assert found["memory_bytes_bucket", "hello", floatToGoString(64 << 20)] == 100
    assert found["memory_bytes_bucket", "hello", floatToGoString(32 << 20)] == 0
    assert hello.summary()["durationMs"] == {"p50": 50.0, "p95": 95.0}


def test_gauges_tell_what_is_now(counted: Counted) -> None:
    counted.workers = [Workers("hello", idle=2, busy=1)]
    found = counted.samples()
    assert found["concurrent_executions", "hello"] == 1
    assert found["workers", "hello", "idle"] == 2 and found["workers", "hello", "busy"] == 1


def test_a_deleted_function_leaves_no_series(counted: Counted) -> None:
    hello = counted.metrics.function("hello")
    counted.metrics.function("other").throttled()
    counted.metrics.remove("hello")
    hello.answered(answer("x"))  # a request that was still under way
    hello.report(Report(1, 1, 1))
    assert {key[1] for key in counted.samples()} == {"other"}
    counted.metrics.function("hello")
    assert counted.samples()["invocations_total", "hello"] == 0


def test_two_nodes_in_one_process_share_nothing(counted: Counted) -> None:
    Counted().metrics.function("hello").throttled()
    assert not counted.samples()
