"""Items of tables over the wire, against peers that stand in for DynamoDB: one lean client that signs every request.

`put_vs_extenddb`, `get_...`, `query_...`: requests a second at 32 connections over those of ExtendDB on SQLite, both
with full durability and every signature checked (ours: every policy, too, and an audit record); `..._vs_dynalite`: over
dynalite's, which keeps nothing. `..._c1`: at one connection.
`put_vs_front_door` and `get_vs_front_door`: over DescribeEndpoints, which does nothing behind the same door, on a node
that has one process for all three.
`cpu_...`: CPU time a request of the server's processes. All take turns within one run.

Requests are signed before they are timed; the client is this process, on an event loop of its own. Peers are installed
at the first run, into `.peers/`; where that fails, standard error says so, and their lines are left out.
"""

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import report
from bench.load import compile_node, cpu_seconds
from bench.table_peers import Target, dynalite, extenddb, ours

ITEMS = 1000
A_HASH = 10
"""So many items lie under one hash key: what a query finds."""

WARM_SECONDS = 1.5
"""By then every server has started what it starts for load."""

CONNECTIONS = (32, 1)
PEERS = {"extenddb": extenddb, "dynalite": dynalite}
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
DOOR: dict[str, Work] = {"front_door": nothing, "put": put, "get": get}


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


def main() -> None:
    quick = "--quick" in sys.argv
    seconds, rounds = (1.0, 1) if quick else (4.0, 3)
    compile_node()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = [stack.enter_context(ours(folder / "ours", {"bench": TABLE}))]
        alone = stack.enter_context(ours(folder / "alone", {"bench": TABLE}, "alone", 0))
        for name, peer in PEERS.items():
            (folder / name).mkdir()
            try:
                targets.append(stack.enter_context(peer(folder / name, {"bench": TABLE})))
            except Exception as error:
                print(f"{name} does not run here, its lines are left out: {error}", file=sys.stderr)
        for target in (*targets, alone):
            measure(target, put, 32, 30, ITEMS)
            measure(target, get, 32, WARM_SECONDS, 10_000)
        for connections in CONNECTIONS:
            guess = 20_000 if connections > 1 else 6_000
            asked = [(target, name, each) for target in targets for name, each in WORK.items()]
            if connections > 1:
                asked += [(alone, name, each) for name, each in DOOR.items()]
            found: dict[tuple[str, str], Rate] = {}
            for _ in range(rounds):
                for target, name, each in asked:
                    rate = measure(target, each, connections, seconds, int(guess * seconds))
                    best = found.get((target.name, name))
                    if best is None or rate.per_second > best.per_second:
                        found[target.name, name] = rate
            _tell(found, [target.name for target in targets[1:]], "" if connections > 1 else f"_c{connections}")
            if connections > 1:
                _tell_door(found)


def _tell_door(found: dict[tuple[str, str], Rate]) -> None:
    door = found["alone", "front_door"]
    for name in ("put", "get"):
        mine = found["alone", name]
        report.line(f"{name}_vs_front_door", mine.per_second, "requests/s", door.per_second)
        report.line(f"cpu_{name}_vs_front_door", mine.cpu_seconds * 1e6, "µs", door.cpu_seconds * 1e6)


def _tell(found: dict[tuple[str, str], Rate], peers: list[str], suffix: str) -> None:
    for name in WORK:
        mine = found["ours", name]
        for peer in peers:
            theirs = found[peer, name]
            report.line(f"{name}_vs_{peer}{suffix}", mine.per_second, "requests/s", theirs.per_second)
            report.line(f"cpu_{name}_vs_{peer}{suffix}", mine.cpu_seconds * 1e6, "µs", theirs.cpu_seconds * 1e6)


if __name__ == "__main__":
    main()
