"""What a warm invocation costs: time over a bare echo of the same bytes, and CPU of the Runtime API over our protocol.

`frames_of_...`: one request to a sandboxed Python worker whose handler returns its event, over a unix-socket echo in
another Python process; `overhead_of_...`: the same with the log, the timeout and the report of an invocation;
`..._over_json`: that over an echo which reads and writes the JSON, as is done for every Python handler.
`cpu_of_awslambdaric_...`: CPU time of node and worker together for an invocation of AWS's own runtime client, over that
of our own protocol; both without sandbox, as the client is a development tool of this repository.
"""

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import uvloop

from bench import report
from owsgit.model.service import Invocation
from owsgit.runtime.bootstrap import BootstrapWorker
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.framed import FramedWorker
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.process_worker import ProcessWorker
from owsgit.runtime.sandbox import Unconfined

HANDLER = "def handler(event, context):\n    return event\n"
BOOTSTRAP = f"#!/bin/sh\nexec {sys.executable} -m awslambdaric $_HANDLER\n"
HEADER = struct.Struct("!IBI")
SIZES = {"1_kB": 1024, "100_kB": 100 * 1024, "6_MB": 6 * 1024 * 1024 - 16}
TURN_SECONDS = 0.05
Call = Callable[[], Awaitable[object]]


class Echo:
    """The baseline: length and payload there, the same back, on a unix socket to another Python process."""

    def __init__(self, mode: str) -> None:
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "bench.invoke", mode, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._ours)

    async def ask(self, payload: bytes) -> bytes:
        self._writer.write(HEADER.pack(len(payload), 0, 0) + payload)
        header = await self._reader.readexactly(HEADER.size)
        return await self._reader.readexactly(HEADER.unpack(header)[0])

    def close(self) -> None:
        self._writer.close()
        self._process.kill()
        self._process.wait()


def echo(fd: int, read_json: bool) -> None:
    connection = socket.socket(fileno=fd)

    def exactly(count: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < count:
            piece = connection.recv(min(count - len(pieces), 1 << 20))
            if not piece:
                sys.exit()
            pieces += piece
        return bytes(pieces)

    while True:
        payload = exactly(HEADER.unpack(exactly(HEADER.size))[0])
        if read_json:
            payload = json.dumps(json.loads(payload), ensure_ascii=False).encode()
        connection.sendall(HEADER.pack(len(payload), 0, 0) + payload)


def config_of(folder: Path, runtime: str) -> FunctionConfig:
    return FunctionConfig(
        name="bench", arn="arn:aws:lambda:us-east-1:1:function:bench", runtime=runtime, handler="app.handler",
        code=folder / "code", timeout=60, memory_size=512, environment={}, region="us-east-1", version="1",
    )  # fmt: skip


def payloads() -> dict[str, bytes]:
    """By name: one long string of each size, and a list of records, which are slower to read."""
    found = {name: json.dumps("x" * (size - 2)).encode() for name, size in SIZES.items()}
    record = {"id": 12345, "name": "a name", "price": 12.5, "tags": ["a", "b"], "active": True}
    return {**found, "100_kB_of_records": json.dumps([record] * 1100).encode()}


async def interleaved(calls: Sequence[Call], seconds: float) -> list[float]:
    """Medians of the time of each. They take turns of some requests: so noise meets all of them, and each is as warm as
    under load."""
    times: list[list[float]] = [[] for _ in calls]
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(times[0]) < 5:
        for call, found in zip(calls, times, strict=True):
            turn = time.perf_counter() + TURN_SECONDS
            while (began := time.perf_counter()) < turn:
                await call()
                found.append(time.perf_counter() - began)
    return [report.median(found) for found in times]


async def overhead(folder: Path) -> None:
    sandbox = Bubblewrap(f"owsgit-bench-{os.getpid()}")
    worker = FramedWorker(config_of(folder, "python"), FunctionLog(folder / "log"))
    await worker.start(sandbox)
    bare, reading = Echo("echo"), Echo("json")
    try:
        await bare.connect()
        await reading.connect()
        for name, payload in payloads().items():
            invocation = Invocation(payload, "a-request-id")
            answer = await worker.invoke(invocation)
            assert answer.error is None and json.loads(answer.payload) == json.loads(payload)
            calls = (
                partial(worker.invoke, invocation),
                partial(worker._ask, invocation),
                partial(bare.ask, payload),
                partial(reading.ask, payload),
            )
            ours, frames, echoed, read = await interleaved(calls, 3 if report.quick() else 20)
            report.line(f"frames_of_{name}", frames * 1000, "ms", echoed * 1000)
            report.line(f"overhead_of_{name}", ours * 1000, "ms", echoed * 1000)
            report.line(f"overhead_of_{name}_over_json", ours * 1000, "ms", read * 1000)
    finally:
        worker.close()
        bare.close()
        reading.close()
        await asyncio.sleep(0.2)
        await sandbox.close()


async def cpu(folder: Path) -> None:
    sandbox = Unconfined()
    kinds: list[ProcessWorker] = [
        BootstrapWorker(config_of(folder, "provided"), FunctionLog(folder / "log-b")),
        FramedWorker(config_of(folder, "python"), FunctionLog(folder / "log-f")),
    ]
    for each in kinds:
        await each.start(sandbox)  # type: ignore[attr-defined]
    rounds, calls = (20, 50) if report.quick() else (100, 200)
    try:
        for name, payload in payloads().items():
            invocation = Invocation(payload, "a-request-id")
            count = calls if len(payload) < 1024 * 1024 else calls // 25
            used: list[list[tuple[float, float]]] = [[], []]
            for _ in range(rounds):
                for each, costs in zip(kinds, used, strict=True):
                    costs.append(await cpu_of(each, invocation, count))
            ours, theirs = [report.median([sum(cost) for cost in costs]) * 1000 for costs in used]
            report.line(f"cpu_of_awslambdaric_{name}", ours, "ms", theirs)
            if name == "1_kB":
                nodes = [report.median([cost[0] for cost in costs]) * 1000 for costs in used]
                report.line("cpu_of_the_node_alone_for_awslambdaric_1_kB", nodes[0], "ms", nodes[1])
    finally:
        for each in kinds:
            each.close()
        await asyncio.sleep(0.2)


async def cpu_of(worker: ProcessWorker, invocation: Invocation, calls: int) -> tuple[float, float]:
    """CPU seconds of one invocation: of this process, and of the worker's."""
    clock = (~worker._running._process.pid << 3) | 2  # type: ignore[attr-defined]  # CPU time of another process, clock_getcpuclockid(3)
    node, other = time.process_time(), time.clock_gettime(clock)
    for _ in range(calls):
        answer = await worker.invoke(invocation)
        assert answer.error is None
    return (time.process_time() - node) / calls, (time.clock_gettime(clock) - other) / calls


async def measured() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "code").mkdir()
        (folder / "code/app.py").write_text(HANDLER)
        (folder / "code/bootstrap").write_text(BOOTSTRAP)
        (folder / "code/bootstrap").chmod(0o755)
        await overhead(folder)
        await cpu(folder)


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measured())


if __name__ == "__main__":
    if sys.argv[1:2] in (["echo"], ["json"]):
        echo(int(sys.argv[2]), sys.argv[1] == "json")
    else:
        main()
