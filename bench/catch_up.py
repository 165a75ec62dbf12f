"""A node that was away for thousands of commits, over a `git fetch` of the same history from the same node."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench import history, report
from owsgit.ledger.repository import run
from owsgit.node.home import Home
from tests.support import clusters, nodes, people
from tests.support.nodes import Node

RESOURCES = 300


def main() -> None:
    count = 2_000 if report.quick() else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        alice = people.make(folder, "alice")
        ahead, behind, away = make(folder, alice, count)
        ahead.start()
        try:
            began = time.perf_counter()
            fetched = folder / "fetched.git"
            run(None, "init", "-q", "--bare", str(fetched))
            run(fetched, "fetch", "-q", ahead.url("bench"), "main", env=ahead.owner.environment)
            theirs = count / (time.perf_counter() - began)
            behind.start()
            before = memory(behind)
            began = time.perf_counter()
            nodes.until(lambda: behind.main() == ahead.main(), 600)
            ours = count / (time.perf_counter() - began)
            report.line("catch_up_commits", ours, "commits/s", theirs, digits=1)
            report.line("catch_up_memory", memory(behind), "MiB", before, digits=1)
        finally:
            ahead.stop()
            behind.stop()
        assert away.process is None


def make(folder: Path, owner: people.Person, count: int) -> tuple[Node, Node, Node]:
    """Three nodes of one project: the first with `count` decided commits, the second at the genesis, the third off."""
    made = clusters.on_loopback(folder, owner, 3)
    specs = {name: node.init() for name, node in made.items()}
    repository = folder / "history"
    signers = history.make(repository, count, RESOURCES, specs)
    owner.private.write_bytes(signers[0].save(folder / "root_key").read_bytes())
    owner.private.with_suffix(".pub").write_text(signers[0].public)
    commits = run(repository, "rev-list", "--first-parent", "--reverse", "main").split()
    for name, upto in (("a", commits), ("b", commits[:1])):
        home = Home(made[name].home)
        run(None, "clone", "-q", "--bare", str(repository), str(home.ledger))
        run(home.ledger, "update-ref", "refs/heads/main", upto[-1])
        run(home.ledger, "remote", "remove", "origin")
        if name == "b":
            shutil.rmtree(home.ledger)
            run(None, "init", "-q", "--bare", "-b", "main", str(home.ledger))
            run(home.ledger, "fetch", "-q", "--depth=1", f"file://{repository}", commits[0])
            run(home.ledger, "update-ref", "refs/heads/main", commits[0])
            (home.ledger / "shallow").unlink(missing_ok=True)
        history.decided(home, [Home(made["a"].home), Home(made["c"].home)], upto)
    return made["a"], made["b"], made["c"]


def memory(node: Node) -> float:
    """The most that the node's process has used, in MiB."""
    assert node.process is not None
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}: {error.stderr}") from None
