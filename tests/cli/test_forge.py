"""For teams that live on a forge: the check of a pull request, the mirror, and the hooks of a clone."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from owsgit.cli import pull_request
from owsgit.ledger.repository import Clone
from owsgit.model.errors import UnavailableError
from tests.conftest import serve
from tests.support import projects
from tests.support.nodes import Node, free_port, owsgit
from tests.support.people import Person
from tests.support.projects import Project, allow


@pytest.fixture
def shop(tmp_path: Path, alice: Person, bob: Person, carol: Person) -> Project:
    """Bob may write code; carol, as whom the forge signs merges, may do the same and merge."""
    return projects.create(
        tmp_path / "shop",
        alice,
        files={
            "users/bob.json": {"keys": [bob.public], "policies": ["code"]},
            "users/carol.json": {"keys": [carol.public], "policies": ["code", "merge"]},
            "policies/code.json": allow("lambda:UpdateFunctionCode"),
            "policies/merge.json": allow("ows:AddHistory"),
            "functions/f/function.json": projects.function(),
            "functions/f/app.py": projects.HELLO,
        },
    )


def verify(project: Project, by: Person, between: str, *options: str, form: str = "json") -> tuple[int, Any]:
    done = owsgit("verify", "--range", between, "--output", form, *options, by=by, cwd=project.folder)
    return done.status, json.loads(done.text) if form == "json" else done.text


def test_a_pull_request_is_told_what_a_node_would_say(shop: Project, bob: Person) -> None:
    shop.git("branch", "pr")
    shop.git("checkout", "-q", "pr")
    shop.write("functions/f/app.py", projects.HELLO.replace("hello", "hi"))
    shop.commit("Say hi", by=bob)
    assert verify(shop, bob, "main..pr")[0] == 0
    shop.write("functions/f/function.json", projects.function(timeout=9))
    shop.commit("Take longer | <b>@alice</b> `x`", by=bob)
    status, data = verify(shop, bob, "main..pr")
    assert status == 1 and not data["accepted"]
    assert "bob may not lambda:UpdateFunctionConfiguration" in data["problems"][0]["message"]
    status, text = verify(shop, bob, "main..pr", form="markdown")
    assert status == 1 and "❌" in text and "1 to update" in text
    assert r"Take longer \| &lt;b&gt;@" + "\u2060" + r"alice&lt;/b&gt; \`x\`" in text


def test_a_comment_says_nothing_of_the_commits_own(shop: Project, bob: Person) -> None:
    shop.git("checkout", "-q", "-b", "pr")
    shop.write("functions/f/function.json", {**projects.function(), "description": "```\n# all is well\n<img src=x>"})
    shop.commit("```\n\n# hello", by=bob)
    _, text = verify(shop, bob, "main..pr", form="markdown")
    inside, fences = False, 0
    for line in text.splitlines():
        if line.startswith("```"):
            inside, fences = not inside, fences + 1
        elif "<img" in line or "# all is well" in line:
            assert inside, text
    assert fences % 2 == 0 and fences >= 2


def test_a_branch_that_is_behind_is_judged_from_where_it_left(
    shop: Project, bob: Person, carol: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.git("checkout", "-q", "-b", "pr")
    shop.write("functions/f/app.py", projects.HELLO.replace("hello", "hi"))
    shop.commit("Say hi", by=bob)
    shop.git("checkout", "-q", "main")
    shop.write("docs/a.md", "a\n")
    shop.commit("elsewhere")
    status, data = verify(shop, bob, "main..pr")
    assert (status, data["behind"]) == (0, True)
    assert verify(shop, bob, "main..pr", "--merged-by", "carol")[0] == 0
    status, data = verify(shop, bob, "main..pr", "--merged-by", "bob")
    assert status == 1 and "bob may not ows:AddHistory" in str(data["problems"])
    shop.git("checkout", "-q", "pr")
    shop.write("functions/g/function.json", projects.function())
    shop.commit("a new one", by=bob)
    status, data = verify(shop, bob, "main..pr", "--merged-by", "carol")
    assert status == 1 and "carol may not lambda:CreateFunction" in str(data["problems"])
    shop.git("checkout", "-q", "main")
    shop.write("functions/f/app.py", projects.HELLO.replace("hello", "ho"))
    shop.commit("the same line")
    status, data = verify(shop, bob, "main..pr", "--merged-by", "carol")
    assert status == 1 and "conflicts" in str(data["problems"])
    older = shop.folder.parent / "older/git"
    older.parent.mkdir()
    older.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo git version 2.37.2 || exec {shutil.which("git")} "$@"\n')
    older.chmod(0o755)
    monkeypatch.setenv("PATH", str(older.parent), prepend=os.pathsep)
    with pytest.raises(UnavailableError, match=r"git 2\.37\.2 cannot try a merge"):
        pull_request.check(Clone(shop.folder), "main..pr", "carol")


def test_a_range_starts_from_what_was_decided_and_not_from_what_a_merge_brought(shop: Project, bob: Person) -> None:
    """In the middle of a merged branch bob was a root for a moment; no node ever took that for a state."""
    shop.git("checkout", "-q", "-b", "pr1")
    before = json.loads((shop.folder / "project.json").read_text())
    shop.write("project.json", {**before, "roots": ["alice", "bob"]})
    trick = shop.commit("bob is a root", by=bob)
    shop.write("project.json", before)
    shop.commit("and is not", by=bob)
    shop.git("checkout", "-q", "main")
    shop.git("merge", "-q", "--no-ff", "-S", "-m", "merge", "pr1")
    shop.git("checkout", "-q", "-b", "pr2", trick)
    shop.write("policies/code.json", allow("*"))
    shop.commit("everything for bob", by=bob)
    status, data = verify(shop, bob, "main..pr2")
    assert status == 1 and not data["accepted"], data


@pytest.mark.parametrize("between", ["main", "main..", "..main", "main...pr", "nowhere..main"])
def test_what_is_no_range_is_told(shop: Project, bob: Person, between: str) -> None:
    done = owsgit("verify", "--range", between, by=bob, cwd=shop.folder)
    assert done.status == 1 and "Traceback" not in done.text
    assert "is not a range" in done.text or "names no commit" in done.text


@pytest.fixture
def mirrored(tmp_path: Path, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    node = Node(tmp_path / "node", alice)
    project = serve(tmp_path / "shop", alice, bob, node)
    subprocess.run(["git", "clone", "-q", "--bare", project.folder, tmp_path / "forge.git"], check=True)
    project.git("remote", "add", "forge", str(tmp_path / "forge.git"))
    project.git("remote", "add", "a", node.url())
    yield project, node
    node.stop()


def test_what_was_merged_on_a_forge_goes_to_the_first_node_that_answers(mirrored: tuple[Project, Node]) -> None:
    project, node = mirrored
    away = f"ssh://127.0.0.1:{free_port()}/shop"
    project.write("docs/a.md", "a\n")
    tip = project.commit("merged")
    project.git("push", "-q", "forge", "HEAD:main")
    done = owsgit("mirror", "forge", away, "a", "-o", "json", by=project.owner, cwd=project.folder)
    assert done.status == 0, done.text
    assert json.loads(done.text)["changed"] and node.main() == tip
    again = owsgit("mirror", "forge", "a", by=project.owner, cwd=project.folder)
    assert again.status == 0 and "already" in again.text
    none = owsgit("mirror", "forge", away, by=project.owner, cwd=project.folder)
    assert none.status == 3 and "no node could be reached" in none.text


def test_the_mirror_brings_nothing_in_that_is_not_allowed(mirrored: tuple[Project, Node], bob: Person) -> None:
    project, node = mirrored
    before = node.main()
    project.write("nodes/evil.json", {"key": projects.node_key(), "address": "127.0.0.1"})
    project.commit("merged by nobody", by=bob)
    project.git("push", "-q", "forge", "HEAD:main")
    done = owsgit("mirror", "forge", "a", by=project.owner, cwd=project.folder)
    assert done.status == 1 and "bob may not ows:AddNode" in done.text
    assert node.main() == before


def test_hooks_of_a_clone_stop_what_a_node_would_refuse(mirrored: tuple[Project, Node], bob: Person) -> None:
    project, node = mirrored
    done = owsgit("hooks", "install", by=project.owner, cwd=project.folder)
    assert done.status == 0, done.text
    project.write("functions/hello/function.json", {"runtime": "cobol"})
    project.git("add", "--all")
    refused = project.try_git("commit", "-q", "-S", "-m", "no such runtime")
    assert refused.status != 0 and "functions/hello/function.json $.runtime" in refused.text
    project.git("reset", "-q", "--hard")
    project.write("scratch.json", "{ not for the ledger")  # beside the index: none of the hook's business
    project.write("functions/hello/app.py", projects.HELLO.replace("hello", "hi"))
    project.git("add", "functions")
    assert project.try_git("commit", "-q", "-S", "-m", "hi").status == 0
    (project.folder / "scratch.json").unlink()
    project.git("fetch", "-q", "a")
    pushed = project.try_git("push", "a", "HEAD:main")
    assert pushed.status == 0 and "a node would take it" in pushed.text, pushed.text
    project.write("users/dave.json", {})
    project.commit("hire dave", by=bob)
    before = node.log.read_text()
    stopped = project.try_git("push", "a", "HEAD:main", by=bob)
    assert stopped.status != 0 and "bob may not iam:CreateUser" in stopped.text and "not pushed" in stopped.text
    assert "iam:CreateUser" not in node.log.read_text()[len(before) :]
    proposed = project.try_git("push", "a", "HEAD:refs/for/main", by=bob)
    assert "not pushed" not in proposed.text and "bob may not ows:Propose" in proposed.text


def test_hooks_of_somebody_else_are_left_alone(shop: Project) -> None:
    mine = shop.folder / ".git/hooks/pre-push"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("#!/bin/sh\nexit 0\n")
    done = owsgit("hooks", "install", by=shop.owner, cwd=shop.folder)
    assert done.status == 1 and "is there already" in done.text
    assert mine.read_text() == "#!/bin/sh\nexit 0\n" and not mine.with_name("pre-commit").exists()
    assert owsgit("hooks", "install", "--force", by=shop.owner, cwd=shop.folder).status == 0
    gone = owsgit("hooks", "uninstall", by=shop.owner, cwd=shop.folder)
    assert gone.status == 0 and not mine.exists()


EXAMPLE = Path(__file__).parents[2] / "example-infra-repo"


def steps(file: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(file.read_text())
    return [step for job in document["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("forge", [".github", ".forgejo"])
def test_the_ready_example_verifies_a_pull_request(shop: Project, bob: Person, tmp_path: Path, forge: str) -> None:
    """The very script of the file, in a clone as the forge's runner has it."""
    (script,) = [each["run"] for each in steps(EXAMPLE / forge / "workflows/owsgit.yml") if each.get("id") == "verify"]
    shop.git("checkout", "-q", "-b", "pr")
    shop.write("nodes/evil.json", {"key": projects.node_key(), "address": "127.0.0.1"})
    shop.commit("one more node", by=bob)
    shop.git("update-ref", "refs/remotes/origin/main", "main")
    files = {"GITHUB_STEP_SUMMARY": tmp_path / "summary", "GITHUB_OUTPUT": tmp_path / "output"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**bob.environment, "BASE": "main", "PATH": path, **{name: str(file) for name, file in files.items()}}
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=shop.folder, env=environment)
    assert done.returncode == 0
    assert files["GITHUB_OUTPUT"].read_text() == "status=1\n"
    assert "bob may not ows:AddNode" in files["GITHUB_STEP_SUMMARY"].read_text()
    assert "bob may not ows:AddNode" in (shop.folder / "comment.md").read_text()


def test_the_ready_examples_call_what_there_is() -> None:
    from owsgit.cli import owsgit as group

    scripts = [each.get("run", "") for file in EXAMPLE.glob(".*/workflows/*.yml") for each in steps(file)]
    lab = yaml.safe_load((EXAMPLE / ".gitlab-ci.yml").read_text())
    scripts += [line for job in lab.values() if isinstance(job, dict) for line in job.get("script", [])]
    lines = [line for script in scripts for line in script.splitlines() if line.lstrip().startswith("owsgit ")]
    assert len(lines) >= 9
    for line in lines:
        words = shlex.split(line.split(" > ")[0].split(" #")[0].replace("$(git remote | grep -v '^origin$')", "a"))[1:]
        name, command, rest = group.resolve_command(click.Context(group), words)
        assert command is not None
        command.make_context(name, rest)  # raises for an option that there is not
