"""The node's side of the host of WebAssembly functions: started with the first of them, and again when it ended."""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from owsgit.model.errors import UnavailableError
from owsgit.runtime import interpreters, wasm_protocol
from owsgit.runtime.budget import machine_memory_bytes
from owsgit.runtime.cgroup import Limits
from owsgit.runtime.memory_share import MemoryShare
from owsgit.runtime.sandbox import Command, Running, Sandbox, end_of
from owsgit.runtime.wasm_protocol import FRAME_BYTES_MAX, HEADER, LOG, SERVE, THREADS_MAX
from owsgit.runtime.worker import PROCESSES_MAX

FILES = ("wasm_host.py", "wasm_modules.py", "wasm_protocol.py", "wasm_request.py", "wasm_wasi.py")
INSIDE = Path("/var/wasm")  # of its own: /var/runtime is one folder for all sandboxes
OWN_BYTES = 3 * 1024 * 1024 * 1024
"""Beside the requests' memory: two compilers and the compiled modules at their largest."""

GRACE_SECONDS = 10.0
"""A host that has not ended a request so long after its deadline is stuck, and is ended."""

TMP_BYTES = 1024 * 1024
"""Nothing is kept in /tmp."""

START_SECONDS_MAX = 30
"""An interpreter with wasmtime, on a machine that has much else to do."""

READ_BYTES = 1024 * 1024


class HostEndedError(Exception):
    """The host ended before it answered; its status, and whether memory was what it lacked."""

    def __init__(self, status: int, out_of_memory: bool) -> None:
        super().__init__(f"exit status {status}")
        self.status = status
        self.out_of_memory = out_of_memory


@dataclass
class Asked:
    """A request that waits for its answer."""

    answer: "asyncio.Future[tuple[int, Any, bytes]]"
    told: Callable[[bytes], None]


class WasmHost:
    """One host process."""

    def __init__(self) -> None:
        self.alive = False
        self._numbers = itertools.count(1)
        self._asked: dict[int, Asked] = {}
        self.ready: set[tuple[str, int, int | None]] = set()
        """Modules by their hash, with the memory and the fuel that their instances were tried with. It may have dropped
        some since: then it says so when it is asked."""

    async def start(self, sandbox: Sandbox, memory_bytes: int) -> None:
        """Raises UnavailableError."""
        ours, theirs = socket.socketpair()
        output = os.memfd_create("output")
        try:
            command = _command(theirs.fileno(), output, sandbox, memory_bytes)
            self._running: Running = await sandbox.start(command)
            theirs.close()
            self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=READ_BYTES)
            await self._greet(output)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(output)
        self.alive = True
        self._receiver = asyncio.create_task(self._receive())

    async def _greet(self, output: int) -> None:
        """Wait until it is there. Raises UnavailableError with what it said instead."""
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                length, *_ = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                await self._reader.readexactly(min(length, READ_BYTES))
        except (EOFError, OSError, TimeoutError):
            self._running.kill()
            await self._running.gone()
            said = os.pread(output, READ_BYTES, 0).decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise UnavailableError(f"the host of WebAssembly functions does not start: {said or 'no reason'}") from None

    def ask(
        self, kind: int, about: Any, rest: bytes, seconds: float, told: Callable[[bytes], None]
    ) -> "asyncio.Future[tuple[int, Any, bytes]]":
        """Send a frame; its answer, for which there are `seconds`. Fails with HostEndedError."""
        loop = asyncio.get_running_loop()
        number = next(self._numbers) & 0xFFFFFFFF
        answer: asyncio.Future[tuple[int, Any, bytes]] = loop.create_future()
        watchdog = loop.call_later(seconds + GRACE_SECONDS, self.kill)
        answer.add_done_callback(lambda _: watchdog.cancel())
        answer.add_done_callback(asyncio.Future.exception)  # looked at, if nobody waits for it any more
        self._asked[number] = Asked(answer, told)
        self._writer.write(wasm_protocol.pack(kind, number, about, rest))
        return answer

    async def _receive(self) -> None:
        try:
            while True:
                length, kind, number = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                if length > FRAME_BYTES_MAX:
                    break
                about, rest = wasm_protocol.unpack(await self._reader.readexactly(length))
                asked = self._asked.get(number)
                if asked is None:
                    break
                if kind == LOG:
                    asked.told(rest)
                elif self._asked.pop(number) and not asked.answer.done():
                    asked.answer.set_result((kind, about, rest))
        except (EOFError, OSError, ValueError):
            pass
        finally:
            await self._end()

    async def _end(self) -> None:
        """Everybody who waits is told that the host is gone."""
        self.alive = False
        self._writer.transport.abort()
        status, out_of_memory = await end_of(self._running)
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(HostEndedError(status, out_of_memory))
        self._asked.clear()
        await self._running.gone()

    def kill(self) -> None:
        self.alive = False
        self._running.kill()

    async def close(self) -> None:
        self.kill()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiver


def _command(fd: int, output_fd: int, sandbox: Sandbox, memory_bytes: int) -> Command:
    own, found = Path(__file__).parent, find_spec("wasmtime")
    if found is None or found.origin is None:
        raise UnavailableError("the package wasmtime is not installed", remedy="pip install wasmtime")
    wasmtime = Path(found.origin).parent
    interpreter = interpreters.find("python")
    (inside,) = sandbox.numbers([fd])
    folders = [str(INSIDE)] if sandbox.contained else [str(own.parent.parent), str(wasmtime.parent)]
    options = ["-I", "-S", "-B", "-X", "utf8", "-c", wasm_protocol.BOOTSTRAP, SERVE, str(inside), *folders]
    return Command(
        arguments=[str(interpreter.program), *options],
        environment={},
        folder="/",
        read_only={
            str(INSIDE / "wasmtime"): wasmtime,
            **{str(INSIDE / "owsgit/runtime" / name): own / name for name in FILES},
            **{str(folder): folder for folder in interpreter.folders},
        },
        limits=Limits(memory_bytes, PROCESSES_MAX),
        pass_fds=[fd],
        output_fd=output_fd,
        tmp_bytes=TMP_BYTES,
    )


class WasmHosts:
    """The host that lives now, and the memory that its requests share."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.memory = MemoryShare(machine_memory_bytes() // 2)
        self.threads = asyncio.Semaphore(THREADS_MAX)
        self._sandbox = sandbox
        self.digests: dict[tuple[object, ...], str] = {}
        self._host: WasmHost | None = None
        self._starting = asyncio.Lock()

    async def current(self) -> WasmHost:
        """A host that is alive. Raises UnavailableError."""
        host = self._host
        if host is not None and host.alive:
            return host
        async with self._starting:
            if self._host is None or not self._host.alive:
                host = WasmHost()
                await host.start(self._sandbox, self.memory.size + OWN_BYTES)
                self._host = host
            return self._host

    async def close(self) -> None:
        if self._host is not None:
            await self._host.close()
