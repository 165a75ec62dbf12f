"""What a function cannot reach, tried from inside."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.conftest import Function

Make = Callable[..., Function]

TRY = """
import ctypes, os, socket, subprocess
def attempt(action):
    try:
        return repr(action())
    except BaseException as error:
        return f"refused: {type(error).__name__}"
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno())
def handler(event, context):
    return attempt(lambda: eval(event))
"""


@pytest.fixture(scope="module")
def inside(lab) -> Function:  # type: ignore[no-untyped-def]
    made: Function = lab.function(TRY)
    return made


@pytest.mark.parametrize(
    "expression",
    [
        "open('/etc/shadow').read()",
        "open('/etc/passwd').read().index('daemon')",
        "os.listdir('/home')",
        "os.listdir('/work')",
        "os.listdir('/sys/fs/cgroup')",
        "open('/var/task/app.py', 'w')",
        "open('/var/task/new.py', 'w')",
        "open('/new', 'w')",
        "open('/usr/new', 'w')",
        "os.chmod('/var/task/app.py', 0o777)",
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/proc/sys/vm/drop_caches', 'w')",
        "open('/proc/sysrq-trigger', 'w')",
        "open('/proc/irq/default_smp_affinity', 'w')",
        "[1/len(open('/proc/kmsg', 'rb').read(1))]",
        "[1/len(open('/proc/keys', 'rb').read())]",
        "[1/len(open('/proc/slabinfo', 'rb').read())]",
        "[1/len(open('/proc/kpageflags', 'rb').read(8))]",
        "os.mkdir('/dev/new')",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "socket.create_connection(('1.1.1.1', 53), 1)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)",
        "socket.socket(0, socket.SOCK_STREAM)",
        "syscall(41, ctypes.c_ulong((1 << 32) + socket.AF_VSOCK), 1, 0)",
        "os.setuid(0)",
        "os.chroot('/tmp')",
        "os.unshare(0x10000000) if hasattr(os, 'unshare') else syscall(272, 0x10000000)",
        "syscall(165, b'tmpfs', b'/tmp', b'tmpfs', 0, 0)",
        "syscall(101, 0, 0, 0, 0)",
        "syscall(425, 8, 0)",
        "syscall(321, 0, 0, 0)",
        "syscall(250, 0, 0, 0, 0, 0)",
        "syscall(310, os.getppid(), 0, 0, 0, 0, 0)",
        "subprocess.run(['mount', '-t', 'tmpfs', 'x', '/tmp'], check=True)",
        "subprocess.run(['unshare', '-r', 'true'], check=True)",
        "os.kill(os.getppid(), 0) if os.getppid() != 0 and os.getppid() != 1 else 1/0",
        "open('/dev/mem', 'rb')",
        "open('/dev/sda', 'rb')",
    ],
)
def test_it_is_refused(inside: Function, expression: str) -> None:
    assert inside(expression).startswith("refused: ")


def test_only_its_own_processes_are_there(inside: Function) -> None:
    pids = eval(inside("[name for name in os.listdir('/proc') if name.isdigit()]"))
    assert len(pids) <= 3 and str(os.getpid()) not in pids


def test_tmp_is_its_own_and_writable(function: Make, inside: Function, tmp_path: Path) -> None:
    writer = function(
        "import os\ndef handler(event, context): open('/tmp/x', 'w').write('x'); return os.listdir('/tmp')"
    )
    assert writer() == ["x"]
    assert eval(inside("os.listdir('/tmp')")) == []
    assert not Path("/tmp/x").exists()


def test_tmp_has_a_limit(function: Make) -> None:
    full = function(
        "def handler(event, context):\n    with open('/tmp/x', 'wb') as f:\n        for _ in range(700): f.write(bytes(1 << 20))",
        memory_size=2048, timeout=20.0,
    )  # fmt: skip
    assert full.error()["errorType"] in ("OSError", "Runtime.OutOfMemory")


def test_it_has_no_capabilities_and_may_gain_none(inside: Function) -> None:
    status = eval(inside("open('/proc/self/status').read()"))
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == int(lines["CapBnd"], 16) == 0
    assert lines["NoNewPrivs"] == "1" and lines["Seccomp"] == "2"
    assert lines["Uid"].split()[0] == "993"


def test_the_hosts_environment_is_not_there(inside: Function) -> None:
    environment = eval(inside("dict(os.environ)"))
    assert not {"SSH_AUTH_SOCK", "PYTEST_CURRENT_TEST", "USER"} & set(environment)


def test_nothing_that_workers_have_in_common_is_writable(inside: Function) -> None:
    mounts = eval(inside("[line.split()[4:6] for line in open('/proc/self/mountinfo')]"))
    writable = {place for place, options in mounts if "ro" not in options.split(",")}
    assert writable == {"/tmp", "/proc"} | {place for place in writable if place.startswith(("/dev/", "/proc/"))}
    assert inside("open('/var/runtime/orjson.py', 'w')").startswith("refused: ")
    assert all("nosuid" in options for _, options in mounts)


def test_what_the_kernel_counts_by_user_is_not_taken_from_the_node(function: Make) -> None:
    greedy = function(
        """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def handler(event, context):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 64))
    signals = instances = 0
    while signals < 5000 and libc.sigqueue(os.getpid(), 40, None) == 0:
        signals += 1
    while instances < 500 and libc.inotify_init() >= 0:
        instances += 1
    return signals, instances
"""
    )
    signals, instances = greedy()
    assert 100 < signals <= 1024 and 1 < instances <= 32
