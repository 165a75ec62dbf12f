"""Review: proposals, approvals and rejections by plain git and by the command line, among three nodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import clusters, nodes, projects
from tests.support.clusters import Cluster
from tests.support.nodes import owsgit
from tests.support.people import Person
from tests.support.projects import Done, Project


@pytest.fixture(scope="module")
def three(
    tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person, carol: Person, mallory: Person
) -> Iterator[Cluster]:
    made = clusters.on_loopback(folder := tmp_path_factory.mktemp("review"), alice, 3)
    try:
        cluster = clusters.found(folder, alice, made, projects.reviewers(bob, carol, mallory))
        cluster.all_at(cluster.project.head())
        yield cluster
    finally:
        clusters.stop(made)


LATER = ("moved", "by nobody", "not proposed", "a commit")


class Desk:
    """A colleague's clone."""

    def __init__(self, three: Cluster, folder: Path, person: Person) -> None:
        self.three, self.person = three, person
        folder.mkdir(parents=True)
        three.project.git("clone", "-q", three["a"].url(), str(folder), by=person)
        self.project = Project(folder, person)
        for name, node in three.nodes.items():
            self.project.git("remote", "add", name, node.url())

    def __call__(self, *arguments: str) -> Done:
        return owsgit(*arguments, by=self.person, cwd=self.project.folder)

    def fresh(self) -> str:
        """Be at main."""
        self.project.git("fetch", "-q", "a")
        self.project.git("reset", "-q", "--hard", "a/main")
        return self.project.head()

    def propose(self, node: str = "a", *options: str) -> Done:
        return self.project.try_git("push", *options, node, "HEAD:refs/for/main")

    def listed(self, node: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("proposals", "-n", node, "-o", "json").text)
        return found

    def widen(self, subject: str, *policies: str) -> str:
        self.project.write("users/dave.json", {"policies": list(policies), "fullName": subject})
        return self.project.commit(subject)


@pytest.fixture
def desks(
    three: Cluster, tmp_path: Path, bob: Person, carol: Person, mallory: Person, alice: Person
) -> dict[str, Desk]:
    made = {each.name: Desk(three, tmp_path / each.name, each) for each in (alice, bob, carol, mallory)}
    for desk in made.values():
        desk.fresh()
    return made


def test_an_outsiders_proposal_is_applied_by_two_of_ops_each_on_another_node(
    three: Cluster, desks: dict[str, Desk]
) -> None:
    tip = desks["mallory"].widen("Dave may propose", "propose")
    done = desks["mallory"].propose("a")
    assert done.status == 0, done.text
    assert "not allowed yet" in done.text and "mallory may not iam:AttachUserPolicy" in done.text
    assert "~ user dave" in done.text and "refs/proposals/mallory/dave-may-propose/1" in done.text
    assert three["a"].main() != tip
    (found,) = nodes.until(lambda: desks["bob"].listed("b"))
    assert (found["commit"], found["status"]) == (tip, "2 permissions missing")
    number = str(found["number"])
    early = desks["bob"]("approve", number, "-n", "b")
    assert early.status != 0 and "you have not looked at mallory/dave-may-propose" in early.text
    shown = desks["bob"]("show", number, "-n", "b")
    assert (
        "more than one approval, of bob and carol, or one by alice" in shown.text
        and '+  "fullName": "Dave may propose"' in shown.text
    )
    first = desks["bob"]("approve", number, "-m", "fine with me", "-n", "b")
    assert first.status == 0 and "it is not applied yet" in first.text, first.text
    assert three["b"].main() != tip
    nodes.until(lambda: desks["carol"].listed("c")[0]["approvedBy"] == ["bob"])
    assert "bob approves: fine with me" in desks["carol"]("show", number, "-n", "c").text
    second = desks["carol"]("approve", number, "-n", "c")
    assert second.status == 0 and f"main is now {tip[:10]}, decided by" in second.text, second.text
    three.all_at(tip)
    nodes.until(lambda: not desks["bob"].listed("b"))
    desks["bob"].project.git("fetch", "-q", "a")
    log = json.loads(desks["bob"]("log", "a/main", "-c", "1", "-o", "json").text)
    assert log[0]["approvers"] == ["bob", "carol"]


@pytest.mark.soak
def test_who_only_watches_later_verifies_it_all(three: Cluster, desks: dict[str, Desk], tmp_path: Path) -> None:
    """A clone, and a node that joins afterwards, check the approvals themselves."""
    bob, carol = desks["bob"], desks["carol"]
    tip = bob.widen("Dave is called Dave")
    assert bob.propose("b").status == 0
    number = str(nodes.until(lambda: carol.listed("a"))[0]["number"])
    assert carol("approve", "-y", number, "-n", "a").status == 0
    three.all_at(tip)
    project = three["a"].status()["project"]["id"]
    where = tmp_path / "watched"
    done = nodes.until(
        lambda: (
            (done := owsgit("clone", three["b"].url(), str(where), "--project", project, by=bob.person)).status == 0
            and done
        )
    )
    assert done.status == 0
    assert owsgit("verify", "--decided", by=bob.person, cwd=where).status == 0
    stolen = Project(where, bob.person)
    stolen.git("update-ref", "-d", "refs/notes/owsgit/reviews")
    refused = owsgit("verify", by=bob.person, cwd=where)
    assert refused.status == 1 and "may not iam:" in refused.text
    newcomer = nodes.Node(tmp_path / "late", three.project.owner, "late", address="127.0.0.9")
    alice = desks["alice"]
    alice.fresh()
    alice.project.write("nodes/late.json", newcomer.init())
    alice.project.commit("one more node")
    assert alice.project.try_git("push", "a", "HEAD:main").status == 0
    newcomer.start()
    try:
        nodes.until(lambda: newcomer.main() == alice.project.head(), 60)
        alice.project.git("rm", "-q", "nodes/late.json")
        alice.project.commit("and away")
        assert alice.project.try_git("push", "a", "HEAD:main").status == 0
    finally:
        newcomer.stop()


def test_a_changed_proposal_has_lost_its_approvals(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, carol, mallory = desks["bob"], desks["carol"], desks["mallory"]
    mallory.widen("First try", "propose")
    assert mallory.propose("a", "-o", "topic=dave").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    assert bob("approve", "-y", number, "-n", "a").status == 0
    mallory.project.write("users/dave.json", {"policies": ["review"]})
    mallory.project.git("add", "--all")
    mallory.project.git("commit", "-q", "-S", "--amend", "-m", "Second try")
    done = mallory.propose("b", "-o", "topic=dave")
    assert done.status == 0 and f"proposal {number} (mallory/dave, version 2)" in done.text, done.text
    nodes.until(lambda: carol.listed("c") and carol.listed("c")[0]["commit"] == mallory.project.head())
    assert carol.listed("c")[0]["approvedBy"] == []
    stale = carol("approve", number, "-n", "c")
    assert stale.status != 0 and "version 2" in stale.text
    assert carol("approve", "-y", number, "-n", "c").status == 0
    assert three["a"].main() != mallory.project.head()
    withdrawn = mallory("reject", number, "-n", "a")
    assert withdrawn.status == 0 and "mallory withdraws" in withdrawn.text, withdrawn.text
    for name in "abc":
        nodes.until(lambda name=name: not bob.listed(name))


def test_a_rejection_stops_it_and_an_approval_can_be_taken_back(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, carol, mallory = (desks[name] for name in ("bob", "carol", "mallory"))
    tip = mallory.widen("Something for dave", "review")
    assert mallory.propose("a").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    assert bob("approve", "-y", number, "-n", "a").status == 0
    back = bob("reject", number, "-m", "on second thoughts", "-n", "a")
    assert back.status == 0 and "bob rejects" in back.text, back.text
    done = carol("approve", "-y", number, "-n", "a")
    assert done.status == 0 and "rejected by bob" in done.text, done.text
    assert three["a"].main() != tip
    direct = carol.project.try_git("push", "a", f"{tip}:refs/heads/main")
    assert direct.status != 0 and "mallory may not iam:" in direct.text
    again = bob("approve", "-y", number, "-n", "a")
    assert f"main is now {tip[:10]}" in again.text, again.text
    three.all_at(tip)


def test_main_overtakes_a_proposal_and_it_says_how_to_rebase(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, carol, alice, mallory = (desks[name] for name in ("bob", "carol", "alice", "mallory"))
    mallory.widen("Slow", "review")
    assert mallory.propose("a").status == 0
    alice.project.write("docs/a.md", "hi\n")
    alice.project.commit("something else")
    assert alice.project.try_git("push", "a", "HEAD:main").status == 0
    (found,) = bob.listed("a")
    assert found["status"] == "overtaken by main"
    shown = bob("show", str(found["number"]), "-n", "a")
    assert "git rebase -S a/main && git push -o topic=slow a HEAD:refs/for/main" in shown.text
    refused = bob("approve", "-y", str(found["number"]), "-n", "a")
    assert refused.status == 1 and "main has moved on" in refused.text and "can rebase it" in refused.text
    mallory.project.git("fetch", "-q", "a")
    mallory.project.git("rebase", "-q", "-S", "a/main")
    done = mallory.propose("a", "-o", "topic=slow")
    assert done.status == 0 and "version 2" in done.text, done.text
    for desk in (bob, carol):
        last = desk("approve", "-y", str(found["number"]), "-n", "a")
    assert "main is now" in last.text, last.text


@pytest.mark.parametrize(
    "how", ["replayed", "own", "two at once", *(pytest.param(how, marks=pytest.mark.soak) for how in LATER)]
)
def test_what_is_no_approval_is_refused_at_the_door(three: Cluster, desks: dict[str, Desk], how: str) -> None:
    bob, mallory = desks["bob"], desks["mallory"]
    base = mallory.project.head()
    tip = mallory.widen(f"Attack {how}", "review")
    assert mallory.propose("a", "-o", "topic=attack").status == 0
    bob.project.git("fetch", "-q", "a", "+refs/proposals/*:refs/proposals/*")
    expected = "REFUSED"
    target = f"refs/approvals/{tip}"
    if how == "replayed":
        oid = bob.project.verdict(tip, base, bob.person, number=1)
        assert bob.project.try_git("push", "a", f"{oid}:{target}").status == 0
        no = bob.project.verdict(tip, base, bob.person, kind="reject", number=2)
        assert bob.project.try_git("push", "a", f"{no}:refs/rejections/{tip}").status == 0
        oid = bob.project.verdict(tip, base, bob.person, number=2, comment="again")
        expected = "said something newer"
    elif how == "moved":
        old = bob.project.objects().tag(bob.project.verdict(base, base, bob.person))
        oid = bob.project.raw("tag", old.replace(base.encode(), tip.encode()))
        expected = "does not match"
    elif how == "by nobody":
        oid = bob.project.verdict(tip, base, mallory.person, kind="approve")
        expected = "mallory may not ows:Approve"
    elif how == "own":
        bob.widen("bob's own", "review")
        assert bob.propose("a", "-o", "topic=own").status == 0
        tip = bob.project.head()
        oid = bob.project.verdict(tip, base, bob.person)
        target, expected = f"refs/approvals/{tip}", "an approval is somebody else's"
    elif how == "not proposed":
        tip = bob.widen("never proposed")
        oid = bob.project.verdict(tip, base, bob.person)
        target, expected = f"refs/approvals/{tip}", "is not the tip of an open proposal"
    elif how == "a commit":
        oid, expected = tip, "is a commit where a tag is needed"
    else:
        oid = bob.project.verdict(tip, base, bob.person)
    refs = [f"{oid}:{target}"] + ([f"{oid}:refs/approvals/again"] if how == "two at once" else [])
    before = three["a"].main()
    done = bob.project.try_git("push", "a", *refs)
    assert done.status != 0 and expected in done.text, done.text
    assert three["a"].main() == before
    for desk in (mallory, bob):
        for each in desk.listed("a"):
            if each["user"] == desk.person.name:
                assert desk("reject", str(each["number"]), "-n", "a").status == 0


def test_who_may_not_propose_is_told(three: Cluster, desks: dict[str, Desk], tmp_path: Path, alice: Person) -> None:
    alice_desk, mallory = desks["alice"], desks["mallory"]
    alice_desk.project.write("users/mallory.json", {"keys": [mallory.person.public]})
    alice_desk.project.commit("mallory may nothing")
    assert alice_desk.project.try_git("push", "a", "HEAD:main").status == 0
    mallory.fresh()
    mallory.widen("please", "review")
    done = mallory.propose("a")
    assert done.status != 0 and "mallory may not ows:Propose" in done.text
    nothing = alice_desk.propose("a")
    assert nothing.status != 0 and "there is nothing to propose" in nothing.text
    topic = mallory.propose("a", "-o", "topic=../../heads/main")
    assert topic.status != 0 and "mallory may not ows:Propose" in topic.text
    alice_desk.project.write("users/mallory.json", {"keys": [mallory.person.public], "policies": ["propose"]})
    alice_desk.project.commit("mallory may propose again")
    topic = alice_desk.propose("a", "-o", "topic=../../heads/main")
    assert topic.status != 0 and "is not a topic" in topic.text
    assert alice_desk.project.try_git("push", "a", "HEAD:main").status == 0


@pytest.mark.soak
def test_killed_nodes_forget_neither_proposals_nor_approvals(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, carol, mallory = desks["bob"], desks["carol"], desks["mallory"]
    tip = mallory.widen("Survives", "review", "propose")
    assert mallory.propose("a").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    assert bob("approve", "-y", number, "-n", "a").status == 0
    three["a"].kill()
    three["a"].start()
    (found,) = nodes.until(lambda: carol.listed("a"))
    assert nodes.until(lambda: carol.listed("a")[0]["approvedBy"] == ["bob"]) and found["commit"] == tip
    last = carol("approve", "-y", number, "-n", "a")
    assert f"main is now {tip[:10]}" in last.text, last.text
    three["a"].kill()
    three["a"].start()
    three.all_at(tip)


@pytest.mark.soak
def test_a_rejection_also_stops_who_pushes_to_main_directly(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, carol, alice, mallory = (desks[name] for name in ("bob", "carol", "alice", "mallory"))
    tip = mallory.widen("Around the rejection", "review")
    assert mallory.propose("a").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    assert alice("reject", number, "-m", "no", "-n", "a").status == 0
    for desk in (bob, carol):
        assert desk("approve", "-y", number, "-n", "a").status == 0
    direct = mallory.project.try_git("push", "a", f"{tip}:refs/heads/main")
    assert direct.status != 0 and "is rejected by alice" in direct.text, direct.text
    assert three["a"].main() != tip
    assert mallory("reject", number, "-n", "a").status == 0
    withdrawn = mallory.project.try_git("push", "a", f"{tip}:refs/heads/main")
    assert withdrawn.status != 0 and "is rejected by alice, mallory" in withdrawn.text, withdrawn.text


@pytest.mark.soak
def test_a_rejection_of_what_was_mended_stops_nobody(three: Cluster, desks: dict[str, Desk]) -> None:
    """Carol rejected the first commit, and approves of it together with the one that mends it."""
    bob, carol, mallory = (desks[name] for name in ("bob", "carol", "mallory"))
    mallory.widen("Not good yet", "review")
    assert mallory.propose("a", "-o", "topic=mended").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    assert bob("approve", "-y", number, "-n", "a").status == 0
    assert carol("reject", number, "-m", "mend it", "-n", "a").status == 0
    tip = mallory.widen("Mended")
    assert mallory.propose("a", "-o", "topic=mended").status == 0
    assert bob("approve", "-y", number, "-n", "a").status == 0
    done = carol("approve", "-y", number, "-n", "a")
    assert f"main is now {tip[:10]}" in done.text, done.text
    three.all_at(tip)


@pytest.mark.soak
def test_nobody_brings_back_what_its_author_changed_or_withdrew(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, mallory = desks["bob"], desks["mallory"]
    first = mallory.widen("First", "review")
    assert mallory.propose("a", "-o", "topic=mine").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    bob.project.git("fetch", "-q", "a", "+refs/proposals/*:refs/proposals/*")
    assert bob("approve", "-y", number, "-n", "a").status == 0
    mallory.project.git("commit", "-q", "-S", "--amend", "-m", "Second")
    assert mallory.propose("a", "-o", "topic=mine").status == 0
    second = mallory.project.head()
    foreign = bob.project.try_git("push", "-o", "topic=mine", "a", f"{first}:refs/for/main")
    assert foreign.status != 0 and "bob pushes a proposal that mallory signed" in foreign.text, foreign.text
    assert bob.listed("a")[0]["commit"] == second
    assert mallory("reject", number, "-n", "a").status == 0
    again = mallory.propose("a", "-o", "topic=mine")
    assert again.status != 0 and "mallory has withdrawn this commit" in again.text, again.text


@pytest.mark.soak
def test_nobodys_numbers_keep_others_from_speaking(three: Cluster, desks: dict[str, Desk]) -> None:
    bob, carol, mallory = desks["bob"], desks["carol"], desks["mallory"]
    base = mallory.project.head()
    tip = mallory.widen("High numbers", "review")
    assert mallory.propose("a").status == 0
    number = str(nodes.until(lambda: bob.listed("a"))[0]["number"])
    bob.project.git("fetch", "-q", "a", "+refs/proposals/*:refs/proposals/*")
    for high, taken in ((9_999_999, False), (1_000_000, True)):
        oid = bob.project.verdict(tip, base, bob.person, number=high)
        assert (bob.project.try_git("push", "a", f"{oid}:refs/approvals/{tip}").status == 0) is taken
    rejected = carol("reject", number, "-n", "a")
    assert rejected.status == 0 and "carol rejects" in rejected.text, rejected.text
    assert mallory("reject", number, "-n", "a").status == 0
