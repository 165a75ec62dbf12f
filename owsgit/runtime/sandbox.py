"""What a sandbox is: it runs a command where the command can harm nothing but itself.

`bubblewrap` is the one that nodes use; `Unconfined` is none at all, for nodes that were told so by name.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from owsgit.model.errors import UnavailableError
from owsgit.runtime.cgroup import Group, Limits
from owsgit.runtime.config import NO_NETWORK, Network
from owsgit.runtime.interpreters import Interpreter
from owsgit.runtime.rlimits import RlimitGroup

EXIT_SECONDS_MAX = 0.5
"""What broke its protocol and does not end by itself within this is ended."""

TMP_BYTES_MAX = 512 * 1024 * 1024
"""Lambda's default for /tmp."""


@dataclass(frozen=True)
class Command:
    """What to run: `read_only` and `writable` map paths inside to host paths; `pass_fds` stay open,
    under the numbers that the sandbox says.

    With an `interpreter`, the arguments start the managed Python runtime in it: then a sandbox may go on in an
    interpreter that is there already. `listen` are ports of the worker's own loopback address, on which the node
    listens. Environment and files never stand on a command line, where every user of the machine could read them.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    read_only: Mapping[str, Path]
    limits: Limits
    output_fd: int
    pass_fds: Sequence[int] = ()
    writable: Mapping[str, Path] = field(default_factory=dict)
    tmp_bytes: int = TMP_BYTES_MAX
    network: Network = NO_NETWORK
    listen: Sequence[int] = ()
    interpreter: Interpreter | None = None
    sdk: bool = False  # whether that interpreter should have the AWS SDK imported already
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # by path inside; never on the host's disk


class Running(Protocol):
    """A started command."""

    @property
    def group(self) -> Group | RlimitGroup | None:
        """What limits it."""
        ...

    listeners: list[socket.socket]  # one for each port of `listen`, in the sandbox's network

    @property
    def exited(self) -> bool:
        """Whether it has ended."""
        ...

    def kill(self) -> None:
        """End it and everything it started, at once."""
        ...

    async def ended(self) -> int:
        """Wait until it has ended; its exit status, negative for a signal."""
        ...

    async def gone(self) -> None:
        """Wait until it has ended and nothing is left of it, its group neither."""
        ...


async def end_of(running: Running) -> tuple[int, bool]:
    """The exit status of what fell silent or broke its protocol, and whether it ran out of memory.

    It is ended if it does not end by itself; what is left of it is the caller's to clear away.
    """
    try:
        async with asyncio.timeout(EXIT_SECONDS_MAX):
            status = await running.ended()
    except TimeoutError:
        running.kill()
        status = await running.ended()
    return status, running.group is not None and running.group.out_of_memory()


class Sandbox(Protocol):
    """A way to run a command."""

    contained: bool
    note: str  # what a user should know of it, if anything

    def numbers(self, pass_fds: Sequence[int]) -> list[int]:
        """The numbers that passed descriptors have inside."""
        ...

    async def start(self, command: Command) -> Running: ...

    async def close(self) -> None:
        """End all that runs in it."""
        ...


class Unconfined:
    """No sandbox at all: only for a node that was told so by name (`--sandbox none`)."""

    contained = False
    note = "NOT contained (--sandbox none)"

    def numbers(self, pass_fds: Sequence[int]) -> list[int]:
        return list(pass_fds)

    async def start(self, command: Command) -> Running:
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
        return UnconfinedRunning(process)

    async def close(self) -> None:
        """Nothing is left behind."""


class UnconfinedRunning:
    """A process group of the machine."""

    group: Group | RlimitGroup | None = None

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.listeners: list[socket.socket] = []

    @property
    def exited(self) -> bool:
        return self._process.returncode is not None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> int:
        return await self._process.wait()

    async def gone(self) -> None:
        await self.ended()
