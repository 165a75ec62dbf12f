"""What 10,000 idle connections cost a node: memory for each, and what they do to the latency of others.

The baselines: 200 MB for all of them, and the latencies of the same requests before anybody else was connected. Every
connection has had an answer already, which costs more than one that has said nothing.
"""

import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path

import httpx

from bench import report
from tests.support import people, projects
from tests.support.nodes import Node, free_port

COUNT, QUICK_COUNT = 10_000, 2_000
MEGABYTES_WANTED = 200
REQUESTS = 500
AT_ONCE = 100
REQUEST = b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n"


async def idle(port: int, count: int) -> list[asyncio.StreamWriter]:
    """That many connections, each answered once."""
    room = asyncio.Semaphore(AT_ONCE)

    async def connect() -> asyncio.StreamWriter:
        async with room:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            if not (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404"):
                raise RuntimeError("the gateway did not answer as expected")
            return writer

    return await asyncio.gather(*(connect() for _ in range(count)))


def megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def latencies(port: int) -> list[float]:
    """Milliseconds of requests through to a function, the quickest first."""
    found = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get("/hello/you").raise_for_status()
        for _ in range(REQUESTS):
            began = time.perf_counter()
            client.get("/hello/you").raise_for_status()
            found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = QUICK_COUNT if report.quick() else COUNT
    if most < count + 500:
        raise SystemExit(f"{count} connections need a higher limit of open files than {most}: ulimit -Hn")
    with tempfile.TemporaryDirectory() as scratch:
        folder, port = Path(scratch), free_port()
        alice = people.make(folder, "alice")
        node = Node(folder / "node", alice)
        files = {
            "nodes/a.json": node.init(),
            "functions/hello/function.json": projects.function(),
            "functions/hello/app.py": projects.HELLO,
            "gateways/api.json": {
                "port": port,
                "limits": {"connections": COUNT + 100},
                "routes": {"GET /hello/{name}": {"function": "hello"}},
            },
        }
        project = projects.create(folder / "shop", alice, files=files)
        node.start()
        try:
            project.git("push", "-q", node.url(), "HEAD:main")
            assert node.process is not None
            before = latencies(port)
            memory = megabytes(node.process.pid)
            loop = asyncio.new_event_loop()
            kept = loop.run_until_complete(idle(port, count))
            used = megabytes(node.process.pid) - memory
            during = latencies(port)
            for each in kept:
                each.close()
        finally:
            node.stop()
    report.line(f"memory_of_{count}_idle_connections", used, "MB", MEGABYTES_WANTED * count / COUNT)
    report.line("memory_of_an_idle_connection", used * 1000 / count, "kB", MEGABYTES_WANTED * 1000 / COUNT)
    report.line("median_latency_beside_idle_connections", during[REQUESTS // 2], "ms", before[REQUESTS // 2])
    report.line("worst_latency_beside_idle_connections", during[-1], "ms", before[-1])


if __name__ == "__main__":
    main()
