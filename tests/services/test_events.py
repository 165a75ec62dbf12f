"""Asynchronous invocation: what is accepted is delivered, in Lambda's ways, whatever happens."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime.budget import ThrottledError
from owsgit.services.functions import events as events_module
from owsgit.services.functions import records, tally
from owsgit.services.functions.dispatch import Dispatcher
from owsgit.services.functions.event import Buried, Event
from owsgit.services.functions.events import EventStore
from owsgit.services.functions.lane import PLACES_MAX, Lane, Places
from owsgit.services.functions.records import Condition, Outcome
from owsgit.services.functions.rules import PAYLOAD_BYTES_MAX, Delays, Rules
from owsgit.services.functions.spec import AsyncInvoke

QUICK = Delays(retries=(0.01, 0.02), throttled_first=0.01, throttled_max=0.05, write_again=0.05, settling=0.0)
FAILED = Answer(b'{"errorType": "ValueError", "errorMessage": "no"}', "Unhandled")


class Functions:
    """What is invoked: a small real target. Functions answer what `behave` says; without it, they succeed."""

    def __init__(self, folder: Path, *names: str, delays: Delays = QUICK) -> None:
        self.path = folder / "events.db"
        self.delays = delays
        self.invoked: list[tuple[str, Invocation]] = []
        self.behave: dict[str, Callable[[Invocation], Awaitable[Answer]]] = {}
        self.ahead = 0.0  # seconds by which the clock was set forward
        self.rules: dict[str, Rules] = {}
        for name in names:
            self.has(name)

    def has(self, name: str, concurrency: int = 10, **fields: Any) -> None:
        self.rules[name] = Rules(
            AsyncInvoke.model_validate(fields), concurrency, f"arn:aws:lambda:eu:1:function:{name}", "$LATEST"
        )

    def answers(self, name: str, *answers: Answer | Exception) -> None:
        """One after the other; the last one for ever."""
        left = list(answers)

        async def behave(invocation: Invocation) -> Answer:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.behave[name] = behave

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        function = name.partition(":")[0]
        if function not in self.rules:
            raise UnavailableError(f"function {name} is not running")
        self.invoked.append((name, invocation))
        behave = self.behave.get(function)
        return await behave(invocation) if behave else Answer(b'"done"')

    def start(self) -> Dispatcher:
        return Dispatcher(
            self.path,
            self.invoke,
            lambda name: self.rules.get(name.partition(":")[0]),
            delays=self.delays,
            now=lambda: time.time() + self.ahead,
        )

    def payloads(self, name: str) -> list[Any]:
        return [json.loads(invocation.payload) for called, invocation in self.invoked if called == name]


def event(value: Any = None, **fields: Any) -> Invocation:
    return Invocation(json.dumps(value).encode(), str(uuid.uuid4()), **fields)


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.002)


def run(functions: Functions, work: Callable[[Dispatcher], Awaitable[None]]) -> None:
    """Run `work` with a dispatcher, in a loop of its own."""

    async def whole() -> None:
        dispatcher = functions.start()
        try:
            await work(dispatcher)
        finally:
            await dispatcher.close()

    asyncio.run(whole())


def is_empty(dispatcher: Dispatcher, *names: str) -> bool:
    facts = [dispatcher.facts(name) for name in names]
    return all(each["queued"] == each["inFlight"] == 0 for each in facts)


def dead(dispatcher: Dispatcher, name: str) -> list[dict[str, Any]]:
    return [each for each in dispatcher.events(name)["events"] if each["state"] == "deadLetter"]


def test_an_accepted_event_is_invoked_once_and_forgotten(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "f")
    sent = event({"a": 1}, trace_id="Root=1", client_context=b"{}")

    async def work(dispatcher: Dispatcher) -> None:
        assert await dispatcher.enqueue("f", sent) == sent.request_id
        await until(lambda: is_empty(dispatcher, "f"))

    run(functions, work)
    assert functions.invoked == [("f", sent)]
    run(functions, lambda dispatcher: asyncio.sleep(0.05))
    assert len(functions.invoked) == 1


def test_an_error_is_retried_twice_and_the_record_goes_to_the_destination(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "mourner")
    functions.has("f", onFailure={"function": "mourner"})
    functions.answers("f", FAILED)
    sent = event({"a": [1]})

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", sent)
        await until(lambda: functions.payloads("mourner"))
        await until(lambda: is_empty(dispatcher, "f", "mourner"))
        assert dead(dispatcher, "f") == []

    run(functions, work)
    assert [each.request_id for name, each in functions.invoked if name == "f"] == [sent.request_id] * 3
    (record,) = functions.payloads("mourner")
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": sent.request_id,
            "functionArn": "arn:aws:lambda:eu:1:function:f:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"a": [1]},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorType": "ValueError", "errorMessage": "no"},
    }


def test_the_waits_between_retries_are_lambdas() -> None:
    delays = Delays()
    assert (delays.retries, delays.throttled_first, delays.throttled_max) == ((60.0, 120.0), 1.0, 300.0)


@pytest.mark.parametrize("retries", [0, 1])
def test_the_number_of_retries_is_the_functions_own(tmp_path: Path, retries: int) -> None:
    functions = Functions(tmp_path)
    functions.has("f", maximumRetryAttempts=retries)
    functions.answers("f", FAILED)

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event(1))
        await until(lambda: dead(dispatcher, "f"))
        (letter,) = dead(dispatcher, "f")
        assert letter["reason"] == "RetriesExhausted" and letter["invocations"] == retries + 1
        assert json.loads(letter["error"])["errorMessage"] == "no"

    run(functions, work)
    assert len(functions.invoked) == retries + 1


def test_a_retry_that_succeeds_goes_to_the_destination_of_successes(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "next")
    functions.has("f", onSuccess={"function": "next"})
    functions.answers("f", FAILED, Answer(b"not json"))

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f:live", event("in"))
        await until(lambda: functions.payloads("next"))

    run(functions, work)
    (record,) = functions.payloads("next")
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["requestContext"]["functionArn"].endswith(":function:f:live")
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert (record["requestPayload"], record["responsePayload"]) == ("in", "not json")


def test_throttles_and_outages_are_waited_out_and_count_as_no_invocation(tmp_path: Path) -> None:
    functions = Functions(tmp_path)
    functions.has("f", maximumRetryAttempts=0, onSuccess={"function": "next"})
    functions.has("next")
    functions.answers(
        "f", *[ThrottledError("Rate Exceeded.")] * 3, UnavailableError("gone"), KeyError("x"), Answer(b"1")
    )

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event(1))
        await until(lambda: functions.payloads("next"))

    run(functions, work)
    assert functions.payloads("next")[0]["requestContext"]["approximateInvokeCount"] == 1


def test_what_waits_for_a_function_that_comes_is_invoked_at_once(tmp_path: Path) -> None:
    functions = Functions(tmp_path, delays=Delays(throttled_first=3600, throttled_max=3600))

    async def work(dispatcher: Dispatcher) -> None:
        for number in range(20):
            await dispatcher.enqueue("f", event(number))
        await until(lambda: dispatcher.facts("f")["queued"] == 20)
        functions.has("f")
        dispatcher.serves("f")
        await until(lambda: is_empty(dispatcher, "f"))

    run(functions, work)
    assert sorted(functions.payloads("f")) == list(range(20))


def test_an_event_that_is_too_old_is_given_up(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "mourner")
    functions.has("f", maximumEventAge=60, onFailure={"function": "mourner"})
    functions.answers("f", ThrottledError("Rate Exceeded."))

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event(1))
        await until(lambda: functions.invoked)
        functions.ahead = 61.0
        await until(lambda: functions.payloads("mourner"))

    run(functions, work)
    (record,) = functions.payloads("mourner")
    assert record["requestContext"]["condition"] == "EventAgeExceeded" and "responsePayload" not in record
    assert record["requestContext"]["approximateInvokeCount"] == 0


def test_events_of_a_function_that_was_deleted_wait_for_six_hours_and_become_dead_letters(tmp_path: Path) -> None:
    functions = Functions(tmp_path)

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("gone", event(1))
        functions.ahead = 6 * 3600.0 - 5
        await asyncio.sleep(0.1)
        assert not is_empty(dispatcher, "gone") and dead(dispatcher, "gone") == []
        functions.ahead = 6 * 3600.0 + 5
        await until(lambda: len(dead(dispatcher, "gone")) == 1)
        assert dead(dispatcher, "gone")[0]["reason"] == "EventAgeExceeded"

    run(functions, work)


def test_after_a_start_nothing_is_given_up_before_functions_can_run(tmp_path: Path) -> None:
    functions = Functions(tmp_path)
    run(functions, lambda dispatcher: _sent(dispatcher, "f"))
    functions.ahead = 24 * 3600.0
    functions.delays = Delays(throttled_first=0.01, settling=3600)

    async def work(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(0.1)
        assert not is_empty(dispatcher, "f") and dead(dispatcher, "f") == []

    run(functions, work)


async def _sent(dispatcher: Dispatcher, name: str) -> None:
    await dispatcher.enqueue(name, event(1))


def test_destinations_that_go_in_circles_are_stopped_after_sixteen(tmp_path: Path) -> None:
    functions = Functions(tmp_path)
    functions.has("f", onSuccess={"function": "f"})

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event("again"))
        await until(lambda: dead(dispatcher, "f") and is_empty(dispatcher, "f"))
        (letter,) = dead(dispatcher, "f")
        assert letter["reason"] == "RecursiveLoop"

    run(functions, work)
    assert len(functions.invoked) == 17


def test_a_record_that_no_function_can_take_leaves_the_event_as_a_dead_letter(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "next")
    functions.has("f", onSuccess={"function": "next"})
    functions.answers("f", Answer(b'"' + b"x" * (6 * 1024 * 1024 - 2) + b'"'))

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event("kept"))
        await until(lambda: dead(dispatcher, "f"))
        assert dead(dispatcher, "f")[0]["reason"] == "RecordTooLarge"

    run(functions, work)


def test_a_delayed_event_comes_later(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "f")

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event("late"), delay=3600)
        await dispatcher.enqueue("f", event("now"))
        await until(lambda: functions.payloads("f"))
        await until(lambda: dispatcher.facts("f")["queued"] == 1)
        assert functions.payloads("f") == ["now"]
        functions.ahead = 3601
        await dispatcher.enqueue("f", event("then"))  # a look at the clock
        await until(lambda: len(functions.invoked) == 3)

    run(functions, work)
    assert sorted(functions.payloads("f")) == ["late", "now", "then"]


def test_an_idempotency_key_has_an_event_taken_once(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "f", "g")

    async def work(dispatcher: Dispatcher) -> None:
        first = await dispatcher.enqueue("f", event(1), key="order-7")
        together = await asyncio.gather(*(dispatcher.enqueue("f", event(1), key="order-7") for _ in range(20)))
        assert set(together) == {first}
        with pytest.raises(InvalidError, match="'order-7' came with another event"):
            await dispatcher.enqueue("f", event(2), key="order-7")
        assert await dispatcher.enqueue("g", event(2), key="order-7") != first
        await until(lambda: is_empty(dispatcher, "f", "g"))
        functions.ahead = 24 * 3600 + 1
        assert await dispatcher.enqueue("f", event(2), key="order-7") != first
        await until(lambda: is_empty(dispatcher, "f", "g"))

    run(functions, work)
    assert functions.payloads("f") == [1, 2] and functions.payloads("g") == [2]


def test_what_is_too_large_is_refused(tmp_path: Path) -> None:
    async def work(dispatcher: Dispatcher) -> None:
        with pytest.raises(InvalidError, match="1,048,577 bytes"):
            await dispatcher.enqueue("f", Invocation(b"x" * (PAYLOAD_BYTES_MAX + 1), "1"))
        with pytest.raises(InvalidError, match="256 printable"):
            await dispatcher.enqueue("f", event(), key="k" * 257)
        with pytest.raises(InvalidError, match="86400 s"):
            await dispatcher.enqueue("f", event(), delay=86401)
        with pytest.raises(InvalidError, match="client context"):
            await dispatcher.enqueue("f", event(client_context=b"x" * 4000))

    run(Functions(tmp_path, "f"), work)


def test_a_full_queue_throttles_its_function_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "QUEUED_MAX", 3)
    monkeypatch.setattr(tally, "NODE_BYTES_MAX", 100)

    async def work(dispatcher: Dispatcher) -> None:
        sent = [dispatcher.enqueue(name, event(1)) for name in ("f", "f:a", "f:b", "f", "f@c", "g")]
        results = await asyncio.gather(*sent, return_exceptions=True)
        assert [isinstance(result, ThrottledError) for result in results] == [False, False, False, True, True, False]
        with pytest.raises(ThrottledError, match="no more than 100 bytes"):
            await dispatcher.enqueue("g", event("x" * 100))

    run(Functions(tmp_path), work)


def test_many_events_of_one_function_do_not_delay_another(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "quick")
    functions.has("slow", concurrency=1000)
    held = asyncio.Event()

    async def hold(invocation: Invocation) -> Answer:
        await held.wait()
        return Answer(b"1")

    functions.behave["slow"] = hold

    async def work(dispatcher: Dispatcher) -> None:
        await asyncio.gather(*(dispatcher.enqueue("slow", event(number)) for number in range(2000)))
        await until(lambda: dispatcher.facts("slow")["inFlight"] == PLACES_MAX * 3 // 4)
        for number in range(50):
            await dispatcher.enqueue("quick", event(number))
        await until(lambda: len(functions.payloads("quick")) == 50)
        assert len(functions.payloads("slow")) == PLACES_MAX * 3 // 4
        held.set()
        await until(lambda: is_empty(dispatcher, "slow"))

    run(functions, work)
    assert sorted(functions.payloads("slow")) == list(range(2000))


def test_a_functions_events_run_at_once_up_to_its_concurrency(tmp_path: Path) -> None:
    functions = Functions(tmp_path)
    functions.has("f", concurrency=3)
    running: list[int] = [0, 0]

    async def behave(invocation: Invocation) -> Answer:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.002)
        running[0] -= 1
        return Answer(b"1")

    functions.behave["f"] = behave

    async def work(dispatcher: Dispatcher) -> None:
        await asyncio.gather(*(dispatcher.enqueue("f", event(number)) for number in range(60)))
        await until(lambda: is_empty(dispatcher, "f"))

    run(functions, work)
    assert running[1] == 3


def test_places_are_kept_for_lanes_with_few() -> None:
    places, hog, other = Places(8), Lane("hog"), Lane("other")
    for id_ in range(6):
        assert places.room(hog) > 0
        places.take(hog, id_)
    assert places.room(hog) == 0 and places.room(other) == 2
    places.take(other, 10)
    places.take(other, 11)
    assert places.room(other) == 0 and places.room(Lane("third")) == 0
    hog.wake.clear()
    places.give(other, 10)
    assert hog.wake.is_set()


def test_dead_letters_are_listed_redriven_and_dropped(tmp_path: Path) -> None:
    functions = Functions(tmp_path)
    functions.has("f", maximumRetryAttempts=0)
    functions.answers("f", FAILED)

    async def work(dispatcher: Dispatcher) -> None:
        ids = [await dispatcher.enqueue("f", event(number)) for number in range(4)]
        await until(lambda: len(dead(dispatcher, "f")) == 4)
        assert {letter["requestId"] for letter in dead(dispatcher, "f")} == set(ids)
        with pytest.raises(InvalidError, match="no dead letter 'nothing'"):
            await dispatcher.redrive("f", ["nothing"])
        assert await dispatcher.drop("f", [ids[0]]) == [ids[0]]
        functions.answers("f", Answer(b"1"))
        assert await dispatcher.redrive("f", [ids[1]]) == [ids[1]]
        await until(lambda: len(functions.invoked) == 5 and is_empty(dispatcher, "f"))
        assert sorted(await dispatcher.redrive("f", [])) == sorted(ids[2:])
        await until(lambda: len(functions.invoked) == 7 and is_empty(dispatcher, "f"))
        assert dead(dispatcher, "f") == []

    run(functions, work)
    assert sorted(functions.payloads("f")) == [0, 1, 1, 2, 2, 3, 3]


def test_the_oldest_dead_letters_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "DEAD_LETTERS_MAX", 3)
    monkeypatch.setattr(tally, "DEAD_LETTER_BYTES_MAX", 100)

    async def work() -> None:
        store = EventStore(tmp_path / "events.db")
        for number in range(6):
            await _bury(store, Event(f"f{number}", "f", b"x", 0.0), float(number))
        _, letters = store.read.listed("f", 100)
        assert [letter.request_id for letter in letters] == ["f5", "f4", "f3"]
        await _bury(store, Event("g0", "g", b"x" * 60, 0.0), 10.0)
        await _bury(store, Event("g1", "g", b"x" * 60, 0.0), 11.0)
        assert [letter.request_id for letter in store.read.listed("g", 100)[1]] == ["g1"]
        assert store.tally.dead["f"].count == 3
        await store.prune(20.0 + events_module.DEAD_LETTER_SECONDS_MAX)
        assert store.read.listed("f", 100) == ([], []) and not store.tally.dead
        store.close()

    asyncio.run(work())


async def _bury(store: EventStore, new: Event, now: float) -> None:
    await store.add(new, "", now)
    (stored,) = store.read.due(new.function, now, 1, ()).events
    await store.bury(stored, Buried("RetriesExhausted"), now)


def test_what_runs_as_the_node_stops_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.services.functions.dispatch.CLOSE_SECONDS_MAX", 0.05)
    functions = Functions(tmp_path, "f")
    functions.behave["f"] = lambda invocation: asyncio.sleep(3600, Answer(b"1"))

    async def work(dispatcher: Dispatcher) -> None:
        await dispatcher.enqueue("f", event(1))
        await until(lambda: functions.invoked)

    run(functions, work)
    functions.behave.clear()

    async def again(dispatcher: Dispatcher) -> None:
        await until(lambda: is_empty(dispatcher, "f"))

    run(functions, again)
    assert functions.payloads("f") == [1, 1]


def test_a_caller_who_goes_away_leaves_an_event_that_is_delivered(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "f")

    async def work(dispatcher: Dispatcher) -> None:
        caller = asyncio.ensure_future(dispatcher.enqueue("f", event(1)))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await until(lambda: functions.invoked)

    run(functions, work)


def test_those_who_come_together_share_a_commit(tmp_path: Path) -> None:
    async def work() -> None:
        store = EventStore(tmp_path / "events.db")
        commits: list[str] = []
        store._writer._database.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        await asyncio.gather(*(store.add(Event(str(number), "f", b"1", 0.0), "", 0.0) for number in range(400)))
        assert store.tally.queued("f").count == 400 and len(commits) < 40
        store.close()

    asyncio.run(work())


def test_one_write_that_cannot_be_made_costs_no_other_one(tmp_path: Path) -> None:
    async def work() -> None:
        store = EventStore(tmp_path / "events.db")
        store._writer._database.execute("PRAGMA max_page_count = 40")  # a disk that is full for what is large
        small = [Event(f"s{number}", "f", b"1", 0.0) for number in range(10)]
        large = [Event(f"l{number}", "f", b"x" * 1_000_000, 0.0) for number in range(2)]
        results = await asyncio.gather(
            *(store.add(each, "", 0.0) for each in [*small[:5], *large, *small[5:]]), return_exceptions=True
        )
        assert [isinstance(result, UnavailableError) for result in results] == [False] * 5 + [True] * 2 + [False] * 5
        assert "free some space" in str(results[5])
        assert store.tally.queued("f") == tally.Count(10, 10)
        store.close()
        again = EventStore(tmp_path / "events.db")
        assert [each.request_id for each in again.read.due("f", 1.0, 100, ()).events] == [
            each.request_id for each in small
        ]
        again.close()

    asyncio.run(work())


@pytest.mark.hardware("the right to mount a file system")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system that is full")
def test_on_a_full_disk_nothing_accepted_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        functions = Functions(disk)

        async def work(dispatcher: Dispatcher) -> None:
            accepted: set[str] = set()
            with pytest.raises(UnavailableError, match="free some space"):
                while True:
                    accepted.add(await dispatcher.enqueue("f", event("x" * 100_000)))
            assert accepted
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
                while file.write(b"x" * 4096):
                    pass
            functions.has("f")
            dispatcher.serves("f")
            await until(lambda: functions.invoked)
            filler.unlink()
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            await until(lambda: is_empty(dispatcher, "f"))
            assert accepted <= {invocation.request_id for _, invocation in functions.invoked}
            await dispatcher.enqueue("f", event("y"))

        run(functions, work)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_file_that_cannot_be_used_is_told_to_who_needs_it(tmp_path: Path) -> None:
    functions = Functions(tmp_path, "f")
    functions.path.write_bytes(b"this is not a database" * 1000)

    async def damaged(dispatcher: Dispatcher) -> None:
        assert dispatcher.facts("f") == {}
        with pytest.raises(UnavailableError, match="cannot be read: file is not a database"):
            await dispatcher.enqueue("f", event(1))
        functions.path.unlink()
        await dispatcher.enqueue("f", event(1))

    run(functions, damaged)
    database = sqlite3.connect(functions.path)
    database.execute("PRAGMA user_version = 2")
    database.close()

    async def newer(dispatcher: Dispatcher) -> None:
        with pytest.raises(UnavailableError, match="format 2"):
            await dispatcher.enqueue("f", event(1))

    run(functions, newer)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["add", "keyed", "done", "follow", "bury", "again", "redrive", "drop"]),
                          st.sampled_from(["f", "f:a", "g"]), st.integers(0, 3)), max_size=40))  # fmt: skip
def test_the_counts_are_what_is_in_the_file(tmp_path: Path, steps: list[tuple[str, str, int]]) -> None:
    path = tmp_path / f"{uuid.uuid4()}.db"

    async def work() -> None:
        store = EventStore(path)
        for verb, name, number in steps:
            new = Event(str(uuid.uuid4()), name, b"x" * number, 0.0)
            found = store.read.due(name, 1.0, 1, ()).events
            if verb in ("add", "keyed"):
                await store.add(new, f"{name}{number}" if verb == "keyed" else "", 0.0)
            elif verb in ("redrive", "drop"):
                await (store.redrive(new.resource, [], 0.0) if verb == "redrive" else store.drop(new.resource, []))
            for each in found:
                if verb == "done":
                    await store.done(each, None, None, 0.0)
                elif verb == "follow":
                    await store.done(each, new, Buried("RecursiveLoop") if number else None, 0.0)
                elif verb == "bury":
                    await store.bury(each, Buried("RetriesExhausted"), 0.0)
                elif verb == "again":
                    await store.try_again(each, 0.5)
        counted = vars(store.tally)
        store.close()
        again = EventStore(path)
        assert _without_zeros(vars(again.tally)) == _without_zeros(counted)
        again.close()

    asyncio.run(work())


def _without_zeros(counts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: each for key, each in value.items() if each} for name, value in counts.items()}


def test_a_record_of_what_is_no_json_is_json() -> None:
    for payload in (b"\xff", b"", b"[" * 100_000):
        made = records.make(Event("1", "f", payload, 0.0), Outcome(Condition.EVENT_AGE_EXCEEDED, 0), "a", "v", 1.5)
        assert json.loads(made)["requestPayload"] == payload.decode("utf-8", "replace")
        assert json.loads(made)["timestamp"] == "1970-01-01T00:00:01.500Z"


VICTIM = """
import asyncio, os, sys, uuid
from pathlib import Path
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.services.functions.dispatch import Dispatcher
from owsgit.services.functions.rules import Delays, Rules
from owsgit.services.functions.spec import AsyncInvoke

folder, last = Path(sys.argv[1]), sys.argv[2] == "last"
accepted, delivered = (os.open(folder / n, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for n in ("accepted", "delivered"))
rules = {
    "f": Rules(AsyncInvoke.model_validate({"onSuccess": {"function": "g"}}), 5, "arn:f", "1"),
    "g": Rules(AsyncInvoke(), 5, "arn:g", "1"),
}
calls = 0

async def invoke(name, invocation):
    global calls
    calls += 1
    await asyncio.sleep(0.001)
    if not last and calls % 7 == 0:
        raise UnavailableError("busy")
    if not last and calls % 11 == 0:
        return Answer(b'"no"', "Unhandled")
    os.write(delivered, f"{name} {invocation.payload.decode()!r}\\n".encode())
    return Answer(b"1")

async def send(dispatcher):
    while True:
        id_ = str(uuid.uuid4())
        await dispatcher.enqueue("f", Invocation(f'"{id_}"'.encode(), id_))
        os.write(accepted, f"{id_}\\n".encode())

async def main():
    delays = Delays((0.005, 0.005), 0.005, 0.01, 0.01, 3600.0)
    dispatcher = Dispatcher(folder / "events.db", invoke, rules.get, delays=delays)
    if last:
        while any(dispatcher.facts(n)["queued"] or dispatcher.facts(n)["inFlight"] for n in "fg"):
            await asyncio.sleep(0.01)
        await dispatcher.redrive("f", [])
        await dispatcher.redrive("g", [])
        while any(dispatcher.facts(n)["queued"] or dispatcher.facts(n)["inFlight"] for n in "fg"):
            await asyncio.sleep(0.01)
        await dispatcher.close()
    else:
        await asyncio.gather(*(send(dispatcher) for _ in range(4)))

asyncio.run(main())
"""


def test_killed_at_any_instruction_every_accepted_event_is_delivered(tmp_path: Path) -> None:
    """The process accepts and dispatches; each function's success goes to another one; nothing may be lost on the way."""
    command = [sys.executable, "-c", VICTIM, str(tmp_path)]
    chance = random.Random(5)
    for kill in range(6):
        victim = subprocess.Popen([*command, "go"], start_new_session=True)
        size = (tmp_path / "accepted").stat().st_size if kill else 0
        deadline = time.monotonic() + 30
        while not (tmp_path / "accepted").exists() or (tmp_path / "accepted").stat().st_size == size:
            assert victim.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.2))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    subprocess.run([*command, "last"], check=True, timeout=60)
    accepted = set((tmp_path / "accepted").read_text().split())
    text = (tmp_path / "delivered").read_text()
    assert len(accepted) >= 24
    for id_ in accepted:
        assert f"f '\"{id_}\"'\n" in text, id_
        assert f'"requestId": "{id_}"' in text, id_
