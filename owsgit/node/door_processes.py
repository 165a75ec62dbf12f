"""Further processes of the front door, for more than one processor's worth of calls: as the node's own has them.

Clients come to the node's own process alone. While it is busy with calls that others can answer as well, it starts some
(door_process.py), and gives them connections of its clients, each between two requests: a process goes on where the
other has stopped, on the same socket, and the client sees nothing of it. With TLS a connection stays where its
handshake was made, so they get new ones before that, and clients are asked to make new ones. The ledger and the
services tell them what they have to know before anything rests on it; what they cannot do, this process does for them.
They keep nothing: one that ends costs its clients their connections.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import count
from pathlib import Path

from owsgit.aws.api import ServiceError
from owsgit.aws.audit import Audit, Record
from owsgit.aws.door import TOPIC, Arrival
from owsgit.aws.further import Shared
from owsgit.aws.protocols.wire import Reply
from owsgit.gateway.certificates import Certificate
from owsgit.gateway.exchange import Connection
from owsgit.ledger.verify import Verified
from owsgit.model.errors import OwsgitError
from owsgit.model.service import Neighbours
from owsgit.node import door_wire
from owsgit.node.door_wire import KEPT, NEW, Answered, Kind, SetUp, Unread
from owsgit.node.home import PROCESSES_MAX
from owsgit.node.link import Answers, Hears, Link, LostError
from owsgit.runtime.cgroup import processors

BUSY_PER_SECOND = 500
"""Calls a second that others could answer, from which on it is worth it."""

WINDOW_SECONDS = 0.1
"""After which it is looked at how busy everybody is: many clients come at once, and do not stay for long."""

LOAD_DIFFERENCE = 0.2
"""Of processors: by so much less has one to do that is given more connections than this process has left."""

START_AGAIN_SECONDS = 10.0
START_AGAIN_SECONDS_MAX = 600.0
"""After one that ended by itself; twice as long after the next, unless one goes on for a while."""

SET_UP_SECONDS = 60.0
FOLLOW_SECONDS = 5.0
"""One that has not heard by then of what is new is ended: it must not answer by what is old. Nor does one answer its
clients that says nothing for so long."""

IDLE_SECONDS = 60.0
"""One that has had no connection for so long is ended: it is 60 MB that others may need."""

WATCH_SECONDS = 5.0
"""How often it is seen whether one answers, and has something to do."""

DRAIN_SECONDS = 12.0
TICKS = os.sysconf("SC_CLK_TCK")

log = logging.getLogger("owsgit.node")

Answer = Callable[[Arrival], Awaitable[Reply]]


def sensible() -> int:
    """How many there are unless the node's settings say it: one less than there are processors."""
    return min(max(int(processors()) - 1, 0), PROCESSES_MAX)


class DoorProcesses:
    """All further processes of a node: `most` at the same time."""

    def __init__(self, home: Path, most: int, head: Callable[[], Verified | None], neighbours: Neighbours) -> None:
        self._home, self._most, self._head, self._neighbours = home, most, head, neighbours
        self._shared: dict[str, Shared] = {}
        self.operations: frozenset[bytes] = frozenset()
        """Those whose connections they get, as X-Amz-Target names them."""
        self._all: list[_Process] = []
        self._seen = 0  # calls since
        self._since = 0.0
        self._evened = self._sent_away = False  # whether somebody was given, or is to have, a connection since
        self._used = self._load = 0.0  # processor seconds, and how many of them in a second
        self._certificate = b""
        self._not_before = 0.0
        self._failures = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def share(self, services: Iterable[Shared]) -> None:
        """Have them answer for these."""
        self._shared = {each.make: each for each in services}
        self.operations = frozenset(each for shared in self._shared.values() for each in shared.operations)

    def serve(self, answer: Answer, audit: Audit, own: Callable[[], int]) -> None:
        """`answer` is this process's own door; `own` says how many connections this process has."""
        self._answer, self._audit, self._own = answer, audit, own

    def consider(self, connection: Connection) -> None:
        """A call is over that further processes could have answered: maybe they get the connection."""
        self._seen += 1
        now = time.monotonic()
        if now - self._since > WINDOW_SECONDS:
            self._look(now)
        if self._all and (process := self._less_busy(connection.is_secure)) is not None:
            if not connection.is_secure:
                process.promised += 1
                connection.give_away(process.take)
            elif not self._sent_away:
                self._sent_away = True  # and no more for a moment: the handshakes of many at once would cost as much
                connection.send_away()

    def elsewhere(self, connection: socket.socket) -> bool:
        """A client has connected to a port with TLS: whether a further process has it now, to make the handshake."""
        ready = [each for each in self._all if each.ready]
        process = min(ready, key=lambda each: each.connections, default=None)
        if process is None or process.connections >= self._own() or not self._helps():
            return False
        process.promised += 1
        return process.take(connection, new=True)

    def show(self, certificate: Certificate) -> None:
        """Have it shown from the next connection on."""
        self._certificate = certificate.pem
        self._keep(self._tell_all(Kind.SHOW, certificate.pem))

    def _look(self, now: float) -> None:
        """See how busy everybody is."""
        passed, self._since = now - self._since, now
        busy = self._seen > BUSY_PER_SECOND * passed
        self._seen, self._evened, self._sent_away = 0, False, False
        used = time.process_time()
        self._load, self._used = (used - self._used) / passed, used
        for process in self._all:
            process.look(passed)
        if busy and len(self._all) < self._most and now > self._not_before and self._helps():
            self._start()

    def _less_busy(self, secure: bool) -> "_Process | None":
        """One that is to have another connection: it has fewer than this process, or less to do. `secure`: of those
        with TLS, which go to whoever has fewer."""
        own = self._own() - sum(each.promised for each in self._all)
        ready = [each for each in self._all if each.ready]
        process = min(ready, key=lambda each: (each.load, each.connections), default=None)
        if process is None or own < 2 or not self._helps():
            return None
        if process.connections + 1 < own:
            self._evened = True
            return process
        if not secure and not self._evened and process.load + LOAD_DIFFERENCE < self._load:
            self._evened = True
            return process
        return None

    def _helps(self) -> bool:
        return any(each.helps() for each in self._shared.values())

    def _start(self) -> None:
        head = self._head()
        if head is None or self._closed:
            return
        process = _Process(self._said_by, self._ended)
        self._all.append(process)  # from now on it is told what is new
        facts = {make: each.facts() for make, each in self._shared.items()}
        set_up = SetUp(self._neighbours.own, head.state.genesis, head.commit, facts, self._certificate)
        self._keep(self._run(process, set_up))

    async def _run(self, process: "_Process", set_up: SetUp) -> None:
        try:
            await process.start(self._home, set_up)
        except (OSError, OwsgitError, TimeoutError) as error:
            if not process.stopping:
                log.warning("a further process of the front door did not start: %s", str(error) or type(error).__name__)
            process.kill()
            self._ended(process)
        except asyncio.CancelledError:
            process.kill()
            raise
        else:
            log.info("a further process of the front door answers calls, as there are many")
            await self._watch(process)

    async def _watch(self, process: "_Process") -> None:
        """End it when it has nothing to do for long, or hangs: by how little that does, it would get ever more."""
        given, since = -1, 0.0
        while process.ready:
            await asyncio.sleep(WATCH_SECONDS)
            await self._tell(process, Kind.PING, b"")
            if process.ready:
                self._failures = 0
            now = time.monotonic()
            if process.connections or process.given != given:
                given, since = process.given, now
            elif now - since > IDLE_SECONDS:
                await process.stop()

    def _ended(self, process: "_Process") -> None:
        if process in self._all:
            self._all.remove(process)
            if not process.stopping:
                wait = min(START_AGAIN_SECONDS * 2**self._failures, START_AGAIN_SECONDS_MAX)
                self._not_before = time.monotonic() + wait
                self._failures = min(self._failures + 1, 10)
                log.warning("a further process of the front door ended; its clients come again")

    def _keep(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what they are told ------------------------------------------------------------------------------------------

    async def follow(self, commit: str) -> None:
        """Have all of them go by the ledger as it is at `commit`. None goes by an older one when this returns."""
        await self._tell_all(Kind.HEAD, commit)

    async def tell(self, service: str, facts: Mapping[str, bytes]) -> None:
        """See model/service.py: Processes."""
        await self._tell_all(Kind.FACTS, (service, dict(facts)))

    async def _tell_all(self, kind: Kind, what: object) -> None:
        if self._all:
            body = door_wire.write(what)
            await asyncio.gather(*(self._tell(process, kind, body) for process in list(self._all)))

    async def _tell(self, process: "_Process", kind: Kind, body: bytes) -> None:
        try:
            await process.tell(kind, body)
        except (OwsgitError, TimeoutError) as error:
            if process in self._all:
                why = error if isinstance(error, OwsgitError) else f"no answer for {FOLLOW_SECONDS:g} s"
                log.warning("a further process of the front door is ended, as it does not follow: %s", why)
            process.kill()
            self._ended(process)

    # -- what they say -----------------------------------------------------------------------------------------------

    def _said_by(self, process: "_Process") -> tuple[Mapping[int, Answers], Mapping[int, Hears]]:
        answers: dict[int, Answers] = {
            Kind.SERVICE: self._service,
            Kind.PASS: partial(self._passed, process),
            Kind.NEXT: process.next_piece,
            Kind.NEIGHBOUR: self._neighbour,
        }
        hears: dict[int, Hears] = {
            Kind.CLOSE: process.close_body,
            Kind.AUDIT: self._record,
            Kind.LINES: self._audit.take,
            Kind.HOLDS: process.holds,
        }
        return answers, hears

    async def _service(self, body: bytes) -> bytes:
        make, _, question = body.partition(b"\n")
        return await self._shared[make.decode()].answer(question)

    async def _passed(self, process: "_Process", body: bytes) -> bytes:
        passed: door_wire.Passed = door_wire.read(body)
        read = passed.body

        async def whole() -> bytes:
            nonlocal read
            if read is None:
                read = await process.body_of(passed.number, whole=True)
            return read

        async def pieces() -> AsyncIterator[bytes]:
            if read is not None:
                yield read
                return
            while piece := await process.body_of(passed.number, whole=False):
                yield piece

        arrival = Arrival(passed.id, passed.request, whole, pieces, passed.address, passed.secure)
        reply = await self._answer(arrival)
        headers = list(reply.headers)
        if isinstance(reply.body, bytes):
            return door_wire.write(Answered(reply.status, headers, reply.body, reply.length))
        number = process.keep_body(reply.body)
        return door_wire.write(Answered(reply.status, headers, b"", reply.length, number))

    async def _neighbour(self, body: bytes) -> bytes:
        node, told = door_wire.read(body)
        try:
            await self._neighbours.await_back(node)
            return door_wire.write(await self._neighbours.ask(node, TOPIC, told))
        except OwsgitError as error:
            return door_wire.write(str(error))

    def _record(self, body: bytes) -> None:
        self._audit.write(Record(*door_wire.read(body)))

    async def close(self) -> None:
        """Have all of them finish what they have begun."""
        self._closed = True
        await asyncio.gather(*(process.stop() for process in list(self._all)))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Process:
    """One of them, as the node's own process sees it."""

    def __init__(
        self,
        said: "Callable[[_Process], tuple[Mapping[int, Answers], Mapping[int, Hears]]]",
        ended: "Callable[[_Process], None]",
    ) -> None:
        self._said, self._ended = said, ended
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None
        self._told: deque[tuple[Kind, bytes]] = deque()  # while it starts
        self._killed = False
        self._giving: socket.socket | None = None
        self._bodies: dict[int, AsyncIterator[bytes]] = {}
        self._numbers = count(1)
        self.promised = self.given = self._taken = self._held = 0
        self._used = 0.0
        self.load = 0.0
        """How much of a processor it used of late."""
        self.ready = self.stopping = False

    async def start(self, home: Path, set_up: SetUp) -> None:
        """Raises OSError, OwsgitError, TimeoutError."""
        ours, theirs = socket.socketpair()
        giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        giving.setblocking(False)
        try:
            # -P: nothing is imported from the folder that the node was started in. A session of its own: what is typed
            # at a terminal is meant for the node's own process
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "owsgit.node.door_process",
                str(home),
                str(theirs.fileno()),
                str(taking.fileno()),
                pass_fds=(theirs.fileno(), taking.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            giving.close()
            raise
        finally:
            theirs.close()
            taking.close()
        self._giving = giving
        self._link = await Link.open(ours, *self._said(self), self._lost)
        if self._killed:  # there was no process yet then
            self.kill()
            raise LostError
        async with asyncio.timeout(SET_UP_SECONDS):
            await self._link.ask(Kind.SET_UP, door_wire.write(set_up))
            while self._told:
                await self._link.ask(*self._told.popleft())
        if not self._killed:
            self.ready = True

    async def tell(self, kind: Kind, body: bytes) -> None:
        """Have it know something before it answers anything else. Raises LostError, TimeoutError."""
        if self.ready:
            async with asyncio.timeout(FOLLOW_SECONDS):
                await self._ask(kind, body)
        elif not self.stopping and not self._killed:  # it starts, and answers nobody before it knows this
            self._told.append((kind, body))

    async def _ask(self, kind: Kind, body: bytes) -> None:
        if self._link is None:
            raise LostError
        await self._link.ask(kind, body)

    @property
    def connections(self) -> int:
        """Those that it has, or is about to get."""
        return self.promised + self.given - self._taken + self._held

    def look(self, passed: float) -> None:
        """See how busy it was in the seconds that passed."""
        used = self._used
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
                used = (int(fields[11]) + int(fields[12])) / TICKS  # proc(5): utime, stime
        self.load, self._used = (used - self._used) / passed, used

    def take(self, connection: socket.socket | None, *, new: bool = False) -> bool:
        """Give it one that was promised; whether it is there. None: it is not given after all. `new`: its handshake is
        yet to be made."""
        self.promised -= 1
        if connection is None or not self.ready or self._giving is None:
            return False
        try:
            socket.send_fds(self._giving, [NEW if new else KEPT], [connection.fileno()])
        except OSError:  # it is gone, or so far behind that it has enough to do
            return False
        self.given += 1
        return True

    def holds(self, body: bytes) -> None:
        self._taken, self._held = door_wire.read(body)

    async def body_of(self, number: int, *, whole: bool) -> bytes:
        """Of a request that it has passed on: all of its body, or the next piece. Raises ServiceError, LostError."""
        if self._link is None:
            raise LostError
        came: bytes | Unread = door_wire.read(await self._link.ask(Kind.BODY, door_wire.write((number, whole))))
        if isinstance(came, Unread):
            raise ServiceError(came.code, came.message, status=came.status)
        return came

    def keep_body(self, body: AsyncIterator[bytes]) -> int:
        number = next(self._numbers)
        if self._link is None or self._link.is_lost:  # it was while this was made: nobody reads it
            self._close(body)
        else:
            self._bodies[number] = body
        return number

    async def next_piece(self, said: bytes) -> bytes:
        number = door_wire.read(said)
        body = self._bodies.get(number)
        if body is None:
            return b""
        async for piece in body:
            if piece:
                return piece
        self._bodies.pop(number, None)
        return b""

    def close_body(self, said: bytes) -> None:
        self._close(self._bodies.pop(door_wire.read(said), None))

    @staticmethod
    def _close(body: AsyncIterator[bytes] | None) -> None:
        close = getattr(body, "aclose", None)
        if close is not None:
            task = asyncio.ensure_future(close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    def _lost(self) -> None:
        self.ready = False
        for body in self._bodies.values():
            self._close(body)
        self._bodies.clear()
        if self._giving is not None:
            self._giving.close()
            self._giving = None
        self._ended(self)

    def kill(self) -> None:
        self.ready, self._killed = False, True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        was_ready, self.ready, self.stopping = self.ready, False, True
        with contextlib.suppress(OwsgitError, TimeoutError):
            if was_ready:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._ask(Kind.STOP, b"")
        self.kill()
        if self._process is not None:
            await self._process.wait()


_closing: "set[asyncio.Task[None]]" = set()
