"""A node among its equals: takes part in deciding, carries heads to and from the others, and knows how they are.

The parts, each in a module of its own, from what knows least to what knows most: `standing`, `holding`, `following`,
`recovering`, `proposing`, `reviewing`, `contact`, `answers`. They drive the pure core on real links, a real disk and
a real ledger.
"""

import asyncio
import logging
from collections.abc import Mapping

from owsgit.ledger.ledger import Ledger
from owsgit.peers import recovery, transfer
from owsgit.peers.answers import Answers
from owsgit.peers.contact import Contact
from owsgit.peers.following import Following
from owsgit.peers.holding import Holding
from owsgit.peers.links import Link
from owsgit.peers.proposing import Proposing
from owsgit.peers.recovering import Recovering
from owsgit.peers.recovery import SignedRecovery
from owsgit.peers.reviewing import Reviewing
from owsgit.peers.standing import START_ANEW, Host, Own, Seen, Standing, StoppedError
from owsgit.peers.store import STOPPED, Store

log = logging.getLogger("owsgit.peers")


class Council:
    """Made once per node; `start`, then `run` until cancelled."""

    def __init__(self, own: Own, ledger: Ledger, store: Store, host: Host) -> None:
        self._at = Standing(own, ledger, store, host)
        holding = Holding(self._at)
        self._following = Following(self._at, holding)
        self._recovering = Recovering(self._at)
        self._proposing = Proposing(self._at, holding, self._following, self._recovering)
        self.reviewing = Reviewing(self._at, holding, self._proposing)
        self._contact = Contact(self._at, self._following, self._recovering, self.reviewing)
        answers = Answers(
            self._at, holding, self._following, self._recovering, self._proposing, self._contact, self.reviewing
        )
        self.answer = answers.answer
        self.found = self._following.found
        self.offer = self._proposing.offer
        self.decide = self._proposing.decide
        self.settled = self._contact.settled
        self.own_status = self._contact.own_status
        self.look_around = self._contact.look_around
        self.others_applied = self._contact.others_applied
        self.is_member = self._at.is_member

    def start(self) -> None:
        """Come to where the node was. Raises StoppedError for one that must not run any more."""
        stopped = self._at.store.fact(STOPPED)
        if stopped:
            raise StoppedError(stopped, remedy=START_ANEW)
        transfer.sweep(self._at.own.home)
        while self._at.ledger.head and (decided := self._at.store.decision(self._at.ledger.head.commit)):
            self._at.ledger.follow(decided.value)
        if problem := self._at.ledger.settle():
            log.warning("%s", problem)
        self._at.enter()

    async def run(self) -> None:
        """Keep in touch with the others until cancelled."""
        try:
            self._at.refresh()
            await self._contact.write_notes()
        finally:
            tasks = [*self._at.tasks, *(task for _, task in self._at.links.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def links(self) -> Mapping[str, Link]:
        """The links to the other nodes, by id."""
        return {id_: link for id_, (link, _) in self._at.links.items()}

    @property
    def problem(self) -> str:
        """Why this node does not take part, '' if it does."""
        return self._at.problem

    @property
    def abstains(self) -> bool:
        """Whether this node was restored from a backup, and only follows for now."""
        return self._at.abstains

    @property
    def seen(self) -> Mapping[str, Seen]:
        """What is known of the other nodes, by id."""
        return self._at.seen

    async def recover(self, signed: SignedRecovery) -> recovery.Accepted:
        """Go on without the nodes that the roots name as lost, and tell the others. Raises OwsgitError."""
        accepted = await self._recovering.recover(signed)
        for link in self.links().values():
            if link.up:
                self._at.spawn(self._contact.say_hello(link))
        return accepted
