"""Pushes that several nodes decide, over the same push to a bare repository behind the same SSH server; catching up."""

import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import report
from bench.push import VERSION_FUNCTION, Bare, paired, push
from tests.support import network, people, projects
from tests.support.clusters import NAMES, on_loopback
from tests.support.network import Network
from tests.support.nodes import Node, free_port
from tests.support.projects import Project

COUNTS = (1, 3, 5, 7)


ROUND_TRIP_S = 0.05


def measured(count: int, rounds: int, net: Network | None = None) -> None:
    """The lines for `count` nodes on loopback, or in the namespaces of `net`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        alice = people.make(folder, "alice")
        http = free_port()
        nodes = list(on_loopback(folder, alice, count).values())
        for node in nodes if net is not None else ():
            node.address, node.prefix = net.addresses[node.name], net.prefix(node.name)
        files = {f"nodes/{node.name}.json": node.init() for node in nodes}
        files |= {
            "functions/f/function.json": projects.function(),
            "functions/f/app.py": VERSION_FUNCTION.format(0),
            "gateways/g.json": {"port": http, "routes": {"GET /": {"function": "f"}}},
        }
        project = projects.create(folder / "shop", alice, files=files)
        bare = Bare(folder, nodes[0].home / "key")
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, nodes))
        try:
            push(project, nodes[0].url(), "-o", "acks=all")
            push(project, bare.url)
            if net is not None:
                net.delay_s = ROUND_TRIP_S / 2
            suffix = "_50_ms_apart" if net is not None else ""
            decided(project, nodes, bare, rounds, suffix)
            if count == 3 and net is None:
                served(project, nodes, bare, [f"http://{node.address}:{http}/" for node in nodes], rounds)
        finally:
            with ThreadPoolExecutor() as pool:
                list(pool.map(Node.stop, nodes))
            bare.stop()


def decided(project: Project, nodes: list[Node], bare: Bare, rounds: int, suffix: str) -> None:
    """A file that nothing is made of: the push ends when the nodes have decided."""

    def change(number: int) -> None:
        project.write("README.md", f"round {number}\n")

    ours, theirs = paired(project, change, lambda _: push(project, nodes[0].url(), "-o", "no-wait"), bare, rounds)
    report.line(f"push_decided_{len(nodes)}_nodes{suffix}", ours, "s", theirs)


def served(project: Project, nodes: list[Node], bare: Bare, urls: list[str], rounds: int) -> None:
    def change(number: int) -> None:
        project.write("functions/f/app.py", VERSION_FUNCTION.format(number + 1))

    def until_served(number: int) -> float:
        began = time.perf_counter()
        push(project, nodes[0].url(), "-o", "acks=all")
        for url in urls:
            while urllib.request.urlopen(url).read() != f"version {number + 1}".encode():
                time.sleep(0.001)
        return time.perf_counter() - began

    ours, theirs = paired(project, change, until_served, bare, rounds)
    report.line(f"push_served_on_all_{len(nodes)}_nodes", ours, "s", theirs)


def main() -> None:
    quick = "--quick" in sys.argv
    for count in COUNTS:
        measured(count, 3 if quick else 15)
    if network.possible():
        net = Network(NAMES[:3])
        try:
            measured(3, 3 if quick else 15, net)
        finally:
            net.close()


if __name__ == "__main__":
    main()
