"""Workers of the managed runtimes: a process in a sandbox, spoken to in frames (see python_worker.py)."""

import asyncio
import itertools
import json
import os
import socket
import time
from typing import Any

import orjson

from owsgit.model.service import Invocation
from owsgit.runtime import debugger, environment, failures, managed, sdk, worker
from owsgit.runtime.cgroup import Limits
from owsgit.runtime.config import FunctionConfig, InitError
from owsgit.runtime.debugger import WorkerPort
from owsgit.runtime.frames import Frames, widen
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.process_worker import ProcessWorker
from owsgit.runtime.python_worker import (
    CHUNK,
    ERROR,
    FATAL,
    HEAD,
    INIT,
    INIT_ERROR,
    INVOKE,
    READY,
    RESULT,
)
from owsgit.runtime.sandbox import Command, Sandbox
from owsgit.runtime.streamed import CONTENT_TYPE_BYTES_MAX, Streamed
from owsgit.runtime.worker import MEBIBYTE, PROCESSES_MAX


class FramedWorker(ProcessWorker):
    """A worker of one function, thrown away after the first fault."""

    def __init__(self, config: FunctionConfig, log: FunctionLog) -> None:
        super().__init__(config, log)
        self._numbers = itertools.count(1)
        self._debug_port: WorkerPort | None = None

    def _more_sockets(self) -> list[socket.socket]:
        """What the process gets beside its socket; closed here when it ends."""
        return []

    async def start(self, sandbox: Sandbox) -> None:
        """Start the process and load the handler. Raises InitError, UnavailableError."""
        began = time.monotonic()
        ours, theirs = socket.socketpair()
        widen(theirs)
        output = self._transcript.open()
        dialled = self._debug_listener(sandbox)
        try:
            fds = [theirs.fileno(), *(each.fileno() for each in self._more_sockets())]
            command = self._command(fds, output, sandbox, dialled)
            self._running = await sandbox.start(command)
        except BaseException:
            ours.close()
            self._transcript.close()
            if dialled is not None:
                dialled.close()
            raise
        finally:
            theirs.close()
            os.close(output)
        try:
            self._frames = await Frames.open(ours)
        except BaseException:
            ours.close()
            self._transcript.close()
            if dialled is not None:
                dialled.close()
            self._running.kill()
            await self._running.gone()
            raise
        self.alive = True
        try:
            if self.config.debugging is not None:
                listener = dialled or self._running.listeners[0]
                self._debug_port = await self.config.debugging.port.serve(listener)
            await self._initialise()
        except BaseException:
            self.close()
            raise
        self._transcript.init_ms = (time.monotonic() - began) * 1000

    def _debug_listener(self, sandbox: Sandbox) -> socket.socket | None:
        """What a worker without a network of its own dials."""
        if self.config.debugging is None or sandbox.contained:
            return None
        return socket.create_server((debugger.LOOPBACK, 0))

    def _command(self, fds: list[int], output_fd: int, sandbox: Sandbox, dialled: socket.socket | None) -> Command:
        config = self.config
        debug_port = dialled.getsockname()[1] if dialled is not None else debugger.PORT_INSIDE
        program = managed.program(config, sandbox.contained, debug_port)
        task = config.task(sandbox.contained)
        return Command(
            arguments=[*program.arguments, ",".join(map(str, sandbox.numbers(fds)))],
            environment=environment.of(config, self._transcript.stream, sandbox.contained),
            folder=task,
            read_only={
                task: config.code,
                **environment.mounts(config),
                **program.read_only,
            },
            limits=Limits(
                config.memory_size * MEBIBYTE + program.debugger_bytes, PROCESSES_MAX, program.reserved_bytes
            ),
            pass_fds=fds,
            output_fd=output_fd,
            tmp_bytes=config.tmp_size * MEBIBYTE,
            network=config.network,
            listen=[debug_port] if config.debugging else [],
            interpreter=None if environment.has_libraries(config) else program.interpreter,
            sdk=program.interpreter is not None and sdk.is_used(config.code),
            files={f"{environment.SECRETS_FOLDER}/{name}": content for name, content in config.secret_files.items()},
        )

    async def _initialise(self) -> None:
        about = {
            "handler": self.config.handler,
            "functionName": self.config.name,
            "functionVersion": self.config.version,
            "memorySize": self.config.memory_size,
            "timeoutMs": int(self.config.timeout * 1000),
            "logGroupName": self.config.log_group,
            "logStreamName": self._transcript.stream,
        }
        try:
            self._frames.send(INIT, 0, [json.dumps(about).encode()])
            limit = None if self.config.debugging else worker.INIT_SECONDS_MAX
            kind, payload = await asyncio.wait_for(self._receive(0), limit)
        except TimeoutError:
            raise InitError(failures.init_timed_out(worker.INIT_SECONDS_MAX)) from None
        except (EOFError, OSError, ValueError):
            raise InitError(await self._exit_report("")) from None
        finally:
            self._transcript.drain()
        if kind != READY:
            raise InitError(self._transcript.masked(failures.read(payload, "Runtime.Unknown")))

    async def _ask(self, invocation: Invocation) -> tuple[bytes, str | None]:
        config = self.config
        number = next(self._numbers)
        meta: dict[str, Any] = {
            "requestId": invocation.request_id,
            "functionArn": config.arn,
            "deadlineMs": int((time.time() + config.timeout) * 1000),
        }
        if invocation.trace_id:
            meta["traceId"] = invocation.trace_id
        if invocation.client_context:
            meta["clientContext"] = json.loads(invocation.client_context)
        self._frames.send(INVOKE, number, [orjson.dumps(meta), b"\n", invocation.payload])
        kind, payload = await self._answer(number, invocation)
        return payload, None if kind == RESULT else "Unhandled"

    async def _answer(self, number: int, invocation: Invocation) -> tuple[int, bytes]:
        """The kind and payload that answer request `number`. Raises EOFError, and ValueError for others."""
        streamed = Streamed(invocation.sink)
        while True:
            kind, payload = await self._receive(number)
            if kind == CHUNK:
                await streamed.take(payload)
                continue
            if kind == HEAD:
                if invocation.announce is not None:
                    invocation.announce(payload[:CONTENT_TYPE_BYTES_MAX].decode("utf-8", "replace"))
                continue
            if kind == FATAL:
                self.close()
            return streamed.end(kind, payload)

    async def _receive(self, number: int) -> tuple[int, bytes]:
        """The next frame of request `number` (0: of the init phase). Raises EOFError, and ValueError for others."""
        kind, answered, payload = await self._frames.receive()
        wanted = (RESULT, ERROR, CHUNK, FATAL, HEAD) if number else (READY, INIT_ERROR)
        if answered != number or kind not in wanted:
            raise ValueError("not a frame of the protocol")
        return kind, payload

    def exited(self) -> bool:
        """Also when it is of no more use: debugpy dials only once."""
        spent = self._debug_port is not None and self._debug_port.used and self.config.family == "python"
        return spent or super().exited()

    def _hang_up(self) -> None:
        self._frames.abort()
        if self._debug_port is not None:
            self._debug_port.close()
