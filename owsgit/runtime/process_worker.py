"""What every worker that is a process in a sandbox does, however it is spoken to."""

import asyncio
import time
from abc import ABC, abstractmethod

from owsgit.model.service import Answer, Invocation
from owsgit.runtime import failures
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.sandbox import Running, end_of
from owsgit.runtime.transcript import Transcript
from owsgit.runtime.worker import NotBegunError, given_to_another


class ProcessWorker(ABC):
    """A worker of one function, thrown away after the first fault. What starts it sets `_running` and `alive`."""

    _running: Running

    def __init__(self, config: FunctionConfig, log: FunctionLog) -> None:
        self.config = config
        self.alive = False
        self.last_used = time.monotonic()
        self.memory_bytes = 0
        self._transcript = Transcript(config, log)

    @abstractmethod
    async def _ask(self, invocation: Invocation) -> tuple[bytes, str | None]:
        """The payload and the kind of error. Raises EOFError, OSError or ValueError when the process fails."""

    @abstractmethod
    def _hang_up(self) -> None:
        """End the conversation with the process, which is killed."""

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Never raises for what the function does; a worker that failed is not `alive` after.
        Raises NotBegunError."""
        config, transcript = self.config, self._transcript
        transcript.begin(invocation)
        try:
            async with asyncio.timeout(config.timeout):
                payload, error = await self._ask(invocation)
            transcript.drain()
        except TimeoutError:
            self.close()
            report = failures.timed_out(invocation.request_id, config.timeout)
            transcript.write([report["errorMessage"]])
            payload, error = failures.dump(report), "Unhandled"
        except NotBegunError:
            transcript.write([given_to_another(invocation.request_id)])
            self.close()
            raise
        except (EOFError, OSError, ValueError):
            payload, error = failures.dump(await self._exit_report(invocation.request_id)), "Unhandled"
        except BaseException:
            self.close()
            raise
        if self._running.group is not None:
            self.memory_bytes = self._running.group.memory_peak_bytes()
        transcript.end(self.memory_bytes)
        self.last_used = time.monotonic()
        return Answer(payload, error, transcript.tail())

    async def _exit_report(self, request_id: str) -> failures.Report:
        """Lambda's error object for a worker that ended, or broke the protocol and is ended."""
        status, out_of_memory = await end_of(self._running)
        self.close()
        report = failures.exited(request_id, status, out_of_memory)
        self._transcript.write([report["errorMessage"], report["errorType"]])
        return report

    def exited(self) -> bool:
        """Whether the process has ended on its own."""
        return self._running.exited

    def close(self) -> None:
        """End the worker at once."""
        if not self.alive:
            return
        self.alive = False
        self._running.kill()
        self._hang_up()
        self._transcript.close()
        self._reaper = asyncio.ensure_future(self._running.gone())
