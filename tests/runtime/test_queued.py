"""Requests that wait in a worker behind others: nobody notices, whatever becomes of the worker or of who is before."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.service import Answer, Invocation
from owsgit.runtime import pool, queued
from owsgit.runtime.call import Call
from owsgit.runtime.forkserver import ForkedSandbox
from owsgit.runtime.frames import Frames
from owsgit.runtime.log_reader import last_lines
from owsgit.runtime.pool import Pool
from owsgit.runtime.python_worker import CHUNK, HEADER
from owsgit.runtime.queued import QueuedWorker
from tests.support.processes import freeze

Make = Callable[..., Any]

DOES_AS_IT_IS_TOLD = """
import os, time

served = 0

def handler(event, context):
    global served
    served += 1
    if event == "say":
        print("said by", context.aws_request_id)
        os.system("echo shell of " + context.aws_request_id)
    if event == "much":
        print("x" * 200_000)
    if event == "die":
        os._exit(3)
    if event == "sleep":
        time.sleep(0.5)
    if event == "hang":
        time.sleep(60)
    return [event, os.getpid(), served, context.get_remaining_time_in_millis()]
"""


@pytest.fixture
def told(function: Make) -> Any:
    made = function(DOES_AS_IT_IS_TOLD, workers=2, timeout=2.0)
    made.run(*["warm"] * 50)  # so that its requests are known to be brief
    return made


def values(answers: list[Answer]) -> list[Any]:
    return [json.loads(answer.payload)[0] if answer.error is None else answer.error for answer in answers]


def test_many_wait_in_one_worker_and_are_answered_in_order(told: Any) -> None:
    events = list(range(300))
    assert values(told.run(*events)) == events
    assert len(told.pool.idle) <= 2


def test_of_a_queue_that_is_full_what_it_has_not_got_goes_elsewhere(told: Any) -> None:
    for worker in told.pool.idle:
        worker._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # room for a few
    events = list(range(100))
    assert values(told.run(*events)) == events
    assert any(worker._depth < queued.DEPTH for worker in told.pool.idle)


def test_only_the_request_that_ends_its_worker_fails(told: Any) -> None:
    events = ["a", "die", *range(20), "die", "b"]
    assert values(told.run(*events)) == ["a", "Unhandled", *range(20), "Unhandled", "b"]


def test_who_waits_behind_a_slow_one_is_given_to_another(told: Any) -> None:
    answers: list[tuple[Any, float]] = []
    began = time.monotonic()

    async def ask(event: Any) -> None:
        answer = await told.pool.invoke(Invocation(json.dumps(event).encode(), f"request-{event}"))
        answers.append((json.loads(answer.payload)[0], time.monotonic() - began))

    async def ask_all() -> None:
        await asyncio.gather(*(ask(event) for event in ("sleep", *range(20))))

    told.lab.loop.run_until_complete(ask_all())
    assert sorted(value for value, _ in answers if value != "sleep") == list(range(20))
    assert [value for value, _ in answers].index("sleep") >= 10, "they did not wait for it"


def test_a_timeout_counts_from_when_the_request_began_and_ends_no_other(told: Any) -> None:
    found = values(told.run("sleep", "sleep", "hang", "sleep", *range(5)))
    assert found == ["sleep", "sleep", "Unhandled", "sleep", *range(5)]


def test_each_request_has_its_own_output_even_if_others_wait_behind_it(function: Make) -> None:
    for _ in range(8):  # each with workers that never wrote anything: from the first time on they have no queue
        made = function(DOES_AS_IT_IS_TOLD, workers=2)
        made.run(*["warm"] * 50)
        made.run(*["say", "quiet"] * 6, *["quiet"] * 20, "say")
        lines = [json.loads(line) for line in last_lines(made.folder / "log", 10_000)]
        said = [line for line in lines if line["message"].startswith(("said", "shell"))]
        assert len(said) == 14
        assert [line["message"].split()[-1] for line in said] == [line["requestId"] for line in said]


def test_the_log_says_that_a_request_has_begun_while_it_runs(told: Any) -> None:
    async def look() -> list[str]:
        call: Call = told.pool.submit(Invocation(b'"sleep"', "slow"))
        async with asyncio.timeout(20):
            while True:
                lines = [json.loads(line) for line in last_lines(told.folder / "log", 10)]
                if found := [line["message"] for line in lines if line["requestId"] == "slow"]:
                    break
                await asyncio.sleep(0.01)
        assert not call.answer.done()
        await call.answer
        return found

    assert told.lab.loop.run_until_complete(look()) == ["START RequestId: slow Version: $LATEST"]
    lines = [json.loads(line) for line in last_lines(told.folder / "log", 3)]
    assert [line["message"].split(" ")[0] for line in lines] == ["START", "END", "REPORT"]
    assert lines[0]["time"] < lines[1]["time"]


def test_who_wants_the_end_of_the_log_gets_it(told: Any) -> None:
    (with_log,), (without,) = told.run("say", wants_log=True), told.run("say")
    start, said, shell, end, report = with_log.log_tail.decode().splitlines()
    assert (start.split()[0], said[:4], shell[:5], end.split()[0]) == ("START", "said", "shell", "END")
    assert report.startswith("REPORT") and without.log_tail == b""


def test_the_node_stays_awake_for_a_brief_request_and_sleeps_while_a_long_one_runs(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    stay = Pool._stay_awake

    def counted(pool: Pool) -> None:
        nonlocal turns
        turns += 1
        stay(pool)

    monkeypatch.setattr(Pool, "_stay_awake", counted)
    monkeypatch.setattr(pool, "PROCESSORS", 2)
    told.pool._typical = 0.00001
    assert values(told.run("brief")) == ["brief"] and turns > 0
    before = time.process_time()
    told.pool._typical = 0.00001
    assert values(told.run("sleep")) == ["sleep"]  # it was taken for a brief one as well
    assert time.process_time() - before < 0.25
    turns = 0
    told.pool._typical = 0.01
    assert values(told.run("brief")) == ["brief"] and turns == 0


def test_a_request_that_fills_the_pipe_goes_on(told: Any) -> None:
    assert values(told.run("much", "a", "b")) == ["much", "a", "b"]
    assert any("x" * 1000 in line for line in told.log())


def test_events_too_long_for_the_queue_go_between_others(told: Any) -> None:
    events = ["a", "x" * 100_000, "b", "y" * 20_000, *range(10), "z" * 1_000_000]
    assert values(told.run(*events)) == events


def test_a_worker_that_was_killed_while_idle_costs_no_request(told: Any) -> None:
    for _ in range(5):
        (answer,) = told.run("who")
        (worker, *_) = [each for each in told.pool.idle if isinstance(each, QueuedWorker)]
        running = worker._running
        assert isinstance(running, ForkedSandbox)
        freeze(running.pid)
        running.kill()
        assert values(told.run(*range(5))) == list(range(5))
        assert answer.error is None


ENDS_WHILE_IDLE = """
import os, socket
socket.socket.recv = lambda *arguments: os._exit(0)
def handler(event, context): return event
"""


def test_a_worker_that_always_ends_before_its_requests_is_not_started_for_ever(function: Make) -> None:
    answers = function(ENDS_WHILE_IDLE).run("a", "b")
    assert values(answers) == ["Unhandled"] * 2
    assert all(b"Runtime.ExitError" in answer.payload for answer in answers)


KILLED_AS_A_REQUEST_COMES = """
import os, signal, socket, time
from owsgit.runtime import python_worker

kept = 0
for _ in range(100):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not (pid := os.fork()):
        python_worker.Queue(None, theirs.fileno()).take()
        os._exit(0)
    until = time.monotonic() + 10
    while open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "S" and time.monotonic() < until:
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    ours.send(python_worker.PACKET.pack(python_worker.INVOKE, 1))
    os.waitpid(pid, 0)
    try:
        kept += len(theirs.recv(100, socket.MSG_DONTWAIT)) > 0
    except BlockingIOError:
        pass
    ours.close()
    theirs.close()
print(kept)
"""


def test_a_worker_that_is_killed_as_a_request_comes_does_not_take_it_along() -> None:
    """It sleeps in the kernel, and wakes there once more to die: by then the request is there."""
    command = [sys.executable, "-c", KILLED_AS_A_REQUEST_COMES]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "100\n"


def test_whatever_is_taken_back_when_is_answered_once(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (queued, pool):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.00002)
    for _ in range(3):
        assert values(told.run(*range(1000))) == list(range(1000))


def test_who_stops_waiting_does_not_stop_the_request(told: Any) -> None:
    heard: list[Answer] = []

    async def leave() -> None:
        call: Call = told.pool.submit(Invocation(b'"sleep"', "r"))
        call.unheard = heard.append
        call.answer.cancel()
        async with asyncio.timeout(20):
            while not heard:
                await asyncio.sleep(0.01)

    told.lab.loop.run_until_complete(leave())
    assert json.loads(heard[0].payload)[0] == "sleep"


def test_no_request_fails_while_workers_are_killed_between_requests_and_the_pool_is_replaced(
    told: Any, function: Make
) -> None:
    pools = [told.pool, function(DOES_AS_IT_IS_TOLD, workers=2).pool]
    stopped = False
    count = 0

    async def client() -> None:
        nonlocal count
        while not stopped:
            answer = await pools[0].invoke(Invocation(b"1", "r"))
            assert answer.error is None, answer.payload
            count += 1

    async def all_of_them() -> None:
        nonlocal stopped
        clients = [asyncio.ensure_future(client()) for _ in range(16)]
        await asyncio.sleep(0.3)
        await pools[1].warm()
        old = pools.pop(0)
        old.close()
        await asyncio.sleep(0.3)
        stopped = True
        await asyncio.wait_for(asyncio.gather(*clients), 20)
        assert not old.busy and not old.idle

    told.lab.loop.run_until_complete(all_of_them())
    assert count > 50


def test_sockets_of_workers_are_closed_with_them(told: Any) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        told.run("die")
        told.run("a")
    told.lab.loop.run_until_complete(asyncio.sleep(0.3))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


STEALS = """
import socket, time

def handler(event, context):
    if event == "steal":
        for number in range(3, 64):
            try:
                end = socket.socket(fileno=number)
            except OSError:
                continue
            if end.type == socket.SOCK_SEQPACKET:
                end.setblocking(False)
                until = time.monotonic() + 0.02
                while time.monotonic() < until:
                    try:
                        end.recv(65536)
                    except OSError:
                        pass
            end.detach()
        time.sleep(60)
    return [event]
"""


def test_requests_that_a_function_reads_itself_are_answered_all_the_same(
    function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (queued, pool):  # or they are taken back before the function can read them
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.9)
    made = function(STEALS, workers=1, timeout=1.0)
    made.run(*["warm"] * 50)

    async def ask() -> list[Answer]:
        calls = (made.pool.invoke(Invocation(json.dumps(event).encode(), "r")) for event in ("steal", "a", "b"))
        return await asyncio.wait_for(asyncio.gather(*calls), 15)

    answers = made.lab.loop.run_until_complete(ask())
    assert "timed out" in str(json.loads(answers[0].payload)) and answers[1].error == "Unhandled"
    assert values(made.run("c")) == ["c"]


def test_empty_frames_that_nobody_takes_make_a_worker_wait() -> None:
    class Transport:
        paused = False

        def pause_reading(self) -> None:
            self.paused = True

        def resume_reading(self) -> None:
            self.paused = False

    async def flood() -> None:
        frames, transport = Frames(), Transport()
        frames.connection_made(transport)  # type: ignore[arg-type]
        empty = HEADER.pack(0, CHUNK, 1)
        count = 0
        while not transport.paused:
            frames.get_buffer(-1)[: len(empty)] = empty
            frames.buffer_updated(len(empty))
            count += 1
            assert count < 10_000
        for _ in range(count):
            assert await frames.receive() == (CHUNK, 1, b"")
        assert not transport.paused

    asyncio.run(flood())
