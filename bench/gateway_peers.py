"""A request through the gateway to a warm, sandboxed function, over the tools that run such a function for a developer.

`function_vs_serverless_offline`: requests a second at 64 connections over those of serverless-offline, whose handler is
JavaScript in worker threads, as it does by itself; `..._in_process`: with its option `--useInProcess`, without threads;
`function_vs_chalice_local`: over `chalice local`. Ours is a Python function behind a whole node. `cpu_...`: CPU time a
request, over all processes. Each answers the same bytes; all take turns within one run.

What they are compared with is installed at the first run, into `.peers/`, in the versions below: it is no dependency of
the project. Where that fails (no npm, no registry), standard error says so, and the lines are left out.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import report
from bench.gateway import FUNCTION, HANDLER, Server, in_turn, wrk_is_there
from bench.load import compile_node, wait_for
from tests.support import people, projects
from tests.support.nodes import Node, free_port

PEERS = Path(__file__).parents[1] / ".peers"
SERVERLESS = ("serverless@3.40.0", "serverless-offline@13.9.0")  # the last that ask for no login
CHALICE = ("chalice==1.32.0",)
INSTALL_SECONDS_MAX = 600
CONNECTIONS = 64
WARM_REQUESTS = 1000
WARM_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10

HTTP_API = {
    "service": "bench",
    "frameworkVersion": "3",
    "plugins": ["serverless-offline"],
    "provider": {"name": "aws", "runtime": "nodejs20.x"},
    "functions": {"f": {"handler": "f.handler", "events": [{"httpApi": "GET /"}]}},
}
JAVASCRIPT = """\
const answer = {statusCode: 200, headers: {"content-type": "application/json"}, body: '{"hello": "world"}'}
exports.handler = async () => answer
"""
CHALICE_APP = """\
from chalice import Chalice, Response

app = Chalice(app_name="bench")


@app.route("/")
def root():
    return Response('{"hello": "world"}', {"content-type": "application/json"})
"""


def installed(name: str, versions: Sequence[str], commands: Sequence[Sequence[str]]) -> Path | None:
    """The folder of a peer, in which `commands` have put these versions; None if they cannot."""
    folder = PEERS / name
    mark = folder / "installed.json"  # written last: a half of an installation is none
    if mark.exists() and json.loads(mark.read_text()) == list(versions):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"installing {' '.join(versions)} into {folder}", file=sys.stderr)
    try:
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"{name} cannot be installed, its lines are left out: {said}", file=sys.stderr)
        return None
    mark.write_text(json.dumps(list(versions)))
    return folder


def serverless() -> Path | None:
    """The package's own scripts are not run: they fetch and tell, and are not needed."""
    npm = ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts", *SERVERLESS]
    return installed("serverless", SERVERLESS, [npm])


def chalice() -> Path | None:
    pip = ["bin/python", "-m", "pip", "install", "--quiet", *CHALICE]
    return installed("chalice", CHALICE, [[sys.executable, "-m", "venv", "."], pip])


@contextmanager
def running(command: Sequence[str], folder: Path, port: int) -> Iterator[Server]:
    """A peer in a process group of its own, which ends with all that it started."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port, process)
        yield Server(f"http://127.0.0.1:{port}/", process.pid)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS_MAX)
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        process.wait()


def offline(home: Path, folder: Path, *options: str) -> tuple[list[str], Path, int]:
    """serverless-offline's command, its service in `folder`, and where it will listen."""
    folder.mkdir()
    (folder / "serverless.json").write_text(json.dumps(HTTP_API))
    (folder / "f.js").write_text(JAVASCRIPT)
    (folder / "node_modules").symlink_to(home / "node_modules")
    port, lambdas, sockets = free_port(), free_port(), free_port()
    ports = ["--httpPort", str(port), "--lambdaPort", str(lambdas), "--websocketPort", str(sockets)]
    ports += ["--terminateIdleLambdaTime", "3600"]  # seconds that a warm thread stays, in place of 60
    program = str(home / "node_modules/serverless/bin/serverless.js")
    return ["node", program, "offline", "--host", "127.0.0.1", *ports, *options], folder, port


def local(home: Path, folder: Path) -> tuple[list[str], Path, int]:
    (folder / ".chalice").mkdir(parents=True)
    (folder / ".chalice/config.json").write_text(
        json.dumps({"version": "2.0", "app_name": "bench", "stages": {"dev": {}}})
    )
    (folder / "app.py").write_text(CHALICE_APP)
    port = free_port()
    return [str(home / "bin/chalice"), "local", "--port", str(port), "--no-autoreload"], folder, port


@contextmanager
def own(folder: Path) -> Iterator[Server]:
    """A node with one function behind one route."""
    alice = people.make(folder, "alice")
    node = Node(folder / "node", alice)
    port = free_port()
    files = {
        "nodes/a.json": node.init(),
        "functions/f/function.json": projects.function(),
        "functions/f/app.py": HANDLER.format(0),
        "gateways/g.json": {"port": port, "routes": {"GET /": FUNCTION}},
    }
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    try:
        project.git("push", "-q", node.url(), "HEAD:main")
        assert node.process is not None
        yield Server(f"http://127.0.0.1:{port}/", node.process.pid)
    finally:
        node.stop()


def warm(server: Server) -> None:
    """Until so many are answered that all is started, and no faster than before.

    serverless-offline begins with a thread for each request at once; chalice local has a backlog of five connections,
    and the others try again after a second.
    """
    answered = rate = before = 0.0
    until = time.monotonic() + WARM_SECONDS_MAX
    while (answered < WARM_REQUESTS or rate > before * 1.25) and time.monotonic() < until:
        before, rate = rate, server.load(CONNECTIONS, 1).per_second
        answered += rate


def run(folder: Path) -> None:
    commands: dict[str, tuple[list[str], Path, int]] = {}
    if home := serverless():
        commands["serverless_offline"] = offline(home, folder / "offline")
        commands["serverless_offline_in_process"] = offline(home, folder / "in_process", "--useInProcess")
    if home := chalice():
        commands["chalice_local"] = local(home, folder / "chalice")
    if not commands:
        return
    with ExitStack() as stack:
        servers = {"function": stack.enter_context(own(folder))}
        for name, command in commands.items():
            servers[name] = stack.enter_context(running(*command))
        for server in servers.values():
            warm(server)
        seconds, rounds = (2, 1) if report.quick() else (8, 3)
        found = in_turn(servers, CONNECTIONS, seconds, rounds, warm_up=0)
    ours = found.pop("function")
    for name, theirs in found.items():
        report.line(f"function_vs_{name}", ours.per_second, "requests/s", theirs.per_second)
        report.line(f"cpu_function_vs_{name}", ours.cpu_seconds * 1e6, "µs", theirs.cpu_seconds * 1e6)


def main() -> None:
    wrk_is_there()
    compile_node()
    with tempfile.TemporaryDirectory() as scratch:
        run(Path(scratch))


if __name__ == "__main__":
    main()
