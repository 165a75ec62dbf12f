"""A further process of the front door: reads requests, checks who signed them and whether they may, and answers.

It goes by the ledger and by what services tell it, as the node's own process (door_processes.py) has it say; and it
keeps nothing that anybody would miss. It ends with the node's own process, in whatever way that ends.
"""

import asyncio
import functools
import importlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path

import uvloop

from owsgit.aws import audit
from owsgit.aws.api import Pieces, ServiceError
from owsgit.aws.audit import Record
from owsgit.aws.credentials import Desk
from owsgit.aws.door import Arrival, Door, House
from owsgit.aws.further import FurtherApi, Make
from owsgit.aws.protocols.wire import Reply
from owsgit.gateway.app import Api
from owsgit.gateway.certificates import Certificate
from owsgit.gateway.exchange import Exchange, Mount, RefusedError, Response
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listener, Place
from owsgit.gateway.tls import Secured
from owsgit.ledger import verify
from owsgit.ledger.repository import Repository
from owsgit.ledger.verify import Verified
from owsgit.model.errors import UnavailableError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Decision, ResourcePolicy, Session
from owsgit.model.names import Scope
from owsgit.model.service import Told
from owsgit.model.state import State
from owsgit.node import door_wire
from owsgit.node.door_wire import NEW, Kind, Passed, SetUp, Unread
from owsgit.node.front_door import OWNER, TARGET, limits, respond
from owsgit.node.garbage import settle_down
from owsgit.node.home import Home
from owsgit.node.link import Answers, Hears, Link
from owsgit.node.logins import user_of
from owsgit.node.own_certificate import WHAT
from owsgit.services import KINDS

AUDIT_SECONDS = 0.005
"""For which records of calls are gathered: they are written soon after the answer in any case."""

HELD_SECONDS = 0.02
"""How often it tells how many connections it has, where that changes."""

FDS_MAX = 16

SMALL_BYTES = 64 * 1024
"""Of a body that goes with its request. Of others, the node's own process reads as much as it takes of anybody."""

FULL = (
    "a further process of the front door has as many files open as it may, and loses connections: raise the limit of "
    "the node's open files (ulimit -n, or LimitNOFILE of its unit), or have more of awsProcesses"
)

log = logging.getLogger("owsgit.node")


class DoorProcess:
    """One process, between its start and its end."""

    def __init__(self, home: Home, taking: socket.socket) -> None:
        self._home = home
        self._taking = taking
        self._over = asyncio.Event()
        self._order = asyncio.Lock()  # what it is told is done in the order in which it is told
        self._objects = Repository(home.ledger).objects
        self._apis: dict[str, FurtherApi] = {}
        self._plain, self._secure = Listener("", 0), Listener("", 0, tls=True)
        self._passing: dict[int, tuple[Arrival, AsyncIterator[bytes]]] = {}  # by number
        self._numbers = count(1)
        self._taken = 0  # connections
        self._told = (0, 0)  # how many were taken, and are there
        self._telling = False
        self._lines: list[bytes] = []  # of the audit log
        self._full = False  # whether there was no room for a connection
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, end: socket.socket) -> None:
        """Until the node's own process says so, or is gone."""
        told: dict[int, Callable[[bytes], Awaitable[None]]] = {
            Kind.SET_UP: self._set_up,
            Kind.HEAD: self._follow,
            Kind.FACTS: self._learn,
            Kind.SHOW: self._show,
            Kind.STOP: self._stop,
        }
        answers: dict[int, Answers] = {kind: functools.partial(self._in_order, done) for kind, done in told.items()}
        answers |= {Kind.PING: self._ping, Kind.BODY: self._body}
        hears: dict[int, Hears] = {}
        self._link = await Link.open(end, answers, hears, self._over.set)
        await self._over.wait()

    async def _in_order(self, done: Callable[[bytes], Awaitable[None]], body: bytes) -> bytes:
        async with self._order:
            await done(body)
        return b""

    async def _ping(self, body: bytes) -> bytes:
        return b""

    # -- what it is told ---------------------------------------------------------------------------------------------

    async def _set_up(self, body: bytes) -> None:
        set_up: SetUp = door_wire.read(body)
        self._node, self._source = set_up.node, audit.source(set_up.node)
        self._head: Verified = await asyncio.to_thread(verify.load, self._objects, KINDS, set_up.genesis, set_up.commit)
        for name, facts in set_up.facts.items():
            module, _, maker = name.partition(":")
            make: Make = getattr(importlib.import_module(module), maker)
            api = self._apis[name] = make(self._home.folder, self._scope, functools.partial(self._ask_service, name))
            for fact, told in facts.items():
                api.learn(fact, told)
        desk = Desk(self._home.key.read_bytes(), self._state, lambda fingerprint: user_of(self._state(), fingerprint))
        house = House(self._scope, desk.check, self._decide, _Neighbours(self), self, self._pass)
        self._door = Door(self._apis.values(), house)
        await self._door.warm()
        api_ = Api(Mount(OWNER, ""), [("$default", self._answer)], limits=limits())
        self._bindings = (Binding(ANY_HOST, (), api_),)
        self._plain.serve(OWNER, Place(self._bindings))
        if set_up.certificate:
            self._show_now(set_up.certificate)
        await self._plain.open_for_given()
        await self._secure.open_for_given()
        settle_down()
        asyncio.get_running_loop().add_reader(self._taking, self._take)

    async def _follow(self, body: bytes) -> None:
        commit = door_wire.read(body)
        if commit != self._head.commit:
            self._head = await asyncio.to_thread(verify.go_on, self._objects, self._head, commit)

    async def _show(self, body: bytes) -> None:
        self._show_now(door_wire.read(body))

    def _show_now(self, pem: bytes) -> None:
        certificate = Certificate.parse(pem, WHAT, "$.awsTls")
        self._secure.serve(OWNER, Place(self._bindings, (Secured(ANY_HOST, certificate),)))

    async def _learn(self, body: bytes) -> None:
        name, facts = door_wire.read(body)
        for fact, told in facts.items():
            self._apis[name].learn(fact, told)

    async def _stop(self, body: bytes) -> None:
        asyncio.get_running_loop().remove_reader(self._taking)
        await asyncio.gather(self._plain.close(), self._secure.close())
        for api in self._apis.values():
            await api.close()
        self._send_lines()

    # -- connections -------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        try:
            said, fds, _, _ = socket.recv_fds(self._taking, 1, FDS_MAX)
        except BlockingIOError:
            return
        if not said:  # the node's own process is gone
            asyncio.get_running_loop().remove_reader(self._taking)
            return
        if not fds:  # recvmsg(2): MSG_CTRUNC; the client comes again
            if not self._full:
                log.warning(FULL)
            self._full = True
        for fd in fds:
            given = socket.socket(fileno=fd)
            if said == NEW:
                self._secure.take_new(given)
            else:
                given.setblocking(False)
                task = asyncio.ensure_future(self._plain.take(given))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._taken += 1
        if not self._telling:
            self._telling = True
            self._tell_held()

    def _tell_held(self) -> None:
        """How many there are, as long as there are some."""
        held = len(self._tasks) + self._plain.held + self._secure.held
        if self._told != (self._taken, held):
            self._told = (self._taken, held)
            self._link.tell(Kind.HOLDS, door_wire.write(self._told))
        self._telling = held > 0
        if self._telling:
            asyncio.get_running_loop().call_later(HELD_SECONDS, self._tell_held)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _answer(self, exchange: Exchange) -> Response:
        ours = exchange.header(TARGET) in self._operations
        try:
            return await respond(self._door.answer if ours else self._pass, exchange)
        except UnavailableError as error:  # of what is passed on: the door itself says it in the client's protocol
            raise RefusedError(503, str(error)) from None

    @functools.cached_property
    def _operations(self) -> frozenset[bytes]:
        return frozenset(operation for api in self._apis.values() for operation in api.further)

    async def _pass(self, arrival: Arrival) -> Reply:
        """Have the node's own process answer."""
        number = next(self._numbers)
        self._passing[number] = arrival, arrival.pieces()
        try:
            body = await _small_body(arrival)
            passed = Passed(arrival.id, arrival.request, body, arrival.address, arrival.secure, number)
            answered: door_wire.Answered = door_wire.read(await self._link.ask(Kind.PASS, door_wire.write(passed)))
        finally:
            del self._passing[number]
        pieces = _Pulled(self._link, answered.number, answered.length) if answered.number else None
        return Reply(answered.status, answered.headers, pieces or answered.body, answered.length)

    async def _body(self, said: bytes) -> bytes:
        """What the node's own process wants of the body of a request that it answers."""
        number, whole = door_wire.read(said)
        came: bytes | Unread
        try:
            arrival, pieces = self._passing[number]
            came = await arrival.body() if whole else await anext(pieces, b"")
        except ServiceError as error:
            came = Unread(error.code, error.message, error.status)
        return door_wire.write(came)

    async def _ask_service(self, name: str, question: bytes) -> bytes:
        return await self._link.ask(Kind.SERVICE, name.encode() + b"\n" + question)

    async def ask_neighbour(self, node: str, told: Told) -> Told:
        answer = door_wire.read(await self._link.ask(Kind.NEIGHBOUR, door_wire.write((node, told))))
        if not isinstance(answer, Told):
            raise UnavailableError(answer)
        return answer

    # -- what the door knows of its node -----------------------------------------------------------------------------

    @property
    def node(self) -> str:
        return self._node

    def _state(self) -> State:
        return self._head.state

    def _scope(self) -> Scope:
        return self._head.state.scope

    def _decide(
        self, who: str | Session | None, action: str, arn: str, context: Context, policy: ResourcePolicy | None
    ) -> Decision:
        return self._head.state.decide_call(who, action, arn, context, policy)

    def write(self, record: Record) -> None:
        """Of a call: it stands in the node's audit log, which its own process writes."""
        if not audit.is_plain(record):  # where it stands depends on what else was called
            self._link.tell(Kind.AUDIT, door_wire.write(tuple(record)))
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(AUDIT_SECONDS, self._send_lines)
        self._lines.append(audit.line(record, self._source))

    def _send_lines(self) -> None:
        if self._lines:
            self._link.tell(Kind.LINES, b"".join(self._lines))
            self._lines = []


async def _small_body(arrival: Arrival) -> bytes | None:
    """The body of a request, if it is one that is not worth a question of its own, and can be read."""
    headers = dict(arrival.request.headers)
    length = headers.get(b"content-length", b"0")
    is_small = length.isdigit() and int(length[:20]) <= SMALL_BYTES
    if not is_small or b"transfer-encoding" in headers or b"expect" in headers:
        return None
    try:
        return await arrival.body()
    except ServiceError:  # told when it is asked for
        return None


class _Neighbours:
    """The other nodes, by way of the node's own process."""

    def __init__(self, process: DoorProcess) -> None:
        self._process = process

    @property
    def own(self) -> str:
        return self._process.node

    def others(self) -> list[str]:
        return []  # the node's own process knows them

    async def ask(self, node: str, topic: str, told: Told) -> Told:
        return await self._process.ask_neighbour(node, told)

    async def await_back(self, node: str) -> None:
        pass

    def answer(self, topic: str, answer: Callable[[str, Told], Awaitable[Told]]) -> None:
        pass


class _Pulled(Pieces):
    """A body that the node's own process has, asked for piece by piece: so it comes as fast as the client reads."""

    def __init__(self, link: Link, number: int, length: int | None) -> None:
        self._link, self._number = link, number
        self.length = length
        self._ended = False

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        piece = await self._link.ask(Kind.NEXT, door_wire.write(self._number))
        if not piece:
            self._ended = True
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        if not self._ended:
            self._ended = True
            self._link.tell(Kind.CLOSE, door_wire.write(self._number))


def main(home: str, end: str, taking: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the node, whose own process says when this one ends
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(Home(Path(home)), socket.socket(fileno=int(end)), socket.socket(fileno=int(taking))))


async def _run(home: Home, end: socket.socket, taking: socket.socket) -> None:
    taking.setblocking(False)
    end.setblocking(False)
    await DoorProcess(home, taking).run(end)


if __name__ == "__main__":
    main(*sys.argv[1:])
