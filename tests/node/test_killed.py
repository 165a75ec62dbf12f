"""Crash-only: a node killed at any instant starts again from its home, whole and by itself."""

import os
import random
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import gateway_url
from tests.support import nodes, projects
from tests.support.nodes import Node, push
from tests.support.projects import Project


def test_a_killed_node_serves_again_what_it_served(served: Project, node: Node) -> None:
    node.kill()
    node.start()
    nodes.until(lambda: node.status()["applied"] == served.head())
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"


def test_killed_at_any_moment_of_a_push_it_is_before_or_after_it(served: Project, node: Node) -> None:
    """The kill comes at a different moment of the push with every seed, from its first byte to its last."""
    said = "hello"
    for seed in range(24 if os.environ.get("OWSGIT_SOAK") else 5):
        _killed_at_a_moment_of_a_push(served, node, seed, said)
        said = f"round-{seed}"


def _killed_at_a_moment_of_a_push(served: Project, node: Node, seed: int, said: str) -> None:
    before = node.main()
    served.write("functions/hello/app.py", projects.HELLO.replace("hello", f"round-{seed}"))
    commit = served.commit()
    pushing = subprocess.Popen(
        ["git", "push", "-q", node.url(), "HEAD:main"],
        cwd=served.folder,
        env=served.owner.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.02 + seed * 0.025 + random.Random(seed).uniform(0, 0.02))
    node.kill()
    pushing.wait(60)
    node.start()
    main = node.main()
    assert main in (before, commit)
    nodes.until(lambda: node.status()["applied"] == main)
    status = node.status()
    assert status["problem"] == "" and {entry["state"] for entry in status["resources"]} == {"ready"}
    greeting = httpx.get(f"{gateway_url(served)}/hello/you").text
    assert greeting == (f"round-{seed} you" if main == commit else f"{said} you")
    again = push(served, node)
    assert again.status == 0, again.text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == f"round-{seed} you"


def test_nothing_of_a_killed_node_goes_on_running(served: Project, node: Node) -> None:
    assert httpx.get(f"{gateway_url(served)}/hello/you").status_code == 200
    workers = _sandboxes(node)
    assert workers
    node.kill()
    nodes.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def _sandboxes(node: Node) -> list[str]:
    assert node.process is not None
    listed = subprocess.run(["pgrep", "-P", str(node.process.pid), "bwrap"], capture_output=True, text=True)
    return listed.stdout.split()


def test_main_moved_behind_the_nodes_back_is_verified_and_not_followed(served: Project, node: Node) -> None:
    """Somebody with a shell on the machine writes to the repository itself: main is set back."""
    good = node.main()
    served.write("functions/hello/app.py", projects.HELLO.replace("hello", "evil"))
    evil = served.commit(signed=False)
    bare = node.home / "ledger.git"
    subprocess.run(["git", "fetch", "-q", str(served.folder), "HEAD"], cwd=bare, check=True)
    subprocess.run(["git", "update-ref", "refs/heads/main", evil], cwd=bare, check=True)
    node.kill()
    node.start()
    nodes.until(lambda: node.status()["applied"] == good)
    nodes.until(lambda: node.main() == good)
    assert evil not in served.git("ls-remote", node.url())
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"
    served.git("reset", "-q", "--hard", good)
    served.write("functions/hello/app.py", projects.HELLO.replace("hello", "good"))
    served.commit()
    assert push(served, node).status == 0
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "good you"


def test_what_is_changed_on_the_node_by_hand_is_repaired_and_reported(served: Project, node: Node) -> None:
    (app,) = (node.home / "code").glob("*/app.py")
    app.chmod(0o644)
    app.write_text("def handler(event, context): return 'tampered'")
    nodes.until(lambda: (node.resource("functions/hello") or {})["drift"], 40)
    drift = node.resource("functions/hello")
    assert drift and "the code folder was changed on this node: app.py" in drift["drift"] and drift["state"] == "ready"
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"


def test_a_killed_worker_is_replaced_and_reported(served: Project, node: Node) -> None:
    for pid in _sandboxes(node):
        subprocess.run(["kill", "-9", pid], check=True)
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"
    for pid in _sandboxes(node):
        subprocess.run(["kill", "-9", pid], check=True)
    nodes.until(lambda: "had ended; replaced" in (node.resource("functions/hello") or {})["drift"], 40)


def test_two_processes_never_run_one_node(served: Project, node: Node) -> None:
    done = nodes.owsgit("node", "run", "--home", str(node.home), by=served.owner)
    assert done.status == 3 and "is running in" in done.text


@pytest.mark.hardware("the right to mount a file system")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system that is full")
def test_a_full_disk_refuses_pushes_and_goes_on_serving(served: Project, node: Node, tmp_path: Path) -> None:
    """The bare repository's object folder becomes a file system of no size."""
    objects = node.home / "ledger.git/objects"
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{objects}/.", str(full)], check=False, capture_output=True)
        subprocess.run(["mount", "--bind", str(full), str(objects)], check=True)
        served.write("functions/hello/data.bin", random.Random(1).randbytes(200_000))
        served.commit()
        refused = push(served, node)
        assert refused.status != 0
        assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"
    finally:
        subprocess.run(["umount", str(objects)], check=False)
        subprocess.run(["umount", "-l", str(full)], check=False)
    done = push(served, node)
    assert done.status == 0, done.text
