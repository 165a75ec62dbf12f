"""Older versions of a function, called by commit and by alias beside the one at the head."""

import json
import subprocess
from typing import Any

import pytest

from tests.support import projects
from tests.support.nodes import Node, owsgit, push
from tests.support.people import Person
from tests.support.projects import Done, Project, allow

CODE = "import os\ndef handler(event, context):\n    return [{number}, os.environ['AWS_LAMBDA_FUNCTION_VERSION'], context.invoked_function_arn]\n"


def invoke(project: Project, name: str, by: Person | None = None) -> Done:
    return owsgit("invoke", name, by=by or project.owner, cwd=project.folder)


def ask(node: Node, name: str) -> Any:
    """What a function answers to null, over SSH alone: for many calls, in a fraction of the time of `invoke`."""
    ssh = node.owner.environment["GIT_SSH_COMMAND"].split()
    done = subprocess.run(
        [*ssh, "-p", str(node.port), node.address, f"owsgit invoke {name}"],
        input=b"null",
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition(b"\n")[2])


@pytest.fixture
def commits(served: Project, node: Node) -> list[str]:
    """Two versions of the function `f`, both pushed."""
    served.git("remote", "add", "origin", node.url())
    made = []
    for number in (1, 2):
        served.write("functions/f/function.json", projects.function("app.handler"))
        served.write("functions/f/app.py", CODE.format(number=number))
        served.commit(f"f says {number}")
        assert push(served, node).status == 0
        made.append(served.git("rev-parse", "HEAD").strip())
    return made


def test_a_version_is_called_by_its_commit_in_any_form(served: Project, commits: list[str]) -> None:
    first, _ = commits
    number, version, arn = json.loads(invoke(served, f"f@{first}").text)
    assert (number, version) == (1, first) and arn.endswith(f":function:f:{first}")
    assert json.loads(invoke(served, f"f@{first[:8]}").text)[0] == 1
    assert json.loads(invoke(served, "f@HEAD~1").text)[0] == 1
    assert json.loads(invoke(served, "f@HEAD").text)[:2] == [2, "$LATEST"], "the head's version runs already"
    assert json.loads(invoke(served, "f").text)[0] == json.loads(invoke(served, "f:$LATEST").text)[0] == 2


def test_what_is_no_version_is_told(served: Project, commits: list[str]) -> None:
    founding = served.git("rev-list", "--max-parents=0", "HEAD").strip()
    for name, told in (
        (f"f@{founding}", "there was no function f"),
        ("f:live", "has no alias 'live'"),
        ("f:a:b", "is not a function"),
        ("f@nowhere", "names no commit"),
    ):
        done = invoke(served, name)
        assert done.status != 0 and told in done.text, done.text
        done = owsgit("invoke", name, "--async", by=served.owner, cwd=served.folder)
        assert done.status != 0 and told in done.text, done.text
    served.git("commit", "--allow-empty", "-m", "never pushed")
    done = invoke(served, "f@HEAD")
    assert done.status != 0 and "is no commit of main" in done.text, done.text


def test_an_alias_serves_its_versions_by_weight_also_while_the_head_is_broken(
    served: Project, node: Node, commits: list[str]
) -> None:
    first, second = commits
    aliases = {"live": {"commit": first, "weights": {second: 0.5}}, "old": {"commit": first}}
    served.write("functions/f/function.json", projects.function("app.handler", aliases=aliases))
    served.write("functions/f/app.py", "import nowhere\n")
    served.commit("Break it, and name what worked")
    text = push(served, node).text
    assert "Runtime.ImportModuleError" in text
    assert json.loads(invoke(served, "f:old").text)[:2] == [1, first]
    assert json.loads(invoke(served, "f:live").text)[0] in (1, 2)
    assert {ask(node, "f:live")[0] for _ in range(24)} == {1, 2}

    served.write("functions/f/app.py", CODE.format(number=3))
    served.write("functions/f/function.json", projects.function("app.handler", aliases={"bad": {"commit": "0" * 40}}))
    served.commit("An alias for nothing")
    text = push(served, node).text
    assert "$.aliases.bad" in text and "is no commit of main" in text
    assert json.loads(invoke(served, "f").text)[0] == 3


def test_a_version_needs_a_right_of_its_own(served: Project, node: Node, commits: list[str], bob: Person) -> None:
    first, _ = commits
    only_live = allow("lambda:InvokeFunction", resource="arn:aws:lambda:*:*:function:f:live")
    served.write("functions/f/function.json", projects.function("app.handler", aliases={"live": {"commit": first}}))
    served.write("users/bob.json", {"keys": [bob.public], "inlinePolicies": {"live": only_live}})
    served.commit("Bob may call what is live")
    assert push(served, node).status == 0
    assert json.loads(invoke(served, "f:live", bob).text)[0] == 1
    for name in ("f", f"f@{first}"):
        done = invoke(served, name, bob)
        assert done.status != 0 and "may not lambda:InvokeFunction" in done.text, done.text
