"""One request to a WebAssembly module: an instance of its own, from nothing to its answer. Runs inside of the sandbox.

Event and output are files in memory: the kernel copies and bounds them, and no other request waits for it.
"""

import contextlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import wasmtime

from owsgit.runtime.wasm_modules import Compiled
from owsgit.runtime.wasm_protocol import FAILED, LOG_BYTES_MAX, RESPONSE_BYTES_MAX, RESULT
from owsgit.runtime.wasm_wasi import clock

TICK_SECONDS = 0.01
"""How exact a timeout is."""

TABLE_ELEMENTS_MAX = 1_000_000
"""Function pointers of a module: 8 MB."""

CHECKED_BYTES_MAX = 256 * 1024
"""Up to here an answer is checked to be JSON; of a longer one only the ends are: parsing it would hold up others."""

MESSAGE_CHARACTERS_MAX = 4096
FRAMES_MAX = 50
LOG_LOOK_BYTES = 4096
OUT_OF_MEMORY = (b"memory allocation of ", b"out of memory", b"Out of memory")
"""What Rust, C++ and Go say when memory.grow was refused: the module alone knows of it."""

OUT_OF_FUEL = wasmtime.TrapCode.OUT_OF_FUEL
NUMBERED = re.compile(r"\s*[0-9]+: ")


class NotJsonError(Exception):
    """The module wrote something else than JSON."""


@dataclass
class Request:
    """A request that runs. `tell` takes what it writes to stderr."""

    compiled: Compiled
    about: Any
    event: bytes
    tell: Callable[[bytes], None]
    log_fd: int = -1
    _logged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> tuple[int, Any, bytes]:
        """The answer, as a kind of frame, what it says, and what follows."""
        with contextlib.ExitStack() as stack:
            event_fd, output_fd, log_fd = (stack.enter_context(_in_memory(name)) for name in ("event", "out", "log"))
            with os.fdopen(os.dup(event_fd), "wb") as file:
                file.write(self.event)
            self.log_fd = log_fd
            try:
                with Instance(self.compiled, self.about) as instance:
                    failure = instance.call(event_fd, output_fd, log_fd)
                    size = instance.memory_bytes()
                    used = {"memoryBytes": size, "fuelUsed": instance.fuel_used()}
                self.flush_log()
                if failure is None:
                    return RESULT, used, _answer(output_fd)
                failure["outOfMemory"] = failure.get("outOfMemory") or self._ran_out_of_memory(failure, size)
            except TooLargeError as error:
                failure = {"kind": "size", "size": error.size}
            except NotJsonError as error:
                failure = {"kind": "json", "message": str(error)}
            finally:
                with self._lock:
                    self.log_fd = -1
            return FAILED, {**failure, **used}, b""

    def flush_log(self) -> None:
        """Hand on what the module wrote to stderr since the last time; called from the request's thread and another."""
        with self._lock:
            if self.log_fd >= 0 and self._logged < LOG_BYTES_MAX:
                piece = os.pread(self.log_fd, LOG_BYTES_MAX - self._logged, self._logged)
                self._logged += len(piece)
                if piece:
                    self.tell(piece)

    def _ran_out_of_memory(self, failure: Any, memory_bytes: int) -> bool:
        """WebAssembly tells the module alone that it gets no more: it is at its limit, or said so before it gave up."""
        if failure["kind"] not in ("exit", "trap"):
            return False
        said = os.pread(self.log_fd, LOG_LOOK_BYTES, max(os.fstat(self.log_fd).st_size - LOG_LOOK_BYTES, 0))
        return memory_bytes * 8 > self.about["memoryBytes"] * 7 or any(words in said for words in OUT_OF_MEMORY)


class TooLargeError(Exception):
    """The answer is longer than Lambda lets through."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Instance:
    """A module's instance with its limits; closed with all its memory."""

    def __init__(self, compiled: Compiled, about: Any) -> None:
        self._prepared = compiled.prepared
        self._about = about
        self._made: wasmtime.Instance | None = None
        self._store = wasmtime.Store(compiled.engine)
        self._store.set_limits(
            memory_size=about["memoryBytes"], table_elements=TABLE_ELEMENTS_MAX, instances=1, tables=16, memories=1
        )
        if about["fuel"] is not None:
            self._store.set_fuel(about["fuel"])

    def __enter__(self) -> "Instance":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def make(self, wasi: wasmtime.WasiConfig) -> dict[str, wasmtime.Func]:
        """Instantiate, with the time running; its functions. Raises WasmtimeError, Trap."""
        self._store.set_wasi(wasi)
        clock.began_ns = time.monotonic_ns()
        clock.deadline_ns = clock.began_ns + int(self._about["seconds"] * 1e9)
        self._store.set_epoch_deadline(math.ceil(self._about["seconds"] / TICK_SECONDS) + 1)
        self._made = self._prepared.instantiate(self._store)
        start = self._made.exports(self._store)["_start"]
        assert isinstance(start, wasmtime.Func)  # as it was looked at when the module was compiled
        return {"_start": start}

    def call(self, event_fd: int, output_fd: int, log_fd: int) -> dict[str, Any] | None:
        """Run the command; what went wrong, if anything."""
        wasi = wasmtime.WasiConfig()
        wasi.argv = [self._about["argument"]]
        wasi.env = list(self._about["environment"].items())
        wasi.stdin_file = f"/proc/self/fd/{event_fd}"
        wasi.stdout_file = f"/proc/self/fd/{output_fd}"
        wasi.stderr_file = f"/proc/self/fd/{log_fd}"
        try:
            self.make(wasi)["_start"](self._store)
        except wasmtime.ExitTrap as error:
            return None if error.code == 0 else {"kind": "exit", "status": error.code}
        except wasmtime.Trap as error:
            if error.trap_code == wasmtime.TrapCode.INTERRUPT:
                return {"kind": "timeout"}
            return describe(error)
        except wasmtime.WasmtimeError as error:
            return describe(error)
        return {"kind": "timeout"} if time.monotonic_ns() >= clock.deadline_ns else None

    def memory_bytes(self) -> int:
        """The linear memory, which never shrinks."""
        memory = self._made.exports(self._store).get("memory") if self._made is not None else None
        return memory.data_len(self._store) if isinstance(memory, wasmtime.Memory) else 0

    def fuel_used(self) -> int | None:
        """None where it is not counted."""
        fuel: int | None = self._about["fuel"]
        return None if fuel is None else fuel - self._store.get_fuel()


def describe(error: wasmtime.Trap | wasmtime.WasmtimeError) -> dict[str, Any]:
    """wasmtime's error, its cause apart from the frames."""
    where, _, why = str(error).rpartition("Caused by:")
    frames = [line.strip() for line in where.splitlines() if NUMBERED.match(line)]
    causes = [NUMBERED.sub("", line).strip() for line in why.splitlines()]
    message = ": ".join(cause for cause in reversed(causes) if cause)  # what happened comes last
    refused = "exceeds memory limits" in message
    return {
        "kind": "fuel" if isinstance(error, wasmtime.Trap) and error.trap_code == OUT_OF_FUEL else "trap",
        "message": message[:MESSAGE_CHARACTERS_MAX],
        "stackTrace": frames[:FRAMES_MAX],
        "outOfMemory": refused,
    }


def _answer(fd: int) -> bytes:
    """What the module wrote to stdout; nothing at all is null. Raises TooLargeError, NotJsonError."""
    size = os.fstat(fd).st_size
    if size > RESPONSE_BYTES_MAX:
        raise TooLargeError(size)
    data = os.pread(fd, size, 0).strip() or b"null"
    try:
        text = data.decode()
        if len(data) <= CHECKED_BYTES_MAX:
            json.loads(text, parse_int=len, parse_float=len, parse_constant=_refuse)
        elif text[0] + text[-1] not in ("{}", "[]", '""'):
            raise ValueError(f"it begins with {text[0]!r} and ends with {text[-1]!r}")
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from None
    return data


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@contextlib.contextmanager
def _in_memory(name: str) -> Iterator[int]:
    fd = os.memfd_create(name)
    try:
        yield fd
    finally:
        os.close(fd)
