"""A node among its equals: takes part in deciding, carries heads to and from the others, and knows how they are.

Drives the pure core on real links, a real disk and a real ledger. A neighbour is never believed: whatever it brings is
verified by the ledger's own verification, and every head needs a certificate of enough signed votes.
"""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from owsgit.ledger import verify
from owsgit.ledger.ledger import Ledger
from owsgit.ledger.repository import GitError
from owsgit.ledger.verify import CommitReport, NotFastForwardError, Report, Verified
from owsgit.model import keys, terminal
from owsgit.model.core import NodeSpec
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.state import State
from owsgit.peers import certificates, history, members, recovery, statuses, transfer, wire
from owsgit.peers.certificates import Certificate, CertificateError
from owsgit.peers.core import Chosen, Core, Effect, Elsewhere, Outbid, Send, Write
from owsgit.peers.links import Dialer, Link, LinkError
from owsgit.peers.members import Member
from owsgit.peers.notes import Notes
from owsgit.peers.paxos import Accept, Instance, Message, Prepare, Promise, Voted
from owsgit.peers.recovery import SignedRecovery
from owsgit.peers.statuses import NodeStatus, SignedStatus
from owsgit.peers.store import RESTORED, STOPPED, Store
from owsgit.peers.wire import Frame, WireError

DECIDE_SECONDS_MAX = 12.0
"""How long a push waits for a majority that is connected but slow."""

PATIENCE_SECONDS = 0.25
"""How long an attempt that somebody refused may go on before the next one."""

OFFERS_MAX = 8
HOLDING_MAX = 3
"""Values of one neighbour that are brought in and verified at once."""

PACKS_AT_ONCE_MAX = 4
"""Packs that are made at once for other nodes."""

MOVES_PER_COLLECTION = 200
"""How often git is asked to tidy up its objects."""

PREPARES_PER_SECOND_MAX = 4.0
PREPARES_AT_ONCE_MAX = 20.0
"""How fast one neighbour may ask for promises: one that asks for ever newer ones keeps nobody from deciding."""

AWAY_SECONDS = 5.0
"""How long a pusher who waits for others waits for one that cannot be reached."""

WAITING_MAX = 64
"""Requests at once that wait for something to be applied."""

DECISIONS_UNTIL_VOTING = 2
"""Of the others, that a restored node sees before it votes again; see `Council._abstains`."""

HEADS_MISSED_MAX = 20
"""How many decisions that a node had missed a push may catch up with."""

GATHER_SECONDS_MAX = 3.0
"""How long a push waits for a majority to be connected at all."""

HELLO_SECONDS = 10.0
"""Anti-entropy: how often a node compares heads with each neighbour when nothing happens."""

SYNC_SECONDS_MAX = 5.0
"""How long a node that is asked to vote may catch up first."""

STALL_SECONDS = 3.0
"""After so long without progress from one neighbour, a node catches up from another as well."""

DECISIONS_AT_ONCE_MAX = 500
INLINE_BYTES_MAX = 1 << 20
"""Objects up to here travel with the message; more are fetched by git."""

APPLIED_SECONDS_MAX = 20.0
"""How long another node's question whether something is applied waits for its answer; it asks again."""

RECOVERIES_MAX = 16
NOTES_SECONDS = 0.5
FOUNDING = "founding"
EMPTY: Mapping[str, SignedRecovery] = {}
log = logging.getLogger("owsgit.peers")


_Result = TypeVar("_Result")


class NoMajorityError(UnavailableError):
    """Too few nodes answered to decide."""


class StoppedError(UnavailableError):
    """This node must not run any more."""


@dataclass(frozen=True)
class Own:
    """Who this node is."""

    name: str
    key: Ed25519PrivateKey
    public: keys.SshKey
    dialing: asyncssh.SSHKey
    home: Path
    listen: str
    port: int
    version: str

    @property
    def id(self) -> str:
        return self.public.fingerprint


@dataclass(frozen=True)
class Host:
    """What the council needs of its node."""

    reading: asyncio.Lock  # the ledger is used by one thread at a time
    moved: Callable[[], None]  # the head moved
    check_owner: Callable[[frozenset[str]], None]  # may an empty node take what they signed? raises RefusedError
    stop: Callable[[str], None]  # this node must not go on, and why
    now: Callable[[], str]


@dataclass(frozen=True)
class Caller:
    """Who asks: a node of the ledger, one that it named before, or, at an empty node, anybody with a key."""

    id: str
    name: str
    kind: str  # node | former | stranger
    key: str = ""
    host: str = ""


@dataclass
class Seen:
    """What is known of another node."""

    status: SignedStatus | None = None
    contact: str = ""  # when it last answered or asked
    problem: str = ""


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
    answered: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    asked_to_vote: bool = False
    outbid: asyncio.Event = field(default_factory=asyncio.Event)


class Council:
    """Made once per node; `start`, then `run` until cancelled."""

    def __init__(self, own: Own, ledger: Ledger, store: Store, host: Host) -> None:
        self.own = own
        self.problem = ""
        self.seen: dict[str, Seen] = {}
        self._ledger = ledger
        self._store = store
        self._host = host
        self._durable = store.seats()  # what the disk has of the core's seats
        self._core = Core(own.id, lambda *what: certificates.sign(own.key, *what), dict(self._durable))
        self._deciding = asyncio.Lock()  # the core, and the writes that its effects order
        self._learning = asyncio.Lock()
        self._pushing = asyncio.Lock()
        self._members: Mapping[str, Member] = {}
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._holding: dict[tuple[str, str], asyncio.Task[None]] = {}  # (head, value that may follow it)
        self._held: set[tuple[str, str]] = set()
        self._round: _Round | None = None
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        self._syncs: dict[str, asyncio.Task[None]] = {}
        self._progress = 0.0  # when a sync last brought something
        self._fresh = asyncio.Event()  # there are notes to write
        self._votes: list[Certificate] = []
        self._recoveries_written = 0
        self._waiting = 0
        self._moves = 0
        self._meeting: set[str] = set()
        self._bringing: Counter[str] = Counter()
        self._packing = asyncio.Semaphore(PACKS_AT_ONCE_MAX)
        self._prepares: dict[str, tuple[float, float]] = {}  # of each neighbour: tokens, and when they were counted
        self._applied = ""
        self._failed: tuple[str, ...] = ()
        self._settled = asyncio.Condition()
        self._heads_seen: dict[str, str | None] = {}  # since the start: for a node that was restored
        self._dialer = Dialer(own.dialing, own.listen)

    # ---- the life of a council ----
    def start(self) -> None:
        """Come to where the node was. Raises StoppedError for one that must not run any more."""
        stopped = self._store.fact(STOPPED)
        if stopped:
            raise StoppedError(stopped, remedy=_START_ANEW)
        transfer.sweep(self.own.home)
        self._notes = Notes(self._ledger.repository.path)
        while self._ledger.head and (decided := self._store.decision(self._ledger.head.commit)):
            self._ledger.follow(decided.value)
        if problem := self._ledger.settle():
            log.warning("%s", problem)
        self._enter()

    async def run(self) -> None:
        """Keep in touch with the others until cancelled."""
        try:
            self._refresh()
            await self._write_notes()
        finally:
            tasks = [*self._tasks, *(task for _, task in self._links.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        async def quietly() -> None:
            try:
                await work
            except OwsgitError as error:
                log.info("%s", error.problems[0])
            except Exception:
                log.exception("talking with another node failed")

        task = asyncio.ensure_future(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _uninterrupted(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Go through with `work` though who asked for it is gone: half of it would leave memory and disk apart."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    # ---- where the node stands ----
    @property
    def head(self) -> Verified | None:
        return self._ledger.head

    @property
    def abstains(self) -> bool:
        """Whether this node was restored from a backup, and only follows for now."""
        return self._core.abstains

    def is_member(self) -> bool:
        return self.own.id in self._members

    def _enter(self) -> None:
        """The head is new, or what is known about it is: who decides on its successor."""
        head = self._ledger.head
        if head is None:
            return
        self._members = members.of(head.state)
        accepted = self._recovery(head)
        instance = self._instance(head)
        electorate = members.electorate(head.state, accepted.lost if accepted else None)
        self._core.enter(instance, electorate, abstains=self._abstains(instance, electorate.members))

    def _instance(self, head: Verified) -> Instance:
        accepted = self._recovery(head)
        return Instance(head.commit, accepted.id if accepted else "")

    def _recovery(self, head: Verified) -> recovery.Accepted | None:
        """The recovery under which `head` is followed: of several, the one that names the most nodes as lost."""
        found = [
            recovery.check(signed, head.state)
            for signed in self._store.recoveries()
            if signed.recovery.head == head.commit
        ]
        return max(found, key=lambda each: len(each.lost), default=None)

    def _refresh(self) -> None:
        """Links to exactly the other nodes that the head names."""
        wanted = {} if self._ledger.head is None else {id_: m for id_, m in self._members.items() if id_ != self.own.id}
        for id_, (link, task) in list(self._links.items()):
            if wanted.get(id_) != link.member:
                task.cancel()
                del self._links[id_]
        for id_, member in wanted.items():
            if id_ not in self._links:
                link = Link(self._dialer, member, self._on_up)
                self._links[id_] = link, asyncio.ensure_future(link.run())
        self.seen = {id_: self.seen.get(id_) or Seen() for id_ in wanted}

    async def _moved(self, before: Verified | None, decided: Iterable[Certificate]) -> None:
        """The head moved, durably. Called with `_learning` held."""
        head = self._ledger.head
        assert head is not None
        async with self._deciding:
            self._held.clear()
            self._enter()
            self._durable = {name: seat for name, seat in self._durable.items() if name == head.commit}
        former = members.of(before.state) if before is not None else {}
        if self.own.id in former and not self.is_member():
            self.problem = (
                f"the ledger does not name this node since commit {head.commit[:10]}: it gets no more changes"
            )
            log.warning("%s", self.problem)
        elif self.is_member():
            self.problem = ""
        self._refresh()
        self._votes += decided
        self._fresh.set()
        await self._end_abstaining()
        self._host.moved()
        if self._round is not None and not self._round.outcome.done():
            for certificate in decided:
                if certificate.instance.head == self._round.head:
                    self._round.outcome.set_result(certificate)
        gone = {id_: former[id_].name for id_ in former.keys() - self._members.keys()}
        self._spawn(self._tidy(head.commit, gone))

    async def _tidy(self, head: str, gone: Mapping[str, str]) -> None:
        """What can wait, and can be done again: nothing rests on it."""
        for id_, name in gone.items():
            await asyncio.to_thread(self._store.put_former, id_, name, head)
        await asyncio.to_thread(self._store.drop_seats_but, head)
        if not self._ledger.head_is_not(head):
            await asyncio.to_thread(transfer.release, self._ledger.repository)
        self._moves += 1
        if self._moves % MOVES_PER_COLLECTION == 0:
            await transfer.collect(self._ledger.repository)

    # ---- a push ----
    async def found(self, tip: str) -> None:
        """The first push to an empty node: its history up to the first head that names nodes needs no votes."""
        await self._uninterrupted(self._found(tip))

    async def _found(self, tip: str) -> None:
        async with self._learning:
            if self._ledger.head is not None:
                return  # somebody else founded it: this push goes on as any other
            async with self._host.reading:
                objects = self._ledger.repository.objects
                first = await asyncio.to_thread(self._ledger.founding, tip, objects)
                await asyncio.to_thread(self._store.put_fact, FOUNDING, first.commit)
                await asyncio.to_thread(self._ledger.adopt, first)
            await self._moved(None, [])
        for member in self._members.values():
            if member.id != self.own.id:
                log.info("the project names the node %s at %s:%s", member.name, member.address, member.port)

    async def offer(self, tip: str, folder: Path | None) -> None:
        """Send the objects of a push that was checked to the others, ahead of the question.

        So they are verified everywhere while git is still busy with the push. `folder` is the push's quarantine.
        """
        head = self._ledger.head
        if head is None or not self.is_member() or len(self._core.electorate.members) < 2:
            return
        repository = self._ledger.repository
        data = await transfer.pack(repository, tip, head.commit, INLINE_BYTES_MAX, folder)
        if data is None:
            return
        offer = _Offer(head.commit, data)
        self._offers[tip] = offer
        while len(self._offers) > OFFERS_MAX:
            self._offers.popitem(last=False)
        for id_, (link, _) in self._links.items():
            if link.up and id_ in self._core.electorate.members:
                offer.sent.add(id_)
                self._spawn(link.request("offer", {"tip": tip, "head": head.commit}, data))

    async def decide(self, tip: str) -> list[str]:
        """Have `tip` decided, and move to it. The names of who voted for it.

        `tip` was verified by `Ledger.check`, and its objects are in the repository. When other commits were decided
        meanwhile which `tip` follows, as when this node had missed them, it goes on from there. Raises
        NotFastForwardError when it does not follow them, NoMajorityError when too few nodes answered.
        """
        async with self._pushing:
            head = self._ledger.head
            assert head is not None
            for attempt in range(HEADS_MISSED_MAX):
                head = self._ledger.head or head
                if head.commit == tip:
                    break
                self._check_member()
                if attempt or not self._ledger.has_checked(tip):
                    await self._check_again(tip, head.commit)
                certificate = await self._decide(head, tip)
                if certificate.value == tip:
                    break
            decided = self._store.decision_for(tip)
            if decided is None:
                raise _fetch_first(head.commit)
            return self._voters(decided)

    async def _check_again(self, tip: str, head: str) -> None:
        try:
            await self._check(tip, head, None)
        except NotFastForwardError:
            raise _fetch_first(head) from None

    def _voters(self, decided: Certificate) -> list[str]:
        names = {id_: member.name for id_, member in self._members.items()}
        return sorted(names.get(voter) or (self._store.former(voter) or ("",))[0] or voter for voter in decided.votes)

    async def _decide(self, head: Verified, tip: str) -> Certificate:
        """One head's decision, whatever it is."""
        offer = self._offers.pop(tip, None)
        if (offer is None or offer.head != head.commit) and len(self._core.electorate.members) > 1:
            data = await transfer.pack(self._ledger.repository, tip, head.commit, INLINE_BYTES_MAX)
            offer = _Offer(head.commit, data or b"")
        await asyncio.to_thread(transfer.sync_recent, self._ledger.repository)
        await asyncio.to_thread(transfer.hold, self._ledger.repository, tip)
        if self._ledger.head is head:
            self._held.add((head.commit, tip))
        current = _Round(head.commit, tip, asyncio.get_running_loop().create_future(), offer)
        self._round = current
        try:
            await self._attempts(current)
            return current.outcome.result()
        finally:
            self._round = None

    def _check_member(self) -> None:
        if not self.is_member():
            named = ", ".join(member.name for member in self._members.values())
            raise UnavailableError(
                f"the ledger does not name this node ({self.own.name}), so it cannot take pushes",
                remedy=f"push to one of {named}",
            )
        if self._core.abstains:
            raise UnavailableError(
                f"this node ({self.own.name}) was restored from a backup and may have forgotten votes; until the "
                "others have decided two more heads it only follows",
                remedy="push to another node, or have the roots recover the project: owsgit node recover",
            )

    async def _attempts(self, current: _Round) -> None:
        began = time.monotonic()
        attempt = 0
        while not current.outcome.done():
            current.outbid.clear()
            if (known := self._store.decision(current.head)) is not None and self._ledger.head_is_not(current.head):
                current.outcome.set_result(known)
                return
            if self._core.instance is not None and self._core.instance.head == current.head:
                async with self._deciding:
                    if self._core.instance.head == current.head:
                        await self._perform(self._core.propose(current.tip))
            outbid = asyncio.ensure_future(current.outbid.wait())
            waiting: list[asyncio.Future[Any]] = [current.outcome, outbid]
            try:
                while not current.outcome.done() and not current.outbid.is_set():
                    await asyncio.wait(waiting, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    self._give_up_in_time(current, time.monotonic() - began)
                    if self._core.refused:
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
        electorate = self._core.electorate
        here = {self.own.id, *(id_ for id_, (link, _) in self._links.items() if link.up)} & electorate.members
        needed = max(electorate.promises_needed, electorate.votes_needed)
        hopeless = len(here) < needed and seconds > GATHER_SECONDS_MAX
        refused = len(electorate.members) - len(current.refused) < needed
        if hopeless or refused or seconds > DECIDE_SECONDS_MAX:
            raise self._no_majority(current, needed)

    def _no_majority(self, current: _Round, needed: int) -> OwsgitError:
        names = {id_: member.name for id_, member in self._members.items()}
        electorate = self._core.electorate.members
        answered = sorted(names[id_] for id_ in (current.answered | {self.own.id}) & electorate if id_ in names)
        silent = sorted(names[id_] for id_ in electorate - current.answered - {self.own.id} if id_ in names)
        refused = "".join(f"; {name} refused: {why}" for name, why in sorted(current.refused.items()))
        message = f"{len(answered)} of {len(electorate)} nodes answered ({', '.join(answered)}), {needed} are needed"
        message += f"; no answer from {', '.join(silent)}" if silent else ""
        later = (
            "the commit is in your clone, and may yet be decided when they are back: git fetch, then push again"
            if current.asked_to_vote
            else "nothing is lost, the commit is in your clone: push again when they are back, or to another node"
        )
        return NoMajorityError(message + refused, remedy=later)

    async def _perform(self, effects: list[Effect], reply_to: str = "") -> Message | None:
        """Carry out effects in order, with `_deciding` held; what goes to `reply_to` is returned."""
        reply = None
        for effect in effects:
            match effect:
                case Write():
                    await self._write_seat(effect)
                case Send() if effect.to == reply_to:
                    reply = effect.message
                case Send():
                    self._spawn(self._deliver(effect.to, effect.message))
                case Chosen():
                    self._spawn(self._chosen(effect))
                case Outbid():
                    if self._round is not None:
                        self._round.outbid.set()
                case Elsewhere():
                    pass
        return reply

    async def _write_seat(self, write: Write) -> None:
        """Durable when it returns. After a failure the core is as it was: nothing is answered that rests on it."""
        try:
            await asyncio.to_thread(self._store.put_seat, write.head, write.seat)
        except BaseException:
            self._core.reset(dict(self._durable))
            raise
        self._durable[write.head] = write.seat

    async def _deliver(self, to: str, message: Message) -> None:
        """Send a proposer's message until it is answered, or of no use any more."""
        current = self._round
        if current is None or current.head != message.instance.head:
            return
        if isinstance(message, Accept):
            current.asked_to_vote = True
            await self._hold(message.instance.head, message.value, self._voters_of(message.value))
        if to == self.own.id:
            await self._receive_own(message)
            return
        fields: dict[str, Any] = {"message": wire.message_to_json(message)}
        body = b""
        if isinstance(message, Prepare) and current.offer is not None and to not in current.offer.sent:
            fields["tip"] = current.tip
            body = current.offer.pack
        while self._round is current and not current.outcome.done() and to in self._links:
            link = self._links[to][0]
            if not await link.wait_up(1.0):
                continue
            try:
                answer = await link.request("paxos", fields, body)
            except LinkError as error:
                self._note(to, problem=error.problems[0].message)
                await asyncio.sleep(0.1)
                continue
            self._note(to)
            if await self._answered(current, link.member, answer.head):
                return
            await asyncio.sleep(0.1)

    async def _receive_own(self, message: Message) -> None:
        async with self._deciding:
            if self._store.decision(message.instance.head) is not None:
                return
            reply = await self._perform(self._core.receive(self.own.id, message), self.own.id)
            if reply is not None:
                await self._perform(self._core.receive(self.own.id, reply), self.own.id)

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
                    await self._hold(message.instance.head, message.voted.value, [member.id])
                except OwsgitError as error:
                    current.refused[member.name] = f"it told of a vote for {message.voted.value[:10]}: {error}"
                    return True
            async with self._deciding:
                await self._perform(self._core.receive(member.id, message))
            return True
        if "decided" in answer:
            await self._take_recoveries(answer)
            await self.learn(certificates.parse(json.dumps(answer["decided"])), [member.id])
            return True
        if "refused" in answer:
            current.answered.add(member.id)
            current.refused[member.name] = terminal.safe(str(answer["refused"]), 300)
            return True
        if "abstains" in answer:
            current.answered.add(member.id)
            current.refused[member.name] = "it was restored from a backup and only follows for now"
            return True
        await self._take_recoveries(answer)
        return False  # it is behind, and catches up

    def _voters_of(self, value: str) -> list[str]:
        """Whom to get a value from that another proposer brought."""
        proposal = self._core.proposal
        promises = proposal.promises if proposal is not None else frozenset()
        return [node for node, vote in promises if vote is not None and vote.value == value and node != self.own.id]

    async def _chosen(self, chosen: Chosen) -> None:
        certificate = Certificate(chosen.instance, chosen.ballot, chosen.value, dict(chosen.votes))
        others = dict(self._links)
        await self.learn(certificate, [id_ for id_ in certificate.votes if id_ != self.own.id])
        for id_, (link, _) in {**others, **self._links}.items():
            if link.up:
                self._spawn(self._tell(id_, link, certificate))

    async def _tell(self, id_: str, link: Link, certificate: Certificate) -> None:
        await link.request("decided", {"certificate": certificate.document(), **self._recoveries_for(certificate)})
        self._note(id_)

    # ---- holding what is voted for ----
    async def _hold(self, head: str, value: str, sources: Iterable[str], pack: bytes = b"", by: str = "") -> None:
        """Have `value` verified as a successor of `head`, and all its objects on the disk.

        Raises RefusedError, LinkError or UnavailableError: then nobody may vote for it.
        """
        key = head, value
        if key in self._held:
            return
        work = self._holding.get(key)
        if work is None:
            if by and self._bringing[by] >= HOLDING_MAX:
                raise UnavailableError("too much of yours is being verified at once", remedy="try again")
            work = asyncio.ensure_future(self._bring(head, value, list(sources), pack))
            self._holding[key] = work
            self._bringing[by] += 1

            def done(_: object) -> None:
                self._holding.pop(key, None)
                self._bringing[by] -= 1

            work.add_done_callback(done)
        await asyncio.shield(work)
        if key not in self._held:
            raise RefusedError(f"the head is not {head[:10]} any more")

    async def _bring(self, head: str, value: str, sources: list[str], pack: bytes) -> None:
        repository = self._ledger.repository
        if pack:
            async with transfer.quarantine(self.own.home) as folder:
                await transfer.unpack(repository, pack, folder)
                await self._let_in(value, head, folder)
        else:
            try:
                await self._check(value, head, None)
                await transfer.check_connected(repository, value, head)
            except (RefusedError, GitError) as missing:
                await self._bring_from(value, head, sources, missing)
        await asyncio.to_thread(transfer.hold, repository, value)
        if not self._ledger.head_is_not(head):
            self._held.add((head, value))

    async def _bring_from(self, value: str, have: str, sources: list[str], missing: OwsgitError) -> None:
        problem: OwsgitError = missing
        for source in sources:
            if source not in self._links:
                continue
            link = self._links[source][0]
            try:
                async with transfer.quarantine(self.own.home) as folder:
                    answer = await link.request("objects", {"want": value, "have": have})
                    if answer.body:
                        await transfer.unpack(self._ledger.repository, answer.body, folder)
                    else:
                        await transfer.fetch(self._ledger.repository, link, value, folder)
                    await self._let_in(value, have, folder)
                return
            except (LinkError, RefusedError) as error:
                problem = error
        raise problem

    async def _let_in(self, value: str, head: str, folder: Path) -> None:
        await self._check(value, head, folder)
        await asyncio.to_thread(transfer.migrate, self._ledger.repository, folder)

    async def _check(self, value: str, head: str, folder: Path | None) -> Report:
        repository = self._ledger.repository
        objects = repository.quarantined(folder) if folder is not None else repository.objects
        async with self._host.reading:
            if self._ledger.head_is_not(head):
                raise RefusedError(f"the head is not {head[:10]} any more")
            return await asyncio.to_thread(self._ledger.check, value, objects)

    # ---- learning what was decided ----
    async def learn(self, certificate: Certificate, sources: Iterable[str]) -> bool:
        """Follow one decision, if it is the next one. Raises CertificateError, RefusedError or LinkError."""
        head = self._ledger.head
        if head is None or certificate.instance.head != head.commit:
            return False
        self._check_certificate(certificate, head.state)
        await self._hold(head.commit, certificate.value, sources)
        return await self._uninterrupted(self._follow(head, certificate))

    async def _follow(self, head: Verified, certificate: Certificate) -> bool:
        async with self._learning:
            if self._ledger.head is not head:
                return False
            async with self._host.reading:
                await asyncio.to_thread(self._store.put_decisions, [certificate])
                await asyncio.to_thread(self._ledger.follow, certificate.value)
            await self._moved(head, [certificate])
            return True

    async def _resume(self) -> None:
        """Follow what is known to be decided, where following it failed before: on a full disk, for instance."""
        head = self._ledger.head
        if head is None:
            return
        if (decided := self._store.decision(head.commit)) is not None:
            await self.learn(decided, decided.votes)
        async with self._learning:
            head = self._ledger.head
            assert head is not None
            if self._core.instance is None or self._core.instance.head != head.commit:
                await self._moved(None, [])

    def _check_certificate(
        self, certificate: Certificate, state: State, told: Mapping[str, SignedRecovery] = EMPTY
    ) -> None:
        known = {signed.recovery.id: signed for signed in self._store.recoveries()}
        history.check(certificate, state, {**told, **known})

    def _sync(self, link: Link) -> "asyncio.Task[None] | None":
        """Catch up from a neighbour, unless another one is at it and makes progress."""
        id_ = link.member.id
        if id_ in self._syncs:
            return self._syncs[id_]
        if self._syncs and time.monotonic() - self._progress < STALL_SECONDS:
            return None
        task = self._spawn(self._catch_up(link))
        self._syncs[id_] = task
        self._progress = time.monotonic()
        task.add_done_callback(lambda _: self._syncs.pop(id_, None))
        return task

    async def _catch_up(self, link: Link) -> None:
        """Step by step, so that memory stays bounded however long the node was away."""
        count = DECISIONS_AT_ONCE_MAX
        while True:
            head = self._ledger.head
            answer = await link.request("history", {"after": head.commit if head else None, "count": count})
            self._note(link.member.id)
            if head is not None and answer.head.get("unknown"):
                self._fork(link.member, str(answer.head.get("head")))
                return
            told = {each.recovery.id: each for each in _recoveries(answer.head)}
            chain = [certificates.parse(json.dumps(each)) for each in _list(answer.head.get("decisions"))[:count]]
            if head is None:
                await self._adopt(link, _commit_id(answer.head.get("founding")), _commit_id(answer.head.get("head")))
                continue
            if not chain:
                return
            try:
                await self._take(link, head, chain, answer.body, told)
            except transfer.TooLargeError:
                if count == 1:
                    raise
                count = max(1, count // 8)

    async def _take(
        self,
        link: Link,
        head: Verified,
        chain: list[Certificate],
        body: bytes,
        recoveries: Mapping[str, SignedRecovery],
    ) -> None:
        """Verify and follow a chain of decisions from `head`. `recoveries` are what the neighbour told of them."""
        repository = self._ledger.repository
        async with transfer.quarantine(self.own.home) as folder:
            if body:
                await transfer.unpack(repository, body, folder)
            else:
                await transfer.fetch(repository, link, chain[-1].value, folder)
            self._progress = time.monotonic()
            await self._uninterrupted(self._follow_chain(head, chain, folder, recoveries))
        self._progress = time.monotonic()
        log.info("followed %s to %s (%s decisions)", link.member.name, chain[-1].value[:10], len(chain))

    async def _follow_chain(
        self, head: Verified, chain: list[Certificate], folder: Path, recoveries: Mapping[str, SignedRecovery]
    ) -> None:
        async with self._learning:
            if self._ledger.head is not head:
                return  # somebody else was quicker
            async with self._host.reading:
                last = await asyncio.to_thread(self._verify_chain, head, chain, folder, recoveries)
                await asyncio.to_thread(transfer.migrate, self._ledger.repository, folder)
                for id_ in {certificate.instance.recovery for certificate in chain} & recoveries.keys():
                    await asyncio.to_thread(self._store.put_recovery, recoveries[id_])
                await asyncio.to_thread(self._store.put_decisions, chain)
                await asyncio.to_thread(self._ledger.adopt, last)
            await self._moved(head, chain)

    def _verify_chain(
        self, head: Verified, chain: list[Certificate], folder: Path, recoveries: Mapping[str, SignedRecovery]
    ) -> Verified:
        objects = self._ledger.repository.quarantined(folder)
        for certificate in chain:
            if certificate.instance.head != head.commit:
                raise CertificateError("the decisions do not follow each other")
            self._check_certificate(certificate, head.state, recoveries)
            before = members.of(head.state)
            head = verify.push(objects, self._ledger.kinds, head, certificate.value).head
            for gone in before.keys() - members.of(head.state).keys():
                self._store.put_former(gone, before[gone].name, head.commit)
        return head

    async def _adopt(self, link: Link, first: str, newest: str) -> None:
        """An empty node takes its owner's project from a node of it.

        The owner has to have signed the genesis commit, or what adds this node: that a project lists the owner's key
        proves nothing. And the newest head has to name this node. Votes are checked when it catches up from there.
        """
        repository = self._ledger.repository
        async with transfer.quarantine(self.own.home) as folder:
            await transfer.fetch(repository, link, newest, folder)
            await self._uninterrupted(self._take_first(first, newest, folder))

    async def _take_first(self, first: str, newest: str, folder: Path) -> None:
        signers: set[str] = set()

        def seen(report: CommitReport) -> None:
            adds = any(
                change.after is not None and self.own.id in _keys_of(change.after.spec) for change in report.changes
            )
            if adds or not report.commit.parents:
                signers.add(report.signer.fingerprint)

        async with self._learning:
            if self._ledger.head is not None:
                return
            objects = self._ledger.repository.quarantined(folder)
            async with self._host.reading:
                found = await asyncio.to_thread(self._ledger.founding, newest, objects, seen)
                last = await asyncio.to_thread(verify.walk, objects, self._ledger.kinds, found, newest, lambda _: None)
                if found.commit != first or self.own.id not in members.of(last.state):
                    raise RefusedError("the project does not name this node")
                self._host.check_owner(frozenset(signers))
                await asyncio.to_thread(transfer.migrate, self._ledger.repository, folder)
                await asyncio.to_thread(self._store.put_fact, FOUNDING, first)
                await asyncio.to_thread(self._ledger.adopt, found)
            await self._moved(None, [])

    def _fork(self, member: Member, head: str) -> None:
        """Neither knows the other's head. It takes a lying majority, or a recovery whose lost nodes were not lost."""
        if head and not self._knows(head):
            seen = self.seen.get(member.id)
            if seen is not None:
                seen.problem = f"it is at {terminal.safe(head, 10)}, which does not follow our head, nor ours its"
                log.error("%s: %s", member.name, seen.problem)

    def _knows(self, head: str) -> bool:
        mine = self._ledger.head
        return (
            (mine is not None and mine.commit == head)
            or self._store.decision(head) is not None
            or self._store.decision_for(head) is not None
        )

    # ---- keeping in touch ----
    def _on_up(self, link: Link) -> None:
        self._spawn(self._greet(link))

    async def _greet(self, link: Link) -> None:
        """Compare heads: at once, and again and again while the link is up."""
        while link.up and self._links.get(link.member.id, (None,))[0] is link:
            try:
                await self._resume()
                await self._say_hello(link)
            except OwsgitError as error:
                self._note(link.member.id, problem=error.problems[0].message)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._note(link.member.id, problem=f"it answers with nonsense ({type(error).__name__})")
            except Exception as error:  # a full disk, for instance: the next round may do better
                log.exception("catching up with %s failed", link.member.name)
                self._note(link.member.id, problem=f"this node failed: {type(error).__name__}")
            await asyncio.sleep(HELLO_SECONDS * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret

    def _hello(self, to: str) -> dict[str, Any]:
        head = self._ledger.head
        relevant = self._relevant(to)
        told: dict[str, Any] = {
            "head": head.commit if head else None,
            "status": self.own_status().document(),
            "recoveries": [recovery.document(signed) for signed in relevant],
        }
        for signed in relevant:
            decided = self._store.decision(signed.recovery.head)
            if to in signed.recovery.lost and decided is not None and decided.instance.recovery == signed.recovery.id:
                told["without"] = decided.document()
        return told

    def _relevant(self, to: str) -> list[SignedRecovery]:
        """Recoveries of the present head, and those that say that `to` is lost."""
        head = self._ledger.head
        found = [
            signed
            for signed in self._store.recoveries()
            if to in signed.recovery.lost or (head is not None and signed.recovery.head == head.commit)
        ]
        return found[-RECOVERIES_MAX:]

    def _recoveries_for(self, certificate: Certificate) -> dict[str, Any]:
        wanted = certificate.instance.recovery
        if not wanted:
            return {}
        found = [signed for signed in self._store.recoveries() if signed.recovery.id == wanted]
        return {"recoveries": [recovery.document(signed) for signed in found]}

    async def _met(self, member: Member, told: Mapping[str, Any]) -> None:
        """What a node told of itself: remember it, and catch up if it is ahead."""
        self._note(member.id)
        if told.get("empty") and member.id in self._links:
            await self._links[member.id][0].request("found", {"port": self.own.port})
            return
        await self._take_recoveries(told)
        if "status" in told:
            signed = statuses.check(told["status"], member.key, member.name)
            seen = self.seen.get(member.id)
            if seen is not None:
                changed = seen.status is None or seen.status.status.applied != signed.status.applied
                seen.status = signed
                if changed:
                    self._fresh.set()
        head = told.get("head")
        if isinstance(head, str):
            self._heads_seen[member.id] = head
            if not self._knows(head) and member.id in self._links:
                link = self._links[member.id][0]
                link.wake()
                self._sync(link)
            else:
                await self._end_abstaining()

    def _note(self, id_: str, problem: str = "") -> None:
        seen = self.seen.get(id_)
        if seen is not None:
            seen.problem = problem
            if not problem:
                seen.contact = self._host.now()

    async def look_around(self, seconds: float) -> None:
        """Ask all connected nodes how they are, for at most `seconds`."""

        async def ask(link: Link) -> None:
            with contextlib.suppress(OwsgitError):
                await self._say_hello(link)

        asking = [asyncio.ensure_future(ask(link)) for link, _ in self._links.values() if link.up]
        if asking:
            _, late = await asyncio.wait(asking, timeout=seconds)
            for task in late:
                task.cancel()

    def own_status(self) -> SignedStatus:
        """This node's status, signed."""
        head = self._ledger.head
        return statuses.sign(
            self.own.key,
            NodeStatus.model_validate(
                {
                    "node": self.own.name,
                    "head": head.commit if head else None,
                    "applied": self._applied or None,
                    "failed": list(self._failed[: statuses.FAILED_MAX]),
                    "version": self.own.version,
                    "time": self._host.now(),
                    "problem": self.problem[:2000],
                }
            ),
        )

    async def settled(self, commit: str, failed: Iterable[str]) -> None:
        """The reconciler has tried everything for `commit`."""
        self._applied, self._failed = commit, tuple(failed)
        self._fresh.set()
        async with self._settled:
            self._settled.notify_all()

    def links(self) -> Mapping[str, Link]:
        """The links to the other nodes, by id."""
        return {id_: link for id_, (link, _) in self._links.items()}

    async def _write_notes(self) -> None:
        """Notes are written behind everything else; they can always be made again from what is stored."""
        told: dict[str, tuple[str | None, tuple[str, ...]]] = {}
        names: set[str] = set()
        try:
            await asyncio.to_thread(self._complete_votes)
        except Exception:
            log.exception("the notes of votes could not be completed")
        while True:
            await self._fresh.wait()
            if not self._votes:
                await asyncio.sleep(NOTES_SECONDS)
            self._fresh.clear()
            votes, self._votes = self._votes, []
            signed = [self.own_status(), *(seen.status for seen in self.seen.values() if seen.status is not None)]
            fresh = [each for each in signed if told.get(each.status.node) != _essence(each)]
            present = {self.own.name, *(member.name for member in self._members.values())}
            try:
                await asyncio.to_thread(self._write, votes, fresh, present if present != names else None)
                told |= {each.status.node: _essence(each) for each in fresh}
                names = present
            except Exception:
                log.exception("notes could not be written")
                self._votes = votes + self._votes
                await asyncio.sleep(HELLO_SECONDS)
                self._fresh.set()

    def _write(self, votes: list[Certificate], fresh: list[SignedStatus], present: set[str] | None) -> None:
        if votes:
            self._notes.write_votes(votes)
        recoveries = self._store.recoveries()
        if len(recoveries) != self._recoveries_written:
            self._notes.write_recoveries(recoveries)
            self._recoveries_written = len(recoveries)
        for signed in fresh:
            self._notes.write_status(signed)
        if present is not None:
            self._notes.keep_only(present)

    def _complete_votes(self) -> None:
        """Votes whose notes were not written before the node ended."""
        missing: list[Certificate] = []
        head = self._ledger.head
        self._notes.drop_damaged()
        present = self._notes.votes() if head is not None else {}
        at = head.commit if head is not None else ""
        while at and at not in present and (decided := self._store.decision_for(at)) is not None:
            missing.append(decided)
            at = decided.instance.head
        if missing:
            self._notes.write_votes(missing)

    # ---- what other nodes ask ----
    async def answer(self, caller: Caller, frame: Frame) -> Frame:
        """The answer to a request. Problems are told, never raised."""
        verbs: dict[str, Callable[[Caller, Frame], Awaitable[Frame]]]
        verbs = {"hello": self._on_stranger, "found": self._on_found}
        if caller.kind != "stranger":
            verbs = {"hello": self._on_hello, "history": self._on_history}
        if caller.kind == "node":
            more = {"paxos": self._on_paxos, "decided": self._on_decided, "objects": self._on_objects}
            verbs |= {**more, "applied": self._on_applied, "offer": self._on_offer}
        handler = verbs.get(str(frame.head.get("verb")))
        try:
            if handler is None:
                raise RefusedError(f"a {caller.kind} cannot ask for {terminal.safe(str(frame.head.get('verb')), 20)!r}")
            return await handler(caller, frame)
        except OwsgitError as error:
            return Frame({"problem": error.problems[0].message})
        except (ValueError, KeyError, TypeError) as error:
            return Frame({"problem": f"the request cannot be read: {type(error).__name__}"})

    async def _on_hello(self, caller: Caller, frame: Frame) -> Frame:
        if caller.kind == "node":
            member = self._members[caller.id]
            if caller.id in self._links:
                self._links[caller.id][0].wake()
            if caller.id not in self._meeting:  # one at a time
                self._meeting.add(caller.id)
                task = self._spawn(self._met(member, frame.head))
                task.add_done_callback(lambda _: self._meeting.discard(caller.id))
        return Frame(self._hello(caller.id))

    async def _on_offer(self, caller: Caller, frame: Frame) -> Frame:
        """Objects that somebody will ask this node to vote for: verified now, so that the vote is quick."""
        head = self._ledger.head
        if head is not None and frame.head.get("head") == head.commit and frame.body:
            await self._hold(head.commit, _commit_id(frame.head.get("tip")), [caller.id], frame.body, by=caller.id)
        return Frame({})

    async def _on_paxos(self, caller: Caller, frame: Frame) -> Frame:
        message = wire.message_from_json(frame.head.get("message"))
        await self._take_recoveries(frame.head)
        if frame.body and isinstance(message, Prepare):
            tip = _commit_id(frame.head.get("tip"))
            if self._is_here(message.instance):
                self._spawn(self._hold(message.instance.head, tip, [caller.id], frame.body, by=caller.id))
        if not self._is_here(message.instance):
            await self._come_to(caller, message.instance.head)
        head = self._ledger.head
        if head is None or message.instance.head != head.commit:
            decided = self._store.decision(message.instance.head)
            if decided is None:
                return Frame({"behind": head.commit if head else None})
            return Frame({"decided": decided.document(), **self._recoveries_for(decided)})
        if not self._is_here(message.instance):
            return Frame({"recoveries": [recovery.document(signed) for signed in self._relevant(caller.id)]})
        if isinstance(message, Prepare) and not self._may_prepare(caller.id):
            return Frame({"busy": True})
        if isinstance(message, Accept) and not self._core.is_late(message):
            try:
                await self._hold(message.instance.head, message.value, [caller.id], by=caller.id)
            except OwsgitError as error:
                return Frame({"refused": error.problems[0].message})
        return await self._uninterrupted(self._vote(caller, message))

    async def _vote(self, caller: Caller, message: Message) -> Frame:
        async with self._deciding:
            if self._core.abstains:
                return Frame({"abstains": True})
            decided = self._store.decision(message.instance.head)
            if decided is not None:
                return Frame({"decided": decided.document(), **self._recoveries_for(decided)})
            if isinstance(message, Accept) and (message.instance.head, message.value) not in self._held:
                late = self._core.is_late(message) and self._is_here(message.instance)
                if not late:  # the head has moved meanwhile
                    return Frame({"behind": message.instance.head})
            reply = await self._perform(self._core.receive(caller.id, message), caller.id)
        if reply is None:
            return Frame({"behind": message.instance.head})
        return Frame({"message": wire.message_to_json(reply)})

    def _may_prepare(self, node: str) -> bool:
        """A token bucket for each neighbour."""
        now = time.monotonic()
        tokens, counted = self._prepares.get(node, (PREPARES_AT_ONCE_MAX, now))
        tokens = min(PREPARES_AT_ONCE_MAX, tokens + (now - counted) * PREPARES_PER_SECOND_MAX)
        self._prepares[node] = max(0.0, tokens - 1), now
        return tokens >= 1

    def _is_here(self, instance: Instance) -> bool:
        return self._core.instance == instance

    async def _come_to(self, caller: Caller, head: str) -> None:
        """Catch up from who asks, for a moment: a node that just missed a decision votes on the next one."""
        if self._knows(head) or caller.id not in self._links:
            return
        link = self._links[caller.id][0]
        link.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_SECONDS_MAX):
                while not self._knows(head) and await link.wait_up(SYNC_SECONDS_MAX):
                    task = self._sync(link)
                    if task is not None:
                        await asyncio.shield(task)
                    else:
                        await asyncio.sleep(0.05)

    async def _on_decided(self, caller: Caller, frame: Frame) -> Frame:
        await self._take_recoveries(frame.head)
        certificate = certificates.parse(json.dumps(frame.head.get("certificate")))
        head = self._ledger.head
        if head is not None and certificate.instance.head == head.commit:
            await self.learn(certificate, [caller.id])
        elif not self._knows(certificate.value) and caller.id in self._links:
            self._sync(self._links[caller.id][0])
        return Frame({"head": self._ledger.head.commit if self._ledger.head else None})

    async def _on_history(self, caller: Caller, frame: Frame) -> Frame:
        head = self._ledger.head
        if head is None:
            raise UnavailableError("this node is empty")
        after = frame.head.get("after")
        founding = await asyncio.to_thread(self._founding)
        if after is not None and not self._knows(str(after)) and after != founding:
            return Frame({"unknown": True, "head": head.commit, "decisions": []})
        count = min(int(frame.head.get("count", 1)), DECISIONS_AT_ONCE_MAX)
        chain = await asyncio.to_thread(self._store.decisions_after, str(after or founding), max(count, 1))
        if caller.kind == "former":  # up to what took the node out, and no further
            _, last = self._store.former(caller.id) or ("", "")
            at = next((index for index, each in enumerate(chain) if each.value == last), None)
            before = bool(chain) and self._store.is_before(chain[-1].value, last)
            chain = chain[: at + 1] if at is not None else chain if before else []
        known = {signed.recovery.id: signed for signed in self._store.recoveries()}
        used = [known[each.instance.recovery] for each in chain if each.instance.recovery in known]
        body = b""
        if chain and after is not None:
            async with self._packing:
                objects = await transfer.pack(self._ledger.repository, chain[-1].value, str(after), INLINE_BYTES_MAX)
            body = objects or b""
        told = {"founding": founding, "head": head.commit, "decisions": [each.document() for each in chain]}
        return Frame({**told, "recoveries": [recovery.document(signed) for signed in used]}, body)

    def _founding(self) -> str:
        found = self._store.fact(FOUNDING)
        if found is None:
            head = self._ledger.head
            assert head is not None
            found = self._ledger.founding(head.commit, self._ledger.repository.objects).commit
            self._store.put_fact(FOUNDING, found)
        return found

    async def _on_objects(self, caller: Caller, frame: Frame) -> Frame:
        want, have = (_commit_id(frame.head.get(name)) for name in ("want", "have"))
        async with self._packing:
            data = await transfer.pack(self._ledger.repository, want, have, wire.BODY_BYTES_MAX)
        return Frame({"large": data is None}, data or b"")

    async def _on_applied(self, caller: Caller, frame: Frame) -> Frame:
        """Answers when `commit`, or something after it, was applied; at the latest after `seconds`."""
        commit = _commit_id(frame.head.get("commit"))
        seconds = min(float(frame.head.get("seconds", 0)), APPLIED_SECONDS_MAX)
        self._waiting += 1
        try:
            done = await self.wait_applied(commit, seconds if self._waiting <= WAITING_MAX else 0.0)
        finally:
            self._waiting -= 1
        return Frame({"done": done, "status": self.own_status().document()})

    async def wait_applied(self, commit: str, seconds: float) -> bool:
        """Whether everything was tried for `commit`, or for a head after it, within `seconds`."""

        def done() -> bool:
            at: str | None = self._applied
            for _ in range(DECISIONS_AT_ONCE_MAX):
                if not at or at == commit:
                    return at == commit
                decided = self._store.decision_for(at)
                at = decided.instance.head if decided else None
            return False

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._settled:
                await self._settled.wait_for(done)
        return done()

    async def others_applied(self, commit: str, seconds: float, report: Callable[[Member, NodeStatus], None]) -> None:
        """Tell `report` of every other node that has applied `commit`, as it comes, for at most `seconds`."""

        end = time.monotonic() + seconds

        async def ask(link: Link) -> None:
            done = False
            while not done and (left := end - time.monotonic()) > 0 and await link.wait_up(min(left, AWAY_SECONDS)):
                wait = min(left, APPLIED_SECONDS_MAX)
                with contextlib.suppress(OwsgitError):
                    fields = {"commit": commit, "seconds": wait}
                    answer = await link.request("applied", fields, seconds=wait + 5)
                    signed = statuses.check(answer.head.get("status"), link.member.key, link.member.name)
                    await self._met(link.member, {"status": signed.document()})
                    done = answer.head.get("done") is True
                    if done:
                        report(link.member, signed.status)
                        return
                await asyncio.sleep(0.2)

        await asyncio.gather(*(ask(link) for link, _ in list(self._links.values())))

    # ---- an empty node, and the nodes that know it ----
    async def _on_stranger(self, caller: Caller, frame: Frame) -> Frame:
        return Frame({"empty": True})

    async def _on_found(self, caller: Caller, frame: Frame) -> Frame:
        """A node that names this empty one says where it is: dial back, and look at what it has."""
        port = int(frame.head.get("port", 0))
        if self._ledger.head is not None or not 0 < port < 65536 or len(self._syncs) >= 4:
            raise RefusedError("this node is not waiting for a project")
        key = keys.parse_ssh(caller.key)
        self._spawn(self._dial_back(Member(caller.id, caller.host, key, caller.host, port)))
        return Frame({})

    async def _dial_back(self, member: Member) -> None:
        link = Link(self._dialer, member, lambda _: None)
        task = asyncio.ensure_future(link.run())
        try:
            if await link.wait_up(10) and self._ledger.head is None:
                sync = self._sync(link)
                if sync is not None:
                    await sync
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ---- recovery ----
    async def recover(self, signed: SignedRecovery) -> recovery.Accepted:
        """Go on without the nodes that the roots name as lost. Raises OwsgitError."""
        accepted = await self._uninterrupted(self._recover(signed))
        for link, _ in self._links.values():
            if link.up:
                self._spawn(self._say_hello(link))
        return accepted

    async def _recover(self, signed: SignedRecovery) -> recovery.Accepted:
        async with self._learning:
            head = self._ledger.head
            if head is None:
                raise UnavailableError("this node is empty")
            statement = signed.recovery
            if statement.head != head.commit:
                raise RefusedError(
                    f"the recovery is for the head {statement.head[:10]}, and this node is at {head.commit[:10]}",
                    remedy="recover the newest head of the nodes that are left: owsgit status",
                )
            accepted = recovery.check(signed, head.state)
            if self.own.id in accepted.lost:
                await self._stop_as_lost(accepted)
                raise StoppedError(f"this node ({self.own.name}) is one of the lost", remedy=_START_ANEW)
            former = self._recovery(head)
            if former is not None and not former.lost <= accepted.lost:
                raise RefusedError(
                    "another recovery of this head was accepted, which names other nodes as lost",
                    remedy=f"name these as lost as well: {', '.join(former.signed.recovery.lost.values())}",
                )
            await asyncio.to_thread(self._store.put_recovery, signed)
            log.warning(
                "the roots %s have the project go on without %s",
                ", ".join(accepted.roots), ", ".join(sorted(statement.lost.values())) or "what was forgotten",
            )  # fmt: skip
            self._fresh.set()
            async with self._deciding:
                self._enter()
            if self._round is not None:
                self._round.outbid.set()  # go on in the new instance
        return accepted

    async def _say_hello(self, link: Link) -> None:
        answer = await link.request("hello", self._hello(link.member.id))
        await self._met(link.member, answer.head)

    async def _take_recoveries(self, told: Mapping[str, Any]) -> None:
        """Recoveries that a neighbour tells of: those of this head, and those that say that this node is lost."""
        known = {signed.recovery.id for signed in self._store.recoveries()}
        for signed in _recoveries(told):
            head = self._ledger.head
            if head is None:
                return
            with contextlib.suppress(OwsgitError):
                if signed.recovery.head == head.commit:
                    if signed.recovery.id not in known or self._core.instance != self._instance(head):
                        await self.recover(signed)
                elif self.own.id in signed.recovery.lost:
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
        head = self._ledger.head
        if head is None or not self._knows(commit):
            return None
        async with self._host.reading:
            found = await asyncio.to_thread(
                verify.load, self._ledger.repository.objects, self._ledger.kinds, head.state.genesis, commit
            )
        return found.state

    async def _stop_as_lost(self, accepted: recovery.Accepted) -> None:
        """The others have gone on without this node: whatever it decided or promised must not count any more."""
        why = (
            f"the roots {', '.join(accepted.roots)} have declared this node ({self.own.name}) lost at commit "
            f"{accepted.signed.recovery.head[:10]}, and the others have gone on without it"
        )
        await asyncio.to_thread(self._store.put_fact, STOPPED, why)
        self.problem = why
        self._host.stop(why)

    # ---- after a restore ----
    def _abstains(self, instance: Instance, electorate: frozenset[str]) -> bool:
        """A node from a backup may have forgotten what it voted for since, so it votes only where it cannot have.

        It may have taken part in deciding on the successor of the newest head that a majority knows, or of the one
        after it, and no further: nobody takes part before the head is decided by a majority that is at the one before.
        """
        text = self._store.fact(RESTORED)
        if text is None:
            return False
        fact = json.loads(text)
        if instance.recovery and instance.recovery not in fact["recoveries"]:
            return False  # the roots say so, and nobody can have voted under their statement before
        if fact.get("only") and electorate == {self.own.id}:
            return False
        if not self._has_seen_enough(instance.head, fact, electorate):
            return True
        self._store.drop_fact(RESTORED)
        return False

    def _has_seen_enough(self, head: str, fact: Mapping[str, Any], electorate: frozenset[str]) -> bool:
        """Whether two decisions came after the newest head, or one under a recovery that is newer than the backup."""
        newest = fact.get("newest") if fact.get("members") == sorted(electorate) else None
        at, steps = head, 0
        while at != newest:
            decided = self._store.decision_for(at)
            if decided is None or at == fact.get("head"):
                return False
            if decided.instance.recovery and decided.instance.recovery not in fact["recoveries"]:
                return True
            at, steps = decided.instance.head, steps + 1
        return steps >= DECISIONS_UNTIL_VOTING

    async def _end_abstaining(self) -> None:
        """Note the newest head, once enough others have told theirs and this node has caught up with them."""
        text = self._store.fact(RESTORED)
        head = self._ledger.head
        if text is None or head is None:
            return
        fact = json.loads(text)
        present = sorted(self._members)
        if fact.get("newest") is not None and fact.get("members") == present:
            return
        others = self._members.keys() - {self.own.id}
        known = [id_ for id_ in others if (told := self._heads_seen.get(id_)) is not None and self._knows(told)]
        majority = len(self._members) // 2 + 1
        if len(known) >= len(self._members) - majority + 1:
            fact |= {"newest": head.commit, "members": present}
            await asyncio.to_thread(self._store.put_fact, RESTORED, json.dumps(fact))
            log.info("restored: this node votes again after two more decisions")


_START_ANEW = "keep this home away from the network, and join with a new one: owsgit node join"


def _fetch_first(main: str) -> NotFastForwardError:
    return NotFastForwardError(
        f"fetch first: main moved to {main[:10]} while you pushed", remedy="git pull --rebase, then push again"
    )


def _essence(signed: SignedStatus) -> tuple[str | None, tuple[str, ...]]:
    return signed.status.applied, tuple(signed.status.failed)


def _keys_of(spec: object) -> set[str]:
    return {keys.parse_ssh(spec.key).fingerprint} if isinstance(spec, NodeSpec) else set()


def _recoveries(told: Mapping[str, Any]) -> list[SignedRecovery]:
    """The recoveries in a neighbour's answer, of which nothing is proven yet. Raises InvalidError."""
    values = _list(told.get("recoveries"))[:RECOVERIES_MAX]
    return [recovery.parse(json.dumps(value).encode()) for value in values]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _commit_id(value: Any) -> str:
    if not (isinstance(value, str) and len(value) == 40 and set(value) <= set("0123456789abcdef")):
        raise WireError("not a commit id")
    return value
