"""A push: its objects go ahead, the question follows, and the answers of a majority decide."""

import asyncio
import json
import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from owsgit.ledger.verify import NotFastForwardError, Verified
from owsgit.model import terminal
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.peers import certificates, transfer, wire
from owsgit.peers.certificates import Certificate
from owsgit.peers.core import Chosen, Effect, Elsewhere, Outbid, Send, Write
from owsgit.peers.following import Following
from owsgit.peers.holding import HeadMovedError, Holding
from owsgit.peers.links import Link, LinkError
from owsgit.peers.members import Member
from owsgit.peers.paxos import Accept, Message, Prepare, Promise, Voted
from owsgit.peers.recovering import Recovering
from owsgit.peers.standing import Standing

DECIDE_SECONDS_MAX = 12.0
"""How long a push waits for a majority that is connected but slow."""

PATIENCE_SECONDS = 0.25
"""How long an attempt that somebody refused may go on before the next one."""

OFFERS_MAX = 8
"""Pushes whose objects were sent ahead, and that are not decided yet."""

HEADS_MISSED_MAX = 20
"""How many decisions that a node had missed a push may catch up with."""

GATHER_SECONDS_MAX = 3.0
"""How long a push waits for a majority to be connected at all."""

INLINE_BYTES_MAX = 1 << 20
"""Objects up to here travel with the message; more are fetched by git."""


class NoMajorityError(UnavailableError):
    """Too few nodes answered to decide."""


@dataclass
class _Offer:
    """Objects of a push that were sent ahead, and to whom."""

    head: str
    pack: bytes
    sent: set[str] = field(default_factory=set)


@dataclass
class _Round:
    """A push that waits for its decision."""

    head: str
    tip: str
    outcome: "asyncio.Future[Certificate]"
    offer: _Offer | None
    ready: "asyncio.Future[None]"
    answered: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    asked_to_vote: bool = False
    outbid: asyncio.Event = field(default_factory=asyncio.Event)


class Proposing:
    """The proposer's host. One push at a time."""

    def __init__(self, at: Standing, holding: Holding, following: Following, recovering: Recovering) -> None:
        self._at = at
        self._holding = holding
        self._following = following
        self._recovering = recovering
        self._pushing = asyncio.Lock()
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        self._folders = transfer.Folders(at.ledger.repository)
        self.current: _Round | None = None
        at.on_moved.append(self._on_moved)
        recovering.on_recovered = self._on_recovered

    async def _on_moved(self, decided: Sequence[Certificate]) -> None:
        if self.current is not None and not self.current.outcome.done():
            for certificate in decided:
                if certificate.instance.head == self.current.head:
                    self.current.outcome.set_result(certificate)

    def _on_recovered(self) -> None:
        if self.current is not None:
            self.current.outbid.set()  # go on in the new instance

    async def offer(self, tip: str, folder: Path | None) -> None:
        """Send the objects of a push that was checked to the others, ahead of the question.

        So they are verified everywhere while git is still busy with the push. `folder` is the push's quarantine.
        """
        head = self._at.ledger.head
        if head is None or not self._at.is_member() or len(self._at.core.electorate.members) < 2:
            return
        repository = self._at.ledger.repository
        data = await transfer.pack(repository, tip, head.commit, INLINE_BYTES_MAX, folder)
        if data is None:
            return
        approvals = self._at.approvals_between(head.commit, tip, folder)
        offer = _Offer(head.commit, data)
        self._offers[tip] = offer
        while len(self._offers) > OFFERS_MAX:
            self._offers.popitem(last=False)
        for id_, (link, _) in self._at.links.items():
            if link.up and id_ in self._at.core.electorate.members:
                offer.sent.add(id_)
                self._at.spawn(link.request("offer", {"tip": tip, "head": head.commit, **approvals}, data))

    async def decide(self, tip: str) -> list[str]:
        """Have `tip` decided, and move to it. The names of who voted for it.

        `tip` was verified by `Ledger.check`, and its objects are in the repository. When other commits were decided
        meanwhile which `tip` follows, as when this node had missed them, it goes on from there. Raises
        NotFastForwardError when it does not follow them, NoMajorityError when too few nodes answered.
        """
        async with self._pushing:
            head = self._at.ledger.head
            assert head is not None
            for attempt in range(HEADS_MISSED_MAX):
                head = self._at.ledger.head or head
                if head.commit == tip:
                    break
                self._check_member()
                try:
                    if attempt or not self._at.ledger.has_checked(tip):
                        await self._check_again(tip, head.commit)
                except HeadMovedError:
                    continue
                certificate = await self._decide(head, tip)
                if certificate.value == tip:
                    break
            decided = self._at.store.decision_for(tip)
            if decided is None:
                raise _fetch_first(head.commit)
            return self._voters(decided)

    async def _check_again(self, tip: str, head: str) -> None:
        try:
            await self._holding.check(tip, head, None)
        except NotFastForwardError:
            raise _fetch_first(head) from None

    def _voters(self, decided: Certificate) -> list[str]:
        names = {id_: member.name for id_, member in self._at.members.items()}
        return sorted(
            names.get(voter) or (self._at.store.former(voter) or ("",))[0] or voter for voter in decided.votes
        )

    async def _decide(self, head: Verified, tip: str) -> Certificate:
        """One head's decision, whatever it is."""
        offer = self._offers.pop(tip, None)
        if (offer is None or offer.head != head.commit) and len(self._at.core.electorate.members) > 1:
            data = await transfer.pack(self._at.ledger.repository, tip, head.commit, INLINE_BYTES_MAX)
            offer = _Offer(head.commit, data or b"")
        ready = asyncio.ensure_future(self._make_ready(head, tip))  # goes on beside the first question
        current = _Round(head.commit, tip, asyncio.get_running_loop().create_future(), offer, ready)
        self.current = current
        try:
            await self._attempts(current)
            return current.outcome.result()
        finally:
            self.current = None
            await asyncio.wait([ready])

    async def _make_ready(self, head: Verified, tip: str) -> None:
        """Have the push's own objects on the disk, before anybody votes for them."""
        await asyncio.to_thread(self._make_durable, tip)
        if self._at.ledger.head is head:
            self._at.held.add((head.commit, tip))

    def _make_durable(self, tip: str) -> None:
        self._folders.sync()
        transfer.hold(self._at.ledger.repository, tip)

    def _check_member(self) -> None:
        if not self._at.is_member():
            named = ", ".join(member.name for member in self._at.members.values())
            raise UnavailableError(
                f"the ledger does not name this node ({self._at.own.name}), so it cannot take pushes",
                remedy=f"push to one of {named}",
            )
        if self._at.core.abstains:
            raise UnavailableError(
                f"this node ({self._at.own.name}) was restored from a backup and may have forgotten votes; until the "
                "others have decided two more heads it only follows",
                remedy="push to another node, or have the roots recover the project: owsgit node recover",
            )

    async def _attempts(self, current: _Round) -> None:
        began = time.monotonic()
        attempt = 0
        while not current.outcome.done():
            current.outbid.clear()
            if (known := self._at.store.decision(current.head)) is not None and self._at.ledger.head_is_not(
                current.head
            ):
                current.outcome.set_result(known)
                return
            if self._at.core.instance is not None and self._at.core.instance.head == current.head:
                async with self._at.deciding:
                    if self._at.core.instance.head == current.head:
                        await self.perform(self._at.core.propose(current.tip))
            outbid = asyncio.ensure_future(current.outbid.wait())
            waiting: list[asyncio.Future[Any]] = [current.outcome, outbid]
            try:
                while not current.outcome.done() and not current.outbid.is_set():
                    await asyncio.wait(waiting, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    self._give_up_in_time(current, time.monotonic() - began)
                    if self._at.core.refused:
                        break
            finally:
                outbid.cancel()
            if not current.outcome.done():
                attempt += 1
                await asyncio.sleep(random.uniform(0.005, 0.02 * 2 ** min(attempt, 5)))  # noqa: S311 - against duels

    def _give_up_in_time(self, current: _Round, seconds: float) -> None:
        """Raises NoMajorityError when there is no hope left, or no time."""
        if current.outcome.done():
            return
        if current.ready.done() and (failure := current.ready.exception()) is not None:
            raise UnavailableError(
                f"the push cannot be kept on this node's disk: {failure}",
                remedy="look at the node's disk; push to another node",
            )
        electorate = self._at.core.electorate
        here = {self._at.own.id, *(id_ for id_, (link, _) in self._at.links.items() if link.up)} & electorate.members
        needed = max(electorate.promises_needed, electorate.votes_needed)
        hopeless = len(here) < needed and seconds > GATHER_SECONDS_MAX
        refused = len(electorate.members) - len(current.refused) < needed
        if hopeless or refused or seconds > DECIDE_SECONDS_MAX:
            raise self._no_majority(current, needed)

    def _no_majority(self, current: _Round, needed: int) -> OwsgitError:
        names = {id_: member.name for id_, member in self._at.members.items()}
        electorate = self._at.core.electorate.members
        answered = sorted(names[id_] for id_ in (current.answered | {self._at.own.id}) & electorate if id_ in names)
        silent = sorted(names[id_] for id_ in electorate - current.answered - {self._at.own.id} if id_ in names)
        refused = "".join(f"; {name} refused: {why}" for name, why in sorted(current.refused.items()))
        message = f"{len(answered)} of {len(electorate)} nodes answered ({', '.join(answered)}), {needed} are needed"
        message += f"; no answer from {', '.join(silent)}" if silent else ""
        later = (
            "the commit is in your clone, and may yet be decided when they are back: git fetch, then push again"
            if current.asked_to_vote
            else "nothing is lost, the commit is in your clone: push again when they are back, or to another node"
        )
        return NoMajorityError(message + refused, remedy=later)

    async def perform(self, effects: list[Effect], reply_to: str = "") -> Message | None:
        """Carry out effects in order, with `_deciding` held; what goes to `reply_to` is returned."""
        reply = None
        for effect in effects:
            match effect:
                case Write():
                    await self._write_seat(effect)
                case Send() if effect.to == reply_to:
                    reply = effect.message
                case Send():
                    self._at.spawn(self._deliver(effect.to, effect.message))
                case Chosen():
                    self._at.spawn(self._chosen(effect))
                case Outbid():
                    if self.current is not None:
                        self.current.outbid.set()
                case Elsewhere():
                    pass
        return reply

    async def _write_seat(self, write: Write) -> None:
        """Durable when it returns. After a failure the core is as it was: nothing is answered that rests on it."""
        try:
            await asyncio.to_thread(self._at.store.put_seat, write.head, write.seat)
        except BaseException:
            self._at.core.reset(dict(self._at.durable))
            raise
        self._at.durable[write.head] = write.seat

    async def _deliver(self, to: str, message: Message) -> None:
        """Send a proposer's message until it is answered, or of no use any more."""
        current = self.current
        if current is None or current.head != message.instance.head:
            return
        if isinstance(message, Accept):
            current.asked_to_vote = True
            if message.value == current.tip:
                await asyncio.shield(current.ready)
            await self._holding.hold(message.instance.head, message.value, self._voters_of(message.value))
        if to == self._at.own.id:
            await self._receive_own(message)
            return
        fields: dict[str, Any] = {"message": wire.message_to_json(message)}
        asked = message.value if isinstance(message, Accept) else current.tip
        fields |= self._at.approvals_between(current.head, asked)
        body = b""
        if isinstance(message, Prepare) and current.offer is not None and to not in current.offer.sent:
            fields["tip"] = current.tip
            body = current.offer.pack
        while self.current is current and not current.outcome.done() and to in self._at.links:
            link = self._at.links[to][0]
            if not await link.wait_up(1.0):
                continue
            try:
                answer = await link.request("paxos", fields, body)
            except LinkError as error:
                self._at.note(to, problem=error.problems[0].message)
                await asyncio.sleep(0.1)
                continue
            self._at.note(to)
            if await self._answered(current, link.member, answer.head):
                return
            await asyncio.sleep(0.1)

    async def _receive_own(self, message: Message) -> None:
        async with self._at.deciding:
            if self._at.store.decision(message.instance.head) is not None:
                return
            reply = await self.perform(self._at.core.receive(self._at.own.id, message), self._at.own.id)
            if reply is not None:
                await self.perform(self._at.core.receive(self._at.own.id, reply), self._at.own.id)

    async def _answered(self, current: _Round, member: Member, answer: Mapping[str, Any]) -> bool:
        """Take in what an acceptor answered; False if it is to be asked again."""
        if "message" in answer:
            message = wire.message_from_json(answer["message"])
            current.answered.add(member.id)
            if isinstance(message, Voted):
                try:
                    certificates.check_vote(message, member.key)
                except RefusedError as error:
                    current.refused[member.name] = f"its vote is not signed by it: {error.problems[0].message}"
                    return True
            if isinstance(message, Promise) and message.voted is not None:
                try:  # a vote for what nobody can verify is a lie, and stops nobody
                    await self._holding.hold(message.instance.head, message.voted.value, [member.id])
                except OwsgitError as error:
                    current.refused[member.name] = f"it told of a vote for {message.voted.value[:10]}: {error}"
                    return True
            async with self._at.deciding:
                await self.perform(self._at.core.receive(member.id, message))
            return True
        if "decided" in answer:
            await self._recovering.take_recoveries(answer)
            self._at.take_approvals(answer, member.id)
            await self._following.learn(certificates.parse(json.dumps(answer["decided"])), [member.id])
            return True
        if "refused" in answer:
            current.answered.add(member.id)
            current.refused[member.name] = terminal.safe(str(answer["refused"]), 300)
            return True
        if "abstains" in answer:
            current.answered.add(member.id)
            current.refused[member.name] = "it was restored from a backup and only follows for now"
            return True
        await self._recovering.take_recoveries(answer)
        return False  # it is behind, and catches up

    def _voters_of(self, value: str) -> list[str]:
        """Whom to get a value from that another proposer brought."""
        proposal = self._at.core.proposal
        promises = proposal.promises if proposal is not None else frozenset()
        return [node for node, vote in promises if vote is not None and vote.value == value and node != self._at.own.id]

    async def _chosen(self, chosen: Chosen) -> None:
        certificate = Certificate(chosen.instance, chosen.ballot, chosen.value, dict(chosen.votes))
        others = dict(self._at.links)
        await self._following.learn(certificate, [id_ for id_ in certificate.votes if id_ != self._at.own.id])
        for id_, (link, _) in {**others, **self._at.links}.items():
            if link.up:
                self._at.spawn(self._tell(id_, link, certificate))

    async def _tell(self, id_: str, link: Link, certificate: Certificate) -> None:
        await link.request("decided", {"certificate": certificate.document(), **self._at.evidence_for(certificate)})
        self._at.note(id_)


def _fetch_first(main: str) -> NotFastForwardError:
    return NotFastForwardError(
        f"fetch first: main moved to {main[:10]} while you pushed", remedy="git pull --rebase, then push again"
    )
