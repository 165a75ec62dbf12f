"""What a node may vote for: verified by itself, and with all its objects on its disk."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from owsgit.ledger.repository import GitError
from owsgit.ledger.verify import Report
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.peers import transfer
from owsgit.peers.links import LinkError
from owsgit.peers.standing import Standing

HOLDING_MAX = 3
"""Values of one neighbour that are brought in and verified at once."""


class HeadMovedError(RefusedError):
    """The head is not any more the one that a value was to follow."""


class Holding:
    """Brings values in, each once however many ask for it."""

    def __init__(self, at: Standing) -> None:
        self._at = at
        self._work: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._bringing: Counter[str] = Counter()

    async def hold(self, head: str, value: str, sources: Iterable[str], pack: bytes = b"", by: str = "") -> None:
        """Have `value` verified as a successor of `head`, and all its objects on the disk.

        Raises RefusedError, LinkError or UnavailableError: then nobody may vote for it.
        """
        key = head, value
        if key in self._at.held:
            return
        work = self._work.get(key)
        if work is None:
            if by and self._bringing[by] >= HOLDING_MAX:
                raise UnavailableError("too much of yours is being verified at once", remedy="try again")
            work = asyncio.ensure_future(self._bring(head, value, list(sources), pack))
            self._work[key] = work
            self._bringing[by] += 1

            def done(_: object) -> None:
                self._work.pop(key, None)
                self._bringing[by] -= 1

            work.add_done_callback(done)
        await asyncio.shield(work)
        if key not in self._at.held:
            raise HeadMovedError(f"the head is not {head[:10]} any more")

    async def _bring(self, head: str, value: str, sources: list[str], pack: bytes) -> None:
        repository = self._at.ledger.repository
        if pack:
            async with transfer.quarantine(self._at.own.home) as folder:
                await transfer.unpack(repository, pack, folder)
                await self._let_in(value, head, folder)
        else:
            try:
                await self.check(value, head, None)
                await transfer.check_connected(repository, value, head)
            except (RefusedError, GitError) as missing:
                await self._bring_from(value, head, sources, missing)
        await asyncio.to_thread(transfer.hold, repository, value)
        if not self._at.ledger.head_is_not(head):
            self._at.held.add((head, value))

    async def _bring_from(self, value: str, have: str, sources: list[str], missing: OwsgitError) -> None:
        problem: OwsgitError = missing
        for source in sources:
            if source not in self._at.links:
                continue
            link = self._at.links[source][0]
            try:
                async with transfer.quarantine(self._at.own.home) as folder:
                    answer = await link.request("objects", {"want": value, "have": have})
                    self._at.take_approvals(answer.head, source)
                    if answer.body:
                        await transfer.unpack(self._at.ledger.repository, answer.body, folder)
                    else:
                        await transfer.fetch(self._at.ledger.repository, link, value, folder)
                    await self._let_in(value, have, folder)
                return
            except (LinkError, RefusedError) as error:
                problem = error
        raise problem

    async def _let_in(self, value: str, head: str, folder: Path) -> None:
        await self.check(value, head, folder)
        await asyncio.to_thread(transfer.migrate, self._at.ledger.repository, folder)

    async def check(self, value: str, head: str, folder: Path | None) -> Report:
        repository = self._at.ledger.repository
        objects = repository.quarantined(folder) if folder is not None else repository.objects
        async with self._at.host.reading:
            if self._at.ledger.head_is_not(head):
                raise HeadMovedError(f"the head is not {head[:10]} any more")
            return await asyncio.to_thread(self._at.ledger.check, value, objects)
