"""Workers of the runtime `wasm`: a WASI preview 1 command for each request (see wasm_host.py for what is promised).

The event comes on stdin, the answer is what the module writes to stdout, stderr is its log; its one argument is the
handler. Beside Lambda's environment variables there are, for each request, _X_AMZN_TRACE_ID and the headers that the
Lambda Runtime API gives a custom runtime, named as CGI would name them: LAMBDA_RUNTIME_AWS_REQUEST_ID,
LAMBDA_RUNTIME_DEADLINE_MS, LAMBDA_RUNTIME_INVOKED_FUNCTION_ARN and LAMBDA_RUNTIME_CLIENT_CONTEXT.

A worker is a name for a compiled module: nothing of one request is left for the next.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime import environment, failures, worker
from owsgit.runtime.config import FunctionConfig, InitError
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.transcript import Transcript
from owsgit.runtime.wasm_client import HostEndedError, WasmHosts
from owsgit.runtime.wasm_protocol import (
    ABSENT,
    COMPILE_SECONDS_MAX,
    INVOKE,
    LOAD,
    MODULE_BYTES_MAX,
    READY,
    REQUEST_BYTES,
    RESULT,
)  # fmt: skip

IDLE_BYTES = 64 * 1024
"""What a worker holds between requests; what a request uses is reserved in the host as it comes."""

DIGESTS_MAX = 10_000
"""Hashes of files that are remembered: a few hundred bytes each."""

ATTEMPTS = 3
"""A module can be absent when it is asked: the host is a new one, or made room for others."""


def check(config: FunctionConfig, hosts: WasmHosts) -> None:
    """Refuse what a module without files and sockets cannot have. Raises UnavailableError."""
    if config.secret_files:
        name = min(config.secret_files)
        raise UnavailableError(
            "a function with the runtime wasm has no files, so no secret can be one",
            path=f"$.secrets.{name}.asFile", remedy='use a variable: "asFile": false',
        )  # fmt: skip
    if config.network.internet or config.network.allowed:
        raise UnavailableError(
            "WASI preview 1 has no way to connect to anything", path="$.network", remedy='write "none", or leave it out'
        )
    if config.opt is not None:
        raise UnavailableError("a function with the runtime wasm has no files, so no layers", path="$.layers")
    most = (hosts.memory.per_owner - REQUEST_BYTES) // worker.MEBIBYTE
    if config.memory_size > most:
        raise UnavailableError(
            f"memorySize is {config.memory_size} MiB; this node has at most {most} MiB for one WebAssembly function",
            path="$.memorySize",
        )


@dataclass(frozen=True)
class Module:
    """A module's file, known by its content."""

    path: Path
    digest: str

    @classmethod
    async def find(cls, config: FunctionConfig, digests: dict[tuple[object, ...], str]) -> "Module":
        """The file that the handler names; `digests` remembers the hashes of files seen before. Raises InitError."""
        path = (config.code / config.handler).resolve()
        if not path.is_relative_to(config.code.resolve()) or not path.is_file():
            raise _import_error(config, "there is no such file in the function's code")
        status = path.stat()
        if status.st_size > MODULE_BYTES_MAX:
            text = f"it has {status.st_size:,} bytes; at most {MODULE_BYTES_MAX:,} are taken"
            raise _import_error(config, text)
        key = (path, status.st_ino, status.st_size, status.st_mtime_ns)  # all that changes with the content
        if key not in digests:
            if len(digests) >= DIGESTS_MAX:
                digests.clear()
            digests[key] = await asyncio.to_thread(lambda: hashlib.sha256(path.read_bytes()).hexdigest())
        return cls(path, digests[key])


def _import_error(config: FunctionConfig, text: str) -> InitError:
    return InitError(_init_report("Runtime.ImportModuleError", f"Unable to import module '{config.handler}': {text}"))


def _init_report(kind: str, text: str) -> dict[str, object]:
    return {"errorType": kind, "errorMessage": text, "requestId": "", "stackTrace": []}


class WasmWorker:
    """A function that is ready."""

    def __init__(self, config: FunctionConfig, log: FunctionLog, hosts: WasmHosts) -> None:
        self.config = config
        self.alive = False
        self.last_used = time.monotonic()
        self.memory_bytes = IDLE_BYTES
        self._hosts = hosts
        self._transcript = Transcript(config, log)
        self._variables = environment.of(config, self._transcript.stream)
        self._instance_bytes = config.memory_size * worker.MEBIBYTE

    async def start(self) -> None:
        """Have the module compiled. Raises InitError, UnavailableError."""
        began = time.monotonic()
        self._module = await Module.find(self.config, self._hosts.digests)
        if self._tried not in (await self._hosts.current()).ready:
            try:
                try:
                    await self._load()
                except HostEndedError:  # maybe by another function: once more, with a new one
                    await self._load()
            except HostEndedError as error:
                raise InitError(failures.exited("", error.status, error.out_of_memory)) from None
        self.alive = True
        self._transcript.init_ms = (time.monotonic() - began) * 1000

    @property
    def _tried(self) -> tuple[str, int, int | None]:
        """What the host has tried once it is ready for this function."""
        return self._module.digest, self._instance_bytes, self.config.fuel

    async def _load(self) -> None:
        """Make sure that the host knows the module. Raises InitError, HostEndedError."""
        about = self._limits(worker.INIT_SECONDS_MAX)
        seconds = 2.0 * COMPILE_SECONDS_MAX  # others may be compiled before
        kind, answer, _ = await self._ask(LOAD, about, b"", seconds)
        if kind == ABSENT:
            content = await asyncio.to_thread(self._module.path.read_bytes)
            kind, answer, _ = await self._ask(LOAD, about, content, seconds)
        if kind == READY:
            (await self._hosts.current()).ready.add(self._tried)
            return
        if answer is None:
            raise InitError(failures.init_timed_out(COMPILE_SECONDS_MAX))
        if answer.get("errorType") == "Runtime.ImportModuleError":
            raise _import_error(self.config, answer["errorMessage"])
        raise InitError(_init_report(answer["errorType"], answer["errorMessage"]))

    def _limits(self, seconds: float) -> dict[str, Any]:
        size, fuel = self._instance_bytes, self.config.fuel
        return {"module": self._module.digest, "memoryBytes": size, "fuel": fuel, "seconds": seconds}

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Never raises for what the function does. Raises UnavailableError if there is no host."""
        transcript = self._transcript
        transcript.begin(invocation)
        used, fuel_used = 0, None
        try:
            kind, answer, payload = await self._run(invocation)
            used, fuel_used = answer.get("memoryBytes", 0), answer.get("fuelUsed")
            report = None if kind == RESULT else self._failure(invocation.request_id, answer)
        except HostEndedError as error:
            report = failures.exited(invocation.request_id, error.status, error.out_of_memory)
        except InitError as error:
            report = error.report
        except asyncio.CancelledError:
            self.close()
            raise
        transcript.take(b"")  # a last line without its end
        if report is not None:
            transcript.write([f"{report['errorType']}: {report['errorMessage']}", *report.get("stackTrace", ())])
            payload = failures.dump(report)
        transcript.end(used, fuel_used)
        self.last_used = time.monotonic()
        return Answer(payload, None if report is None else "Unhandled", transcript.tail())

    async def _run(self, invocation: Invocation) -> tuple[int, Any, bytes]:
        """The host's answer. Raises HostEndedError, InitError, UnavailableError."""
        about = {
            **self._limits(self.config.timeout),
            "argument": self.config.handler,
            "environment": {**self._variables, **self._request_variables(invocation)},
        }
        for _ in range(ATTEMPTS):
            kind, answer, rest = await self._ask(INVOKE, about, invocation.payload, self.config.timeout)
            if kind != ABSENT:
                return kind, answer, rest
            await self._load()
        raise UnavailableError("this node's WebAssembly functions are too many to keep", remedy="try again")

    def _told(self, piece: bytes) -> None:
        """What the module wrote to stderr, if somebody still waits for its answer."""
        if self.alive:
            self._transcript.take(piece)

    async def _ask(self, kind: int, about: Any, rest: bytes, seconds: float) -> tuple[int, Any, bytes]:
        """Ask with memory and a thread reserved until the host answers, even if nobody waits for it any more."""
        hosts, size, owner = self._hosts, self._instance_bytes + REQUEST_BYTES, self.config.name

        def done(_: object) -> None:
            hosts.threads.release()
            hosts.memory.give(owner, size)

        await hosts.memory.take(owner, size)
        try:
            await hosts.threads.acquire()
        except BaseException:
            hosts.memory.give(owner, size)
            raise
        try:
            host = await hosts.current()
        except BaseException:
            done(None)
            raise
        asked = host.ask(kind, about, rest, seconds, self._told)
        asked.add_done_callback(done)
        return await asyncio.shield(asked)

    def _request_variables(self, invocation: Invocation) -> dict[str, str]:
        variables = {
            "LAMBDA_RUNTIME_AWS_REQUEST_ID": invocation.request_id,
            "LAMBDA_RUNTIME_DEADLINE_MS": str(int((time.time() + self.config.timeout) * 1000)),
            "LAMBDA_RUNTIME_INVOKED_FUNCTION_ARN": self.config.arn,
        }
        if invocation.trace_id:
            variables["_X_AMZN_TRACE_ID"] = invocation.trace_id
        if invocation.client_context:
            variables["LAMBDA_RUNTIME_CLIENT_CONTEXT"] = invocation.client_context.decode()
        return variables

    def _failure(self, request_id: str, answer: Any) -> failures.Report:
        """Lambda's error object for what the host says of the request."""
        kind = answer["kind"]
        if kind == "timeout":
            return failures.timed_out(request_id, self.config.timeout)
        if kind == "size":
            return failures.too_large(answer["size"])
        if kind == "json":
            text = f"Unable to marshal response: the module wrote something else than JSON: {answer['message']}"
            return {"errorType": "Runtime.MarshalError", "errorMessage": text, "requestId": request_id}
        if kind == "fuel" and self.config.fuel is not None:
            return failures.fuel_exhausted(request_id, self.config.fuel, answer["stackTrace"])
        if answer.get("outOfMemory"):
            return failures.exited(request_id, -9, True)
        if kind == "exit":
            return failures.exited(request_id, answer["status"], False)
        text = f"RequestId: {request_id} Error: {answer['message']}"
        return {"errorType": "Runtime.ExitError", "errorMessage": text, "stackTrace": answer.get("stackTrace", [])}

    def exited(self) -> bool:
        """Never: a host that ended is replaced with the next request."""
        return False

    def close(self) -> None:
        """End the worker; a request that runs ends in the host by its deadline."""
        self.alive = False
        self._transcript.close()
