"""Workers that are containers of an image, run by the Docker engine of this machine.

Inside there are the image (read-only), a private /tmp, and nothing else: no files of the host, a network of its own
(see holder.py), no other processes, no capabilities, no way to gain any. The image's USER does not count:
as on Lambda, functions are one unprivileged user, by whom the image's files have to be readable.
"""

import asyncio
import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime import container_options, failures, worker
from owsgit.runtime.cgroup import CGROUP_ROOT, Group
from owsgit.runtime.config import FunctionConfig, ImageConfig, InitError
from owsgit.runtime.engine import Engine, RefusedByEngineError
from owsgit.runtime.fronts import UNHANDLED, Front, HttpFront, LambdaFront, Reply
from owsgit.runtime.holder import Holder, Holders
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.namespace import ContainerProcess, NetworkNamespace
from owsgit.runtime.outside import Outside
from owsgit.runtime.transcript import Transcript
from owsgit.runtime.worker import MEBIBYTE, NotBegunError, given_to_another

EXIT_SECONDS_MAX = 2
"""How long after the end of a process the engine may take to know how it ended."""

QUIET_SECONDS = 0.002
"""Output takes another way than the answer, through the engine; after so long without any, what the function wrote
before it answered has come."""

QUIET_CHECKS_MAX = 5
"""A function that goes on writing after its answer is not waited for."""


class NetworkGoneError(UnavailableError):
    """Somebody ended the holder of a network in the moment that a container joined it."""


class ContainerWorker:
    """A container of one function, thrown away after the first fault."""

    def __init__(self, config: FunctionConfig, log: FunctionLog, engine: Engine, holders: Holders) -> None:
        assert config.image is not None
        self.config = config
        self.alive = False
        self.last_used = time.monotonic()
        self.memory_bytes = 0
        self._image: ImageConfig = config.image
        self._engine = engine
        self._holders = holders
        self._transcript = Transcript(config, log)
        self._holder: Holder | None = None
        self._container = ""
        self._process: ContainerProcess | None = None
        self._front: Front | None = None
        self._output: asyncio.Task[None] | None = None
        self._output_bytes = 0
        self._out_of_memory = False
        self._ended = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._outside = Outside()
        self._files: Path | None = None

    async def start(self) -> None:
        """Start the container and wait until it takes requests. Raises InitError, UnavailableError."""
        self.alive = True
        try:
            await self._start()
        except RefusedByEngineError as error:
            gone = self._holder is not None and self._holder.process.exited()
            self.close()
            if gone or "cannot join network" in str(error):
                raise NetworkGoneError("the network of the container is gone", remedy="try again") from None
            raise InitError(_refused(str(error))) from None
        except BaseException:
            self.close()
            raise
        self._holders.refill()

    async def _start(self) -> None:
        await self._engine.image(self._image)  # nothing is begun for an image that is not here
        self._holder = await self._holders.take()
        await self._outside.open(self._holder, self.config.network)
        self._front = self._front_of(self._holder.network)
        self._container = await self._create(self._holder, self._front)
        reader, writer = await self._engine.attach(self._container)
        self._output = asyncio.ensure_future(self._read_output(reader, writer))
        began = time.monotonic()
        pid = await self._engine.start(self._container)
        try:
            self._process = ContainerProcess(pid, self._container)
        except ProcessLookupError:
            await self._end()
        else:
            asyncio.get_running_loop().add_reader(self._process.fileno(), self._process_ended)
        try:
            report = await self._unless_ended(self._front.ready(), worker.INIT_SECONDS_MAX)
        except TimeoutError:
            raise InitError(failures.init_timed_out(worker.INIT_SECONDS_MAX)) from None
        except EOFError:
            raise InitError(await self._exit_report("")) from None
        if report is not None:
            await self._quiet()
            raise InitError(self._transcript.masked(report))
        self._transcript.init_ms = (time.monotonic() - began) * 1000

    def _front_of(self, network: NetworkNamespace) -> Front:
        if self._image.port is None:
            return LambdaFront(network)
        return HttpFront(network, self._image.port, self._image.path)

    async def _create(self, holder: Holder, front: Front) -> str:
        config, outside = self.config, self._outside
        volumes = await self._engine.image(self._image)
        variables = {**front.environment, **container_options.variables(config, self._transcript.stream)}
        options = container_options.options(config, self._image, volumes, variables)
        options["host_config"]["NetworkMode"] = f"container:{holder.container}"
        if outside.files or config.secret_files:
            self._files = self._engine.new_folder()
            options["host_config"]["Mounts"] += container_options.mounts(self._files, config, outside.files)
        return await self._engine.create(self._image, options)

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Never raises for what the function does; a worker that failed is not `alive` after.

        Raises UnavailableError if the engine went away with the container, NotBegunError.
        """
        assert self._front is not None
        config, transcript = self.config, self._transcript
        transcript.begin(invocation)
        self._output_bytes = 0
        try:
            asked = self._front.ask(config, invocation, time.time() + config.timeout)
            reply: Reply = await self._unless_ended(asked, config.timeout)
            if reply.broken:
                self.close()
            await self._quiet()
        except TimeoutError:
            self.close()
            report = failures.timed_out(invocation.request_id, config.timeout)
            transcript.write([report["errorMessage"]])
            reply = Reply(failures.dump(report), UNHANDLED)
        except EOFError:
            if not self._front.begun:
                transcript.write([given_to_another(invocation.request_id)])
                self.close()
                raise NotBegunError from None
            try:
                reply = Reply(failures.dump(await self._exit_report(invocation.request_id)), UNHANDLED)
            finally:
                self.close()
        except BaseException:
            self.close()
            raise
        self.memory_bytes = self._memory_peak_bytes()
        transcript.end(self.memory_bytes)
        self.last_used = time.monotonic()
        return Answer(reply.payload, reply.error, transcript.tail())

    async def _unless_ended(self, work: Any, seconds: float) -> Any:
        """The result of `work`. Raises TimeoutError, and EOFError if the container ends before."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({task, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise EOFError if ended.done() else TimeoutError
            return task.result()
        finally:
            task.cancel()
            ended.cancel()

    def _process_ended(self) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._process.fileno())
        self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        assert self._front is not None
        await self._front.end()
        self._ended.set()

    async def _exit_report(self, request_id: str) -> failures.Report:
        """Lambda's error object for a container that ended, or broke off and is ended.

        Raises UnavailableError if the engine went away as well.
        """
        if self._process is not None:
            self._process.kill()
        try:
            state = await self._engine.ended(self._container, EXIT_SECONDS_MAX)
        except NotFound:
            raise UnavailableError("the container was removed by somebody else", remedy="try again") from None
        await self._quiet()
        status, out_of_memory = int(state["ExitCode"]), bool(state["OOMKilled"])
        self._out_of_memory = out_of_memory
        report = failures.exited(request_id, 128 - status if status > 128 else status, out_of_memory)
        self._transcript.write([report["errorMessage"], report["errorType"]])
        return report

    def _memory_peak_bytes(self) -> int:
        if self._out_of_memory:
            return self.config.memory_size * MEBIBYTE
        if self._process is None:
            return 0
        group = Group({"memory": self._process.memory_group}, (CGROUP_ROOT / "cgroup.controllers").exists())
        return group.memory_peak_bytes()

    async def _read_output(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Put what the container writes into the log, until it ends. One that writes too much is slowed down."""
        with contextlib.suppress(EOFError, OSError):
            try:
                while True:
                    left = int.from_bytes((await reader.readexactly(8))[4:])
                    while left > 0:
                        piece = await reader.read(min(left, 65536))
                        if not piece:
                            return
                        left -= len(piece)
                        self._output_bytes += len(piece)
                        self._transcript.take(piece)
                        if pause := self._transcript.pause_seconds:
                            await asyncio.sleep(pause)
            finally:
                self._transcript.take(b"")
                writer.transport.abort()

    async def _quiet(self) -> None:
        for _ in range(QUIET_CHECKS_MAX):
            seen = self._output_bytes
            await asyncio.sleep(QUIET_SECONDS)
            if self._output_bytes == seen or self._transcript.pause_seconds:
                break

    def exited(self) -> bool:
        """Whether the container has ended on its own, or its output no longer arrives."""
        ended = self._process is None or self._process.exited()
        return ended or self._output is None or self._output.done()

    def close(self) -> None:
        """End the container at once."""
        if not self.alive:
            return
        self.alive = False
        if self._front is not None:
            self._front.close()
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._process.fileno())
            self._process.kill()
            self._process.close()
        for task in (self._output, self._ending):
            if task is not None:
                task.cancel()
        if self._container:
            self._engine.discard(self._container)
        if self._holder is not None:
            self._holders.give_back(self._holder)
        self._outside.close()
        if self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
        self._transcript.close()


def _refused(words: str) -> failures.Report:
    """Lambda's error object for an image that cannot be started as it is configured."""
    workdir = "chdir" in words or "working directory" in words
    kind = "Runtime.InvalidWorkingDir" if workdir else "Runtime.InvalidEntrypoint"
    return {"errorType": kind, "errorMessage": f"Error: {words.rpartition('container process: ')[2]}"}
