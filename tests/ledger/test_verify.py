"""The one verification, in process, on raw objects: every rule holds without git's own checks."""

import json
from pathlib import Path

import pytest

from owsgit.ledger import receive, verify
from owsgit.ledger.ledger import Ledger
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import Repository, run
from owsgit.ledger.reviews import Reviews
from owsgit.ledger.verify import NotFastForwardError, Report, Verified
from owsgit.model.errors import InvalidError, NotAllowedError, OwsgitError, RefusedError
from owsgit.services import KINDS
from tests.support import projects
from tests.support.people import Person
from tests.support.projects import Project, allow, function


@pytest.fixture
def project(tmp_path: Path, alice: Person, bob: Person) -> Project:
    return projects.create(
        tmp_path / "shop",
        alice,
        files={
            "users/bob.json": {"keys": [bob.public], "policies": ["dev"]},
            "policies/dev.json": allow("lambda:*", "iam:*", "ows:UpdateFile", "ows:UpdateProject"),
            "functions/f/function.json": function(),
            "functions/f/app.py": projects.HELLO,
        },
    )


@pytest.fixture
def base(project: Project) -> Verified:
    return check(project, None).head


def check(project: Project, base: Verified | None, tip: str = "", **how: int) -> Report:
    return verify.push(project.objects(), KINDS, base, tip or project.head(), **how)


def told(project: Project, base: Verified | None, tip: str = "") -> str:
    with pytest.raises(OwsgitError) as caught:
        check(project, base, tip)
    return str(caught.value)


def test_a_push_is_reported_commit_by_commit(project: Project, base: Verified, bob: Person) -> None:
    project.write("functions/f/more.py", "x = 1\n")
    project.commit("one", by=bob)
    project.write("docs/guide.md", "hi\n")
    project.git("rm", "-rq", "functions")
    project.commit("two")
    report = check(project, base)
    assert [(commit.signer.user, commit.commit.subject) for commit in report.commits] == [
        ("bob", "one"),
        ("alice", "two"),
    ]
    assert [grant.need.action for grant in report.commits[0].grants] == ["lambda:UpdateFunctionCode"]
    assert [grant.need.action for grant in report.commits[1].grants] == ["lambda:DeleteFunction", "ows:UpdateFile"]
    assert report.head.state.get("function", "f") is None
    again = verify.load(project.objects(), KINDS, report.head.state.genesis, project.head())
    assert dict(again.state.resources) == dict(report.head.state.resources)


def test_a_later_commit_does_not_mend_one_that_is_refused(project: Project, base: Verified) -> None:
    project.write("functions/f/function.json", function(timeout=-1))
    project.commit("bad")
    bad = project.head()
    assert "every commit is checked by itself" not in told(project, base)
    for number, word in ((3, "commit after it does"), (4, "2 commits after it do")):
        project.write("functions/f/function.json", function(timeout=number))
        project.commit("mended")
        text = told(project, base)
        assert f"every commit is checked by itself: the {word} not mend commit {bad[:10]}" in text
    project.git("reset", "--soft", base.commit[:10])
    assert f"git reset --soft {base.commit[:10]}; git commit -S" in text
    project.commit("one")
    assert len(check(project, base).commits) == 1


def test_only_what_changed_is_read(project: Project, base: Verified, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    original = Objects.blob

    def counted(self: Objects, oid: bytes, bytes_max: int) -> bytes:
        read.append(oid)
        return original(self, oid, bytes_max)

    for number in range(50):
        project.write(f"policies/p{number}.json", allow("s3:*", resource=f"arn:aws:s3:::b{number}/*"))
    project.commit()
    wide = check(project, base).head
    project.write("policies/p7.json", allow("s3:Get*"))
    project.commit()
    monkeypatch.setattr(Objects, "blob", counted)
    check(project, wide)
    assert len(read) == 1


def test_rights_are_those_of_the_parent_not_of_the_commit_itself(
    project: Project, base: Verified, bob: Person, alice: Person
) -> None:
    """Somebody who gives themselves a right in one commit has it in the next one only, if they were allowed to give it."""
    project.write("gateways/g.json", {"port": 80, "routes": {"GET /": {"function": "f"}}})
    project.write("policies/dev.json", allow("*"))
    project.commit(by=bob)
    assert "bob may not apigateway:POST" in told(project, base)


def test_a_widening_undone_in_the_same_push_is_still_seen(project: Project, base: Verified, bob: Person) -> None:
    project.git("rm", "-q", "functions/f/app.py")
    project.write("nodes/evil.json", {"key": bob.public, "address": "1.2.3.4"})
    project.commit("in", by=bob)
    project.git("revert", "--no-edit", "-S", "HEAD", by=bob)
    assert "bob may not ows:AddNode" in told(project, base)


def test_nobody_but_a_root_touches_roots(project: Project, base: Verified, bob: Person, alice: Person) -> None:
    project.write("users/alice.json", {"keys": [alice.public], "policies": ["dev"]})
    project.commit(by=bob)
    assert "alice is a root: only alice itself may change this file" in told(project, base)
    project.git("reset", "-q", "--hard", base.commit)
    project.write("project.json", {"name": "shop", "roots": ["alice", "bob"]})
    project.commit(by=bob)
    assert "only roots may change the roots" in told(project, base)


def test_a_root_is_taken_off_by_itself_only(project: Project, base: Verified, bob: Person, alice: Person) -> None:
    project.write("project.json", {"name": "shop", "roots": ["alice", "bob"]})
    project.commit()
    two = check(project, base).head
    project.write("project.json", {"name": "shop", "roots": ["bob"]})
    project.commit(by=bob)
    assert "alice is a root: only alice itself may take this root off" in told(project, two)
    project.git("reset", "-q", "--hard", two.commit)
    project.write("project.json", {"name": "shop", "roots": ["bob"]})
    project.commit(by=alice)
    assert check(project, two).head.state.project.roots == ["bob"]


def test_a_root_cannot_be_deleted_while_it_is_one(project: Project, base: Verified) -> None:
    project.git("rm", "-q", "users/alice.json")
    project.commit()
    assert "there is no user 'alice'" in told(project, base)


def test_a_retired_key_signs_no_more_whatever_its_dates_say(
    project: Project, base: Verified, bob: Person, alice: Person
) -> None:
    project.write("users/bob.json", {"keys": [], "policies": ["dev"]})
    project.commit()
    after = check(project, base).head
    late = project.raw_commit(project.tree(), project.head(), by=bob)
    assert "which is no user's key" in told(project, after, late)


def test_an_old_signed_commit_cannot_be_replayed(project: Project, base: Verified) -> None:
    """The rollback attack: an older, more permissive policy, validly signed, offered again."""
    project.write("policies/dev.json", allow("lambda:Get*"))
    project.commit("restrict")
    after = check(project, base).head
    assert "never moves back" in told(project, after, base.commit)
    replayed = project.git("cat-file", "commit", base.commit) + "\n"
    grafted = project.raw("commit", replayed.replace("author", f"parent {after.commit}\nauthor", 1).encode())
    assert "was changed after it was signed" in told(project, after, grafted)


def test_merges_keep_main_first_and_their_signer_answers_for_all(project: Project, base: Verified, bob: Person) -> None:
    project.git("checkout", "-q", "-b", "side")
    project.write("gateways/g.json", {"port": 80, "routes": {}})
    side = project.commit("side", signed=False)
    project.git("checkout", "-q", "main")
    project.write("README.md", "x")
    main = project.commit()
    after = check(project, base).head
    project.git("merge", "-q", "--no-ff", "-S", "-m", "merge", side, by=bob)
    assert "bob may not apigateway:POST" in told(project, after)
    project.git("reset", "-q", "--hard", main)
    project.git("merge", "-q", "--no-ff", "-S", "-m", "merge", side)
    assert len(check(project, after).commits) == 1
    foxtrot = project.raw_commit(project.tree(), side, main)
    assert "this merge has main as its second parent" in told(project, after, foxtrot)


def test_a_merge_that_leaves_a_duplicate_key_is_refused(project: Project, base: Verified) -> None:
    project.write("users/zoe.json", '{"policies": [],\n\n\n\n\n"keys": [], "policies": ["dev"]}')
    project.commit()
    assert "users/zoe.json $: the key 'policies' appears twice" in told(project, base)


def test_the_genesis_is_signed_by_a_root_of_its_own(tmp_path: Path, alice: Person, mallory: Person) -> None:
    project = projects.create(tmp_path / "x", alice)
    forged = project.raw_commit(project.tree(), by=mallory)
    assert "which is no user's key" in told(project, None, forged)
    project.write("users/mallory.json", {"keys": [mallory.public]})
    project.commit()
    assert "is signed by mallory, who is no root" in told(project, None, project.raw_commit(project.tree(), by=mallory))
    unsigned = project.git("commit-tree", "-m", "x", project.tree())
    assert "it is not signed" in told(project, None, unsigned)


def test_too_many_commits_and_unrelated_histories_are_refused(project: Project, base: Verified) -> None:
    for number in range(3):
        project.write("README.md", str(number))
        project.commit()
    with pytest.raises(RefusedError, match="more than 2 commits at once"):
        check(project, base, commits_max=2)
    with pytest.raises(NotFastForwardError, match="does not follow main"):
        check(project, base, project.raw_commit(project.tree()))


def tree_with(project: Project, *extra: tuple[str, bytes, str]) -> str:
    return project.raw_tree(
        *sorted([*project.entries(), *extra], key=lambda entry: entry[1] + (b"/" if entry[0] == "40000" else b""))
    )


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("120000", b"l.md", "a symlink is not allowed"),
        ("160000", b"sub", "a submodule is not allowed"),
        ("100755", b"x.md", "may not be executable"),
        ("100666", b"x.md", "the mode 100666 is not allowed"),
        ("100644", b"..", "the name '..' is not allowed"),
        ("100644", b".git", "the name '.git' is not allowed"),
        ("100644", b".GIT", "is not allowed"),
        ("100644", b"git~1", "is not allowed"),
        ("100644", b".git ", "is not allowed"),
        ("100644", b".gitmodules", "is not allowed"),
        ("100644", b".gitattributes", "is not allowed"),
        ("100644", b".env", "the dot name '.env' is not allowed here"),
        ("100644", b"a\nb", "is not allowed"),
        ("100644", b"a b", "is not allowed"),
        ("100644", "ü.md".encode(), "is not allowed"),
        ("100644", b"\xff.md", "is not allowed"),
        ("100644", b"readme.MD", "differ only in case"),
        ("100644", b"package.json", "the only JSON file at the root is project.json"),
        ("100644", b"users2", None),
        ("100644", b"LICENSE", None),
    ],
)
def test_names_and_modes_at_the_root(
    project: Project, base: Verified, mode: str, name: bytes, expected: str | None
) -> None:
    project.write("README.md", "x")
    project.commit()
    now = check(project, base).head
    blob = project.raw("blob", b"x") if mode != "160000" else project.head()
    commit = project.raw_commit(tree_with(project, (mode, name, blob)), project.head())
    if expected is None:
        check(project, now, commit)
    else:
        assert expected in told(project, now, commit)


def test_malformed_trees_are_refused_whatever_git_thinks_of_them(project: Project, base: Verified) -> None:
    blob = project.raw("blob", b"x")
    entries = project.entries()
    for bad, expected in [
        (project.raw_tree(*entries, entries[0]), "twice or out of order"),
        (project.raw_tree(*reversed(entries)), "twice or out of order"),
        (project.raw_tree(*entries, ("0100644", b"z", blob)), "not a well-formed git tree"),
        (project.raw_tree(*entries, ("100644", b"z/y", blob)), "not a well-formed git tree"),
        (project.raw("tree", b"100644 z\0short"), "not a well-formed git tree"),
        (project.raw_tree(*entries, ("40000", b"zz", project.raw("tree", b""))), "not a folder of the ledger"),
        (project.raw_tree(*entries, ("40000", b"zz", blob)), ""),
        (
            project.raw_tree(*[(m, n, blob if n == b"project.json" else o) for m, n, o in entries]),
            "project.json: not JSON",
        ),
        (
            project.raw_tree(*[(m, n, o) for m, n, o in entries if n != b"project.json"]),
            "the project itself is missing",
        ),
        (project.raw_tree(*[("40000" if n == b"project.json" else m, n, o) for m, n, o in entries]), ""),
        (project.raw_tree(*[(m, n, "ab" * 20 if n == b"users" else o) for m, n, o in entries]), "is missing"),
    ]:
        assert expected in told(project, base, project.raw_commit(bad, project.head()))


def test_a_tree_that_names_itself_many_times_is_bounded(project: Project, base: Verified) -> None:
    tree = project.raw_tree(("100644", b"x", project.raw("blob", b"x")))
    for _ in range(20):
        tree = project.raw_tree(*(("40000", f"d{index}".encode(), tree) for index in range(10)))
    document = project.raw("blob", b'{"runtime": "python", "handler": "a.b"}')
    folder = project.raw_tree(("40000", b"deep", tree), ("100644", b"function.json", document))
    functions = project.raw_tree(("40000", b"bomb", folder))
    entries = [(mode, name, functions if name == b"functions" else oid) for mode, name, oid in project.entries()]
    assert "files and folders change in one commit" in told(
        project, base, project.raw_commit(project.raw_tree(*entries), project.head())
    )


def test_a_function_needs_its_document_and_its_folder(project: Project, base: Verified) -> None:
    project.write("functions/g/app.py", "x")
    project.write("functions/h.json", {})
    project.write("users/x/y.json", {})
    project.commit()
    text = told(project, base)
    assert "functions/g/function.json: function.json is missing" in text
    assert "functions/h.json: a function is a folder" in text
    assert "users/x: only <name>.json files lie in users/" in text


def test_every_problem_of_a_push_is_told_but_not_a_million(project: Project, base: Verified) -> None:
    for number in range(80):
        project.write(f"users/u{number}.json", "{")
    project.commit()
    with pytest.raises(InvalidError) as caught:
        check(project, base)
    assert 50 <= len(caught.value.problems) <= 60


def test_a_denial_names_every_missing_right(project: Project, base: Verified, bob: Person) -> None:
    project.write("gateways/g.json", {"port": 80, "routes": {}})
    project.write("nodes/n.json", {"key": people_key(), "address": "x"})
    project.commit(by=bob)
    with pytest.raises(NotAllowedError) as caught:
        check(project, base)
    assert [problem.file for problem in caught.value.problems] == ["gateways/g.json", "nodes/n.json"]


def people_key() -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_conditions_see_the_change(project: Project, base: Verified, bob: Person) -> None:
    """Protected paths, fields, kinds of keys and passed roles, in the policy language itself."""
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "lambda:*", "Resource": "*", "Condition": {"ForAllValues:StringEquals": {"ows:ChangedFields": ["timeout", "memorySize"]}, "NumericLessThanEquals": {"lambda:MemorySize": "512"}, "StringEquals": {"ows:SignatureType": "ssh-ed25519", "lambda:Runtime": "python"}}},
            {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"ForAnyValue:StringLike": {"ows:Path": "functions/f/secret*"}}},
            {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*", "Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}},
            {"Effect": "Allow", "Action": "iam:AttachUserPolicy", "Resource": "arn:aws:iam::*:user/${aws:username}", "Condition": {"ArnLike": {"iam:PolicyARN": "arn:aws:iam::*:policy/harmless*"}}},
        ],
    }  # fmt: skip
    project.write("policies/dev.json", document)
    project.write("policies/harmless.json", allow("s3:Get*"))
    project.write("policies/harmful.json", allow("*"))
    project.commit()
    ruled = check(project, base).head

    def may(path: str, content: object) -> str:
        project.git("reset", "-q", "--hard", ruled.commit)
        project.write(path, content)
        project.commit(by=bob)
        try:
            check(project, ruled)
        except NotAllowedError as error:
            return str(error)
        return "yes"

    assert may("functions/f/function.json", function(timeout=9)) == "yes"
    assert "no policy of bob allows it" in may(
        "functions/f/function.json", function(timeout=9, environment={"AB": "c"})
    )
    assert "no policy of bob allows it" in may("functions/f/function.json", function(memorySize=1024))
    assert may("functions/f/app.py", "x = 1\n") == "yes"
    assert "denied by policies/dev.json $.Statement[1]" in may("functions/f/secret.py", "x = 1\n")
    keys = {"keys": [bob.public]}
    assert may("users/bob.json", {**keys, "policies": ["dev", "harmless"]}) == "yes"
    assert "iam:AttachUserPolicy" in may("users/bob.json", {**keys, "policies": ["dev", "harmless", "harmful"]})


def test_a_boundary_holds_whatever_is_attached(project: Project, base: Verified, bob: Person) -> None:
    project.write("policies/edge.json", allow("lambda:UpdateFunctionCode", "iam:*"))
    project.write("users/bob.json", {"keys": [bob.public], "policies": ["dev"], "permissionsBoundary": "edge"})
    project.commit()
    bounded = check(project, base).head
    project.write("functions/f/function.json", function(timeout=9))
    project.commit(by=bob)
    assert "but not by the permissions boundary policies/edge.json" in told(project, bounded)
    project.git("reset", "-q", "--hard", bounded.commit)
    project.write("users/bob.json", {"keys": [bob.public], "policies": ["dev"]})
    project.commit(by=bob)
    assert check(project, bounded).commits[0].grants[0].need.action == "iam:DeleteUserPermissionsBoundary"


def test_a_time_limited_right_is_none_for_a_signed_commit(project: Project, base: Verified, bob: Person) -> None:
    statement = {
        "Effect": "Allow",
        "Action": "*",
        "Resource": "*",
        "Condition": {"DateGreaterThan": {"aws:CurrentTime": "2000-01-01T00:00:00Z"}},
    }
    project.write("policies/dev.json", {"Version": "2012-10-17", "Statement": statement})
    project.commit()
    after = check(project, base).head
    project.write("functions/f/app.py", "x = 1\n")
    project.commit(by=bob)
    assert "no policy of bob allows it" in told(project, after)


def test_two_updates_of_main_in_one_push_are_refused() -> None:
    """git carries out both, one after the other; only the first would have been looked at."""
    a, b = "a" * 40, "b" * 40
    for commands in (
        f"{a} {b} refs/heads/main\n{b} {'c' * 40} refs/heads/main\n",
        f"{a} {b} refs/heads/main\n{'0' * 40} {b} refs/heads/main\u2028\n",
        f"{a} {b} refs/heads/main\u2028{a} {b} refs/heads/main",
        f"{a} {b} refs/heads/main\x85\n",
        f"{a} {'0' * 40} refs/heads/main\n",
        f"{a} {b} refs/heads/Main\n",
        "nonsense\n",
        "",
    ):
        with pytest.raises(RefusedError):
            receive.update(commands)
    assert receive.update(f"{'0' * 40} {b} refs/heads/main\n") == receive.RefUpdate("refs/heads/main", None, b)


def test_an_empty_folder_is_refused_however_often_it_is_seen(project: Project, base: Verified) -> None:
    empty = project.raw("tree", b"")
    told(project, base, project.raw_commit(empty, project.head()))
    nested = project.raw_tree(*sorted([*project.entries(), ("40000", b"tests", empty)], key=lambda entry: entry[1]))
    for _ in range(2):
        assert "an empty folder is not allowed" in told(project, base, project.raw_commit(nested, project.head()))


def test_a_ledger_that_grew_large_is_still_loaded(
    project: Project, base: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("owsgit.ledger.changes.ENTRIES_MAX", 20)
    for number in range(5):
        for index in range(8):
            project.write(f"policies/p{number}-{index}.json", allow("s3:*"))
            project.write(f"docs/{number}/{index}.md", "x")
        project.commit()
    head = base
    monkeypatch.setattr("owsgit.ledger.changes.ENTRIES_MAX", 40)
    head = check(project, head).head
    loaded = verify.load(project.objects(), KINDS, head.state.genesis, head.commit)
    assert dict(loaded.state.resources) == dict(head.state.resources)


@pytest.mark.parametrize(
    "change",
    [
        lambda project: project.git("commit", "-q", "--allow-empty", "-S", "-m", "nothing"),
        lambda project: (project.folder / "project.json").write_text(
            (project.folder / "project.json").read_text() + "\n\n"
        ),
        lambda project: (project.folder / "functions/f/function.json").write_text(json.dumps(function(), indent=7)),
        lambda project: (project.folder / "users/README.md").write_text("x"),
        lambda project: project.write("functions/f/function.json", {**function(), "$schema": None}),
        lambda project: project.write("policies/dev.json", {**allow("s3:*"), "Id": None}),
        lambda project: (
            project.write("users/alice2.json", {}) or project.write("users/zed.json", {"keys": [], "fullName": None})
        ),
        lambda project: project.git(
            "merge",
            "-q",
            "-s",
            "ours",
            "--allow-unrelated-histories",
            "--no-ff",
            "-m",
            "x",
            project.git("commit-tree", "-m", "side", project.tree()),
        ),
    ],
)
def test_nothing_at_all_is_changed_without_a_right(project: Project, base: Verified, bob: Person, change) -> None:  # type: ignore[no-untyped-def]
    project.write("policies/dev.json", allow("s3:*"))
    project.commit()
    powerless = check(project, base).head
    project.git("config", "commit.gpgSign", "true")
    project.git("config", "user.name", "x")
    before = Project(project.folder, bob)
    change(before)
    before.git("add", "--all")
    before.git("commit", "-q", "-S", "--allow-empty", "-m", "x")
    with pytest.raises(NotAllowedError, match="bob may not"):
        check(project, powerless)


def test_files_that_stand_for_folders_and_folders_for_files_are_refused(project: Project, base: Verified) -> None:
    blob = project.raw("blob", b"x")
    tree = project.raw_tree(("120000", b"evil", blob))
    users = project.raw_tree(
        *sorted([*project.entries("HEAD:users"), ("40000", b"README.md", tree)], key=lambda entry: entry[1])
    )
    entries = [(mode, name, users if name == b"users" else oid) for mode, name, oid in project.entries()]
    assert "this is the name of a file" in told(
        project, base, project.raw_commit(project.raw_tree(*entries), project.head())
    )
    docs = sorted([*project.entries(), ("100644", b"docs", blob)], key=lambda entry: entry[1])
    assert "this is the name of a folder" in told(
        project, base, project.raw_commit(project.raw_tree(*docs), project.head())
    )


def test_deleting_a_group_needs_the_right_to_take_its_members_out(
    project: Project, base: Verified, bob: Person
) -> None:
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "lambda:*", "Resource": "*"}]}
    project.write("policies/deny.json", deny)
    project.write("groups/held.json", {"members": ["bob"], "policies": ["deny"]})
    project.write("policies/dev.json", allow("iam:DeleteGroup", "lambda:*"))
    project.commit()
    held = check(project, base).head
    project.git("rm", "-q", "groups/held.json")
    project.commit(by=bob)
    text = told(project, held)
    assert "iam:RemoveUserFromGroup" in text and "iam:DetachGroupPolicy" in text


def test_only_roots_change_the_region(project: Project, base: Verified, bob: Person) -> None:
    project.write("project.json", {"name": "shop", "roots": ["alice"], "region": "eu-west-1"})
    project.commit(by=bob)
    assert "only roots may change the region" in told(project, base)


def test_a_root_is_not_taken_over_by_another_root(
    project: Project, base: Verified, bob: Person, mallory: Person
) -> None:
    project.write("project.json", {"name": "shop", "roots": ["alice", "bob"]})
    project.commit()
    two = check(project, base).head
    project.write("users/bob.json", {"keys": [mallory.public], "policies": ["dev"]})
    project.commit()
    assert "only bob itself may change this file" in told(project, two)


@pytest.mark.parametrize(
    "extra", [{"keys": []}, {"fullName": None}, {"inlinePolicies": {}, "policies": []}, {"$schema": None}]
)
def test_empty_fields_are_a_change_too(project: Project, base: Verified, bob: Person, extra: dict[str, object]) -> None:
    project.write("users/zed.json", {})
    project.write("policies/dev.json", allow("s3:*"))
    project.commit()
    powerless = check(project, base).head
    project.write("users/zed.json", extra)
    project.commit(by=bob)
    assert "bob may not iam:" in told(project, powerless)


def test_a_resource_does_not_slip_from_under_a_deny_by_changing(project: Project, base: Verified, bob: Person) -> None:
    deny = {
        "Effect": "Deny",
        "Action": "lambda:*",
        "Resource": "*",
        "Condition": {"StringEquals": {"lambda:Runtime": "python"}},
    }
    project.write(
        "policies/dev.json",
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}, deny]},
    )
    project.commit()
    ruled = check(project, base).head
    project.write("functions/f/function.json", {**function(), "runtime": "python3.11"})
    project.write("functions/f/app.py", "x = 1\n")
    project.commit(by=bob)
    assert "denied by policies/dev.json $.Statement[1]" in told(project, ruled)


def test_a_head_that_another_version_took_names_the_way_back(project: Project, tmp_path: Path) -> None:
    project.write("functions/hello/function.json", {**function(), "ofAnotherVersion": True})
    head = project.commit()
    repository = Repository.create(tmp_path / "ledger.git", tmp_path)
    run(repository.path, "fetch", "-q", str(project.folder), head)
    (tmp_path / "verified").write_text(head)
    with pytest.raises(InvalidError) as refused:
        Ledger(repository, KINDS, tmp_path / "verified", Reviews())
    [problem] = refused.value.problems
    assert (problem.file, problem.path) == ("functions/hello/function.json", "$.ofAnotherVersion")
    assert problem.message.startswith("this version of owsgit does not take what is in the ledger: ")
    assert problem.remedy.startswith("start the version of owsgit that this node ran before, and push a correction")
