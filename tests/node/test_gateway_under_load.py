"""A node's gateway under load, after real pushes: no deployment costs a request, and no flood the others their time."""

import contextlib
import http.client
import os
import secrets
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.support import nodes, projects
from tests.support.flood import flooding
from tests.support.nodes import Node, free_port
from tests.support.people import Person
from tests.support.projects import Project

HELLO = """
def handler(event, context):
    headers = {{"content-type": "text/plain", "x-version": "{0}", "x-api": event["requestContext"]["apiId"]}}
    return {{"statusCode": 200, "headers": headers, "body": event.get("body") or "hello"}}
"""
TICKS = """
import time

def handler(event, context):
    yield {{"statusCode": 200, "headers": {{"content-type": "text/plain", "x-version": "{0}"}}}}
    for number in range(10):
        yield f"{0}:{{number}} "
        time.sleep(0.05)
"""
CHAT = """
def handler(event, context):
    return {{"statusCode": 200, "body": "{0}:" + event["body"]}}
"""
RARE = """
import ctypes, secrets

ctypes.CDLL(None).prctl(15, b"{name}")  # PR_SET_NAME: so that the test finds its process
WORKER = secrets.token_hex(8)

def handler(event, context):
    return {{"statusCode": 200, "body": WORKER}}
"""
RARE_JS = """
process.title = "{name}";
const worker = require("crypto").randomUUID();
exports.handler = async () => ({{ statusCode: 200, body: worker }});
"""
SECONDS_MAX = 15.0
"""Of one request, on a machine that does other things as well."""


@dataclass(frozen=True)
class Answered:
    what: str
    version: str
    began: float
    ended: float


@dataclass
class Load:
    """Clients that never pause, each with one connection that it keeps."""

    port: int
    answered: list[Answered] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator["Load"]:
        clients: list[Callable[[Callable[[str, str, float], None]], None]] = [
            lambda told: self._http(told, "get", "GET", "/hello"),
            lambda told: self._http(told, "get", "GET", "/hello"),
            lambda told: self._http(told, "by host", "GET", "/hello", host="second.test"),
            lambda told: self._http(told, "small body", "POST", "/echo", size=5_000),
            lambda told: self._http(told, "large body", "POST", "/echo", size=500_000),
            lambda told: self._http(told, "stream", "GET", "/ticks"),
            self._chat,
        ]
        threads = [threading.Thread(target=self._client, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _client(self, run: Callable[[Callable[[str, str, float], None]], None]) -> None:
        def told(what: str, version: str, began: float) -> None:
            self.answered.append(Answered(what, version, began, time.monotonic()))

        try:
            run(told)
        except Exception as error:
            self.problems.append(repr(error))

    def _http(
        self,
        told: Callable[[str, str, float], None],
        what: str,
        method: str,
        path: str,
        *,
        host: str = "first.test",
        size: int = 0,
    ) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        client.connect()
        client.auto_open = 0  # a connection that is closed is a failure
        while not self._stop.is_set():
            body = secrets.token_hex(size // 2)
            began = time.monotonic()
            client.request(method, path, body or None, {"host": host, "content-type": "text/plain"})
            answer = client.getresponse()
            text, version = answer.read().decode(), answer.headers.get("x-version", "")
            wanted = "".join(f"{version}:{number} " for number in range(10)) if what == "stream" else body or "hello"
            if answer.status != 200 or text != wanted:
                raise AssertionError(f"{what}: {answer.status} {text[:200]}")
            told(what, version, began)
        client.close()

    def _chat(self, told: Callable[[str, str, float], None]) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), SECONDS_MAX)
        with connect(f"ws://chat.test:{self.port}/", sock=plain, compression=None, proxy=None) as client:
            while not self._stop.is_set():
                word, began = secrets.token_hex(4), time.monotonic()
                client.send(word)
                version, _, said = str(client.recv(timeout=SECONDS_MAX)).partition(":")
                if said != word:
                    raise AssertionError(f"chat: {word} was answered with {said}")
                told("chat", version, began)


@dataclass
class Deployments:
    """Pushes, and when each version of the functions was live."""

    project: Project
    node: Node
    live: list[list[Any]] = field(default_factory=list)  # version, since, until

    def write(self, version: str) -> None:
        for name, code in (("hello", HELLO), ("ticks", TICKS), ("chat", CHAT)):
            self.project.write(f"functions/{name}/app.py", code.format(version))

    def functions(self, version: str) -> None:
        self.write(version)
        self.live.append([version, time.monotonic(), float("inf")])
        self.push()
        self.live[-2][2] = time.monotonic()

    def push(self) -> None:
        self.project.commit()
        done = nodes.push(self.project, self.node)
        assert done.status == 0, done.text

    def has(self, answered: Answered) -> bool:
        """Whether its version was live while it was under way."""
        return any(
            answered.version == version and since <= answered.ended and answered.began <= until
            for version, since, until in self.live
        )


def ask(port: int, path: str, host: str = "first.test") -> tuple[int, str, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
    client.request("GET", path, headers={"host": host})
    answer = client.getresponse()
    found = answer.status, answer.read().decode(), answer.headers.get("x-api", "")
    client.close()
    return found


def api(port: int, **fields: Any) -> dict[str, Any]:
    return {
        "port": port,
        "routes": {"GET /hello": {"function": "hello"}, "POST /echo": {"function": "hello"}},
        **fields,
    }


def test_nothing_that_is_deployed_costs_a_request(tmp_path: Path, alice: Person, node: Node) -> None:
    port, rare = free_port(), f"rare-{secrets.token_hex(4)}"
    first = api(port)
    first["routes"] |= {
        "GET /ticks": {"function": "ticks", "responseTransferMode": "STREAM"},
        "GET /rare": {"function": "rare"},
        "GET /rarejs": {"function": "rarejs"},
    }
    chat = {
        "protocol": "WEBSOCKET",
        "port": port,
        "domains": [{"name": "chat.test"}],
        "routes": {"$default": {"function": "chat", "routeResponse": True}},
    }
    files: dict[str, Any] = {"nodes/a.json": node.init(), "gateways/first.json": first, "gateways/chat.json": chat}
    files |= {
        f"functions/{name}/function.json": projects.function(timeout=30) for name in ("hello", "ticks", "chat", "rare")
    }
    files |= {"functions/rare/app.py": RARE.format(name=rare)}
    files |= {"functions/rarejs/function.json": projects.function(runtime="nodejs", timeout=30)}
    files |= {"functions/rarejs/app.js": RARE_JS.format(name=f"js{rare}")}
    for name, code in (("hello", HELLO), ("ticks", TICKS), ("chat", CHAT)):
        files[f"functions/{name}/app.py"] = code.format("v0")
    project = projects.create(tmp_path / "shop", alice, files=files)
    deployments = Deployments(project, node, [["v0", 0.0, float("inf")]])
    node.start()
    assert nodes.push(project, node).status == 0
    with Load(port).running() as load:
        deployments.functions("v1")
        gateways_change(deployments, first, chat)
        gateways_come_and_go(deployments, port)
        workers_die(port, "/rare", rare)
        workers_die(port, "/rarejs", f"js{rare}")
        deployments.functions("v0")  # rolled back
        assert ask(port, "/hello")[0] == 200
    assert load.problems == []
    assert {each.what for each in load.answered} == {"get", "by host", "small body", "large body", "stream", "chat"}
    assert {each.version for each in load.answered} == {"v0", "v1"}
    assert [each for each in load.answered if not deployments.has(each)] == []
    assert max(each.ended - each.began for each in load.answered) < SECONDS_MAX
    assert sum(each.what == "get" for each in load.answered) > 200


def gateways_change(deployments: Deployments, first: dict[str, Any], chat: dict[str, Any]) -> None:
    """A gateway's routes and steps change, and so does the one whose connection is a WebSocket's."""
    many = {f"GET /more/{number}": {"function": "rare"} for number in range(20)}
    rate = {"rate": 100_000, "burst": 100_000}
    changed = {**first, "cors": {"allowOrigins": ["*"]}, "throttle": rate, "compression": {"minimumSize": 1000}}
    deployments.project.write("gateways/first.json", {**changed, "routes": first["routes"] | many})
    routes = chat["routes"] | {"other": {"function": "rare"}}
    deployments.project.write("gateways/chat.json", {**chat, "routes": routes})
    deployments.push()
    assert ask(first["port"], "/more/7")[0] == 200


def gateways_come_and_go(deployments: Deployments, port: int) -> None:
    """One on the same port by another host name, one on another port; that one answers what it has begun."""
    project, other = deployments.project, free_port()
    project.write("gateways/second.json", api(port, domains=[{"name": "second.test"}]))
    project.write("gateways/other.json", api(other))
    deployments.push()
    assert ask(port, "/hello", "second.test") == (200, "hello", "second")
    assert ask(other, "/hello") == (200, "hello", "other")
    with socket.create_connection(("127.0.0.1", other), SECONDS_MAX) as begun:
        begun.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nhalf-")
        for name in ("second", "other"):
            (project.folder / f"gateways/{name}.json").unlink()
        pushing = threading.Thread(target=deployments.push)
        pushing.start()
        nodes.until(lambda: not listens(other))
        begun.sendall(b"a-body")
        pieces = b""
        while piece := begun.recv(65536):
            pieces += piece
        pushing.join()
    assert pieces.startswith(b"HTTP/1.1 200 OK\r\n") and pieces.endswith(b"half-a-bod"), pieces
    assert ask(port, "/hello", "second.test") == (200, "hello", "first")


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def workers_die(port: int, path: str, name: str) -> None:
    """Each is killed when it has nothing to do, and asked at once."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
    workers = []
    for _ in range(5):
        client.request("GET", path)
        answer = client.getresponse()
        workers.append(answer.read())
        assert answer.status == 200, workers
        for pid in named(name):
            os.kill(pid, signal.SIGKILL)
    client.close()
    assert len(set(workers)) == 5


def named(name: str) -> list[int]:
    """The processes of that name."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == name:
                found.append(int(folder.name))
    return found


SLOW = """
import time

def handler(event, context):
    time.sleep(0.05)
    return "slow"
"""
FLOODED = {"busy": {"concurrency": 2}, "throttled": {"throttle": {"rate": 5, "burst": 5}}, "waiting": {}}
RATIO_MAX = 3.0
"""bench.flood measures what it really is, about 1; without refusals that are held back it was 12."""

PHASES_MAX = 8


def test_a_flood_on_one_route_leaves_the_others_their_time(tmp_path: Path, alice: Person, node: Node) -> None:
    """Both are measured in turns: on a machine that does other things as well, one pair of quiet phases is enough."""
    port = free_port()
    routes = {f"GET /{name}": {"function": "slow", **fields} for name, fields in FLOODED.items()}
    files = {
        "nodes/a.json": node.init(),
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": HELLO.format("v0"),
        "functions/slow/function.json": projects.function(maxConcurrency=2, timeout=60),
        "functions/slow/app.py": SLOW,
        "gateways/first.json": {"port": port, "routes": {"GET /hello": {"function": "hello"}, **routes}},
    }
    project = projects.create(tmp_path / "shop", alice, files=files)
    node.start()
    assert nodes.push(project, node).status == 0
    median_seconds(port)
    for name in FLOODED:
        ratios: list[float] = []
        while not ratios or min(ratios) > RATIO_MAX:
            assert len(ratios) < PHASES_MAX, f"{name}: {ratios}"
            quiet = median_seconds(port)
            with flooding(port, f"/{name}", 48) as statuses:
                ratios.append(median_seconds(port) / quiet)
            assert statuses.total() > 0


def median_seconds(port: int) -> float:
    """Of a request to the route that is not flooded."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
    found = []
    for _ in range(100):
        began = time.monotonic()
        client.request("GET", "/hello")
        answer = client.getresponse()
        assert answer.read() == b"hello" and answer.status == 200
        found.append(time.monotonic() - began)
        time.sleep(0.001)  # a route that is asked without a pause is no quiet one
    client.close()
    return statistics.median(found)
