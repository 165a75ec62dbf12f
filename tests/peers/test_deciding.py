"""At most one successor per head, and nothing that was acknowledged is lost: simulated, searched, and the proof mutated."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from owsgit.peers import core, paxos
from owsgit.peers.core import Core, Send, Write
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
from tests.peers import simulation
from tests.peers.simulation import Violation

SEEDS = 40_000 if os.environ.get("OWSGIT_SOAK") else 480
BATCHES = 8


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.timeout(3600)
def test_every_seed_keeps_every_promise(batch: int) -> None:
    outcomes: set[str] = set()
    for seed in range(batch, SEEDS, BATCHES):
        outcomes |= {push.outcome for push in simulation.run(seed).pushes}
    assert {"acknowledged", "fetch first", "refused", "unknown"} <= outcomes  # the runs have trouble in them


def test_the_same_seed_is_the_same_run() -> None:
    first, second = simulation.run(7), simulation.run(7)
    assert first.messages == second.messages and first.acknowledged == second.acknowledged


# ---- the proof is worth something: each broken rule is caught ----
def _forget_a_promise(seat: Seat, message: Prepare) -> tuple[Seat, Promise | Nack]:
    return seat, Promise(message.instance, message.ballot, seat.voted)


def _vote_in_spite_of_a_promise(seat: Seat, message: Accept) -> tuple[Seat, Vote | Nack]:
    vote = Vote(message.ballot, message.value)
    return Seat(message.ballot, vote), vote


def _forget_a_vote(seat: Seat, message: Prepare) -> tuple[Seat, Promise | Nack]:
    if seat.promised is not None and message.ballot < seat.promised:
        return seat, Nack(message.instance, message.ballot, seat.promised)
    return replace(seat, promised=message.ballot), Promise(message.instance, message.ballot, None)


def _insist_on_the_own_value(proposal: Proposal, sender: str, message: Promise) -> Proposal:
    after = _promise(proposal, sender, message)
    return replace(after, value=after.wanted) if after.value is not None else after


def _take_the_oldest_vote(proposal: Proposal, sender: str, message: Promise) -> Proposal:
    after = _promise(proposal, sender, message)
    votes = [vote for _, vote in after.promises if vote is not None]
    if after.value is None or proposal.value is not None or not votes:
        return after
    return replace(after, value=min(votes, key=lambda vote: vote.ballot).value)


def _count_a_vote_twice(proposal: Proposal, sender: str, message: Voted) -> Proposal:
    if message.ballot != proposal.ballot or message.value != proposal.value:
        return proposal
    return replace(proposal, votes=proposal.votes | {(f"{sender}{'+' * len(proposal.votes)}", message.signature)})


def _count_a_promise_twice(proposal: Proposal, sender: str, message: Promise) -> Proposal:
    fewer = replace(proposal.electorate, promises_needed=proposal.electorate.promises_needed - 1)
    return replace(_promise(replace(proposal, electorate=fewer), sender, message), electorate=proposal.electorate)


def _need_one_vote_less(members: "frozenset[str]") -> Electorate:
    found = frozenset(members)
    return Electorate(found, max(1, len(found) // 2), max(1, len(found) // 2))


def _answer_before_the_write(
    self: Core, sender: str, instance: Instance, seat: Seat, answer: Message
) -> list[core.Effect]:
    effects: list[core.Effect] = [Send(sender, answer)] if answer is not None else []
    if seat != self._seat():
        self.seats[instance.head] = seat
        effects.append(Write(instance.head, seat))
    return effects


def _let_anybody_vote(self: Proposal, sender: str, message: Promise | Voted) -> bool:
    return message.instance == self.instance and message.ballot == self.ballot


def _go_on_after_a_failed_write(self: Core, seats: dict[str, Seat]) -> None:
    self.proposal = None


def _use_one_ballot_for_all(self: Core, value: str) -> list[core.Effect]:
    effects = _propose(self, value)
    assert self.proposal is not None
    shared = Ballot(self.proposal.ballot.round, "")
    self.proposal = replace(self.proposal, ballot=shared)
    return [
        Send(effect.to, replace(effect.message, ballot=shared)) if isinstance(effect, Send) else effect  # type: ignore[arg-type]
        for effect in effects
    ]


_promise, _propose, _enter = Proposal.promise, Core.propose, Core.enter


def _use_the_members_of_the_first_head(
    self: Core, instance: Instance, electorate: Electorate, *, abstains: bool = False
) -> None:
    if not hasattr(self, "first"):
        self.first = electorate  # type: ignore[attr-defined]
    _enter(self, instance, self.first, abstains=abstains)  # type: ignore[attr-defined]


MUTATIONS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "forget a promise": (paxos, "prepare", _forget_a_promise),
    "vote in spite of a promise": (paxos, "accept", _vote_in_spite_of_a_promise),
    "do not tell of a vote": (paxos, "prepare", _forget_a_vote),
    "insist on the own value": (Proposal, "promise", _insist_on_the_own_value),
    "take the oldest vote": (Proposal, "promise", _take_the_oldest_vote),
    "count a vote twice": (Proposal, "vote", _count_a_vote_twice),
    "count a promise twice": (Proposal, "promise", _count_a_promise_twice),
    "be content with half": (Electorate, "majority", staticmethod(_need_one_vote_less)),
    "use the wrong member set": (Core, "enter", _use_the_members_of_the_first_head),
    "answer before the write": (Core, "_answered", _answer_before_the_write),
    "go on after a failed write": (Core, "reset", _go_on_after_a_failed_write),
    "one ballot for all nodes": (Core, "propose", _use_one_ballot_for_all),
}
HUNT = simulation.Options(
    nodes=5, loss=0.15, double=0.1, crash=0.08, full=0.1, pushes=40, membership=False, trouble_seconds=30
)
HUNT_WITH_MEMBERS = replace(HUNT, membership=True)
HUNT_ON_FULL_DISKS = replace(HUNT, nodes=3, double=0.6, full=0.3, crash=0.1)


@pytest.mark.parametrize("broken", MUTATIONS)
def test_a_broken_rule_is_caught_by_the_simulation(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, mutation = MUTATIONS[broken]
    monkeypatch.setattr(where, name, mutation)
    options = {"use the wrong member set": HUNT_WITH_MEMBERS, "go on after a failed write": HUNT_ON_FULL_DISKS}
    with pytest.raises(Violation):
        for seed in range(600):
            simulation.run(seed, options.get(broken, HUNT))


@pytest.mark.soak
def test_the_hunting_ground_itself_is_clean() -> None:
    """The same options find nothing in the unbroken rules: what is caught above is the mutation."""
    for seed in range(60):
        simulation.run(seed, HUNT)
        simulation.run(seed, HUNT_WITH_MEMBERS)
        simulation.run(seed, HUNT_ON_FULL_DISKS)


# ---- every interleaving of two proposers and three acceptors ----
INSTANCE = Instance("h")
ACCEPTORS = ("a", "b", "c")
World = tuple[tuple[Seat, ...], tuple[Proposal, ...], frozenset[tuple[str, str, Message]]]


def _search(attempts: tuple[Ballot, ...]) -> tuple[int, int]:
    """Explore all states that any order of deliveries, losses and doublings can reach. (states, with a decision)

    A message that was sent stays deliverable for ever, which covers loss (never delivered), doubling and reordering.
    """
    electorate = Electorate.majority(ACCEPTORS)
    proposals = tuple(Proposal(INSTANCE, electorate, ballot, f"value of {ballot.node}") for ballot in attempts)
    first = frozenset(
        (str(number), acceptor, Prepare(INSTANCE, ballot))
        for number, ballot in enumerate(attempts)
        for acceptor in ACCEPTORS
    )
    start: World = (tuple(Seat() for _ in ACCEPTORS), proposals, first)
    seen, waiting, decided = {start}, [start], 0
    while waiting:
        world = waiting.pop()
        decided += _check(world)
        for after in _steps(world):
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return len(seen), decided


def _check(world: World) -> bool:
    _, _, network = world
    votes: dict[tuple[Ballot, str], set[str]] = {}
    for sender, _, message in network:
        if isinstance(message, Voted):
            votes.setdefault((message.ballot, message.value), set()).add(sender)
    chosen = {value for (_, value), members in votes.items() if len(members) >= 2}
    assert len(chosen) <= 1, f"two values are decided: {chosen}"
    return bool(chosen)


def _steps(world: World) -> "list[World]":
    seats, proposals, network = world
    found = []
    for sender, to, message in network:
        if to in ACCEPTORS:
            at = ACCEPTORS.index(to)
            answer: Message
            if isinstance(message, Prepare):
                seat, answer = paxos.prepare(seats[at], message)
            else:
                assert isinstance(message, Accept)
                seat, given = paxos.accept(seats[at], message)
                answer = Voted(INSTANCE, given.ballot, given.value, "") if isinstance(given, Vote) else given
            changed = (*seats[:at], seat, *seats[at + 1 :])
            found.append(
                (changed, proposals, network if isinstance(answer, Nack) else network | {(to, sender, answer)})
            )
            continue
        if not isinstance(message, Promise):
            continue  # votes are counted where they lie, in the network: that a proposer counts them changes nothing
        at = int(to)
        before = proposals[at]
        after = before.promise(sender, message)
        sent = network
        if before.value is None and after.value is not None:
            sent = network | {(to, acceptor, Accept(INSTANCE, after.ballot, after.value)) for acceptor in ACCEPTORS}
        found.append((seats, (*proposals[:at], after, *proposals[at + 1 :]), sent))
    return found


def test_no_interleaving_of_two_proposers_and_three_acceptors_decides_twice() -> None:
    states, decided = _search((Ballot(1, "p"), Ballot(2, "q")))
    print(f"{states:,} states, {decided:,} with a decision")
    assert states > 10_000 and decided > 1_000


def test_the_search_finds_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proposal, "promise", _insist_on_the_own_value)
    with pytest.raises(AssertionError, match="two values are decided"):
        _search((Ballot(1, "p"), Ballot(2, "q")))


# ---- what goes on after a majority was lost for good ----
def test_survivors_keep_what_one_of_them_has_voted_for() -> None:
    """Of five nodes, three are lost; one survivor voted for a value that may have been acknowledged."""
    lost = Proposal(Instance("h"), Electorate.majority("abcde"), Ballot(1, "c"), "acknowledged")
    seat, _ = paxos.accept(Seat(), Accept(lost.instance, lost.ballot, lost.wanted))
    survivors = Electorate.survivors("ab")
    after = Instance("h", "recovery")
    proposal = Proposal(after, survivors, Ballot(2, "b"), "another")
    _, first = paxos.prepare(Seat(), Prepare(after, proposal.ballot))
    assert isinstance(first, Promise)
    proposal = proposal.promise("b", first)
    assert proposal.value is None  # the other survivor has to be heard
    _, second = paxos.prepare(seat, Prepare(after, proposal.ballot))
    assert isinstance(second, Promise)
    assert proposal.promise("a", second).value == "acknowledged"


def test_messages_of_the_lost_instance_count_no_more() -> None:
    survivor = Core("a", lambda *_: "")
    survivor.enter(Instance("h", "recovery"), Electorate.survivors("ab"))
    old = Prepare(Instance("h"), Ballot(9, "c"))
    assert survivor.receive("c", old) == [core.Elsewhere("c", Instance("h"))]
    assert survivor.receive("c", Prepare(Instance("h", "recovery"), Ballot(9, "c"))) == []
    assert survivor.seats == {}


# ---- one node in the wrong hands ----
def test_a_ballot_belongs_to_the_node_that_it_names() -> None:
    """Else somebody could have an honest node vote twice in one ballot."""
    honest = Core("a", lambda *_: "signed")
    honest.enter(Instance("h"), Electorate.majority("abm"))
    assert honest.receive("m", Prepare(Instance("h"), Ballot(1, "b"))) == []
    assert honest.receive("m", Accept(Instance("h"), Ballot(1, "b"), "evil")) == []
    assert honest.seats == {}


def test_one_ballot_has_one_value() -> None:
    ballot = Ballot(1, "m")
    seat, vote = paxos.accept(Seat(), Accept(Instance("h"), ballot, "one"))
    assert isinstance(vote, Vote)
    again, nothing = paxos.accept(seat, Accept(Instance("h"), ballot, "two"))
    assert nothing is None and again == seat


@pytest.mark.parametrize("pumped", [2**21, 2**40, 2**62])
def test_huge_ballots_of_one_node_stop_nobody(pumped: int) -> None:
    """m asks b alone for promises to huge ballots, as fast as it may; a push at a is decided all the same."""
    cores = {name: Core(name, lambda *_: "signed") for name in "ab"}
    for core_ in cores.values():
        core_.enter(Instance("h"), Electorate.majority("abm"))
    for _ in range(4):
        cores["b"].receive("m", Prepare(Instance("h"), Ballot(pumped, "m")))
    for attempt in range(40):
        if _attempt(cores, f"value {attempt}"):
            break
    else:
        pytest.fail("nothing is ever decided")


def _attempt(cores: dict[str, Core], value: str) -> bool:
    """One proposal of a, with everything delivered between a and b, asking again where there was no answer."""
    waiting: list[tuple[str, core.Effect]] = [("a", effect) for effect in cores["a"].propose(value)]
    unanswered: list[tuple[str, Message]] = []
    for _ in range(200):
        if not waiting:
            if not unanswered:
                return False
            sender, message = unanswered.pop()
            waiting = [("b", effect) for effect in cores["b"].receive(sender, message)]
            continue
        at, effect = waiting.pop(0)
        if isinstance(effect, core.Chosen):
            return True
        if isinstance(effect, Send) and effect.to in cores:
            found = cores[effect.to].receive(at, effect.message)
            if isinstance(effect.message, Prepare) and not any(isinstance(each, Send) for each in found):
                unanswered.append((at, effect.message))
            waiting += [(effect.to, each) for each in found]
    return False


def test_one_refusal_stops_no_proposal() -> None:
    proposer = Core("a", lambda *_: "signed")
    proposer.enter(Instance("h"), Electorate.majority("abm"))
    proposer.propose("value")
    assert proposer.proposal is not None
    ballot = proposer.proposal.ballot
    assert proposer.receive("m", Nack(Instance("h"), ballot, Ballot(2**61, "m"))) == []
    found = proposer.receive("b", Promise(Instance("h"), ballot, None))
    assert {effect.to for effect in found if isinstance(effect, Send)} == {"a", "b", "m"}
