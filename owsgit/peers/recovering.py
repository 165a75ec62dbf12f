"""Going on by the word of the roots, after a majority was lost: see `recovery`."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from owsgit.ledger import verify
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.state import State
from owsgit.peers import certificates, history, recovery
from owsgit.peers.paxos import Instance
from owsgit.peers.recovery import SignedRecovery
from owsgit.peers.standing import START_ANEW, Standing, StoppedError
from owsgit.peers.store import STOPPED

log = logging.getLogger("owsgit.peers")


class Recovering:
    """Takes in the roots' statements. `on_recovered` is called when one of them changes who decides."""

    def __init__(self, at: Standing) -> None:
        self._at = at
        self.on_recovered: Callable[[], None] = lambda: None

    async def recover(self, signed: SignedRecovery) -> recovery.Accepted:
        """Go on without the nodes that the roots name as lost. Raises OwsgitError."""
        return await self._at.uninterrupted(self._recover(signed))

    async def _recover(self, signed: SignedRecovery) -> recovery.Accepted:
        async with self._at.moving:
            head = self._at.ledger.head
            if head is None:
                raise UnavailableError("this node is empty")
            statement = signed.recovery
            if statement.head != head.commit:
                raise RefusedError(
                    f"the recovery is for the head {statement.head[:10]}, and this node is at {head.commit[:10]}",
                    remedy="recover the newest head of the nodes that are left: owsgit status",
                )
            accepted = recovery.check(signed, head.state)
            if self._at.own.id in accepted.lost:
                await self._stop_as_lost(accepted)
                raise StoppedError(f"this node ({self._at.own.name}) is one of the lost", remedy=START_ANEW)
            former = self._at.recovery(head)
            if former is not None and not former.lost <= accepted.lost:
                raise RefusedError(
                    "another recovery of this head was accepted, which names other nodes as lost",
                    remedy=f"name these as lost as well: {', '.join(former.signed.recovery.lost.values())}",
                )
            await asyncio.to_thread(self._at.store.put_recovery, signed)
            log.warning(
                "the roots %s have the project go on without %s",
                ", ".join(accepted.roots), ", ".join(sorted(statement.lost.values())) or "what was forgotten",
            )  # fmt: skip
            async with self._at.deciding:
                self._at.enter()
            self.on_recovered()
        return accepted

    async def take_recoveries(self, told: Mapping[str, Any]) -> None:
        """Recoveries that a neighbour tells of: those of this head, and those that say that this node is lost."""
        known = {signed.recovery.id for signed in self._at.store.recoveries()}
        for signed in recovery.told(told):
            head = self._at.ledger.head
            if head is None:
                return
            with contextlib.suppress(OwsgitError):
                if signed.recovery.head == head.commit:
                    if signed.recovery.id not in known or self._at.core.instance != self._at.instance(head):
                        await self.recover(signed)
                elif self._at.own.id in signed.recovery.lost:
                    await self._learn_of_loss(signed, told)

    async def _learn_of_loss(self, signed: SignedRecovery, told: Mapping[str, Any]) -> None:
        """Of a head that is past: only if the others did go on without this node, which their votes show."""
        certificate = certificates.parse(json.dumps(told.get("without")))
        if certificate.instance != Instance(signed.recovery.head, signed.recovery.id):
            return
        state = await self._state_at(signed.recovery.head)
        if state is not None:
            accepted = recovery.check(signed, state)
            history.check(certificate, state, {accepted.id: signed})
            await self._stop_as_lost(accepted)

    async def _state_at(self, commit: str) -> State | None:
        """The state at a head of this node's history; None for one that it does not know (yet)."""
        head = self._at.ledger.head
        if head is None or not self._at.knows(commit):
            return None
        async with self._at.host.reading:
            found = await asyncio.to_thread(
                verify.load, self._at.ledger.repository.objects, self._at.ledger.kinds, head.state.genesis, commit
            )
        return found.state

    async def _stop_as_lost(self, accepted: recovery.Accepted) -> None:
        """The others have gone on without this node: whatever it decided or promised must not count any more."""
        why = (
            f"the roots {', '.join(accepted.roots)} have declared this node ({self._at.own.name}) lost at commit "
            f"{accepted.signed.recovery.head[:10]}, and the others have gone on without it"
        )
        await asyncio.to_thread(self._at.store.put_fact, STOPPED, why)
        self._at.problem = why
        self._at.host.stop(why)

    def relevant(self, to: str) -> list[SignedRecovery]:
        """Recoveries of the present head, and those that say that `to` is lost."""
        head = self._at.ledger.head
        found = [
            signed
            for signed in self._at.store.recoveries()
            if to in signed.recovery.lost or (head is not None and signed.recovery.head == head.commit)
        ]
        return found[-recovery.TOLD_MAX :]
