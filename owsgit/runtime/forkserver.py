"""The node's side of a fork server (zygote.py): has it make sandboxes ahead of need, and watches over them."""

import array
import asyncio
import base64
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import struct
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.runtime import internet
from owsgit.runtime.cgroup import Group
from owsgit.runtime.egress import Egress
from owsgit.runtime.internet import Internet
from owsgit.runtime.rlimits import RlimitGroup
from owsgit.runtime.sandbox import Command

START_SECONDS_MAX = 30.0
"""For an interpreter with everything imported, on a busy machine."""

ANSWER_SECONDS_MAX = 20.0
"""For each step of a sandbox, on a busy machine."""

READY_SANDBOXES = 2
"""Kept ahead of need: a cold start takes one, and the next is made while the function loads."""

REFILL_SECONDS = 0.05
"""How long after one was taken the next is made: not while the worker that took it starts."""

SEND_RETRY_SECONDS = 0.001
END_SECONDS_MAX = 0.5
"""From the end of its processes to that of bubblewrap, which holds them."""

END_POLL_SECONDS = 0.01
MESSAGE_BYTES_MAX = 4096
DESCRIPTORS_MAX = 128
KILLED = -signal.SIGKILL
MakeGroup = Callable[[str], Group | RlimitGroup]
"""Makes a control group of a name. Raises UnavailableError."""

log = logging.getLogger("owsgit.forkserver")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Layout:
    """What a worker's network looks like from inside: `listen` are addresses and ports, `texts` files of /etc."""

    listen: list[tuple[str, int]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    internet: bool = False


class ForkedSandbox:
    """A sandbox: first one that waits, then one in which a worker runs."""

    def __init__(self, control: socket.socket, group: Group | RlimitGroup) -> None:
        self._group = group
        self.listeners: list[socket.socket] = []
        self.egress: Egress | None = None
        self.internet: Internet | None = None
        self.pid = 0  # of its first process
        self._control = control
        self._pidfd = -1
        self._status: int | None = None
        self._started = False  # from then on what its first process says is no answer to anyone
        self._dead = asyncio.Event()
        self._removed: asyncio.Future[None] | None = None

    async def prepare(self) -> None:
        """Wait until it is ready for a worker. Raises UnavailableError, OSError."""
        _, _, self.pid = await self._answer()
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._died)
        await asyncio.to_thread(self._group.add, self.pid)  # the kernel may take its time
        self._control.send(b"go")
        await self._answer()

    async def run(self, command: Command, layout: Layout, numbers: list[int]) -> None:
        """Have it run a command. Raises UnavailableError, OSError."""
        self._group.limit(command.limits)
        private = _private(command)
        try:
            fds = [private, command.output_fd, *command.pass_fds]
            request = {**_request(command, layout, numbers), "rlimits": self._group.resource_limits()}
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            self._control.sendmsg([json.dumps(request).encode()], rights)
        finally:
            os.close(private)
        if layout.listen or layout.internet:
            _, made, _ = await self._answer()
            self.listeners = [socket.socket(fileno=fd) for fd in made]
        if layout.internet:
            self.internet = await Internet.start(self.pid)
            self._control.send(json.dumps({"reject": await internet.rejected()}).encode())
        self._started = True
        if self._dead.is_set():  # already: what it said last is still to be read
            self._status = None
            self._tell_end()
        else:
            asyncio.get_running_loop().add_reader(self._control, self._told)

    async def _answer(self) -> tuple[dict[str, Any], list[int], int]:
        """What its first process says, with the descriptors beside it, and its number. Raises UnavailableError."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                data, fds, pid = await _receive(self._control)
        except TimeoutError:
            raise UnavailableError("the sandbox does not start") from None
        message = json.loads(data) if data else {"problem": "the fork server ended"}
        if problem := message.get("problem"):
            raise UnavailableError(f"the sandbox cannot be made: {problem}")
        return message, fds, pid

    def _told(self) -> None:
        """Called when the init process says how the worker ended, or closes."""
        with contextlib.suppress(OSError, ValueError):
            message = json.loads(self._control.recv(MESSAGE_BYTES_MAX) or b"{}")
            if self._status is None:
                self._status = int(message.get("status", KILLED))
            if problem := message.get("problem"):
                log.warning("a worker did not start: %s", problem)
        asyncio.get_running_loop().remove_reader(self._control)

    def _died(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._started:
            self._tell_end()
        else:
            self._status = KILLED
        self._dead.set()

    def _tell_end(self) -> None:
        self._told()
        if self._status is None:
            self._status = KILLED

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

    async def abandon(self) -> None:
        """End it and clear it away, however far it has come."""
        if self._pidfd < 0 and not self._dead.is_set():
            self._status = KILLED
            self._dead.set()
        self.kill()
        await self.gone()

    async def ended(self) -> int:
        await self._dead.wait()
        assert self._status is not None
        return self._status

    async def gone(self) -> None:
        await self.ended()
        if self._removed is None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            for passing in (self.egress, self.internet):
                if passing is not None:
                    passing.close()
            for each in self.listeners:
                each.close()
            loop = asyncio.get_running_loop()
            self._removed = asyncio.ensure_future(loop.run_in_executor(None, self._group.remove))
        await self._removed


@contextlib.asynccontextmanager
async def _abandoned_on_failure(sandbox: ForkedSandbox) -> AsyncIterator[None]:
    """Clears a sandbox away that was not made, or not filled. Raises UnavailableError in place of OSError."""
    try:
        yield
    except BaseException as error:
        await sandbox.abandon()
        if isinstance(error, OSError):
            raise UnavailableError(f"the sandbox cannot be made: {error.strerror}") from None
        raise


class ForkServer:
    """A running fork server, with the sandboxes that wait."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        requests: socket.socket,
        make_group: MakeGroup,
    ) -> None:
        self._process = process
        self._requests = requests
        self._make_group = make_group
        self._ready: deque[ForkedSandbox] = deque()
        self._refilling: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def start(
        cls,
        arguments: list[str],
        pass_fds: list[int],
        requests: socket.socket,
        setup: dict[str, Any],
        make_group: MakeGroup,
    ) -> "ForkServer":
        """Start it with bubblewrap's `arguments`. The descriptors in `pass_fds` are closed here: else its end would not
        be noticed. Raises UnavailableError."""
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - its end is not waited for in the event loop
                arguments,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
            )
        finally:
            for fd in pass_fds:
                os.close(fd)
        requests.setblocking(False)
        server = cls(process, requests, make_group)
        hello = b""
        try:
            requests.send(json.dumps(setup).encode())
            async with asyncio.timeout(START_SECONDS_MAX):
                hello = await asyncio.get_running_loop().sock_recv(requests, MESSAGE_BYTES_MAX)
        except (TimeoutError, OSError):
            pass
        except asyncio.CancelledError:
            await server.close()
            raise
        if not hello:
            process.kill()
            assert process.stderr is not None
            said = (await asyncio.to_thread(process.stderr.read)).decode("utf-8", "replace").strip()
            await server.close()
            raise UnavailableError(f"the fork server of functions does not start: {said[-500:] or 'no reason given'}")
        return server

    @property
    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    async def ends(self) -> bool:
        """Whether it has ended, or is about to: its sandboxes notice before it is cleared away."""
        for _ in range(int(END_SECONDS_MAX / END_POLL_SECONDS)):
            if not self.alive:
                return True
            await asyncio.sleep(END_POLL_SECONDS)
        return not self.alive

    async def spawn(self, command: Command, layout: Layout, numbers: list[int]) -> ForkedSandbox:
        """Start a worker. Raises UnavailableError."""
        sandbox = await self._take()
        async with _abandoned_on_failure(sandbox):
            await sandbox.run(command, layout, numbers)
        return sandbox

    async def _take(self) -> ForkedSandbox:
        """A sandbox that is ready. The next one is made meanwhile."""
        sandbox = None
        while self._ready and sandbox is None:
            first = self._ready.popleft()
            if first.exited:
                await first.gone()
            else:
                sandbox = first
        if sandbox is None:
            sandbox = await self._prepare()
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.ensure_future(self._refill())
        return sandbox

    async def _refill(self) -> None:
        await asyncio.sleep(REFILL_SECONDS)
        with contextlib.suppress(OwsgitError):  # whoever needs one next is told
            while len(self._ready) < READY_SANDBOXES and not self._closed:
                self._ready.append(await self._prepare())

    async def _prepare(self) -> ForkedSandbox:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        with theirs:
            sandbox = ForkedSandbox(ours, self._make_group(f"worker-{next(_numbers)}"))
            async with _abandoned_on_failure(sandbox):
                await self._send(theirs.fileno())
                theirs.close()  # else the end of the fork server would not be noticed
                await sandbox.prepare()
        return sandbox

    async def _send(self, control: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [control]))]
        while True:
            try:
                self._requests.sendmsg([b"{}"], rights)
                return
            except BlockingIOError:
                await asyncio.sleep(SEND_RETRY_SECONDS)

    async def close(self) -> None:
        """End it, and every worker that it made."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)
        self._requests.close()
        self._process.kill()
        for sandbox in self._ready:
            sandbox.kill()
            await sandbox.gone()
        await asyncio.to_thread(self._process.wait)
        if self._process.stderr is not None:
            self._process.stderr.close()


def _request(command: Command, layout: Layout, numbers: list[int]) -> dict[str, Any]:
    mounts = [*command.read_only.items(), *command.writable.items()]
    return {
        "arguments": list(command.arguments),
        "fork": command.interpreter is not None,
        "folder": command.folder,
        "mounts": [[inside, str(outside)] for inside, outside in mounts],
        "numbers": numbers,
        "tmpBytes": command.tmp_bytes,
        "listen": layout.listen,
        "addresses": layout.addresses,
        "internet": layout.internet,
        "texts": layout.texts,
    }


def _private(command: Command) -> int:
    """A file that is nowhere on the disk, with what nobody else may see; its descriptor."""
    files = {path: base64.b64encode(content).decode() for path, content in command.files.items()}
    data = json.dumps({"environment": dict(command.environment), "files": files}).encode()
    fd = os.memfd_create("owsgit", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
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
    space = socket.CMSG_SPACE(4 * DESCRIPTORS_MAX) + socket.CMSG_SPACE(12)
    data, ancillary, _, _ = control.recvmsg(MESSAGE_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    fds, pid = array.array("i"), 0
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = struct.unpack("3i", content)[0]
    return data, list(fds), pid
