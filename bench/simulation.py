"""What a decision costs among many nodes, in the simulation of tests/peers: messages, bytes, and round trips of time.

The baselines are the fewest that any protocol of this kind can do with: two rounds of question and answer to every
other node, and one message to tell; a majority's signature each; two round trips.
"""

from typing import Any

from bench import report
from owsgit.peers import wire
from owsgit.peers.core import Chosen
from tests.peers import simulation
from tests.peers.simulation import Decided, Node, Options, World

ROUND_TRIP_S = 0.1
COUNTS = (3, 7, 100)
SIGNATURE = "A" * 86 + "=="
NODE_ID = "SHA256:" + "x" * 43
COMMIT = "0" * 40


class Counting(World):
    """Counts what nodes say from a push to its decision and to all knowing it."""

    def __init__(self, count: int) -> None:
        line = (ROUND_TRIP_S / 2, ROUND_TRIP_S / 2)
        quiet = Options(
            nodes=count, loss=0, double=0, crash=0, partitions=False, membership=False, delay=line, write=(0.0, 0.0),
            hello_seconds=1e6,
        )  # fmt: skip
        super().__init__(1, quiet)
        self.bytes = 0
        self.decided_s = 0.0

    def send(self, sender: str, to: str, message: object) -> None:
        self.bytes += len(_encoded(message))
        super().send(sender, to, message)

    def chosen_by_proposer(self, chosen: Chosen) -> None:
        self.decided_s = self.now
        super().chosen_by_proposer(chosen)


def _encoded(message: object) -> bytes:
    """As many bytes as the message has on the wire, with ids and signatures of their real lengths."""
    if isinstance(message, Decided):
        votes = {f"{NODE_ID}{number}"[-50:]: SIGNATURE for number in range(len(message.votes))}
        told: dict[str, Any] = {"head": COMMIT, "ballot": [1, NODE_ID], "value": COMMIT, "votes": votes}
        return wire.Frame({"id": 1, "verb": "decided", "certificate": told}).encode()
    told = {"kind": "prepare", "head": COMMIT, "ballot": [1, NODE_ID]}
    told |= {"value": COMMIT} if hasattr(message, "value") else {}
    told |= {"signature": SIGNATURE} if hasattr(message, "signature") else {}
    return wire.Frame({"id": 1, "verb": "paxos", "message": told}).encode()


def measured(count: int) -> None:
    world = Counting(count)
    node: Node = next(iter(world.nodes.values()))
    commit = simulation.Commit("1", "0", world.genesis.members)
    world.commits["1"] = commit
    push = simulation.Push(commit, 1e9, 0.0)
    node.take(push)
    world.until(60)
    assert push.outcome == "acknowledged"
    others = count - 1
    report.line(f"messages_per_decision_of_{count}", world.messages, "messages", 5 * others)
    signatures = (count // 2 + 1) * len(SIGNATURE) * others
    report.line(f"bytes_per_decision_of_{count}", world.bytes, "bytes", signatures)
    report.line(f"time_to_decide_of_{count}", world.decided_s / ROUND_TRIP_S, "round trips", 2)


def main() -> None:
    for count in COUNTS:
        measured(count)


if __name__ == "__main__":
    main()
