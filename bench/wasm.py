"""Cold start of WebAssembly functions: a new worker of a deployed function, sandbox included, to its first response.

Against the naive way: a process of its own (`python -c`) that loads the module, compiled before, and runs it. In
milliseconds, the medians of rounds that are taken in turn.

    python -m bench.wasm [--quick]
"""

import asyncio
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import wasmtime

from bench import report
from owsgit.model.service import Invocation
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.runtimes import Runtimes

ECHO = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.load (i32.const 8)) (then
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
        (br $more))))))"""
"""A command that writes to stdout what comes on stdin."""

NAIVE = """
import sys, wasmtime
engine = wasmtime.Engine()
module = wasmtime.Module.deserialize_file(engine, sys.argv[1])
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
config = wasmtime.WasiConfig()
config.inherit_stdin()
config.inherit_stdout()
store.set_wasi(config)
linker.instantiate(store, module).exports(store)["_start"](store)
"""
EVENT = b'{"name": "Ada"}'
ROUNDS, ROUNDS_QUICK = 100, 20
STARTS_PER_ROUND = 5


def lines(quick: bool) -> None:
    """Print the line `wasm`."""
    with tempfile.TemporaryDirectory() as folder:
        ours, naive = asyncio.run(_measure(Path(folder), ROUNDS_QUICK if quick else ROUNDS))
    report.line("wasm", report.median(ours), "ms", report.median(naive))


async def _measure(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    config = _deploy(folder)
    log = FunctionLog(folder / "log")
    compiled = folder / "app.cwasm"
    compiled.write_bytes(wasmtime.Module(wasmtime.Engine(), ECHO).serialize())
    sandbox = Bubblewrap(f"owsgit-bench-{uuid.uuid4().hex[:8]}")
    runtimes = Runtimes(sandbox)
    try:
        await _start(runtimes, config, log)  # deployed: the host runs and knows the module
        ours: list[float] = []
        naive: list[float] = []
        for _ in range(rounds):
            naive.append(_spawn(compiled))
            ours += [await _start(runtimes, config, log) for _ in range(STARTS_PER_ROUND)]
        return ours, naive
    finally:
        await runtimes.close()
        await sandbox.close()


def _deploy(folder: Path) -> FunctionConfig:
    (folder / "code").mkdir()
    (folder / "code/app.wasm").write_bytes(wasmtime.wat2wasm(ECHO))
    return FunctionConfig(
        name="echo", arn="arn:aws:lambda:us-east-1:1:function:echo", runtime="wasm", handler="app.wasm",
        code=folder / "code", timeout=3.0, memory_size=128, environment={}, region="us-east-1", version="$LATEST",
    )  # fmt: skip


async def _start(runtimes: Runtimes, config: FunctionConfig, log: FunctionLog) -> float:
    """Milliseconds from nothing to the answer of a new worker."""
    began = time.perf_counter()
    worker = await runtimes.start(config, log)
    answer = await worker.invoke(Invocation(EVENT, "request"))
    elapsed = (time.perf_counter() - began) * 1000
    assert answer.payload == EVENT, answer
    worker.close()
    return elapsed


def _spawn(compiled: Path) -> float:
    """Milliseconds from nothing to the answer of a new process."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", NAIVE, str(compiled)], input=EVENT, capture_output=True, check=True)
    elapsed = (time.perf_counter() - began) * 1000
    assert done.stdout == EVENT, done
    return elapsed


if __name__ == "__main__":
    lines(report.quick())
