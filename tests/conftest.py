"""Fixtures that many tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.node import compiled
from tests.support import nodes, people, projects
from tests.support.nodes import Node, free_port
from tests.support.people import Person
from tests.support.postgresql import Server
from tests.support.projects import Project


def pytest_configure() -> None:
    """What is compiled is imported in the place of its source: no test may run what was compiled of another source."""
    try:
        compiled.check()
    except UnavailableError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Under CI=true a skipped test is a failure, except one that is marked with the hardware that it needs."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not item.get_closest_marker("hardware"):
        report.outcome, report.longrepr = "failed", f"skipped under CI=true: {report.longrepr}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The demo and the tutorial come first: at the end, one worker would be left alone with them."""
    if not os.environ.get("OWSGIT_SOAK"):
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("people")


@pytest.fixture(scope="session")
def alice(keyring: Path) -> Person:
    return people.make(keyring, "alice")


@pytest.fixture(scope="session")
def bob(keyring: Path) -> Person:
    return people.make(keyring, "bob")


@pytest.fixture(scope="session")
def carol(keyring: Path) -> Person:
    return people.make(keyring, "carol")


@pytest.fixture(scope="session")
def mallory(keyring: Path) -> Person:
    """Knows everything but has no key in any ledger."""
    return people.make(keyring, "mallory")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server that tests share: each takes a schema of its own."""
    server = Server()
    server.start()
    yield server
    server.end()


@pytest.fixture
def project(tmp_path: Path, alice: Person) -> Project:
    return projects.create(tmp_path / "shop", alice)


@pytest.fixture
def node(tmp_path: Path, alice: Person) -> Iterator[Node]:
    """A node that has no project yet, not started."""
    made = Node(tmp_path / "node", alice)
    yield made
    made.stop()


@pytest.fixture
def served(tmp_path: Path, alice: Person, bob: Person, node: Node) -> Project:
    """A project with a function and a gateway, pushed to `node`, which serves it.

    Made once and copied: making one takes longer than most of the tests of it.
    """
    before = _made.get(key := (alice.public, bob.public))
    if before is None:
        made = serve(tmp_path / "shop", alice, bob, node)
        node.stop()
        _made[key] = tmp_path / "made", node.port
        for each in (made.folder, node.home):
            shutil.copytree(each, tmp_path / "made" / each.name, symlinks=True)
    else:
        folder, node.port = before
        for each in folder.iterdir():
            shutil.copytree(each, tmp_path / each.name, symlinks=True)
    node.start()
    nodes.until(lambda: node.status()["applied"] == node.main())
    return Project(tmp_path / "shop", alice)


_made: dict[tuple[str, str], tuple[Path, int]] = {}
"""Where what `served` copies is, which is never started itself, and its node's port."""


def serve(folder: Path, alice: Person, bob: Person, node: Node, more: dict[str, Any] | None = None) -> Project:
    spec = node.init()
    files = {
        "nodes/a.json": spec,
        "users/bob.json": {"keys": [bob.public], "policies": ["code"]},
        "policies/code.json": projects.allow("lambda:UpdateFunctionCode", "lambda:InvokeFunction"),
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": projects.HELLO,
        "gateways/api.json": {"port": free_port(), "routes": {"GET /hello/{name}": {"function": "hello"}}},
        **(more or {}),
    }
    made = projects.create(folder, alice, files=files)
    node.start()
    pushed = nodes.push(made, node)
    assert pushed.status == 0, pushed.text
    return made


def gateway_url(project: Project) -> str:
    import json

    return f"http://127.0.0.1:{json.loads((project.folder / 'gateways/api.json').read_text())['port']}"
