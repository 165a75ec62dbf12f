"""Every limit of a worker, tried by a function that wants more; what is exceeded is told in Lambda's own shape."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from owsgit.runtime.cgroup import CGROUP_ROOT
from tests.runtime.conftest import Function, Lab

Make = Callable[..., Function]


def test_open_files_are_limited_and_a_leak_ends_with_its_worker(function: Make) -> None:
    leaking = function(
        "kept = []\n"
        "def handler(event, context):\n"
        "    while event == 'leak': kept.append(open('/dev/null'))\n"
        "    return len(kept)\n"
    )
    error = leaking.error("leak")
    assert error["errorType"] == "OSError" and "Too many open files" in error["errorMessage"]
    assert 900 < leaking("count") < 1024


def test_processes_are_limited(lab: Lab, function: Make) -> None:
    forking = function(
        """
import os, time
def handler(event, context):
    made = 0
    try:
        while made < 3000:
            if os.fork() == 0:
                time.sleep(60); os._exit(0)
            made += 1
    except OSError as error:
        return [made, error.errno]
""",
        memory_size=2048, timeout=60.0,
    )  # fmt: skip
    made, number = forking()
    assert 500 < made <= 1024 and number == 11

    async def close() -> None:
        forking.pool.close()

    lab.loop.run_until_complete(asyncio.wait_for(close(), 5))


def test_memory_of_all_processes_together_is_limited(lab: Lab, function: Make) -> None:
    if lab.sandbox.note:
        pytest.fail("control groups are needed")
    together = function(
        """
import os, time
def grow(mebibytes):
    kept = bytearray(mebibytes << 20)
    for i in range(0, len(kept), 4096): kept[i] = 1
    return kept
def handler(event, context):
    children = []
    for _ in range(6):
        children.append(os.fork())
        if children[-1] == 0:
            kept = grow(50); time.sleep(1); os._exit(0)
    return [os.waitpid(child, 0)[1] for child in children]
""",
        memory_size=128, timeout=20.0,
    )  # fmt: skip
    (answer,) = together.run(None)
    assert answer.error == "Unhandled" or 9 in json.loads(answer.payload), "300 MiB do not fit"


def test_a_smaller_function_has_a_smaller_share_of_the_cpu(lab: Lab, function: Make) -> None:
    """Who gets more is the kernel's to say; a group's share is what it goes by, 1,024 being an ordinary process's."""
    made = [function("def handler(event, context): return 1", memory_size=memory) for memory in (256, 1536)]
    for each in made:
        each()
    shares = {share_of(group) for group in CGROUP_ROOT.glob("**/owsgit-test-*/worker-*")}
    assert {256, 1536} <= shares or {25, 150} <= shares


def share_of(group: Path) -> int:
    for name in ("cpu.shares", "cpu.weight"):
        if (group / name).exists():
            return int((group / name).read_text())
    return 0


def test_the_wall_time_is_limited_while_children_go_on(function: Make) -> None:
    waiting = function("import subprocess\ndef handler(event, context): subprocess.run(['sleep', '60'])", timeout=1.0)
    error = waiting.error()
    assert error["errorType"] == "Sandbox.Timedout"
    assert re.fullmatch(r".* request-0 Task timed out after 1\.00 seconds", error["errorMessage"])


def test_a_full_tmp_is_an_error_of_the_function_and_gone_with_its_worker(function: Make) -> None:
    filling = function(
        """
import os
def handler(event, context):
    if event == "look": return os.listdir("/tmp")
    try:
        with open("/tmp/full", "wb") as file:
            while True: file.write(bytes(1 << 20))
    except OSError as error:
        if event == "die": os._exit(1)
        return [error.errno, os.path.getsize("/tmp/full") >> 20]
""",
        tmp_size=64, memory_size=512, timeout=20.0,
    )  # fmt: skip
    number, size = filling("fill")
    assert number == 28 and 60 <= size <= 64
    assert filling("look") == ["full"], "a warm worker keeps it, as on Lambda"
    filling.error("die")
    assert filling("look") == []


def test_a_thousand_requests_at_once_are_served_by_one_worker_in_turn(function: Make) -> None:
    counter = function("n = 0\ndef handler(event, context):\n    global n; n += 1; return [event, n]", workers=1)
    answers = [json.loads(answer.payload) for answer in counter.run(*range(1000))]
    assert answers == [[number, number + 1] for number in range(1000)]


def test_a_response_of_six_megabytes_comes_through_and_one_byte_more_does_not(function: Make) -> None:
    sized = function("def handler(event, context): return 'x' * event", timeout=20.0)
    most = 6 * 1024 * 1024 + 100
    assert len(sized(most - 2)) == most - 2
    error = sized.error(most - 1)
    assert error["errorType"] == "Function.ResponseSizeTooLarge"
