"""A WebSocket API over a bare `websockets` server, both in processes of their own, asked by the same client.

`websocket_function`: round trips a second through a two-way route to a warm Python function in its sandbox, of 1 and of
16 connections at once; `websocket_echo`: the same through a handler in the gateway itself. The baseline echoes.
`websocket_idle_kB`: memory (proportional set size) per idle connection.

    python -m bench.websocket [--quick]
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_bare

from bench import report
from owsgit.gateway.exchange import Exchange, Mount, Response
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listeners
from owsgit.gateway.socket_api import Deployed, Selection, SocketRoute, WebSocketApi
from owsgit.gateway.sockets import Connections, SocketLimits
from owsgit.model.service import Answer, Invocation
from owsgit.model.service import alone as nowhere
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.budget import Budget
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes

HANDLER = "def handler(event, context):\n    return {'statusCode': 200, 'body': event['body']}\n"
UNLIMITED = SocketLimits(connections=100_000, message_rate=1e9, message_burst=1 << 30)
CONNECTIONS = (1, 16)
IDLE, IDLE_QUICK = 2000, 500
ROUNDS, ROUNDS_QUICK = 10, 3
TURN_SECONDS = 0.5


class Workers:
    """A function's workers as a target."""

    def __init__(self, folder: Path) -> None:
        (folder / "code").mkdir()
        (folder / "code" / "app.py").write_text(HANDLER)
        config = FunctionConfig(
            name="bench", arn="arn:aws:lambda:us-east-1:1:function:bench", runtime="python", handler="app.handler",
            code=folder / "code", timeout=60, memory_size=512, environment={}, region="us-east-1", version="1",
        )  # fmt: skip
        runtimes = Runtimes(Bubblewrap(f"owsgit-bench-{uuid.uuid4().hex[:8]}"))
        log = FunctionLog(folder / "log")
        self._pool = Pool(lambda: runtimes.start(config, log), Size(max(CONNECTIONS)), Budget())

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        return await self._pool.invoke(invocation)


async def _echo(exchange: Exchange) -> Response:
    return Response(200, [], await exchange.read())


async def _serve_ours() -> None:
    folder = tempfile.TemporaryDirectory()
    target: Any = Workers(Path(folder.name))
    routes = {
        "$default": SocketRoute(_echo, True),
        "function": SocketRoute(FunctionIntegration(target, "bench", "1.0", 29.0), True),
    }
    forward: Any = nowhere
    deployed = Deployed(Connections("bench", forward))
    api = WebSocketApi(Mount("bench", "1"), routes, deployed, Selection(["action"]), UNLIMITED)
    listeners, port = Listeners("127.0.0.1"), _free_port()
    await listeners.serve("bench", port, [Binding(ANY_HOST, (), api)])
    print(port, flush=True)
    await asyncio.Event().wait()


async def _serve_bare() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve_bare(echo, "127.0.0.1", 0, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Event().wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """One of both, in a process of its own."""

    def __init__(self, which: str) -> None:
        command = [sys.executable, "-m", "bench.websocket", which]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = f"ws://127.0.0.1:{int(self._process.stdout.readline())}/"

    def memory(self) -> int:
        """Bytes that are its own (proportional set size)."""
        found = re.search(
            r"^Pss:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(), re.MULTILINE
        )
        assert found is not None
        return int(found[1]) * 1024

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


async def _open(server: Server, count: int) -> list[ClientConnection]:
    return [await connect(server.url, compression=None, proxy=None, ping_interval=None) for _ in range(count)]


async def _rate(clients: Sequence[ClientConnection], message: str, seconds: float) -> float:
    """Round trips a second, of all connections together."""
    until = time.perf_counter() + seconds

    async def talk(client: ClientConnection) -> int:
        count = 0
        while time.perf_counter() < until:
            await client.send(message)
            assert await client.recv() == message
            count += 1
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*map(talk, clients))
    return sum(counts) / (time.perf_counter() - began)


async def _messages(ours: Server, bare: Server, rounds: int) -> None:
    function, plain = json.dumps({"action": "function"}), json.dumps({"action": "echo"})
    for count in CONNECTIONS:
        here, there = await _open(ours, count), await _open(bare, count)
        await _rate(here, function, 1.0)  # workers are warm
        rates: dict[str, list[float]] = {"function": [], "echo": [], "bare": []}
        for _ in range(rounds):
            rates["bare"].append(await _rate(there, plain, TURN_SECONDS))
            rates["echo"].append(await _rate(here, plain, TURN_SECONDS))
            rates["function"].append(await _rate(here, function, TURN_SECONDS))
        bare_rate = report.median(rates["bare"])
        for name in ("function", "echo"):
            report.line(f"websocket_{name}_of_{count}", report.median(rates[name]), "messages/s", bare_rate, digits=0)
        for client in (*here, *there):
            await client.close()


async def _idle(ours: Server, bare: Server, count: int) -> None:
    found = []
    for server in (ours, bare):
        warm = await _open(server, 10)
        before = server.memory()
        clients = await _open(server, count)
        found.append((server.memory() - before) / count / 1024)
        await asyncio.gather(*(client.close() for client in (*clients, *warm)))
    report.line("websocket_idle_kB", found[0], "kB", found[1], digits=1)


async def main() -> None:
    quick = report.quick()
    ours, bare = Server("ours"), Server("bare")
    try:
        await _messages(ours, bare, ROUNDS_QUICK if quick else ROUNDS)
        await _idle(ours, bare, IDLE_QUICK if quick else IDLE)
    finally:
        ours.close()
        bare.close()


if __name__ == "__main__":
    work = {"ours": _serve_ours, "bare": _serve_bare}.get(sys.argv[1] if sys.argv[1:] else "", main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
