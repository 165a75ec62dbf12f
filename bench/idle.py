"""What a node costs that has nothing to do: CPU and memory with 0, 1, 20 and 100 neighbours.

The baselines: one percent of a core, and the memory of a node without neighbours.

The neighbours are SSH servers in another process which answer every request, as nodes that have nothing to say do.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncssh

from bench import report
from owsgit.peers import wire
from owsgit.peers.wire import Frame
from tests.support import people, projects
from tests.support.nodes import Node, free_port

COUNTS = (0, 1, 20, 100)


class _Anyone(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


async def _answer(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    while (frame := await wire.read(process.stdin)) is not None:
        process.stdout.write(Frame({"id": frame.head["id"]}).encode())


async def neighbours(folder: Path, port: int, count: int) -> None:
    for number in range(count):
        await asyncssh.listen(
            _address(number), port, server_host_keys=[str(folder / f"key{number}")], server_factory=_Anyone,
            process_factory=_answer, encoding=None,
        )  # fmt: skip
    print("ready", flush=True)
    await asyncio.Event().wait()


def _address(number: int) -> str:
    return f"127.0.1.{number + 1}"


def measured(count: int, seconds: float, alone: tuple[float, float] | None) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        alice = people.make(folder, "alice")
        node = Node(folder / "node", alice)
        port = free_port()
        files: dict[str, Any] = {"nodes/a.json": node.init()}
        for number in range(count):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(folder / f"key{number}"))
            line = key.export_public_key().decode().strip()
            files[f"nodes/n{number}.json"] = {"key": line, "address": _address(number), "ports": {"ssh": port}}
        project = projects.create(folder / "shop", alice, files=files)
        others = subprocess.Popen(
            [sys.executable, "-m", "bench.idle", "neighbours", str(folder), str(port), str(count)],
            stdout=subprocess.PIPE,
        )
        assert others.stdout is not None and others.stdout.readline() == b"ready\n"
        node.start()
        try:
            project.git("push", "-q", node.url(), "HEAD:main")
            time.sleep(5 + count / 10)  # until it knows all of them
            cpu, memory = used(node, seconds)
        finally:
            node.stop()
            others.kill()
            others.wait()
    base = alone or (cpu, memory)
    report.line(f"idle_cpu_with_{count}_neighbours", cpu, "% of a core", 1.0)
    report.line(f"idle_memory_with_{count}_neighbours", memory, "MiB", base[1], digits=1)
    return base


def used(node: Node, seconds: float) -> tuple[float, float]:
    """CPU in percent of a core, and resident memory in MiB."""
    assert node.process is not None
    proc = Path(f"/proc/{node.process.pid}")

    def ticks() -> int:
        fields = (proc / "stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before, began = ticks(), time.monotonic()
    time.sleep(seconds)
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    memory = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return share * 100, int(memory.split()[1]) / 1024


def main() -> None:
    alone = None
    for count in COUNTS:
        alone = measured(count, 3 if report.quick() else 30, alone)


if __name__ == "__main__":
    if sys.argv[1:2] == ["neighbours"]:
        asyncio.run(neighbours(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    else:
        main()
