"""One node's part in deciding: acceptor and proposer for the head that the node is at. Pure.

Each call returns effects in order. The host carries them out in that order: in particular a `Write` is durable before
what follows it is sent. What is true of a value (that it is verified, and that its objects are held durably) the host
makes sure of before it hands over an `Accept`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from owsgit.peers import paxos
from owsgit.peers.paxos import (
    Accept,
    Ballot,
    Electorate,
    Instance,
    Message,
    Nack,
    Prepare,
    Promise,
    Proposal,
    Seat,
    Vote,
    Voted,
)


@dataclass(frozen=True)
class Write:
    """Make this seat durable before going on."""

    head: str
    seat: Seat


@dataclass(frozen=True)
class Send:
    """Send a message to a member."""

    to: str
    message: Message


@dataclass(frozen=True)
class Chosen:
    """A value is decided; the votes prove it."""

    instance: Instance
    ballot: Ballot
    value: str
    votes: tuple[tuple[str, str], ...]  # member, signature


@dataclass(frozen=True)
class Outbid:
    """Somebody else's newer ballot is in the way of a quorum: try again after a pause of random length."""

    instance: Instance


@dataclass(frozen=True)
class Elsewhere:
    """The sender is at another instance than this node: one of the two has to catch up."""

    sender: str
    instance: Instance


Effect = Write | Send | Chosen | Outbid | Elsewhere
Sign = Callable[[Instance, Ballot, str], str]


@dataclass
class Core:
    """The state of one node. `seats` is what was durable when it started."""

    me: str
    sign: Sign
    seats: dict[str, Seat] = field(default_factory=dict)
    instance: Instance | None = None
    electorate: Electorate = field(default_factory=lambda: Electorate.majority(()))
    abstains: bool = False  # as after a restore from a backup: it may have forgotten promises
    proposal: Proposal | None = None
    _highest_round: int = 0

    def enter(self, instance: Instance, electorate: Electorate, *, abstains: bool = False) -> None:
        """The node's head is `instance.head` now, and `electorate` decides on its successor."""
        if self.instance is not None and self.instance.head != instance.head:
            self.seats.pop(self.instance.head, None)
            self._highest_round = 0
        if self.instance != instance:
            self.proposal = None
        self.instance, self.electorate, self.abstains = instance, electorate, abstains

    def _seat(self) -> Seat:
        assert self.instance is not None
        return self.seats.get(self.instance.head, Seat())

    def propose(self, value: str) -> list[Effect]:
        """Begin an attempt to have `value` follow the head; a former attempt ends.

        The proposer's own promise is written before anything is sent, so that no ballot is ever used twice.
        """
        assert self.instance is not None and self.me in self.electorate.members and not self.abstains
        promised = self._seat().promised
        self._highest_round = max(self._highest_round, promised.round if promised else 0) + 1
        ballot = Ballot(self._highest_round, self.me)
        self.proposal = Proposal(self.instance, self.electorate, ballot, value)
        message = Prepare(self.instance, ballot)
        seat, answer = paxos.prepare(self._seat(), message)
        self.seats[self.instance.head] = seat
        effects: list[Effect] = [Write(self.instance.head, seat)]
        effects += [Send(member, message) for member in sorted(self.electorate.members - {self.me})]
        return [*effects, *self._promised(self.me, answer)] if answer is not None else []

    def receive(self, sender: str, message: Message) -> list[Effect]:
        """Take in a message. Nothing happens for one from somebody who has no say here."""
        if message.instance != self.instance:
            return [Elsewhere(sender, message.instance)]
        if sender not in self.electorate.members:
            return []
        if isinstance(message, Prepare | Accept) and message.ballot.node != sender:
            return []  # a ballot belongs to one node
        match message:
            case Prepare():
                return self._prepare(sender, message)
            case Accept():
                return self._accept(sender, message)
            case _:
                return self._promised(sender, message)

    def _prepare(self, sender: str, message: Prepare) -> list[Effect]:
        if self.abstains or self.me not in self.electorate.members:
            return []
        seat, answer = paxos.prepare(self._seat(), message)
        return self._answered(sender, message.instance, seat, answer)

    def _accept(self, sender: str, message: Accept) -> list[Effect]:
        if self.abstains or self.me not in self.electorate.members:
            return []
        seat, answer = paxos.accept(self._seat(), message)
        return self._answered(sender, message.instance, seat, self._signed(message.instance, answer))

    def _signed(self, instance: Instance, answer: Vote | Nack | None) -> Voted | Nack | None:
        if not isinstance(answer, Vote):
            return answer
        signature = self.sign(instance, answer.ballot, answer.value)
        return Voted(instance, answer.ballot, answer.value, signature)

    def _answered(
        self, sender: str, instance: Instance, seat: Seat, answer: Promise | Voted | Nack | None
    ) -> list[Effect]:
        effects: list[Effect] = []
        if seat != self._seat():
            self.seats[instance.head] = seat
            effects.append(Write(instance.head, seat))
        return [*effects, Send(sender, answer)] if answer is not None else effects

    def _promised(self, sender: str, message: Promise | Voted | Nack) -> list[Effect]:
        """A proposer's share: what acceptors answered."""
        proposal = self.proposal
        if proposal is None or message.ballot != proposal.ballot:
            return []
        if isinstance(message, Nack):
            return self._refused(proposal, sender, message)
        if isinstance(message, Promise):
            self.proposal = proposal.promise(sender, message)
            if proposal.value is None and self.proposal.value is not None:
                return self._begin_accept(self.proposal)
            return []
        self.proposal = proposal.vote(sender, message)
        if self.proposal.chosen and not proposal.chosen:
            votes = tuple(sorted(self.proposal.votes))
            return [Chosen(proposal.instance, proposal.ballot, message.value, votes)]
        return []

    def _refused(self, proposal: Proposal, sender: str, message: Nack) -> list[Effect]:
        if message.promised <= proposal.ballot:
            return []
        own = self._seat().promised
        most = (own.round if own is not None else 0) + paxos.ROUNDS_AT_ONCE_MAX - 1  # what this node itself promises
        self._highest_round = max(self._highest_round, min(message.promised.round, most))
        self.proposal = proposal.refuse(sender, message)
        if not self.proposal.hopeless:
            return []
        self.proposal = None
        return [Outbid(proposal.instance)]

    def is_late(self, message: Accept) -> bool:
        """Whether a newer ballot was promised already, so that its value does not matter."""
        promised = self._seat().promised if self.instance == message.instance else None
        return promised is not None and message.ballot < promised

    @property
    def refused(self) -> bool:
        """Whether somebody has refused the present proposal: if it does not come to its end soon, try again."""
        return self.proposal is not None and bool(self.proposal.refusals)

    def reset(self, seats: dict[str, Seat]) -> None:
        """A write failed: go back to what is durable."""
        self.seats, self.proposal = seats, None

    def _begin_accept(self, proposal: Proposal) -> list[Effect]:
        """Phase 2. The node's own vote comes through `vote`, once its host holds the value."""
        assert proposal.value is not None
        message = Accept(proposal.instance, proposal.ballot, proposal.value)
        return [Send(member, message) for member in sorted(proposal.electorate.members)]
