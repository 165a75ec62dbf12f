"""Further processes of the front door: real connections that change from one process to another, and what they rest on."""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import random
import resource
import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from owsgit.aws.audit import Audit
from owsgit.aws.door import Arrival
from owsgit.aws.protocols.wire import Reply
from owsgit.model.service import Alone
from owsgit.node import door_processes
from owsgit.node.door_processes import DoorProcesses
from owsgit.node.door_wire import Kind
from tests.support.door import Answer, Kept, keys, moved, press, processes
from tests.support.nodes import Node, push, until
from tests.support.people import Person
from tests.support.projects import Project, function
from tests.support.sdk import certify, node_for_sdks, serving

ORDERS = {
    "attributeDefinitions": [
        {"attributeName": "shop", "attributeType": "S"},
        {"attributeName": "number", "attributeType": "N"},
    ],
    "keySchema": [{"attributeName": "shop", "keyType": "HASH"}, {"attributeName": "number", "keyType": "RANGE"}],
}
ALL = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["dynamodb:*", "lambda:*"], "Resource": "*"}}
FILES = {"tables/orders.json": ORDERS, "tables/others.json": ORDERS}
GET = ("GetItem", {"TableName": "orders", "Key": {"shop": {"S": "mine"}, "number": {"N": "1"}}})


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"shop": {"S": "mine"}, "number": {"N": str(number)}, **more}


def change(project: Project, node: Node, path: str, content: Any) -> None:
    """Push it: when that is answered, all processes go by it."""
    if content is None:
        (project.folder / path).unlink()
    else:
        project.write(path, content)
    project.commit()
    pushed = push(project, node)
    assert pushed.status == 0, pushed.text


def set_processes(node: Node, count: int) -> None:
    node.init()
    file = node.home / "node.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "awsProcesses": count}))


@pytest.fixture
def shop(tmp_path: Path, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    node = node_for_sdks(tmp_path, alice)
    set_processes(node, 1)
    with serving(
        tmp_path, node, {**FILES, "users/bob.json": {"keys": [bob.public], "inlinePolicies": {"all": ALL}}}
    ) as project:
        yield project, node


def test_a_busy_client_is_answered_by_another_process_as_before(shop: tuple[Project, Node], bob: Person) -> None:
    project, node = shop
    assert processes(node) == []
    wire, *rest = moved(node, keys(project, bob), GET)
    [process] = processes(node)
    assert wire.holder == process
    assert wire.ask("PutItem", {"TableName": "orders", "Item": item(1, state={"S": "open"})}).said == {}
    assert wire.ask(*GET).said == {"Item": item(1, state={"S": "open"})}
    update = {
        "TableName": "orders",
        "Key": item(1),
        "UpdateExpression": "SET #s = :new ADD hits :one",
        "ConditionExpression": "#s = :old",
        "ExpressionAttributeNames": {"#s": "state"},
        "ExpressionAttributeValues": {":new": {"S": "paid"}, ":old": {"S": "open"}, ":one": {"N": "1"}},
        "ReturnValues": "ALL_NEW",
    }
    changed = wire.ask("UpdateItem", update)
    assert changed.status == 200, changed
    assert changed.said["Attributes"] == item(1, state={"S": "paid"}, hits={"N": "1"})
    again = wire.ask("UpdateItem", {**update, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"})
    assert again.status == 400 and again.said["__type"].endswith("#ConditionalCheckFailedException")
    assert again.said["Item"]["state"] == {"S": "paid"}
    more = {"orders": [{"PutRequest": {"Item": item(number)}} for number in range(2, 12)]}
    assert wire.ask("BatchWriteItem", {"RequestItems": more}).said == {"UnprocessedItems": {}}
    query = {
        "TableName": "orders",
        "KeyConditionExpression": "shop = :s",
        "ExpressionAttributeValues": {":s": {"S": "mine"}},
    }
    assert wire.ask("Query", query).said["Count"] == 11
    assert wire.ask("Scan", {"TableName": "orders"}).said["Count"] == 11
    both = {name: {"Keys": [item(2), item(3)]} for name in ("orders", "others")}
    found = wire.ask("BatchGetItem", {"RequestItems": both}).said["Responses"]
    assert (len(found["orders"]), len(found["others"])) == (2, 0)
    bad = wire.ask("PutItem", {"TableName": "orders", "Item": {"shop": {"S": "mine"}}})
    assert bad.status == 400 and "Missing the key number in the item" in bad.said["message"]
    assert wire.ask("DeleteItem", {"TableName": "orders", "Key": item(2), "ReturnValues": "ALL_OLD"}).said[
        "Attributes"
    ] == item(2)
    assert (
        wire.ask("GetItem", {"TableName": "nowhere", "Key": item(1)})
        .said["__type"]
        .endswith("#ResourceNotFoundException")
    )
    assert wire.holder == process
    for each in (wire, *rest):
        each.close()


def test_what_it_cannot_do_the_node_does_for_it(shop: tuple[Project, Node], bob: Person, tmp_path: Path) -> None:
    project, node = shop
    code = (
        "def handler(event, context):\n"
        "    for number in range(event['pieces']):\n"
        "        yield bytes([97 + number % 26]) * 100_000\n"
    )
    project.write("functions/long/app.py", code)
    change(project, node, "functions/long/function.json", function())
    wire, *_ = moved(node, keys(project, bob), GET)
    process = wire.holder
    transaction = {"TransactItems": [{"Put": {"TableName": name, "Item": item(7)}} for name in ("orders", "others")]}
    assert wire.ask("TransactWriteItems", transaction).said == {}
    assert wire.ask("GetItem", {"TableName": "others", "Key": item(7)}).said == {"Item": item(7)}
    assert wire.ask("ListTables", {}).said == {"TableNames": ["orders", "others"]}
    made = wire.ask("CreateTable", {"TableName": "new", "KeySchema": [], "AttributeDefinitions": []})
    assert made.status == 400
    form = b"Action=GetCallerIdentity&Version=2011-06-15"
    wire.send(wire.signed_for("sts", "POST", "/", form, {"Content-Type": "application/x-www-form-urlencoded"}))
    assert b":user/bob</Arn>" in wire.receive().body
    path = "/2021-11-15/functions/long/response-streaming-invocations"
    wire.send(wire.signed_for("lambda", "POST", path, b'{"pieces": 40}', {}))
    streamed = wire.receive()
    assert streamed.status == 200 and streamed.headers["transfer-encoding"] == "chunked"
    assert streamed.body.count(b"b") > 100_000 and len(streamed.body) > 4_000_000
    large = json.dumps({"pieces": 2, "more": "x" * 1_000_000}).encode()
    wire.send(wire.signed_for("lambda", "POST", path, large, {}))
    assert wire.receive().body.count(b"b") >= 100_000
    wire.send(wire.signed_for("lambda", "POST", "/2015-03-31/functions/nobody/invocations", b"{}", {}))
    assert wire.receive().status == 404
    wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\nContent-Length: 2\r\n\r\n{}")
    unsigned = wire.receive()
    assert unsigned.status == 403 and unsigned.said["__type"].endswith("MissingAuthenticationTokenException")
    assert wire.holder == process
    too_large = wire.signed_for("lambda", "POST", path, bytes(16 * 1024 * 1024 + 1), {})
    said = []
    for each in (wire, Kept(node, keys(project, bob))):
        each.send(too_large)
        answer = each.receive()
        said.append((answer.status, answer.body))
    assert said[0] == said[1] and said[0][0] == 413, "by a further process and by the node's own"
    assert "Traceback" not in node.log.read_text()


def test_every_call_stands_in_the_audit_log_once(shop: tuple[Project, Node], bob: Person) -> None:
    project, node = shop
    wire, *_ = moved(node, keys(project, bob), GET)
    answers = [wire.ask("GetItem", {"TableName": "orders", "Key": item(number)}) for number in range(50)] + [
        wire.ask("ListTables", {})
    ]
    ids = {answer.headers["x-amzn-requestid"] for answer in answers}
    assert len(ids) == len(answers)

    def logged() -> list[str]:
        lines = [
            line for file in (node.home / "logs/aws/audit").rglob("*.jsonl") for line in file.read_text().splitlines()
        ]
        return [found["requestId"] for found in map(json.loads, lines) if found["requestId"] in ids]

    assert sorted(until(lambda: len(found := logged()) >= len(ids) and found)) == sorted(ids)
    limit = resource.prlimit(wire.holder, resource.RLIMIT_NOFILE)
    resource.prlimit(wire.holder, resource.RLIMIT_NOFILE, (3, limit[1]))  # of its files; it opens no other one

    def is_full() -> bool:
        return "loses connections: raise the limit" in node.log.read_text()

    others = [Kept(node, keys(project, bob)) for _ in range(8)]
    with contextlib.suppress(OSError, http.client.HTTPException):  # of the one that is lost
        press(others, others[0].signed(*GET), is_full)
    until(is_full)
    assert wire.ask(*GET).status == 200


def test_it_goes_by_what_is_pushed_at_once(shop: tuple[Project, Node], bob: Person) -> None:
    project, node = shop
    wire, *_ = moved(node, keys(project, bob), GET)
    assert wire.ask("PutItem", {"TableName": "orders", "Item": item(1, state={"S": "open"})}).status == 200
    indexed = {
        **ORDERS,
        "attributeDefinitions": [*ORDERS["attributeDefinitions"], {"attributeName": "state", "attributeType": "S"}],
        "globalSecondaryIndexes": [
            {"indexName": "by-state", "keySchema": [{"attributeName": "state", "keyType": "HASH"}]}
        ],
    }
    change(project, node, "tables/orders.json", indexed)
    query = {
        "TableName": "orders",
        "IndexName": "by-state",
        "KeyConditionExpression": "#s = :s",
        "ExpressionAttributeNames": {"#s": "state"},
        "ExpressionAttributeValues": {":s": {"S": "open"}},
    }
    until(lambda: wire.ask("Query", query).status == 200)
    assert wire.ask("PutItem", {"TableName": "orders", "Item": item(2, state={"S": "open"})}).status == 200
    assert wire.ask("Query", query).said["Count"] == 2
    assert wire.ask("GetItem", {"TableName": "others", "Key": item(1)}).said == {}
    files = Path(f"/proc/{wire.holder}/fd")
    assert any("/others.table" in os.path.realpath(file) for file in files.iterdir())
    change(project, node, "tables/others.json", None)
    until(lambda: not any("/others.table" in os.path.realpath(file) for file in files.iterdir()))
    assert (
        wire.ask("GetItem", {"TableName": "others", "Key": item(1)})
        .said["__type"]
        .endswith("#ResourceNotFoundException")
    )
    change(project, node, "users/bob.json", {"keys": [bob.public]})
    denied = wire.ask(*GET)
    assert denied.status == 400 and denied.said["__type"].endswith("#AccessDeniedException")
    change(project, node, "users/bob.json", None)
    assert wire.ask(*GET).said["__type"].endswith("#UnrecognizedClientException")
    assert wire.holder in processes(node)


def test_killed_it_costs_no_write_that_was_acknowledged(shop: tuple[Project, Node], bob: Person) -> None:
    project, node = shop
    credentials = keys(project, bob)
    wires = moved(node, credentials, GET, 16)
    [process] = processes(node)
    done: list[int] = []
    lost: list[int] = []
    over = threading.Event()

    def write(wire: Kept, first: int) -> None:
        for number in itertools.count(first):
            if over.is_set():
                return
            try:
                answer = wire.ask("PutItem", {"TableName": "orders", "Item": item(number)})
            except (OSError, http.client.HTTPException):
                lost.append(number)
                wire = Kept(node, credentials)
                continue
            assert answer.status == 200, answer
            done.append(number)

    threads = [
        threading.Thread(target=write, args=(wire, 100_000 * place)) for place, wire in enumerate(wires[:6], start=1)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(done) > 100)
    os.kill(process, signal.SIGKILL)
    before = len(done)
    until(lambda: len(done) > before + 100)
    over.set()
    for thread in threads:
        thread.join()
    assert len(lost) == len(threads), "each of them had one connection there"
    until(lambda: process not in processes(node))
    wire = Kept(node, credentials)
    for number in done:
        assert wire.ask("GetItem", {"TableName": "orders", "Key": item(number)}).said == {"Item": item(number)}


def test_no_request_is_lost_or_mixed_up_while_connections_change_hands(shop: tuple[Project, Node], bob: Person) -> None:
    project, node = shop
    credentials = keys(project, bob)
    wire = Kept(node, credentials)
    requests = []
    for number in range(40):
        assert wire.ask("PutItem", {"TableName": "orders", "Item": item(number)}).status == 200
        requests.append(wire.signed("GetItem", {"TableName": "orders", "Key": item(number)}))
    assert node.process is not None
    own = node.process.pid
    over = threading.Event()
    wrong: list[str] = []
    counts: list[int] = []

    def go_on(wire: Kept, seed: int) -> None:
        """Several requests at once, in pieces that end anywhere."""
        chance = random.Random(seed)
        count = 0
        try:
            while not over.is_set():
                numbers = [chance.randrange(40) for _ in range(chance.choice((1, 1, 2, 3)))]
                data = b"".join(requests[number] for number in numbers)
                cuts = sorted(chance.randrange(len(data)) for _ in range(chance.choice((0, 0, 1, 2))))
                for start, end in itertools.pairwise([0, *cuts, len(data)]):
                    wire.send(data[start:end])
                    if chance.random() < 0.1:
                        time.sleep(0.001)
                for number in numbers:
                    answer = wire.receive()
                    if answer.said != {"Item": item(number)}:
                        wrong.append(f"{number}: {answer}")
                count += len(numbers)
        except (OSError, http.client.HTTPException) as error:
            wrong.append(repr(error))
        counts.append(count)

    wires = [Kept(node, credentials) for _ in range(12)]
    threads = [threading.Thread(target=go_on, args=(wire, seed)) for seed, wire in enumerate(wires)]
    for thread in threads:
        thread.start()
    until(lambda: sum(wire.holder != own for wire in wires) >= 4 or wrong)
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong and len(counts) == 12


def test_with_tls_clients_come_again_to_another_process(tmp_path: Path, alice: Person, bob: Person) -> None:
    node = node_for_sdks(tmp_path, alice)
    set_processes(node, 1)
    authority = certify(node, tmp_path)
    secure = {"Version": "2012-10-17", "Statement": {**ALL["Statement"], "Condition": {"Bool": {"aws:SecureTransport": "true"}}}}  # fmt: skip
    files = {**FILES, "users/bob.json": {"keys": [bob.public], "inlinePolicies": {"all": secure}}}
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with serving(tmp_path, node, files) as project:
        credentials = keys(project, bob)
        wires = [Kept(node, credentials, context) for _ in range(6)]
        request = wires[0].signed(*GET)
        assert node.process is not None
        own = node.process.pid

        def moved() -> "Kept | None":
            for _ in range(20):
                for place, wire in enumerate(wires):
                    wire.send(request)
                    answer = wire.receive()
                    assert answer.status == 200
                    if answer.headers.get("connection") == "close":
                        wires[place] = Kept(node, credentials, context)
            return next((wire for wire in wires if wire.holder != own), None)

        wire = until(moved)
        assert wire.ask("PutItem", {"TableName": "orders", "Item": item(1)}).status == 200
        assert wire.ask("ListTables", {}).said == {"TableNames": ["orders", "others"]}, "that it came over TLS is told"
        assert wire.ask(*GET).said == {"Item": item(1)}
        (tmp_path / "aws.pem").write_bytes(authority.issue("127.0.0.1"))
        before = wire.shown

        def renewed() -> bool:
            made = [Kept(node, credentials, context) for _ in range(12)]  # some of them go to who has fewer
            found = [each.ask(*GET).status for each in made if each.shown != before and each.holder != own]
            for each in made:
                each.close()
            return 200 in found

        until(renewed)
        assert wire.ask(*GET).status == 200


def test_one_that_hangs_does_not_keep_anybody_from_going_on(shop: tuple[Project, Node], bob: Person) -> None:
    project, node = shop
    wire, *_ = moved(node, keys(project, bob), GET)
    process = wire.holder
    os.kill(process, signal.SIGSTOP)
    change(project, node, "users/bob.json", {"keys": [bob.public]})
    until(lambda: process not in processes(node), 2.0)  # ended before the push was answered, not only some time
    assert Kept(node, keys(project, bob)).ask(*GET).said["__type"].endswith("#AccessDeniedException")
    assert "does not follow" in node.log.read_text()


STARTS_SLOWLY = """#!{python}
import os, socket, struct, sys, time
from pathlib import Path

folder, end = Path(sys.argv[4]), socket.socket(fileno=int(sys.argv[5]))
(folder / "begun").write_text(f"{{sys.argv[1]}} {{os.getsid(0) == os.getpid()}}")
while not (folder / "go").exists():
    time.sleep(0.002)
while head := end.recv(13, socket.MSG_WAITALL):
    length, kind, number = struct.unpack("!IBQ", head)
    end.recv(length, socket.MSG_WAITALL)
    with (folder / "told").open("a") as told:
        told.write(f"{{kind}} ")
    if kind != {ping}:
        end.sendall(struct.pack("!IBQ", 0, 254, number))
"""
"""What stands for Python there: a process that starts when `go` is there, and says nothing when it is asked how it is."""


class Late:
    """The body of an answer to a process that is gone."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def __aiter__(self) -> "Late":
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("nobody reads it")

    async def aclose(self) -> None:
        self.closed.set()


def test_nobody_waits_for_one_that_starts_and_one_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(STARTS_SLOWLY.format(python=sys.executable, ping=int(Kind.PING)))
    python.chmod(0o700)
    monkeypatch.setattr(door_processes.sys, "executable", str(python))
    monkeypatch.setattr(door_processes, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(door_processes, "FOLLOW_SECONDS", 0.2)
    head: Any = SimpleNamespace(commit="c", state=SimpleNamespace(genesis="g"))

    async def nobody(arrival: Arrival) -> Reply:
        raise AssertionError("it passes nothing on")

    async def run() -> None:
        further = DoorProcesses(tmp_path, 1, lambda: head, Alone())
        further.serve(nobody, Audit(tmp_path / "audit", "a"), lambda: 0)
        further._start()
        [process] = further._all
        async with asyncio.timeout(10):
            await further.follow("d")
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.002)
            await asyncio.gather(further.tell("x", {"table": b"1"}), further.follow("e"))
            assert not process.ready
            (tmp_path / "go").touch()
            while not process.ready:
                await asyncio.sleep(0.002)
            told = [Kind.SET_UP, Kind.HEAD, Kind.FACTS, Kind.HEAD]
            assert (tmp_path / "told").read_text().split()[:4] == [f"{kind:d}" for kind in told]
            while further._all:
                await asyncio.sleep(0.002)
            assert process._process is not None and await process._process.wait() == -signal.SIGKILL
            late = Late()
            process.keep_body(late)
            await asyncio.wait_for(late.closed.wait(), 1)
            waits = []
            python.write_text("#!/bin/false")
            for _ in range(3):
                waits.append(further._not_before - time.monotonic())
                further._start()
                while further._all:
                    await asyncio.sleep(0.002)
            assert waits == [pytest.approx(expected, rel=0.2) for expected in (10, 20, 40)], "more seldom each time"
        await further.close()

    asyncio.run(run())
    assert (tmp_path / "begun").read_text() == "-P True"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_node(shop: tuple[Project, Node], bob: Person, number: signal.Signals) -> None:
    project, node = shop
    wire, *_ = moved(node, keys(project, bob), GET)
    process = wire.holder
    answered: list[Answer] = []
    lost: list[OSError] = []

    def go_on() -> None:
        try:
            while True:
                answered.append(wire.ask(*GET))
        except OSError as error:
            lost.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    until(lambda: len(answered) > 20)
    assert node.process is not None
    node.process.send_signal(number)
    node.process.wait(30)
    thread.join(30)
    assert lost and all(answer.status == 200 for answer in answered)
    until(lambda: not Path(f"/proc/{process}").exists() or "\nState:\tZ" in Path(f"/proc/{process}/status").read_text())
    if number == signal.SIGTERM:
        assert "Traceback" not in node.log.read_text()
