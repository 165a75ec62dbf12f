"""Every runtime that this node has, behind one call: a started worker of a function."""

from owsgit.model.errors import UnavailableError
from owsgit.runtime import interpreters, managed, wasm
from owsgit.runtime.bootstrap import BootstrapWorker
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.containers import Containers
from owsgit.runtime.framed import FramedWorker
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.queued import QueuedWorker
from owsgit.runtime.sandbox import Sandbox
from owsgit.runtime.wasm_client import WasmHosts
from owsgit.runtime.worker import Worker


class Runtimes:
    """Starts workers. What a runtime needs beside the sandbox is started with its first worker."""

    def __init__(self, sandbox: Sandbox | UnavailableError, containers: Containers | None = None) -> None:
        """`sandbox` is why there is none, if there is none: then only `containers` are to be had."""
        self._sandbox = sandbox
        self._wasm_hosts = None if isinstance(sandbox, UnavailableError) else WasmHosts(sandbox)
        self._containers = containers

    def check(self, config: FunctionConfig) -> None:
        """Raises UnavailableError if this node does not have the runtime, or nothing to contain it in."""
        if config.family == "container" and self._containers is not None:
            return  # the engine is asked as a worker starts
        if isinstance(self._sandbox, UnavailableError):
            raise self._sandbox
        if config.family in managed.FAMILIES:
            interpreters.find(config.runtime)
        elif config.family == "wasm" and self._wasm_hosts is not None:
            wasm.check(config, self._wasm_hosts)
        elif config.family != "provided":
            raise UnavailableError(f"this node has no runtime {config.runtime}", path="$.runtime")

    async def start(self, config: FunctionConfig, log: FunctionLog) -> Worker:
        """A worker that is ready for its first request. Raises InitError, UnavailableError."""
        self.check(config)
        if config.family == "container" and self._containers is not None:
            return await self._containers.start(config, log)
        if config.family == "wasm" and self._wasm_hosts is not None:
            module = wasm.WasmWorker(config, log, self._wasm_hosts)
            await module.start()
            return module
        assert not isinstance(self._sandbox, UnavailableError)
        worker = self._process(config, log)
        await worker.start(self._sandbox)
        return worker

    @staticmethod
    def _process(config: FunctionConfig, log: FunctionLog) -> BootstrapWorker | FramedWorker:
        if config.family == "provided":
            return BootstrapWorker(config, log)
        if config.family == "python" and config.debugging is None:
            return QueuedWorker(config, log)
        return FramedWorker(config, log)

    async def close(self) -> None:
        """End what was started beside the workers."""
        for each in (self._wasm_hosts, self._containers):
            if each is not None:
                await each.close()
