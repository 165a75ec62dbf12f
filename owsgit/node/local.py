"""A private one-node network for local development: applies the uncommitted working tree at every save.

The same reconciler and services as a node's; only the desired state comes from the working tree instead of `main`.
"""

import asyncio
import contextlib
import hashlib
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from owsgit.ledger import ledger, verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import Clone
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import CodeFile, SecretValue, Site
from owsgit.model.state import GENESIS_UNKNOWN, State
from owsgit.node.node import handlers_of
from owsgit.reconcile import story
from owsgit.reconcile.inventory import Inventory
from owsgit.reconcile.loop import Desired, Planned, Reconciler
from owsgit.runtime import log_lines
from owsgit.runtime.log_reader import Reader
from owsgit.services import KINDS

LISTEN = "127.0.0.1"
NAME = "local"
SETTLE_SECONDS = 0.15
"""Editors write a file in several steps; what is saved within this time is applied at once."""

LOG_SECONDS = 0.2
_READS = frozenset({"opened", "closed_no_write"})
log = logging.getLogger("owsgit.up")


class LocalNode:
    """Runs the working tree of a clone. `say` is told every line for the terminal."""

    def __init__(self, clone: Clone, sandbox: str, secrets: Path | None, say: Callable[[str], None]) -> None:
        """`secrets` is a folder with a file for each secret, named as it is: nobody but the nodes can open the real."""
        self._clone = clone
        self._secrets = secrets
        self._sandbox = sandbox
        self._say = say
        self._home = clone.git_folder / "owsgit" / "up"
        self._state: State | None = None
        self._tree = ""
        self._problem = ""

    async def serve(self) -> None:
        """Serve until interrupted. Raises OwsgitError for what is missing on this machine."""
        (self._home / "objects").mkdir(parents=True, exist_ok=True)
        self._objects = Objects([self._home / "objects", self._clone.git_folder / "objects"])
        targets: dict[str, Any] = {}
        instance = hashlib.sha256(str(self._home).encode()).hexdigest()[:12]
        site = Site(
            home=self._home,
            listen=LISTEN,
            scope=self._scope,
            read_files=self._read_files,
            targets=targets,
            settings={"sandbox": self._sandbox, "instance": instance, "node": NAME},
            unseal=self._unseal,
            report=self._report,
        )
        handlers = handlers_of(site)
        targets.update({name: handler for name, handler in handlers.items() if hasattr(handler, "invoke")})
        self._functions = handlers["function"]
        inventory = Inventory(self._home / "node.db", KINDS)
        self._reconciler = Reconciler(handlers, inventory, self._desired)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        tasks = [asyncio.ensure_future(work) for work in (self._reconciler.run(), self._tell(), self._show_logs())]
        try:
            with self._watching():
                await asyncio.wait([asyncio.ensure_future(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for handler in reversed(handlers.values()):
                await handler.close()
            inventory.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _scope(self) -> Scope:
        assert self._state is not None
        return self._state.scope

    def _report(self, key: str, text: str) -> None:
        self._reconciler.report(key, text)

    def _unseal(self, resource: Resource) -> SecretValue:
        remedy = f"owsgit up --secrets FOLDER, with a value to develop with in FOLDER/{resource.name}"
        if self._secrets is None:
            raise UnavailableError("only the project's nodes can open secrets", remedy=remedy)
        try:
            return SecretValue(0, (self._secrets / resource.name).read_bytes())
        except OSError as error:
            raise UnavailableError(f"{self._secrets / resource.name}: {error.strerror}", remedy=remedy) from None

    def _read_files(self, tree: str) -> Iterator[CodeFile]:
        return ledger.read_files(self._objects, tree)

    async def _desired(self) -> Desired | None:
        """The working tree as it is now; while it is not valid, what was valid before."""
        try:
            await asyncio.to_thread(self._read)
            self._problem = ""
        except OwsgitError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._say("owsgit: not applied, what runs goes on running:")
                for problem in error.problems:
                    for line in problem.lines():
                        self._say(f"  {line}")
        return Desired(self._tree, self._state) if self._state else None

    def _read(self) -> None:
        tree = self._clone.write_tree(self._home)
        if tree != self._tree:
            head = self._clone.head()
            genesis = self._clone.genesis(head) if head else GENESIS_UNKNOWN
            self._state = verify.load_tree(self._objects, KINDS, genesis, tree)
            self._tree = tree

    async def _tell(self) -> None:
        async with self._reconciler.events() as events:
            quiet, told = False, ""
            while True:
                event = await events.get()
                if isinstance(event, Planned):  # the same tree again is a retry, of which nobody wants to hear
                    quiet = not event.plan.steps or event.commit == told
                    told = event.commit
                if not quiet:
                    for line in story.lines(event):
                        self._say(line)

    async def _show_logs(self) -> None:
        readers: dict[str, Reader] = {}
        while True:
            functions = [resource.name for resource in self._state.of_kind("function")] if self._state else []
            for name in functions:
                if name not in readers:
                    readers[name] = Reader(self._home / "logs" / "functions" / name).to_end()
                lines, _ = readers[name].read()
                for line in lines:
                    with contextlib.suppress(ValueError):
                        self._say(f"{name} | {log_lines.message(line)}")
            await asyncio.sleep(LOG_SECONDS)

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        observer = Observer()
        observer.schedule(_Saves(self._clone.folder, self._reconciler.wake), str(self._clone.folder), recursive=True)
        observer.start()
        try:
            yield
        finally:
            observer.stop()
            observer.join()


class _Saves(FileSystemEventHandler):
    """Wakes the reconciler a moment after the last of a burst of changes."""

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        self._git = str(folder / ".git")
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = str(event.src_path)
        if event.event_type not in _READS and path != self._git and not path.startswith(self._git + "/"):
            self._loop.call_soon_threadsafe(self._soon)

    def _soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(SETTLE_SECONDS, self._wake)
