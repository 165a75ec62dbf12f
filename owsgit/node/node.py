"""The node, wired together: the only place that knows all the parts."""

import asyncio
import errno
import hashlib
import importlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from owsgit import __version__
from owsgit.ledger.ledger import Ledger
from owsgit.ledger.receive import RefUpdate
from owsgit.ledger.repository import Repository
from owsgit.ledger.verify import Report
from owsgit.model import keys
from owsgit.model.core import NodeSpec, UserSpec
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.names import Scope
from owsgit.model.service import Handler, Site
from owsgit.model.state import State
from owsgit.node.commands import Commands, Facts
from owsgit.node.home import Home
from owsgit.node.hooks import HookServer, Verdicts
from owsgit.node.ssh import Access, SshServer
from owsgit.reconcile.inventory import Inventory, now
from owsgit.reconcile.loop import Desired, Reconciler
from owsgit.services import KINDS, SERVICES

log = logging.getLogger("owsgit.node")


def handlers_of(site: Site) -> dict[str, Handler]:
    """The handler of every service, by kind name. What it needs and lacks it says with UnavailableError."""
    made: dict[str, Handler] = {}
    for service in SERVICES:
        module, _, name = service.handler.partition(":")
        made[service.kind.name] = getattr(importlib.import_module(module), name)(site)
    return made


class Node:
    """One node, from its home. `serve` runs until told to stop; killed at any instant, it starts again from there."""

    def __init__(self, home: Home) -> None:
        """Raises OwsgitError for whatever is missing or damaged."""
        self.home = home
        self.settings = home.settings()
        self._public_key = home.public_key()
        self._owners = {keys.identity(key) for key in self.settings.owners}
        self._reading = asyncio.Lock()  # the ledger is read by one thread at a time
        self._problem = ""
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Serve until stopped by SIGINT, SIGTERM or `stop`."""
        with self.home.lock():
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # each connection and each worker needs some
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop.set)
            await self._serve()

    def stop(self) -> None:
        self._stop.set()

    async def _serve(self) -> None:
        home, settings = self.home, self.settings
        repository = Repository.create(home.ledger, hooks_folder())
        self._ledger = Ledger(repository, KINDS, home.verified)
        self._inventory = Inventory(home.database, KINDS)
        targets: dict[str, Any] = {}
        site = Site(
            home=home.folder,
            listen=settings.listen,
            scope=self._scope,
            read_files=self._ledger.read_files,
            targets=targets,
            settings={
                "sandbox": settings.sandbox,
                "instance": hashlib.sha256(str(home.folder).encode()).hexdigest()[:12],
            },
        )
        self._handlers = handlers_of(site)
        targets.update({name: handler for name, handler in self._handlers.items() if hasattr(handler, "invoke")})
        self._reconciler = Reconciler(self._handlers, self._inventory, self._desired)
        hooks = HookServer(Verdicts(self._check, repository.head, self._reconciler), home.ledger)
        access = Access(
            self._user_of,
            self._accepts_path,
            self._path_remedy,
            home.ledger,
            sys.executable,
            self._commands(targets).run,
            hooks.turns.end,
        )
        ssh = SshServer(access, home.key)
        reconciling = asyncio.ensure_future(self._reconciler.run())
        try:
            await hooks.open(home.hook_socket)
            try:
                await ssh.open(settings.listen, settings.ssh_port)
            except OSError as error:
                raise UnavailableError(
                    f"port {settings.ssh_port} of {settings.listen} cannot be opened: {error.strerror}",
                    file=str(home.settings_file),
                    path="$.sshPort",
                    remedy="stop the program that has it (ss -ltnp), or choose another port"
                    if error.errno == errno.EADDRINUSE
                    else f"is {settings.listen} an address of this machine? correct $.listen",
                ) from None
            log.info(
                "node %s (owsgit %s) serves on %s:%s", settings.name, __version__, settings.listen, settings.ssh_port
            )
            await self._until_stopped(reconciling)
        finally:
            log.info("stopping")
            await ssh.close()
            await hooks.close()
            reconciling.cancel()
            await asyncio.gather(reconciling, return_exceptions=True)
            for handler in reversed(self._handlers.values()):
                await handler.close()
            self._inventory.close()
            home.hook_socket.unlink(missing_ok=True)

    async def _until_stopped(self, reconciling: "asyncio.Future[None]") -> None:
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._stop.wait()), reconciling]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting[0].cancel()
        if reconciling.done():
            reconciling.result()

    def _commands(self, targets: Mapping[str, Any]) -> Commands:
        return Commands(
            Facts(
                settings=self.settings,
                state=self._state,
                user_of=self._user_of,
                head=self._ledger.repository.head,
                verified=lambda: self._ledger.head.commit if self._ledger.head else None,
                settled=lambda: self._reconciler.settled,
                problem=lambda: self._problem,
                warnings=self._warnings,
                inventory=self._inventory,
                details=lambda kind, name: self._handlers[kind].details(name) if kind in self._handlers else {},
                targets=targets,
                public_key=self._public_key.line,
                started=now(),
            )
        )

    def _state(self) -> State | None:
        return self._ledger.head.state if self._ledger.head else None

    def _scope(self) -> Scope:
        state = self._state()
        assert state is not None
        return state.scope

    def _user_of(self, fingerprint: str) -> str | None:
        """Who may log in: users of the ledger; while it is empty, the owners."""
        state = self._state()
        if state is None:
            return "" if fingerprint in self._owners else None
        holder = state.holder("key", fingerprint)
        return holder.name if holder is not None and isinstance(holder.spec, UserSpec) else None

    def _accepts_path(self, path: str) -> bool:
        state = self._state()
        name = path.strip("/").removesuffix(".git")
        return state is None or name in (state.project.name, "ledger")

    def _path_remedy(self) -> str:
        state = self._state()
        name = state.project.name if state else ""
        return f"the project is {name!r}: run owsgit connect, or git remote set-url <remote> ssh://.../{name}"

    def _warnings(self) -> list[str]:
        """Where the ledger and this machine's settings say different things."""
        state = self._state()
        mine = state.holder("key", self._public_key.fingerprint) if state else None
        if mine is None or not isinstance(mine.spec, NodeSpec):
            return (
                [f"the ledger does not name this node: commit what owsgit node show --home {self.home.folder} prints"]
                if state
                else []
            )
        if mine.spec.ports.ssh != self.settings.ssh_port or mine.spec.address != self.settings.address:
            told = f"{mine.spec.address}:{mine.spec.ports.ssh}"
            own = f"{self.settings.address}:{self.settings.ssh_port}"
            return [f"{mine.file} says {told}, but this node is at {own}: change the one or {self.home.settings_file}"]
        return []

    async def _desired(self) -> Desired | None:
        """Main, verified. If it does not verify, the last head that did goes on being served."""
        async with self._reading:
            try:
                head = await asyncio.to_thread(self._ledger.advance)
                self._problem = ""
            except Exception as error:
                problem = str(error) if isinstance(error, OwsgitError) else f"{type(error).__name__}: {error}"
                if problem != self._problem:
                    log.exception("main is not followed")
                self._problem = problem
                head = self._ledger.head
        return Desired(head.commit, head.state) if head else None

    async def _check(self, update: RefUpdate, quarantine: Path | None) -> Report:
        """Whether a push may move main. Raises OwsgitError."""
        async with self._reading:
            repository = self._ledger.repository
            objects = repository.quarantined(quarantine) if quarantine else repository.objects
            await asyncio.to_thread(self._ledger.advance)
            report = await asyncio.to_thread(self._ledger.check, update.new, objects)
            if update.old is None:
                self._check_founding(report)
            return report

    def _check_founding(self, report: Report) -> None:
        """An empty node takes only a project of its owner that names the node: nobody else can adopt it."""
        state = report.head.state
        roots = [state.get("user", name) for name in state.project.roots]
        known = {
            keys.identity(key)
            for root in roots
            if root is not None and isinstance(root.spec, UserSpec)
            for key in root.spec.keys
        }
        if not known & self._owners:
            raise RefusedError(
                "no root of this project has a key that this node's owner named",
                file="project.json",
                path="$.roots",
                remedy="owsgit node init --owner KEY.pub names the owner's key",
            )
        mine = state.holder("key", self._public_key.fingerprint)
        if mine is None or not isinstance(mine.spec, NodeSpec):
            raise RefusedError(
                f"the project does not name this node ({self.settings.name})",
                file=f"nodes/{self.settings.name}.json",
                remedy=f"commit what this prints: owsgit node show --home {self.home.folder}",
            )


def hooks_folder() -> Path:
    """The folder of git hooks: beside the package in a checkout, within it when installed."""
    package = Path(str(resources.files("owsgit")))
    for folder in (package / "hooks", package.parent / "hooks"):
        if (folder / "pre-receive").is_file() and os.access(folder / "pre-receive", os.X_OK):
            return folder
    raise UnavailableError("the git hooks of owsgit are missing", remedy="install owsgit again")
