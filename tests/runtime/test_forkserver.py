"""The fork server, its sandboxes and what the node holds of them, when something of it fails."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.runtime import interpreters
from owsgit.runtime.cgroup import Limits
from owsgit.runtime.config import Network
from owsgit.runtime.egress import Egress
from owsgit.runtime.sandbox import Command
from tests.runtime.conftest import Function, Lab
from tests.support.processes import descendants

Make = Callable[..., Function]
ENOUGH_SECONDS = 15.0
"""Less than any limit of the code under test: what is found only when that has passed is not found."""

NULL = os.open(os.devnull, os.O_WRONLY)
HANDLER = "def handler(event, context): return event"


def command(arguments: list[str], **fields: Any) -> Command:
    return Command(arguments, {}, "/tmp", {}, Limits(128 << 20, 64), output_fd=NULL, **fields)


def within(lab: Lab, work: Any) -> Any:
    async def inner() -> Any:
        async with asyncio.timeout(ENOUGH_SECONDS):
            return await work

    return lab.loop.run_until_complete(inner())


def processes(lab: Lab) -> list[int]:
    """bubblewrap's, of the fork servers."""
    return [server._process.pid for server in lab.sandbox._servers.values()]


def test_a_fork_server_that_is_killed_is_replaced_and_no_request_notices(lab: Lab, function: Make) -> None:
    made = function(HANDLER)
    assert made(1) == 1
    for who in (lambda pid: pid, lambda pid: descendants(pid)[0], lambda pid: descendants(pid)[1]):
        for pid in processes(lab):
            os.kill(who(pid), signal.SIGKILL)
        lost = list(made.pool.idle)
        for worker in lost:
            within(lab, worker._running.ended())  # type: ignore[attr-defined]
        assert made(2) == 2


def test_a_fork_server_that_is_killed_while_it_is_asked_is_replaced_at_once(lab: Lab, function: Make) -> None:
    function(HANDLER)(1)
    (pid,) = processes(lab)
    server = next(iter(lab.sandbox._servers.values()))
    for each in (stopped := descendants(pid)):
        os.kill(each, signal.SIGSTOP)

    async def start() -> int:
        starts = [asyncio.ensure_future(lab.sandbox.start(command(["/bin/true"]))) for _ in range(4)]
        await asyncio.sleep(0.05)
        for each in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return max([await (await each).ended() for each in starts])

    assert within(lab, start()) in (0, -signal.SIGKILL)
    assert server not in lab.sandbox._servers.values()


def test_a_server_that_cannot_start_says_why_at_once(lab: Lab) -> None:
    broken = replace(interpreters.find("python"), program=Path("/usr/bin/nothing-of-this-name"))
    with pytest.raises(UnavailableError, match="nothing-of-this-name"):
        within(lab, lab.sandbox.start(command(["/bin/true"], interpreter=broken)))


def test_what_is_not_there_to_mount_is_told(lab: Lab) -> None:
    for _ in range(20):
        absent = replace(command(["/bin/true"], listen=[9001]), read_only={"/var/task": Path("/nowhere/at/all")})
        running = within(lab, lab.sandbox.start(absent))
        assert within(lab, running.ended()) != 0
        within(lab, running.gone())


def test_the_status_of_a_worker_that_ends_at_once_is_known(lab: Lab) -> None:
    async def start() -> int:
        running = await lab.sandbox.start(command(["/bin/sh", "-c", "exit 3"], listen=[9001]))
        return await running.ended()

    assert {within(lab, start()) for _ in range(30)} == {3}


def test_nothing_is_left_of_workers_that_ended_or_did_not_start(
    lab: Lab, function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    function(HANDLER)(1)

    def held() -> tuple[int, int]:
        server = next(iter(lab.sandbox._servers.values()))
        return len(list(Path("/proc/self/fd").iterdir())), len(descendants(server._process.pid))

    async def start_and_end(**fields: Any) -> None:
        running = await lab.sandbox.start(command(["/bin/sleep", "60"], **fields))
        running.kill()
        await running.gone()

    async def fail(*_: object) -> None:
        raise OSError("no")

    async def settled() -> tuple[int, int]:
        server = next(iter(lab.sandbox._servers.values()))
        while server._refilling is not None and not server._refilling.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        return held()

    within(lab, start_and_end())
    before = within(lab, settled())
    network = Network(allowed=("db.example.com:5432", "db.example.com:5433"))
    for _ in range(20):
        within(lab, start_and_end(network=network))
    monkeypatch.setattr(Egress, "open", fail)
    for _ in range(5):
        with contextlib.suppress(OSError, UnavailableError):
            within(lab, start_and_end(network=network))
    files, processes = within(lab, settled())
    assert files <= before[0] and processes == before[1]  # fewer, if what other tests left was collected meanwhile


def test_a_host_may_be_named_twice_and_a_hundred_may_be(lab: Lab, function: Make) -> None:
    for allowed in (
        ("db.example.com:443", "db.example.com:443", "DB.example.com:443"),
        ("127.1.0.1:443", "db.example.com:443", "0.0.0.0:443"),
        tuple(f"host-{number}.{'x' * 60}.example.com:443" for number in range(100)),
    ):
        assert function(HANDLER, network=Network(allowed=allowed))(1) == 1, allowed


def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(lab: Lab, function: Make) -> None:
    made = function(HANDLER)
    made(1)

    async def cancelled() -> None:
        for steps in range(60):
            task = asyncio.ensure_future(made.pool._start())
            for _ in range(steps):
                await asyncio.sleep(0)
            await asyncio.sleep(0.0001 * steps)
            task.cancel()
            (found,) = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(found, BaseException):
                found.close()

    async def left() -> int:
        server = next(iter(lab.sandbox._servers.values()))
        return len(descendants(server._process.pid))

    async def settle(count: int) -> int:
        while (found := await left()) > count:
            await asyncio.sleep(0.05)
        return found

    before = within(lab, left())
    lab.loop.run_until_complete(cancelled())
    assert within(lab, settle(before + 6)) <= before + 6
    assert made(3) == 3
