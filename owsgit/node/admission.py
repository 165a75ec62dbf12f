"""What a push, or a project that another node brings, has to be for this node, beside what verification asks of it."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owsgit.ledger import signatures
from owsgit.ledger.ledger import Ledger
from owsgit.ledger.receive import RefUpdate
from owsgit.ledger.verify import Report
from owsgit.model import keys
from owsgit.model.core import NodeSpec, UserSpec
from owsgit.model.errors import InvalidError, OwsgitError, RefusedError
from owsgit.model.service import Handler
from owsgit.model.state import State
from owsgit.node.home import Home
from owsgit.peers.council import Council

PUSH_CERTIFICATE_BYTES_MAX = 64 * 1024

log = logging.getLogger("owsgit.node")


class Admission:
    """Checks what is to become main."""

    def __init__(
        self,
        home: Home,
        name: str,
        key: str,
        owners: frozenset[str],
        ledger: Ledger,
        reading: asyncio.Lock,
        handlers: Mapping[str, Handler],
    ) -> None:
        """`key` is the fingerprint of this node's; `owners` are who may found its project; `reading` is held by who
        reads the ledger."""
        self._home, self._name, self._key, self._owners = home, name, key, owners
        self._ledger, self._reading, self._handlers = ledger, reading, handlers

    async def check(self, update: RefUpdate, quarantine: Path | None, council: Council) -> Report:
        """Whether a push may move main. Raises OwsgitError."""
        async with self._reading:
            repository = self._ledger.repository
            objects = repository.quarantined(quarantine) if quarantine else repository.objects
            report = await asyncio.to_thread(lambda: self._ledger.check(update.new, objects, now=time.time()))
            if self._ledger.head is None:
                self._check_founding(report)
        await self._check_kept(report)
        try:
            await council.offer(update.new, quarantine)
        except OwsgitError as error:  # then the objects go with the question itself
            log.info("%s was not sent ahead: %s", update.new[:10], error)
        return report

    async def _check_kept(self, report: Report) -> None:
        """What is deleted holds nothing that users would miss, as far as this node can tell."""
        resources = report.head.state.resources
        gone = [change.before for commit in report.commits for change in commit.changes if change.after is None]
        problems = []
        for removed in (each for each in gone if each is not None and each.key not in resources):
            handler: Any = self._handlers.get(removed.kind.name)
            if hasattr(handler, "keeps") and (problem := await handler.keeps(removed)) is not None:
                problems.append(problem)
        if problems:
            raise InvalidError.of(problems)

    def pusher(self, blob: str, quarantine: Path | None) -> str:
        """Who signed the certificate of a push."""
        repository = self._ledger.repository
        objects = repository.quarantined(quarantine) if quarantine else repository.objects
        head = self._ledger.head
        if head is None:
            return ""
        return signatures.pusher(objects.blob(bytes.fromhex(blob), PUSH_CERTIFICATE_BYTES_MAX), head.state)

    def check_owner(self, signers: frozenset[str]) -> None:
        """What another node brings to an empty one has to be signed by the owner: to list the owner's key is easy."""
        if not signers & self._owners:
            raise RefusedError(
                "the project that another node offers is not signed by this node's owner",
                remedy="push the project to this node, or make it with owsgit node join",
            )

    def _check_roots(self, state: State) -> None:
        """What is pushed to an empty node, by its owner, is a project in which the owner is a root."""
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

    def _check_founding(self, report: Report) -> None:
        """What is pushed to an empty node names it from the first head that names nodes."""
        state = report.head.state
        self._check_roots(state)
        mine = state.holder("key", self._key)
        if mine is None or not isinstance(mine.spec, NodeSpec):
            raise RefusedError(
                f"the project does not name this node ({self._name})",
                file=f"nodes/{self._name}.json",
                remedy=f"commit what this prints: owsgit node show --home {self._home.folder}",
            )
