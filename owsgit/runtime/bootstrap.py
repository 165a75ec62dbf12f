"""Workers of custom runtimes: an executable `bootstrap` that speaks the AWS Lambda Runtime API.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
"""

import asyncio
import os
import socket
import time
from pathlib import Path

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Invocation
from owsgit.runtime import environment, failures, worker
from owsgit.runtime.cgroup import Limits
from owsgit.runtime.config import InitError
from owsgit.runtime.process_worker import ProcessWorker
from owsgit.runtime.runtime_api import RuntimeApi
from owsgit.runtime.sandbox import Command, Running, Sandbox
from owsgit.runtime.worker import MEBIBYTE, PROCESSES_MAX

PORT = 9001
"""Where Lambda serves the Runtime API, as seen from inside."""

BACKLOG = 16
TASK, OPT = "/var/task", "/opt"


class BootstrapWorker(ProcessWorker):
    """A worker of one function whose code, or layer, brings its own runtime."""

    async def start(self, sandbox: Sandbox) -> None:
        """Start the process and wait until it asks for its first event. Raises InitError, UnavailableError."""
        began = time.monotonic()
        program = self._program(sandbox.contained)
        # without a sandbox there is no network of its own: any free port of the host's loopback
        listener = None if sandbox.contained else socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        output = self._transcript.open()
        try:
            port = listener.getsockname()[1] if listener is not None else PORT
            command = self._command(program, port, output, sandbox.contained)
            self._running = await sandbox.start(command)
            listener = listener or await _listener(self._running)
        except BaseException as error:
            if listener is not None:
                listener.close()
            self._transcript.close()
            if isinstance(error, OSError) and not sandbox.contained:  # of exec, as bubblewrap reports by its exit
                raise InitError(failures.no_bootstrap(f"fork/exec {program}: {str(error.strerror).lower()}")) from None
            raise
        finally:
            os.close(output)
        self.alive = True
        self._api = RuntimeApi(listener)
        self._watcher = asyncio.ensure_future(self._watch())
        try:
            await self._initialise()
        except BaseException:
            self.close()
            raise
        self._transcript.init_ms = (time.monotonic() - began) * 1000

    def _program(self, contained: bool) -> str:
        """The path of the bootstrap, as the process sees it. Raises InitError."""
        places = [(self.config.code, TASK if contained else str(self.config.code))]
        if self.config.opt is not None:
            places.append((self.config.opt, OPT if contained else str(self.config.opt)))
        for outside, inside in places:
            if (outside / "bootstrap").is_file():
                if os.access(outside / "bootstrap", os.X_OK):
                    return f"{inside}/bootstrap"
                raise InitError(failures.no_bootstrap(f"fork/exec {inside}/bootstrap: permission denied"))
        raise InitError(failures.no_bootstrap(f"Couldn't find valid bootstrap(s): [{TASK}/bootstrap {OPT}/bootstrap]"))

    def _command(self, program: str, port: int, output_fd: int, contained: bool) -> Command:
        config = self.config
        task = TASK if contained else str(config.code)
        variables = environment.of(config, self._transcript.stream, contained)
        folders: dict[str, Path] = {task: config.code}
        if config.opt is not None:
            folders[OPT] = config.opt
        return Command(
            arguments=[program],
            environment={**variables, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"},
            folder=task,
            read_only=folders,
            limits=Limits(config.memory_size * MEBIBYTE, PROCESSES_MAX),
            output_fd=output_fd,
            tmp_bytes=config.tmp_size * MEBIBYTE,
            network=config.network,
            files={f"{environment.SECRETS_FOLDER}/{name}": content for name, content in config.secret_files.items()},
            listen=[port] if contained else [],
        )

    async def _watch(self) -> None:
        await self._running.ended()
        await self._api.end()

    async def _initialise(self) -> None:
        try:
            async with asyncio.timeout(worker.INIT_SECONDS_MAX):
                report = await self._api.ready()
        except TimeoutError:
            raise InitError(failures.init_timed_out(worker.INIT_SECONDS_MAX)) from None
        except EOFError:
            raise InitError(await self._exit_report("")) from None
        finally:
            self._transcript.drain()
        if report is not None:
            raise InitError(self._transcript.masked(report))

    async def _ask(self, invocation: Invocation) -> tuple[bytes, str | None]:
        return await self._api.invoke(invocation, self.config.arn, time.time() + self.config.timeout)

    def _hang_up(self) -> None:
        self._api.close()


async def _listener(running: Running) -> socket.socket:
    if len(running.listeners) == 1:
        return running.listeners[0]
    running.kill()
    await running.gone()
    raise UnavailableError("this node's sandbox has no place for the Runtime API", path="$.runtime")
