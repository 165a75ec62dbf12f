"""The container runtime of a node: its engine, and what holds the networks of its workers.

What needs docker-py is imported with the first container, in a thread: it takes longer than the rest of a node.
"""

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from owsgit.model.errors import UnavailableError
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.worker import Worker

if TYPE_CHECKING:
    from owsgit.runtime.engine import Engine
    from owsgit.runtime.holder import Holders


class Containers:
    """Starts workers that are containers."""

    def __init__(self, instance: str, mark: Path, host: str = "") -> None:
        """`mark` is a file that stands as long as there may be containers; the rest is as of Engine."""
        self._instance, self._mark, self._host = instance, mark, host
        self._engine: Engine | None = None
        self._holders: Holders | None = None
        self._tidying: asyncio.Future[None] | None = None

    def tidy(self) -> None:
        """If this node was killed, remove the containers that it left, in the background."""
        if self._mark.exists():
            self._tidying = asyncio.ensure_future(self._tidy())

    async def _tidy(self) -> None:
        try:
            await (await self.engine()).open()
        except UnavailableError:
            return  # what needs the engine says so, and tidies once it is there

    async def start(self, config: FunctionConfig, log: FunctionLog) -> Worker:
        """A container that is ready for its first request. Raises InitError, UnavailableError."""
        holders = await self._ready()
        from owsgit.runtime.container import ContainerWorker, NetworkGoneError  # noqa: PLC0415 - see above

        try:
            worker = ContainerWorker(config, log, await self.engine(), holders)
            await worker.start()
        except NetworkGoneError:  # a spare one may have been ended behind our back; the next one is new
            worker = ContainerWorker(config, log, await self.engine(), holders)
            await worker.start()
        return worker

    async def prepare(self) -> None:
        """Have ready what the next worker starts from."""
        await (await self._ready()).prepare()

    async def engine(self) -> "Engine":
        """The connection; nothing is asked of it yet."""
        await asyncio.to_thread(importlib.import_module, "owsgit.runtime.container")
        from owsgit.runtime.engine import Engine  # noqa: PLC0415 - see above

        if self._engine is None:
            self._engine = Engine(self._instance, self._host)
        return self._engine

    async def _ready(self) -> "Holders":
        engine = await self.engine()
        from owsgit.runtime.holder import Holders  # noqa: PLC0415 - see above

        if self._holders is None:
            self._mark.touch()
            self._holders = Holders(engine)
        return self._holders

    async def close(self) -> None:
        """Remove every container that is left."""
        if self._tidying is not None:
            self._tidying.cancel()
        if self._holders is not None:
            await self._holders.close()
        if self._engine is not None and await self._engine.close():
            self._mark.unlink(missing_ok=True)
