"""Users without a key in the ledger, who come with certificates of an authority that it names."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import serve
from tests.support import nodes, people, projects
from tests.support.nodes import Node
from tests.support.people import Person
from tests.support.projects import Project


@pytest.fixture(scope="module")
def here(
    tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person
) -> Iterator[tuple[Project, Node, Person, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    authority = people.make(folder, "authority")
    node = Node(folder / "node", alice)
    project = serve(folder / "shop", alice, bob, node)
    project.write("project.json", {"name": "shop", "roots": ["alice"], "certificateAuthorities": [authority.public]})
    project.write("users/dan.json", {"policies": ["code"]})
    project.commit("dan comes with certificates")
    assert nodes.push(project, node).status == 0
    yield project, node, authority, folder
    node.stop()


def certified(here: tuple[Project, Node, Person, Path], name: str, *options: str) -> Person:
    """A new key with a certificate, and git and ssh set up for it as the how-to says."""
    _, _, authority, folder = here
    number = len(list(folder.glob("person-*")))
    person = people.make(folder / f"person-{number}", "key")
    named = ["-n", name] if name else []
    subprocess.run(["ssh-keygen", "-q", "-s", authority.private, "-I", name or "nobody", *named, *options,
                    person.private.with_suffix(".pub")], check=True)  # fmt: skip
    return Person(name, person.private, {"user.signingKey": str(person.private.with_name("key-cert.pub"))})


def login(here: tuple[Project, Node, Person, Path], person: Person, user: str) -> tuple[int, str]:
    node = here[1]
    command = [
        *person.environment["GIT_SSH_COMMAND"].split(),
        "-l",
        user,
        "-p",
        str(node.port),
        node.address,
        "owsgit status",
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stderr


def test_a_certified_user_clones_changes_and_pushes(here: tuple[Project, Node, Person, Path], tmp_path: Path) -> None:
    project, node, _, _ = here
    dan = certified(here, "dan")
    environment = {name: value for name, value in dan.environment.items() if name != "GIT_SSH_COMMAND"}
    id_ = node.status()["project"]["id"]
    done = subprocess.run([*nodes.OWSGIT, "clone", node.url(), str(tmp_path / "clone"), "--project", id_],
                          env=environment, capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    clone = Project(tmp_path / "clone", dan)
    clone.write("functions/hello/app.py", projects.HELLO.replace("hello", "by dan:"))
    clone.git("add", "--all")
    for command in (["git", "commit", "-q", "-S", "-m", "by dan"], ["git", "push", "origin", "main"]):
        done = subprocess.run(command, cwd=clone.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "signed by dan (ssh-ed25519 certificate" in done.stderr
    shown = subprocess.run(
        ["git", "log", "-1", "--show-signature"], cwd=clone.folder, env=environment, capture_output=True, text=True
    )
    assert 'Good "git" signature for dan' in shown.stdout, shown.stdout
    invoked = subprocess.run(
        [*nodes.OWSGIT, "invoke", "hello"], cwd=clone.folder, env=environment, capture_output=True, text=True
    )
    assert invoked.returncode == 0 and "by dan:" in invoked.stdout, invoked.stderr
    project.git("fetch", "-q", node.url(), "main")
    project.git("reset", "-q", "--hard", "FETCH_HEAD")


def test_a_certificate_is_for_whom_it_names_and_while_it_is_valid(here: tuple[Project, Node, Person, Path]) -> None:
    dan = certified(here, "dan")
    assert login(here, dan, "dan")[0] == 0
    for person, user in (
        (dan, "bob"),
        (dan, "nobody"),
        (certified(here, "alice"), "alice"),  # a root
        (certified(here, "eve"), "eve"),  # no user of the ledger
        (certified(here, "dan", "-V", "20200101:20210101"), "dan"),
        (certified(here, "dan", "-O", "critical:x@example.com=1"), "dan"),
    ):
        status, told = login(here, person, user)
        assert status != 0 and "Permission denied" in told, (user, told)
    for user in ("dan", "bob"):  # of nobody in particular
        status, told = login(here, certified(here, ""), user)
        assert status != 0 and "Permission denied" in told, (user, told)
    project, node, _, folder = here
    stranger = people.make(folder, "stranger")
    foreign = certified((project, node, stranger, folder), "dan")
    assert login(here, foreign, "dan")[0] != 0


def test_who_is_taken_out_is_out_also_with_a_certificate(here: tuple[Project, Node, Person, Path]) -> None:
    project, node, _, _ = here
    dan = certified(here, "dan")
    assert login(here, dan, "dan")[0] == 0
    project.git("rm", "-q", "users/dan.json")
    project.commit("dan is gone")
    assert nodes.push(project, node).status == 0
    assert login(here, dan, "dan")[0] != 0
