"""The node, wired together: the only place that knows all the parts."""

import asyncio
import base64
import errno
import hashlib
import importlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
from immutables import Map
from prometheus_client import CollectorRegistry

from owsgit import __version__
from owsgit.aws import credentials
from owsgit.aws.credentials import Desk, Given, Holder
from owsgit.ledger import signatures, sshsig
from owsgit.ledger.ledger import Ledger
from owsgit.ledger.receive import RefUpdate
from owsgit.ledger.repository import Repository
from owsgit.ledger.reviews import Reviews
from owsgit.model import keys
from owsgit.model.core import NodeSpec
from owsgit.model.engines import Engines
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Decision, ResourcePolicy
from owsgit.model.iam.decision import Session as RoleSession
from owsgit.model.names import Scope
from owsgit.model.service import Handler, OneProcess, Site
from owsgit.model.state import State
from owsgit.node import metrics
from owsgit.node.admission import Admission
from owsgit.node.commands import Commands, Facts
from owsgit.node.garbage import settle_down
from owsgit.node.home import AUDIT_FOLDER, Home
from owsgit.node.hooks import Duties, HookServer
from owsgit.node.logins import user_of
from owsgit.node.metrics import MetricsServer
from owsgit.node.neighbours import LinkedNeighbours
from owsgit.node.roster import Roster
from owsgit.node.ssh import Access, Login, Session, SshServer
from owsgit.peers import recovery, server
from owsgit.peers.council import Council
from owsgit.peers.standing import Caller, Host, Own, StoppedError
from owsgit.peers.store import Store
from owsgit.peers.wire import Frame
from owsgit.reconcile.inventory import Inventory, Phase, now
from owsgit.reconcile.loop import Desired, Reconciler, Settled
from owsgit.services import KINDS, SERVICES
from owsgit.services.gateways.usage_handler import UsagePlanHandler
from owsgit.services.secrets import sealing
from owsgit.services.secrets.sealing import Vault
from owsgit.services.secrets.watch import Watch

if TYPE_CHECKING:
    from owsgit.node.door_processes import DoorProcesses
    from owsgit.node.front_door import FrontDoor

MEBIBYTE = 1024 * 1024

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
        self._owners = frozenset(keys.identity(key) for key in self.settings.owners)
        self._reading = asyncio.Lock()  # the ledger is read by one thread at a time
        self._problem = ""
        self._stopped_because = ""
        self._registry = CollectorRegistry()
        self._stop = asyncio.Event()
        self._front: FrontDoor | None = None

    async def serve(self) -> None:
        """Serve until stopped by SIGINT, SIGTERM or `stop`."""
        with self.home.lock():
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # each connection and each worker needs some
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            if lack := self.home.lack():  # before what may not start for it
                log.warning("%s", lack)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop.set)
            await self._serve()

    def stop(self) -> None:
        self._stop.set()

    async def _serve(self) -> None:
        home, settings = self.home, self.settings
        repository = Repository.create(home.ledger, hooks_folder())
        self._reviews = Reviews(home.reviews)
        self._desk = Desk(home.key.read_bytes(), self._state, self._user_of)
        self._watch = Watch(Vault(home.key.read_bytes()), self._public_key.fingerprint)
        self._ledger = Ledger(repository, KINDS, home.verified, self._reviews, self._watch.inspect)
        self._store = Store(home.votes)
        self._inventory = Inventory(home.database, KINDS)
        targets: dict[str, Any] = {}
        self._neighbours = LinkedNeighbours(settings.name, self._node_names, lambda: self._council.links().values())
        self._processes = self._make_processes()
        site = self._site(targets)
        self._handlers = handlers_of(site)
        targets.update({name: handler for name, handler in self._handlers.items() if hasattr(handler, "invoke")})
        self._reconciler = Reconciler(self._handlers, self._inventory, self._desired)
        self._admission = Admission(
            home, settings.name, self._public_key.fingerprint, self._owners, self._ledger, self._reading, self._handlers
        )
        self._council = self._make_council()
        self._roster = Roster(home, settings, self._public_key.fingerprint, self._ledger, self._council)
        self._council.start()
        hooks, ssh = self._hook_server(repository), self._ssh_server(targets)
        shown = MetricsServer(self._registry, settings.metrics, str(home.settings_file))
        front_door = self._front_door(site)
        working = [asyncio.ensure_future(work) for work in (self._reconciler.run(), self._report_settled())]
        try:
            await shown.open()
            await hooks.open(home.hook_socket)
            if front_door is not None:
                await front_door.open()
            await self._open(ssh)
            settle_down()
            log.info(
                "node %s (owsgit %s) serves on %s:%s", settings.name, __version__, settings.listen, settings.ssh_port
            )
            working.append(asyncio.ensure_future(self._council.run()))
            await self._until_stopped(working)
        finally:
            log.info("stopping")
            await ssh.close()
            await hooks.close()
            await shown.close()
            if front_door is not None:
                await front_door.close()
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            for handler in reversed(self._handlers.values()):
                await handler.close()
            self._inventory.close()
            self._store.close()
            self._reviews.close()
            home.hook_socket.unlink(missing_ok=True)

    def _hook_server(self, repository: Repository) -> HookServer:
        duties = Duties(
            partial(self._admission.check, council=self._council),
            repository.head,
            self._reconciler,
            self._decide,
            self._others_applied,
            self._names,
            self._council.reviewing,
            self._admission.pusher,
        )
        return HookServer(duties, self.home.ledger)

    def _ssh_server(self, targets: Mapping[str, Any]) -> SshServer:
        access = Access(
            self._login_of,
            self._authorities_of,
            self._accepts_path,
            self._path_remedy,
            self.home.ledger,
            sys.executable,
            self._commands(targets).run,
            self._peer,
        )
        return SshServer(access, self.home.key)

    async def _open(self, ssh: SshServer) -> None:
        """Raises UnavailableError."""
        settings = self.settings
        try:
            await ssh.open(settings.listen, settings.ssh_port)
        except OSError as error:
            raise UnavailableError(
                f"port {settings.ssh_port} of {settings.listen} cannot be opened: {error.strerror}",
                file=str(self.home.settings_file),
                path="$.sshPort",
                remedy="stop the program that has it (ss -ltnp), or choose another port"
                if error.errno == errno.EADDRINUSE
                else f"is {settings.listen} an address of this machine? correct $.listen",
            ) from None

    def _front_door(self, site: Site) -> "FrontDoor | None":
        """What answers AWS's SDKs, if this node is to."""
        port = self.settings.aws_port
        if port is None:
            return None
        from owsgit.node.front_door import FrontDoor  # noqa: PLC0415 - botocore, for nodes that answer SDKs
        from owsgit.node.own_certificate import OwnCertificate  # noqa: PLC0415
        from owsgit.node.sts import Sts  # noqa: PLC0415

        tls, file = self.settings.aws_tls, str(self.home.settings_file)
        certificate = None
        if tls is not None:
            certificate = OwnCertificate(tls.chain, tls.key, file, "$.awsTls", tls.host or self.settings.address)
        apis = [api for handler in self._handlers.values() for api in getattr(handler, "apis", ())]
        apis.append(Sts(self._state, self._give))
        if self._processes is not None:
            self._processes.share(each.shared for each in self._handlers.values() if hasattr(each, "shared"))
        self._front = FrontDoor(site, apis, self.settings.listen, port, file, certificate, self._processes)
        return self._front

    def _make_processes(self) -> "DoorProcesses | None":
        """Further processes for that, if there may be some."""
        if self.settings.aws_port is None:
            return None
        from owsgit.node.door_processes import DoorProcesses, sensible  # noqa: PLC0415 - as above

        most = self.settings.aws_processes
        most = sensible() if most is None else most
        return DoorProcesses(self.home.folder, most, lambda: self._ledger.head, self._neighbours) if most else None

    def _site(self, targets: dict[str, Any]) -> Site:
        """What the handlers of services get of this node."""
        return Site(
            home=self.home.folder,
            listen=self.settings.listen,
            scope=self._scope,
            read_files=self._ledger.read_files,
            targets=targets,
            settings={
                "node": self.settings.name,
                "sandbox": self.settings.sandbox,
                "memory": self.settings.memory * MEBIBYTE if self.settings.memory else None,
                "instance": hashlib.sha256(str(self.home.folder).encode()).hexdigest()[:12],
                "packageIndexes": self.settings.package_indexes.model_dump(exclude_none=True),
                "tracing": self.settings.tracing.model_dump(by_alias=True) if self.settings.tracing else None,
                "privateAssets": self.settings.private_assets,
                "certificateFolders": self.settings.certificate_folders,
            },
            unseal=self._watch.unseal,
            resource_at=self._ledger.resource_at,
            head=self._state,
            decide=self._decide_call,
            credential=self._desk.check,
            role_credentials=self._role_credentials,
            door=self._door,
            registry=self._registry,
            report=self._report,
            neighbours=self._neighbours,
            processes=self._processes or OneProcess(),
            engines=self._engines,
        )

    def _engines(self) -> Engines:
        state = self._state()
        return state.project.engines if state is not None else Engines.model_validate({})

    def _decide_call(
        self, who: str | RoleSession | None, action: str, arn: str, context: Context, policy: ResourcePolicy | None
    ) -> Decision:
        state = self._state()
        if state is None:
            return Decision(False, "the ledger is empty", explicit=False)
        return state.decide_call(who, action, arn, context, policy)

    def _report(self, key: str, text: str) -> None:
        """How it goes with a resource. The reconciler is made after the handlers, which tell of it."""
        self._reconciler.report(key, text)

    async def _until_stopped(self, working: "list[asyncio.Task[None]]") -> None:
        stop: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([stop, *working], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in working:
            if task.done():
                task.result()
        if self._stopped_because:
            raise StoppedError(
                self._stopped_because,
                remedy="keep this home away from the network, and join with a new one: owsgit node join",
            )

    def _make_council(self) -> Council:
        private = self.home.private_key()
        settings = self.settings
        own = Own(
            name=settings.name,
            key=private,
            public=self._public_key,
            dialing=asyncssh.import_private_key(self.home.key.read_bytes()),
            home=self.home.folder,
            listen=settings.listen,
            port=settings.ssh_port,
            version=__version__,
        )
        host = Host(
            reading=self._reading,
            moved=self._reconciler.wake,
            check_owner=self._admission.check_owner,
            stop=self._stop_because,
            now=now,
            topics=self._neighbours.topics,
            lack=self.home.lack,
        )
        return Council(own, self._ledger, self._store, host)

    def _stop_because(self, why: str) -> None:
        log.error("%s", why)
        self._stopped_because = why
        self._stop.set()

    async def _report_settled(self) -> None:
        """Have the other nodes know what is applied here."""
        async with self._reconciler.events() as events:
            while True:
                event = await events.get()
                if isinstance(event, Settled):
                    failed = [key for key, row in self._inventory.rows.items() if row.phase is Phase.FAILED]
                    await self._council.settled(event.commit, failed)

    async def _peer(self, session: Session, process: "asyncssh.SSHServerProcess[bytes]") -> int:
        """Another node's requests. Who it is, is looked up for each: the ledger may have changed meanwhile."""

        async def answer(frame: Frame) -> Frame:
            login = self._login_of(session.key)
            if login is None or login.kind == "user":
                return Frame({"problem": "this key is not in the ledger any more"})
            caller = Caller(session.key, login.name, login.kind, session.line, session.host)
            return await self._council.answer(caller, frame)

        return await server.serve(process, answer)

    async def _decide(self, update: RefUpdate) -> tuple[list[str], int]:
        if self._ledger.head is None:
            await self._council.found(update.new)
            if self._ledger.head is not None and update.new == self._ledger.head.commit:
                return [self.settings.name], 1  # what founds the project is not decided on
        nodes = len(self._council.links()) + 1
        return await self._council.decide(update.new), nodes

    async def _others_applied(self, commit: str, seconds: float, report: Callable[[str, list[str]], None]) -> None:
        await self._council.others_applied(
            commit, seconds, lambda member, status: report(member.name, list(status.failed))
        )

    def _names(self) -> tuple[str, list[str]]:
        return self.settings.name, [link.member.name for link in self._council.links().values()]

    async def _recover(self, data: bytes) -> dict[str, Any]:
        accepted = await self._council.recover(recovery.parse(data))
        return {"recovery": accepted.id, "roots": list(accepted.roots), "node": self.settings.name}

    def _commands(self, targets: Mapping[str, Any]) -> Commands:
        return Commands(
            Facts(
                settings=self.settings,
                state=self._state,
                is_member=self._council.is_member,
                user_of=self._user_of,
                head=self._ledger.repository.head,
                verified=lambda: self._ledger.head.commit if self._ledger.head else None,
                settled=lambda: self._reconciler.settled,
                problem=lambda: self._problem or self._council.problem,
                warnings=self._roster.warnings,
                inventory=self._inventory,
                details=lambda kind, name: self._handlers[kind].details(name) if kind in self._handlers else {},
                targets=targets,
                logs=self._logs,
                public_key=self._public_key.line,
                started=now(),
                nodes=self._roster.rows,
                abstains=lambda: self._council.abstains,
                recover=self._recover,
                unseal=self._watch.unseal,
                sign_rewrapped=self._sign_rewrapped,
                give=self._give,
                metrics=lambda: metrics.exposition(self._registry),
                usage=self._usage,
            )
        )

    def _sign_rewrapped(self, statement: bytes) -> dict[str, str]:
        signature = sshsig.sign_bare(self.home.private_key(), sealing.NAMESPACE, statement)
        return {"by": self._public_key.fingerprint, "signature": base64.b64encode(signature).decode()}

    def _logs(self, kind: str, name: str) -> Path:
        """The folder of a log."""
        if kind.startswith("audit"):
            return self.home.folder / AUDIT_FOLDER / kind.removeprefix("audit").removeprefix("-")
        folder: Path = self._handlers[kind].logs(name)  # type: ignore[attr-defined]
        return folder

    def _usage(self, plan: str) -> list[dict[str, Any]]:
        handler = self._handlers["usageplan"]
        assert isinstance(handler, UsagePlanHandler)
        return handler.usage(plan)

    def _door(self) -> tuple[str, int] | None:
        """Where functions reach the front door."""
        return self._front.inner if self._front is not None else None

    def _role_credentials(self, function: str, commit: str, role: str) -> dict[str, str]:
        """As the SDKs' container provider takes them. Raises OwsgitError."""
        state = self._state()
        if state is None:
            raise UnavailableError("the ledger is empty")
        given = self._give(Holder.of_function(function, commit, role), state)
        self._desk.check(given.token)  # the head may not give it the role any more
        return given.document("Token")

    def _give(self, holder: Holder, state: State, until: int | None = None) -> Given:
        return credentials.give(holder, self.home.private_key(), self._public_key, state, time.time(), until)

    def _state(self) -> State | None:
        return self._ledger.head.state if self._ledger.head else None

    def _scope(self) -> Scope:
        state = self._state()
        assert state is not None
        return state.scope

    def _node_names(self) -> list[str]:
        state = self._state()
        return [node.name for node in state.of_kind("node")] if state is not None else []

    def _user_of(self, fingerprint: str) -> str | None:
        """Who may log in: users of the ledger; while it is empty, the owners."""
        state = self._state()
        if state is None:
            return "" if fingerprint in self._owners else None
        return user_of(state, fingerprint)

    def _authorities_of(self, user: str) -> list[str]:
        """Whose certificates can stand for a user."""
        state = self._state()
        return signatures.authorities_of(user, state) if state is not None else []

    def _login_of(self, fingerprint: str) -> Login | None:
        """Who may log in: users and nodes of the ledger, nodes that it named before; at an empty node, its owners, and
        any node, which may say no more than where it is."""
        user = self._user_of(fingerprint)
        if user is not None:
            return Login("user", user)
        state = self._state()
        if state is None:
            return Login("stranger", "")
        holder = state.holder("key", fingerprint)
        if holder is not None and isinstance(holder.spec, NodeSpec):
            return Login("node", holder.name)
        former = self._store.former(fingerprint)
        return Login("former", former[0]) if former is not None else None

    def _accepts_path(self, path: str) -> bool:
        state = self._state()
        name = path.strip("/").removesuffix(".git")
        return state is None or name in (state.project.name, "ledger")

    def _path_remedy(self) -> str:
        state = self._state()
        name = state.project.name if state else ""
        return f"the project is {name!r}: run owsgit connect, or git remote set-url <remote> ssh://.../{name}"

    async def _desired(self) -> Desired | None:
        """The head. If something else than a decision has moved main, it is set back."""
        async with self._reading:
            try:
                if problem := await asyncio.to_thread(self._ledger.settle):
                    log.warning("%s", problem)
                self._problem = ""
            except Exception as error:
                problem = str(error) if isinstance(error, OwsgitError) else f"{type(error).__name__}: {error}"
                if problem != self._problem:
                    log.exception("main cannot be set back")
                self._problem = problem
            head = self._ledger.head
        if head is None:
            return None
        if self._processes is not None:
            await self._processes.follow(head.commit)
        if (
            not self._council.is_member()
        ):  # what the ledger does not name does not serve: it would be stale, or too early
            return Desired(head.commit, replace(head.state, resources=Map()))
        return Desired(head.commit, head.state)


def hooks_folder() -> Path:
    """The folder of git hooks: beside the package in a checkout, within it when installed."""
    package = Path(str(resources.files("owsgit")))
    for folder in (package / "hooks", package.parent / "hooks"):
        if (folder / "pre-receive").is_file() and os.access(folder / "pre-receive", os.X_OK):
            return folder
    raise UnavailableError("the git hooks of owsgit are missing", remedy="install owsgit again")
