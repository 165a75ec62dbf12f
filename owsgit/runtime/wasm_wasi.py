"""WASI preview 1 as functions get it. Runs inside of the host's sandbox only.

It is wasmtime's, with no files, no sockets and nothing inherited, but for `poll_oneoff`: a module that waits there is
in the host, where no epoch interrupts it, so the waiting is done here, and never beyond the request's deadline.

https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
"""

import struct
import threading
import time

import wasmtime

PREVIEW_1 = "wasi_snapshot_preview1"
SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")  # userdata, tag, clock or descriptor, timeout, precision, flags
EVENT = struct.Struct("<QHB5xQH6x")  # userdata, error, type, bytes, flags
SUBSCRIPTIONS_MAX = 1024
CLOCK, FD_READ, FD_WRITE = range(3)
REALTIME, MONOTONIC = range(2)
ABSOLUTE = 1
SUCCESS, BADF, FAULT, INVAL = 0, 8, 21, 28
STANDARD_STREAMS = 3


class Clock(threading.local):
    """When the request that runs in this thread began, and when it ends, by time.monotonic_ns()."""

    began_ns = 0
    deadline_ns = 0


clock = Clock()


def define_wasi(engine: wasmtime.Engine) -> wasmtime.Linker:
    """A linker that knows WASI, and nothing else."""
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    linker.allow_shadowing = True
    i32 = wasmtime.ValType.i32()
    linker.define_func(PREVIEW_1, "poll_oneoff", wasmtime.FuncType([i32] * 4, [i32]), _poll_oneoff, access_caller=True)
    return linker


def _poll_oneoff(caller: wasmtime.Caller, subscriptions: int, events: int, count: int, stored: int) -> int:
    """Never raises: wasmtime keeps exceptions of all threads in one place."""
    try:
        memory = caller["memory"]
        assert isinstance(memory, wasmtime.Memory)
        if not 0 < count <= SUBSCRIPTIONS_MAX:
            return INVAL
        wanted = list(SUBSCRIPTION.iter_unpack(_read(memory, caller, subscriptions, count * SUBSCRIPTION.size)))
        found = _wait(wanted)
        _write(memory, caller, events, b"".join(found))
        _write(memory, caller, stored, len(found).to_bytes(4, "little"))
    except Exception:
        return FAULT
    return SUCCESS


def _wait(wanted: list[tuple[int, ...]]) -> list[bytes]:
    """The events that have come: those of descriptors at once, as they never wait; else the first clock's, in time."""
    found = []
    delays_ns = []
    for userdata, tag, subject, timeout_ns, _, flags in wanted:
        if tag == CLOCK:
            delays_ns.append((_delay_ns(subject, timeout_ns, flags), userdata))
        else:
            found.append(EVENT.pack(userdata, SUCCESS if subject < STANDARD_STREAMS else BADF, tag, 1, 0))
    if not found:
        shortest_ns = min(delays_ns)[0]
        left_ns = clock.deadline_ns - time.monotonic_ns()
        time.sleep(max(min(shortest_ns, left_ns), 0) / 1e9)
        found = [
            EVENT.pack(userdata, SUCCESS, CLOCK, 0, 0) for delay_ns, userdata in delays_ns if delay_ns <= shortest_ns
        ]
    return found


def _delay_ns(identity: int, timeout_ns: int, flags: int) -> int:
    if not flags & ABSOLUTE:
        return timeout_ns
    return timeout_ns - (time.time_ns() if identity == REALTIME else time.monotonic_ns() - clock.began_ns)


def _read(memory: wasmtime.Memory, caller: wasmtime.Caller, address: int, size: int) -> bytes:
    address &= 0xFFFFFFFF
    if address + size > memory.data_len(caller):
        raise ValueError("outside of memory")
    return bytes(memory.read(caller, address, address + size))


def _write(memory: wasmtime.Memory, caller: wasmtime.Caller, address: int, content: bytes) -> None:
    address &= 0xFFFFFFFF
    if address + len(content) > memory.data_len(caller):
        raise ValueError("outside of memory")
    memory.write(caller, content, address)
