"""Load by wrk from another process, and what it costs the processes that serve it."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import hatch_build

_TICKS = os.sysconf("SC_CLK_TCK")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw, and the CPU that it cost."""

    per_second: float
    p50_seconds: float
    failed: int
    cpu_seconds: float  # a request, over all processes of the server


def wrk(
    url: str, connections: int, seconds: int, server: int, headers: Mapping[str, str] | None = None, body: str = ""
) -> Load:
    """`server`: the process that serves `url`, counted with all below it. A `body` is posted, as JSON."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body:
            script.write(f"wrk.method = 'POST'\nwrk.body = [=[{body}]=]\n")
            script.flush()
            command += ["-H", "content-type: application/json", "-s", script.name]
        before = cpu_seconds(server)
        text = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    cost = cpu_seconds(server) - before
    count = int(_found(r"(\d+) requests in", text)[0])
    number, unit = _found(r"50%\s+([\d.]+)(us|ms|s)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(refused[1]) if refused else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    if failed:
        print(text, file=sys.stderr)
    per_second = float(_found(r"Requests/sec:\s+([\d.]+)", text)[0])
    return Load(per_second, float(number) * _SECONDS[unit], failed, cost / max(count, 1))


def compile_node() -> None:
    """Compile what every request passes, as `make setup` does, if that was not done: this is what users run."""
    hatch_build.main()


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something else than expected:\n{text}")
    return match.groups()


def cpu_seconds(root: int) -> float:
    """CPU time of a process, of all below it, and of those that ended there."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            used[int(folder.name)] = sum(map(int, fields[11:15]))
    return sum(ticks for pid, ticks in used.items() if _is_below(pid, root, parents)) / _TICKS


def _is_below(pid: int, root: int, parents: Mapping[int, int]) -> bool:
    while pid and pid != root:
        pid = parents.get(pid, 0)
    return pid == root


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Until something listens there. Raises SystemExit when the process ends instead."""
    listening = f":{port:04X}"
    until = time.monotonic() + 60
    while time.monotonic() < until:
        tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        if any(row[1].endswith(listening) and row[3] == "0A" for row in rows):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen on port {port}")
