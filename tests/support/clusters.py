"""Several nodes of one project, each a process with a home and an address of its own."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support import nodes, projects
from tests.support.network import Network
from tests.support.nodes import Node, free_port, push
from tests.support.people import Person
from tests.support.projects import Project

NAMES = "abcdefg"


@dataclass
class Cluster:
    """Nodes that serve one project. `http` is the port on which each of them serves its gateway."""

    project: Project
    nodes: dict[str, Node]
    http: int

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def url(self, name: str) -> str:
        return f"http://{self.nodes[name].address}:{self.http}"

    def get(self, name: str) -> str:
        return httpx.get(f"{self.url(name)}/hello/you", timeout=30).text

    def change(self, word: str) -> str:
        """Commit a greeting of another word."""
        self.project.write("functions/hello/app.py", projects.HELLO.replace("hello", word))
        return self.project.commit(f"Say {word}")

    def push(self, name: str, *options: str, by: Person | None = None) -> projects.Done:
        return push(self.project, self.nodes[name], "HEAD:main", *options, by=by)

    def mend(self) -> None:
        """Have it whole for the next test: every node runs, and they, and the clone, are at one commit."""
        for node in self.nodes.values():
            if node.process is None or node.process.poll() is not None:
                node.start()
        nodes.until(lambda: len({node.main() for node in self.nodes.values()}) == 1)
        self.project.git("fetch", "-q", next(iter(self.nodes.values())).url(), "main")
        self.project.git("reset", "-q", "--hard", "FETCH_HEAD")
        self.all_at(self.project.head())

    def all_at(self, commit: str, seconds: float = 60) -> None:
        """Wait until every running node has applied `commit`."""
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                nodes.until(lambda node=node: node.main() == commit and node.status()["applied"] == commit, seconds)


def found(folder: Path, alice: Person, made: dict[str, Node], more: dict[str, Any] | None = None) -> Cluster:
    """A project whose genesis names all the nodes, pushed to the first of them; the others find it by themselves."""
    http = free_port()
    with ThreadPoolExecutor(len(made)) as threads:
        specs = threads.map(lambda node: node.init(), made.values())
    documents: dict[str, Any] = {f"nodes/{name}.json": spec for name, spec in zip(made, specs, strict=True)}
    documents |= {
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": projects.HELLO,
        "gateways/api.json": {"port": http, "routes": {"GET /hello/{name}": {"function": "hello"}}},
    }
    project = projects.create(folder / "shop", alice, files=documents | (more or {}))
    cluster = Cluster(project, made, http)
    start(made)
    pushed = cluster.push(next(iter(made)))
    assert pushed.status == 0, pushed.text
    return cluster


def start(made: dict[str, Node]) -> None:
    """Start all of them at once."""
    for serves in [node.begin() for node in made.values()]:
        serves()


def stop(made: dict[str, Node]) -> None:
    """Stop all of them at once."""
    for node in made.values():
        node.end()
    for node in made.values():
        with contextlib.suppress(Exception):
            node.stop()


def on_loopback(folder: Path, alice: Person, count: int, network: str = "127.0.0") -> dict[str, Node]:
    """Nodes that are not made yet, each with an address of its own."""
    port = free_port()
    return {
        name: Node(folder / f"node-{name}", alice, name, port=port, address=f"{network}.{index}")
        for index, name in enumerate(NAMES[:count], start=1)
    }


@contextmanager
def running(
    folder: Path,
    alice: Person,
    count: int,
    network: Network | None = None,
    loopback: str = "127.0.0",
    aws_port: int = 0,
) -> Iterator[Cluster]:
    """A cluster that serves the same everywhere, and has ended when the test has. With `aws_port` it answers SDKs."""
    made = on_loopback(folder, alice, count, loopback)
    for name, node in made.items() if network is not None else ():
        node.address, node.prefix = network.addresses[name], network.prefix(name)
    try:
        cluster = _again(folder, alice, made, aws_port)
        cluster.all_at(cluster.project.head())
        yield cluster
    finally:
        stop(made)


@dataclass
class _Founded:
    """A cluster that was founded once, stopped, and is never started itself."""

    folder: Path
    port: int
    http: int


_founded: dict[tuple[object, ...], _Founded] = {}


def _again(folder: Path, alice: Person, made: dict[str, Node], aws_port: int) -> Cluster:
    """A running copy of a cluster of these addresses: founding one takes longer than most of the tests of it."""
    key = (alice.public, *(node.address for node in made.values()))
    before = _founded.get(key)
    if before is None:
        cluster = found(folder, alice, made)
        cluster.all_at(cluster.project.head())
        stop(made)
        before = _founded[key] = _Founded(folder / "founded", next(iter(made.values())).port, cluster.http)
        before.folder.mkdir()
        for each in (cluster.project.folder, *(node.home for node in made.values())):
            shutil.copytree(each, before.folder / each.name, symlinks=True)
    else:
        for path in before.folder.iterdir():
            shutil.copytree(path, folder / path.name, symlinks=True)
    for node in made.values():
        node.port, node.aws_port = before.port, aws_port
        if aws_port:
            settings = node.home / "node.json"
            settings.write_text(json.dumps({**json.loads(settings.read_text()), "awsPort": aws_port}))
    start(made)
    return Cluster(Project(folder / "shop", alice), made, before.http)
