"""The port to which an editor's debugger connects, and how it comes to a worker in a sandbox that nobody can enter.

The worker dials out: to a port of its own loopback address, on which the node listens (`Command.listen`). What it says
there is the protocol of debuggers, DAP for Python and the inspector's for Node.js; the node passes the bytes on between
such a line and an editor that connects to the port. Only `owsgit dev` makes one of these: nothing that a function's
file or environment says can.

https://microsoft.github.io/debug-adapter-protocol and https://nodejs.org/api/debugger.html
"""

import asyncio
import contextlib
import importlib.util
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from owsgit.model.errors import UnavailableError
from owsgit.runtime.relay import pass_on

LOOPBACK = "127.0.0.1"
PORT_INSIDE = 5678
"""In the sandbox's own network: debugpy's usual port, which no handler has for something else."""

INSPECTOR_INSIDE = 9229
"""There too: where Node.js has its inspector by default."""

LINES_MAX = 16
"""Connections of editors, and lines of a worker, that are open at once: an editor has a few."""

MEBIBYTES = 128
"""What a debugger takes beside the function's own memory."""


@dataclass(frozen=True)
class _Line:
    """A connection of a worker that waits for an editor."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: "WorkerPort"

    @property
    def open(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing()


class DebugPort:
    """Where editors connect to. It stays open while workers come and go."""

    def __init__(self, host: str, port: int, detached: Callable[[], None]) -> None:
        """`detached` is called after an editor has left."""
        self.host, self.port = host, port
        self._detached = detached
        self._lines: asyncio.Queue[_Line] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._editors: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises UnavailableError."""
        try:
            self._server = await asyncio.start_server(self._accepted, self.host, self.port)
        except OSError as error:
            raise UnavailableError(
                f"the debugger's port {self.host}:{self.port} cannot be had: {error.strerror or error}",
                remedy="end what listens there, or choose another: --debug PORT",
            ) from None

    async def serve(self, listener: socket.socket) -> "WorkerPort":
        """Take the lines of one worker."""
        port = WorkerPort(self._lines)
        await port.open(listener)
        return port

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._editors) >= LINES_MAX:
            writer.transport.abort()
            return
        self._editors.add(task)
        try:
            line = await self._lines.get()
            while not line.open:
                line = await self._lines.get()
            if reader.at_eof():  # the editor did not wait
                self._lines.put_nowait(line)
                return
            await _relay((reader, writer), (line.reader, line.writer))
            line.port.used = True
            self._detached()
        finally:
            self._editors.discard(task)
            writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._editors:
            task.cancel()
        await asyncio.gather(*self._editors, return_exceptions=True)


class WorkerPort:
    """Where the lines of one worker arrive."""

    def __init__(self, lines: "asyncio.Queue[_Line]") -> None:
        self.used = False  # whether an editor was on one of them, and left
        self._lines = lines
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accepted, sock=listener)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers = [each for each in self._writers if not each.is_closing()]
        if len(self._writers) >= LINES_MAX:
            writer.transport.abort()
            return
        self._writers.append(writer)
        self._lines.put_nowait(_Line(reader, writer, self))

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _relay(one: Ends, other: Ends) -> None:
    """Pass bytes on in both directions, until either side ends."""
    ways = [asyncio.ensure_future(pass_on(one[0], other[1])), asyncio.ensure_future(pass_on(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for result in await asyncio.gather(*ways, return_exceptions=True):
            assert result is None or isinstance(result, (OSError, asyncio.CancelledError)), result
        for writer in (one[1], other[1]):
            with contextlib.suppress(OSError):
                writer.close()


@dataclass(frozen=True)
class Debugging:
    """How a function is debugged: its code appears at `source`, the place where the editor knows it."""

    port: DebugPort
    source: Path
    wait: bool = False  # for an editor, before the code is loaded


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def debugpy_folder() -> Path:
    """The folder of the package. Raises UnavailableError."""
    spec = importlib.util.find_spec("debugpy")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("debugpy is not installed", remedy='pip install "owsgit[debug]"')
    return Path(spec.submodule_search_locations[0])
