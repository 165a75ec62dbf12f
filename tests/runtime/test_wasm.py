"""The runtime `wasm`, in its real host: what modules get, and what hostile ones do not."""

import asyncio
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Invocation
from owsgit.runtime import wasm_client, wasm_protocol
from owsgit.runtime.budget import Budget
from owsgit.runtime.config import FunctionConfig, InitError, Network
from owsgit.runtime.forkserver import ForkedSandbox
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.sandbox import Unconfined
from owsgit.runtime.wasm_protocol import MODULE_BYTES_MAX
from tests.runtime.conftest import Function, Lab

WASI = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func $say (param $fd i32) (param $from i32) (param $size i32) (result i32)
    (i32.store (i32.const 0) (local.get $from)) (i32.store (i32.const 4) (local.get $size))
    (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 12)))
  (func $ask (result i32)  ;; reads up to 64 KiB of the event to 65536
    (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 65536))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))
  (func $echo (local $size i32)
    (loop $more
      (local.set $size (call $ask))
      (if (local.get $size) (then
        (drop (call $say (i32.const 1) (i32.const 65536) (local.get $size)))
        (br $more)))))
  (func $digits (param $at i32) (param $number i32)  ;; three of them
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.div_u (local.get $number) (i32.const 100))))
    (i32.store8 offset=1 (local.get $at)
      (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $number) (i32.const 10)) (i32.const 10))))
    (i32.store8 offset=2 (local.get $at)
      (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))
  %s
  (func (export "_start") (local $i i32) %s))"""

SLEEP = """
  (i32.store8 (i32.const 1008) (i32.const 0)) (i32.store (i32.const 1016) (i32.const 1))
  (i64.store (i32.const 1024) (i64.const %d))
  (drop (call $poll (i32.const 1000) (i32.const 2000) (i32.const 1) (i32.const 3000)))"""
FOREVER_NS = 1 << 62


def module(start: str, more: str = "") -> bytes:
    """A command whose `_start` is `start`."""
    return bytes(wasmtime.wat2wasm(WASI % (more, start)))


ECHO = module("(call $echo)")

Make = Callable[..., Function]


class WasmLab:
    """Functions of the runtime wasm, all in one host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.runtimes = Runtimes(lab.sandbox)
        self.budget = Budget(64 << 30)

    def config(self, content: bytes | None, **fields: Any) -> FunctionConfig:
        name = "f" + uuid.uuid4().hex[:8]
        code = self.lab.folder / name / "code"
        code.mkdir(parents=True)
        if content is not None:
            (code / "app.wasm").write_bytes(content)
        given: dict[str, Any] = {
            "name": name, "arn": f"arn:aws:lambda:us-east-1:1:function:{name}", "runtime": "wasm",
            "handler": "app.wasm", "code": code, "timeout": 20.0, "memory_size": 128, "environment": {},
            "region": "us-east-1", "version": "$LATEST",
        }  # fmt: skip
        return FunctionConfig(**{**given, **fields})

    def function(self, content: bytes | None, *, workers: int = 4, **fields: Any) -> Function:
        config = self.config(content, **fields)
        log = FunctionLog(config.code.parent / "log")

        async def pool() -> Pool:
            return Pool(lambda: self.runtimes.start(config, log), Size(workers), self.budget)

        made = self.lab.loop.run_until_complete(pool())
        self.lab.pools.append(made)
        return Function(self.lab, made, config.code.parent)

    def refused(self, content: bytes | None, **fields: Any) -> dict[str, Any]:
        """The report of a function that cannot be started."""
        with pytest.raises(InitError) as found:
            self.function(content, **fields).warm()
        return found.value.report

    def run(self, work: Any) -> Any:
        return self.lab.loop.run_until_complete(work)

    async def host_process(self) -> int:
        """The process that serves, the last below the sandbox's first."""
        host = await self.runtimes._wasm_hosts.current()
        assert isinstance(host._running, ForkedSandbox)
        pid = host._running.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid


@pytest.fixture(scope="module")
def wasm(lab: Lab) -> Iterator[WasmLab]:
    made = WasmLab(lab)
    yield made
    made.run(made.runtimes.close())


def test_the_event_comes_on_stdin_and_stdout_is_the_answer(wasm: WasmLab) -> None:
    assert wasm.function(ECHO)({"name": "Ada"}) == {"name": "Ada"}


def test_an_event_of_6_mb_comes_and_goes_whole(wasm: WasmLab) -> None:
    event = "x" * (6 * 1024 * 1024 - 2)
    assert wasm.function(ECHO)(event) == event


def test_the_argument_is_the_handler(wasm: WasmLab) -> None:
    start = """(drop (call $args (i32.const 1000) (i32.const 2001)))
      (i32.store8 (i32.const 2000) (i32.const 34)) (i32.store8 (i32.const 2009) (i32.const 34))
      (drop (call $say (i32.const 1) (i32.const 2000) (i32.const 10)))"""
    assert wasm.function(module(start))() == "app.wasm"


def variables(function: Function, **invocation: Any) -> dict[str, str]:
    """What a module sees as its environment, which it writes to its log."""
    function(**invocation)
    text = next(line for line in function.log() if "LAMBDA_TASK_ROOT" in line)
    return dict(each.split("=", 1) for each in text.split("\0") if each)


SHOW_ENVIRONMENT = module("""(drop (call $environ_sizes (i32.const 100) (i32.const 104)))
  (drop (call $environ (i32.const 1000) (i32.const 65536)))
  (drop (call $say (i32.const 2) (i32.const 65536) (i32.load (i32.const 104))))""")


def test_a_module_has_lambdas_variables_and_those_of_the_request(wasm: WasmLab) -> None:
    function = wasm.function(SHOW_ENVIRONMENT, environment={"TABLE": "räume"}, timeout=20.0)
    found = variables(function, request_id="r-1", trace_id="Root=1-5")
    assert found["TABLE"] == "räume"
    assert found["AWS_REGION"] == "us-east-1"
    assert found["_HANDLER"] == "app.wasm"
    assert found["_X_AMZN_TRACE_ID"] == "Root=1-5"
    assert found["LAMBDA_RUNTIME_AWS_REQUEST_ID"] == "r-1"
    assert found["LAMBDA_RUNTIME_INVOKED_FUNCTION_ARN"].startswith("arn:aws:lambda:")
    assert 0 < int(found["LAMBDA_RUNTIME_DEADLINE_MS"]) / 1000 - time.time() < 21
    assert not {"HOSTNAME", "PWD", "USER"} & set(found)


def test_a_secret_is_a_variable_and_masked_in_the_log(wasm: WasmLab) -> None:
    assert variables(wasm.function(SHOW_ENVIRONMENT, secrets={"TOKEN": "swordfish"}))["TOKEN"] == "***"


def test_nothing_on_stdout_is_null(wasm: WasmLab) -> None:
    assert wasm.function(module(""))() is None


def test_stderr_is_the_log_before_end_and_report(wasm: WasmLab) -> None:
    start = "(drop (call $say (i32.const 2) (i32.const 500) (i32.const 11)))"
    function = wasm.function(module(start, '(data (i32.const 500) "hello\\nworld")'))
    function()
    begin, *said, end, report = function.log()
    assert begin.startswith("START") and said == ["hello", "world"] and end.startswith("END")
    assert "Max Memory Used: 0 MB" in report and "Init Duration" in report


def test_a_module_that_waits_has_its_log_read_meanwhile(wasm: WasmLab) -> None:
    start = "(drop (call $say (i32.const 2) (i32.const 500) (i32.const 6)))" + SLEEP % FOREVER_NS
    function = wasm.function(module(start, '(data (i32.const 500) "begun\\n")'), timeout=60.0)

    async def watch() -> None:
        call = asyncio.ensure_future(function.pool.invoke(Invocation(b"1", "r")))
        while "begun" not in function.log():
            await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    wasm.run(asyncio.wait_for(watch(), 20))
    wasm.run(kill_host(wasm))


def test_exit_0_is_success_and_another_status_is_an_error(wasm: WasmLab) -> None:
    assert wasm.function(module("(call $echo) (call $exit (i32.const 0))"))(7) == 7
    function = wasm.function(module("(call $echo) (call $exit (i32.const 3))"))
    assert function.error() == {
        "errorType": "Runtime.ExitError",
        "errorMessage": "RequestId: request-0 Error: Runtime exited with error: exit status 3",
    }
    assert any("exit status 3" in line for line in function.log())


def test_a_status_that_wasi_does_not_know_is_an_error(wasm: WasmLab) -> None:
    error = wasm.function(module("(call $exit (i32.const 255))")).error()
    assert error["errorType"] == "Runtime.ExitError" and "invalid exit status" in error["errorMessage"]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("(unreachable)", "wasm trap: wasm `unreachable` instruction executed"),
        ("(drop (i32.div_u (i32.const 1) (local.get $i)))", "wasm trap: integer divide by zero"),
        ("(drop (i32.load (i32.const -16)))", "wasm trap: out of bounds memory access"),
    ],
)
def test_a_trap_is_an_error_with_its_cause_and_frames(wasm: WasmLab, start: str, words: str) -> None:
    error = wasm.function(module(start)).error()
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].startswith("RequestId: request-0 Error: " + words)
    assert error["stackTrace"]


def test_infinite_recursion_exhausts_the_stack_and_nothing_else(wasm: WasmLab) -> None:
    function = wasm.function(module("(call $deep)", "(func $deep (call $deep) (call $deep))"))
    assert "call stack exhausted" in function.error()["errorMessage"]
    assert "call stack exhausted" in function.error()["errorMessage"]


@pytest.mark.parametrize("start", ["(loop $on (br $on))", SLEEP % FOREVER_NS, f"(loop $on {SLEEP % 0} (br $on))"])
def test_a_module_that_never_ends_is_ended_at_its_timeout(wasm: WasmLab, start: str) -> None:
    function = wasm.function(module(start), timeout=0.3)
    error = function.error()
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("request-0 Task timed out after 0.30 seconds")


COUNT = module("""(loop $on
  (local.set $i (i32.add (local.get $i) (i32.const 1)))
  (br_if $on (i32.lt_u (local.get $i) (i32.const 100000))))
  (call $echo)""")
FUEL = 100_000 * 20
"""More than enough for COUNT, which has fewer than 20 instructions in its loop."""


def test_a_module_that_uses_all_of_its_fuel_ends_with_an_error_and_its_worker_goes_on(wasm: WasmLab) -> None:
    function = wasm.function(module("(if (i32.eq (call $ask) (i32.const 1)) (then (loop $on (br $on))))"), fuel=10_000)
    function.warm()
    (worker,) = function.pool.idle
    error = function.error(1)
    assert error["errorType"] == "Runtime.FuelExhausted"
    assert error["errorMessage"] == "RequestId: request-0 Error: all 10,000 units of fuel were used up"
    assert error["stackTrace"]
    assert function.log()[-1].endswith("\tFuel Used: 10000")
    assert any(line.startswith("Runtime.FuelExhausted: ") for line in function.log())
    assert function(22) is None, "each request has all of the fuel"
    assert function.pool.idle == [worker]


def test_the_same_module_runs_with_enough_fuel_with_too_little_and_without_a_count(wasm: WasmLab) -> None:
    plain, enough, little = (wasm.function(COUNT, fuel=fuel) for fuel in (None, FUEL, FUEL // 100))
    assert plain(1) == 1 and "Fuel Used" not in plain.log()[-1]
    assert little.error(1)["errorType"] == "Runtime.FuelExhausted"
    used = set()
    for number in range(3):
        assert enough(number) == number
        used.add(int(enough.log()[-1].rpartition("\tFuel Used: ")[2]))
    assert len(used) == 1 and 100_000 < used.pop() < FUEL, "the same work costs the same"
    assert plain(2) == 2


def test_fuel_that_does_not_suffice_to_begin_with_is_told_at_deployment(wasm: WasmLab) -> None:
    content = bytes(wasmtime.wat2wasm('(module (func $f (loop $on (br $on))) (start $f) (func (export "_start")))'))
    report = wasm.refused(content, fuel=1000)
    assert report["errorType"] == "Runtime.FuelExhausted"
    assert "all 1,000 units of fuel were used up" in str(report["errorMessage"])


@pytest.mark.parametrize("start", ["(loop $on (br $on))", SLEEP % FOREVER_NS])
def test_a_module_with_much_fuel_is_ended_at_its_timeout_all_the_same(wasm: WasmLab, start: str) -> None:
    assert wasm.function(module(start), timeout=0.3, fuel=10**14).error()["errorType"] == "Sandbox.Timedout"


def test_a_module_with_fuel_is_compiled_again_by_the_next_host(wasm: WasmLab) -> None:
    function = wasm.function(COUNT, fuel=FUEL)
    assert function(1) == 1
    wasm.run(kill_host(wasm))
    wasm.run(ended(wasm))
    assert function(2) == 2


async def ended(wasm: WasmLab) -> None:
    """Wait until the node knows that its host is gone."""
    host = wasm.runtimes._wasm_hosts._host
    while host is not None and host.alive:
        await asyncio.sleep(0.01)


def test_a_module_can_sleep(wasm: WasmLab) -> None:
    function = wasm.function(module(SLEEP % 50_000_000 + "(call $echo)"))
    function.warm()
    began = time.monotonic()
    assert function(1) == 1
    assert time.monotonic() - began >= 0.05


def test_poll_takes_no_addresses_outside_of_memory(wasm: WasmLab) -> None:
    start = """(if (i32.ne (call $poll (i32.const -8) (i32.const 0) (i32.const 1) (i32.const 0)) (i32.const 21))
                 (then (unreachable)))
               (if (i32.ne (call $poll (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0)) (i32.const 28))
                 (then (unreachable)))"""
    assert wasm.function(module(start))() is None


def test_a_module_gets_no_more_memory_than_its_size(wasm: WasmLab) -> None:
    start = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)"
    function = wasm.function(module(start))
    error = function.error()
    assert error["errorType"] == "Runtime.OutOfMemory"
    assert "Max Memory Used: 127 MB" in function.log()[-1]  # it grows by a MiB, from 128 KiB


def test_a_module_that_says_that_memory_was_refused_is_believed(wasm: WasmLab) -> None:
    text = "memory allocation of 999 bytes failed"
    start = f"(drop (call $say (i32.const 2) (i32.const 500) (i32.const {len(text)}))) (unreachable)"
    error = wasm.function(module(start, f'(data (i32.const 500) "{text}")')).error()
    assert error["errorType"] == "Runtime.OutOfMemory"


def test_memory_that_a_module_wants_from_the_start_is_checked_at_deployment(wasm: WasmLab) -> None:
    content = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 4096) (func (export "_start")))'))
    report = wasm.refused(content)
    assert report["errorType"] == "Runtime.OutOfMemory"
    wasm.function(content, memory_size=256).warm()


def test_a_flood_on_stdout_is_an_answer_that_is_too_large(wasm: WasmLab) -> None:
    start = """(loop $on (br_if $on (i32.eqz (call $say (i32.const 1) (i32.const 0) (i32.const 65536)))))"""
    error = wasm.function(module(start)).error()
    assert error["errorType"] == "Function.ResponseSizeTooLarge"


def test_a_flood_on_stderr_is_cut_in_the_log(wasm: WasmLab) -> None:
    start = """(loop $on (br_if $on (i32.eqz (call $say (i32.const 2) (i32.const 0) (i32.const 65536)))))
               (call $echo)"""
    function = wasm.function(module(start))
    assert function(1) == 1
    lines = function.log()
    assert any("the rest is dropped" in line for line in lines)
    assert sum(map(len, lines)) < 2_500_000


@pytest.mark.parametrize("text", [b"hello", b'{"a": NaN}', b'"\xff"', b"1 2", b"[" * 9000])
def test_what_is_not_json_is_an_error(wasm: WasmLab, text: bytes) -> None:
    data = "".join(f"\\{byte:02x}" for byte in text)
    start = f"(drop (call $say (i32.const 1) (i32.const 5000) (i32.const {len(text)})))"
    error = wasm.function(module(start, f'(data (i32.const 5000) "{data}")')).error()
    assert error["errorType"] == "Runtime.MarshalError"


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (None, "Runtime.ImportModuleError", "no such file"),
        (b"#!/bin/sh\necho hello\n", "Runtime.ImportModuleError", "not a WebAssembly module"),
        (b"(module)", "Runtime.ImportModuleError", "not a WebAssembly module"),
        (b"\0asm\x0d\0\1\0", "Runtime.ImportModuleError", "wasm32-wasip1"),
        (b"\0asm\1\0\0\0junk", "Runtime.ImportModuleError", "not valid"),
        (b'(module (import "env" "f" (func)) (func (export "_start")))', "Runtime.ImportModuleError", "env::f"),
        (b'(module (func (export "run")))', "Runtime.HandlerNotFound", "_start"),
        (b'(module (func (export "_start") (param i32)))', "Runtime.HandlerNotFound", "_start"),
        (b'(module (func $f (unreachable)) (start $f) (func (export "_start")))', "Runtime.ExitError", "unreachable"),
        (b'(module (memory 1 1 shared) (func (export "_start")))', "Runtime.ImportModuleError", "not valid"),
    ],
)
def test_a_module_that_cannot_be_a_function_is_refused_with_why(
    wasm: WasmLab, content: bytes | None, kind: str, words: str
) -> None:
    if content is not None and content.startswith(b"(module ("):
        content = bytes(wasmtime.wat2wasm(content))
    report = wasm.refused(content)
    assert report["errorType"] == kind
    assert words in str(report["errorMessage"])


def test_a_module_that_is_too_large_is_refused_unread(wasm: WasmLab) -> None:
    config = wasm.config(ECHO)
    os.truncate(config.code / "app.wasm", MODULE_BYTES_MAX + 1)
    report = wasm.refused(None, code=config.code)
    assert report["errorType"] == "Runtime.ImportModuleError"
    assert "33,554,433 bytes" in str(report["errorMessage"])


def test_a_module_of_16_mb_and_more_is_compiled(wasm: WasmLab) -> None:
    padding = bytes(17 * 1024 * 1024)  # in a section of its own, which nobody reads
    size = len(padding) + 2
    header = bytes([0, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    assert wasm.function(ECHO + header + b"\1x" + padding)(1) == 1


def test_functions_with_the_same_module_have_their_own_limits_and_variables(wasm: WasmLab) -> None:
    content = module("(loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))")
    for size in (128, 192):
        function = wasm.function(content, memory_size=size)
        function()
        assert f"Max Memory Used: {size} MB" in function.log()[-1]
    found = [variables(wasm.function(SHOW_ENVIRONMENT, environment={"NAME": name}))["NAME"] for name in "ab"]
    assert found == ["a", "b"]


def test_without_a_sandbox_modules_run_as_well(lab: Lab) -> None:
    wasm = WasmLab(lab)
    wasm.runtimes = Runtimes(Unconfined())
    assert wasm.function(ECHO)({"a": 1}) == {"a": 1}
    wasm.run(wasm.runtimes.close())


def test_a_handler_outside_of_the_code_is_refused(wasm: WasmLab) -> None:
    other = wasm.config(ECHO)
    report = wasm.refused(ECHO, handler=f"a/../../../{other.code.parent.name}/code/app.wasm")
    assert "no such file" in str(report["errorMessage"])


def test_a_module_has_no_files_and_no_sockets(wasm: WasmLab) -> None:
    start = """(i32.store (i32.const 600) (i32.const 0x7374652f))
      (local.set $i (i32.const 0))
      (loop $next
        (if (i32.eqz (call $open (local.get $i) (i32.const 0) (i32.const 600) (i32.const 4) (i32.const 0)
              (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 700))) (then (unreachable)))
        (if (i32.eqz (call $accept (local.get $i) (i32.const 0) (i32.const 700))) (then (unreachable)))
        (if (i32.eqz (call $prestat (local.get $i) (i32.const 700))) (then (unreachable)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $i) (i32.const 64))))"""
    assert wasm.function(module(start))() is None


def test_no_request_sees_the_memory_of_another(wasm: WasmLab) -> None:
    start = """(if (i32.load (i32.const 9000)) (then (unreachable)))
               (i32.store (i32.const 9000) (i32.const 1)) (call $echo)"""
    function = wasm.function(module(start), workers=1)
    assert [function(n) for n in range(5)] == list(range(5))


def test_100_concurrent_requests_keep_apart(wasm: WasmLab) -> None:
    function = wasm.function(module(SLEEP % 2_000_000 + "(call $echo)"), workers=20)
    events = [{"number": number, "text": "x" * number * 50} for number in range(100)]
    answers = function.run(*events)
    assert [json.loads(answer.payload) for answer in answers] == events


def test_functions_that_never_end_keep_no_other_from_being_served(wasm: WasmLab) -> None:
    hostile = wasm.function(module("(loop $on (br $on))"), workers=8, timeout=60.0)
    friendly = wasm.function(ECHO)
    friendly.warm()

    async def both() -> tuple[Any, Any]:
        looping = [asyncio.ensure_future(hostile.pool.invoke(Invocation(b"1", f"h{n}"))) for n in range(8)]
        while hostile.pool.busy < 8:
            await asyncio.sleep(0.01)
        answer = await friendly.pool.invoke(Invocation(b"2", "f"))
        ended = sum(each.done() for each in looping)
        await kill_host(wasm)
        await asyncio.gather(*looping)
        return answer, ended

    answer, ended = wasm.run(both())
    assert answer.payload == b"2" and ended == 0


async def kill_host(wasm: WasmLab) -> None:
    os.kill(await wasm.host_process(), signal.SIGKILL)


def test_a_host_that_dies_fails_what_it_was_asked_and_is_replaced(wasm: WasmLab) -> None:
    waiting = wasm.function(module(SLEEP % FOREVER_NS), workers=3)
    echo = wasm.function(ECHO)
    python = wasm.lab.function("def handler(event, context): return event")
    assert echo(1) == 1 and python(1) == 1
    waiting.warm()

    async def kill() -> Any:
        calls = [asyncio.ensure_future(waiting.pool.invoke(Invocation(b"1", f"w{n}"))) for n in range(3)]
        while waiting.pool.busy < 3:
            await asyncio.sleep(0.01)
        await kill_host(wasm)
        return await asyncio.gather(*calls)

    for number, answer in enumerate(wasm.run(kill())):
        assert answer.error == "Unhandled"
        assert json.loads(answer.payload) == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: w{number} Error: Runtime exited with error: signal: Killed",
        }
    assert echo(2) == 2 and python(2) == 2


def test_a_host_that_hangs_is_ended_after_the_deadline(wasm: WasmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm_client, "GRACE_SECONDS", 0.2)
    function = wasm.function(module(SLEEP % FOREVER_NS), timeout=0.2)
    function.warm()
    os.kill(wasm.run(wasm.host_process()), signal.SIGSTOP)
    assert function.error()["errorType"] == "Runtime.ExitError"
    monkeypatch.undo()
    assert wasm.function(ECHO)(1) == 1


def test_a_host_that_does_not_start_is_the_nodes_fault(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm_protocol, "BOOTSTRAP", "raise SystemExit('no module named wasmtime')")
    with pytest.raises(UnavailableError, match="does not start: no module named wasmtime"):
        WasmLab(lab).function(ECHO).warm()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"secret_files": {"KEY": b"x"}}, "$.secrets.KEY.asFile"),
        ({"network": Network(internet=True)}, "$.network"),
        ({"opt": Path("/opt")}, "$.layers"),
        ({"memory_size": 1 << 30}, "$.memorySize"),
    ],
)
def test_what_a_module_cannot_have_is_refused(wasm: WasmLab, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(UnavailableError) as found:
        wasm.runtimes.check(wasm.config(ECHO, **fields))
    assert found.value.problems[0].path == path


PROGRAM = Path(__file__).with_name("wasm") / "program.wasm"


def test_a_compiled_c_program_is_a_function(wasm: WasmLab) -> None:
    function = wasm.function(PROGRAM.read_bytes())
    for event in ("hello", "open", "sleep"):
        answer = function(event)
        assert answer["argument"] == "app.wasm" and answer["home"] == "/tmp"
        assert abs(answer["time"] - time.time()) < 60
    assert "exit status 5" in function.error("exit")["errorMessage"]
    assert "7 bytes" in function.log()
