"""Equal nodes: any of them takes the push, the majority decides, all of them serve. Real processes on loopback."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import clusters, nodes, projects
from tests.support.clusters import Cluster
from tests.support.nodes import Node, owsgit
from tests.support.people import Person
from tests.support.projects import Project


@pytest.fixture
def three(tmp_path: Path, alice: Person) -> Iterator[Cluster]:
    with clusters.running(tmp_path, alice, 3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[Cluster]:
    with clusters.running(tmp_path_factory.mktemp("lasting"), alice, 3, loopback="127.0.1") as cluster:
        yield cluster


@pytest.fixture
def shared(lasting: Cluster) -> Cluster:
    """For tests that leave the nodes, and who they are, as they were; what they serve is another test's."""
    lasting.mend()
    return lasting


def connected(cluster: Cluster, folder: Path, by: Person) -> Project:
    """A clone by `owsgit clone`, which trusts the project id alone."""
    project_id = cluster["a"].status()["project"]["id"]
    done = owsgit("clone", cluster["a"].url(), str(folder), "--project", project_id, by=by)
    assert done.status == 0, done.text
    return Project(folder, by)


def test_any_node_takes_the_push_and_all_serve_it(shared: Cluster) -> None:
    for word, name in (("one", "a"), ("two", "b"), ("three", "c")):
        commit = shared.change(word)
        done = shared.push(name, "-o", "acks=all")
        assert done.status == 0, done.text
        assert re.search(r"decided by \w, \w(, \w)? \([23] of 3 nodes\)", done.text)
        assert "applied on all 3 nodes" in done.text
        assert [shared.get(each) for each in "abc"] == [f"{word} you"] * 3
        assert {node.main() for node in shared.nodes.values()} == {commit}


def test_a_killed_node_is_not_missed_and_catches_up_by_itself(shared: Cluster) -> None:
    shared["a"].kill()
    first = shared.change("one")
    done = shared.push("b", "-o", "acks=majority")
    assert done.status == 0 and "decided by b, c (2 of 3 nodes)" in done.text, done.text
    second = shared.change("two")
    assert shared.push("c").status == 0
    assert first != second
    shared["a"].start()
    shared.all_at(second)
    assert shared.get("a") == "two you"


def test_without_a_majority_a_push_is_refused_and_the_rest_goes_on_serving(shared: Cluster) -> None:
    before, said = shared["a"].main(), shared.get("a")
    shared["b"].kill()
    shared["c"].kill()
    commit = shared.change("alone")
    refused = shared.push("a")
    assert refused.status != 0
    assert "1 of 3 nodes answered (a), 2 are needed; no answer from b, c" in refused.text
    assert "your clone" in refused.text
    assert shared["a"].main() == before and shared.get("a") == said
    shared["c"].start()
    again = shared.push("a")
    assert again.status == 0, again.text
    shared["b"].start()
    shared.all_at(commit)
    assert shared.get("b") == "alone you"


def test_a_node_that_hangs_slows_nobody_down(shared: Cluster) -> None:
    assert shared["c"].process is not None
    os.kill(shared["c"].process.pid, signal.SIGSTOP)
    try:
        shared.change("one")
        began = time.monotonic()
        done = shared.push("a")
        assert done.status == 0 and "decided by a, b (2 of 3 nodes)" in done.text, done.text
        assert time.monotonic() - began < 10
        commit = shared.change("two")
        assert shared.push("b").status == 0
    finally:
        os.kill(shared["c"].process.pid, signal.SIGCONT)
    shared.all_at(commit)


def test_of_pushes_at_once_one_wins_and_the_others_fetch_first(shared: Cluster, tmp_path: Path, alice: Person) -> None:
    clones = []
    for name in "abc":
        shared.project.git("clone", "-q", shared[name].url(), str(tmp_path / f"clone-{name}"))
        clones.append(Project(tmp_path / f"clone-{name}", alice))
    for round_ in range(4):
        outcomes: dict[str, projects.Done] = {}

        def push(name: str, clone: Project, outcomes: dict[str, projects.Done] = outcomes) -> None:
            outcomes[name] = clone.try_git("push", "-q", "-o", "no-wait", "origin", "HEAD:main")

        for name, clone in zip("abc", clones, strict=True):
            clone.write(f"notes-{name}.md", f"round {round_}\n")
            clone.commit(f"{name} in round {round_}")
        pushing = [threading.Thread(target=push, args=pair) for pair in zip("abc", clones, strict=True)]
        for thread in pushing:
            thread.start()
        for thread in pushing:
            thread.join()
        won = [name for name, done in outcomes.items() if done.status == 0]
        assert len(won) == 1, {name: done.text for name, done in outcomes.items()}
        assert all("fetch first" in done.text for name, done in outcomes.items() if name not in won), outcomes
        winner = clones["abc".index(won[0])].head()
        nodes.until(lambda winner=winner: {node.main() for node in shared.nodes.values()} == {winner})
        for clone in clones:
            clone.git("-c", "commit.gpgSign=true", "pull", "-q", "--rebase", "origin", "main")
    history = clones[0].git("log", "--first-parent", "--format=%s").splitlines()
    assert len([line for line in history if " in round " in line]) >= 4


@pytest.mark.parametrize(
    "options",
    [
        ["--atomic"],
        ["--signed=if-asked"],
        ["--signed", "--atomic"],
        ["-o", "acks=2"],
        ["--force-with-lease=main:{main}"],
    ],
)
def test_gits_own_ways_to_push_work(shared: Cluster, options: list[str]) -> None:
    shared.change("again")
    done = shared.push("b", *(option.format(main=shared["b"].main()) for option in options))
    assert done.status == 0, done.text


def test_status_shows_all_nodes_from_any_of_them(shared: Cluster, tmp_path: Path, alice: Person) -> None:
    commit = shared.change("one")
    assert shared.push("a", "-o", "acks=all").status == 0
    clone = connected(shared, tmp_path / "clone", alice)
    for name in "abc":
        nodes.until(
            lambda name=name: all(
                row["reachable"]
                and row["head"] == row["applied"] == commit
                and row["behind"] == 0
                and row["lastContact"]
                for row in shared[name].status()["nodes"]
            )
        )
    assert owsgit("status", "--node", "b", by=alice, cwd=clone.folder).status == 0
    shared["c"].kill()
    shared.change("two")
    assert shared.push("a").status == 0
    nodes.until(lambda: not shared["a"].status()["nodes"][2]["reachable"])
    row = shared["a"].status()["nodes"][2]
    assert row["node"] == "c" and row["behind"] == 1 and row["problem"]
    shown = owsgit("status", by=alice, cwd=clone.folder)
    assert shown.status == 1
    assert re.search(rf"^c +NO +{commit[:10]} +1 +{commit[:10]}", shown.text, re.MULTILINE), shown.text


def test_notes_show_which_node_runs_which_commit_and_who_decided_it(
    three: Cluster, tmp_path: Path, alice: Person
) -> None:
    commit = three.change("one")
    assert three.push("b", "-o", "acks=all").status == 0
    clone = connected(three, tmp_path / "clone", alice)

    def noted() -> bool:
        clone.git("fetch", "-q", "origin")
        text = clone.git("log", "-1", "--notes=owsgit/*", commit)
        return all("runs here since" in text and f"node {name}," in text for name in "abc") and '"votes":{' in text

    nodes.until(noted)
    clone.git("notes", "--ref=owsgit/votes", "add", "-f", "-m", "mine", commit)
    assert "is not a ref of the ledger" in clone.try_git("push", "-f", "origin", "refs/notes/owsgit/votes").text
    clone.git("fetch", "-q", "origin")
    done = owsgit("verify", "--decided", by=alice, cwd=clone.folder)
    assert done.status == 0 and "1 head with the votes of their majority" in done.text
    clone.write("README.md", "mine\n")
    clone.commit()
    mine = owsgit("verify", by=alice, cwd=clone.folder)
    assert mine.status == 0 and "1 commit after it not decided (yet), as far as was fetched" in mine.text
    assert owsgit("verify", "--decided", by=alice, cwd=clone.folder).status == 1


def test_votes_that_are_forged_missing_or_too_few_are_found(three: Cluster, tmp_path: Path, alice: Person) -> None:
    for word in ("one", "two", "three"):
        commit = three.change(word)
        assert three.push("a").status == 0
    clone = connected(three, tmp_path / "clone", alice)
    nodes.until(lambda: clone.git("fetch", "-q", "origin") == "" and "heads with" in _verified(clone, alice, "3 heads"))
    ref = "--ref=owsgit/votes"
    note = json.loads(clone.git("notes", ref, "show", commit))

    def with_note(changed: dict[str, object]) -> str:
        clone.git("notes", ref, "add", "-f", "-m", json.dumps(changed), commit)
        done = owsgit("verify", by=alice, cwd=clone.folder)
        assert done.status == 1, done.text
        return done.text

    one = dict(list(note["votes"].items())[:1])
    assert "has 1 good votes" in with_note({**note, "votes": one})
    other = json.loads(clone.git("notes", ref, "show", f"{commit}^"))
    swapped = dict(zip(note["votes"], other["votes"].values(), strict=False))
    assert "has 0 good votes" in with_note({**note, "votes": swapped})
    assert "not a certificate" in with_note({**note, "votes": "all"})
    clone.git("notes", ref, "add", "-f", "-m", json.dumps(note), commit)
    clone.git("notes", ref, "remove", f"{commit}^")
    done = owsgit("verify", by=alice, cwd=clone.folder)
    assert done.status == 1 and "the votes for what lies between" in done.text.replace("\n", " ")


def _verified(clone: Project, by: Person, wanted: str) -> str:
    text = owsgit("verify", by=by, cwd=clone.folder).text
    return text if wanted in text else ""


def test_a_node_joins_by_the_address_of_any_other_and_is_removed_again(
    three: Cluster, tmp_path: Path, alice: Person
) -> None:
    project_id = three["a"].status()["project"]["id"]
    fourth = Node(tmp_path / "node-d", alice, "d", port=three["a"].port, address="127.0.0.4")
    wrong = owsgit(
        "node",
        "join",
        three["b"].url(),
        "d",
        "--project",
        project_id[:-1] + "qp"[project_id[-1] == "q"],
        "--home",
        str(fourth.home),
        by=alice,
    )
    assert wrong.status == 1 and not fourth.home.exists()
    joined = owsgit(
        "node", "join", three["b"].url(), "d", "--project", project_id, "--home", str(fourth.home),
        "--address", fourth.address, "--ssh-port", str(fourth.port), "--aws-port", "0", by=alice,
    )  # fmt: skip
    assert joined.status == 0, joined.text
    taken = owsgit(
        "node", "join", three["b"].url(), "c", "--project", project_id, "--home", str(tmp_path / "x"), by=alice
    )
    assert taken.status == 1 and "has a node 'c' already" in taken.text and not (tmp_path / "x").exists()
    three.nodes["d"] = fourth.start()
    assert fourth.main() == three["a"].main()
    assert fourth.status()["resources"] == [] and "does not name this node yet" in fourth.status()["warnings"][0]
    three.project.write("nodes/d.json", json.loads(joined.text))
    commit = three.project.commit("A fourth node")
    done = three.push("c", "-o", "acks=all")
    assert done.status == 0, done.text
    three.all_at(commit)
    assert three.get("d") == "hello you"
    commit = three.change("four")
    done = three.push("d", "-o", "acks=all")
    assert done.status == 0 and "of 4 nodes" in done.text and "applied on all 4 nodes" in done.text, done.text
    three.project.git("rm", "-q", "nodes/d.json")
    gone = three.project.commit("Three are enough")
    assert three.push("d").status == 0
    nodes.until(lambda: "does not name this node since" in fourth.status()["problem"])
    nodes.until(lambda: fourth.status()["resources"] == [])  # what it would serve would be stale
    after = three.change("three")
    refused = three.push("d")
    assert refused.status != 0 and "push to one of a, b, c" in refused.text
    done = three.push("a")
    assert done.status == 0 and "of 3 nodes" in done.text
    assert fourth.main() == gone and three["b"].main() == after


def test_a_new_node_of_the_owner_needs_no_more_than_its_file(three: Cluster, tmp_path: Path, alice: Person) -> None:
    """An empty node with the owner's key is found by the others, and takes the whole project from them."""
    fourth = Node(tmp_path / "node-d", alice, "d", port=three["a"].port, address="127.0.0.4")
    three.project.write("nodes/d.json", fourth.init())
    three.nodes["d"] = fourth.start()
    commit = three.project.commit("A fourth node")
    assert three.push("a").status == 0
    three.all_at(commit)
    assert three.get("d") == "hello you"


def test_a_node_that_was_removed_while_it_was_away_learns_of_it(three: Cluster) -> None:
    three["c"].kill()
    three.project.git("rm", "-q", "nodes/c.json")
    three.project.commit("Two are enough")
    assert three.push("a").status == 0
    three.change("later")
    assert three.push("b").status == 0
    three["c"].start()
    nodes.until(lambda: "does not name this node since" in three["c"].status()["problem"])


def test_after_the_loss_of_a_majority_the_roots_go_on_with_the_rest(
    three: Cluster, tmp_path: Path, alice: Person
) -> None:
    clone = connected(three, tmp_path / "clone", alice)
    refused = owsgit("node", "recover", "--lost", "b", by=alice, cwd=clone.folder)
    assert refused.status == 1 and "b answers: it is not lost" in refused.text
    three["b"].kill()
    three["c"].kill()
    half = owsgit("node", "recover", "--lost", "b", by=alice, cwd=clone.folder)
    assert half.status == 3 and "c does not answer" in half.text
    done = owsgit("node", "recover", "--lost", "b", "--lost", "c", by=alice, cwd=clone.folder)
    assert done.status == 0 and "recovered at" in done.text, done.text
    three.project.git("rm", "-q", "nodes/b.json", "nodes/c.json")
    three.project.commit("Two were lost")
    pushed = three.push("a")
    assert pushed.status == 0, pushed.text
    commit = three.change("alone")
    assert three.push("a").status == 0
    three["a"].kill()
    three["a"].start()
    nodes.until(lambda: three["a"].status()["applied"] == commit)
    clone.git("fetch", "-q", "origin")
    nodes.until(lambda: clone.git("fetch", "-q", "origin") == "" and _decided(clone, alice, "origin/main"))

    lost = three["b"].start()
    assert lost.process is not None
    assert lost.process.wait(30) != 0
    assert "have declared this node (b) lost" in lost.log.read_text() and "owsgit node join" in lost.log.read_text()
    again = owsgit("node", "run", "--home", str(lost.home), by=alice)
    assert again.status == 3 and "have declared this node (b) lost" in again.text


def _decided(clone: Project, by: Person, revision: str) -> bool:
    return owsgit("verify", "--decided", "--revision", revision, by=by, cwd=clone.folder).status == 0


def test_a_recovery_needs_the_roots(three: Cluster, tmp_path: Path, alice: Person, bob: Person) -> None:
    """Bob is a user, but no root; and where two roots are asked for, one is not enough."""
    three.project.write("users/bob.json", {"keys": [bob.public]})
    three.project.commit("Bob")
    assert three.push("a", "-o", "acks=all").status == 0
    bobs = connected(three, tmp_path / "bobs", bob)
    three["b"].kill()
    three["c"].kill()
    refused = owsgit("node", "recover", "--lost", "b", "--lost", "c", by=bob, cwd=bobs.folder)
    assert refused.status == 1 and "which is no root's key" in refused.text
    three["b"].start()
    project = json.loads((three.project.folder / "project.json").read_text())
    three.project.write("project.json", {**project, "roots": ["alice", "bob"], "rootQuorum": 2})
    three.project.commit("Two roots")
    assert three.push("a").status == 0
    nodes.until(lambda: three["b"].main() == three["a"].main())
    three["b"].kill()
    clone = connected(three, tmp_path / "clone", alice)
    first = owsgit("node", "recover", "--lost", "b", "--lost", "c", by=alice, cwd=clone.folder)
    assert first.status == 0 and '"signatures"' in first.text
    (tmp_path / "statement.json").write_text(first.text)
    one = subprocess.run(
        [*alice.environment["GIT_SSH_COMMAND"].split(), "-p", str(three["a"].port), three["a"].address, "owsgit recover"],
        input=first.text.encode(), capture_output=True,
    )  # fmt: skip
    assert one.returncode == 1 and b"needs the signatures of 2 roots and has 1" in one.stderr
    bobs.git("pull", "-q", "origin", "main")
    both = owsgit(
        "node",
        "recover",
        "--lost",
        "b",
        "--lost",
        "c",
        "--with",
        str(tmp_path / "statement.json"),
        by=bob,
        cwd=bobs.folder,
    )
    assert both.status == 0 and "recovered at" in both.text, both.text
    three.change("alone")
    assert three.push("a").status == 0


def test_a_backup_is_a_node_again_on_another_machine(three: Cluster, tmp_path: Path, alice: Person) -> None:
    file = tmp_path / "c.backup"
    done = owsgit("backup", str(file), "--home", str(three["c"].home), by=alice)
    assert done.status == 0 and file.stat().st_mode & 0o077 == 0
    three["c"].kill()
    three.change("one")
    assert three.push("a").status == 0
    home = tmp_path / "restored"
    restored = owsgit("restore", str(file), "--home", str(home), by=alice)
    assert restored.status == 0, restored.text
    assert owsgit("restore", str(file), "--home", str(home), by=alice).status == 1
    three.nodes["c"] = Node(home, alice, "c", port=three["c"].port, address=three["c"].address).start()
    three.all_at(three["a"].main())
    assert three.get("c") == "one you"
    assert "restored from a backup" in three["c"].status()["warnings"][0]
    three.change("two")
    refused = three.push("c")
    assert refused.status != 0 and "restored from a backup" in refused.text
    decided = three.push("a")
    assert decided.status == 0 and "decided by a, b (2 of 3 nodes)" in decided.text
    three.change("three")
    assert "decided by" in three.push("b", "-o", "acks=all").text  # from now on c may vote, once it knows
    three.change("four")
    assert three.push("c", "-o", "acks=all").status == 0
    three["a"].kill()
    three.change("five")
    assert "decided by b, c (2 of 3 nodes)" in three.push("b").text


@pytest.mark.soak
def test_a_backup_without_the_key_is_a_new_node(three: Cluster, tmp_path: Path, alice: Person) -> None:
    file = tmp_path / "c.backup"
    assert owsgit("backup", str(file), "--home", str(three["c"].home), "--no-key", by=alice).status == 0
    three["c"].kill()
    home = tmp_path / "restored"
    restored = owsgit("restore", str(file), "--home", str(home), by=alice)
    assert restored.status == 0, restored.text
    three.project.write("nodes/c.json", json.loads(restored.text))
    commit = three.project.commit("c has a new key")
    three.nodes["c"] = Node(home, alice, "c", port=three["c"].port, address=three["c"].address).start()
    assert three.push("a").status == 0
    three.all_at(commit)
    three["b"].kill()
    three.change("new")
    assert "decided by a, c" in three.push("c").text


@pytest.mark.soak
def test_a_damaged_backup_is_refused(three: Cluster, tmp_path: Path, alice: Person) -> None:
    file = tmp_path / "c.backup"
    assert owsgit("backup", str(file), "--home", str(three["c"].home), by=alice).status == 0
    data = bytearray(file.read_bytes())
    for at in (3, len(data) // 3, len(data) // 2):
        broken = tmp_path / "broken"
        broken.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        done = owsgit("restore", str(broken), "--home", str(tmp_path / "r"), by=alice)
        assert done.status == 1 and "Traceback" not in done.text, done.text
        assert not (tmp_path / "r").exists()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    assert owsgit("restore", str(tmp_path / "cut"), "--home", str(tmp_path / "r"), by=alice).status == 1


@pytest.mark.soak
def test_when_all_are_restored_the_roots_have_them_go_on(three: Cluster, tmp_path: Path, alice: Person) -> None:
    clone = connected(three, tmp_path / "clone", alice)
    for name in "abc":
        file = tmp_path / f"{name}.backup"
        assert owsgit("backup", str(file), "--home", str(three[name].home), by=alice).status == 0
    for name in "abc":
        three[name].kill()
        home = tmp_path / f"restored-{name}"
        assert owsgit("restore", str(tmp_path / f"{name}.backup"), "--home", str(home), by=alice).status == 0
        three.nodes[name] = Node(home, alice, name, port=three[name].port, address=three[name].address).start()
    three.change("one")
    refused = three.push("a")
    assert refused.status != 0 and "restored from a backup" in refused.text
    nodes.until(lambda: all(row["reachable"] for row in three["a"].status()["nodes"]))
    done = owsgit("node", "recover", "--restored", by=alice, cwd=clone.folder)
    assert done.status == 0 and "a, b, c decide from now on" in done.text, done.text
    for word, name in (("one", "a"), ("two", "b"), ("three", "c")):
        if word != "one":
            three.change(word)
        pushed = three.push(name, "-o", "acks=all")
        assert pushed.status == 0, pushed.text
    assert [three.get(each) for each in "abc"] == ["three you"] * 3
    assert "abstains" not in json.dumps(three["a"].status()["warnings"])


def test_a_recovery_is_not_for_everyday_losses(shared: Cluster, tmp_path: Path, alice: Person) -> None:
    clone = connected(shared, tmp_path / "clone", alice)
    shared["b"].kill()
    refused = owsgit("node", "recover", "--lost", "b", by=alice, cwd=clone.folder)
    assert refused.status == 1 and "they decide without a recovery" in refused.text
    unknown = owsgit("node", "recover", "--lost", "z", by=alice, cwd=clone.folder)
    assert unknown.status == 1 and "names no node 'z'" in unknown.text


def test_to_wait_for_a_node_that_is_away_does_not_take_long(shared: Cluster) -> None:
    shared["c"].kill()
    shared.change("one")
    began = time.monotonic()
    done = shared.push("a", "-o", "acks=all")
    assert done.status == 0 and "not yet on c" in done.text
    assert time.monotonic() - began < 20


def test_a_projects_only_node_goes_on_after_a_restore(tmp_path: Path, alice: Person) -> None:
    with clusters.running(tmp_path, alice, 1) as one:
        file = tmp_path / "a.backup"
        assert owsgit("backup", str(file), "--home", str(one["a"].home), by=alice).status == 0
        one["a"].kill()
        for options, status in (([], 1), (["--only-node"], 0)):
            home = tmp_path / f"restored{len(options)}"
            assert owsgit("restore", str(file), "--home", str(home), *options, by=alice).status == 0
            one.nodes["a"] = Node(home, alice, "a", port=one["a"].port, address=one["a"].address).start()
            one.change(f"restored {len(options)}")
            assert one.push("a").status == status
            one["a"].kill()
