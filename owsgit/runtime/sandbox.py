"""Runs a command where it can harm nothing but itself: bubblewrap, seccomp and a control group.

Inside there are the interpreter and the system's libraries (read-only), the code (read-only), a private /tmp, and
nothing else: no host files, no network, no other processes, no capabilities, no way to gain any.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from owsgit.model.errors import UnavailableError
from owsgit.runtime import seccomp
from owsgit.runtime.cgroup import Group, Hierarchy, Limits
from owsgit.runtime.config import NO_NETWORK, Network
from owsgit.runtime.rlimits import RlimitGroup, Rlimits

TMP_BYTES_MAX = 512 * 1024 * 1024
"""Lambda's default for /tmp."""

UID, GID = 993, 990
"""What Lambda's sandbox shows a function as its user."""

PROBE_SECONDS_MAX = 20
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_HIDDEN = ("acpi", "asound", "kcore", "keys", "kmsg", "latency_stats", "scsi", "timer_list")
"""Parts of /proc that speak of the whole machine, as Docker masks them. Where a node runs as root, the user of its
functions is root outside (without any capability), and the kernel lets root's user write some of these."""

SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs", "/etc/alternatives")


@dataclass(frozen=True)
class Command:
    """What to run: `read_only` and `writable` map paths inside to host paths; `pass_fds` stay open.

    Environment and files never stand on a command line, where every user of the machine could read them.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    read_only: Mapping[str, Path]
    limits: Limits
    pass_fds: Sequence[int] = ()
    output_fd: int = subprocess.DEVNULL
    writable: Mapping[str, Path] = field(default_factory=dict)
    tmp_bytes: int = TMP_BYTES_MAX
    network: Network = NO_NETWORK
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # by path inside; never on the host's disk


@dataclass
class Running:
    """A started command."""

    process: asyncio.subprocess.Process
    group: Group | RlimitGroup | None = None
    _gone: bool = field(default=False, repr=False)

    def kill(self) -> None:
        """End it and everything it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            if self.group is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    async def gone(self) -> int:
        """Wait until it has ended; its exit status, negative for a signal."""
        status = await self.process.wait()
        if self.group is not None and not self._gone:
            self._gone = True
            await asyncio.get_running_loop().run_in_executor(None, self.group.remove)
        return 128 - status if self.group is not None and status > 128 else status  # as bubblewrap passes signals on


class Sandbox(Protocol):
    """A way to run a command."""

    contained: bool
    note: str  # what a user should know of it, if anything

    async def start(self, name: str, command: Command) -> Running: ...

    def close(self) -> None: ...


class Bubblewrap:
    """The default sandbox."""

    contained = True

    def __init__(self, name: str) -> None:
        """`name` tells the control groups of nodes on one machine apart. Raises UnavailableError."""
        self._bwrap = probe()
        self.note = ""
        self._groups: Hierarchy | Rlimits
        try:
            self._groups = Hierarchy.open(name)
        except UnavailableError:
            if os.geteuid() == 0:
                raise  # root is not limited by resource limits
            self._groups = Rlimits()
            self.note = "memory is limited for each process alone, as this node may not make control groups"
        with seccomp.filter_file() as file:
            self._filter = file.read()

    async def start(self, name: str, command: Command) -> Running:
        """Start `command` in a sandbox and a control group of its own. Raises UnavailableError."""
        group = self._groups.create(name, command.limits)
        filter_read, filter_write = os.pipe()
        info_read, info_write = os.pipe()
        block_read, block_write = os.pipe()
        contents = {path: _in_memory(content) for path, content in command.files.items()}
        private = _in_memory(b"".join(_private(command.environment, contents)))
        try:
            os.write(filter_write, self._filter)
            os.close(filter_write)
            fds = {"--seccomp": filter_read, "--info-fd": info_write, "--block-fd": block_read, "--args": private}
            process = await asyncio.create_subprocess_exec(
                *self._arguments(command, fds),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=command.output_fd,
                stderr=command.output_fd,
                pass_fds=[*command.pass_fds, *fds.values(), *contents.values()],
            )
            os.close(info_write)
            info_write = -1
            try:
                group.add(await _child_pid(info_read))
            except (OSError, ValueError):
                process.kill()
                status = await process.wait()
                raise UnavailableError(f"bubblewrap failed to start the sandbox (exit status {status})") from None
            os.write(block_write, b"go")
            return Running(process, group)
        except BaseException:
            group.remove()
            raise
        finally:
            for fd in (filter_read, info_read, info_write, block_read, block_write, private, *contents.values()):
                if fd >= 0:
                    os.close(fd)

    def _arguments(self, command: Command, fds: Mapping[str, int]) -> list[str]:
        options = [
            "--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv",
            "--cap-drop", "ALL", "--uid", str(UID), "--gid", str(GID), "--hostname", "sandbox",
            "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev",
            "--size", str(command.tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp",  # noqa: S108 - the sandbox's own
        ]  # fmt: skip
        for link in ("/bin", "/sbin", "/lib", "/lib64", "/lib32"):
            if Path(link).is_symlink():
                options += ["--symlink", str(Path(link).readlink()), link]
            elif Path(link).is_dir():
                options += ["--ro-bind", link, link]
        for name in PROC_READ_ONLY:
            options += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
        for name in PROC_HIDDEN:
            if Path(f"/proc/{name}").is_dir():
                options += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
            elif Path(f"/proc/{name}").exists():
                options += ["--ro-bind", "/dev/null", f"/proc/{name}"]
        for path in SYSTEM_FILES:
            options += ["--ro-bind-try", path, path]
        for inside, outside in command.read_only.items():
            options += ["--ro-bind", str(outside), inside]
        for inside, outside in command.writable.items():
            options += ["--bind", str(outside), inside]
        for option, fd in fds.items():
            options += [option, str(fd)]
        return [self._bwrap, *options, "--remount-ro", "/", "--chdir", command.folder, "--", *command.arguments]

    def close(self) -> None:
        self._groups.remove()


def _in_memory(content: bytes) -> int:
    """A file that is nowhere on the disk, ready to be read; its descriptor."""
    fd = os.memfd_create("owsgit", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _private(environment: Mapping[str, str], contents: Mapping[str, int]) -> Iterator[bytes]:
    """bubblewrap's options for what nobody else may see, each ended by NUL."""
    options: list[str] = []
    for name, value in environment.items():
        options += ["--setenv", name, value]
    for path, fd in contents.items():
        options += ["--perms", "0444", "--ro-bind-data", str(fd), path]
    for option in options:
        yield option.encode() + b"\0"


class Unconfined:
    """No sandbox at all: only for a node that was told so by name (`--sandbox none`)."""

    contained = False
    note = "NOT contained (--sandbox none)"

    async def start(self, name: str, command: Command) -> Running:
        if command.files:
            raise UnavailableError(
                "without a sandbox there is no place for a secret's file", remedy='use a variable: "asFile": false'
            )
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            env=dict(command.environment),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=command.output_fd,
            stderr=command.output_fd,
            pass_fds=list(command.pass_fds),
            start_new_session=True,
        )
        return Running(process)

    def close(self) -> None:
        pass


async def _child_pid(fd: int) -> int:
    """The process id that bubblewrap reports, as seen from here. Raises ValueError if it ends before."""
    loop = asyncio.get_running_loop()
    data = b""
    os.set_blocking(fd, False)
    while not data.rstrip().endswith(b"}"):
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(fd)
        piece = os.read(fd, 4096)
        if not piece:
            raise ValueError("bubblewrap ended")
        data += piece
    return int(json.loads(data)["child-pid"])


def probe() -> str:
    """The path of a bubblewrap that works on this machine. Raises UnavailableError with what fails and the remedy."""
    bwrap = shutil.which("bwrap")
    none = "or, to run functions without any containment: owsgit node init --sandbox none"
    if bwrap is None:
        raise UnavailableError("bubblewrap (bwrap) is not installed", remedy=f"apt-get install bubblewrap, {none}")
    try:
        tried = subprocess.run(
            [
                bwrap,
                "--unshare-user",
                "--unshare-all",
                "--disable-userns",
                "--ro-bind",
                "/",
                "/",
                "--proc",
                "/proc",
                "true",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError("bubblewrap does not answer", remedy=none) from None
    if tried.returncode != 0:
        raise UnavailableError(
            f"bubblewrap cannot make a sandbox here: {tried.stderr.strip()}",
            remedy="allow unprivileged user namespaces (on Ubuntu 24.04: an AppArmor profile for bwrap; "
            f"in a container: --security-opt seccomp=unconfined), {none}",
        )
    return bwrap
