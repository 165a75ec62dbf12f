"""The node's side of a fork server (zygote.py): asks it for workers, and watches over them."""

import array
import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass, field
from typing import Any

from owsgit.model.errors import UnavailableError
from owsgit.runtime.cgroup import Group
from owsgit.runtime.egress import Egress
from owsgit.runtime.rlimits import RlimitGroup
from owsgit.runtime.sandbox import Command
from owsgit.runtime.zygote import GO, HELLO

START_SECONDS_MAX = 30.0
"""For an interpreter with everything imported, on a busy machine."""

HELLO_SECONDS_MAX = 20.0
"""For the namespaces of one worker, on a busy machine."""

SEND_RETRY_SECONDS = 0.001
MESSAGE_BYTES_MAX = 4096
LISTENERS_MAX = 128
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Layout:
    """What a worker's network looks like from inside: `listen` are addresses and ports, `texts` files of /etc."""

    listen: list[tuple[str, int]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    internet: bool = False


class ForkedRunning:
    """A worker in a sandbox of its own."""

    def __init__(self, control: socket.socket, group: Group | RlimitGroup) -> None:
        self._group = group
        self.listeners: list[socket.socket] = []
        self.egress: Egress | None = None
        self.pid = 0
        self._control = control
        self._pidfd = -1
        self._status: int | None = None
        self._dead = asyncio.Event()
        self._removed: asyncio.Future[None] | None = None

    async def greet(self) -> None:
        """Wait for the init process. Raises UnavailableError."""
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                data, fds, pid = await _receive(self._control)
        except TimeoutError:
            raise UnavailableError("the sandbox does not start") from None
        self.listeners = [socket.socket(fileno=fd) for fd in fds]
        message = json.loads(data) if data else {"problem": "the fork server ended"}
        if problem := message.get("problem"):
            raise UnavailableError(f"the sandbox cannot be made: {problem}")
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, self._died)

    def go(self, private: int) -> None:
        """Let it run, now that it is in its group; `private` is the descriptor of its environment and files."""
        self._group.add(self.pid)
        self._control.sendmsg([GO], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [private]))])
        asyncio.get_running_loop().add_reader(self._control, self._told)

    def _told(self) -> None:
        """Called when the init process says how the worker ended, or closes."""
        with contextlib.suppress(OSError, ValueError):
            message = json.loads(self._control.recv(MESSAGE_BYTES_MAX) or b"{}")
            if self._status is None:
                self._status = int(message.get("status", KILLED))
                self.problem = str(message.get("problem", ""))
        asyncio.get_running_loop().remove_reader(self._control)

    def _died(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._told()
        if self._status is None:
            self._status = KILLED
        self._control.close()
        self._dead.set()

    @property
    def group(self) -> Group | RlimitGroup | None:
        return self._group

    @property
    def exited(self) -> bool:
        return self._status is not None

    def kill(self) -> None:
        """End its first process, and with it all of its processes."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def abandon(self) -> None:
        """Give up on one that has not started."""
        self.kill()
        if self._pidfd < 0:
            self._control.close()
        for each in self.listeners:
            each.close()

    async def ended(self) -> int:
        await self._dead.wait()
        assert self._status is not None
        return self._status

    async def gone(self) -> None:
        await self.ended()
        if self._removed is None:
            if self.egress is not None:
                self.egress.close()
            for each in self.listeners:
                each.close()
            loop = asyncio.get_running_loop()
            self._removed = asyncio.ensure_future(loop.run_in_executor(None, self._group.remove))
        await self._removed


class ForkServer:
    """A running fork server."""

    def __init__(self, process: subprocess.Popen[bytes], requests: socket.socket) -> None:
        self._process = process
        self._requests = requests

    @classmethod
    async def start(cls, arguments: list[str], pass_fds: list[int], ours: socket.socket) -> "ForkServer":
        """Start it with bubblewrap's `arguments`. Raises UnavailableError."""
        process = subprocess.Popen(  # noqa: ASYNC220 - its end is not waited for in the event loop
            arguments,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        ours.setblocking(False)
        server = cls(process, ours)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                hello = await asyncio.get_running_loop().sock_recv(ours, len(HELLO))
        except TimeoutError:
            hello = b""
        if hello != HELLO:
            process.kill()
            assert process.stderr is not None
            said = (await asyncio.to_thread(process.stderr.read)).decode("utf-8", "replace").strip()
            server.close()
            raise UnavailableError(f"the fork server of functions does not start: {said[-500:] or 'no reason given'}")
        return server

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def spawn(
        self, command: Command, group: Group | RlimitGroup, layout: Layout, sdk: list[str]
    ) -> ForkedRunning:
        """Start a worker. Raises UnavailableError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        running = ForkedRunning(ours, group)
        private = _private(command)
        try:
            with theirs:
                fds = [theirs.fileno(), command.output_fd, *command.pass_fds]
                await self._send(json.dumps(_request(command, layout, sdk)).encode(), fds)
            await running.greet()
            running.go(private)
        except BaseException as error:
            running.abandon()
            if isinstance(error, OSError):
                raise UnavailableError(f"the sandbox cannot be made: {error.strerror}") from None
            raise
        finally:
            os.close(private)
        return running

    async def _send(self, data: bytes, fds: list[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        while True:
            try:
                self._requests.sendmsg([data], rights)
                return
            except BlockingIOError:
                await asyncio.sleep(SEND_RETRY_SECONDS)

    def close(self) -> None:
        """End it, and every worker that it made."""
        self._requests.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def _request(command: Command, layout: Layout, sdk: list[str]) -> dict[str, Any]:
    mounts = [*command.read_only.items(), *command.writable.items()]
    return {
        "arguments": list(command.arguments),
        "fork": command.interpreter is not None,
        "folder": command.folder,
        "mounts": [[inside, str(outside)] for inside, outside in mounts],
        "numbers": list(command.pass_fds),
        "tmpBytes": command.tmp_bytes,
        "listen": layout.listen,
        "addresses": layout.addresses,
        "internet": layout.internet,
        "texts": layout.texts,
        "sdk": sdk,
    }


def _private(command: Command) -> int:
    """A file that is nowhere on the disk, with what nobody else may see; its descriptor."""
    files = {path: base64.b64encode(content).decode() for path, content in command.files.items()}
    data = json.dumps({"environment": dict(command.environment), "files": files}).encode("utf-8", "surrogateescape")
    fd = os.memfd_create("owsgit", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _receive(control: socket.socket) -> tuple[bytes, list[int], int]:
    """A message, the descriptors beside it, and the process that sent it, by its number here."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(control, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(control)
    space = socket.CMSG_SPACE(4 * LISTENERS_MAX) + socket.CMSG_SPACE(12)
    data, ancillary, _, _ = control.recvmsg(MESSAGE_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    fds, pid = array.array("i"), 0
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = struct.unpack("3i", content)[0]
    return data, list(fds), pid
