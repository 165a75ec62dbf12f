"""What a gateway passes on and serves, against nginx in the same run: requests a second, asked for by wrk.

`proxy_of_...`: the http integration over nginx's proxy_pass (with connections that are kept), to the same upstream, an
nginx of its own. `files_of_...`: files of a website over nginx's. `cached_...`: what a whole node has in the cache of a
route to a function, over nginx's proxy_cache in front of that upstream. Both are one process; each has the machine for
itself while it is asked. Needs nginx (nginx-light) and wrk.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench import report
from bench.load import compile_node
from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Handler, Mount
from owsgit.gateway.files import Contents, Files, Shelf, indexed
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listeners
from owsgit.gateway.table import parse_key
from owsgit.gateway.template import PathTemplate
from owsgit.gateway.upstream import HttpIntegration, Upstream, Upstreams
from tests.support import nodes, people, projects
from tests.support.nodes import Node

SIZES = {"1_kB": 1024, "100_kB": 100 * 1024, "10_MB": 10 * 1024 * 1024}
CONNECTIONS = (1, 16, 64)
ROUNDS = 3
START_SECONDS_MAX = 10
CACHED = ("1_kB", "100_kB")
HANDLER = """\
def handler(event, context):
    body = SIZES[event["pathParameters"]["size"]] * "x"
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": body}


SIZES = """

NGINX = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  proxy_cache_path {folder}/cache keys_zone=cached:1m max_size=64m;
  upstream behind {{ server 127.0.0.1:{behind}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location /proxy/ {{ proxy_pass http://behind/; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    location /cached/ {{
      proxy_pass http://behind/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache cached; proxy_cache_valid 200 300s; add_header X-Cache $upstream_cache_status;
    }}
    location / {{ root {root}; }}
  }}
}}
"""


def free_port() -> int:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + START_SECONDS_MAX
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{command[0]} does not listen on {port}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextlib.contextmanager
def nginx(folder: Path, root: Path, port: int, behind: int) -> Iterator[None]:
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, root=root, port=port, behind=behind))
    with running(["nginx", "-p", str(folder), "-c", str(file), "-g", "daemon off;"], port):
        yield


async def serve(port: int, behind: int, root: Path) -> None:
    """Our own, until it is ended."""
    proxy, files = parse_key("ANY /proxy/{rest+}"), parse_key("GET /{path+}")
    upstream = Upstream(PathTemplate(f"http://127.0.0.1:{behind}/{{rest}}", proxy))
    routes: list[tuple[str, Handler]] = [
        (proxy.text, HttpIntegration(Upstreams(), upstream)),
        (files.text, Files(Shelf(indexed(root, "bench")), files, Contents())),
    ]
    listeners = Listeners("127.0.0.1")
    await listeners.serve("bench", port, [Binding(ANY_HOST, (), Api(Mount("bench", "1"), routes))])
    await asyncio.Event().wait()


def rate(url: str, connections: int, seconds: float) -> float:
    """Requests a second."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*", done.stdout)
    if failed is not None:
        sys.exit(f"{url}: {failed[0]}")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


@contextlib.contextmanager
def cached_by_a_node(folder: Path, port: int) -> Iterator[None]:
    """A whole node, at whose port /cached/{size} is a function behind a cache."""
    folder.mkdir()
    alice = people.make(folder, "alice")
    node = Node(folder / "node", alice)
    files = {
        "nodes/a.json": node.init(),
        "functions/f/function.json": projects.function(),
        "functions/f/app.py": f"{HANDLER}{SIZES}\n",
        "gateways/g.json": {"port": port, "routes": {"GET /cached/{size}": {"function": "f", "cache": {"ttl": 300}}}},
    }
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    try:
        project.git("push", "-q", node.url(), "HEAD:main")
        yield
    finally:
        node.stop()


def store(port: int, size_name: str) -> None:
    """Have a response of this size stored, and see that it is."""
    for expected in ("MISS", "HIT"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cached/{size_name}", timeout=10) as response:
            found = response.headers["x-cache"], len(response.read())
        if found != (expected, SIZES[size_name]):
            sys.exit(f"port {port}: {expected} of {SIZES[size_name]} bytes was expected, not {found[0]} of {found[1]}")


def compare_cached(folder: Path, theirs: int, seconds: float) -> None:
    ours = nodes.free_port()
    with cached_by_a_node(folder, ours):
        for size_name in CACHED:
            store(ours, size_name)
            store(theirs, size_name)
            for connections in _connections(size_name):
                compare(f"cached_{size_name}", f"/cached/{size_name}", ours, theirs, connections, seconds)


def _connections(size_name: str) -> tuple[int, ...]:
    return CONNECTIONS if size_name == "1_kB" and not report.quick() else (16,)


def compare(name: str, path: str, ours: int, theirs: int, connections: int, seconds: float) -> None:
    """In turns, so that noise meets both."""
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 if report.quick() else ROUNDS):
        for port, found in zip((ours, theirs), rates, strict=True):
            found.append(rate(f"http://127.0.0.1:{port}{path}", connections, seconds))
    line = f"{name}_{connections}_connections"
    report.line(line, report.median(rates[0]), "requests/s", report.median(rates[1]), digits=0)


def main() -> None:
    missing = [program for program in ("nginx", "wrk") if shutil.which(program) is None]
    if missing:
        sys.exit(f"bench.gateway_io needs {' and '.join(missing)}: apt-get install nginx-light wrk")
    seconds = 1 if report.quick() else 5
    compile_node()
    with tempfile.TemporaryDirectory(prefix="owsgit-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user if this one is root
        root = folder / "www"
        root.mkdir()
        for size_name, size in SIZES.items():
            (root / size_name).write_bytes(os.urandom(size))
        ours, theirs, behind = free_port(), free_port(), free_port()
        own = [sys.executable, "-m", "bench.gateway_io", "serve", str(ours), str(behind), str(root)]
        with (
            nginx(folder / "behind", root, behind, behind),
            nginx(folder / "theirs", root, theirs, behind),
            running(own, ours),
        ):
            for kind, path in (("proxy", "/proxy/"), ("files", "/")):
                for size_name in SIZES:
                    for connections in _connections(size_name):
                        compare(f"{kind}_of_{size_name}", path + size_name, ours, theirs, connections, seconds)
            compare_cached(folder / "node", theirs, seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
    else:
        main()
