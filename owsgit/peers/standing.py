"""Where a node stands: its head, who decides on the next one, and its neighbours. What all of its parts share."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from owsgit.ledger import commits, verdicts
from owsgit.ledger.ledger import Ledger
from owsgit.ledger.verify import PUSH_COMMITS_MAX, Verified
from owsgit.model import keys, terminal
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.seldom import Seldom
from owsgit.model.service import Told
from owsgit.model.state import State
from owsgit.peers import certificates, history, members, recovery, restored, transfer
from owsgit.peers.certificates import Certificate
from owsgit.peers.core import Core
from owsgit.peers.links import Dialer, Link
from owsgit.peers.members import Member
from owsgit.peers.paxos import Instance
from owsgit.peers.recovery import SignedRecovery
from owsgit.peers.statuses import SignedStatus
from owsgit.peers.store import Store

TIDY_SECONDS = 0.3
APPROVALS_BYTES_MAX = 1 << 20
"""Approvals that travel with one message."""

MOVES_PER_COLLECTION = 200
"""How often git is asked to tidy up its objects."""

EMPTY: Mapping[str, SignedRecovery] = {}
START_ANEW = "keep this home away from the network, and join with a new one: owsgit node join"
log = logging.getLogger("owsgit.peers")
_Result = TypeVar("_Result")


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
    topics: Mapping[str, Callable[[str, Told], Awaitable[Told]]] = field(default_factory=dict)
    """What services of other nodes may ask of this one's, with who answers the node of that name."""
    lack: Callable[[], str] = lambda: ""
    """What keeps the node from following and writing, '' if nothing does."""


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


class Standing:
    """The state that a node's parts share. The ledger's head and the core's instance change together, in `moved`."""

    def __init__(self, own: Own, ledger: Ledger, store: Store, host: Host) -> None:
        self.own = own
        self.ledger = ledger
        self.store = store
        self.host = host
        self.problem = ""
        self.durable = store.seats()  # what the disk has of the core's seats
        self.core = Core(own.id, lambda *what: certificates.sign(own.key, *what), dict(self.durable))
        self.deciding = asyncio.Lock()  # the core, and the writes that its effects order
        self.moving = asyncio.Lock()  # the head; taken before `deciding` and before the ledger
        self.members: Mapping[str, Member] = {}
        self.links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self.seen: dict[str, Seen] = {}
        self.held: set[tuple[str, str]] = set()  # (head, value that may follow it): verified and on the disk
        self.tasks: set[asyncio.Task[Any]] = set()
        self.dialer = Dialer(own.dialing, own.listen)
        self.on_up: Callable[[Link], None] = lambda _: None
        self.on_reviewed: Callable[[], None] = lambda: None
        self.on_moved: list[Callable[[Sequence[Certificate]], Awaitable[None]]] = []
        self._moves = 0
        self._problems = Seldom()  # a node that was removed asks, and is refused, for as long as it runs

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        async def quietly() -> None:
            try:
                await work
            except OwsgitError as error:
                if self._problems.takes(str(error.problems[0])):
                    log.info("%s", error.problems[0])
            except Exception:
                log.exception("talking with another node failed")

        task = asyncio.ensure_future(quietly())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def uninterrupted(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Go through with `work` though who asked for it is gone: half of it would leave memory and disk apart."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return await asyncio.shield(task)

    @property
    def head(self) -> Verified | None:
        return self.ledger.head

    @property
    def abstains(self) -> bool:
        """Whether this node was restored from a backup, and only follows for now."""
        return self.core.abstains

    def is_member(self) -> bool:
        return self.own.id in self.members

    def enter(self) -> None:
        """The head is new, or what is known about it is: who decides on its successor."""
        head = self.ledger.head
        if head is None:
            return
        self.members = members.of(head.state)
        accepted = self.recovery(head)
        instance = self.instance(head)
        electorate = members.electorate(head.state, accepted.lost if accepted else None)
        self.core.enter(
            instance, electorate, abstains=restored.abstains(self.store, self.own.id, instance, electorate.members)
        )

    def instance(self, head: Verified) -> Instance:
        accepted = self.recovery(head)
        return Instance(head.commit, accepted.id if accepted else "")

    def recovery(self, head: Verified) -> recovery.Accepted | None:
        """The recovery under which `head` is followed: of several, the one that names the most nodes as lost."""
        found = [
            recovery.check(signed, head.state)
            for signed in self.store.recoveries()
            if signed.recovery.head == head.commit
        ]
        return max(found, key=lambda each: len(each.lost), default=None)

    def refresh(self) -> None:
        """Links to exactly the other nodes that the head names."""
        wanted = {} if self.ledger.head is None else {id_: m for id_, m in self.members.items() if id_ != self.own.id}
        for id_, (link, task) in list(self.links.items()):
            if wanted.get(id_) != link.member:
                task.cancel()
                del self.links[id_]
        for id_, member in wanted.items():
            if id_ not in self.links:
                link = Link(self.dialer, member, self.on_up)
                self.links[id_] = link, asyncio.ensure_future(link.run())
        self.seen = {id_: self.seen.get(id_) or Seen() for id_ in wanted}

    async def moved(self, before: Verified | None, decided: Sequence[Certificate]) -> None:
        """The head moved, durably. Called with `moving` held."""
        head = self.ledger.head
        assert head is not None
        async with self.deciding:
            self.held.clear()
            self.enter()
            self.durable = {name: seat for name, seat in self.durable.items() if name == head.commit}
        former = members.of(before.state) if before is not None else {}
        if self.own.id in former and not self.is_member():
            self.problem = (
                f"the ledger does not name this node since commit {head.commit[:10]}: it gets no more changes"
            )
            log.warning("%s", self.problem)
        elif self.is_member():
            self.problem = ""
        self.refresh()
        for listener in self.on_moved:
            await listener(decided)
        self.host.moved()
        gone = {id_: former[id_].name for id_ in former.keys() - self.members.keys()}
        self.spawn(self._tidy(head.commit, gone))

    async def _tidy(self, head: str, gone: Mapping[str, str]) -> None:
        """What can wait, and can be done again: nothing rests on it."""
        for id_, name in gone.items():
            await asyncio.to_thread(self.store.put_former, id_, name, head)
        await asyncio.sleep(TIDY_SECONDS)
        async with self.moving:
            if self.ledger.head_is_not(head):
                return  # the head that followed has seats of its own by now: its own turn forgets the others
            await asyncio.to_thread(self.store.drop_seats_but, head)
            await asyncio.to_thread(transfer.release, self.ledger.repository, self._worth_holding())
        self._moves += 1
        if self._moves % MOVES_PER_COLLECTION == 0:
            await transfer.collect(self.ledger.repository)

    def _worth_holding(self) -> set[str]:
        """Values that are, or may be, voted for as successors of the present head."""
        voted = {seat.voted.value for seat in self.core.seats.values() if seat.voted is not None}
        return voted | {value for _, value in self.held}

    def knows(self, head: str) -> bool:
        mine = self.ledger.head
        return (
            (mine is not None and mine.commit == head)
            or self.store.decision(head) is not None
            or self.store.decision_for(head) is not None
        )

    def note(self, id_: str, problem: str = "") -> None:
        seen = self.seen.get(id_)
        if seen is not None:
            seen.problem = problem
            if not problem:
                seen.contact = self.host.now()

    def fork(self, member: Member, head: str) -> None:
        """Neither knows the other's head. It takes a lying majority, or a recovery whose lost nodes were not lost."""
        if head and not self.knows(head):
            seen = self.seen.get(member.id)
            if seen is not None:
                seen.problem = f"it is at {terminal.safe(head, 10)}, which does not follow our head, nor ours its"
                log.error("%s: %s", member.name, seen.problem)

    def check_certificate(
        self, certificate: Certificate, state: State, told: Mapping[str, SignedRecovery] = EMPTY
    ) -> None:
        known = {signed.recovery.id: signed for signed in self.store.recoveries()}
        history.check(certificate, state, {**told, **known})

    def evidence_for(self, certificate: Certificate) -> dict[str, Any]:
        """What somebody needs besides the votes: the recovery they were given under, and the approvals."""
        told = self.approvals_between(certificate.instance.head, certificate.value)
        wanted = certificate.instance.recovery
        if not wanted:
            return told
        found = [signed for signed in self.store.recoveries() if signed.recovery.id == wanted]
        return {**told, "recoveries": [recovery.document(signed) for signed in found]}

    def approvals_between(self, have: str, want: str, folder: Path | None = None) -> dict[str, Any]:
        """The approvals of the commits after `have` up to `want`, for who does not know them; the newest first.

        `folder` is a quarantine in which some of the commits may be.
        """
        reviews, repository = self.ledger.reviews, self.ledger.repository
        if not reviews:
            return {}
        objects = repository.quarantined(folder) if folder is not None else repository.objects
        found: list[str] = []
        size = 0
        commit: str | None = want
        for _ in range(PUSH_COMMITS_MAX):
            if commit is None or commit == have:
                break
            for verdict in reviews.approvals(commit):
                size += len(verdict.data)
                if size <= APPROVALS_BYTES_MAX:
                    found.append(verdict.data.decode("latin-1"))
            commit = commits.parse(commit, objects.commit(commit)).first_parent
        return {"approvals": found} if found else {}

    def take_approvals(self, told: Mapping[str, Any], source: str) -> None:
        """Approvals that a neighbour tells of: remembered until something rests on them."""
        found = []
        for text in told.get("approvals") or ():
            with contextlib.suppress(RefusedError, UnicodeEncodeError, AttributeError):
                found.append(verdicts.parse(text.encode("latin-1")))
        self.ledger.reviews.tell(found, source)
