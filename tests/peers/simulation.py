"""A deterministic simulation of deciding: own clock, network and disks, around the very core that nodes run.

One seed makes one run: nodes push, crash at any write (with and without the last write kept), restart, join and leave,
while messages are lost, doubled, delayed and cut off in one direction or in both. At the end everything heals. `run`
raises Violation with the seed when a promise of the design was broken.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from owsgit.peers.core import Chosen, Core, Effect, Elsewhere, Outbid, Send, Write
from owsgit.peers.paxos import Accept, Ballot, Electorate, Instance, Message, Seat


class Violation(AssertionError):
    """A promise of the design was broken."""


@dataclass(frozen=True)
class Commit:
    """Stands for a commit: whom it names as nodes."""

    id: str
    parent: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Decided:
    """A decision on its way: as in the certificate that nodes exchange."""

    instance: Instance
    ballot: Ballot
    value: str
    votes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Hello:
    """Anti-entropy: the sender's head."""

    head: str


@dataclass
class Push:
    commit: Commit
    due: float
    began: float
    outcome: str = ""  # acknowledged, fetch first, unknown


@dataclass
class Disk:
    """What survives a crash."""

    seats: dict[str, Seat] = field(default_factory=dict)
    decisions: dict[str, Decided] = field(default_factory=dict)


@dataclass
class Options:
    nodes: int = 3
    pushes: int = 12
    loss: float = 0.05
    double: float = 0.05
    crash: float = 0.01  # at each write
    full: float = 0.0  # writes that fail, as on a full disk
    partitions: bool = True
    membership: bool = True
    delay: tuple[float, float] = (0.001, 0.05)
    write: tuple[float, float] = (0.0005, 0.01)
    trouble_seconds: float = 20.0
    heal_seconds: float = 60.0
    hello_seconds: float = 1.0


class Node:
    """A host of the core, as the council is one in production."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.disk = Disk()
        self.alive = False
        self.epoch = 0
        self.boot()

    def boot(self) -> None:
        self.alive = True
        self.epoch += 1
        self.outbox: list[Effect | Callable[[], None]] = []
        self.busy = False
        self.push: Push | None = None
        self.core = Core(self.name, self.sign, dict(self.disk.seats))
        self.head = self.world.genesis.id
        while self.head in self.disk.decisions:
            self.head = self.disk.decisions[self.head].value
        self.enter()
        self.later(self.world.random.uniform(0, self.world.options.hello_seconds), self.hello)

    def crash(self) -> None:
        self.alive = False
        if self.push is not None:
            self.push.outcome = self.push.outcome or "unknown"
        self.world.later(self.world.random.uniform(0.05, 3), self.restart)

    def restart(self) -> None:
        if not self.alive:
            self.boot()

    def sign(self, instance: Instance, ballot: Ballot, value: str) -> str:
        return f"{self.name} {instance} {ballot} {value}"

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """In this life of the node only."""
        epoch = self.epoch

        def act() -> None:
            if self.alive and self.epoch == epoch:
                action()

        self.world.later(seconds, act)

    def enter(self) -> None:
        self.core.enter(Instance(self.head), self.world.electorate(self.head))

    def do(self, effects: list[Effect]) -> None:
        self.outbox += effects
        if not self.busy:
            self.flush()

    def after_writes(self, action: Callable[[], None]) -> None:
        self.outbox.append(action)
        if not self.busy:
            self.flush()

    def flush(self) -> None:
        """Carry out effects in order; a write takes its time and everything behind it waits."""
        while self.outbox and self.alive:
            effect = self.outbox.pop(0)
            match effect:
                case Write():
                    self.write(lambda effect=effect: self.disk.seats.__setitem__(effect.head, effect.seat))
                    return
                case Send():
                    self.send(effect.to, effect.message)
                case Chosen():
                    self.world.chosen_by_proposer(effect)
                    self.learn(Decided(effect.instance, effect.ballot, effect.value, effect.votes), tell=True)
                    return
                case Outbid():
                    self.later(self.world.random.uniform(0.01, 0.3), self.propose)
                case Elsewhere():
                    self.elsewhere(effect)
                case _:
                    effect()

    def write(self, apply: Callable[[], None]) -> None:
        self.busy = True
        crashes = self.world.trouble and self.world.random.random() < self.world.options.crash
        kept = self.world.random.random() < 0.5
        fails = self.world.trouble and self.world.random.random() < self.world.options.full

        def written() -> None:
            if fails:  # what would have followed is not sent
                self.busy = False
                self.outbox.clear()
                self.core.reset(dict(self.disk.seats))
                return
            if not crashes or kept:
                apply()
                self.world.watch()
            self.busy = False
            if crashes:
                self.crash()
            else:
                self.flush()

        self.later(self.world.random.uniform(*self.world.options.write), written)

    def send(self, to: str, message: object) -> None:
        if to == self.name:
            self.later(0, lambda: self.receive(self.name, message))
        else:
            self.world.send(self.name, to, message)

    def receive(self, sender: str, message: object) -> None:
        if isinstance(message, Hello):
            self.compare(sender, message.head)
        elif isinstance(message, Decided):
            if message.instance.head == self.head:
                self.learn(message)
        else:
            assert isinstance(message, Message)
            if isinstance(message, Accept) and self.world.commits[message.value].parent != message.instance.head:
                raise Violation("a value was proposed that does not follow the head")
            self.do(self.core.receive(sender, message))

    def elsewhere(self, effect: Elsewhere) -> None:
        self.compare(effect.sender, effect.instance.head)

    def compare(self, sender: str, head: str) -> None:
        """Give the sender the decision it lacks, or ask for the one that this node lacks."""
        if head == self.head:
            return
        if head in self.disk.decisions:
            self.send(sender, self.disk.decisions[head])
        else:
            self.send(sender, Hello(self.head))

    def hello(self) -> None:
        others = sorted(self.world.electorate(self.head).members - {self.name})
        if others:
            self.send(self.world.random.choice(others), Hello(self.head))
        self.later(self.world.options.hello_seconds * self.world.random.uniform(0.5, 1.5), self.hello)

    def learn(self, decided: Decided, *, tell: bool = False) -> None:
        electorate = self.world.electorate(decided.instance.head)
        good = {
            member
            for member, text in decided.votes
            if text == f"{member} {decided.instance} {decided.ballot} {decided.value}"
        }
        if len(good & electorate.members) < electorate.votes_needed:
            raise Violation("a certificate does not hold")

        def learnt() -> None:
            self.disk.decisions[decided.instance.head] = decided

        def moved() -> None:
            if self.head != decided.instance.head:
                return
            self.head = decided.value
            self.enter()
            self.decided_push(decided)
            everyone = self.world.electorate(decided.instance.head).members | self.core.electorate.members
            for member in sorted(everyone) if tell else ():
                if member != self.name:
                    self.send(member, decided)

        if self.head == decided.instance.head:
            self.outbox.insert(0, moved)
            self.write(learnt)

    # ---- pushes ----
    def take(self, push: Push) -> None:
        if not self.alive or self.push is not None or self.name not in self.core.electorate.members:
            push.outcome = "refused"
            return
        if push.commit.parent != self.head:
            push.outcome = "fetch first"
            return
        self.push = push
        self.later(push.due, lambda: self.give_up(push))
        self.propose()

    def propose(self) -> None:
        if self.push is not None and self.push.commit.parent == self.head and self.name in self.core.electorate.members:
            self.do(self.core.propose(self.push.commit.id))
            push = self.push
            self.later(1.0, lambda: self.propose() if self.push is push else None)  # messages may have been lost

    def decided_push(self, decided: Decided) -> None:
        if self.push is not None and self.push.commit.parent == decided.instance.head:
            self.push.outcome = "acknowledged" if decided.value == self.push.commit.id else "fetch first"
            if self.push.outcome == "acknowledged":
                self.world.acknowledged.append(decided.value)
            self.push = None

    def give_up(self, push: Push) -> None:
        if self.push is push and self.world.trouble:
            push.outcome, self.push = "unknown", None


class World:
    """Clock, network, and the eyes that see everything."""

    def __init__(self, seed: int, options: Options) -> None:
        self.seed = seed
        self.options = options
        self.random = random.Random(seed)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.trouble = True
        names = [f"n{number:02}" for number in range(options.nodes)]
        founders = names if not options.membership else names[: max(1, self.random.randint(1, len(names)))]
        self.genesis = Commit("0", "", tuple(founders))
        self.commits = {"0": self.genesis}
        self.cut: set[tuple[str, str]] = set()
        self.chosen: dict[str, set[str]] = defaultdict(set)
        self.acknowledged: list[str] = []
        self.pushes: list[Push] = []
        self.messages = 0
        self.nodes = {name: Node(self, name) for name in names}

    def electorate(self, head: str) -> Electorate:
        return Electorate.majority(self.commits[head].members)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, action))

    def send(self, sender: str, to: str, message: object) -> None:
        self.messages += 1
        copies = 1
        if self.trouble:
            if (sender, to) in self.cut or self.random.random() < self.options.loss:
                return
            copies += self.random.random() < self.options.double
        for _ in range(copies):
            node = self.nodes[to]
            self.later(
                self.random.uniform(*self.options.delay), lambda: node.receive(sender, message) if node.alive else None
            )

    # ---- what has to hold at every moment ----
    def watch(self) -> None:
        """At most one successor per head: counted on the disks, as a quorum of equal votes."""
        votes: dict[tuple[str, Ballot, str], int] = defaultdict(int)
        for node in self.nodes.values():
            for head, seat in node.disk.seats.items():
                if seat.voted is not None and node.name in self.commits[head].members:
                    votes[head, seat.voted.ballot, seat.voted.value] += 1
        for (head, _, value), count in votes.items():
            if count >= self.electorate(head).votes_needed:
                self.decide(head, value)

    def chosen_by_proposer(self, chosen: Chosen) -> None:
        self.decide(chosen.instance.head, chosen.value)

    def decide(self, head: str, value: str) -> None:
        self.chosen[head].add(value)
        if len(self.chosen[head]) > 1:
            raise Violation(f"two successors of {head}: {sorted(self.chosen[head])}")

    # ---- what happens to the nodes ----
    def user(self) -> None:
        """Somebody pushes to some node, having fetched from it."""
        node = self.random.choice(list(self.nodes.values()))
        members = self.commits[node.head].members
        if self.options.membership and self.random.random() < 0.3:
            members = tuple(sorted(self.random.sample(sorted(self.nodes), self.random.randint(1, len(self.nodes)))))
        commit = Commit(str(len(self.commits)), node.head, members)
        self.commits[commit.id] = commit
        push = Push(commit, self.random.uniform(2, 8), self.now)
        self.pushes.append(push)
        node.take(push)

    def partition(self) -> None:
        if not self.trouble:
            return
        names = sorted(self.nodes)
        side = set(self.random.sample(names, self.random.randint(0, len(names))))
        both = self.random.random() < 0.6
        self.cut = {(a, b) for a in names for b in names if (a in side) != (b in side) and (both or a in side)}
        self.later(self.random.uniform(0.5, 4), self.partition)

    def kill(self) -> None:
        node = self.random.choice(list(self.nodes.values()))
        if node.alive and self.trouble:
            node.crash()
        self.later(self.random.uniform(0.5, 5), self.kill)

    def run(self) -> None:
        for _ in range(self.options.pushes):
            self.later(self.random.uniform(0, self.options.trouble_seconds), self.user)
        if self.options.partitions:
            self.later(1, self.partition)
        if self.options.crash:
            self.later(2, self.kill)
        self.until(self.options.trouble_seconds)
        self.heal()

    def until(self, end: float) -> None:
        while self.events and self.events[0][0] <= end:
            self.now, _, action = heapq.heappop(self.events)
            action()
        self.now = end

    def heal(self) -> None:
        """Everything works again: then everything converges, and a push is decided."""
        self.trouble = False
        self.cut = set()
        for node in self.nodes.values():
            node.restart()
        self.until(self.now + self.options.heal_seconds)
        newest = max((node.head for node in self.nodes.values()), key=self.depth)
        members = [self.nodes[name] for name in self.commits[newest].members]
        if any(node.head != newest for node in members):
            raise Violation(f"heads differ after healing: { {node.name: node.head for node in members} }")
        last = self.push_again(newest)
        if last.outcome == "fetch first":  # an older push, half decided, came to its end first: as git users do
            last = self.push_again(next(iter(self.chosen[last.commit.parent])))
        if last.outcome != "acknowledged":
            raise Violation(f"a push does not end although everything is connected: {last}")
        lost = [value for value in self.acknowledged if value not in self.ancestry(last.commit.id)]
        if lost:
            raise Violation(f"acknowledged and not in the last head: {lost}")

    def push_again(self, head: str) -> Push:
        """A push by somebody who has fetched, with the time that it takes."""
        node = self.nodes[self.commits[head].members[0]]
        commit = Commit(str(len(self.commits)), node.head, self.commits[node.head].members)
        self.commits[commit.id] = commit
        push = Push(commit, 1e9, self.now)
        node.push = None
        node.take(push)
        self.until(self.now + self.options.heal_seconds)
        return push

    def depth(self, value: str) -> int:
        return len(self.ancestry(value))

    def ancestry(self, value: str) -> list[str]:
        line = []
        while value:
            line.append(value)
            value = self.commits[value].parent
        return line


def run(seed: int, options: Options | None = None) -> World:
    """One run. Raises Violation that names the seed."""
    if options is None:
        choice = random.Random(~seed)
        options = Options(
            nodes=choice.choice([1, 2, 3, 3, 3, 4, 5, 5, 7, 9, 15]),
            loss=choice.choice([0, 0.02, 0.1, 0.3]),
            double=choice.choice([0, 0.1]),
            crash=choice.choice([0, 0.01, 0.05]),
            partitions=choice.random() < 0.7,
            membership=choice.random() < 0.5,
            pushes=choice.choice([4, 10, 20]),
            full=choice.choice([0, 0, 0.1]),
        )
    world = World(seed, options)
    try:
        world.run()
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}; replay: python -m tests.peers.simulation {seed}") from violation
    return world


if __name__ == "__main__":
    import sys

    for number in map(int, sys.argv[1:]):
        found = run(number)
        print(number, found.options, f"{found.messages} messages", [push.outcome for push in found.pushes])
