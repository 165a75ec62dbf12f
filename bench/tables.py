"""Items of tables over the wire, against peers that stand in for DynamoDB: one lean client that signs every request.

`put_vs_extenddb`, `get_...`, `query_...`: requests a second at 32 connections over those of ExtendDB on SQLite, both
with full durability and every signature checked (ours: every policy, too, and an audit record); `..._vs_dynalite`: over
dynalite's, which keeps nothing. `..._c1`: at one connection.
`put_vs_front_door` and `get_vs_front_door`: over DescribeEndpoints, which does nothing behind the same door.
`cpu_...`: CPU time a request of the server's processes. All take turns within one run.

Requests are signed before they are timed; the client is this process, on an event loop of its own. Peers are installed
at the first run, into `.peers/`; where that fails, standard error says so, and their lines are left out.
"""

import asyncio
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bench import report
from bench.gateway_peers import installed, running
from bench.load import cpu_seconds
from tests.support import people, projects
from tests.support.nodes import Node, free_port, owsgit

EXTENDDB = ("@extenddb/linux-x64@0.1.10",)
DYNALITE = ("dynalite@4.0.0",)
REGION = "us-east-1"
ITEMS = 1000
A_HASH = 10
"""So many items lie under one hash key: what a query finds."""

CONNECTIONS = (32, 1)
TABLE = {
    "attributeDefinitions": [
        {"attributeName": "pk", "attributeType": "S"},
        {"attributeName": "sk", "attributeType": "N"},
    ],
    "keySchema": [{"attributeName": "pk", "keyType": "HASH"}, {"attributeName": "sk", "keyType": "RANGE"}],
    "billingMode": "PAY_PER_REQUEST",
}


Work = Callable[[int], tuple[str, Any]]
"""The operation and the parameters of the request with a number."""


@dataclass(frozen=True)
class Target:
    """A server, and who asks it."""

    name: str
    port: int
    pid: int
    access_key: str = "AKIAXXXXXXXXXXXXXXXX"
    secret: str = field(default="secret", repr=False)
    token: str = field(default="", repr=False)

    def request(self, operation: str, document: Any) -> bytes:
        """A whole request, signed (Signature Version 4)."""
        body = json.dumps(document).encode()
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": f"127.0.0.1:{self.port}",
            "x-amz-date": now,
            "x-amz-target": f"DynamoDB_20120810.{operation}",
        }
        if self.token:
            headers["x-amz-security-token"] = self.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{now[:8]}/{REGION}/dynamodb/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"POST / HTTP/1.1\r\n{head}authorization: {signed}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )


def key(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"customer-{number // A_HASH}"}, "sk": {"N": str(number % A_HASH)}}


def put(number: int) -> tuple[str, Any]:
    item = {
        **key(number),
        **{f"attribute{each}": {"S": secrets.token_hex(12)} for each in range(8)},
        "amount": {"N": str(number)},
        "tags": {"SS": ["a", "b"]},
    }
    return "PutItem", {"TableName": "bench", "Item": item}


def get(number: int) -> tuple[str, Any]:
    return "GetItem", {"TableName": "bench", "Key": key(number), "ConsistentRead": True}


def query(number: int) -> tuple[str, Any]:
    values = {":pk": key(number)["pk"]}
    return "Query", {
        "TableName": "bench",
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": values,
    }


def nothing(number: int) -> tuple[str, Any]:
    return "DescribeEndpoints", {}


WORK: dict[str, Work] = {"put": put, "get": get, "query": query}


class _Connection(asyncio.Protocol):
    """Sends one request after the other until there are none, or the time is up."""

    def __init__(self, requests: Iterator[bytes], until: float, done: "asyncio.Future[int]") -> None:
        self._requests, self._until, self._done = requests, until, done
        self._answer = b""
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: Any = transport
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None or time.monotonic() > self._until:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(self._count)
            return
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            if not body.endswith(b"0\r\n\r\n"):
                return
        else:
            start = lower.index(b"content-length:") + 15
            if len(body) < int(lower[start:].split(b"\r\n", 1)[0]):
                return
        if not head.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(ValueError(self._answer[:2000].decode("utf-8", "replace")))
            self._transport.close()
            return
        self._answer = b""
        self._count += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or EOFError("the server closed the connection"))


@dataclass(frozen=True)
class Rate:
    per_second: float
    cpu_seconds: float  # a request


def measure(target: Target, work: Work, connections: int, seconds: float, guess: int) -> Rate:
    """How many requests of a kind a second; at most `guess` are made ready."""
    requests = [target.request(*work(number % ITEMS)) for number in range(guess)]

    async def run() -> Rate:
        loop = asyncio.get_running_loop()
        left = iter(requests)
        before, began = cpu_seconds(target.pid), time.monotonic()
        waits = []
        for _ in range(connections):
            done: asyncio.Future[int] = loop.create_future()
            await loop.create_connection(
                lambda done=done: _Connection(left, began + seconds, done),  # type: ignore[misc]
                "127.0.0.1",
                target.port,
            )
            waits.append(done)
        count = sum(await asyncio.gather(*waits))
        took = time.monotonic() - began
        return Rate(count / took, (cpu_seconds(target.pid) - before) / max(count, 1))

    return uvloop.run(run())


@contextmanager
def ours(folder: Path) -> Iterator[Target]:
    """A node with a table, and a user's credentials."""
    alice = people.make(folder, "alice")
    node = Node(folder / "node", alice, aws_port=free_port())
    files = {"nodes/a.json": node.init(), "tables/bench.json": TABLE}
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    try:
        project.git("push", "-q", node.url(), "HEAD:main")
        project.git("remote", "add", "origin", node.url())
        given = json.loads(owsgit("credentials", by=alice, cwd=project.folder).text)
        assert node.process is not None
        yield Target(
            "ours",
            node.aws_port,
            node.process.pid,
            given["AccessKeyId"],
            given["SecretAccessKey"],
            given["SessionToken"],
        )
    finally:
        node.stop()


def _capital(document: Any) -> Any:
    """The shape of CreateTable, from the shape of our file."""
    if isinstance(document, dict):
        return {name[:1].upper() + name[1:]: _capital(value) for name, value in document.items()}
    return [_capital(each) for each in document] if isinstance(document, list) else document


def create(target: Target) -> Target:
    """The table, at a peer."""
    measure(target, lambda number: ("CreateTable", {"TableName": "bench", **_capital(TABLE)}), 1, 10, 1)
    time.sleep(2)  # dynalite's are made in the background
    return target


@contextmanager
def dynalite(folder: Path) -> Iterator[Target]:
    home = installed("dynalite", DYNALITE, [["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", *DYNALITE]])
    assert home is not None
    port = free_port()
    program = str(home / "node_modules/dynalite/cli.js")
    with running(["node", program, "--port", str(port), "--createTableMs", "1"], folder, port) as server:
        yield create(Target("dynalite", port, server.pid))


@contextmanager
def extenddb(folder: Path) -> Iterator[Target]:
    """On SQLite, with an account, a user and a policy of its own."""
    npm = ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts", *EXTENDDB]
    home = installed("extenddb", EXTENDDB, [npm])
    assert home is not None
    program = home / "node_modules/@extenddb/linux-x64/extenddb"
    program.chmod(0o755)
    environment = os.environ | {"HOME": str(folder)}

    def call(*words: str) -> str:
        done = subprocess.run(
            [program, *words], cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    said = call("init", "--sqlite-path", str(folder / "data.sqlite"), "--config", "e.toml")
    environment["EXTENDDB_PASSWORD"] = said.partition("Password: ")[2].split()[0]
    port = free_port()
    serve = [str(program), "serve", "--config", "e.toml", "--port", str(port), "--foreground"]
    with running(serve, folder, port) as server:
        manage = ("manage", "--user", "admin", "--config", "e.toml", "--endpoint", f"http://127.0.0.1:{port}")
        account = "123456789012"
        call(*manage, "create-account", "--account-id", account, "--account-name", "bench")
        call(*manage, "create-user", "--account-id", account, "--user-name", "bench")
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}],
        }
        named = ("--account-id", account, "--user-name", "bench")
        call(*manage, "put-user-policy", *named, "--policy-name", "all", "--policy-document", json.dumps(policy))
        made = json.loads(call(*manage, "create-access-key", *named))
        yield create(Target("extenddb", port, server.pid, made["access_key_id"], made["secret_access_key"]))


PEERS = {"extenddb": extenddb, "dynalite": dynalite}


def main() -> None:
    quick = "--quick" in sys.argv
    seconds, rounds = (1.0, 1) if quick else (4.0, 3)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = [stack.enter_context(ours(folder))]
        for name, peer in PEERS.items():
            (folder / name).mkdir()
            try:
                targets.append(stack.enter_context(peer(folder / name)))
            except Exception as error:
                print(f"{name} does not run here, its lines are left out: {error}", file=sys.stderr)
        for target in targets:
            measure(target, put, 32, 30, ITEMS)
        for connections in CONNECTIONS:
            found: dict[tuple[str, str], Rate] = {}
            for _ in range(rounds):
                for target in targets:
                    work = {**WORK, **({"front_door": nothing} if target.name == "ours" else {})}
                    for name, each in work.items():
                        rate = measure(target, each, connections, seconds, int(20_000 * seconds))
                        best = found.get((target.name, name))
                        if best is None or rate.per_second > best.per_second:
                            found[target.name, name] = rate
            _tell(found, [target.name for target in targets[1:]], "" if connections == 32 else f"_c{connections}")


def _tell(found: dict[tuple[str, str], Rate], peers: list[str], suffix: str) -> None:
    for name in WORK:
        mine = found["ours", name]
        for peer in peers:
            theirs = found[peer, name]
            report.line(f"{name}_vs_{peer}{suffix}", mine.per_second, "requests/s", theirs.per_second)
            report.line(f"cpu_{name}_vs_{peer}{suffix}", mine.cpu_seconds * 1e6, "µs", theirs.cpu_seconds * 1e6)
        if name != "query":
            door = found["ours", "front_door"]
            report.line(f"{name}_vs_front_door{suffix}", mine.per_second, "requests/s", door.per_second)


if __name__ == "__main__":
    main()
