"""What a flood on one route costs the others: the median latency of a quiet route, with it over without it.

The flood is another process with 64 connections that ask again as soon as they are answered, for a route with a slow
function: one that may be under way four times at once, one that may be called ten times a second, and one with neither,
whose requests wait; and for a brief function without any bound, to show what that costs. Phases with and without it
take turns, so that the noise of the machine meets both.
"""

import http.client
import tempfile
import time
from pathlib import Path

from bench import report
from tests.support import people, projects
from tests.support.flood import flooding
from tests.support.nodes import Node, free_port

CONNECTIONS = 64
PHASES, PHASES_QUICK = 6, 3
REQUESTS = 300
PAUSE_SECONDS = 0.002
"""Between two requests of the quiet route: one that is asked without a pause is no quiet one."""

SLOW = """
import time

def handler(event, context):
    time.sleep(0.05)
    return "slow"
"""
FLOODED = {
    "concurrency": {"concurrency": 4},
    "throttle": {"throttle": {"rate": 10, "burst": 10}},
    "waiting": {},
    "unlimited": {"function": "hello"},
}


def latencies(client: http.client.HTTPConnection) -> list[float]:
    """Milliseconds of each request to the quiet route."""
    found = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        client.request("GET", "/quiet/you")
        answer = client.getresponse()
        answer.read()
        found.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise SystemExit(f"the quiet route answered {answer.status}")
        time.sleep(PAUSE_SECONDS)
    return found


def main() -> None:
    phases = PHASES_QUICK if report.quick() else PHASES
    with tempfile.TemporaryDirectory() as scratch:
        folder, port = Path(scratch), free_port()
        alice = people.make(folder, "alice")
        node = Node(folder / "node", alice)
        routes = {f"GET /{name}": {"function": "slow", **fields} for name, fields in FLOODED.items()}
        files = {
            "nodes/a.json": node.init(),
            "functions/hello/function.json": projects.function(),
            "functions/hello/app.py": projects.HELLO,
            "functions/slow/function.json": projects.function(maxConcurrency=4, timeout=60),
            "functions/slow/app.py": SLOW,
            "gateways/api.json": {"port": port, "routes": {"GET /quiet/{name}": {"function": "hello"}, **routes}},
        }
        project = projects.create(folder / "shop", alice, files=files)
        node.start()
        try:
            project.git("push", "-q", node.url(), "HEAD:main")
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            latencies(client)
            for name in FLOODED:
                quiet, flooded = [], []
                for _ in range(phases):
                    quiet.append(report.median(latencies(client)))
                    with flooding(port, f"/{name}", CONNECTIONS):
                        flooded.append(report.median(latencies(client)))
                report.line(f"flood_latency_vs_quiet_{name}", report.median(flooded), "ms", report.median(quiet))
        finally:
            node.stop()


if __name__ == "__main__":
    main()
