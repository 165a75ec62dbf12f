"""Review among nodes: proposals and what was said of them reach every node, and what has enough approvals is decided.

Nodes tell in each hello a digest of what is open with them; who sees another one asks for the list, and fetches what it
lacks. Everything is verified again: a neighbour can withhold a proposal or an approval, and never make one.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owsgit.ledger import grants, proposals, verdicts
from owsgit.ledger.ledger import Proposed
from owsgit.ledger.objects import Objects
from owsgit.ledger.proposals import Proposal, Proposals
from owsgit.ledger.repository import NODE_ENVIRONMENT, GitError, run
from owsgit.ledger.reviews import id_of
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.ledger.verdicts import APPROVE, REJECT, Verdict
from owsgit.model.change import project_arn
from owsgit.model.errors import NotAllowedError, OwsgitError, RefusedError
from owsgit.model.resource import APPROVE_ACTION, PROPOSE_ACTION
from owsgit.peers import transfer, wire
from owsgit.peers.certificates import Certificate
from owsgit.peers.holding import Holding
from owsgit.peers.links import Link
from owsgit.peers.proposing import Proposing
from owsgit.peers.standing import Standing

OPEN_MAX = 1000
"""Proposals that are open at once."""

RECENT_MAX = 50
SAID_OF_ONE_COMMIT_MAX = 200
SAID_BY_ONE_USER_MAX = 20
LAND_SECONDS = (0.3, 1.5)
"""How long a node that hears of the last approval from another one waits before it asks for a decision itself."""

log = logging.getLogger("owsgit.peers")


@dataclass(frozen=True)
class Said:
    """A verdict that was taken in: who said it, and of which proposal."""

    verdict: Verdict
    user: str
    proposal: Proposal


class Reviewing:
    """Keeps proposals and verdicts, and carries them from node to node."""

    def __init__(self, at: Standing, holding: Holding, proposing: Proposing) -> None:
        self._at = at
        self._holding = holding
        self._proposing = proposing
        self._proposals = Proposals(at.ledger.repository.path)
        self._lock = asyncio.Lock()  # what is open changes one at a time
        self._asking: set[str] = set()
        self._refused: dict[str, str] = {}  # tip → the head at which it was no proposal
        self._digest: str | None = None
        at.on_moved.append(self._on_moved)

    def all(self) -> list[Proposal]:
        return self._proposals.all()

    async def check(
        self, tip: str, topic: str | None, folder: Path | None, pusher: str | None = None
    ) -> tuple[Proposal, Proposed]:
        """What `tip` would be as a proposal. Raises OwsgitError for what cannot become one.

        `pusher` is who brings it (None: another node). It has to be its author: else anybody could bring back what the
        author has changed or withdrawn, and others have approved of before.
        """
        repository = self._at.ledger.repository
        objects = repository.quarantined(folder) if folder is not None else repository.objects
        async with self._at.host.reading:
            return await asyncio.to_thread(self._check, tip, topic, objects, pusher)

    def _check(self, tip: str, topic: str | None, objects: Objects, pusher: str | None) -> tuple[Proposal, Proposed]:
        proposed = self._at.ledger.propose(tip, objects, time.time())
        author, state = proposed.author, proposed.base.state
        if pusher is not None and pusher != author:
            raise RefusedError(
                f"{pusher} pushes a proposal that {author} signed: it is {author}'s to propose, change and withdraw",
                remedy=f"ask {author} to push it, or sign it yourself: git commit --amend -S --no-edit",
            )
        if (said := self._at.ledger.reviews.latest(tip, state).get(author)) is not None and said.kind == REJECT:
            raise RefusedError(
                f"{author} has withdrawn this commit", remedy="change it: git commit --amend -S, and propose it again"
            )
        decision = state.decide(author, PROPOSE_ACTION, project_arn(state.scope), grants.PUSH)
        if not decision.allowed:
            raise NotAllowedError(
                f"{author} may not {PROPOSE_ACTION}: {decision.reason}",
                remedy=f"ask a root for a policy that allows {author} to propose",
            )
        first = proposed.report.commits[0].commit
        name = proposals.check_topic(topic) if topic is not None else proposals.topic_of(first.subject)
        present = self._proposals.all()
        before = next((each for each in present if each.name == f"{author}/{name}"), None)
        mine = [each for each in present if each.user == author]
        if before is None and (len(mine) >= proposals.OF_ONE_USER_MAX or len(present) >= OPEN_MAX):
            raise RefusedError(
                f"there are {len(mine)} open proposals of {author}, and {len(present)} in all",
                remedy="withdraw one first: owsgit reject N",
            )
        if before is not None and before.tip == tip:
            return before, proposed
        if before is not None and before.version >= proposals.VERSION_MAX:
            raise RefusedError(f"{before.name} has no versions left", remedy="name another topic: -o topic=NAME")
        return Proposal(author, name, before.version + 1 if before else 1, tip), proposed

    async def propose(self, tip: str, topic: str | None, pusher: str) -> tuple[Proposal, Proposed]:
        """Keep a proposal whose objects are in the repository, and tell the others."""
        async with self._lock:
            proposal, proposed = await self.check(tip, topic, None, pusher)
            await asyncio.to_thread(self._proposals.put, proposal)
            self._changed()
        return proposal, proposed

    def parse(self, oid: str, folder: Path | None) -> Verdict:
        """The verdict that a pushed tag is. Raises RefusedError."""
        repository = self._at.ledger.repository
        objects = repository.quarantined(folder) if folder is not None else repository.objects
        return verdicts.parse(objects.tag(oid))

    async def check_said(self, verdict: Verdict, *, now: float | None) -> Said:
        """Whether a verdict may be taken in. Raises OwsgitError."""
        head = self._at.ledger.head
        if head is None:
            raise RefusedError("this node is empty")
        state = head.state
        signer = await asyncio.to_thread(verdict.signer, state)
        signer.check_validity(now)
        proposal = next((each for each in self.all() if each.tip == verdict.commit), None)
        if proposal is None:
            raise RefusedError(
                f"commit {verdict.commit[:10]} is not the tip of an open proposal",
                remedy="owsgit proposals lists them; a changed proposal has to be looked at again",
            )
        withdraws = verdict.kind == REJECT and signer.user == proposal.user
        decision = state.decide(signer.user, APPROVE_ACTION, project_arn(state.scope), grants.PUSH)
        if not withdraws and not decision.allowed:
            raise NotAllowedError(
                f"{signer.user} may not {APPROVE_ACTION}: {decision.reason}",
                remedy=f"ask a root for a policy that allows {signer.user} to approve",
            )
        if verdict.kind == APPROVE and signer.user == proposal.user:
            raise RefusedError(
                f"{signer.user} wrote this proposal, and an approval is somebody else's", remedy="ask a colleague"
            )
        self._check_number(verdict, signer.user)
        return Said(verdict, signer.user, proposal)

    def _check_number(self, verdict: Verdict, user: str) -> None:
        """Raises RefusedError for an older word of the same user, and for too many words."""
        reviews, state = self._at.ledger.reviews, self._at.ledger.head
        assert state is not None
        kept = reviews.kept(verdict.commit)
        if id_of(verdict) in map(id_of, kept):
            return
        latest = reviews.latest(verdict.commit, state.state).get(user)
        if latest is not None and latest.number >= verdict.number:
            raise RefusedError(
                f"{user} said something newer of this commit already (number {latest.number})",
                remedy="owsgit approve and owsgit reject count on by themselves, after git fetch",
            )
        mine = 0
        for each in kept:
            with contextlib.suppress(BadSignatureError):
                mine += each.signer(state.state).user == user
        if len(kept) >= SAID_OF_ONE_COMMIT_MAX or mine >= SAID_BY_ONE_USER_MAX:
            raise RefusedError("too much was said of this commit already", remedy="amend it, and propose it again")

    async def say(self, verdict: Verdict) -> Said:
        """Keep a verdict, and tell the others. Raises OwsgitError."""
        async with self._lock:
            said = await self.check_said(verdict, now=time.time())
            await self._keep(said)
        return said

    async def _keep(self, said: Said) -> None:
        await asyncio.to_thread(self._at.ledger.reviews.keep, [said.verdict])
        if said.verdict.kind == REJECT and said.user == said.proposal.user:
            await asyncio.to_thread(self._proposals.drop, said.proposal)
        self._changed()

    def _changed(self) -> None:
        self._digest = None
        self._at.on_reviewed()

    def rejected_by(self, proposal: Proposal) -> list[str]:
        """Who rejects a proposal, and may."""
        head = self._at.ledger.head
        if head is None:
            return []
        latest = self._at.ledger.reviews.latest(proposal.tip, head.state)
        return grants.rejecting(latest, head.state, proposal.user)

    async def lacks(self, proposal: Proposal) -> str:
        """Why a proposal cannot be the next head now, '' if it can."""
        head = self._at.ledger.head
        assert head is not None
        if rejecting := await asyncio.to_thread(self.rejected_by, proposal):
            return f"rejected by {', '.join(rejecting)}"
        latest = self._at.ledger.reviews.latest(proposal.tip, head.state)
        if not any(each.kind == APPROVE and user != proposal.user for user, each in latest.items()):
            return "nobody has approved of it yet"
        try:
            async with self._at.host.reading:
                objects = self._at.ledger.repository.objects
                check = self._at.ledger.check
                await asyncio.to_thread(lambda: check(proposal.tip, objects, now=time.time()))
        except OwsgitError as error:
            return str(error.problems[0])
        return ""

    async def _on_moved(self, decided: Sequence[Certificate]) -> None:
        """What is part of main now is no proposal any more."""
        head = self._at.ledger.head
        present = self.all()
        if head is None or not present:
            return
        self._at.spawn(self._drop_merged(present, head.commit))

    async def _drop_merged(self, present: list[Proposal], head: str) -> None:
        for proposal in present:
            if await asyncio.to_thread(self._is_merged, proposal.tip, head):
                async with self._lock:
                    await asyncio.to_thread(self._proposals.drop, proposal)
                    self._digest = None
        self._at.ledger.reviews.forget_told()

    def _is_merged(self, tip: str, head: str) -> bool:
        try:
            path = self._at.ledger.repository.path
            run(path, "merge-base", "--is-ancestor", tip, head, env=NODE_ENVIRONMENT)
        except GitError:
            return False
        return True

    # --- between nodes

    def digest(self) -> str:
        """What is open here, in short: equal with all nodes that know the same."""
        if self._digest is None:
            present = self.all()
            lines = [f"{each.ref} {each.tip}" for each in present]
            lines += sorted(id_of(said) for each in present for said in self._at.ledger.reviews.kept(each.tip))
            self._digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
        return self._digest

    def listed(self) -> dict[str, Any]:
        """What is open here, for another node; as much as fits into one message."""
        told: dict[str, None] = {}
        size = 0
        present, reviews = self.all(), self._at.ledger.reviews
        # the last ones as well: who still has a proposal that was withdrawn here has to hear of that
        for verdict in (*reviews.last(RECENT_MAX), *(said for each in present for said in reviews.kept(each.tip))):
            size += len(verdict.data)
            if size <= wire.JSON_BYTES_MAX // 2:
                told[verdict.data.decode("latin-1")] = None
        return {"proposals": [(each.ref, each.tip) for each in present[:OPEN_MAX]], "verdicts": list(told)}

    def met(self, link: Link, told: Mapping[str, Any]) -> None:
        """A neighbour's hello: ask for what it has, if that is not what is here."""
        digest = told.get("reviews")
        if not isinstance(digest, str) or digest == self.digest() or link.member.id in self._asking:
            return
        if self._at.ledger.head is None or told.get("head") != self._at.ledger.head.commit:
            return  # first things first: proposals are about the head
        self._asking.add(link.member.id)
        task = self._at.spawn(self._ask(link))
        task.add_done_callback(lambda _: self._asking.discard(link.member.id))

    async def _ask(self, link: Link) -> None:
        answer = await link.request("open", {})
        for pair in wire.list_of(answer.head.get("proposals"))[:OPEN_MAX]:
            ref, tip = pair
            proposal = proposals.parse(str(ref), str(tip))
            if proposal is not None:
                await self._take(link, proposal)
        landing: set[str] = set()
        for text in wire.list_of(answer.head.get("verdicts")):
            with contextlib.suppress(OwsgitError, UnicodeEncodeError, AttributeError):
                verdict = verdicts.parse(text.encode("latin-1"))
                if id_of(verdict) in map(id_of, self._at.ledger.reviews.kept(verdict.commit)):
                    continue
                async with self._lock:
                    said = await self.check_said(verdict, now=time.time())
                    await self._keep(said)
                landing.add(verdict.commit)
        for tip in landing:
            self._at.spawn(self._land_later(tip))

    async def _take(self, link: Link, told: Proposal) -> None:
        """A neighbour's proposal, if it is newer than what is here."""
        head = self._at.ledger.head
        if head is None or self._refused.get(told.tip) == head.commit or not told.is_newer_than(self._named(told.name)):
            return
        if len([each for each in self.all() if each.user == told.user]) > proposals.OF_ONE_USER_MAX:
            return
        try:
            await self._bring(link, told, head.commit)
        except OwsgitError as error:
            log.info("the proposal %s of %s is not taken: %s", told.name, link.member.name, error)
            self._refused[told.tip] = head.commit
            if len(self._refused) > OPEN_MAX:
                self._refused.clear()

    def _named(self, name: str) -> Proposal | None:
        return self._proposals.get(name)

    async def _bring(self, link: Link, told: Proposal, head: str) -> None:
        repository = self._at.ledger.repository
        async with transfer.quarantine(self._at.own.home) as folder:
            answer = await link.request("objects", {"want": told.tip, "have": head})
            if answer.body:
                await transfer.unpack(repository, answer.body, folder)
            else:
                await transfer.fetch(repository, link, told.tip, folder)
            async with self._lock:
                proposal, _ = await self.check(told.tip, told.topic, folder)
                if proposal.user != told.user:
                    raise RefusedError("it is not this user's")
                await asyncio.to_thread(transfer.migrate, repository, folder)
                await asyncio.to_thread(self._proposals.put, told)
                self._changed()

    async def _land_later(self, tip: str) -> None:
        """The node that was pushed the last approval asks for the decision; another one, if it did not."""
        await asyncio.sleep(random.uniform(*LAND_SECONDS))  # noqa: S311 - against duels
        proposal = next((each for each in self.all() if each.tip == tip), None)
        if proposal is not None and not await self.lacks(proposal):
            await self._proposing.decide(tip)
