"""Single-decree Paxos: who may follow one head. Pure, and every value in here is immutable.

After Lamport, "Paxos Made Simple" (2001), with the quorums of Howard, Malkhi and Spiegelman, "Flexible Paxos" (2016),
for what goes on after a majority was lost for good: there, phase 1 hears *every* survivor, so that nothing that a
survivor has voted for is forgotten.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

ROUNDS_AT_ONCE_MAX = 1 << 20
"""How far one message may raise what an acceptor has promised. Honest nodes go on from the highest ballot that they
saw, step by step if they have to; this keeps one node in the wrong hands from using up all numbers at once."""


@dataclass(frozen=True, order=True)
class Ballot:
    """A number for one attempt of one node: no two nodes ever use the same one, and no node uses one twice."""

    round: int
    node: str


@dataclass(frozen=True)
class Instance:
    """What is decided on: the successor of `head`. `recovery` is the id of the roots' statement under which the
    survivors go on, '' in all other cases.
    """

    head: str
    recovery: str = ""


@dataclass(frozen=True)
class Electorate:
    """Who decides an instance, and how many of them it takes."""

    members: frozenset[str]
    promises_needed: int
    votes_needed: int

    @classmethod
    def majority(cls, members: Iterable[str]) -> "Electorate":
        """Any two quorums share a member."""
        found = frozenset(members)
        needed = len(found) // 2 + 1
        return cls(found, needed, needed)

    @classmethod
    def survivors(cls, members: Iterable[str]) -> "Electorate":
        """All of them have to promise; a majority of them decides."""
        found = frozenset(members)
        return cls(found, len(found), len(found) // 2 + 1)


@dataclass(frozen=True)
class Vote:
    """What an acceptor has voted for."""

    ballot: Ballot
    value: str


@dataclass(frozen=True)
class Seat:
    """What an acceptor must never forget about one head."""

    promised: Ballot | None = None
    voted: Vote | None = None


@dataclass(frozen=True)
class Prepare:
    """Phase 1a: promise to take part in nothing older than `ballot`."""

    instance: Instance
    ballot: Ballot


@dataclass(frozen=True)
class Promise:
    """Phase 1b: the promise, and what the acceptor voted for last."""

    instance: Instance
    ballot: Ballot
    voted: Vote | None


@dataclass(frozen=True)
class Accept:
    """Phase 2a: vote for `value`."""

    instance: Instance
    ballot: Ballot
    value: str


@dataclass(frozen=True)
class Voted:
    """Phase 2b: the vote, signed so that anybody can count it."""

    instance: Instance
    ballot: Ballot
    value: str
    signature: str


@dataclass(frozen=True)
class Nack:
    """The acceptor has promised a newer ballot."""

    instance: Instance
    ballot: Ballot
    promised: Ballot


Message = Prepare | Promise | Accept | Voted | Nack


def prepare(seat: Seat, message: Prepare) -> tuple[Seat, Promise | Nack | None]:
    """Phase 1 of an acceptor. The seat has to be durable before the answer is sent; None is no answer."""
    if seat.promised is not None and message.ballot < seat.promised:
        return seat, Nack(message.instance, message.ballot, seat.promised)
    if (floor := _floor(seat.promised, message.ballot)) is not None:
        return replace(seat, promised=floor), None
    return replace(seat, promised=message.ballot), Promise(message.instance, message.ballot, seat.voted)


def accept(seat: Seat, message: Accept) -> tuple[Seat, Vote | Nack | None]:
    """Phase 2 of an acceptor. The seat has to be durable before the answer is sent; None is no answer."""
    if seat.promised is not None and message.ballot < seat.promised:
        return seat, Nack(message.instance, message.ballot, seat.promised)
    if (floor := _floor(seat.promised, message.ballot)) is not None:
        return replace(seat, promised=floor), None
    if seat.voted is not None and seat.voted.ballot == message.ballot and seat.voted.value != message.value:
        return seat, None  # one ballot has one value: its owner lies
    vote = Vote(message.ballot, message.value)
    return Seat(message.ballot, vote), vote


def _floor(promised: Ballot | None, ballot: Ballot) -> Ballot | None:
    """For a ballot that is too far ahead: how far the promise is raised instead, without an answer."""
    most = (promised.round if promised is not None else 0) + ROUNDS_AT_ONCE_MAX
    return Ballot(most, ballot.node) if ballot.round > most else None


@dataclass(frozen=True)
class Proposal:
    """One attempt of a proposer. `value` is None until enough acceptors have promised."""

    instance: Instance
    electorate: Electorate
    ballot: Ballot
    wanted: str
    promises: frozenset[tuple[str, Vote | None]] = frozenset()
    value: str | None = None
    votes: frozenset[tuple[str, str]] = frozenset()  # member, signature
    refusals: frozenset[str] = frozenset()  # members who have promised a newer ballot

    @property
    def chosen(self) -> bool:
        return len({member for member, _ in self.votes}) >= self.electorate.votes_needed

    def promise(self, sender: str, message: Promise) -> "Proposal":
        """Count a promise. With enough of them, the value is the newest vote that they told of, else the wanted one."""
        if not self._counts(sender, message) or self.value is not None:
            return self
        if message.voted is not None and message.voted.ballot >= self.ballot:
            return self  # no acceptor votes beyond what it promises
        promises = self.promises | {(sender, message.voted)}
        if len({member for member, _ in promises}) < self.electorate.promises_needed:
            return replace(self, promises=promises)
        votes = [vote for _, vote in promises if vote is not None]
        newest = max(votes, key=lambda vote: vote.ballot).value if votes else self.wanted
        return replace(self, promises=promises, value=newest)

    def vote(self, sender: str, message: Voted) -> "Proposal":
        """Count a vote."""
        if not self._counts(sender, message) or message.value != self.value or self.chosen:
            return self
        return replace(self, votes=self.votes | {(sender, message.signature)})

    def refuse(self, sender: str, message: Nack) -> "Proposal":
        """Count a refusal."""
        return replace(self, refusals=self.refusals | {sender}) if self._counts(sender, message) else self

    @property
    def hopeless(self) -> bool:
        """Whether too many have refused. One refusal is no reason to stop: it may come from a node that lies."""
        needed = max(self.electorate.promises_needed, self.electorate.votes_needed)
        return len(self.electorate.members) - len(self.refusals) < needed

    def _counts(self, sender: str, message: Promise | Voted | Nack) -> bool:
        return sender in self.electorate.members and message.instance == self.instance and message.ballot == self.ballot
