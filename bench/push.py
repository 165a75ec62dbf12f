"""A push of one file to a node, over the same push to a bare repository behind the same SSH server without hooks."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench import report
from bench.history import policy
from owsgit.ledger.repository import NODE_ENVIRONMENT, run
from tests.support import nodes, people, projects
from tests.support.nodes import Node, free_port
from tests.support.projects import Project

SIZES = (10, 1_000, 10_000)
SETTLE_SECONDS = 0.2
"""What a push sets going behind it (applying, notes) is not part of the next one's time."""

VERSION_FUNCTION = "def handler(event, context): return 'version {}'\n"


class Bare:
    """The baseline's server process."""

    def __init__(self, folder: Path, host_key: Path) -> None:
        self.repository = folder / "bare.git"
        run(None, "init", "-q", "--bare", "-b", "main", str(self.repository))
        for name, value in {"core.fsync": "all", "receive.fsckObjects": "true"}.items():  # as a node's repository
            run(self.repository, "config", name, value)
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.bare_server", str(self.repository), str(self.port), str(host_key)],
            env={**os.environ, **NODE_ENVIRONMENT},
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    @property
    def url(self) -> str:
        return f"ssh://127.0.0.1:{self.port}/shop"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def push(project: Project, url: str, *options: str) -> float:
    began = time.perf_counter()
    project.git("push", "-q", *options, url, "HEAD:main")
    return time.perf_counter() - began


def measured(size: int, rounds: int) -> None:
    """The lines for a ledger of `size` resources."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        alice = people.make(folder, "alice")
        node = Node(folder / "node", alice)
        spec = node.init()
        files = {f"policies/p{number}.json": policy(number) for number in range(max(1, size - 5))}
        port = free_port()
        files |= {
            "nodes/a.json": spec,
            "functions/f/function.json": projects.function(),
            "functions/f/app.py": VERSION_FUNCTION.format(0),
            "gateways/g.json": {"port": port, "routes": {"GET /": {"function": "f"}}},
        }
        project = projects.create(folder / "shop", alice, files=files)
        bare = Bare(folder, node.home / "key")
        node.start()
        try:
            push(project, node.url())
            push(project, bare.url)
            changed_file(project, node, bare, size, rounds)
            if size == SIZES[0]:
                served(project, node, bare, f"http://127.0.0.1:{port}/", rounds)
        finally:
            node.stop()
            bare.stop()


def paired(
    project: Project, change: Callable[[int], None], ours: Callable[[int], float], bare: Bare, rounds: int
) -> tuple[float, float]:
    """Medians of our push and of the baseline's, one after the other in turn."""
    mine, theirs = [], []
    for number in range(rounds + 1):
        change(number)
        project.commit(f"round {number}")
        first, second = (
            (ours, lambda _: push(project, bare.url)) if number % 2 else (lambda _: push(project, bare.url), ours)
        )
        time.sleep(SETTLE_SECONDS)
        one = first(number)
        time.sleep(SETTLE_SECONDS)
        other = second(number)
        if number:  # the first round warms both up
            mine.append(one if number % 2 else other)
            theirs.append(other if number % 2 else one)
    return report.median(mine), report.median(theirs)


def changed_file(project: Project, node: Node, bare: Bare, size: int, rounds: int) -> None:
    def change(number: int) -> None:
        project.write("policies/p0.json", policy(0, number + 1))

    ours, theirs = paired(project, change, lambda _: push(project, node.url(), "-o", "no-wait"), bare, rounds)
    report.line(f"push_{size}_resources", ours, "s", theirs)


def served(project: Project, node: Node, bare: Bare, url: str, rounds: int) -> None:
    def change(number: int) -> None:
        project.write("functions/f/app.py", VERSION_FUNCTION.format(number + 1))

    def until_served(number: int) -> float:
        began = time.perf_counter()
        push(project, node.url())
        while json.loads(b'"' + urllib.request.urlopen(url).read() + b'"') != f"version {number + 1}":
            time.sleep(0.001)
        return time.perf_counter() - began

    ours, theirs = paired(project, change, until_served, bare, rounds)
    report.line("push_to_served", ours, "s", theirs)


def main() -> None:
    rounds = 4 if report.quick() else 30
    nodes.START_SECONDS_MAX = 120
    for size in SIZES:
        measured(size, rounds)


if __name__ == "__main__":
    main()
