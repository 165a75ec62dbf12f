"""What a function reaches of the network: what its file says, and never the machine itself."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from owsgit.runtime.config import INNER_ADDRESS, Inner, Network
from owsgit.runtime.egress import is_forbidden
from tests.runtime.conftest import Function, Lab
from tests.support.network import add_space

Make = Callable[..., Function]

CALL = """
import socket
def handler(event, context):
    try:
        with socket.create_connection((event["host"], event["port"]), 5) as s:
            s.sendall(b"hello")
            s.shutdown(socket.SHUT_WR)
            data = b""
            while piece := s.recv(65536):
                data += piece
            return data.decode()
    except OSError as error:
        return f"refused: {error}"
"""


class Echo:
    """A server that answers in capitals."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.count = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            data = b""
            while piece := connection.recv(65536):
                data += piece
            connection.sendall(data.upper())


def own_address() -> str:
    """Of an interface of this machine; '' if it is in no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
        asking.connect(("198.51.100.1", 9))
        return str(asking.getsockname()[0])
    return ""


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.listener.close()


def test_an_allowed_host_is_reached_by_its_name_and_nothing_else_is(function: Make, echo: Echo) -> None:
    other = Echo()
    network = Network(allowed=(f"localhost:{echo.port}",), loopback=True)
    caller = function(CALL, network=network)
    assert caller({"host": "localhost", "port": echo.port}) == "HELLO"
    for host in ("127.0.0.1", "localhost", "127.1.0.1"):
        assert caller({"host": host, "port": other.port}).startswith("refused: ")
    assert caller({"host": "127.0.0.1", "port": echo.port}).startswith("refused: ")
    assert other.count == 0
    other.listener.close()


def test_an_allowed_address_is_reached_as_it_is_written(function: Make, echo: Echo) -> None:
    caller = function(CALL, network=Network(allowed=(f"127.0.0.1:{echo.port}",), loopback=True))
    assert caller({"host": "127.0.0.1", "port": echo.port}) == "HELLO"


def test_the_machine_itself_is_not_reached_even_if_it_is_allowed(function: Make, echo: Echo) -> None:
    for host in ("127.0.0.1", "localhost"):
        caller = function(CALL, network=Network(allowed=(f"{host}:{echo.port}",)))
        answer = caller({"host": host, "port": echo.port})
        assert answer == "" or answer.startswith("refused: ")
    assert echo.count == 0
    if address := own_address():
        other = Echo(address)
        answer = function(CALL, network=Network(allowed=(f"{address}:{other.port}",)))(
            {"host": address, "port": other.port}
        )
        assert (answer == "" or answer.startswith("refused: ")) and other.count == 0
        other.listener.close()
    own = {("own.invalid", 443): ("127.0.0.1", echo.port), ("localhost", echo.port): ("127.0.0.1", echo.port)}
    network = Network(allowed=("own.invalid:443", f"localhost:{echo.port}"), own=lambda *place: own.get(place))
    caller = function(CALL, network=network)
    assert {caller({"host": host, "port": port}) for host, port in own} == {"HELLO"}


@pytest.mark.parametrize("internet", [False, True])
def test_what_the_node_gives_itself_is_reached_and_nothing_beside_it(
    function: Make, echo: Echo, internet: bool
) -> None:
    other = Echo()
    gone = other.port

    def nowhere() -> tuple[str, int]:
        raise OSError("there is no door")

    inner = (
        Inner(4566, to=lambda: ("127.0.0.1", echo.port)),
        Inner(4567, to=nowhere),
        Inner(4568, to=lambda: ("127.0.0.1", echo.port), address="127.0.0.1"),
    )
    allowed = () if internet else (f"{INNER_ADDRESS}:4566", "127.0.0.1:4568")  # which are the node's own all the same
    caller = function(CALL, network=Network(internet=internet, allowed=allowed, inner=inner))
    assert caller({"host": INNER_ADDRESS, "port": 4566}) == "HELLO"
    assert caller({"host": "127.0.0.1", "port": 4568}) == "HELLO"
    answer = caller({"host": INNER_ADDRESS, "port": 4567})
    assert answer == "" or answer.startswith("refused: ")
    for host, port in ((INNER_ADDRESS, gone), ("127.0.0.1", echo.port), ("127.0.0.1", 4566)):
        assert caller({"host": host, "port": port}).startswith("refused: ")
    assert echo.count == 2 and other.count == 0
    other.listener.close()


@pytest.mark.parametrize(
    "address",
    [
        "127.9.9.9", "0.0.0.0", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "fd00:ec2::254",
        "::ffff:168.63.129.16", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_no_name_leads_to_the_machine_or_to_a_metadata_service(address: str) -> None:
    assert is_forbidden(address, Network(allowed=("evil.example:80",)))
    assert not is_forbidden("192.0.2.1", Network())


def test_many_connections_at_once_are_passed_on(function: Make, echo: Echo) -> None:
    caller = function(
        """
import socket, threading
def handler(event, context):
    made = [socket.create_connection(("127.0.0.1", event), 5) for _ in range(50)]
    found = []
    for s in made:
        s.sendall(b"x" * 100_000); s.shutdown(socket.SHUT_WR)
        data = b""
        while piece := s.recv(65536): data += piece
        found.append(data == b"X" * 100_000)
    return all(found)
""",
        network=Network(allowed=(f"127.0.0.1:{echo.port}",), loopback=True), timeout=30.0,
    )  # fmt: skip
    assert caller(echo.port) is True


def test_a_worker_that_ends_with_open_connections_leaves_nothing_and_tells_nobody(
    lab: Lab, function: Make, echo: Echo
) -> None:
    caller = function(
        "import socket\nkept = []\ndef handler(event, context):\n"
        "    kept.extend(socket.create_connection(('127.0.0.1', event)) for _ in range(20)); kept[0].sendall(b'x')",
        network=Network(allowed=(f"127.0.0.1:{echo.port}",), loopback=True),
    )
    problems: list[object] = []

    async def end() -> None:
        (worker,) = caller.pool.idle
        egress = worker._running.egress  # type: ignore[attr-defined]
        async with asyncio.timeout(15):
            while len(egress._connections) < 20:
                await asyncio.sleep(0.01)
            worker.close()
            while egress._connections:
                await asyncio.sleep(0.01)

    lab.loop.set_exception_handler(lambda _, context: problems.append(context))
    caller(echo.port)
    lab.loop.run_until_complete(end())
    lab.loop.set_exception_handler(None)
    assert not problems


INSIDE = """
import asyncio, json, sys, tempfile
from pathlib import Path
from owsgit.model.service import Invocation
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.config import FunctionConfig, Network
from owsgit.runtime.framed import FramedWorker
from owsgit.runtime.logs import FunctionLog

async def main(code, targets):
    sandbox = Bubblewrap(sys.argv[1])
    folder = Path(tempfile.mkdtemp())
    (folder / "app.py").write_text(code)
    config = FunctionConfig(
        name="f", arn="f", runtime="python", handler="app.handler", code=folder, timeout=20.0, memory_size=128,
        environment={}, region="r", version="v", network=Network(internet=True),
    )
    worker = FramedWorker(config, FunctionLog(folder / "log"))
    await worker.start(sandbox)
    for target in targets:
        answer = await worker.invoke(Invocation(json.dumps(target).encode(), "r"))
        print(answer.payload.decode(), flush=True)
    worker.close()
    await sandbox.close()

asyncio.run(main(sys.stdin.read(), json.loads(sys.argv[2])))
"""

SERVER = """
import socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(65536): self.request.sendall(piece.upper())
socketserver.ThreadingTCPServer.allow_reuse_address = True
with socketserver.ThreadingTCPServer((sys.argv[1], 7000), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces, a node's and one that stands for the internet, joined by a wire."""
    node, far = (f"ows-{uuid.uuid4().hex[:6]}" for _ in range(2))
    add_space(node)
    add_space(far)
    try:
        near_end, far_end = f"v{node[4:]}", f"v{far[4:]}"
        run("ip", "link", "add", near_end, "netns", node, "type", "veth", "peer", "name", far_end, "netns", far)
        for space, end, addresses in (
            (node, near_end, ["203.0.113.1/24"]),
            (far, far_end, ["203.0.113.2/24", "10.9.9.9/32", "169.254.169.254/32"]),
        ):
            for address in addresses:
                run("ip", "-n", space, "address", "add", address, "dev", end)
            run("ip", "-n", space, "link", "set", end, "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", node, "route", "add", "default", "via", "203.0.113.2")
        yield node, far
    finally:
        run("ip", "netns", "delete", node)
        run("ip", "netns", "delete", far)


def test_the_internet_is_not_the_machine_nor_its_neighbours(two_machines: tuple[str, str]) -> None:
    node, _ = two_machines
    servers = [
        subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{space}", sys.executable, "-c", SERVER, "0.0.0.0"], stdout=subprocess.PIPE
        )
        for space in two_machines
    ]
    try:
        for server in servers:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        hosts = ["203.0.113.2", "10.9.9.9", "169.254.169.254", "203.0.113.1", "127.0.0.1", "10.0.2.2"]
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{node}", sys.executable, "-c", INSIDE, f"owsgit-test-{node}",
             json.dumps([{"host": host, "port": 7000} for host in hosts])],
            input=textwrap.dedent(CALL), capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        public, *others = [json.loads(line) for line in done.stdout.splitlines()]
        assert public == "HELLO"
        assert len(others) == 5 and all(answer.startswith("refused: ") for answer in others), others
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_nothing_of_the_internet_is_left_when_a_node_is_killed() -> None:
    def stacks() -> set[str]:
        found = subprocess.run(["pgrep", "-x", "slirp4netns"], capture_output=True, text=True, check=False)
        return set(found.stdout.split())

    code = """
import asyncio, os, signal, sys
from owsgit.runtime.internet import Internet
async def main():
    started = await Internet.start(int(sys.argv[1]))
    print(started._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)
        done = subprocess.run(
            [sys.executable, "-c", code, str(holder.pid)], capture_output=True, text=True, timeout=60, check=False
        )
        pid = done.stdout.strip()
        assert pid, done.stderr
        deadline = time.monotonic() + 20
        while pid in stacks() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert pid not in stacks()
    finally:
        holder.kill()
        holder.wait()
