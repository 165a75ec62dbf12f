"""What one function can reach of another that runs beside it, tried from inside by hostile ones of every runtime."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Function, Lab

Make = Callable[..., Function]
PASSWORD = "correct-horse-battery-staple"
"""In the victim's environment, its files, its memory and its code, and nowhere else."""

PATTERN = PASSWORD.replace("-", "[-]")
"""Finds it, and is not found by itself."""

VICTIM = f"""
import os, socket, sys, ctypes, threading
KEPT = [os.environ["PASSWORD"] * 3, "{PASSWORD}"]
open("/tmp/note", "w").write(KEPT[0])
server = socket.socket(socket.AF_UNIX); server.bind("\\0victim"); server.listen()
local = socket.socket(socket.AF_UNIX); local.bind("/tmp/socket"); local.listen()
shm = ctypes.CDLL(None, use_errno=True).shmget(4242, 4096, 0o1666)
def handler(event, context):
    return {{"pid": os.getpid(), "pids": [p for p in os.listdir("/proc") if p.isdigit()], "shm": shm,
            "note": open("/tmp/note").read() == KEPT[0]}}
"""

PYTHON = """
import ctypes, os, re, socket
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action):
    try:
        return action()
    except BaseException as error:
        return f"refused: {type(error).__name__}"
def search_memory(wanted):
    found = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match and "[v" not in line:
                start, end = (int(each, 16) for each in match.groups())
                try:
                    memory.seek(start)
                    found += len(wanted.findall(memory.read(end - start)))
                except (OSError, ValueError, OverflowError):
                    pass
    return found
def search_files(wanted):
    found = []
    for root, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(root, name) not in ("/usr", "/sys", "/proc/self", "/proc/thread-self")
                      and not re.fullmatch("/proc/[0-9]+/(task|cwd|root|fd|map_files|net)", os.path.join(root, name))]
        if root.startswith(("/usr", "/lib", "/root", "/var/runtime", "/dev")):
            continue
        for name in files:
            try:
                with open(os.path.join(root, name), "rb") as file:
                    if wanted.search(file.read(1 << 20)):
                        found.append(os.path.join(root, name))
            except (OSError, ValueError):
                pass
    return found
def connect(address):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(address)
    return "connected"
def kill_all():
    killed = []
    for pid in range(1, 400):
        if pid != os.getpid():
            try:
                os.kill(pid, 9)
                killed.append(pid)
            except ProcessLookupError:
                pass
    return killed
def handler(event, context):
    wanted = re.compile(event["wanted"].encode())
    return {
        "memory": attempt("memory", lambda: search_memory(wanted)),
        "files": attempt("files", lambda: search_files(wanted)),
        "abstract": attempt("abstract", lambda: connect("\\0victim")),
        "socket": attempt("socket", lambda: connect("/tmp/socket")),
        "note": attempt("note", lambda: open("/tmp/note").read()),
        "shm": libc.shmget(4242, 4096, 0),
        "pids": [name for name in os.listdir("/proc") if name.isdigit()],
        "environ": [attempt(pid, lambda: bool(wanted.search(open(f"/proc/{pid}/environ", "rb").read()))) for pid in os.listdir("/proc") if pid.isdigit()],
        "killed": kill_all(),
    }
"""

NODE = """
const fs = require('fs'), net = require('net'), child = require('child_process');
const attempt = (f) => { try { return f(); } catch (e) { return 'refused: ' + e.code; } };
const connect = (path) => new Promise((done) => {
  const s = net.connect(path, () => { s.destroy(); done('connected'); }); s.on('error', (e) => done('refused: ' + e.code)); });
exports.handler = async (event) => {
  const wanted = { in: (data) => new RegExp(event.wanted).test(data.toString('latin1')) };
  const pids = fs.readdirSync('/proc').filter((n) => /^[0-9]+$/.test(n));
  return {
    memory: 0,
    files: ['/proc/1/environ', '/proc/1/maps', '/proc/1/mem', '/run/secrets', '/var/task', '/tmp/note', '/run/root'].filter((p) =>
      attempt(() => wanted.in(fs.readFileSync(p))) === true),
    abstract: await connect('\\0victim'),
    socket: await connect('/tmp/socket'),
    note: attempt(() => fs.readFileSync('/tmp/note', 'utf8')),
    shm: -1,
    pids,
    environ: pids.map((pid) => attempt(() => wanted.in(fs.readFileSync(`/proc/${pid}/environ`)))),
    killed: pids.filter((pid) => pid !== String(process.pid) && pid !== '1' && attempt(() => process.kill(Number(pid), 9)) === true),
  };
};
"""


SHELL = """#!/bin/bash
API=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
looked() { grep -laE "$1" /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/maps /tmp/* /run/secrets/* /var/task/* 2>/dev/null | grep -v bootstrap; }
while curl -sS -D /tmp/.headers -o /tmp/.event "$API/next"; do
  id=$(grep -i aws-request-id /tmp/.headers | tr -d '\\r' | cut -d' ' -f2)
  wanted=$(sed 's/.*"wanted": *"//; s/".*//' /tmp/.event)
  found=$(looked "$wanted" | tr '\\n' ' ')
  pids=$(echo /proc/[0-9]* | wc -w)
  listening=$(wc -l < /proc/net/unix)
  killed=0
  for pid in $(seq 1 300); do [ $pid != $$ ] && kill -9 $pid 2>/dev/null && killed=$((killed + 1)); done
  curl -sS -o /dev/null -d "{\\"found\\": \\"$found\\", \\"pids\\": $pids, \\"sockets\\": $listening, \\"tmp\\": \\"$(ls /tmp)\\"}" "$API/$id/response"
done
"""


@pytest.fixture(scope="module")
def victim(lab: Lab) -> Function:
    made = lab.function(VICTIM, PASSWORD=PASSWORD)
    made()
    return made


@pytest.mark.parametrize("runtime", ["python", "nodejs"])
def test_nothing_of_another_function_is_in_reach(lab: Lab, victim: Function, runtime: str) -> None:
    before = victim()
    code, file = (PYTHON, "app.py") if runtime == "python" else (NODE, "app.js")
    attacker = lab.function(code, runtime=runtime, file=file, timeout=30.0, memory_size=512)
    found = attacker({"wanted": PATTERN})
    assert found["memory"] == 0 and found["files"] == []
    assert found["abstract"].startswith("refused") and found["socket"].startswith("refused")
    assert found["note"].startswith("refused") and found["shm"] == -1
    assert len(found["pids"]) <= 3 and True not in found["environ"]
    after = victim()
    assert after == before, "the victim's process lives on, with what it had"


def test_the_search_would_find_what_is_there(lab: Lab) -> None:
    own = lab.function(PYTHON, timeout=30.0, memory_size=512, PASSWORD=PASSWORD)
    assert own({"wanted": PATTERN})["memory"] > 0


def test_two_workers_of_one_function_share_nothing_but_the_code(lab: Lab) -> None:
    function = lab.function(
        "import os, time\n"
        "def handler(event, context):\n"
        "    had = os.listdir('/tmp'); open('/tmp/' + context.aws_request_id, 'w'); time.sleep(0.3); return had\n",
        workers=2,
    )
    answers = function.run(1, 2)
    assert [json.loads(each.payload) for each in answers] == [[], []]


def test_the_nodes_home_and_the_machines_files_are_not_there(lab: Lab) -> None:
    looker = lab.function("import os\ndef handler(event, context): return [os.path.exists(path) for path in event]")
    paths: list[Any] = [
        str(lab.folder),
        str(Path.home()),
        "/host",
        "/run/root",
        "/root/.ssh",
        "/work",
        "/etc/shadow",
        "/sys",
    ]
    found = looker(paths)
    own_home = "/root" in os.path.realpath(os.__file__)  # an interpreter below it is mounted, and its parents are there
    assert not any(each for path, each in zip(paths, found, strict=True) if not (own_home and path == str(Path.home())))


def test_a_native_program_finds_nothing_of_another_function(lab: Lab, victim: Function) -> None:
    before = victim()
    attacker = lab.function(SHELL, runtime="provided", file="bootstrap", handler="x", timeout=20.0)
    found = attacker({"wanted": PATTERN})
    assert found["found"] == "" and found["tmp"] == ""
    assert found["pids"] <= 8, "its own processes"
    assert found["sockets"] <= 3, "the victim's sockets are in another network"
    assert victim() == before
