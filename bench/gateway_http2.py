"""A request over HTTP/2 through the gateway to a warm, sandboxed function, over what else answers one.

`http2_function_vs_hypercorn`: requests a second, 64 of them at once on 8 connections, over those of a bare ASGI
application behind hypercorn, which speaks HTTP/2 by the same library (h2) and runs no function; `http2_vs_https`: over
the same function by HTTP/1.1 and TLS on 64 connections. `cpu_...`: CPU time a request, over all processes.

hypercorn is installed at the first run, into `.peers/`: it is no dependency of the project. The load is h2load's
(Debian's nghttp2-client).
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.gateway import FUNCTION, HANDLER
from bench.gateway_peers import installed, running
from bench.load import compile_node, cpu_seconds
from tests.support import people, projects
from tests.support.authorities import Authority
from tests.support.nodes import Node, free_port

HYPERCORN = ("hypercorn==0.18.0", "uvloop==0.22.1")
HELLO = """\
BODY = b'{"hello": "world"}'
START = {"type": "http.response.start", "status": 200, "headers": [
    (b"content-type", b"application/json"), (b"content-length", b"18")]}


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send(START)
        await send({"type": "http.response.body", "body": BODY})
"""
AT_ONCE = {"h2": ("-c", "8", "-m", "8"), "h1": ("--h1", "-c", "64")}


@dataclass(frozen=True)
class Server:
    """Something that answers over TLS, and the process that costs."""

    url: str
    pid: int
    protocol: str = "h2"


@dataclass(frozen=True)
class Load:
    per_second: float
    cpu_seconds: float  # a request


def load(server: Server, seconds: int) -> Load:
    command = ["h2load", *AT_ONCE[server.protocol], "-t", "1", "-D", str(seconds), "--warm-up-time=1", server.url]
    before = cpu_seconds(server.pid)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cost = cpu_seconds(server.pid) - before
    rate = re.search(r"finished in [\d.]+s, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if rate is None or counts is None or not int(counts[1]) or any(int(counts[number]) for number in (2, 3, 4)):
        raise SystemExit(f"h2load says of {server.url}:\n{text}")
    per_second = float(rate[1])
    return Load(per_second, cost / max(per_second * (seconds + 1), 1))  # the second to warm up costs as well


def in_turn(servers: Mapping[str, Server], seconds: int, rounds: int) -> dict[str, Load]:
    """Each server's median round, by requests a second, without the first; all take turns."""
    found: dict[str, list[Load]] = {name: [] for name in servers}
    for number in range(1 + rounds):
        for name, server in servers.items():
            seen = load(server, seconds)
            if number:
                found[name].append(seen)
    return {name: sorted(loads, key=lambda each: each.per_second)[len(loads) // 2] for name, loads in found.items()}


@contextmanager
def own(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[Server, Server]]:
    """A node with one function behind one route; by HTTP/2, and by HTTP/1.1."""
    alice = people.make(folder, "alice")
    node = Node(folder / "node", alice)
    port = free_port()
    gateway = {
        "port": port,
        "domains": [{"name": "localhost"}],
        "tls": {"certificate": {"files": dict(files)}},
        "routes": {"GET /": FUNCTION},
    }
    documents = {
        "nodes/a.json": node.init(),
        "functions/f/function.json": projects.function(),
        "functions/f/app.py": HANDLER.format(0),
        "gateways/g.json": gateway,
    }
    project = projects.create(folder / "shop", alice, files=documents)
    settings = node.home / "node.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"certificateFolders": [str(folder)]}))
    node.start()
    try:
        project.git("push", "-q", node.url(), "HEAD:main")
        assert node.process is not None
        url = f"https://localhost:{port}/"
        yield Server(url, node.process.pid), Server(url, node.process.pid, "h1")
    finally:
        node.stop()


def hypercorn(folder: Path, chain: str, key: str) -> tuple[Sequence[str], Path, int] | None:
    pip = ["bin/python", "-m", "pip", "install", "--quiet", *HYPERCORN]
    home = installed("hypercorn", HYPERCORN, [[sys.executable, "-m", "venv", "."], pip])
    if home is None:
        return None
    folder.mkdir()
    (folder / "hello.py").write_text(HELLO)
    (folder / "hypercorn.toml").write_text("keep_alive_max_requests = 1_000_000_000\n")  # by itself, 1000 a connection
    port = free_port()
    command = [
        str(home / "bin/hypercorn"),
        "--bind",
        f"127.0.0.1:{port}",
        "--worker-class",
        "uvloop",
        "--config",
        "hypercorn.toml",
    ]
    return [*command, "--certfile", chain, "--keyfile", key, "hello:app"], folder, port


def run(folder: Path) -> None:
    pem = Authority().issue("localhost").decode()
    key, chain = folder / "key.pem", folder / "chain.pem"
    parts = re.findall(r"-----BEGIN [^-]+-----.*?-----END [^-]+-----\n", pem, re.DOTALL)
    key.write_text("".join(part for part in parts if "PRIVATE KEY" in part))
    chain.write_text("".join(part for part in parts if "PRIVATE KEY" not in part))
    key.chmod(0o600)
    with ExitStack() as stack:
        ours, plain = stack.enter_context(own(folder, {"chain": str(chain), "key": str(key)}))
        servers = {"http2": ours, "https": plain}
        if (command := hypercorn(folder / "hypercorn", str(chain), str(key))) is not None:
            theirs = stack.enter_context(running(*command))
            servers["hypercorn"] = Server(theirs.url.replace("http://127.0.0.1", "https://localhost"), theirs.pid)
        found = in_turn(servers, *((2, 1) if report.quick() else (6, 3)))
    http2 = found["http2"]
    for name, line in (("hypercorn", "http2_function_vs_hypercorn"), ("https", "http2_vs_https")):
        if (over := found.get(name)) is not None:
            report.line(line, http2.per_second, "requests/s", over.per_second)
            report.line(f"cpu_{line}", http2.cpu_seconds * 1e6, "µs", over.cpu_seconds * 1e6)


def main() -> None:
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is needed: apt-get install nghttp2-client")
    compile_node()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


if __name__ == "__main__":
    main()
