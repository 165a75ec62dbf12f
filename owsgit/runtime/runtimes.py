"""Every runtime that this node has, behind one call: a started worker of a function."""

from owsgit.model.errors import UnavailableError
from owsgit.runtime import interpreters, managed, wasm
from owsgit.runtime.bootstrap import BootstrapWorker
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.framed import FramedWorker
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.sandbox import Sandbox
from owsgit.runtime.wasm_client import WasmHosts
from owsgit.runtime.worker import Worker


class Runtimes:
    """Starts workers. What a runtime needs beside the sandbox is started with its first worker."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._wasm_hosts = WasmHosts(sandbox)

    def check(self, config: FunctionConfig) -> None:
        """Raises UnavailableError if this node does not have the runtime."""
        if config.family in managed.FAMILIES:
            interpreters.find(config.runtime)
        elif config.family == "wasm":
            wasm.check(config, self._wasm_hosts)
        elif config.family != "provided":
            raise UnavailableError(f"this node has no runtime {config.runtime}", path="$.runtime")

    async def start(self, config: FunctionConfig, log: FunctionLog) -> Worker:
        """A worker that is ready for its first request. Raises InitError, UnavailableError."""
        self.check(config)
        if config.family == "wasm":
            module = wasm.WasmWorker(config, log, self._wasm_hosts)
            await module.start()
            return module
        worker = BootstrapWorker(config, log) if config.family == "provided" else FramedWorker(config, log)
        await worker.start(self._sandbox)
        return worker

    async def close(self) -> None:
        """End what was started beside the workers."""
        await self._wasm_hosts.close()
