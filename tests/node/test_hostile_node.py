"""A node of the ledger whose key is in the wrong hands: it hangs, lies, sends garbage, sends for ever, closes anywhere.

The project has three nodes; a and b are real, c is played by the test. a and b are a majority, and nothing that c does may
stop them, move them, or make them take anything that they did not verify.
"""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from owsgit.node.home import Home
from owsgit.peers import certificates, wire
from owsgit.peers.paxos import Ballot, Instance
from owsgit.peers.wire import Frame
from tests.support import clusters, nodes, projects
from tests.support.clusters import Cluster
from tests.support.nodes import Node
from tests.support.people import Person
from tests.support.played import Play, Played, Process, hang


async def send_garbage(process: Process) -> None:
    while True:
        process.stdout.write(os.urandom(65536))
        await process.stdout.drain()


async def announce_a_huge_frame(process: Process) -> None:
    process.stdout.write(b"\x00\x1f\xff\xff\x00\x3f\xff\xff" + b"{" * 100)
    await asyncio.sleep(3600)


async def announce_more_than_allowed(process: Process) -> None:
    process.stdout.write(b"\xff" * 8)
    await asyncio.sleep(3600)


async def send_deep_json(process: Process) -> None:
    text = b"[" * 100_000
    process.stdout.write(len(text).to_bytes(4, "big") + bytes(4) + text)
    await asyncio.sleep(3600)


def close_after(count: int) -> Play:
    async def play(process: Process) -> None:
        frame = Frame({"id": 1, "head": "0" * 40, "recoveries": [], "status": {}}).encode()
        process.stdout.write(frame[:count])
        await process.stdout.drain()

    return play


def answering(answer: Callable[[dict[str, Any]], tuple[dict[str, Any], bytes]]) -> Play:
    async def play(process: Process) -> None:
        while (frame := await wire.read(process.stdin)) is not None:
            head, body = answer(dict(frame.head))
            process.stdout.write(Frame({**head, "id": frame.head["id"]}, body).encode())

    return play


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[tuple[Cluster, Played]]:
    folder = tmp_path_factory.mktemp("hostile")
    three = clusters.on_loopback(folder, alice, 3)
    three["c"].init()
    played = Played(three["c"])
    two = {name: three[name] for name in "ab"}
    try:
        cluster = clusters.found(folder, alice, two, {"nodes/c.json": _spec(three["c"])})
        yield cluster, played
    finally:
        clusters.stop(two)
        played.stop()


def _spec(node: Node) -> dict[str, Any]:
    return Home(node.home).node_spec().document()


def decides(cluster: Cluster, name: str = "a") -> str:
    """A push to `name` is decided by a and b, in a time that has nothing to do with c."""
    commit = cluster.change(f"at-{time.monotonic_ns()}")
    began = time.monotonic()
    done = cluster.push(name, "-o", "no-wait")
    assert done.status == 0 and "decided by a, b (2 of 3 nodes)" in done.text, done.text
    assert time.monotonic() - began < 10
    nodes.until(lambda: {node.main() for node in cluster.nodes.values()} == {commit})
    return commit


GARBAGE: dict[str, Play] = {
    "hangs": hang,
    "sends garbage": send_garbage,
    "announces a huge frame": announce_a_huge_frame,
    "announces more than allowed": announce_more_than_allowed,
    "sends deep JSON": send_deep_json,
    **{f"closes after {count} bytes": close_after(count) for count in (0, 1, 7, 8, 9, 40, 90)},
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_node_that_misbehaves_stops_nobody(made: tuple[Cluster, Played], what: str) -> None:
    cluster, played = made
    played.play = GARBAGE[what]
    decides(cluster, "a")
    decides(cluster, "b")


def test_lies_are_not_believed(made: tuple[Cluster, Played]) -> None:
    """Votes with bad signatures, votes for what nobody proposed, decisions without votes, another's status."""
    cluster, played = made
    evil = "e" * 40

    def lie(head: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        message = head.get("message", {})
        ballot = message.get("ballot")
        match head["verb"], message.get("kind"):
            case "paxos", "prepare":
                return {"message": {**message, "kind": "promise", "voted": [[1, ballot[1]], evil]}}, b""
            case "paxos", "accept":
                return {"message": {**message, "kind": "voted", "signature": "A" * 86 + "=="}}, b""
            case "hello", _:
                return {"head": evil, "status": head["status"], "recoveries": [{"recovery": {}}]}, b""
            case "history", _:
                after = head["after"]
                forged = {"head": after, "ballot": [1, ballot_node], "value": evil, "votes": {}}
                return {"founding": evil, "head": evil, "decisions": [forged]}, b"PACK" + os.urandom(100)
        return {"status": {}}, b""

    ballot_node = Home(cluster["a"].home).public_key().fingerprint
    played.play = answering(lie)
    for name in "abab":
        decides(cluster, name)
    for node in cluster.nodes.values():
        assert "Traceback" not in node.log.read_text()


def test_what_it_asks_for_moves_nothing(made: tuple[Cluster, Played]) -> None:
    cluster, played = made
    played.play = hang
    head = decides(cluster)
    own = Home(played.node.home)
    ballot = Ballot(7, own.public_key().fingerprint)
    evil = cluster.project.git("commit-tree", "-m", "not signed", "-p", head, f"{head}^{{tree}}")
    pack = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=cluster.project.folder,
        input=f"{evil}\n^{head}\n".encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    prepare = {"kind": "prepare", "head": head, "ballot": [7, ballot.node]}
    told = played.ask(cluster["a"], {"verb": "paxos", "message": prepare, "tip": evil}, pack)
    assert told is not None and told.head["message"]["kind"] == "promise"
    accept = {**prepare, "kind": "accept", "value": evil}
    refused = played.ask(cluster["a"], {"verb": "paxos", "message": accept})
    assert refused is not None and "refused" in refused.head
    signature = certificates.sign(own.private_key(), Instance(head), ballot, evil)
    forged = {"head": head, "ballot": [7, ballot.node], "value": evil, "votes": {ballot.node: signature}}
    answer = played.ask(cluster["a"], {"verb": "decided", "certificate": forged})
    assert answer is not None and "has 1 good votes" in answer.head["problem"]
    assert cluster["a"].main() == head
    objects = subprocess.run(["git", "cat-file", "-e", evil], cwd=cluster["a"].home / "ledger.git", capture_output=True)
    assert objects.returncode != 0, "what was not verified left the quarantine"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"verb": "nothing"},
        {"verb": "paxos"},
        {"verb": "paxos", "message": {"kind": "prepare", "head": "x", "ballot": [1, "y"]}},
        {"verb": "paxos", "message": {"kind": "voted", "head": "0" * 40, "ballot": [2**60, "SHA256:" + "a" * 43]}},
        {"verb": "history", "after": "0" * 40, "count": 10**15},
        {"verb": "history", "after": ["x"], "count": "many"},
        {"verb": "objects", "want": "--all", "have": "HEAD"},
        {"verb": "objects", "want": "0" * 40, "have": "f" * 40},
        {"verb": "decided", "certificate": {"head": "0" * 40}},
        {"verb": "decided", "certificate": None},
        {"verb": "applied", "commit": "0" * 40, "seconds": "x"},
        {"verb": "hello", "head": 5, "recoveries": "x", "status": 7},
        {
            "verb": "hello",
            "recoveries": [{"recovery": {"project": "p", "head": "0" * 40, "lost": {}}, "signatures": []}],
        },
        {"verb": "found", "port": 22},
    ],
    ids=json.dumps,
)
def test_nonsense_is_answered_with_a_problem(made: tuple[Cluster, Played], request_: dict[str, Any]) -> None:
    cluster, played = made
    answer = played.ask(cluster["a"], request_)
    assert answer is not None
    log = cluster["a"].log.read_text()
    assert "a neighbour's request failed" not in log


def test_its_key_opens_nothing_else(made: tuple[Cluster, Played]) -> None:
    cluster, played = made
    for command in ("git-receive-pack 'ledger'", "owsgit status", "owsgit invoke hello", "sh"):
        done = subprocess.run(
            ["ssh", "-i", str(played.node.home / "key"), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-p", str(cluster["a"].port), cluster["a"].address, command],
            capture_output=True, stdin=subprocess.DEVNULL, timeout=30,
        )  # fmt: skip
        assert done.returncode != 0 and b"a node's key is for nodes" in done.stderr


def test_many_sessions_that_send_nothing_or_half_a_frame_hold_nobody_up(made: tuple[Cluster, Played]) -> None:
    cluster, played = made

    async def hold() -> None:
        connection = await asyncssh.connect(
            cluster["a"].address, cluster["a"].port, username="x", client_keys=[str(played.node.home / "key")],
            known_hosts=None, config=None, agent_path=None,
        )  # fmt: skip
        for number in range(40):
            process = await connection.create_process(wire.COMMAND, encoding=None)
            process.stdin.write(b"\0\0\1\0" if number % 2 else b"")

    played.run(hold())
    decides(cluster)


# ---- a stranger at an empty node ----
class Stranger(Played):
    """Has a project of its own, and a key that no ledger names."""


def test_a_stranger_does_not_get_an_empty_node_to_take_its_project(
    tmp_path: Path, alice: Person, mallory: Person
) -> None:
    """Mallory founds a project, lists alice as a root and names alice's empty node in it: but alice signed nothing."""
    empty = Node(tmp_path / "empty", alice, "e", address="127.0.0.21")
    evil = Node(tmp_path / "evil", mallory, "m", address="127.0.0.22")
    files = {"nodes/e.json": empty.init(), "nodes/m.json": evil.init(), "users/alice.json": {"keys": [alice.public]}}
    files["project.json"] = {"name": "evil", "roots": ["mallory", "alice"]}
    project = projects.create(tmp_path / "evil-project", mallory, name="evil", files=files)
    empty.start()
    evil.start()
    try:
        assert nodes.push(project, evil, "HEAD:main", by=mallory).status == 0
        nodes.until(lambda: "not signed by this node's owner" in empty.log.read_text())
        assert empty.main() == ""
        assert "Permission denied" in nodes.push(project, empty, by=mallory).text
        own = projects.create(tmp_path / "own", alice, files={"nodes/e.json": json.loads(_show(empty, alice))})
        assert nodes.push(own, empty).status == 0
    finally:
        empty.stop()
        evil.stop()


def _show(node: Node, by: Person) -> str:
    return nodes.owsgit("node", "show", "--home", str(node.home), by=by).text


def test_what_a_stranger_answers_is_no_argument_of_git(tmp_path: Path, alice: Person) -> None:
    empty = Node(tmp_path / "empty", alice, "e", address="127.0.0.23")
    played = Node(tmp_path / "played", alice, "p", address="127.0.0.24")
    spec = empty.init()
    played.init()
    stranger = Stranger(played)
    empty.start()
    try:
        for told in ("+refs/heads/main:refs/heads/main", "--upload-pack=touch /tmp/x", "HEAD", 5, None):
            stranger.play = answering(lambda head, told=told: ({"founding": told, "head": told, "decisions": []}, b""))
            assert stranger.ask(empty, {"verb": "found", "port": played.port}) is not None
            time.sleep(0.5)
        assert empty.main() == ""
        own = projects.create(tmp_path / "own", alice, files={"nodes/e.json": spec})
        assert nodes.push(own, empty).status == 0
        empty.kill()
        assert empty.start().main() == own.head()
    finally:
        empty.stop()
        stranger.stop()
