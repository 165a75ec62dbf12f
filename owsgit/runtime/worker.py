"""One warm worker process: started, initialised, asked one request at a time, and thrown away after the first fault."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime import interpreters, python_worker
from owsgit.runtime.cgroup import Limits
from owsgit.runtime.logs import LINE_BYTES_MAX, FunctionLog, timestamp
from owsgit.runtime.python_worker import ERROR, HEADER, INIT, INVOKE, READY, RESPONSE_BYTES_MAX, RESULT
from owsgit.runtime.sandbox import Command, Running, Sandbox

INIT_SECONDS_MAX = 10.0
"""Lambda's limit for the init phase."""

LOG_BYTES_PER_REQUEST_MAX = 1024 * 1024
"""A handler that writes more is noisy by mistake or by malice; the rest of that request's output is dropped."""

LOG_LINES_PER_REQUEST_MAX = 10_000
"""Each becomes a line of JSON: a MiB of line ends would be a hundred MiB of log."""

LOG_TAIL_BYTES_MAX = 4096
"""What Lambda returns of the log with an answer."""

LOG_PAUSE_SECONDS = 0.004
"""How long a worker beyond its log limit waits for its next read: it slows itself down, and nobody else."""

FRAME_BYTES_MAX = RESPONSE_BYTES_MAX + 1024 * 1024
PROCESSES_MAX = 1024
"""Lambda's limit for processes and threads."""

SECRETS_FOLDER = "/run/secrets"
MASKED = "***"
MASKED_CHARACTERS_MIN = 6
"""Shorter lines of a secret would be found everywhere."""

MEBIBYTE = 1024 * 1024
_numbers = itertools.count(1)


@dataclass(frozen=True)
class FunctionConfig:
    """All that a worker has to know of its function. Sizes in MiB, times in seconds."""

    name: str
    arn: str
    runtime: str
    handler: str
    code: Path
    timeout: float
    memory_size: int
    environment: dict[str, str]
    region: str
    version: str
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """Environment variables that are in no log: what is written of them is masked."""

    secret_files: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Files by the name of the variable that carries their path."""

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.name}"


class InitError(OwsgitError):
    """The function's code could not be loaded; `report` is Lambda's error object."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(f"{report['errorType']}: {report['errorMessage']}", remedy="correct the code")
        self.report = report


class Worker:
    """A worker of one function. Not for concurrent use: the pool hands it to one request at a time."""

    def __init__(self, config: FunctionConfig, log: FunctionLog) -> None:
        self.config = config
        self.alive = False
        self.last_used = time.monotonic()
        self._log = log
        self._stream = f"{time.strftime('%Y/%m/%d')}/[{config.version}]{os.urandom(16).hex()}"
        self._init_ms: float | None = None
        self._request_id = ""
        self._output = b""
        self._output_bytes = 0
        self._output_lines = 0
        self._tail: deque[str] = deque()
        self._tail_bytes = 0
        self._output_fd = -1
        self._more = False  # whether the last read found anything
        self._numbers = itertools.count(1)
        self._mask = _mask(config)

    async def start(self, sandbox: Sandbox) -> None:
        """Start the process and load the handler. Raises InitError, UnavailableError."""
        began = time.monotonic()
        ours, theirs = socket.socketpair()
        self._output_fd, output_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(output_write, True)
        try:
            command = self._command(theirs.fileno(), output_write, sandbox.contained)
            name = f"{self.config.name}-{next(_numbers)}"
            self._running: Running = await sandbox.start(name, command)
        except BaseException:
            ours.close()
            os.close(self._output_fd)
            self._output_fd = -1
            raise
        finally:
            theirs.close()
            os.close(output_write)
        self.alive = True
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        asyncio.get_running_loop().add_reader(self._output_fd, self._read_output)
        try:
            await self._initialise()
        except BaseException:
            self.close()
            raise
        self._init_ms = (time.monotonic() - began) * 1000

    def _command(self, fd: int, output_fd: int, contained: bool) -> Command:
        config, interpreter = self.config, interpreters.find(self.config.runtime)
        script = Path(python_worker.__file__)
        inside = "/var/runtime/python_worker.py" if contained else str(script)
        task = "/var/task" if contained else str(config.code)
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "HOME": "/tmp",  # noqa: S108 - the sandbox's own
            "LAMBDA_TASK_ROOT": task,
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_REGION": config.region,
            "AWS_DEFAULT_REGION": config.region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": config.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_size),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": config.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self._stream,
            "_HANDLER": config.handler,
            **config.environment,
            **config.secrets,
            **{name: f"{SECRETS_FOLDER}/{name}" for name in config.secret_files},
        }
        return Command(
            arguments=[str(interpreter.program), "-I", "-S", "-B", "-X", "utf8", inside, str(fd)],
            environment=environment,
            folder=task,
            read_only={inside: script, task: config.code, **{str(folder): folder for folder in interpreter.folders}},
            limits=Limits(config.memory_size * MEBIBYTE, PROCESSES_MAX),
            pass_fds=[fd],
            output_fd=output_fd,
            files={f"{SECRETS_FOLDER}/{name}": content for name, content in config.secret_files.items()},
        )

    async def _initialise(self) -> None:
        about = {
            "handler": self.config.handler,
            "functionName": self.config.name,
            "functionVersion": "$LATEST",
            "memorySize": self.config.memory_size,
            "logGroupName": self.config.log_group,
            "logStreamName": self._stream,
        }
        try:
            self._send(INIT, 0, json.dumps(about).encode())
            kind, payload = await asyncio.wait_for(self._receive(0), INIT_SECONDS_MAX)
        except TimeoutError:
            raise InitError(
                {
                    "errorType": "Sandbox.Timedout",
                    "errorMessage": f"Init phase timed out after {INIT_SECONDS_MAX:.2f} seconds",
                }
            ) from None
        except (EOFError, OSError, ValueError):
            raise InitError(await self._exit_report("")) from None
        finally:
            self._drain_output()
        if kind != READY:
            raise InitError(self._masked(json.loads(payload)))

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Never raises for what the function does; a worker that failed is not `alive` after."""
        config = self.config
        self._request_id = invocation.request_id
        self._output_bytes = self._output_lines = 0
        self._tail.clear()
        self._tail_bytes = 0
        self._write_log([f"START RequestId: {invocation.request_id} Version: {config.version}"])
        began = time.monotonic()
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
        try:
            self._send(INVOKE, number, json.dumps(meta).encode() + b"\n" + invocation.payload)
            kind, payload = await asyncio.wait_for(self._receive(number), config.timeout)
            self._drain_output()
            error = None if kind == RESULT else "Unhandled"
        except TimeoutError:
            self.close()
            payload, error = self._timed_out(), "Unhandled"
        except (EOFError, OSError, ValueError):
            payload, error = json.dumps(await self._exit_report(invocation.request_id)).encode(), "Unhandled"
        except asyncio.CancelledError:
            self.close()
            raise
        self._report(began)
        self.last_used = time.monotonic()
        return Answer(payload, error, "\n".join(self._tail).encode("utf-8", "replace")[-LOG_TAIL_BYTES_MAX:])

    def _send(self, kind: int, number: int, payload: bytes) -> None:
        self._writer.write(HEADER.pack(len(payload), kind, number) + payload)

    async def _receive(self, number: int) -> tuple[int, bytes]:
        """The frame that answers request `number`. Raises EOFError, and ValueError for anything else."""
        length, kind, answered = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        wanted = (RESULT, ERROR) if number else (READY, python_worker.INIT_ERROR)
        if length > FRAME_BYTES_MAX or answered != number or kind not in wanted:
            raise ValueError("not a frame of the protocol")
        return kind, await self._reader.readexactly(length)

    def _timed_out(self) -> bytes:
        text = f"{timestamp()} {self._request_id} Task timed out after {self.config.timeout:.2f} seconds"
        self._write_log([text])
        return json.dumps({"errorType": "Sandbox.Timedout", "errorMessage": text}).encode()

    async def _exit_report(self, request_id: str) -> dict[str, Any]:
        """Lambda's error object for a worker that ended, or broke the protocol and is ended."""
        group = self._running.group
        out_of_memory = False
        try:
            await asyncio.wait_for(asyncio.shield(self._running.process.wait()), 0.5)
        except TimeoutError:
            self._running.kill()
        if group is not None:
            out_of_memory = group.out_of_memory()
        self.close()
        status = await self._running.gone()
        prefix = f"RequestId: {request_id} Error: " if request_id else ""
        kind = "Runtime.OutOfMemory" if out_of_memory else "Runtime.ExitError"
        if out_of_memory:
            reason = "Runtime exited with error: signal: killed"
        elif status < 0:
            reason = f"Runtime exited with error: signal: {_signal_name(-status)}"
        elif status > 0:
            reason = f"Runtime exited with error: exit status {status}"
        else:
            reason = "Runtime exited without providing a reason"
        self._write_log([prefix + reason, kind])
        return {"errorType": kind, "errorMessage": prefix + reason}

    def _report(self, began: float) -> None:
        elapsed = (time.monotonic() - began) * 1000
        peak = self._running.group.memory_peak_bytes() // MEBIBYTE if self._running.group else 0
        line = (
            f"REPORT RequestId: {self._request_id}\tDuration: {elapsed:.2f} ms\tBilled Duration: {int(elapsed) + 1} ms"
            f"\tMemory Size: {self.config.memory_size} MB\tMax Memory Used: {peak} MB"
        )
        if self._init_ms is not None:
            line += f"\tInit Duration: {self._init_ms:.2f} ms"
            self._init_ms = None
        self._write_log([f"END RequestId: {self._request_id}", line])

    def _read_output(self) -> None:
        """Called by the loop when the worker wrote something; reads once, so that no worker keeps the loop busy."""
        if not self._read_once():
            self._stop_reading()
        elif self._output_bytes > LOG_BYTES_PER_REQUEST_MAX:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._output_fd)
            loop.call_later(LOG_PAUSE_SECONDS, self._resume_reading)

    def _resume_reading(self) -> None:
        if self._output_fd >= 0:
            asyncio.get_running_loop().add_reader(self._output_fd, self._read_output)

    def _read_once(self) -> bool:
        """Take what the worker wrote. False at the end of the output."""
        try:
            data = os.read(self._output_fd, 65536)
        except BlockingIOError:
            self._more = False
            return True
        except OSError:
            return False
        self._more = True
        if self._output_bytes > LOG_BYTES_PER_REQUEST_MAX:
            return bool(data)
        self._output_bytes += len(data)
        *lines, self._output = (self._output + data).split(b"\n", LOG_LINES_PER_REQUEST_MAX)
        self._output_lines += len(lines)
        if len(self._output) > LINE_BYTES_MAX or (not data and self._output):
            lines.append(self._output)
            self._output = b""
        if self._output_bytes > LOG_BYTES_PER_REQUEST_MAX or self._output_lines >= LOG_LINES_PER_REQUEST_MAX:
            self._output_bytes, self._output = LOG_BYTES_PER_REQUEST_MAX + 1, b""
            lines.append(b"[owsgit] this request wrote more than 1 MiB or 10,000 lines of log; the rest is dropped")
        if lines:
            self._write_log([line.decode("utf-8", "replace").replace("\r", "\n") for line in lines])
        return bool(data)

    def _drain_output(self) -> None:
        """Take what was written before the answer, so that it stands in the log before END."""
        for _ in range(32):
            if self._output_fd < 0 or not self._read_once() or not self._more:
                break

    def _masked(self, value: Any) -> Any:
        """A report in which no secret stands: it is shown in status, and kept on the disk."""
        if isinstance(value, str):
            return self._mask.sub(MASKED, value) if self._mask is not None else value
        if isinstance(value, dict):
            return {name: self._masked(each) for name, each in value.items()}
        return [self._masked(each) for each in value] if isinstance(value, list) else value

    def _write_log(self, lines: list[str]) -> None:
        if self._mask is not None:
            lines = [self._mask.sub(MASKED, line) for line in lines]
        self._log.write(self._request_id, lines)
        for line in lines:
            self._tail.append(line)
            self._tail_bytes += len(line) + 1
        while len(self._tail) > 1 and self._tail_bytes > LOG_TAIL_BYTES_MAX:
            self._tail_bytes -= len(self._tail.popleft()) + 1

    def _stop_reading(self) -> None:
        if self._output_fd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = -1

    def exited(self) -> bool:
        """Whether the process has ended on its own."""
        return self._running.process.returncode is not None

    def close(self) -> None:
        """End the worker at once."""
        if not self.alive:
            return
        self.alive = False
        self._running.kill()
        self._writer.transport.abort()
        self._drain_output()
        self._stop_reading()
        self._reaper = asyncio.ensure_future(self._running.gone())


def _mask(config: FunctionConfig) -> re.Pattern[str] | None:
    """Finds a function's secrets in what it writes: each of their lines, the longest first."""
    texts = [*config.secrets.values(), *(each.decode("utf-8", "replace") for each in config.secret_files.values())]
    lines = {line.strip() for text in texts for line in text.splitlines()}
    wanted = sorted((line for line in lines if len(line) >= MASKED_CHARACTERS_MIN), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, wanted))) if wanted else None


def _signal_name(number: int) -> str:
    try:
        return signal.strsignal(number) or str(number)
    except ValueError:
        return str(number)
