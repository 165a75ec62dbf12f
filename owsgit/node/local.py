"""A private one-node network for local development: applies the uncommitted working tree at every save.

The same reconciler and services as a node's; only the desired state comes from the working tree instead of `main`.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owsgit.ledger.repository import Clone
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.service import Document, Handler, Site
from owsgit.node.editing import Editor
from owsgit.node.node import handlers_of
from owsgit.node.working_tree import WorkingTree
from owsgit.reconcile import story
from owsgit.reconcile.inventory import Inventory
from owsgit.reconcile.loop import Desired, Planned, Reconciler
from owsgit.runtime import log_lines
from owsgit.runtime.log_reader import Reader
from owsgit.services import KINDS

if TYPE_CHECKING:
    from owsgit.node.local_door import LocalDoor

AWS_PORT = 8000
"""DynamoDB Local's: programs may have it in their settings for development."""

LOG_SECONDS = 0.2


class LocalNode:
    """Runs the working tree of a clone. `say` is told every line for the terminal."""

    def __init__(
        self, clone: Clone, sandbox: str, secrets: Path | None, aws_port: int | None, say: Callable[[str], None]
    ) -> None:
        """`secrets` is a folder with a file for each secret, named as it is: nobody but the nodes can open the real.
        `aws_port`: where AWS's SDKs are answered; 0 for nowhere, None for AWS_PORT if it is free."""
        self._clone, self._sandbox, self._aws_port = clone, sandbox, aws_port
        self._say = say
        self._home = clone.git_folder / "owsgit" / "up"
        self._working = WorkingTree(clone, self._home, secrets, "owsgit up")
        self._problem = ""

    async def serve(self) -> None:
        """Serve until interrupted. Raises OwsgitError for what is missing on this machine."""
        targets: dict[str, Any] = {}
        door = self._door()
        site = self._working.site(targets, self._report, self._edit, sandbox=self._sandbox)
        if door is not None:
            site = replace(site, door=door.address, credential=door.credential, role_credentials=door.role_credentials)
        handlers = handlers_of(site)
        targets.update({name: handler for name, handler in handlers.items() if hasattr(handler, "invoke")})
        inventory = Inventory(self._home / "node.db", KINDS)
        self._reconciler = Reconciler(handlers, inventory, self._desired)
        self._editor = Editor(self._clone.folder, self._working, self._reconciler, inventory)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        tasks: list[asyncio.Task[None]] = []
        try:
            if door is not None and await self._opened(door, site, handlers.values()):
                tasks.append(asyncio.ensure_future(self._tell_of(door)))
            works = (self._reconciler.run(), self._tell(), self._show_logs())  # now functions are told of the door
            tasks.extend(asyncio.ensure_future(work) for work in works)
            with self._working.watching(self._reconciler.wake):
                await asyncio.wait([asyncio.ensure_future(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if door is not None:
                await door.close()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for handler in reversed(handlers.values()):
                await handler.close()
            inventory.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _door(self) -> "LocalDoor | None":
        if self._aws_port == 0:
            return None
        from owsgit.node.local_door import LocalDoor  # noqa: PLC0415 - botocore, for those who want it

        return LocalDoor(self._home, lambda: self._working.state)

    async def _opened(self, door: "LocalDoor", site: Site, handlers: Iterable[Handler]) -> bool:
        """Raises UnavailableError if a port that was asked for is taken."""
        apis = [api for handler in handlers for api in getattr(handler, "apis", ())]
        try:
            await door.open(site, apis, self._aws_port or AWS_PORT)
        except UnavailableError as error:
            if self._aws_port is not None:
                raise
            for line in (
                "owsgit: AWS's SDKs are not answered, and roles of functions have no credentials:",
                *error.problems[0].lines(),
            ):
                self._say(line)
            return False
        return True

    async def _tell_of(self, door: "LocalDoor") -> None:
        """Once it is known which project this is."""
        async with self._reconciler.events() as events:
            while self._working.state is None:
                await events.get()
        self._say("owsgit: AWS's SDKs and CLI are answered where these are set:")
        for name, value in door.settings(self._working.state.scope.region).items():
            self._say(f"  export {name}={value}")
        await asyncio.Event().wait()

    async def _edit(
        self,
        kind: str,
        name: str,
        change: Callable[[Document | None], Document | None],
        files: Path | None = None,
        /,
    ) -> None:
        await self._editor.edit(kind, name, change, files)

    def _report(self, key: str, text: str) -> None:
        self._reconciler.report(key, text)

    async def _desired(self) -> Desired | None:
        """The working tree as it is now; while it is not valid, what was valid before."""
        try:
            await asyncio.to_thread(self._working.read)
            self._problem = ""
        except OwsgitError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._say("owsgit: not applied, what runs goes on running:")
                for problem in error.problems:
                    for line in problem.lines():
                        self._say(f"  {line}")
        state = self._working.state
        return Desired(self._working.tree, state) if state else None

    async def _tell(self) -> None:
        async with self._reconciler.events() as events:
            quiet, told = False, ""
            while True:
                event = await events.get()
                if isinstance(event, Planned):  # the same tree again is a retry, of which nobody wants to hear
                    quiet = not event.plan.steps or event.commit == told
                    told = event.commit
                if not quiet:
                    for line in story.lines(event, ", as is told above"):  # owsgit status asks a node
                        self._say(line)

    async def _show_logs(self) -> None:
        readers: dict[str, Reader] = {}
        while True:
            state = self._working.state
            functions = [resource.name for resource in state.of_kind("function")] if state else []
            for name in functions:
                if name not in readers:
                    readers[name] = Reader(self._home / "logs" / "functions" / name).to_end()
                lines, _ = readers[name].read()
                for line in lines:
                    with contextlib.suppress(ValueError):
                        self._say(f"{name} | {log_lines.message(line)}")
            await asyncio.sleep(LOG_SECONDS)
