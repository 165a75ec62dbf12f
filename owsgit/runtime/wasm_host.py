"""The host of all WebAssembly functions of a node: a process in a sandbox, asked over a socket (see wasm_protocol.py).

What is promised: each request has an instance of its own, with memory that no other request ever saw; a module reaches
nothing but its event, its variables, its output, clocks and random numbers; its time, memory, stack and output are
bounded. Functions share this process: what separates them is WebAssembly's own sandbox, as wasmtime makes it. What
separates them from the machine is the sandbox around this process, which has no files, no network and no capabilities,
so a hole in wasmtime opens the other WebAssembly functions of this node and nothing else. What is not promised: that
functions which measure their own time learn nothing of others by the processor's caches and predictors. wasmtime has
its mitigations for Spectre within an instance; keep secrets that this matters for in another runtime.

Time is bounded by epochs, which cost a comparison. Fuel, which bounds work alike on every machine, is counted only for
functions that ask for it, by an engine of its own: counting made a tight loop three times slower.

Bootstrap: `-c BOOTSTRAP <mode> <fd> <folder of packages>...`, with this file as owsgit.runtime.wasm_host.
"""

import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import wasmtime

from owsgit.runtime import wasm_modules, wasm_protocol
from owsgit.runtime.wasm_modules import Compiled, Engines, Modules, RefusedError
from owsgit.runtime.wasm_protocol import (
    ABSENT,
    COMPILE,
    COMPILE_WITH_FUEL,
    FAILED,
    HEADER,
    INIT_ERROR,
    INVOKE,
    LOAD,
    LOG,
    OUTPUT_BYTES_MAX,
    READY,
    THREADS_MAX,
)  # fmt: skip
from owsgit.runtime.wasm_request import TICK_SECONDS, Instance, Request, describe

THREAD_STACK_BYTES = 4 * wasm_modules.STACK_BYTES
"""A thread has to have room for the module's calls, and for those of the host that they lead to."""

LOG_SECONDS = 0.25
"""How long what a module writes to stderr may wait until it is told."""


class Channel:
    """The socket to the node, in whole frames; many threads may send."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._lock = threading.Lock()

    def receive(self) -> tuple[int, int, bytes]:
        length, kind, number = HEADER.unpack(self._exactly(HEADER.size))
        return kind, number, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            size = self._socket.recv_into(view[done:])
            if not size:
                os._exit(0)  # the node is gone, or has no more need of this host
            done += size
        return bytes(data)

    def send(self, kind: int, number: int, about: Any, rest: bytes = b"") -> None:
        frame = wasm_protocol.pack(kind, number, about, rest)
        with self._lock:
            self._socket.sendall(frame)


class Host:
    """Loads modules and runs requests, each in a thread."""

    def __init__(self, channel: Channel, modules: Modules, engines: Engines) -> None:
        self._channel = channel
        self._modules = modules
        self._engines = engines
        self._running: dict[int, Request] = {}
        self._begun = threading.Event()
        self._count = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Never returns: the process ends with the socket."""
        threading.Thread(target=self._tick, daemon=True).start()
        self._channel.send(READY, 0, None)
        threads = ThreadPoolExecutor(THREADS_MAX)
        actions = {LOAD: self._load, INVOKE: self._invoke}
        while True:
            kind, number, payload = self._channel.receive()
            threads.submit(self._in_thread, actions[kind], number, payload)

    def _in_thread(self, action: Callable[[int, bytes], None], number: int, payload: bytes) -> None:
        with self._lock:
            self._count += 1
            self._begun.set()
        try:
            action(number, payload)
        except BaseException as error:  # a fault of the host's own: say so, rather than leave the request waiting
            text = f"{type(error).__name__}: {error}"
            about = {"kind": "host", "message": text, "errorType": "Runtime.ExitError", "errorMessage": text}
            self._channel.send(FAILED, number, about)
        finally:
            with self._lock:
                self._count -= 1
                if not self._count:
                    self._begun.clear()

    def _load(self, number: int, payload: bytes) -> None:
        about, content = wasm_protocol.unpack(payload)
        counts_fuel = about["fuel"] is not None
        try:
            compiled = self._modules.get(about["module"], counts_fuel)
            if compiled is None and not content:
                self._channel.send(ABSENT, number, None)
                return
            if compiled is None:
                compiled = self._modules.add(about["module"], counts_fuel, content)
            self._try(compiled, about)
        except RefusedError as error:
            self._channel.send(INIT_ERROR, number, {"errorType": error.kind, "errorMessage": str(error)})
        except TimeoutError:
            self._channel.send(INIT_ERROR, number, None)
        else:
            self._channel.send(READY, number, None)

    def _try(self, compiled: Compiled, about: Any) -> None:
        """Whether an instance can be had within the function's limits. Raises RefusedError."""
        with Instance(compiled, about) as instance:
            try:
                instance.make(wasmtime.WasiConfig())
            except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
                found = describe(error)
                kind = "Runtime.OutOfMemory" if found["outOfMemory"] else "Runtime.ExitError"
                why = found["message"]
                if found["kind"] == "fuel":
                    kind, why = "Runtime.FuelExhausted", f"all {about['fuel']:,} units of fuel were used up"
                raise RefusedError(kind, f"the module cannot be instantiated: {why}") from None

    def _invoke(self, number: int, payload: bytes) -> None:
        about, event = wasm_protocol.unpack(payload)
        compiled = self._modules.get(about["module"], about["fuel"] is not None)
        if compiled is None:
            self._channel.send(ABSENT, number, None)
            return
        request = Request(compiled, about, event, lambda piece: self._channel.send(LOG, number, None, piece))
        self._running[number] = request
        try:
            kind, answer, rest = request.run()
        finally:
            del self._running[number]
        self._channel.send(kind, number, answer, rest)

    def _tick(self) -> None:
        """Let time pass for the modules while any of them runs, and tell what they wrote."""
        while True:
            self._begun.wait()
            began = told = time.monotonic()
            ticks = 0
            while self._begun.is_set():
                time.sleep(TICK_SECONDS)
                now = time.monotonic()
                while ticks < int((now - began) / TICK_SECONDS):
                    ticks += 1
                    self._engines.tick()
                if now - told > LOG_SECONDS:
                    told = now
                    for request in list(self._running.values()):
                        request.flush_log()


def main() -> None:
    mode, fd, *folders = sys.argv[1:]
    os.set_inheritable(int(fd), False)
    if mode in (COMPILE, COMPILE_WITH_FUEL):
        wasm_modules.compile_one(mode == COMPILE_WITH_FUEL, int(fd))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES_MAX, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(THREAD_STACK_BYTES)
    engines = Engines()
    compiler = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", wasm_protocol.BOOTSTRAP]
    Host(Channel(int(fd)), Modules(engines, compiler, folders), engines).serve()
