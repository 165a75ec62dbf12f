"""Approvals, in process: whose word counts, for what, and what no number of approvals can do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from owsgit.ledger import verdicts, verify
from owsgit.ledger.verdicts import BadVerdictError, Verdict
from owsgit.ledger.verify import Report, Review, Verified
from owsgit.model.errors import NotAllowedError, Problem
from owsgit.services import KINDS
from tests.support import projects
from tests.support.people import Person
from tests.support.projects import Project


@pytest.fixture
def project(tmp_path: Path, alice: Person, bob: Person, carol: Person, mallory: Person) -> Project:
    """Bob and carol are ops; mallory may only propose."""
    return projects.create(tmp_path / "shop", alice, files=projects.reviewers(bob, carol, mallory))


@pytest.fixture
def base(project: Project) -> Verified:
    return verify.push(project.objects(), KINDS, None, project.head()).head


class Said:
    """Approvals by hand: made with plain git, and read as the node reads them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.known: dict[str, list[Verdict]] = {}

    def approve(self, by: Person, base: str, commit: str = "", **how: Any) -> Verdict:
        commit = commit or self.project.head()
        oid = self.project.verdict(commit, base, by, **how)
        verdict = verdicts.parse(self.project.objects().tag(oid))
        self.known.setdefault(commit, []).append(verdict)
        return verdict

    def of(self, commit: str) -> Sequence[Verdict]:
        return self.known.get(commit, [])

    def check(self, base: Verified, **how: Any) -> Report:
        return verify.push(self.project.objects(), KINDS, base, self.project.head(), Review(self.of, **how))

    def told(self, base: Verified) -> str:
        with pytest.raises(NotAllowedError) as caught:
            self.check(base)
        return str(caught.value)


@pytest.fixture
def said(project: Project) -> Said:
    return Said(project)


@pytest.fixture
def widen(project: Project) -> Callable[[Person], str]:
    """A commit that gives dave a policy: an iam: action."""

    def commit(by: Person) -> str:
        project.write("users/dave.json", {"policies": ["propose"]})
        return project.commit("give dave a policy", by=by)

    return commit


def test_two_of_ops_whoever_of_them_wrote_it(
    said: Said, base: Verified, widen: Callable[[Person], str], bob: Person, carol: Person
) -> None:
    widen(bob)
    message = said.told(base)
    assert "bob may not iam:AttachUserPolicy" in message
    assert "an approval by carol or alice would do" in message
    said.approve(carol, base.commit)
    report = said.check(base)
    (grant,) = report.commits[0].grants
    assert grant.by == "bob"
    assert [each.signer.user for each in report.commits[0].approvers] == ["carol"]


def test_an_outsiders_proposal_needs_two_of_ops_as_well(
    said: Said, base: Verified, widen: Callable[[Person], str], bob: Person, carol: Person, mallory: Person
) -> None:
    widen(mallory)
    assert "more than one approval, of bob and carol, or one by alice" in said.told(base)
    said.approve(bob, base.commit)
    assert "mallory may not" in said.told(base)
    said.approve(carol, base.commit)
    assert said.check(base).commits[0].grants[0].by in ("bob", "carol")


def test_one_person_never_counts_twice(
    said: Said, base: Verified, widen: Callable[[Person], str], bob: Person, mallory: Person
) -> None:
    widen(mallory)
    said.approve(bob, base.commit, number=1)
    said.approve(bob, base.commit, number=2)
    said.approve(bob, base.commit, number=3, comment="I am bob's other key")
    said.told(base)


def test_who_wrote_it_does_not_approve_of_it(
    said: Said, base: Verified, widen: Callable[[Person], str], bob: Person
) -> None:
    widen(bob)
    said.approve(bob, base.commit)
    said.told(base)


def test_who_may_not_approve_does_not_count(
    said: Said, base: Verified, widen: Callable[[Person], str], bob: Person, mallory: Person
) -> None:
    widen(bob)
    said.approve(mallory, base.commit)
    said.told(base)


def test_an_approval_by_somebody_who_may_it_alone_is_enough(
    said: Said, base: Verified, widen: Callable[[Person], str], alice: Person, mallory: Person
) -> None:
    widen(mallory)
    said.approve(alice, base.commit)
    assert said.check(base).commits[0].grants[0].by == "alice"


def test_an_approval_is_bound_to_its_commit(
    said: Said, project: Project, base: Verified, widen: Callable[[Person], str], bob: Person, carol: Person
) -> None:
    first = widen(bob)
    verdict = said.approve(carol, base.commit)
    project.git("reset", "-q", "--hard", base.commit)
    project.write("users/mallory.json", {"keys": [bob.public.replace("bob", "m")], "policies": ["propose"]})
    project.git("reset", "-q", "--hard", base.commit)
    project.write("groups/ops.json", {"members": ["bob", "carol", "mallory"], "policies": ["two-of-ops"]})
    other = project.commit("something else", by=bob)
    said.known = {other: [verdict]}  # told by a neighbour who lies
    said.told(base)
    moved = verdict.data.replace(first.encode(), other.encode())
    said.known = {other: [verdicts.parse(moved)]}
    said.told(base)


def test_an_approval_covers_what_was_seen_and_no_more(
    said: Said, project: Project, base: Verified, widen: Callable[[Person], str], bob: Person, carol: Person
) -> None:
    first = widen(bob)
    project.write("docs/guide.md", "hi\n")
    project.write("users/dave.json", {})
    project.commit("and back", by=bob)
    said.approve(carol, first)  # looked at the last commit only
    assert first[:10] in said.told(base)
    said.approve(carol, base.commit)
    with pytest.raises(NotAllowedError, match="ows:UpdateFile"):  # which ops may not, approved or not
        said.check(base)
    said.known.clear()
    project.git("reset", "-q", "--hard", first)
    project.write("users/dave.json", {})
    project.commit("and back", by=bob)
    said.approve(carol, base.commit)
    assert len(said.check(base).commits) == 2


def test_what_is_missing_is_collected_for_a_proposal(
    said: Said, base: Verified, widen: Callable[[Person], str], mallory: Person
) -> None:
    widen(mallory)
    missing: list[Problem] = []
    said.check(base, missing=lambda _, problems: missing.extend(problems))
    assert ["mallory may not iam:AttachUserPolicy" in str(problem) for problem in missing] == [True]


def test_a_deny_until_enough_approve_binds_those_who_may_all_else(
    said: Said, project: Project, base: Verified, bob: Person, carol: Person
) -> None:
    """A protected path: two approvals for production, whatever other policies allow."""
    guard = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["lambda:*", "ows:UpdateFile"], "Resource": "*"},
            {
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {
                    "ForAnyValue:StringLike": {"ows:Path": "docs/prod/*"},
                    "NumericLessThan": {"ows:ApprovalCount": "1"},
                },
            },
        ],
    }
    project.write("policies/dev.json", guard)
    project.write("groups/ops.json", {"members": ["bob", "carol"], "policies": ["dev", "review"]})
    project.commit("guard")
    head = said.check(base).head
    project.write("docs/prod/limits.md", "1")
    project.commit("prod", by=bob)
    assert "denied by policies/dev.json" in said.told(head)
    said.approve(carol, head.commit)
    assert said.check(head)
    project.git("reset", "-q", "--hard", head.commit)
    project.write("docs/test/limits.md", "1")
    project.commit("test", by=bob)
    assert said.check(head)


def test_a_revoked_users_approval_does_not_count(
    said: Said, project: Project, base: Verified, bob: Person, carol: Person, alice: Person
) -> None:
    project.write("groups/ops.json", {"members": ["bob"], "policies": ["two-of-ops", "review"]})
    project.git("rm", "-q", "users/carol.json")
    project.commit("carol has left", by=alice)
    head = said.check(base).head
    project.write("users/dave.json", {"policies": ["propose"]})
    project.commit(by=bob)
    said.approve(carol, head.commit)
    said.told(head)


@pytest.mark.parametrize("quorum", [1, 2])
def test_changes_of_roots_and_nodes_need_the_quorum(
    said: Said, project: Project, alice: Person, bob: Person, carol: Person, quorum: int
) -> None:
    roots = {"name": "shop", "roots": ["alice", "bob", "carol"], "rootQuorum": quorum}
    project.write("project.json", roots)
    project.commit("three roots")
    head = verify.push(project.objects(), KINDS, None, project.head()).head
    changes: list[tuple[str, Any]] = [
        ("project.json", {**roots, "roots": ["alice", "bob", "carol", "dave"]}),
        ("project.json", {**roots, "rootQuorum": 3}),
        ("project.json", {**roots, "region": "mars-1"}),
        ("project.json", {**roots, "certificateAuthorities": [bob.public]}),
        ("nodes/n.json", {"key": projects.node_key(), "address": "127.0.0.1"}),
    ]
    for path, content in changes:
        project.write("users/dave.json", {"keys": [projects.node_key()]})
        project.commit("dave has a key")
        start = said.check(head).head
        project.write(path, content)
        project.commit("a change of the roots", by=alice)
        if quorum == 1:
            assert said.check(start)
        else:
            assert "2 roots have to sign" in said.told(start)
            said.approve(carol, start.commit)
            assert [each.signer.user for each in said.check(start).commits[0].approvers] == ["carol"]
        project.git("reset", "-q", "--hard", head.commit)


def test_a_quorum_of_roots_takes_a_lost_root_off(
    said: Said, project: Project, alice: Person, bob: Person, carol: Person
) -> None:
    roots = {"name": "shop", "roots": ["alice", "bob", "carol"], "rootQuorum": 2}
    project.write("project.json", roots)
    project.commit("three roots")
    head = verify.push(project.objects(), KINDS, None, project.head()).head
    project.write("project.json", {**roots, "roots": ["alice", "bob"]})
    project.commit("carol has lost her key", by=alice)
    assert "only carol itself may take this root off, or 2 roots together" in said.told(head)
    said.approve(bob, head.commit)
    assert said.check(head).head.state.project.roots == ["alice", "bob"]


def test_a_quorum_that_no_roots_can_fill_is_refused(project: Project, base: Verified) -> None:
    project.write("project.json", {"name": "shop", "roots": ["alice"], "rootQuorum": 2})
    project.commit()
    with pytest.raises(Exception, match="2 roots have to sign, and there are 1"):
        verify.push(project.objects(), KINDS, base, project.head())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"type commit", b"type tree"),
        (b"number 1", b"number 0"),
        (b"number 1", b"number 01"),
        (b"base ", b"bass "),
        (b"-----BEGIN", b"-----BEGUN"),
        (b"tag approve/", b"tag praise/"),
    ],
)
def test_what_is_no_approval_is_refused(project: Project, base: Verified, bob: Person, old: bytes, new: bytes) -> None:
    data = project.objects().tag(project.verdict(base.commit, base.commit, bob))
    with pytest.raises(BadVerdictError):
        verdicts.parse(data.replace(old, new, 1))


def test_a_changed_comment_breaks_the_signature(
    said: Said, base: Verified, widen: Callable[[Person], str], bob: Person, carol: Person
) -> None:
    commit = widen(bob)
    verdict = said.approve(carol, base.commit, comment="only for today")
    said.known = {commit: [verdicts.parse(verdict.data.replace(b"only for today", b"for ever"))]}
    said.told(base)
