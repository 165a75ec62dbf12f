"""Asynchronous invocation through a real node: accepted over SSH, delivered to real workers, whatever happens to the node."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import serve
from tests.support import nodes
from tests.support.nodes import Node, owsgit, push
from tests.support.people import Person
from tests.support.projects import Done, Project, function

NOTE = """
import time

def handler(event, context):
    time.sleep(event.get("seconds", 0))
    print(f"got {event.get('n')} {event.get('requestContext')}")
"""
PICKY = """
def handler(event, context):
    if "x" not in event:
        raise KeyError("x")
"""


class Place:
    """A clone and its node; `note` writes what it gets, one at a time, `picky` fails without an x."""

    def __init__(self, project: Project, node: Node) -> None:
        self.project, self.node = project, node
        project.git("remote", "add", "origin", node.url())
        project.write("functions/note/function.json", function(maxConcurrency=1, timeout=10))
        project.write("functions/note/app.py", NOTE)
        project.write("functions/picky/function.json", function(asyncInvoke={"maximumRetryAttempts": 0}))
        project.write("functions/picky/app.py", PICKY)
        fields = {"maximumRetryAttempts": 0, "onFailure": {"function": "note"}, "onSuccess": {"function": "told"}}
        project.write("functions/told/function.json", function(asyncInvoke=fields))
        project.write("functions/told/app.py", PICKY)
        project.commit()
        done = push(project, node)
        assert done.status == 0 and "ready     function told" in done.text, done.text

    def __call__(self, *arguments: str, by: Person | None = None) -> Done:
        return owsgit(*arguments, by=by or self.project.owner, cwd=self.project.folder)

    def send(self, name: str, event: Any, *options: str) -> dict[str, Any]:
        done = self("invoke", name, "--async", "-p", json.dumps(event), "-o", "json", *options)
        assert done.status == 0, done.text
        told: dict[str, Any] = json.loads(done.text)
        return told

    def events(self, name: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self("events", name, "-o", "json").text)
        return told

    def log(self, name: str) -> list[tuple[str, str]]:
        """What a function wrote: request id, message."""
        path = self.node.home / f"logs/functions/{name}/current.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(line["requestId"], line["message"]) for line in lines if line["message"].startswith("got")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    node = Node(folder / "node", alice)
    yield Place(serve(folder / "shop", alice, bob, node), node)
    node.stop()


def test_an_event_is_accepted_at_once_and_invoked_later(place: Place) -> None:
    told = place.send("note", {"n": 1})
    assert told["statusCode"] == 202
    nodes.until(lambda: (told["requestId"], "got 1 None") in place.log("note"))
    printed = place("invoke", "note", "--async", "-p", "{}").text.strip()
    nodes.until(lambda: (printed, "got None None") in place.log("note"))
    live = nodes.until(lambda: (place.node.resource("functions/note") or {})["live"])
    assert {"queued", "inFlight", "deadLetters", "oldestAge"} <= set(live)


def test_an_idempotency_key_gives_the_first_request_again(place: Place) -> None:
    first = place.send("note", {"n": "once"}, "--idempotency-key", "order 7")
    assert place.send("note", {"n": "once"}, "--idempotency-key", "order 7") == first
    other = place("invoke", "note", "--async", "--idempotency-key", "order 7", "-p", '{"n": "other"}')
    assert other.status == 1 and "'order 7' came with another event" in other.text
    assert place("invoke", "note", "--idempotency-key", "k").status == 64
    nodes.until(lambda: [message for _, message in place.log("note") if "once" in message] == ["got once None"])


def test_a_failure_goes_to_the_destination(place: Place) -> None:
    sent = place.send("told", {})
    nodes.until(lambda: any(sent["requestId"] in message for _, message in place.log("note")))
    (record,) = [message for _, message in place.log("note") if sent["requestId"] in message]
    assert "RetriesExhausted" in record and ":function:told:$LATEST" in record


def test_dead_letters_are_listed_redriven_and_dropped(place: Place) -> None:
    ids = {place.send("picky", {"number": number})["requestId"] for number in range(2)}
    nodes.until(lambda: place.events("picky")["deadLetters"] == 2)
    assert {each["requestId"] for each in place.events("picky")["events"]} == ids
    table = place("events", "picky").text
    assert "RetriesExhausted" in table and "0 wait, 0 run, 2 dead letters" in table
    project = place.project
    project.write("functions/picky/app.py", NOTE)
    project.commit()
    assert push(project, place.node).status == 0
    first, second = sorted(ids)
    assert "1 to be tried again" in place("events", "redrive", "picky", first).text
    nodes.until(lambda: [request_id for request_id, _ in place.log("picky")] == [first])
    assert place("events", "drop", "picky").status == 64
    assert json.loads(place("events", "drop", "picky", second, "-o", "json").text)["requestIds"] == [second]
    unknown = place("events", "redrive", "picky", second)
    assert unknown.status == 1 and "has no dead letter" in unknown.text
    nodes.until(lambda: place.events("picky")["events"] == [])


def test_each_of_it_needs_its_right(place: Place, bob: Person) -> None:
    assert place("invoke", "note", "--async", by=bob).status == 0
    assert place("events", "redrive", "note", by=bob).status == 0
    listed = place("events", "note", by=bob)
    assert listed.status == 1 and "may not lambda:GetFunctionEventInvokeConfig" in listed.text
    dropped = place("events", "drop", "note", "--all", by=bob)
    assert dropped.status == 1 and "may not lambda:DeleteFunctionEventInvokeConfig" in dropped.text
    assert "there is no function" in place("events", "nothing").text


def test_a_killed_node_delivers_what_it_accepted(place: Place) -> None:
    """Some run as it is killed, some wait for a worker, and some for a function that cannot run before it is corrected."""
    project = place.project
    project.write("functions/broken/function.json", function())
    project.write("functions/broken/app.py", "import nowhere\n")
    project.commit()
    assert "FAILED    function broken" in push(project, place.node).text
    waiting = {place.send("broken", {"n": number})["requestId"] for number in range(2)}
    sent = {place.send("note", {"n": number, "seconds": 1})["requestId"] for number in range(3)}
    place.node.kill()
    place.node.start()
    nodes.until(lambda: sent <= {request_id for request_id, _ in place.log("note")})
    assert place.events("broken")["queued"] + place.events("broken")["inFlight"] == 2
    project.write("functions/broken/app.py", NOTE)
    project.commit()
    assert "ready     function broken" in push(project, place.node).text
    nodes.until(lambda: waiting == {request_id for request_id, _ in place.log("broken")})
    nodes.until(lambda: place.events("broken")["queued"] == place.events("broken")["inFlight"] == 0)


def test_a_payload_that_is_too_large_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text(json.dumps("x" * (1 << 20)))
    refused = place("invoke", "note", "--async", "-p", f"@{tmp_path / 'large.json'}")
    assert refused.status == 1 and "1,048,578 bytes" in refused.text
    (tmp_path / "deep.json").write_text("[" * 100_000)
    deep = place("invoke", "note", "--async", "-p", f"@{tmp_path / 'deep.json'}")
    assert deep.status == 1 and "the payload is not JSON" in deep.text
