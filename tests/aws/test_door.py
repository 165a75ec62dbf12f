"""The door between nodes: what a node of the ledger can put into a request that it passes on, and into an answer."""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from owsgit.aws import door
from owsgit.aws.api import Caller, Need
from owsgit.aws.audit import Audit
from owsgit.aws.door import BODY_BYTES_MAX, TOPIC, Arrival, Door, House
from owsgit.aws.protocols import protocols_of
from owsgit.aws.protocols.wire import Reply
from owsgit.aws.sigv4 import UNSIGNED_PAYLOAD, Request
from owsgit.model.errors import UnavailableError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Decision
from owsgit.model.names import Scope
from owsgit.model.service import Credential, CredentialError, Told
from tests.support.doors import Buckets

KEY, SECRET = "ASIA" + "A" * 16, "secret"


class Streets:
    """Neighbours whose answers the test makes."""

    own = "a"

    def __init__(self) -> None:
        self.asked: list[Told] = []
        self.told = Told({})
        self.problem = ""
        self.topics: dict[str, Callable[[str, Told], Awaitable[Told]]] = {}

    def others(self) -> list[str]:
        return ["b"]

    async def ask(self, node: str, topic: str, told: Told) -> Told:
        if self.problem:
            raise UnavailableError(self.problem)
        self.asked.append(told)
        return self.told

    async def await_back(self, node: str) -> None:
        pass

    def answer(self, topic: str, answer: Callable[[str, Told], Awaitable[Told]]) -> None:
        self.topics[topic] = answer


class Tables:
    """An API of one operation, whose tables are where the test says."""

    service = "dynamodb"

    def __init__(self) -> None:
        self.at: str | None = None
        self.callers: list[Caller] = []

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> list[Need]:
        return [Need("dynamodb:ListTables", "*")]

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return self.at

    async def list_tables(self, caller: Caller, *, limit: int = 1) -> Mapping[str, Any]:
        self.callers.append(caller)
        if limit == 99:
            raise RuntimeError("the password is hunter2")
        if limit in (97, 98):
            file = f"/srv/node-a/{'tu'[limit - 97]}.table"
            raise UnavailableError("the disk is full", file=file, remedy="free some space")
        return {"TableNames": ["t"]}


class Limits:
    """Another API of the same service, with an operation of its own."""

    service = "dynamodb"

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> list[Need]:
        return [Need("dynamodb:DescribeLimits", "*")]

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    async def describe_limits(self, caller: Caller) -> Mapping[str, Any]:
        return {"TableMaxReadCapacityUnits": 7}


class Node:
    def __init__(self, folder: Path) -> None:
        self.streets, self.tables = Streets(), Tables()
        self.contexts: list[Context] = []
        self.decision = Decision(True, "allowed")
        self.why_not = ""  # the credentials are not good
        self.folder, self.audit = folder, Audit(folder, "a")
        self.door = Door(
            [self.tables, Limits(), Buckets()],
            House(
                lambda: Scope("us-east-1", "123456789012"),
                self.credential,
                self.decide,
                self.streets,
                self.audit,
            ),
        )

    def credential(self, token: str) -> Credential:
        if self.why_not:
            raise CredentialError(self.why_not)
        now = int(time.time())
        return Credential(KEY, SECRET, "bob", "arn:aws:iam::123456789012:user/bob", "bob", now, now + 3600)

    def decide(self, who: Any, action: str, arn: str, context: Context, policy: Any) -> Decision:
        self.contexts.append(context)
        return self.decision


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def request(body: bytes = b"{}", operation: str = "ListTables", **more: str) -> Request:
    headers = {
        **more,
        "Host": "x",
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
    }
    made = AWSRequest("POST", "http://x/", headers, body)
    SigV4Auth(Credentials(KEY, SECRET, "token"), "dynamodb", "us-east-1").add_auth(made)
    return Request("POST", b"/", b"", [(name.lower().encode(), value.encode()) for name, value in made.headers.items()])


def asked(
    node: Node, body: bytes = b"{}", operation: str = "ListTables", *, passed_on: bool = False, encoding: str = ""
) -> Reply:
    async def read() -> bytes:
        return body

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    made = request(body, operation, **({"Content-Encoding": encoding} if encoding else {}))
    arrival = Arrival("id", made, read, pieces, "192.0.2.1", False, passed_on=passed_on)
    return asyncio.run(node.door.answer(arrival))


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(False, "no policy of bob allows it", False), "because no identity-based policy allows the "),
        (Decision(False, "but not by p", False, "permissions boundary"), "because no permissions boundary allows the "),
        (Decision(False, "denied by p.json"), "with an explicit deny in p.json"),
    ],
)
def test_who_is_denied_is_told_what_it_was_for_want_of(node: Node, decision: Decision, words: str) -> None:
    node.decision = decision
    told = json.loads(asked(node).body)  # type: ignore[arg-type]
    assert told["Message"].startswith("User: arn:aws:iam::123456789012:user/bob is not authorized to perform: ")
    assert words in told["Message"]


def test_several_may_answer_for_one_service_each_for_its_operations(node: Node) -> None:
    assert asked(node).body == b'{"TableNames":["t"]}'
    assert asked(node, operation="DescribeLimits").body == b'{"TableMaxReadCapacityUnits":7}'
    missing = asked(node, operation="ListBackups")
    assert missing.status == 501 and b"dynamodb:ListBackups is not built" in bytes(missing.body)  # type: ignore[arg-type]


def test_models_are_not_read_where_gateways_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[threading.Thread] = []

    def read(service: str) -> Any:
        readers.append(threading.current_thread())
        return protocols_of(service)

    monkeypatch.setattr(door, "protocols_of", read)
    assert asked(node).status == asked(node).status == 200
    assert readers and threading.main_thread() not in readers


def passed(node: Node, **forged: Any) -> Told:
    made = request()
    fields: dict[str, Any] = {
        "method": made.method,
        "path": "/",
        "query": "",
        "headers": [[name.decode(), value.decode()] for name, value in made.headers],
        "address": "198.51.100.7",
        "secure": False,
        **forged,
    }
    return asyncio.run(answered(node, Told(fields, b"{}")))


async def answered(node: Node, told: Told) -> Told:
    return await node.streets.topics[TOPIC]("b", told)


def test_a_node_that_passes_a_request_on_says_nothing_of_who_asks_and_when(node: Node) -> None:
    forged = {"aws:username": ["alice"], "aws:currenttime": ["2000-01-01T00:00:00Z"], "aws:tokenissuetime": ["x"]}
    told = passed(node, context=forged)
    assert told.fields["status"] == 200
    known = node.contexts[0].values
    assert "aws:username" not in known and known["aws:currenttime"][0] > "2026"
    assert known["aws:sourceip"] == ("198.51.100.7",) and known["aws:securetransport"] == ("false",)
    assert node.tables.callers[0].who == "bob"


@pytest.mark.parametrize(
    "forged",
    [
        {"method": "PUT"},
        {"path": "/x"},
        {"query": "a=b"},
        {"headers": []},
        {"headers": [["authorization", "AWS4-HMAC-SHA256 x"]]},
    ],
)
def test_a_node_that_passes_a_request_on_cannot_change_it(node: Node, forged: dict[str, Any]) -> None:
    assert passed(node, **forged).fields["status"] in (400, 403) and not node.tables.callers


def test_what_is_passed_on_is_not_passed_on_again(node: Node) -> None:
    node.tables.at = "c"
    assert passed(node).fields["status"] == 503 and not node.streets.asked


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"status": "200", "headers": []},
        {"status": 100, "headers": []},
        {"status": 99999, "headers": []},
        {"status": 200, "headers": {}},
        {"status": 200},
    ],
)
def test_an_answer_that_is_no_response_is_told_as_that(node: Node, told: dict[str, Any]) -> None:
    node.tables.at, node.streets.told = "b", Told(told, b"x")
    reply = asked(node)
    assert reply.status == 503 and json.loads(reply.body)["message"].startswith("the node that has this answered")


def test_a_node_that_cannot_be_asked_is_named(node: Node) -> None:
    node.tables.at, node.streets.problem = "b", "b is not connected"
    reply = asked(node)
    told = "node b has what this is about, and cannot be asked now: b is not connected"
    assert reply.status == 503 and json.loads(reply.body)["message"].startswith(told)  # type: ignore[arg-type]


def test_a_node_writes_no_headers_of_its_own_into_a_connection(node: Node) -> None:
    pairs = [
        ["content-type", "x\r\nset-cookie: a"], ["x-amzn-a\r\nb", "c"], ["set-cookie", "a=b"], ["content-length", "0"],
        ["transfer-encoding", "chunked"], ["x-amz-crc32", "1"], ["x-amz-a"], 5, [1, 2], ["x-amzn-u", "\u0100"],
    ]  # fmt: skip
    node.tables.at, node.streets.told = "b", Told({"status": 200, "headers": pairs}, b"x")
    assert asked(node).headers == [(b"x-amz-crc32", b"1")]


def test_what_fails_inside_is_not_told(node: Node) -> None:
    reply = asked(node, b'{"Limit": 99}')
    assert reply.status == 500 and b"InternalFailure" in reply.body and b"hunter2" not in reply.body
    node.audit.close()
    assert "hunter2" not in (node.folder / "current.jsonl").read_text()


def test_what_is_not_there_is_logged_once_and_told_without_its_path(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    replies = [asked(node, b'{"Limit": %d}' % limit) for _ in range(3) for limit in (97, 98)]
    assert {reply.status for reply in replies} == {503}
    assert b"the disk is full; free some space" in replies[0].body and b"/srv" not in replies[0].body
    for table in "tu":
        assert caplog.text.count(f"ListTables: /srv/node-a/{table}.table: the disk is full") == 1


def test_a_body_that_comes_slowly_does_not_outlive_its_credentials(node: Node) -> None:
    async def read() -> bytes:
        node.why_not = "the key that bob logged in with is not in the ledger any more"
        return b"{}"

    reply = asyncio.run(node.door.answer(Arrival("id", request(), read, _nothing, "192.0.2.1", False)))
    assert reply.status == 400 and b"UnrecognizedClientException" in reply.body and not node.tables.callers


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def test_of_a_key_that_is_there_twice_all_see_the_same(node: Node) -> None:
    assert asked(node, b'{"Limit": 99, "Limit": 5}').status == 200
    assert asked(node, b'{"Limit": 5, "Limit": 99}').status == 500


class Unsigned(S3SigV4Auth):
    """Signs all but the body."""

    def payload(self, request: AWSRequest) -> str:
        return UNSIGNED_PAYLOAD


def put(node: Node, address: str, *, secure: bool = False, presigned: bool = False, service: str = "s3") -> Reply:
    body = b"anything"

    async def read() -> bytes:
        return body

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    made = AWSRequest("PUT", "http://x/b/k", {"Host": "x", "X-Amz-Target": "DynamoDB_20120810.ListTables"})
    keys = Credentials(KEY, SECRET, "token")
    auth: Any = S3SigV4QueryAuth(keys, service, "us-east-1", 60) if presigned else Unsigned(keys, service, "us-east-1")
    auth.add_auth(made)
    headers = [(name.lower().encode(), value.encode()) for name, value in made.headers.items()]
    request = Request("PUT", b"/b/k", made.prepare().url.partition("?")[2].encode(), headers)
    return asyncio.run(node.door.answer(Arrival("id", request, read, pieces, address, secure)))


def test_a_body_without_a_signature_is_taken_where_nobody_sees_it(node: Node) -> None:
    assert put(node, "192.0.2.1", secure=True).status == 200
    assert put(node, "127.0.0.1").status == put(node, "::1").status == 200
    assert put(node, "192.0.2.1", presigned=True).status == 200
    for address in ("192.0.2.1", "127.0.0.1.example", "", "0.0.0.0"):
        reply = put(node, address)
        assert reply.status == 403 and b"taken over https alone" in reply.body
    other = put(node, "127.0.0.1", secure=True, service="dynamodb")
    assert other.status == 400 and b"takes no body that is not signed" in other.body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b'{"Limit": 5}'), 200),
        (gzip.compress(b'{"Limit": 5}')[:-4], 400),
        (gzip.compress(b'{"Limit": 5}') * 2, 400),
        (b'{"Limit": 5}', 400),
        (gzip.compress(b" " * (BODY_BYTES_MAX + 1)), 413),
    ],
    ids=["whole", "cut", "twice", "plain", "bomb"],
)
def test_a_compressed_body_is_one_that_is_bounded(node: Node, body: bytes, status: int) -> None:
    assert asked(node, body, encoding="gzip").status == status
