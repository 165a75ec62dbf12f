"""Several nodes of one project, each a process with a home and an address of its own."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support import nodes, projects
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

    def all_at(self, commit: str, seconds: float = 60) -> None:
        """Wait until every running node has applied `commit`."""
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                nodes.until(lambda node=node: node.main() == commit and node.status()["applied"] == commit, seconds)

    def stop(self) -> None:
        for node in self.nodes.values():
            with contextlib.suppress(Exception):
                node.stop()


def found(folder: Path, alice: Person, count: int, **files: Any) -> Cluster:
    """`count` nodes on addresses of their own, started; the genesis names all of them and is pushed to the first."""
    port, http = free_port(), free_port()
    made = {
        name: Node(folder / f"node-{name}", alice, name, port=port, address=f"127.0.0.{index}")
        for index, name in enumerate(NAMES[:count], start=1)
    }
    documents: dict[str, Any] = {f"nodes/{name}.json": node.init() for name, node in made.items()}
    documents |= {
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": projects.HELLO,
        "gateways/api.json": {"port": http, "routes": {"GET /hello/{name}": {"function": "hello"}}},
    }
    project = projects.create(
        folder / "shop",
        alice,
        files={**documents, **{k: json.loads(v) if isinstance(v, bytes) else v for k, v in files.items()}},
    )
    cluster = Cluster(project, made, http)
    for node in made.values():
        node.start()
    pushed = cluster.push("a")
    assert pushed.status == 0, pushed.text
    return cluster


@contextmanager
def running(folder: Path, alice: Person, count: int) -> Iterator[Cluster]:
    """A cluster that has ended when the test has."""
    cluster = found(folder, alice, count)
    try:
        cluster.all_at(cluster.project.head())
        yield cluster
    finally:
        cluster.stop()
