"""The connections that a node makes to the others: persistent, pinned in both directions, made again when they break.

The other side's host key has to be the one that the ledger names, and this node proves its own key. Each request has a
deadline; a neighbour that hangs, lies, sends garbage or closes at any byte loses its connection and nothing else.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncssh

from owsgit.model import terminal
from owsgit.model.errors import UnavailableError
from owsgit.peers import wire
from owsgit.peers.members import Member
from owsgit.peers.wire import Frame, WireError

CONNECT_SECONDS_MAX = 10.0
REQUEST_SECONDS_MAX = 15.0
BACKOFF_SECONDS_FIRST = 0.1
BACKOFF_SECONDS_MAX = 15.0
KEEPALIVE_SECONDS = 5.0
log = logging.getLogger("owsgit.peers")


class LinkError(UnavailableError):
    """A neighbour did not answer, or not as it should."""


@dataclass(frozen=True)
class Dialer:
    """What this node proves itself with."""

    key: asyncssh.SSHKey
    listen: str  # connections come from this address, if it is one


class Link:
    """The connection to one neighbour. `run` keeps it up until it is cancelled."""

    def __init__(self, dialer: Dialer, member: Member, on_up: "Callable[[Link], None]") -> None:
        self.member = member
        self.problem = "not tried yet"
        self._dialer = dialer
        self._on_up = on_up
        self._up = asyncio.Event()
        self._lost_at = -math.inf  # a time of the monotonic clock
        self._wake = asyncio.Event()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._connection: asyncssh.SSHClientConnection | None = None
        self._process: asyncssh.SSHClientProcess[bytes] | None = None

    @property
    def up(self) -> bool:
        return self._up.is_set()

    def was_lost_within(self, seconds: float) -> bool:
        """Whether it was up so lately, and is not."""
        return not self.up and time.monotonic() - self._lost_at < seconds

    def wake(self) -> None:
        """Try to connect now: the neighbour was heard of."""
        self._wake.set()

    async def wait_up(self, seconds: float) -> bool:
        """Whether the link is up within `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._up.wait()
        return self.up

    async def run(self) -> None:
        """Connect, answer, reconnect: with a growing pause of random length in between."""
        pause = BACKOFF_SECONDS_FIRST
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._connected()
                self.problem = "the connection was closed"
            except asyncio.CancelledError:
                raise
            except (OSError, asyncssh.Error, WireError, TimeoutError) as error:
                self.problem = terminal.safe(str(error) or type(error).__name__, 200)
            except Exception as error:
                log.exception("the link to %s failed", self.member.name)
                self.problem = type(error).__name__
            finally:
                self._down()
            if asyncio.get_running_loop().time() - began > BACKOFF_SECONDS_MAX:
                pause = BACKOFF_SECONDS_FIRST
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.5, 1.5)):  # noqa: S311 - jitter, not a secret
                    await self._wake.wait()
                    pause = BACKOFF_SECONDS_FIRST
            pause = min(pause * 2, BACKOFF_SECONDS_MAX)

    async def _connected(self) -> None:
        """One life of the connection."""
        member = self.member
        host_key = asyncssh.import_public_key(member.key.line)
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            connection = await asyncssh.connect(
                member.address,
                member.port,
                local_addr=(self._dialer.listen, 0) if _specific(self._dialer.listen) else None,
                username="owsgit",
                client_keys=[self._dialer.key],
                known_hosts=([host_key], [], []),
                agent_path=None,
                config=None,
                preferred_auth="publickey",
                encryption_algs=wire.CIPHERS,
                compression_algs=None,
                keepalive_interval=KEEPALIVE_SECONDS,
                client_version="owsgit",
            )
        async with connection:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(wire.COMMAND, encoding=None)
            self._connection, self._process = connection, process
            self._up.set()
            self.problem = ""
            self._on_up(self)
            while (frame := await wire.read(process.stdout)) is not None:
                number = frame.head.get("id")
                waiting = self._waiting.pop(number, None) if isinstance(number, int) else None
                if waiting is not None and not waiting.done():
                    waiting.set_result(frame)
                await asyncio.sleep(0)  # what has come already is read without a pause, and may be many frames

    def _down(self) -> None:
        if self.up:
            self._lost_at = time.monotonic()
        self._up.clear()
        if self._connection is not None:
            self._connection.abort()
        self._connection = self._process = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LinkError(f"{self.member.name}: {self.problem or 'the connection was closed'}"))
        self._waiting.clear()

    async def request(
        self, verb: str, fields: Mapping[str, Any], body: bytes = b"", *, seconds: float = REQUEST_SECONDS_MAX
    ) -> Frame:
        """The neighbour's answer. Raises LinkError when there is none in time, or when it tells of a problem."""
        process, name = self._process, self.member.name
        if process is None:
            raise LinkError(f"{name} is not connected: {self.problem}")
        number = next(self._ids)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(Frame({"id": number, "verb": verb, **fields}, body).encode())
                await process.stdin.drain()
                frame = await answer
        except TimeoutError:
            raise LinkError(f"{name} did not answer within {seconds:.0f} s") from None
        except (OSError, asyncssh.Error) as error:
            raise LinkError(f"{name}: {error}") from None
        finally:
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()
        if "problem" in frame.head:
            raise LinkError(f"{name} answered: {terminal.safe(str(frame.head['problem']), 300)}")
        return frame

    async def upload_pack(self) -> "asyncssh.SSHClientProcess[bytes]":
        """git's own service on the neighbour, in another session of the same connection. Raises LinkError."""
        if self._connection is None:
            raise LinkError(f"{self.member.name} is not connected: {self.problem}")
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                return await self._connection.create_process(
                    "git-upload-pack 'ledger'", encoding=None, env={"GIT_PROTOCOL": "version=2"}
                )
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise LinkError(f"{self.member.name} gives no objects: {error}") from None


def _specific(address: str) -> bool:
    """Whether `address` is an IP address of one interface, and no wildcard."""
    try:
        return not ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False
