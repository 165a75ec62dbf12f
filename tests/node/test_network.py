"""Partitions, loss, delay, wrong clocks and full disks between real nodes, each in a network namespace of its own."""

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import clusters, network, nodes
from tests.support.clusters import Cluster
from tests.support.network import Network
from tests.support.people import Person
from tests.support.projects import Project

pytestmark = [
    pytest.mark.hardware("network namespaces and TUN devices, which root may make"),
    pytest.mark.skipif(not network.possible(), reason="only root can make network namespaces with TUN devices"),
]

Made = tuple[Cluster, Network]


@pytest.fixture
def five(tmp_path: Path, alice: Person) -> Iterator[Made]:
    yield from _made(tmp_path, alice, "abcde")


@pytest.fixture
def three(tmp_path: Path, alice: Person) -> Iterator[Made]:
    yield from _made(tmp_path, alice, "abc")


def _made(folder: Path, alice: Person, names: str) -> Iterator[Made]:
    made = Network(names)
    try:
        with clusters.running(folder, alice, len(names), made) as cluster:
            yield cluster, made
    finally:
        made.close()


def test_a_minority_serves_refuses_pushes_and_catches_up_when_the_network_heals(five: Made) -> None:
    cluster, net = five
    net.split("ab", "cde")
    lost = cluster.change("minority")
    refused = cluster.push("a")
    assert refused.status != 0
    assert "2 of 5 nodes answered (a, b), 3 are needed; no answer from c, d, e" in refused.text, refused.text
    assert cluster.get("a") == "hello you"
    cluster.project.git("reset", "-q", "--hard", "HEAD^")
    commit = cluster.change("majority")
    done = cluster.push("d")
    assert done.status == 0 and "decided by c, d, e (3 of 5 nodes)" in done.text, done.text
    assert cluster.get("a") == "hello you" and cluster.get("e") == "majority you"
    net.heal()
    cluster.all_at(commit)
    assert cluster.get("a") == "majority you"
    assert lost not in cluster.project.git("ls-remote", cluster["a"].url())


def test_a_push_that_was_cut_off_half_way_is_told_and_can_be_pushed_again(three: Made) -> None:
    """The network fails between the question and the answer: the outcome is open, and the same push settles it."""
    cluster, net = three
    commit = cluster.change("half")
    timer = threading.Timer(0.12, lambda: net.split("a", "b", "c"))
    timer.start()
    first = cluster.push("a")
    timer.join()
    net.heal()
    if first.status != 0:
        again = cluster.push("b")
        assert again.status == 0 or "up-to-date" in again.text or "at this commit already" in again.text, again.text
    cluster.all_at(commit)


def test_one_way_partitions_do_not_stop_the_others(three: Made) -> None:
    cluster, net = three
    net.cut = {("a", "b")}  # b hears nothing of a; a hears b
    commit = cluster.change("one way")
    done = cluster.push("a")
    assert done.status == 0 and "decided by a, c (2 of 3 nodes)" in done.text, done.text
    nodes.until(lambda: cluster["b"].main() == commit, 60)  # by way of c
    net.cut = {("a", "b"), ("a", "c")}
    cluster.project.git("commit", "-q", "--allow-empty", "-S", "-m", "nobody hears a")
    assert cluster.push("a").status != 0
    net.heal()
    assert cluster.push("a").status == 0


def test_slow_and_lossy_lines_only_take_longer(three: Made) -> None:
    cluster, net = three
    net.delay_s, net.loss = 0.2, 0.05
    for name in "abc":
        commit = cluster.change(f"slow-{name}")
        done = cluster.push(name)
        assert done.status == 0, done.text
    cluster.all_at(commit)


@pytest.mark.soak
def test_a_clock_that_is_an_hour_off_does_no_harm(three: Made) -> None:
    cluster, _ = three
    for name, offset in (("a", "+1h"), ("b", "-1h")):
        cluster[name].stop()
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        wrong = [f"LD_PRELOAD={library}", f"FAKETIME={offset}"]
        cluster[name].prefix += ["env", *wrong]
        cluster[name].start()
    for name in "abc":
        commit = cluster.change(f"clock-{name}")
        done = cluster.push(name, "-o", "acks=all")
        assert done.status == 0, done.text
    cluster.all_at(commit)
    times = {row["node"]: row["lastContact"] for row in cluster["c"].status()["nodes"]}
    assert abs(_hour(times["a"]) - _hour(times["c"])) <= 1  # contact is told by the own clock


def _hour(stamp: str) -> int:
    return int(stamp[11:13])


@pytest.mark.soak
def test_a_full_disk_takes_one_vote_and_no_more(three: Made, tmp_path: Path) -> None:
    """c cannot write: it promises nothing, votes for nothing, and catches up once there is room."""
    cluster, _ = three
    home = cluster["c"].home
    cluster["c"].stop()
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{home}/.", str(small)], check=True)
        subprocess.run(["mount", "--bind", str(small), str(home)], check=True)
        cluster["c"].start()
        filler = home / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True)
        commit = cluster.change("full")
        done = cluster.push("a")
        assert done.status == 0 and "decided by a, b (2 of 3 nodes)" in done.text, done.text
        cluster["b"].kill()
        cluster.change("fuller")
        assert cluster.push("a").status != 0
        filler.unlink()
        again = cluster.push("a")
        assert again.status == 0, again.text
        nodes.until(lambda: cluster["c"].main() == cluster["a"].main())
        assert commit in cluster.project.git("rev-list", "HEAD")
    finally:
        cluster["c"].stop()
        subprocess.run(["umount", "-l", str(home)], capture_output=True)
        subprocess.run(["umount", "-l", str(small)], capture_output=True)


@dataclass
class Attempt:
    """One push of one pusher."""

    commit: str
    began: float
    ended: float
    acknowledged: bool


@dataclass
class Pusher:
    """Somebody who fetches, commits and pushes to one node again and again, as people do."""

    clone: Project
    url: str
    attempts: list[Attempt] = field(default_factory=list)

    def run(self, stop: threading.Event, name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            if self.clone.try_git("fetch", "-q", self.url, "main").status != 0:
                time.sleep(0.2)
                continue
            self.clone.git("reset", "-q", "--hard", "FETCH_HEAD")
            self.clone.write(f"notes-{name}.md", f"{number}\n")
            commit = self.clone.commit(f"{name} {number}")
            began = time.monotonic()
            done = self.clone.try_git("push", "-q", "-o", "no-wait", self.url, "HEAD:main")
            self.attempts.append(Attempt(commit, began, time.monotonic(), done.status == 0))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(1, 11 if os.environ.get("OWSGIT_SOAK") else 2))
def test_acknowledged_pushes_are_linearizable_whatever_happens(
    five: Made, tmp_path: Path, alice: Person, seed: int
) -> None:
    """Five pushers, one on each node, while partitions come and go and nodes are killed."""
    cluster, net = five
    chance = random.Random(seed)
    pushers = []
    for name in "abcde":
        cluster.project.git("clone", "-q", cluster[name].url(), str(tmp_path / f"clone-{name}"))
        pushers.append(Pusher(Project(tmp_path / f"clone-{name}", alice), cluster[name].url()))
    stop = threading.Event()
    threads = [
        threading.Thread(target=pusher.run, args=(stop, name)) for name, pusher in zip("abcde", pushers, strict=True)
    ]
    for thread in threads:
        thread.start()
    _trouble(cluster, net, chance, 25)
    stop.set()
    for thread in threads:
        thread.join()
    net.heal()
    for node in cluster.nodes.values():
        if node.process is None or node.process.poll() is not None:
            node.start()
    attempts = [attempt for pusher in pushers for attempt in pusher.attempts]
    acknowledged = [attempt for attempt in attempts if attempt.acknowledged]
    assert len(acknowledged) >= 5, f"only {len(acknowledged)} of {len(attempts)} pushes were decided"
    nodes.until(lambda: len({node.main() for node in cluster.nodes.values()}) == 1, 90)
    chain = subprocess.run(
        ["git", "rev-list", "--first-parent", "--reverse", "main"],
        cwd=cluster["a"].home / "ledger.git", capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    place = {commit: index for index, commit in enumerate(chain)}
    missing = [attempt for attempt in acknowledged if attempt.commit not in place]
    assert not missing, f"acknowledged and lost: {missing}"
    for one in acknowledged:
        for other in acknowledged:
            assert not (one.ended < other.began and place[one.commit] > place[other.commit]), (one, other)


def _trouble(cluster: Cluster, net: Network, chance: random.Random, seconds: float) -> None:
    """Partitions in one direction or both, kills and restarts; never so much that nothing is ever decided."""
    end = time.monotonic() + seconds
    names = sorted(cluster.nodes)
    steps: list[Callable[[], None]] = [
        lambda: net.split("".join(side := chance.sample(names, 2)), "".join(set(names) - set(side))),
        lambda: setattr(net, "cut", {(chance.choice(names), chance.choice(names)) for _ in range(4)}),
        lambda: _restart(cluster, chance.choice(names)),
        net.heal,
        lambda: setattr(net, "loss", 0.05),
    ]
    while time.monotonic() < end:
        chance.choice(steps)()
        time.sleep(chance.uniform(0.5, 2.5))


def _restart(cluster: Cluster, name: str) -> None:
    cluster[name].kill()
    time.sleep(0.3)
    cluster[name].start()
