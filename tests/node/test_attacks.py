"""Every attack on what is let in, tried on all three ways in: a push, another node's objects, a clone.

Nodes a and b are real, c is played by the test: it has a node's key, and offers what no honest node would. The clone is made
of a copy of a node's repository in which the attack stands at main.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from owsgit.ledger import verdicts
from owsgit.ledger.verdicts import Verdict
from owsgit.node.home import Home
from owsgit.peers.notes import Notes
from tests.support import clusters, people
from tests.support.clusters import Cluster
from tests.support.nodes import owsgit, push
from tests.support.people import Person
from tests.support.played import Played
from tests.support.projects import TWO_OF_OPS, Project, allow, function

LAMBDA = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
LIMITED = allow(
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
    "ows:AddHistory",
    "ows:UpdateFile",
    "ows:UpdateProject",
)


@dataclass
class Field:
    """Where the attacks take place. `bob` may change code, `carol` and `dora` only together, `eve` was revoked."""

    cluster: Cluster
    played: Played
    folder: Path
    bob: Person
    carol: Person
    dora: Person
    eve: Person
    genesis: str
    permissive: str  # the head at which bob could do everything, and eve too

    @property
    def project(self) -> Project:
        return self.cluster.project

    @property
    def main(self) -> str:
        return self.cluster["a"].main()

    def write(self, path: str, content: Any, by: Person, message: str = "attack") -> str:
        self.project.write(path, content)
        return self.project.commit(message, by=by)


@pytest.fixture(scope="module")
def field(
    tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person, carol: Person, mallory: Person, keyring: Path
) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("attacks")
    dora = people.make(folder, "dora")
    three = clusters.on_loopback(folder, alice, 3)
    three["c"].init()
    files = {
        "nodes/c.json": Home(three["c"].home).node_spec().document(),
        "users/bob.json": {"keys": [bob.public], "policies": ["limited", "admin"]},
        "users/carol.json": {"keys": [carol.public]},
        "users/dora.json": {"keys": [dora.public]},
        "users/eve.json": {"keys": [mallory.public], "policies": ["admin"]},
        "groups/ops.json": {"members": ["carol", "dora"], "policies": ["together", "review"]},
        "groups/admins.json": {"members": [], "policies": ["admin"]},
        "policies/limited.json": LIMITED,
        "policies/admin.json": allow("*"),
        "policies/together.json": TWO_OF_OPS,
        "policies/review.json": allow("ows:Propose", "ows:Approve"),
        "roles/power.json": {"trust": {"Statement": [LAMBDA]}, "policies": ["admin"]},
    }
    played = Played(three["c"])
    two = {name: three[name] for name in "ab"}
    try:
        cluster = clusters.found(folder, alice, two, files)
        project = cluster.project
        genesis = project.head()
        permissive = genesis
        project.write("users/bob.json", {"keys": [bob.public], "policies": ["limited"]})
        project.write("users/eve.json", {"policies": ["admin"]})
        project.commit("bob is limited, and eve is out")
        assert cluster.push("a").status == 0
        yield Field(cluster, played, folder, bob, carol, dora, mallory, genesis, permissive)
    finally:
        clusters.stop(two)
        played.stop()


@pytest.fixture(autouse=True)
def at_main(field: Field) -> None:
    field.project.git("reset", "-q", "--hard", field.main)
    field.project.git("clean", "-qfd")


# ---- what is tried
def limited_widens_directly(field: Field) -> str:
    return field.write("users/bob.json", {"keys": [field.bob.public], "policies": ["limited", "admin"]}, field.bob)


def limited_joins_a_group(field: Field) -> str:
    return field.write("groups/admins.json", {"members": ["bob"], "policies": ["admin"]}, field.bob)


def limited_edits_his_policy(field: Field) -> str:
    return field.write("policies/limited.json", allow("*"), field.bob)


def limited_passes_a_role(field: Field) -> str:
    return field.write("functions/hello/function.json", function(role="power"), field.bob)


def limited_has_a_role_trust_him(field: Field) -> str:
    trusts = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::*:user/bob"}, "Action": "sts:AssumeRole"}
    return field.write("roles/power.json", {"trust": {"Statement": [LAMBDA, trusts]}, "policies": ["admin"]}, field.bob)


def limited_adds_an_inline_policy(field: Field) -> str:
    inline = {"all": allow("*")}
    document = {"keys": [field.bob.public], "policies": ["limited"], "inlinePolicies": inline}
    return field.write("users/bob.json", document, field.bob)


def limited_moves_a_policy_over_his_own(field: Field) -> str:
    field.project.git("mv", "-f", "policies/admin.json", "policies/limited.json")
    field.project.write("policies/admin.json", allow("*"))
    return field.project.commit("moved", by=field.bob)


def limited_renames_himself(field: Field) -> str:
    field.project.git("mv", "users/bob.json", "users/bobby.json")
    field.project.write("users/bobby.json", {"keys": [field.bob.public], "policies": ["admin"]})
    return field.project.commit("renamed", by=field.bob)


def limited_takes_anothers_key(field: Field) -> str:
    return field.write(
        "users/carol.json", {"keys": [field.carol.public, people.make(field.folder, "more").public]}, field.bob
    )


def limited_merges_what_nobody_signed(field: Field) -> str:
    project = field.project
    project.git("checkout", "-q", "-B", "side")
    project.write("users/bob.json", {"keys": [field.bob.public], "policies": ["admin"]})
    project.commit("on the side", signed=False)
    project.git("checkout", "-q", "-B", "main", field.main)
    project.git("merge", "-q", "--no-ff", "-S", "-m", "merge", "side", by=field.bob)
    return project.head()


def limited_restores_what_he_changed(field: Field) -> str:
    before = (field.project.folder / "policies/limited.json").read_text()
    limited_edits_his_policy(field)
    field.project.write("policies/limited.json", before)
    return field.project.commit("as it was", by=field.bob)


def limited_widens_first_and_uses_it_then(field: Field) -> str:
    limited_widens_directly(field)
    return field.write("policies/review.json", allow("ows:Propose"), field.bob)


def limited_reverts_what_limited_him(field: Field) -> str:
    field.project.git("revert", "--no-edit", "-S", field.main, by=field.bob)
    return field.project.head()


def limited_makes_himself_a_root(field: Field) -> str:
    return field.write("project.json", {"name": "shop", "roots": ["alice", "bob"]}, field.bob)


def revoked_changes_code(field: Field) -> str:
    return field.write("functions/hello/app.py", "def handler(e, c): return 666", field.eve)


def revoked_with_old_dates(field: Field) -> str:
    project = field.project
    project.write("functions/hello/app.py", "def handler(e, c): return 666")
    project.git("add", "--all")
    date = "2020-01-01T00:00:00Z"
    project.git("-c", "user.name=eve", "commit", "-q", "-S", "-m", "old", f"--date={date}", by=field.eve)
    return project.head()


def revoked_continues_from_before(field: Field) -> str:
    field.project.git("reset", "-q", "--hard", field.permissive)
    return field.write("users/eve.json", {"keys": [field.eve.public], "policies": ["admin"]}, field.eve)


def revoked_merged_by_nobody(field: Field) -> str:
    """Her branch from when she was somebody, with the new main as its second parent: history would go around it."""
    revoked_continues_from_before(field)
    field.project.git("merge", "-q", "-S", "-m", "merge", field.main, by=field.eve)
    return field.project.head()


def rollback_to_the_permissive_commit(field: Field) -> str:
    return field.permissive


def rollback_by_another_parent(field: Field) -> str:
    """The old commit's tree and signature, on top of main."""
    raw = subprocess.run(
        ["git", "cat-file", "commit", field.permissive], cwd=field.project.folder, capture_output=True
    ).stdout
    tree, rest = raw.split(b"\n", 1)
    return field.project.raw("commit", tree + b"\nparent " + field.main.encode() + b"\n" + rest)


def not_signed(field: Field) -> str:
    field.project.write("README.md", "x")
    return field.project.commit("not signed", signed=False)


def signature_of_another_commit(field: Field) -> str:
    field.write("README.md", "x", field.project.owner)
    raw = subprocess.run(["git", "cat-file", "commit", "HEAD"], cwd=field.project.folder, capture_output=True).stdout
    return field.project.raw("commit", raw.replace(b"attack", b"other ", 1))


def symlink_out_of_the_tree(field: Field) -> str:
    (field.project.folder / "functions/hello/etc").symlink_to("/etc")
    return field.project.commit("a link", by=field.project.owner)


def duplicate_keys(field: Field) -> str:
    text = (
        '{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Effect": "Allow", "Action": "*", "Resource": "*"}}'
    )
    return field.write("policies/limited.json", text, field.project.owner)


def another_projects_history(field: Field) -> str:
    field.project.git("checkout", "-q", "--orphan", "other")
    tip = field.project.commit("another genesis")
    field.project.git("checkout", "-q", "-f", "-B", "main", field.main)
    return tip


ATTACKS: list[tuple[Callable[[Field], str], str]] = [
    (limited_widens_directly, "bob may not iam:AttachUserPolicy"),
    (limited_joins_a_group, "bob may not iam:AddUserToGroup"),
    (limited_edits_his_policy, "bob may not iam:CreatePolicyVersion"),
    (limited_passes_a_role, "bob may not iam:PassRole"),
    (limited_has_a_role_trust_him, "bob may not iam:UpdateAssumeRolePolicy"),
    (limited_adds_an_inline_policy, "bob may not iam:PutUserPolicy"),
    (limited_moves_a_policy_over_his_own, "bob may not iam:CreatePolicyVersion"),
    (limited_renames_himself, "bob may not iam:DeleteUser"),
    (limited_takes_anothers_key, "bob may not iam:UploadSSHPublicKey"),
    (limited_merges_what_nobody_signed, "bob may not iam:AttachUserPolicy"),
    (limited_restores_what_he_changed, "bob may not iam:CreatePolicyVersion"),
    (limited_widens_first_and_uses_it_then, "bob may not iam:AttachUserPolicy"),
    (limited_reverts_what_limited_him, "bob may not iam:AttachUserPolicy"),
    (limited_makes_himself_a_root, "only roots may change the roots"),
    (revoked_changes_code, "which is no user's key"),
    (revoked_with_old_dates, "which is no user's key"),
    (revoked_continues_from_before, "does not follow main"),
    (revoked_merged_by_nobody, "main as its second parent"),
    (rollback_to_the_permissive_commit, "main is past commit"),
    (rollback_by_another_parent, "does not match the commit"),
    (not_signed, "it is not signed"),
    (signature_of_another_commit, "does not match the commit"),
    (symlink_out_of_the_tree, "a symlink is not allowed"),
    (duplicate_keys, "'Effect'"),
    (another_projects_history, "does not follow main"),
]


def pack(field: Field, tip: str) -> bytes:
    return subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=field.project.folder,
        input=f"{tip}\n^{field.main}\n".encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip


def by_push(field: Field, tip: str) -> str:
    """A root's own key brings it: who pushes proves nothing about who signed."""
    done = push(field.project, field.cluster["a"], f"+{tip}:refs/heads/main")
    assert done.status != 0, done.text
    return done.text


def by_a_node(field: Field, tip: str, approvals: list[str] | None = None) -> str:
    """Node c hands the objects over, to have node a verify them and vote for them."""
    told = {"verb": "offer", "tip": tip, "head": field.main, "approvals": approvals or []}
    answer = field.played.ask(field.cluster["a"], told, pack(field, tip))
    assert answer is not None and "problem" in answer.head, answer
    kept = subprocess.run(
        ["git", "cat-file", "-e", tip], cwd=field.cluster["a"].home / "ledger.git", capture_output=True
    )
    assert kept.returncode != 0 or tip == field.permissive, "what was not verified left the quarantine"
    return str(answer.head["problem"])


def _ballot(field: Field) -> int:
    field.played.asked.append({})
    return len(field.played.asked) + 1


def by_clone(field: Field, tip: str, where: Path) -> str:
    shutil.copytree(field.cluster["a"].home / "ledger.git", where / "copy.git")
    return cloned(field, tip, where)


def cloned(field: Field, tip: str, where: Path) -> str:
    """What owsgit clone says of `where`/copy.git, once the attack stands at its main."""
    bare = where / "copy.git"
    unguarded = "--receive-pack=git -c core.hooksPath=/dev/null receive-pack"
    field.project.git("push", "-q", unguarded, str(bare), f"+{tip}:refs/heads/attack")
    subprocess.run(["git", "update-ref", "refs/heads/main", tip], cwd=bare, check=True)
    project = field.cluster["a"].status()["project"]["id"]
    done = owsgit("clone", str(bare), str(where / "clone"), "--project", project, by=field.project.owner)
    assert done.status != 0, done.text
    assert not (where / "clone").exists()
    return done.text


CLONES_SEE = {
    "does not follow main": ("this history goes on with", "belongs to project", "another project"),
    "main as its second parent": ("this history goes on with",),
    "main is past commit": (),
}
"""A clone has no main of before: it sees another fault, or (of an old, honest head) none."""


@pytest.mark.parametrize(("attack", "expected"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_an_attack_is_refused_on_every_way_in(
    field: Field, attack: Callable[[Field], str], expected: str, tmp_path: Path
) -> None:
    main = field.main
    tip = attack(field)
    assert expected in by_push(field, tip)
    assert expected in by_a_node(field, tip)
    seen = CLONES_SEE.get(expected, (expected,))
    if seen:
        text = by_clone(field, tip, tmp_path)
        assert any(each in text for each in seen), text
    for name in "ab":
        assert field.cluster[name].main() == main
        assert "Traceback" not in field.cluster[name].log.read_text()


def approval(field: Field, commit: str, by: Person, number: int = 1) -> bytes:
    oid = field.project.verdict(commit, field.main, by, number=number)
    return field.project.objects().tag(oid)


def moved(field: Field, tip: str, other: str) -> bytes:
    return approval(field, other, field.dora).replace(other.encode(), tip.encode())


@pytest.mark.parametrize(
    "how", ["none", "own", "of a stranger", "of the revoked", "of who may not", "moved", "rejected"]
)
def test_an_approval_that_is_none_lets_nothing_in(field: Field, how: str, tmp_path: Path) -> None:
    other = field.write("users/eve.json", {"policies": []}, field.carol, "something harmless")
    field.project.git("reset", "-q", "--hard", field.main)
    tip = field.write("users/carol.json", {"keys": [field.carol.public], "policies": ["admin"]}, field.carol)
    stranger = people.make(tmp_path, "stranger")
    given = {
        "none": [],
        "own": [approval(field, tip, field.carol)],
        "of a stranger": [approval(field, tip, stranger)],
        "of the revoked": [approval(field, tip, field.eve)],
        "of who may not": [approval(field, tip, field.bob)],
        "moved": [moved(field, tip, other)],
        "rejected": [field.project.objects().tag(field.project.verdict(tip, field.main, field.dora, kind="reject"))],
    }[how]
    expected = "carol may not iam:AttachUserPolicy"
    assert expected in by_push(field, tip)
    assert expected in by_a_node(field, tip, [data.decode("latin-1") for data in given])
    shutil.copytree(field.cluster["a"].home / "ledger.git", tmp_path / "copy.git")
    read: list[Verdict] = [verdicts.parse(data) for data in given]
    Notes(tmp_path / "copy.git").write_reviews({tip: read})
    assert expected in cloned(field, tip, tmp_path)


def test_the_same_commit_with_a_true_approval_would_have_come_in(field: Field) -> None:
    """So the test above refuses for the approval's sake alone."""
    tip = field.write("users/carol.json", {"keys": [field.carol.public], "policies": ["review"]}, field.carol)
    told = [approval(field, tip, field.dora).decode("latin-1")]
    id_ = Home(field.played.node.home).public_key().fingerprint
    message = {"kind": "prepare", "head": field.main, "ballot": [_ballot(field), id_]}
    field.played.ask(
        field.cluster["a"], {"verb": "paxos", "message": message, "tip": tip, "approvals": told}, pack(field, tip)
    )
    accept = {**message, "kind": "accept", "value": tip}
    answer = field.played.ask(field.cluster["a"], {"verb": "paxos", "message": accept, "approvals": told})
    assert answer is not None and json.loads(json.dumps(answer.head))["message"]["kind"] == "voted", answer
