"""Logs over three real nodes: merged, followed while a node goes and comes back, and asked for by what is wanted."""

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import clusters, nodes, projects
from tests.support.clusters import Cluster
from tests.support.nodes import OWSGIT, owsgit
from tests.support.people import Person

SAYS = """
import json, logging

def handler(event, context):
    word = (event.get("pathParameters") or {}).get("name", "")
    print("said", word)
    if word == "warn":
        logging.getLogger().warning("careful")
        print(json.dumps({"level": "ERROR", "node": "z", "order": 7}))
    return word
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[Cluster]:
    with clusters.running(tmp_path_factory.mktemp("logs"), alice, 3) as cluster:
        cluster.project.write("functions/hello/app.py", SAYS)
        cluster.project.commit("Say")
        done = cluster.push("a", "-o", "acks=all")
        assert done.status == 0, done.text
        for name in "abc":
            cluster.project.git("remote", "add", name, cluster[name].url())
        cluster.project.git("remote", "add", "origin", cluster["a"].url())
        yield cluster


def say(three: Cluster, node: str, word: str) -> None:
    httpx.get(f"{three.url(node)}/hello/{word}", timeout=30)


def entries(three: Cluster, *options: str, by: Person | None = None) -> list[dict[str, Any]]:
    done = owsgit(
        "logs", "hello", "-o", "json", *options, by=by or three.project.owner, cwd=three.project.folder
    )  # fmt: skip
    assert done.status == 0, done.text
    found: list[dict[str, Any]] = json.loads(done.text)
    return found


class Follower:
    """`owsgit logs -f`, read as it writes."""

    def __init__(self, three: Cluster, folder: Path, *options: str) -> None:
        self.notes = folder / "notes"
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        with self.notes.open("wb") as file:
            self.process = subprocess.Popen(
                [*OWSGIT, "logs", "hello", "-f", "-o", "json", "--filter", "said", *options],
                cwd=three.project.folder, env=three.project.owner.environment, stdout=subprocess.PIPE, stderr=file,
            )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def take(self, count: int) -> list[tuple[str, str]]:
        """The next lines: who wrote what."""
        found = [self.lines.get(timeout=40) for _ in range(count)]
        return [(each["node"], each["message"]) for each in found]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def test_all_nodes_are_followed_one_goes_and_comes_back_and_nothing_is_lost_or_twice(
    three: Cluster, tmp_path: Path
) -> None:
    for name in "abc":
        say(three, name, f"before-{name}")
    follower = Follower(three, tmp_path, "--lines", "3")
    try:
        assert sorted(follower.take(3)) == [(name, f"said before-{name}") for name in "abc"]
        for name in "cab":
            say(three, name, f"live-{name}")
            assert follower.take(1) == [(name, f"said live-{name}")]
        three["c"].kill()
        nodes.until(lambda: b"owsgit: c: " in follower.notes.read_bytes())
        say(three, "a", "meanwhile")
        assert follower.take(1) == [("a", "said meanwhile")]
        log = three["c"].home / "logs/functions/hello"  # what a node writes while no client reaches it
        last = json.loads((log / "current.jsonl").read_bytes().splitlines()[-1])
        (log / "current.jsonl").rename(log / "1.jsonl")
        (log / "current.jsonl").write_text(json.dumps({**last, "level": "INFO", "message": "said alone"}) + "\n")
        three["c"].start()
        assert follower.take(1) == [("c", "said alone")]
        nodes.until(lambda: b"the node c is back" in follower.notes.read_bytes())
        nodes.until(lambda: httpx.get(f"{three.url('c')}/hello/again").status_code == 200 if _serves(three) else False)
        assert follower.take(1) == [("c", "said again")]
        time.sleep(0.5)
        assert follower.lines.empty()
    finally:
        follower.close()


def _serves(three: Cluster) -> bool:
    try:
        return httpx.get(f"{three.url('c')}/nowhere").status_code == 404
    except httpx.TransportError:
        return False


def test_lines_of_all_nodes_are_merged_and_asked_for(three: Cluster) -> None:
    for name in "bca":
        say(three, name, f"word-{name}")
    say(three, "b", "warn")
    merged = [each for each in entries(three) if each["message"].startswith("said word-")]
    assert [each["node"] for each in merged] == ["b", "c", "a"]
    assert {each["function"] for each in merged} == {"hello"}
    (one,) = entries(three, "--filter", "word-c")
    assert [each["requestId"] for each in entries(three, "--request", one["requestId"])] == [one["requestId"]] * 4
    assert {each["node"] for each in entries(three, "--node", "b")} == {"b"}
    graver = entries(three, "--level", "warn")[-2:]
    assert [each["level"] for each in graver] == ["WARN", "ERROR"]
    assert graver[1]["record"] == {"level": "ERROR", "node": "z", "order": 7} and graver[1]["node"] == "b"
    assert entries(three, "--since", merged[2]["time"], "--filter", "word")[-1] == merged[2]
    assert entries(three, "--since", "2999-01-01") == []
    table = owsgit("logs", "hello", "--since", "10m", by=three.project.owner, cwd=three.project.folder)
    assert " b " in table.text and "\tcareful" in table.text
    wrong = owsgit("logs", "hello", "--since", "soon", by=three.project.owner, cwd=three.project.folder)
    assert wrong.status == 1 and "'soon' is not a time" in wrong.text


def test_nodes_that_are_away_are_named_and_any_other_will_do(three: Cluster) -> None:
    three["a"].stop()  # the default remote
    try:
        say(three, "b", "without-a")
        done = subprocess.run(
            [*OWSGIT, "logs", "hello", "--filter", "without-a"], cwd=three.project.folder,
            env=three.project.owner.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 and "said without-a" in done.stdout, done.stderr
        assert "cannot be reached" in done.stderr and done.stderr.count("owsgit:") == 1
    finally:
        three["a"].start()


def test_the_spec_says_what_is_kept_and_how_long_also_of_a_function_that_is_gone(three: Cluster) -> None:
    project, folder = three.project, three["c"].home / "logs/functions/short"
    project.write(
        "functions/short/function.json",
        projects.function(logging={"applicationLogLevel": "ERROR", "retentionDays": 1}),
    )
    project.write(
        "functions/short/app.py", "import logging\nprint('info')\nlogging.error('grave')\ndef handler(e, c): 0\n"
    )
    project.commit("Short")
    assert three.push("b", "-o", "acks=all").status == 0
    messages = [json.loads(line)["message"] for line in (folder / "current.jsonl").read_bytes().splitlines()]
    assert len(messages) == 1 and messages[0].endswith("grave")
    project.git("rm", "-q", "-r", "functions/short")
    project.commit("Gone")
    assert three.push("b", "-o", "acks=all").status == 0
    assert (folder / "current.jsonl").exists(), "as CloudWatch keeps it"
    three["c"].stop()
    os.utime(folder / "current.jsonl", (time.time() - 25 * 3600,) * 2)
    three["c"].start()
    nodes.until(lambda: not folder.exists())


def test_metrics_need_a_right_and_status_sums_them_up(three: Cluster, mallory: Person) -> None:
    say(three, "b", "count")
    done = owsgit("metrics", "--node", "b", by=three.project.owner, cwd=three.project.folder)
    assert 'owsgit_function_invocations_total{function="hello"}' in done.text
    documents = json.loads(
        owsgit("metrics", "--node", "b", "-o", "json", by=three.project.owner, cwd=three.project.folder).text
    )
    assert "owsgit_function_duration_seconds" in {family["name"] for family in documents}
    found = three["b"].resource("functions/hello")
    assert found is not None
    live = found["live"]
    assert live["invocations"] >= 1 and live["errors"] == 0 and live["durationMs"]["p50"] > 0
    shown = owsgit("status", "--node", "b", by=three.project.owner, cwd=three.project.folder)
    assert "invocations, p50" in shown.text
    three.project.write("users/mallory.json", {"keys": [mallory.public]})
    three.project.write("policies/see.json", projects.allow("cloudwatch:GetMetricData"))
    three.project.commit("Mallory comes")
    assert three.push("a", "-o", "acks=all").status == 0
    refused = owsgit("metrics", "--node", "b", by=mallory, cwd=three.project.folder)
    assert refused.status == 1 and "mallory may not cloudwatch:GetMetricData" in refused.text
    three.project.write("users/mallory.json", {"keys": [mallory.public], "policies": ["see"]})
    three.project.commit("Mallory sees")
    assert three.push("a", "-o", "acks=all").status == 0
    assert owsgit("metrics", "--node", "b", by=mallory, cwd=three.project.folder).status == 0
