"""The default sandbox: bubblewrap, seccomp and control groups.

bubblewrap makes one outer sandbox for each interpreter, in which a fork server (zygote.py) makes a sandbox for every
worker. Inside of that there are the interpreter and the system's libraries (read-only), the code (read-only), a private
/tmp, and nothing else: no host files, no network but what is asked for, no other processes, no capabilities, no way to
gain any.
"""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import orjson

from owsgit.model.errors import UnavailableError
from owsgit.runtime import egress, internet, interpreters, sdk, seccomp
from owsgit.runtime.cgroup import Hierarchy
from owsgit.runtime.egress import Egress
from owsgit.runtime.forkserver import ForkedSandbox, ForkServer, Layout
from owsgit.runtime.interpreters import Interpreter
from owsgit.runtime.rlimits import Rlimits
from owsgit.runtime.sandbox import Command

UID, GID = 993, 990
"""What Lambda's sandbox shows a function as its user."""

HOST = "/host"  # where the outer sandbox has the machine's files
LIBRARIES = ("bin", "sbin", "lib", "lib64", "lib32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs", "/etc/alternatives")
FIRST_PASSED_FD = 3
PROBE_SECONDS_MAX = 20
LOOPBACK = "127.0.0.1"
RUNTIME = "/var/runtime"
SCRIPTS = ("zygote.py", "kernel.py", "python_worker.py", "node_worker.cjs")


class Bubblewrap:
    """The default sandbox."""

    contained = True

    def __init__(self, name: str, writable: Sequence[Path] = ()) -> None:
        """`name` tells the control groups of nodes on one machine apart; below the folders `writable`, commands may be
        given folders to write to. Raises UnavailableError."""
        self._bwrap = probe()
        self._writable = tuple(writable)
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
        self._servers: dict[tuple[Interpreter, bool], ForkServer] = {}
        self._starting = asyncio.Lock()
        self._closed = False

    def numbers(self, pass_fds: Sequence[int]) -> list[int]:
        return list(range(FIRST_PASSED_FD, FIRST_PASSED_FD + len(pass_fds)))

    async def start(self, command: Command) -> ForkedSandbox:
        """Start `command` in a sandbox and a control group of its own. Raises UnavailableError."""
        interpreter = command.interpreter or interpreters.find("python")
        hosts, addresses, names = egress.inside(command.network)
        listen = [(LOOPBACK, port) for port in command.listen] + hosts
        texts = {"/etc/hosts": names}
        if command.network.internet:
            texts["/etc/resolv.conf"] = f"nameserver {internet.RESOLVER}\n"
        layout = Layout(listen, addresses, texts, command.network.internet)
        running = await self._spawn(interpreter, command, layout)
        try:
            await self._open_network(running, command)
        except BaseException:
            await running.abandon()
            raise
        return running

    async def _spawn(self, interpreter: Interpreter, command: Command, layout: Layout) -> ForkedSandbox:
        """By another fork server, if the first one ends meanwhile."""
        server = await self._server(interpreter, command.sdk)
        try:
            return await server.spawn(command, layout, self.numbers(command.pass_fds))
        except UnavailableError:
            if self._closed or not await server.ends():
                raise
        server = await self._server(interpreter, command.sdk)
        return await server.spawn(command, layout, self.numbers(command.pass_fds))

    async def _open_network(self, running: ForkedSandbox, command: Command) -> None:
        """Pass on what the worker connects to, and keep what the caller listens on."""
        count = len(command.listen)
        if running.listeners[count:]:
            running.egress = Egress(command.network)
            await running.egress.open(running.listeners[count:])
            del running.listeners[count:]

    async def _server(self, interpreter: Interpreter, with_sdk: bool) -> ForkServer:
        server = self._servers.get((interpreter, with_sdk))
        if server is None or not server.alive:
            async with self._starting:
                server = self._servers.get((interpreter, with_sdk))
                if server is None or not server.alive:
                    if server is not None:
                        await server.close()
                    server = self._servers[interpreter, with_sdk] = await self._start_server(interpreter, with_sdk)
        return server

    async def _start_server(self, interpreter: Interpreter, with_sdk: bool) -> ForkServer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        filter_read, filter_write = os.pipe()
        os.write(filter_write, self._filter)
        os.close(filter_write)
        program = [str(interpreter.program), "-I", "-S", "-B", "-X", "utf8", f"{RUNTIME}/zygote.py"]
        fds = [theirs.detach(), filter_read]
        links = {name: str(Path("/", name).readlink()) for name in LIBRARIES if Path("/", name).is_symlink()}
        folders = [f"/{name}" for name in LIBRARIES if name not in links and Path("/", name).is_dir()]
        files = [path for path in SYSTEM_FILES if Path(path).exists()]
        setup = {
            "host": HOST, "links": links, "system": ["/usr", *folders, *files], "texts": TEXTS,
            "packages": sdk.IMPORTED if with_sdk else (), "sdk": sdk.modules() if with_sdk else [],
        }  # fmt: skip
        arguments = [*self._arguments(interpreter), "--", *program, *map(str, fds)]
        return await ForkServer.start(arguments, fds, ours, setup, self._groups.create)

    def _arguments(self, interpreter: Interpreter) -> list[str]:
        """bubblewrap's options for the outer sandbox, of a fork server."""
        options = [
            "--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv",
            "--cap-add", "ALL", "--uid", str(UID), "--gid", str(GID), "--hostname", "sandbox",
            "--ro-bind", "/", HOST, "--ro-bind", "/usr", "/usr", "--dev", "/dev", "--dir", "/run/root",
            "--bind", "/proc", "/proc",  # whole: where a part is covered, the kernel lets nobody mount another
        ]  # fmt: skip
        for folder in self._writable:
            options += ["--bind", str(folder), f"{HOST}{folder}"]
        for name in LIBRARIES:
            link = Path("/", name)
            if link.is_symlink():
                options += ["--symlink", str(link.readlink()), str(link)]
            elif link.is_dir():
                options += ["--ro-bind", str(link), str(link)]
        for path in (*SYSTEM_FILES, *map(str, interpreter.folders)):
            options += ["--ro-bind-try", path, path]
        options += ["--tmpfs", RUNTIME]
        scripts = {name: Path(__file__).with_name(name) for name in SCRIPTS}
        options += ["--ro-bind", str(Path(orjson.__file__).parent), "/var/json/orjson"]
        for name, source in {**scripts, **sdk.entries()}.items():
            options += ["--ro-bind", str(source), f"{RUNTIME}/{name}"]
        options += ["--remount-ro", RUNTIME]  # every worker has this very folder, and imports from it
        return [self._bwrap, *options]

    async def close(self) -> None:
        self._closed = True
        for server in self._servers.values():
            await server.close()
        await asyncio.to_thread(self._groups.remove)


TEXTS = {
    "/etc/passwd": f"root:x:0:0::/root:/sbin/nologin\nsbx_user:x:{UID}:{GID}::/tmp:/sbin/nologin\n",
    "/etc/group": f"root:x:0:\nsbx_user:x:{GID}:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def probe() -> str:
    """The path of a bubblewrap that works on this machine. Raises UnavailableError with what fails and the remedy."""
    bwrap = shutil.which("bwrap")
    none = "or, to run functions without any containment: owsgit node init --sandbox none"
    if bwrap is None:
        raise UnavailableError("bubblewrap (bwrap) is not installed", remedy=f"apt-get install bubblewrap, {none}")
    outer = ["--unshare-user", "--unshare-all", "--disable-userns", "--cap-add", "ALL", "--ro-bind", "/", "/"]
    nested = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "proc", "proc", "/dev/shm"]  # noqa: S108
    try:
        tried = subprocess.run(
            [bwrap, *outer, "--bind", "/proc", "/proc", "--dev", "/dev", "--", *nested],
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
            remedy="allow unprivileged user namespaces (on Ubuntu 24.04: an AppArmor profile for bwrap; in a "
            f"container: --security-opt seccomp=unconfined --security-opt systempaths=unconfined), {none}",
        )
    return bwrap
