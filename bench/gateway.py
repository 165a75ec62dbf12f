"""A request through the gateway to a warm, sandboxed Python function and back, over a raw uvicorn hello, under wrk.

`function_vs_raw_uvicorn` is requests a second at 64 connections over uvicorn's (one process, httptools, uvloop);
`..._c1`, `..._c16` the same at 1 and 16; `p50_c1...` the median latency at 1; `cpu_...` CPU time a request over all
processes, the node's and its workers'; `1000_routes` the same function behind a thousand routes over the one behind
ten; `flask_...` ours over Flask on gunicorn with two sync workers. `swap_worst...`: the longest that a request took in
the second of a deployment, over the longest in the second before, with four clients that never pause.

All take turns within one run. A scenario more (a route with authorization, validation, ...) is one line in SCENARIOS.
"""

import http.client
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from bench import report
from bench.load import Load, compile_node, wait_for, wrk
from tests.support import people, projects
from tests.support.issuers import Issuer
from tests.support.nodes import Node, free_port
from tests.support.projects import Project

HANDLER = """\
VERSION = {}
ANSWER = {{"statusCode": 200, "headers": {{"content-type": "application/json", "x-version": str(VERSION)}}, \
"body": '{{"hello": "world"}}'}}


def handler(event, context):
    return ANSWER
"""
FUNCTION = {"function": "f"}
RATE = {"rate": 1_000_000, "burst": 1_000_000}  # counted for every request, and never reached
CLIENTS = 4


@dataclass(frozen=True)
class Scenario:
    """A gateway before the function `f`, asked for GET `path`; `over` is the scenario that it is compared with."""

    name: str
    routes: Mapping[str, Any]
    over: str = ""
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)  # more of the gateway's file
    body: str = ""  # then it is a POST of JSON


def _many(count: int) -> dict[str, Any]:
    return {f"GET /shops/{{shop}}/aisle{number}/items/{{item}}": FUNCTION for number in range(count)}


MODEL = {
    "type": "object",
    "required": ["items"],
    "additionalProperties": False,
    "properties": {"items": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}}},
}
ORDER = '{"items": [{"id": "a-1"}, {"id": "a-2"}]}'

SCENARIOS = (
    Scenario("function", {"GET /": FUNCTION}),
    Scenario("10_routes", _many(10), path="/shops/7/aisle7/items/1"),
    Scenario("1000_routes", _many(1000), over="10_routes", path="/shops/7/aisle777/items/1"),
    Scenario("throttled", {"GET /": FUNCTION}, over="function", fields={"throttle": RATE | {"perClient": RATE}}),
    Scenario("posted", {"POST /": FUNCTION}, body=ORDER),
    Scenario(
        "validated",
        {"POST /": FUNCTION | {"request": {"body": {"application/json": "Order"}}}},
        over="posted",
        fields={"models": {"Order": MODEL}},
        body=ORDER,
    ),
)
TOKEN_SECONDS = 3600


def with_tokens(issuer: Issuer) -> Scenario:
    """A route that asks for a token of the issuer, which is RS256 as most are."""
    key = rsa.generate_private_key(65537, 2048)
    issuer.add("key", key)
    claims = {
        "iss": issuer.url,
        "aud": "shop",
        "sub": "alice",
        "scope": "read",
        "exp": int(time.time()) + TOKEN_SECONDS,
    }
    token = jwt.encode(claims, key, "RS256", {"kid": "key"})
    authorizer = {"type": "jwt", "issuer": issuer.url, "audience": ["shop"]}
    return Scenario(
        "jwt",
        {"GET /": FUNCTION | {"auth": "login", "scopes": ["read"]}},
        over="function",
        headers={"authorization": f"Bearer {token}"},
        fields={"authorizers": {"login": authorizer}},
    )


@dataclass
class Server:
    """Something that answers, and the process that costs."""

    url: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    def load(self, connections: int, seconds: int) -> Load:
        load = wrk(self.url, connections, seconds, self.pid, self.headers, self.body)
        if load.failed:
            raise SystemExit(f"{load.failed} requests to {self.url} failed")
        return load


def in_turn(
    servers: Mapping[str, Server], connections: int, seconds: int, rounds: int, warm_up: int = 1
) -> dict[str, Load]:
    """Each server's median round, by requests a second; all take turns, so that noise meets all of them.

    `warm_up` rounds more come first, and do not count.
    """
    found: dict[str, list[Load]] = {name: [] for name in servers}
    for number in range(warm_up + rounds):
        for name, server in servers.items():
            load = server.load(connections, seconds)
            if number >= warm_up:
                found[name].append(load)
    return {name: sorted(loads, key=lambda load: load.per_second)[len(loads) // 2] for name, loads in found.items()}


def measured(servers: Mapping[str, Server], scenarios: Sequence[Scenario], seconds: int, rounds: int) -> None:
    """The lines of everything that is served."""
    two = {name: servers[name] for name in ("raw_uvicorn", "function")}
    both = in_turn(two, 64, seconds, rounds)
    raw, ours = both["raw_uvicorn"], both["function"]
    report.line("function_vs_raw_uvicorn", ours.per_second, "requests/s", raw.per_second)
    report.line("cpu_function_vs_raw_uvicorn", ours.cpu_seconds * 1e6, "µs", raw.cpu_seconds * 1e6)
    full = in_turn(servers, 64, seconds, max(rounds - 1, 1))
    ours = full["function"]
    for scenario in scenarios:
        if scenario.over:
            over = full[scenario.over]
            name = f"{scenario.name}_vs_{scenario.over}"
            report.line(name, full[scenario.name].per_second, "requests/s", over.per_second)
            report.line(f"cpu_{name}", full[scenario.name].cpu_seconds * 1e6, "µs", over.cpu_seconds * 1e6)
    flask = full["flask_gunicorn"]
    report.line("function_vs_flask_gunicorn", ours.per_second, "requests/s", flask.per_second)
    report.line("cpu_function_vs_flask_gunicorn", ours.cpu_seconds * 1e6, "µs", flask.cpu_seconds * 1e6)
    some = in_turn(two, 16, seconds, max(rounds - 1, 1))
    report.line(
        "function_vs_raw_uvicorn_c16", some["function"].per_second, "requests/s", some["raw_uvicorn"].per_second
    )
    one = in_turn(two, 1, seconds, max(rounds - 1, 1))
    report.line(
        "p50_c1_function_vs_raw_uvicorn", one["function"].p50_seconds * 1e6, "µs", one["raw_uvicorn"].p50_seconds * 1e6
    )


@dataclass(frozen=True)
class Sample:
    began: float
    took: float
    status: int
    version: str


def swap(project: Project, node: Node, port: int, deployments: int) -> None:
    """The longest that a request takes while the function is deployed anew; none may fail."""
    worst, before = [], []
    for number in range(deployments):
        stop = threading.Event()
        samples: list[list[Sample]] = [[] for _ in range(CLIENTS)]
        clients = [threading.Thread(target=_hammer, args=(port, stop, own)) for own in samples]
        for each in clients:
            each.start()
        time.sleep(2)
        project.write("functions/f/app.py", HANDLER.format(number + 1))
        project.commit(f"version {number + 1}")
        project.git("push", "-q", node.url(), "HEAD:main")
        time.sleep(1)
        stop.set()
        for each in clients:
            each.join()
        told = sorted((sample for own in samples for sample in own), key=lambda sample: sample.began)
        if any(sample.status != 200 for sample in told):
            raise SystemExit("a request failed while the function was deployed")
        at = next(sample.began for sample in told if sample.version == str(number + 1))
        worst.append(max(sample.took for sample in told if at - 0.5 <= sample.began < at + 0.5))
        before.append(max(sample.took for sample in told if at - 1.5 <= sample.began < at - 0.5))
    report.line("swap_worst_latency_vs_before", report.median(worst) * 1000, "ms", report.median(before) * 1000)


def _hammer(port: int, stop: threading.Event, samples: list[Sample]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    while not stop.is_set():
        began = time.monotonic()
        client.request("GET", "/")
        answer = client.getresponse()
        answer.read()
        samples.append(Sample(began, time.monotonic() - began, answer.status, answer.headers.get("x-version") or ""))
    client.close()


def baseline(command: list[str], port: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(port, process)
    return process


def run(folder: Path, started: list["subprocess.Popen[bytes]"]) -> None:
    servers: dict[str, Server] = {}

    def start(name: str, command: list[str], port: int, path: str = "/") -> None:
        started.append(baseline(command, port))
        servers[name] = Server(f"http://127.0.0.1:{port}{path}", started[-1].pid)

    port = free_port()
    uvicorn = "-m uvicorn --http httptools --loop uvloop --no-access-log --log-level warning --port"
    start("raw_uvicorn", [sys.executable, *uvicorn.split(), str(port), "bench.raw_app:hello"], port)
    alice = people.make(folder, "alice")
    node = Node(folder / "node", alice)
    issuer = Issuer()
    scenarios = (*SCENARIOS, with_tokens(issuer))
    ports = {scenario.name: free_port() for scenario in scenarios}
    files: dict[str, Any] = {
        "nodes/a.json": node.init(),
        "functions/f/function.json": projects.function(),
        "functions/f/app.py": HANDLER.format(0),
    }
    for number, scenario in enumerate(scenarios):
        about = {"port": ports[scenario.name], "routes": scenario.routes, **scenario.fields}
        files[f"gateways/g{number}.json"] = about
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    try:
        project.git("push", "-q", node.url(), "HEAD:main")
        assert node.process is not None
        for scenario in scenarios:
            url = f"http://127.0.0.1:{ports[scenario.name]}{scenario.path}"
            servers[scenario.name] = Server(url, node.process.pid, scenario.headers, scenario.body)
        port = free_port()
        start(
            "flask_gunicorn",
            [sys.executable, *f"-m gunicorn -w 2 -b 127.0.0.1:{port} bench.raw_app:flask".split()],
            port,
        )
        measured(servers, scenarios, 1 if report.quick() else 4, 2 if report.quick() else 5)
        swap(project, node, ports["function"], 2 if report.quick() else 5)
    finally:
        node.stop()
        issuer.server.shutdown()


def wrk_is_there() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: install the Debian package wrk (make tested)")


def main() -> None:
    wrk_is_there()
    compile_node()
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run(Path(scratch), started)
        finally:
            for each in started:
                each.terminate()
            for each in started:
                each.wait()


if __name__ == "__main__":
    main()
