"""Cold starts: from nothing to the first response of a new worker, its sandbox included, in every runtime.

The baseline is the naive way, in the same run and in turn: a process of its own without any sandbox that loads the
handler and answers one event. Between starts the node has a moment, in which it makes the next sandbox, as it has
between requests. `density` lines are memory: of an idle worker, and of a node with many functions.
"""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import containers, report, wasm
from owsgit.model.service import Invocation
from owsgit.runtime import interpreters
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.budget import Budget
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.worker import Worker

ROUNDS, ROUNDS_QUICK = 60, 15
PAUSE_SECONDS = 0.06
FUNCTIONS, FUNCTIONS_QUICK = 500, 100
EVENT = b'{"name": "Ada"}'
WANTED_WORKER_MIB = 8.0
WANTED_NODE_MIB = 1024.0

STDLIB = "import json, re, urllib.request\ndef handler(event, context):\n    return {'hello': event['name']}\n"
BOTO3 = "import boto3\ndef handler(event, context):\n    return {'hello': event['name'], 'sdk': boto3.__version__}\n"
NODE = "exports.handler = async (event) => ({ hello: event.name });\n"

NAIVE_PYTHON = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); import app; "
    "print(json.dumps(app.handler(json.load(sys.stdin), None)))"
)
NAIVE_NODE = (
    "const app = require(process.argv[1] + '/app.js'); let text = ''; process.stdin.on('data', (d) => text += d);"
    "process.stdin.on('end', async () => console.log(JSON.stringify(await app.handler(JSON.parse(text), {}))));"
)


def config(folder: Path, runtime: str, file: str, code: str) -> FunctionConfig:
    made = folder / uuid.uuid4().hex[:8]
    made.mkdir()
    (made / file).write_text(code)
    return FunctionConfig(
        name="bench", arn="arn:aws:lambda:us-east-1:1:function:bench", runtime=runtime, handler="app.handler",
        code=made, timeout=10.0, memory_size=256, environment={}, region="us-east-1", version="$LATEST",
    )  # fmt: skip


async def start(runtimes: Runtimes, given: FunctionConfig) -> tuple[float, Worker]:
    """Milliseconds from nothing to the first answer, and the worker."""
    began = time.perf_counter()
    worker = await runtimes.start(given, FunctionLog(given.code / ".log"))
    answer = await worker.invoke(Invocation(EVENT, "request"))
    elapsed = (time.perf_counter() - began) * 1000
    assert answer.error is None, answer
    return elapsed, worker


async def spawn(*words: str) -> float:
    """Milliseconds of a process that answers one event."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = await process.communicate(EVENT)
    elapsed = (time.perf_counter() - began) * 1000
    assert b"hello" in output
    return elapsed


async def compare(name: str, runtimes: Runtimes, given: FunctionConfig, naive: Callable[[], list[str]]) -> None:
    (await start(runtimes, given))[1].close()  # the fork server runs
    ours, theirs = [], []
    for _ in range(ROUNDS_QUICK if report.quick() else ROUNDS):
        await asyncio.sleep(PAUSE_SECONDS)
        elapsed, worker = await start(runtimes, given)
        ours.append(elapsed)
        worker.close()
        theirs.append(await spawn(*naive()))
    report.line(name, report.median(ours), "ms", report.median(theirs))


def unique_mib(pid: int) -> float:
    """Memory that nobody else has: the unique set size."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(found) for found in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE)) / 1024


def processes_below(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                found += processes_below(int(child))
    return found


async def density(runtimes: Runtimes, folder: Path) -> None:
    count = FUNCTIONS_QUICK if report.quick() else FUNCTIONS
    before = {pid: unique_mib(pid) for pid in processes_below(os.getpid())}
    workers = []
    for _ in range(count):
        _, worker = await start(runtimes, config(folder, "python", "app.py", STDLIB))
        workers.append(worker)
    after = {pid: unique_mib(pid) for pid in processes_below(os.getpid())}
    new = [value for pid, value in after.items() if pid not in before]
    report.line("density_idle_worker", sum(new) / count, "MiB", WANTED_WORKER_MIB)
    wanted = WANTED_NODE_MIB * count / FUNCTIONS
    report.line(f"density_{count}_warm_functions", sum(after.values()), "MiB", wanted)
    for worker in workers:
        worker.close()
    await asyncio.sleep(1)
    await idle(runtimes, folder, count, wanted)


async def idle(runtimes: Runtimes, folder: Path, count: int, wanted: float) -> None:
    """Functions that were deployed, and that nobody has asked for their idle time."""
    pools = []
    for _ in range(count):
        given = config(folder, "python", "app.py", STDLIB)
        log = FunctionLog(given.code / ".log")
        pools.append(Pool(partial(runtimes.start, given, log), Size(1, idle_seconds=2), Budget()))
        await pools[-1].warm()
    while any(pool.idle for pool in pools):  # noqa: ASYNC110 - they end by themselves
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    total = sum(unique_mib(pid) for pid in processes_below(os.getpid()))
    report.line(f"density_{count}_idle_functions", total, "MiB", wanted)
    for pool in pools:
        pool.close()


async def sandboxed() -> None:
    sandbox = Bubblewrap(f"owsgit-bench-{uuid.uuid4().hex[:8]}")
    runtimes = Runtimes(sandbox)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stdlib = config(folder, "python", "app.py", STDLIB)
        sdk = config(folder, "python", "app.py", BOTO3)
        node = config(folder, "nodejs", "app.js", NODE)
        program = str(interpreters.find("nodejs").program)
        try:
            for line, given, words in (
                ("python_vs_spawn", stdlib, [sys.executable, "-c", NAIVE_PYTHON, str(stdlib.code)]),
                ("boto3_vs_spawn", sdk, [sys.executable, "-c", NAIVE_PYTHON, str(sdk.code)]),
                ("node_vs_spawn", node, [program, "-e", NAIVE_NODE, str(node.code)]),
            ):
                await compare(line, runtimes, given, lambda words=words: words)  # type: ignore[misc]
            await density(runtimes, folder)
        finally:
            await runtimes.close()
            await sandbox.close()


def main() -> None:
    asyncio.run(sandboxed())
    wasm.lines(report.quick())
    for line in containers.lines(report.quick()):
        report.line(*line)


if __name__ == "__main__":
    main()
