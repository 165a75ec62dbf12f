"""What references ask of git itself: versions that were there, files that are there. With the file and JSON path."""

from pathlib import Path
from typing import Any

import pytest

from owsgit.ledger import verify
from owsgit.ledger.verify import Verified
from owsgit.model.errors import InvalidError, Problem
from owsgit.services import KINDS
from tests.support import projects
from tests.support.people import Person
from tests.support.projects import Project, function

NEVER = "0" * 40


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> tuple[Project, Verified]:
    """A project with a function that has an alias, and a website."""
    made = projects.create(tmp_path_factory.mktemp("targets") / "shop", alice, files={"docs/a.md": "a\n"})
    first = made.head()
    made.write("functions/f/function.json", function(aliases={"live": {"commit": first}}))
    made.write("functions/f/app.py", projects.HELLO)
    made.write("websites/www/website.json", {})
    for name in ("index.html", "404.html", "app/index.html"):
        made.write(f"websites/www/{name}", "<h1>hi</h1>")
    made.commit()
    return made, verify.push(made.objects(), KINDS, None, made.head()).head


@pytest.fixture
def project(founded: tuple[Project, Verified]) -> Project:
    founded[0].git("reset", "-q", "--hard", founded[1].commit)
    founded[0].git("clean", "-fdq")
    return founded[0]


@pytest.fixture
def base(founded: tuple[Project, Verified]) -> Verified:
    return founded[1]


def pushed(project: Project, base: Verified) -> list[Problem]:
    """What is wrong with what was written."""
    project.commit()
    try:
        verify.push(project.objects(), KINDS, base, project.head())
    except InvalidError as error:
        return list(error.problems)
    return []


def gateway(route: dict[str, Any], key: str = "GET /a", **more: Any) -> dict[str, Any]:
    return {"port": 8080, "routes": {key: route}, **more}


AUTHORIZER = {"authorizers": {"who": {"type": "request", "function": "f:lost"}}, "auth": "who"}
STAGES = {"stages": {"a": {"variables": {"v": "live"}}, "b": {"variables": {"v": "lost"}}}}


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (gateway({"function": "f:lost"}), "$.routes['GET /a'].function", "no alias 'lost'; known aliases: live"),
        (gateway({"function": "f:${stageVariables.v}"}, **STAGES), "$.routes['GET /a'].function", "no alias 'lost'"),
        (gateway({"function": f"f@{NEVER}"}), "$.routes['GET /a'].function", "no commit of main"),
        (gateway({"function": "f@abc123"}), "$.routes['GET /a'].function", "all 40 digits"),
        (
            gateway({"function": "f", "canary": {"function": "f:lost", "percentTraffic": 5}}),
            "$.routes['GET /a'].canary.function",
            "no alias 'lost'",
        ),
        (
            gateway({"function": "f:live", "canary": {"function": "f:live", "percentTraffic": 5}}),
            "$.routes['GET /a'].canary.function",
            "so is the function",
        ),
        (gateway({"function": "f"}, **AUTHORIZER), "$.authorizers.who.function", "no alias 'lost'"),
        (gateway({"function": f"f@{NEVER}"}, "join", protocol="WEBSOCKET"), "$.routes.join.function", "no commit"),
        (
            gateway({"files": {"website": "www", "path": "lost.html"}}),
            "$.routes['GET /a'].files.path",
            "no 'lost.html' and no 'lost.html/index.html'",
        ),
        (
            gateway({"files": {"website": "www", "path": "lost"}}, "GET /a/{path+}"),
            "$.routes['GET /a/{path+}'].files.path",
            "no 'lost/'",
        ),
        (
            gateway({"files": {"website": "www", "index": "lost.html", "spa": True}}, "$default"),
            "$.routes['$default'].files.index",
            "no 'lost.html'",
        ),
        (
            gateway({"files": {"website": "www", "notFound": "lost.html"}}, "$default"),
            "$.routes['$default'].files.notFound",
            "no 'lost.html'",
        ),
    ],
)
def test_a_target_that_is_not_there_is_refused(
    project: Project, base: Verified, document: dict[str, Any], path: str, words: str
) -> None:
    project.write("gateways/api.json", document)
    (problem,) = pushed(project, base)
    assert problem.file == "gateways/api.json" and problem.path.replace('"', "'") == path
    assert words in f"{problem.message}; {problem.remedy}"


def test_a_commit_before_the_function_is_none_of_its_versions(project: Project, base: Verified) -> None:
    project.write("gateways/api.json", gateway({"function": f"f@{project.git('rev-parse', 'HEAD~')}"}))
    (problem,) = pushed(project, base)
    assert "there was no function f at" in problem.message


def test_what_is_there_is_taken(project: Project, base: Verified) -> None:
    routes = {
        "GET /a": {"function": f"f@{base.commit}", "canary": {"function": "f:live", "percentTraffic": 5}},
        "GET /b": {"files": {"website": "www", "path": "app"}},
        "GET /c": {"files": {"website": "www"}},
        "GET /d/{path+}": {"files": {"website": "www", "path": "app", "spa": True, "notFound": "404.html"}},
        "$default": {"files": {"website": "www", "index": "somewhere-below.html"}},
    }
    project.write("gateways/api.json", {"port": 8080, "routes": routes})
    assert pushed(project, base) == []
    assert verify.push(project.objects(), KINDS, None, project.head()).head.commit == project.head()  # as clones do


def test_what_is_named_cannot_be_taken_away(project: Project, base: Verified) -> None:
    route = {"files": {"website": "www", "path": "app", "notFound": "404.html"}}
    project.write("gateways/api.json", {"port": 8080, "routes": {"GET /{x+}": route, "GET /f": {"function": "f:live"}}})
    assert pushed(project, base) == []
    head = verify.push(project.objects(), KINDS, base, project.head()).head
    project.git("rm", "-q", "websites/www/404.html")
    project.write("functions/f/function.json", function())
    told = {(problem.file, problem.path.rpartition(".")[2]) for problem in pushed(project, head)}
    assert told == {("gateways/api.json", "function")}
    project.git("reset", "-q", "--hard", head.commit)
    project.git("rm", "-q", "websites/www/404.html")
    (problem,) = pushed(project, head)
    assert problem.path.endswith(".files.notFound") and "add the file to websites/www/" in problem.remedy


def test_a_version_that_was_named_before_is_not_looked_for_again(
    project: Project, base: Verified, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.write("gateways/api.json", gateway({"function": f"f@{base.commit}"}))
    assert pushed(project, base) == []
    head = verify.push(project.objects(), KINDS, base, project.head()).head
    project.write("gateways/api.json", gateway({"function": f"f@{base.commit}", "timeout": 5}))
    monkeypatch.setattr("owsgit.ledger.targets.HISTORY_COMMITS_MAX", 0)  # nothing can be found
    assert pushed(project, head) == []
