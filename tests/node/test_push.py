"""What a pusher sees of a real node: the way of one change, and every way in which it is refused."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import gateway_url, serve
from tests.support import nodes, projects
from tests.support.nodes import Node, push
from tests.support.people import Person
from tests.support.projects import Project


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("shared")
    node = Node(folder / "node", alice)
    yield serve(folder / "shop", alice, bob, node), node
    node.stop()


@pytest.fixture
def here(shared: tuple[Project, Node], tmp_path: Path) -> Iterator[tuple[Project, Node]]:
    """A fresh clone; afterwards the node has to be as it was."""
    origin, node = shared
    before = node.main()
    origin.git("clone", "-q", node.url(), str(tmp_path / "clone"))
    yield Project(tmp_path / "clone", origin.owner), node
    assert node.main() == before, "a refused push changed main"
    assert node.status()["problem"] == ""
    assert httpx.get(f"{gateway_url(origin)}/hello/you").text == "hello you"


def test_a_signed_push_is_told_line_by_line_and_served(served: Project, node: Node) -> None:
    served.write("functions/hello/app.py", projects.HELLO.replace("hello {name}", "hi {name}"))
    served.write(
        "gateways/api.json", {**json.loads((served.folder / "gateways/api.json").read_text()), "description": "x"}
    )
    commit = served.commit("Say hi")
    done = push(served, node)
    assert done.status == 0
    for line in (
        f"{commit[:10]} Say hi",
        "signed by alice (ssh-ed25519 SHA256:",
        "~ functions/hello/app.py  lambda:UpdateFunctionCode  allowed: alice is a root of the project",
        "~ gateways/api.json  apigateway:PATCH",
        "plan: 0 to create, 2 to update, 0 to delete",
        '$.description: (absent) -> "x"',
        "ready     function hello",
        f"ready     gateway api  {gateway_url(served)}",
    ):
        assert line in done.text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hi you"
    assert node.status()["applied"] == commit


def test_a_revert_is_a_rollback(served: Project, node: Node) -> None:
    served.write("functions/hello/app.py", projects.HELLO.replace("hello", "broken"))
    served.commit()
    assert push(served, node).status == 0
    served.git("revert", "--no-edit", "-S", "HEAD")
    assert push(served, node).status == 0
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"


def test_what_leaves_the_ledger_is_deleted(served: Project, node: Node) -> None:
    url = gateway_url(served)
    served.git("rm", "-rq", "gateways", "functions")
    served.commit()
    done = push(served, node)
    assert "deleted   gateway api" in done.text and "deleted   function hello" in done.text
    assert node.status()["resources"] == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_no_wait_does_not_wait_for_applying(served: Project, node: Node) -> None:
    served.write("functions/hello/app.py", "import time; time.sleep(4)\n" + projects.HELLO)
    commit = served.commit()
    done = push(served, node, "HEAD:main", "-o", "no-wait")
    assert done.status == 0 and "main is now" in done.text and "plan" not in done.text
    assert node.status()["applied"] != commit
    nodes.until(lambda: node.status()["applied"] == commit)


def test_a_failed_resource_is_told_and_blocks_no_other(served: Project, node: Node) -> None:
    served.write("functions/bad/function.json", projects.function())
    served.write("functions/bad/app.py", "import nowhere\n")
    served.write("functions/hello/app.py", projects.HELLO.replace("hello", "hola"))
    served.commit()
    done = push(served, node)
    assert done.status == 0
    assert "FAILED    function bad" in done.text and "No module named 'nowhere'" in done.text
    assert "ready     function hello" in done.text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hola you"
    failed = node.resource("functions/bad")
    assert failed and failed["state"] == "failed" and failed["attempts"] >= 1


def test_a_failed_update_leaves_the_old_version_serving(served: Project, node: Node) -> None:
    served.write("functions/hello/app.py", "def (:\n")
    served.commit()
    done = push(served, node)
    assert "Syntax error in module 'app'" in done.text and "goes on serving" in done.text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"
    node.stop()
    node.start()
    nodes.until(lambda: node.status()["applied"])
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"


def test_a_suspended_resource_stays_as_it_is(served: Project, node: Node) -> None:
    served.write("functions/hello/function.json", projects.function(suspend=True))
    served.write("functions/hello/app.py", projects.HELLO.replace("hello", "later"))
    served.commit()
    assert "suspended function hello" in push(served, node).text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"
    node.stop()
    node.start()
    nodes.until(lambda: node.status()["applied"])
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"
    served.write("functions/hello/function.json", projects.function())
    served.commit()
    assert push(served, node).status == 0
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "later you"


def test_plain_git_clone_fetch_and_pull_rebase_work(served: Project, node: Node, bob: Person, tmp_path: Path) -> None:
    served.git("clone", "-q", node.url(), str(tmp_path / "bobs"), by=bob)
    bobs = Project(tmp_path / "bobs", bob)
    served.write("README.md", "by alice\n")
    served.commit()
    assert push(served, node).status == 0
    bobs.write("functions/hello/app.py", projects.HELLO.replace("hello", "salut"))
    bobs.commit("bob's")
    late = bobs.try_git("push", "origin", "main")
    assert late.status != 0 and "fetch first" in late.text
    bobs.git("-c", "commit.gpgSign=true", "pull", "-q", "--rebase", "origin", "main")
    pushed = bobs.try_git("push", "origin", "main")
    assert pushed.status == 0 and "allowed by policies/code.json $.Statement[0]" in pushed.text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "salut you"


def test_two_pushes_at_once_one_wins_and_the_other_is_told_to_fetch(
    served: Project, node: Node, tmp_path: Path
) -> None:
    contenders = []
    for number in range(4):
        served.git("clone", "-q", node.url(), str(tmp_path / f"c{number}"))
        contender = Project(tmp_path / f"c{number}", served.owner)
        contender.write("README.md", f"by {number}\n")
        contender.commit(f"by {number}")
        contenders.append(contender)
    running = [
        subprocess.Popen(
            ["git", "push", node.url(), "HEAD:main"], cwd=contender.folder, env=contender.owner.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for contender in contenders
    ]  # fmt: skip
    told = [process.communicate(timeout=60)[0] for process in running]
    won = [index for index, process in enumerate(running) if process.returncode == 0]
    assert len(won) == 1, told
    assert node.main() == contenders[won[0]].head()
    assert all("fetch first" in text for index, text in enumerate(told) if index not in won), told


def test_only_the_owner_brings_the_genesis_and_it_names_the_node(
    tmp_path: Path, alice: Person, mallory: Person, node: Node
) -> None:
    spec = node.init()
    node.start()
    evil = projects.create(tmp_path / "evil", mallory, files={"nodes/a.json": spec})
    assert "Permission denied" in push(evil, node).text
    smuggled = push(evil, node, by=alice)
    assert "no root of this project has a key that this node's owner named" in smuggled.text
    nameless = projects.create(tmp_path / "nameless", alice)
    assert "the project does not name this node" in push(nameless, node).text
    assert node.main() == ""
    named = projects.create(tmp_path / "named", alice, files={"nodes/a.json": spec})
    assert push(named, node).status == 0


def test_a_removed_user_can_neither_log_in_nor_sign(served: Project, node: Node, bob: Person, alice: Person) -> None:
    served.git("rm", "-q", "users/bob.json")
    served.commit()
    assert push(served, node).status == 0
    served.write("functions/hello/app.py", "x = 1\n")
    served.commit(by=bob)
    assert "Permission denied" in push(served, node, by=bob).text
    refused = push(served, node, by=alice)
    assert refused.status != 0 and "which is no user's key" in refused.text


def test_somebody_without_a_key_in_the_ledger_sees_nothing(
    shared: tuple[Project, Node], mallory: Person, tmp_path: Path
) -> None:
    project, node = shared
    assert "Permission denied" in project.try_git("ls-remote", node.url(), by=mallory).text


def test_there_is_no_shell_and_no_other_repository(shared: tuple[Project, Node]) -> None:
    project, node = shared
    ssh = [*project.owner.environment["GIT_SSH_COMMAND"].split(), "-p", str(node.port), "127.0.0.1"]
    for command in (
        "id",
        "",
        "git-upload-pack '/etc'",
        "git-upload-pack 'shop' extra",
        "git-upload-archive 'shop'",
        "owsgit rm",
    ):
        done = subprocess.run([*ssh, command], capture_output=True, stdin=subprocess.DEVNULL, timeout=20)
        assert done.returncode != 0
        assert b"owsgit" in done.stderr, command


Craft = Callable[[Project], str]


def unsigned(project: Project) -> str:
    project.write("README.md", "x")
    return project.commit(signed=False)


def tampered(project: Project) -> str:
    raw = project.git("cat-file", "commit", project.commit("honest"))
    return project.raw("commit", (raw + "\n").replace("honest", "forged").encode())


def two_signatures(project: Project) -> str:
    signature = project.git("cat-file", "commit", project.commit("one")).split("gpgsig ")[1].split("-----END")[0]
    return project.raw_commit(
        project.tree(), project.head(), extra=f"gpgsig {signature}-----END SSH SIGNATURE-----\n".encode()
    )


def with_header(header: bytes, *, signed: bool = False) -> Craft:
    def craft(project: Project) -> str:
        how: dict[str, Any] = {"before_signature": header} if signed else {"extra": header}
        return project.raw_commit(project.tree(), project.head(), **how)

    return craft


def signed_with(**how: Any) -> Craft:
    return lambda project: project.raw_commit(project.tree(), project.head(), **how)


def with_file(path: str, content: Any) -> Craft:
    def craft(project: Project) -> str:
        project.write(path, content)
        return project.commit()

    return craft


def without(path: str) -> Craft:
    def craft(project: Project) -> str:
        project.git("rm", "-q", path)
        return project.commit()

    return craft


def with_entry(mode: str, name: bytes, *, code: bool = False, twice: bool = False) -> Craft:
    """A tree entry that git itself would not add, at the root or in a function's folder."""

    def craft(project: Project) -> str:
        blob = project.head() if mode == "160000" else project.raw("blob", b"x")
        extra = [(mode, name, blob), *([(mode, name.upper(), blob)] if twice else [])]
        entries = project.entries("HEAD:functions/hello") if code else project.entries()
        tree = project.raw_tree(*sorted([*entries, *extra], key=lambda entry: entry[1]))
        if code:
            functions = project.raw_tree(("40000", b"hello", tree))
            entries = [(m, n, functions if n == b"functions" else oid) for m, n, oid in project.entries()]
            tree = project.raw_tree(*entries)
        return project.raw_commit(tree, project.head())

    return craft


def foxtrot(project: Project) -> str:
    base = project.head()
    project.git("checkout", "-q", "-b", "side", "HEAD~0")
    project.write("README.md", "side\n")
    side = project.commit("side")
    project.git("reset", "-q", "--hard", base)
    return project.raw_commit(project.tree(side), project.raw_commit(project.tree(side), message="root"), base)


def many(count: int) -> Craft:
    def craft(project: Project) -> str:
        tree, parent = project.tree(), project.head()
        stream = [
            f"commit refs/heads/many\ncommitter a <a@b> {1700000000 + number} +0000\ndata 1\nx\n"
            + (f"from {parent}\n" if number == 0 else "")
            for number in range(count)
        ]
        project.git("fast-import", "--quiet", data="\n".join(stream).encode())
        del tree
        return project.git("rev-parse", "refs/heads/many")

    return craft


POLICY = {"Version": "2012-10-17", "Statement": []}
BAD: dict[str, tuple[Craft, str]] = {
    "unsigned": (unsigned, "it is not signed"),
    "tampered payload": (tampered, "it was changed after it was signed"),
    "two signatures": (two_signatures, "the header 'gpgsig' appears 2 times"),
    "header gpgsigX": (with_header(b"gpgsigX evil\n"), "the header 'gpgsigX' is not taken"),
    "header gpgsig-sha256": (with_header(b"gpgsig-sha256 evil\n"), "the header 'gpgsig-sha256' is not taken"),
    "header mergetag": (with_header(b"mergetag object 0\n", signed=True), "the header 'mergetag' is not taken"),
    "wrong namespace": (signed_with(namespace="file"), "the signature's namespace is 'file', not 'git'"),
    "unknown field": (with_file("project.json", {"name": "shop", "roots": ["alice"], "regoin": "x"}), "did you mean the field 'region'"),
    "wrong type": (with_file("gateways/b.json", {"port": "8080", "routes": {}}), "gateways/b.json $.port"),
    "duplicate key": (with_file("policies/p.json", '{"Statement": [], "Statement": []}'), "'Statement' appears twice"),
    "NaN": (with_file("gateways/b.json", '{"port": NaN, "routes": {}}'), "NaN is not a JSON number"),
    "infinite float": (with_file("gateways/b.json", '{"port": 1e999, "routes": {}}'), "1e999 is not a JSON number"),
    "deep nesting": (with_file("policies/p.json", '{"Statement": ' + "[" * 100_000 + "]" * 100_000 + "}"), "nested deeper than 64"),
    "not JSON": (with_file("policies/p.json", "{'a': 1}"), "not JSON"),
    "byte-order mark": (with_file("policies/p.json", "\ufeff{}"), "byte-order mark"),
    "100 MB of JSON": (with_file("policies/p.json", b'{"Statement": "' + b"x" * 100_000_000 + b'"}'), "are taken"),
    "unknown folder": (with_file("function/x.json", {}), "did you mean the folder 'functions'"),
    "missing function": (with_file("gateways/b.json", {"port": 1, "routes": {"GET /": {"function": "helo"}}}), "did you mean the function 'hello'"),
    "a policy still held": (without("policies/code.json"), "there is no policy 'code'"),
    "no root left": (with_file("users/alice.json", {"keys": []}), "the root user alice has no key left"),
    "no node left": (without("nodes/a.json"), "the last node of a project cannot be removed"),
    "unknown condition key": (
        with_file("policies/p.json", {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringEquals": {"aws:usrname": "x"}}}]}),
        "did you mean the key 'aws:username'",
    ),
    "private key": (with_file("users/eve.json", {"keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}), "this is a private key"),
    "symlink": (with_entry("120000", b"link.json"), "a symlink is not allowed"),
    "symlink in code": (with_entry("120000", b"link.py", code=True), "a symlink is not allowed"),
    "submodule": (with_entry("160000", b"sub"), "a submodule is not allowed"),
    "executable": (with_entry("100755", b"zz.md"), "an infra file may not be executable"),
    "mode 100666": (with_entry("100666", b"zz.md"), "100666"),
    "case collision": (with_entry("100644", b"zz.md", twice=True), "differ only in case"),
    "newline in a name": (with_entry("100644", b"z\nz.md"), "is not allowed"),
    "colon in code": (with_entry("100644", b"z:z.py", code=True), "is not allowed"),
    "dot-dot": (with_entry("40000", b".."), ""),
    ".git in code": (with_entry("100644", b".git", code=True), ""),
    ".GIT~1": (with_entry("100644", b"GIT~1", code=True), ""),
    ".gitattributes": (with_entry("100644", b".gitattributes"), "is not allowed"),
    ".gitmodules in code": (with_entry("100644", b".gitmodules", code=True), ""),
    "foxtrot merge": (foxtrot, "this merge has main as its second parent"),
    "10,000 commits": (many(10_000), "more than 1,000 commits at once"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_content_is_refused_and_the_node_unharmed(here: tuple[Project, Node], what: str) -> None:
    project, node = here
    craft, told = BAD[what]
    commit = craft(project)
    done = push(project, node, f"{commit}:refs/heads/main")
    assert done.status != 0
    assert told in done.text, done.text
    assert "Traceback" not in done.text


def test_force_pushes_deletions_unrelated_histories_and_other_refs_are_refused(
    here: tuple[Project, Node], tmp_path: Path
) -> None:
    project, node = here
    for ref in (
        "HEAD:refs/heads/other",
        "HEAD:refs/tags/v1",
        "HEAD:refs/replace/" + project.head(),
        "HEAD:refs/owsgit/x",
    ):
        assert push(project, node, ref).status != 0
    deleted = push(project, node, ":main")
    assert deleted.status != 0 and "main is never deleted" in deleted.text
    old = project.raw_commit(project.tree(), message="unrelated")
    forced = push(project, node, f"+{old}:main")
    assert forced.status != 0 and "does not follow main" in forced.text
    project.write("README.md", "one")
    project.commit()
    both = project.try_git("push", "--atomic", node.url(), "HEAD:main", "HEAD:refs/heads/b")
    assert both.status != 0


def test_an_unknown_key_is_refused(here: tuple[Project, Node], mallory: Person, alice: Person) -> None:
    project, node = here
    project.write("README.md", "mallory's")
    project.commit(by=mallory)
    assert "which is no user's key" in push(project, node, by=alice).text


def test_what_no_policy_allows_is_refused_by_file_and_action(here: tuple[Project, Node], bob: Person) -> None:
    project, node = here
    project.write("functions/hello/function.json", projects.function(timeout=900))
    project.write(
        "users/bob.json", {"keys": [bob.public], "policies": ["code"], "inlinePolicies": {"x": projects.allow("*")}}
    )
    project.commit(by=bob)
    done = push(project, node, by=bob)
    assert (
        "functions/hello/function.json: bob may not lambda:UpdateFunctionConfiguration on arn:aws:lambda:" in done.text
    )
    assert "users/bob.json: bob may not iam:PutUserPolicy" in done.text
    assert "no policy of bob allows it" in done.text


def test_a_shallow_push_that_does_not_connect_is_refused(here: tuple[Project, Node], tmp_path: Path) -> None:
    project, node = here
    for number in range(3):
        project.write("README.md", f"{number}")
        project.commit()
    project.git("clone", "-q", "--depth", "1", f"file://{project.folder}", str(tmp_path / "shallow"))
    shallow = Project(tmp_path / "shallow", project.owner)
    assert push(shallow, node).status != 0


def test_a_pack_bomb_is_refused(here: tuple[Project, Node]) -> None:
    """A gigabyte of zeros packs to one megabyte."""
    project, node = here
    (project.folder / "functions/hello/zeros.bin").write_bytes(b"\0" * (300 * 1024 * 1024))
    commit = project.commit()
    done = push(project, node, f"{commit}:main")
    assert done.status != 0 and "bytes; a file may have 52,428,800" in done.text
    (project.folder / "functions/hello/zeros.bin").unlink()


def pkt(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def test_a_signed_push_tells_who_pushed(served: Project, node: Node, mallory: Person) -> None:
    served.write("README.md", "x")
    served.commit()
    pushed = push(served, node, "HEAD:main", "--signed")
    assert pushed.status == 0 and "pushed by alice, who signed the push" in pushed.text
    served.write("README.md", "y")
    served.commit()
    stranger = {**served.owner.extra, "user.signingKey": str(mallory.private.with_suffix(".pub"))}
    refused = push(served, node, "HEAD:main", "--signed", by=replace(served.owner, extra=stranger))
    assert refused.status != 0 and "which is no user's key" in refused.text


def test_a_second_update_of_main_in_the_same_push_is_refused(here: tuple[Project, Node], bob: Person) -> None:
    """git would carry out both: what was looked at, and what was not."""
    project, node = here
    old = project.head()
    project.write("functions/hello/app.py", projects.HELLO + "# by bob\n")
    good = project.commit(by=bob)
    project.write("users/bob.json", {"keys": [bob.public], "inlinePolicies": {"all": projects.allow("*")}})
    evil = project.commit(signed=False)
    pack = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"],
        cwd=project.folder,
        input=f"{evil}\n^{old}\n".encode(),
        capture_output=True,
        check=True,
    ).stdout
    for second in (f"{good} {evil} refs/heads/main", f"{'0' * 40} {evil} refs/heads/main\u2028"):
        commands = pkt(f"{old} {good} refs/heads/main\0report-status".encode()) + pkt(second.encode()) + b"0000"
        done = subprocess.run(
            [*bob.environment["GIT_SSH_COMMAND"].split(), "-p", str(node.port), "127.0.0.1", "git-receive-pack 'shop'"],
            input=commands + pack, capture_output=True, timeout=60,
        )  # fmt: skip
        assert b"hook declined" in done.stdout, done
    refs = subprocess.run(
        ["git", "for-each-ref", "refs/heads"], cwd=node.home / "ledger.git", capture_output=True, text=True, check=True
    ).stdout
    assert refs.split() == [old, "commit", "refs/heads/main"]


def test_a_key_that_left_the_ledger_is_out_at_once_also_on_an_open_connection(
    served: Project, node: Node, bob: Person, tmp_path: Path
) -> None:
    socket_path = tmp_path / "m"
    ssh = [
        *bob.environment["GIT_SSH_COMMAND"].split(),
        "-o",
        f"ControlPath={socket_path}",
        "-p",
        str(node.port),
        "127.0.0.1",
    ]
    master = subprocess.Popen([*ssh, "-M", "-N"], stdin=subprocess.DEVNULL)
    try:
        nodes.until(socket_path.exists)
        assert subprocess.run([*ssh, "owsgit status"], capture_output=True, timeout=20).returncode == 0
        served.git("rm", "-q", "users/bob.json")
        served.commit()
        assert push(served, node).status == 0
        for command in ("owsgit status", "git-upload-pack 'shop'"):
            done = subprocess.run([*ssh, command], capture_output=True, stdin=subprocess.DEVNULL, timeout=20)
            assert done.returncode != 0 and b"not in the ledger any more" in done.stderr
    finally:
        master.terminate()
        master.wait()


def test_what_code_says_cannot_draw_on_the_pushers_screen(served: Project, node: Node) -> None:
    served.write("functions/bad/function.json", projects.function())
    served.write("functions/bad/app.py", "raise ValueError('\\x1b]0;title\\x07\\r')\n")
    served.commit()
    done = push(served, node)
    assert "FAILED    function bad" in done.text and "\x1b" not in done.text and "\x07" not in done.text


def test_an_unknown_push_option_is_told(here: tuple[Project, Node]) -> None:
    project, node = here
    project.write("README.md", "x")
    project.commit()
    assert "did you mean the option 'no-wait'?" in push(project, node, "HEAD:main", "-o", "nowait").text


def test_settings_that_differ_from_the_ledger_are_told(served: Project, node: Node) -> None:
    assert node.status()["warnings"] == []
    spec = json.loads((served.folder / "nodes/a.json").read_text())
    served.write("nodes/a.json", {**spec, "ports": {"ssh": nodes.free_port()}})
    served.commit()
    assert push(served, node).status == 0
    assert "but this node is at 127.0.0.1" in node.status()["warnings"][0]
