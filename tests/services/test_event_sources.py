"""Feeding a function from a source: what becomes of batches, whatever function, destination and disk do."""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from owsgit.aws.api import ServiceError
from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import Answer, Invocation, SourcePage, SourceRecord
from owsgit.services import KINDS
from owsgit.services.event_sources import KIND, changing
from owsgit.services.event_sources import feed as feeds
from owsgit.services.event_sources import lane as lanes
from owsgit.services.event_sources.checkpoints import Checkpoints
from owsgit.services.event_sources.feed import Feed, Surroundings
from owsgit.services.event_sources.outcomes import done_of
from owsgit.services.event_sources.spec import EventSourceSpec

OK = Answer(b"null")
FAILED = Answer(b'{"errorMessage": "no"}', "Unhandled")


class Row:
    """A source: records with numbers from 1 on, each of one of some keys."""

    retention_seconds = 24 * 3600.0

    def __init__(self, count: int = 0, keys: int = 1, size: int = 0) -> None:
        self.records: list[SourceRecord] = []
        self.before = self.reads = 0
        self.keys, self.size = keys, size
        self.problem: UnavailableError | None = None
        self.add(count)

    def add(self, count: int, at: float | None = None) -> None:
        for number in range(len(self.records) + 1, len(self.records) + count + 1):
            event = {"n": number, "key": number % self.keys, "text": "x" * self.size}
            payload = json.dumps(event).encode()
            self.records.append(SourceRecord(number, at or time.time(), str(number), payload))

    def home(self, name: str) -> str | None:
        return None

    def arn(self, name: str) -> str:
        return f"arn:row/{name}"

    def horizon(self, name: str) -> int:
        return self.before

    async def newest(self, name: str) -> int:
        return len(self.records)

    async def read(
        self, name: str, after: int, most: int, bytes_max: int, wanted: Callable[[bytes], bool]
    ) -> SourcePage:
        self.reads += 1
        if self.problem is not None:
            raise self.problem
        found = self.records[after : after + most]
        mine = [each for each in found if wanted(b"%d" % (each.number % self.keys))]
        return SourcePage(mine, after + len(found))

    def batch(self, name: str, records: Sequence[SourceRecord]) -> Mapping[str, Any]:
        return {"Batch": [record.number for record in records]}


class Function:
    """What is invoked: `answers` says what it does with the numbers of a batch."""

    def __init__(self, answers: Callable[[list[int]], Answer] = lambda _: OK) -> None:
        self.answers = answers
        self.calls: list[list[int]] = []
        self.told: list[Any] = []  # as a destination
        self.refusals: list[Exception] = []  # of the destination
        self.under_way: list[set[int]] = []  # keys of batches
        self.overlap = 0
        self.seconds = 0.0

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        events = json.loads(invocation.payload)["Records"]
        keys = {event["key"] for event in events}
        assert not any(keys & other for other in self.under_way)
        self.under_way.append(keys)
        self.overlap = max(self.overlap, len(self.under_way))
        await asyncio.sleep(self.seconds)
        self.under_way.remove(keys)
        self.calls.append([event["n"] for event in events])
        return self.answers(self.calls[-1])

    async def enqueue(self, name: str, invocation: Invocation, **_: Any) -> str:
        if self.refusals:
            raise self.refusals.pop()
        self.told.append(json.loads(invocation.payload))
        return invocation.request_id

    @property
    def delivered(self) -> list[int]:
        return [number for call in self.calls for number in call]


class Fed:
    """A feed of `row` into `function`, with its checkpoints on the disk."""

    def __init__(self, folder: Path, row: Row, function: Function, **fields: Any) -> None:
        self.row, self.function = row, function
        self.checkpoints = Checkpoints(folder / "event-sources.db")
        self.spec = spec(**fields)
        self.feed = self._made()

    def _made(self) -> Feed:
        function: Any = self.function
        around = Surroundings({"table": self.row}, lambda: function, self.checkpoints, lambda name: f"arn:f/{name}")
        return Feed("m", self.spec, around)

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not what():
                await asyncio.sleep(0.005)

    async def caught_up(self) -> None:
        """All that there is is dealt with."""
        last = len(self.row.records)
        await self.until(lambda: self.feed.lanes and all(lane.position >= last for lane in self.feed.lanes))

    async def again(self, **fields: Any) -> None:
        """As after a start of the node."""
        await self.feed.close()
        self.spec = spec(**fields)
        self.feed = self._made()
        await self.feed.begin()


def spec(**fields: Any) -> EventSourceSpec:
    document = {"function": "f", "source": {"table": "t"}, "startingPosition": "TRIM_HORIZON", **fields}
    return EventSourceSpec.parse(json.dumps(document).encode(), "event-sources/m.json")


def test_whoever_maps_a_table_may_do_it_with_this_function_and_read_this_table() -> None:
    scope = Scope("us-east-1", "1" * 12)

    def resource(**fields: Any) -> Resource:
        return Resource(KIND, "m", spec(**fields), "0" * 40)

    def needs(before: Resource | None, after: Resource | None) -> list[tuple[str, str, Any]]:
        found = Change(before, after).needs(scope, KINDS)
        return [(need.action, need.arn.split(":", 5)[5], need.keys["lambda:FunctionArn"]) for need in found]

    function = "arn:aws:lambda:us-east-1:111111111111:function:"
    first = resource(function="f:live", onFailure={"function": "g"})
    assert needs(None, first) == [
        ("lambda:CreateEventSourceMapping", "event-source-mapping:m", f"{function}f"),
        ("dynamodb:GetRecords", "table/t/stream/*", f"{function}f"),
        ("lambda:AddPermission", "function:g", f"{function}f"),
    ]
    other = resource(function="h", onFailure={"function": "g"})
    assert needs(first, other) == [("lambda:UpdateEventSourceMapping", "event-source-mapping:m", f"{function}h")]
    [need] = Change(first, other).needs(scope, KINDS)
    assert need.former_keys is not None and need.former_keys["lambda:FunctionArn"] == f"{function}f"
    assert needs(other, None) == [("lambda:DeleteEventSourceMapping", "event-source-mapping:m", f"{function}h")]


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"function": "f:live:x"}, "$.function", "what belongs here: The function that is invoked"),
        ({"startingPosition": "NOW"}, "$.startingPosition", "TRIM_HORIZON"),
        ({"batchSize": 10_001}, "$.batchSize", "write 10000 or less"),
        ({"maximumRecordAge": 59}, "$.maximumRecordAge", "it is -1, or 60 seconds and more"),
        ({"parallelizationFactor": 0}, "$.parallelizationFactor", "write 1 or more"),
        ({"functionResponseTypes": ["All"]}, "$.functionResponseTypes[0]", "ReportBatchItemFailures"),
        ({"filters": [{"a": ["x"]}, {"a": []}]}, "$.filters[1].a", "an empty list fits nothing"),
        ({"filters": [{"a": ["x" * 5000]}]}, "$.filters[0]", "at most 4,096 characters"),
        ({"filters": [{"a": ["x"]}] * 11}, "$.filters", "at most 10 are taken, not 11"),
        ({"source": {"queue": "q"}}, "$.source.queue", "known fields: table"),
        ({"onFailure": {"function": "?"}}, "$.onFailure.function", "does not have the form"),
    ],
)
def test_a_file_that_says_something_else_is_told_where(fields: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        spec(**fields)
    problem = next(each for each in caught.value.problems if each.path == path)
    assert words in f"{problem.message} {problem.remedy}"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(lanes, "RETRY_SECONDS_FIRST", 0.001)
    monkeypatch.setattr(lanes, "RETRY_SECONDS_MAX", 0.01)
    monkeypatch.setattr(feeds, "TRY_AGAIN_SECONDS", 0.005)


def run(fed: Fed, work: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        try:
            await fed.feed.begin()
            await work()
        finally:
            await fed.feed.close()
            await fed.checkpoints.close()

    asyncio.run(all_of_it())


def dealt_with(fed: Fed) -> Function:
    """Run until all that there is is dealt with."""
    run(fed, fed.caught_up)
    return fed.function


def test_batches_are_as_large_as_they_may_be(tmp_path: Path) -> None:
    function = dealt_with(Fed(tmp_path, Row(25), Function(), batchSize=10))
    assert [len(call) for call in function.calls] == [10, 10, 5] and function.delivered == list(range(1, 26))


def test_a_batch_is_filled_from_as_many_reads_as_it_takes(tmp_path: Path) -> None:
    function = dealt_with(Fed(tmp_path, Row(950, keys=7), Function(), batchSize=400))
    assert [len(call) for call in function.calls] == [400, 400, 150]


def test_a_batch_fits_into_what_a_function_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "PAYLOAD_BYTES_MAX", 1000)
    function = dealt_with(Fed(tmp_path, Row(7, size=300), Function()))
    assert [len(call) for call in function.calls] == [2, 2, 2, 1]
    monkeypatch.setattr(lanes, "PAYLOAD_BYTES_MAX", 10)  # one goes in any case
    assert [len(call) for call in dealt_with(Fed(tmp_path / ".", Row(9), function)).calls] == [2, 2, 2, 1, 1, 1]


def test_a_batch_waits_for_more(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Row(1), Function(), maximumBatchingWindow=300, batchSize=3)

    async def work() -> None:
        await fed.until(lambda: fed.feed.lanes and fed.feed.lanes[0].since)
        assert fed.function.calls == [] and fed.feed.age >= 0
        fed.row.add(2)
        await fed.caught_up()

    run(fed, work)
    assert fed.function.calls == [[1, 2, 3]]


def test_records_of_a_key_stay_in_order_and_others_go_beside_them(tmp_path: Path) -> None:
    function = Function()
    function.seconds = 0.02
    dealt_with(Fed(tmp_path, Row(60, keys=8), function, batchSize=4, parallelizationFactor=4))
    assert function.overlap > 1  # that no key was under way twice is held in Function.invoke
    for key in range(8):
        of_key = [number for number in function.delivered if number % 8 == key]
        assert of_key == sorted(of_key)
    assert sorted(function.delivered) == list(range(1, 61))


def test_a_batch_that_failed_is_tried_until_it_is_done(tmp_path: Path) -> None:
    function = Function(lambda batch: OK if len(function.calls) > 4 else FAILED)
    fed = Fed(tmp_path, Row(3), function, batchSize=2)
    dealt_with(fed)
    assert function.calls == [[1, 2]] * 5 + [[3]]
    assert fed.feed.result == "OK" and vars(fed.feed.counts) == {"delivered": 3, "filtered": 0, "discarded": 0}


def test_what_fails_too_often_is_given_up_and_told(tmp_path: Path) -> None:
    function = Function(lambda batch: FAILED if 2 in batch else OK)
    function.refusals = [UnavailableError("the disk is full"), InvalidError("it has too many events")]
    dealt_with(Fed(tmp_path, Row(3), function, batchSize=2, maximumRetryAttempts=2, onFailure={"function": "g"}))
    assert function.calls == [[1, 2]] * 3 + [[3]]
    [told] = function.told
    assert told.pop("timestamp").endswith("Z") and told["requestContext"].pop("requestId")
    assert told == {
        "requestContext": {
            "functionArn": "arn:f/f",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "Batch": [1, 2],
    }


def test_halves_are_tried_for_themselves_and_halving_is_no_retry(tmp_path: Path) -> None:
    function = Function(lambda batch: FAILED if 3 in batch else OK)
    fields = {"maximumRetryAttempts": 0, "bisectBatchOnFunctionError": True, "onFailure": {"function": "g"}}
    dealt_with(Fed(tmp_path, Row(5), function, **fields))
    assert function.calls == [[1, 2, 3, 4, 5], [1, 2], [3, 4, 5], [3], [4, 5]]
    assert [told["Batch"] for told in function.told] == [[3]]


def reported(*failed: int) -> Answer:
    return Answer(json.dumps({"batchItemFailures": [{"itemIdentifier": str(number)} for number in failed]}).encode())


REPORTS = {"functionResponseTypes": ["ReportBatchItemFailures"], "maximumRetryAttempts": 1}


def test_what_a_function_reports_is_tried_from_the_first_that_failed(tmp_path: Path) -> None:
    function = Function(lambda batch: reported(*(n for n in batch if n in (3, 4))))
    fed = Fed(tmp_path, Row(5), function, **REPORTS)
    dealt_with(fed)
    assert function.calls == [[1, 2, 3, 4, 5], [3, 4, 5]]
    assert vars(fed.feed.counts) == {"delivered": 2, "filtered": 0, "discarded": 3}


def test_a_batch_that_gets_on_is_not_given_up(tmp_path: Path) -> None:
    """Retries are counted from the last record that was done."""
    function = Function(lambda batch: reported(*batch[1:]))
    fed = Fed(tmp_path, Row(4), function, **REPORTS)
    dealt_with(fed)
    assert function.calls == [[1, 2, 3, 4], [2, 3, 4], [3, 4], [4]] and fed.feed.counts.discarded == 0


RECORDS = Row(3).records


@pytest.mark.parametrize(
    ("answer", "done"),
    [
        (b"", 3),
        (b"null", 3),
        (b"{}", 3),
        (b'{"batchItemFailures": []}', 3),
        (b'{"batchItemFailures": null}', 3),
        (b'{"batchItemFailures": [{"itemIdentifier": "3"}, {"itemIdentifier": "2"}]}', 1),
        (b'{"batchItemFailures": [{"itemIdentifier": "1"}]}', 0),
        (b'{"batchItemFailures": [{"itemIdentifier": "2"}, {"itemIdentifier": "9"}]}', 0),
        (b'{"batchItemFailures": [{"itemIdentifier": ""}]}', 0),
        (b'{"batchItemFailures": [{"itemIdentifier": null}]}', 0),
        (b'{"batchItemFailures": [{"itemIdentifier": ["2"]}]}', 0),
        (b'{"batchItemFailures": [{"itemidentifier": "2"}]}', 0),
        (b'{"batchItemFailures": ["2"]}', 0),
        (b'{"batchItemFailures": 2}', 0),
        (b'"done"', 0),
        (b"[1]", 0),
        (b"{", 0),
        (b"[" * 100_000, 0),
    ],
)
def test_an_answer_says_how_many_are_done(answer: bytes, done: int) -> None:
    assert done_of(RECORDS, answer) == done


def test_what_is_too_old_is_given_up_without_being_tried(tmp_path: Path) -> None:
    row = Row()
    row.add(2, at=time.time() - 100)
    row.add(2)
    function = dealt_with(Fed(tmp_path, row, Function(), maximumRecordAge=60, onFailure={"function": "g"}))
    assert function.calls == [[3, 4]]
    [told] = function.told
    assert told["Batch"] == [1, 2] and told["requestContext"]["condition"] == "RecordAgeExceeded"
    assert "responseContext" not in told and told["requestContext"]["approximateInvokeCount"] == 0


def test_what_cannot_be_told_yet_is_neither_tried_nor_forgotten(tmp_path: Path) -> None:
    row = Row()
    row.add(2, at=time.time() - 100)
    function = Function()
    function.refusals = [UnavailableError("the disk is full")] * 1000
    fields = {"maximumRecordAge": 60, "onFailure": {"function": "g"}}
    fed = Fed(tmp_path, row, function, **fields)

    async def work() -> None:
        await fed.until(lambda: fed.feed.result == "PROBLEM: the disk is full")
        await fed.again(**fields)
        function.refusals.clear()
        await fed.caught_up()

    run(fed, work)
    assert not function.calls and [told["Batch"] for told in function.told] == [[1, 2]]


def test_without_an_age_records_are_tried_until_the_source_forgets_them(tmp_path: Path) -> None:
    function = Function(lambda _: FAILED)
    fed = Fed(tmp_path, Row(2), function)

    async def work() -> None:
        await fed.until(lambda: len(function.calls) > 3)
        fed.row.retention_seconds = -1.0
        await fed.caught_up()

    run(fed, work)
    assert all(call == [1, 2] for call in function.calls) and fed.feed.counts.discarded == 2


def test_a_function_that_cannot_be_invoked_is_waited_for(tmp_path: Path) -> None:
    def answers(batch: list[int]) -> Answer:
        if len(function.calls) < 6:
            raise UnavailableError("function f is not running on this node")
        return OK

    function = Function(answers)
    dealt_with(Fed(tmp_path, Row(2), function, maximumRetryAttempts=0))
    assert function.calls == [[1, 2]] * 6


def test_only_what_fits_a_filter_is_delivered(tmp_path: Path) -> None:
    filters = [{"n": [{"numeric": ["<", 3]}]}, {"n": [17]}]
    fed = Fed(tmp_path, Row(20), Function(), filters=filters, batchSize=2)
    assert dealt_with(fed).calls == [[1, 2], [17]]
    assert fed.feed.counts.filtered >= 17


def test_what_is_wanted_does_not_wait_for_the_end_of_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "GATHER_SECONDS_MAX", 0.02)
    fed = Fed(tmp_path, Row(1), Function(), filters=[{"n": [1]}])

    async def read(name: str, after: int, *_: Any) -> SourcePage:
        fed.row.add(2)  # it never ends
        return SourcePage(fed.row.records[after : after + 2], after + 2)

    monkeypatch.setattr(fed.row, "read", read)
    run(fed, lambda: fed.until(lambda: fed.function.calls))
    assert fed.function.calls[0] == [1]


def test_passing_over_much_leaves_others_their_turn(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Row(5000), Function(), filters=[{"n": [0]}])
    turns = 0

    async def work() -> None:
        nonlocal turns
        while not fed.feed.lanes or fed.feed.lanes[0].position < 5000:
            turns += fed.row.reads > 0
            await asyncio.sleep(0)

    run(fed, work)
    assert 2 * fed.row.reads > turns >= 5000 // lanes.READ_RECORDS_MAX  # and none of them waits


def test_what_comes_later_is_delivered_and_latest_begins_with_it(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Row(5), Function(), startingPosition="LATEST")

    async def work() -> None:
        await fed.caught_up()
        assert fed.function.calls == [] and fed.feed.age == 0
        fed.row.add(2)
        await fed.caught_up()

    run(fed, work)
    assert fed.function.delivered == [6, 7]


def test_the_oldest_record_is_the_first_of_the_stream(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Row(5), Function())
    fed.row.before = 3
    assert dealt_with(fed).calls == [[4, 5]]


def test_after_a_start_it_goes_on_where_it_was(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Row(5, keys=3), Function(), parallelizationFactor=3)

    async def work() -> None:
        await fed.caught_up()
        fed.row.add(5)
        await fed.again(parallelizationFactor=3, startingPosition="LATEST")
        await fed.caught_up()
        fed.row.add(5)
        await fed.again(parallelizationFactor=2)
        await fed.caught_up()

    run(fed, work)
    assert sorted(fed.function.delivered) == list(range(1, 16))


def test_other_lanes_begin_where_all_were(tmp_path: Path) -> None:
    """With another parallelizationFactor, records may come again, and none is passed over."""
    stuck = Function(lambda batch: FAILED if any(n % 5 == 1 for n in batch) and not stuck.told else OK)
    fed = Fed(tmp_path, Row(50, keys=5), stuck, parallelizationFactor=5, batchSize=3)

    async def work() -> None:
        await fed.until(lambda: sum(n % 5 != 1 for n in stuck.delivered) >= 20)
        fed.feed.configure(spec(parallelizationFactor=2, batchSize=3))
        await fed.until(lambda: len(fed.feed.lanes) == 2)
        stuck.told.append("go on")
        await fed.caught_up()

    run(fed, work)
    assert set(stuck.delivered) == set(range(1, 51))
    for key in range(5):
        first = list(dict.fromkeys(n for n in stuck.delivered if n % 5 == key))
        assert first == sorted(first)


def test_a_mapping_that_is_off_does_nothing(tmp_path: Path) -> None:
    fed = Fed(tmp_path, Row(2), Function())

    async def work() -> None:
        await fed.caught_up()
        fed.feed.configure(spec(enabled=False))
        await fed.until(lambda: not fed.feed.lanes)
        fed.row.add(3)
        await asyncio.sleep(0.05)
        assert fed.function.delivered == [1, 2] and fed.feed.facts()["state"] == "Disabled" and fed.feed.runs
        fed.feed.configure(spec(batchSize=2))
        await fed.until(lambda: fed.feed.lanes)
        await fed.caught_up()

    run(fed, work)
    assert fed.function.calls == [[1, 2], [3, 4], [5]]


def test_a_change_counts_from_the_next_batch_on(tmp_path: Path) -> None:
    function = Function(lambda _: FAILED if fed.feed.spec.batch_size == 2 else OK)
    fed = Fed(tmp_path, Row(6), function, batchSize=2)

    async def work() -> None:
        await fed.until(lambda: function.calls)
        fed.feed.configure(spec(batchSize=4))
        await fed.caught_up()

    run(fed, work)
    assert function.calls[-1] == [3, 4, 5, 6] and set(map(tuple, function.calls[:-1])) == {(1, 2)}


def test_a_source_or_a_disk_that_fails_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Fed(tmp_path, Row(3), Function())
    fed.row.problem = UnavailableError("the table t is not served")
    advance, failures = fed.checkpoints.advance, [UnavailableError("the disk is full")] * 3

    async def fails(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await advance(*arguments)

    monkeypatch.setattr(fed.checkpoints, "advance", fails)

    async def work() -> None:
        await fed.until(lambda: fed.feed.result == "PROBLEM: the table t is not served")
        fed.row.problem = None
        await fed.caught_up()

    run(fed, work)
    assert fed.function.calls == [[1, 2, 3]] and not failures


def test_a_source_that_has_less_than_was_read_goes_on_with_what_comes(tmp_path: Path) -> None:
    """As of a table that comes from an older backup than the checkpoints."""
    fed = Fed(tmp_path, Row(9), Function())

    async def work() -> None:
        await fed.caught_up()
        await fed.feed.close()
        fed.row.records = fed.row.records[:4]
        await fed.again()
        await fed.until(lambda: fed.feed.lanes)
        fed.row.add(2)
        await fed.caught_up()

    run(fed, work)
    assert fed.function.delivered == [*range(1, 10), 5, 6]


def test_closing_waits_for_a_batch_and_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = Function()
    function.seconds = 0.1
    fed = Fed(tmp_path, Row(1), function)

    async def work() -> None:
        await fed.until(lambda: function.under_way)
        await fed.again()
        assert function.calls == [[1]]
        function.seconds = 60
        fed.row.add(1)
        await fed.until(lambda: function.under_way)
        await fed.feed.close(0.01)
        function.under_way.clear()
        function.seconds = 0
        await fed.again()
        await fed.caught_up()

    run(fed, work)
    assert function.calls == [[1], [2]]


@pytest.mark.parametrize("seed", range(200 if os.environ.get("OWSGIT_SOAK") else 8))
def test_ended_at_any_moment_it_loses_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    def answers(batch: list[int]) -> Answer:
        return chance.choice([OK, FAILED, reported(), reported(*batch[-1:]), reported(*batch[len(batch) // 2 :])])

    function = Function(answers)
    done: set[int] = set()
    answered = function.answers

    def told(batch: list[int]) -> Answer:
        answer = answered(batch)
        if answer.error is None:
            done.update(batch[: done_of([SourceRecord(n, 0, str(n), b"") for n in batch], answer.payload)])
        return answer

    function.answers = told
    fields = {
        "functionResponseTypes": ["ReportBatchItemFailures"],
        "bisectBatchOnFunctionError": True,
        "parallelizationFactor": chance.choice([1, 3]),
        "batchSize": chance.choice([1, 4, 100]),
    }
    function.seconds = 0.001
    fed = Fed(tmp_path, Row(60, keys=5), function, **fields)

    async def work() -> None:
        for _ in range(10):
            await asyncio.sleep(chance.uniform(0, 0.02))
            await fed.feed.close(0)
            function.under_way.clear()
            await fed.again(**fields)
        await fed.caught_up()

    run(fed, work)
    assert done == set(range(1, 61))
    for key in range(5):
        first = list(dict.fromkeys(n for n in function.delivered if n % 5 == key))
        assert first == sorted(first)


def test_checkpoints_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    path = tmp_path / "event-sources.db"

    async def positions() -> Iterable[int]:
        checkpoints = Checkpoints(path)
        try:
            return await checkpoints.positions("m")
        finally:
            await checkpoints.close()

    async def forget() -> None:
        await Checkpoints(path).forget("m")

    asyncio.run(forget())
    assert not path.exists()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UnavailableError, match="cannot be read or written"):
        asyncio.run(positions())
    path.unlink()
    assert asyncio.run(positions()) == []
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(UnavailableError, match="has the format 7"):
        asyncio.run(positions())


@pytest.mark.parametrize("name", ["..", "_f", "-" * 64, "f" * 65])
def test_a_function_that_can_be_none_is_refused_at_once(name: str) -> None:
    with pytest.raises(ServiceError, match=f"FunctionName: '{name}' is not the name of a function"):
        changing.name_for({"function": name, "source": {"table": "t"}}, {})


def test_patterns_are_no_deeper_than_a_file_may_be() -> None:
    for depth in (300, 1000):
        deep = {"FilterCriteria": {"Filters": [{"Pattern": '{"a": %s}' % ("[" * depth + "]" * depth)}]}}
        with pytest.raises(ServiceError, match="Invalid filter pattern definition"):
            changing.updated({}, deep)
