"""Workers of the managed Python runtime: a few requests wait in a socket of each, so that none waits for the node.

A worker still runs one request at a time. What waits is in the kernel, in packets, and the node holds the worker's end
as well: a packet that it reads there the worker has surely not begun. So a request that waits behind a slow one, or
before a worker that died, is taken back and given to another, and nobody sees it.

Which output is which request's is certain, too. As long as more than one request is under way, the node does not read
the output as it comes; a worker that has written something says so with its answer, and waits until it is read. After
that it is given one request at a time.
"""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import orjson

from owsgit.model.service import Answer, Invocation
from owsgit.runtime import failures
from owsgit.runtime.call import Call
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.framed import FramedWorker
from owsgit.runtime.frames import widen
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.python_worker import (
    CHUNK,
    FRAMED,
    GO_ON,
    HEAD,
    INVOKE,
    KIND_BITS,
    PACKET,
    PACKET_BYTES_MAX,
    RESULT,
    WITH_OUTPUT,
)
from owsgit.runtime.sandbox import Sandbox
from owsgit.runtime.streamed import CONTENT_TYPE_BYTES_MAX, Streamed

DEPTH = 32
"""Requests that a worker has at most, with the one that it runs: enough to bridge a turn of the node."""

PATIENCE_SECONDS = 0.005
"""Who waits behind a request that takes longer is given to another worker."""

SLOW_SECONDS: Final = 0.02
"""A worker whose request takes longer serves nobody else soon; before that, it may only have waited for a processor."""

ABOUT_BYTES: Final = 1024
"""What is said of a request beside its own texts, at most."""

MEMORY_SECONDS: Final = 0.05
BRIEF_SECONDS: Final = 0.001
"""The memory of brief requests is looked up not with each of them: in a millisecond no process takes many pages."""


class Owner(Protocol):
    """What is told of a worker's requests."""

    def answered(self, worker: "QueuedWorker", seconds: float) -> None:
        """A request was answered; the handler took so long: there is room for another."""
        ...

    def again(self, calls: list[Call]) -> None:
        """These were not begun, and come before all others."""
        ...


class QueuedWorker(FramedWorker):
    """A worker of one function, thrown away after the first fault."""

    def __init__(self, config: FunctionConfig, log: FunctionLog) -> None:
        super().__init__(config, log)
        self.owner: Owner | None = None
        self._loop: asyncio.AbstractEventLoop
        self._arn = orjson.dumps(config.arn)
        self.under_way: deque[Call] = deque()  # the first of them runs, or is about to
        self._depth = DEPTH  # less once its queue was full: unix(7), net.unix.max_dgram_qlen
        self._framed = False  # whether the last of them is too long for others to wait behind it
        self._unsent: list[bytes] = []  # the packets of the last of them, until the loop's turn is over
        self._began = 0.0  # when the first of them did, at the latest
        self._talks = False  # whether it was seen to write output
        self._memory_at = 0.0
        self._ended = False
        self._failing: asyncio.Task[None] | None = None
        self._streaming: asyncio.Task[None] | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def _more_sockets(self) -> list[socket.socket]:
        return [self._theirs]

    async def start(self, sandbox: Sandbox) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            widen(self._ours)
            self._ours.setblocking(False)
            await super().start(sandbox)
        except BaseException:
            self._ours.close()
            self._theirs.close()
            raise
        self._frames.deliver(self._take, self._lost)

    def has_room(self, call: Call) -> bool:
        """Whether it takes a request behind those that it has."""
        if len(self.under_way) >= self._depth or self._framed or self._talks or self._transcript.talked:
            return False
        if self.under_way and time.monotonic() - self._began > PATIENCE_SECONDS:
            return False
        return self.alive and self._failing is None and _is_small(call)

    @property
    def is_slow(self) -> bool:
        """Whether it is at a request that takes long."""
        return bool(self.under_way) and time.monotonic() - self._began > SLOW_SECONDS

    def ask(self, call: Call, *, alone: bool = True) -> None:
        """Have it answer a request. Whoever asks sees to it that it has room, or nothing under way. What does not go
        `alone` is sent with what else is asked in this turn of the loop."""
        invocation = call.invocation
        about = self._about(invocation)
        queue = self.under_way
        queue.append(call)
        call.number = number = next(self._numbers)
        if len(queue) == 1:
            self._begin(call, rested=True)
        elif len(queue) == 2:
            self._transcript.listen(False)
        self._framed = not _is_small(call)
        if not self._unsent and not alone:
            self._loop.call_soon(self._send_out)
        if self._framed:
            self._unsent.append(PACKET.pack(FRAMED, number))
            self._frames.send(INVOKE, number, [about, b"\n", invocation.payload])
        else:
            self._unsent.append(b"%b%b\n%b" % (PACKET.pack(INVOKE, number), about, invocation.payload))
        if alone:
            self._send_out()

    def _about(self, invocation: Invocation) -> bytes:
        """What the worker is told of a request beside its event, as JSON."""
        about = b'{"requestId":%b,"functionArn":%b}' % (orjson.dumps(invocation.request_id), self._arn)
        if not invocation.trace_id and not invocation.client_context:
            return about
        meta = orjson.loads(about)
        if invocation.trace_id:
            meta["traceId"] = invocation.trace_id
        if invocation.client_context:
            meta["clientContext"] = orjson.loads(invocation.client_context)
        return orjson.dumps(meta)

    def _send_out(self) -> None:
        """Send what came together: so the process is woken once, and not for each."""
        unsent, self._unsent = self._unsent, []
        for index, packet in enumerate(unsent):
            try:
                self._ours.send(packet)
            except BlockingIOError:
                back = self._without(unsent[index:])
                self._depth = max(len(self.under_way), 1)
                self._again(back)
                return
            except OSError as error:
                self._unsent = unsent[index:]
                self._lost(error)  # it ended before
                return

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request, for who has no pool."""
        loop = asyncio.get_running_loop()
        call = Call(invocation, loop.create_future())
        self.ask(call)
        looking = loop.create_task(self._look_on())
        try:
            return await call.answer
        finally:
            looking.cancel()

    async def _look_on(self) -> None:
        while self.alive:  # noqa: ASYNC110 - there is no event: it looks at the time
            await asyncio.sleep(self.look())

    def _begin(self, call: Call, *, rested: bool) -> None:
        """`rested`: the worker had nothing to do before. Else what lies in the pipe may be this request's already."""
        self._began = time.monotonic()
        self._transcript.begin(call.invocation, rested=rested, soon=True)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        """The next answer came."""
        if not self.alive or self._failing is not None:
            return
        duration, kind = kind >> KIND_BITS, kind & _KINDS
        if not self.under_way or number != self.under_way[0].number or kind not in _KNOWN:
            self._lost(ValueError("not a frame of the protocol"))
        elif kind in _PIECES:
            self._frames.hold()  # whoever takes the pieces decides how fast they come
            self._streaming = asyncio.ensure_future(self._stream(self.under_way[0], kind, payload))
        elif kind == RESULT:  # as most are
            self._end(None, payload, _SECONDS[duration])
        else:
            self._answered(kind, payload, _SECONDS[duration])

    def _answered(self, kind: int, payload: bytes, took: float) -> None:
        if kind in _WITH_OUTPUT:
            self._talks = True
            self._transcript.drain()
            self._frames.send(GO_ON, 0, [])
        self._end(None if _WITH_OUTPUT.get(kind, kind) == RESULT else "Unhandled", payload, took)

    async def _stream(self, call: Call, kind: int, payload: bytes) -> None:
        """Pass on the pieces of the first request's response, until it is answered."""
        streamed, announce = Streamed(call.invocation.sink), call.invocation.announce
        try:
            while kind in _PIECES:
                if kind == CHUNK:
                    await streamed.take(payload)
                elif announce is not None:
                    announce(payload[:CONTENT_TYPE_BYTES_MAX].decode("utf-8", "replace"))
                kind, number, payload = await self._frames.receive()
                duration, kind = kind >> KIND_BITS, kind & _KINDS
                if number != call.number or kind not in _KNOWN:
                    raise ValueError("not a frame of the protocol")
        except (EOFError, OSError, ValueError) as problem:
            self._lost(problem)
            return
        if self.alive and self._failing is None:
            whole, payload = streamed.end(_WITH_OUTPUT.get(kind, kind), payload)
            self._answered(WITH_OUTPUT[whole] if kind in _WITH_OUTPUT else whole, payload, _SECONDS[duration])
            self._frames.deliver(self._take, self._lost)

    def _end(self, error: str | None, payload: bytes, took: float | None = None) -> None:
        """Answer the first request, and begin the next."""
        queue = self.under_way
        now = time.monotonic()
        seconds = now - self._began
        if (
            (seconds if took is None else took) > BRIEF_SECONDS or now - self._memory_at > MEMORY_SECONDS
        ) and self._running.group is not None:
            self._memory_at = now
            self.memory_bytes = self._running.group.memory_peak_bytes()
        self._transcript.end(self.memory_bytes)
        self.last_used = now
        call = queue.popleft()
        call.resolve(Answer(payload, error, self._transcript.tail()))
        if queue:
            self._begin(queue[0], rested=False)
        else:
            self._framed = False
            if not self._transcript.listens and self.alive and self._rest is None:
                self._rest = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._rests)
        if self.owner is not None:
            self.owner.answered(self, seconds if took is None else took)

    def _rests(self) -> None:
        self._rest = None
        if len(self.under_way) <= 1 and self.alive:
            self._transcript.listen(True)

    def look(self) -> float:
        """See to it that nothing takes too long; how many seconds until it is to be looked again."""
        if not self.under_way or not self.alive or self._failing is not None:
            return self.config.timeout
        took = time.monotonic() - self._began
        if took >= self.config.timeout:
            self._fail(self._timed_out())
            return self.config.timeout
        if took < PATIENCE_SECONDS or (len(self.under_way) > 1 and not self._has_begun()):
            return PATIENCE_SECONDS
        self._transcript.tell_start()
        if len(self.under_way) > 1:
            self._again(self._take_back())
        if len(self.under_way) == 1:  # else it has begun another, and answered the first
            self._transcript.listen(True)
        return self.config.timeout - took

    def _has_begun(self) -> bool:
        """Whether it runs the first request, and does not wait for a processor."""
        try:
            packet = self._theirs.recv(PACKET.size, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except OSError:
            return True
        return not packet or PACKET.unpack(packet)[1] != self.under_way[0].number

    def _take_back(self) -> list[Call]:
        """The requests that it has not begun; none of them will be."""
        packets, self._unsent = self._unsent, []
        with contextlib.suppress(OSError):
            while packet := self._theirs.recv(PACKET.size, socket.MSG_DONTWAIT):
                packets.append(packet)
        return self._without(packets)

    def _without(self, packets: list[bytes]) -> list[Call]:
        """Have these requests no longer under way, which it has not got. It may take one between two looks: what is
        left need not be the first of them."""
        numbers = {PACKET.unpack_from(packet)[1] for packet in packets}
        back = [call for call in self.under_way if call.number in numbers]
        first = self.under_way[0] if self.under_way else None
        self.under_way = deque(call for call in self.under_way if call.number not in numbers)
        if self.under_way and self.under_way[0] is not first:
            self._begin(self.under_way[0], rested=False)
        return back

    def _again(self, calls: list[Call]) -> None:
        if calls and self.owner is not None:
            self.owner.again(calls)
        else:
            for call in calls:
                call.fail(EOFError("the worker is gone"))

    def _lost(self, problem: Exception) -> None:
        """The process ended, or broke the protocol."""
        self._ended = True
        if not self.alive or self._failing is not None or not self.under_way:
            return
        back = self._take_back()
        if self.under_way:
            self._fail(self._exited())
        else:  # it ended by itself: none of them is what ends workers, and yet each of these may
            for call in back:
                call.moved += 1
            self.close()
        self._again(back)

    def _fail(self, failing: Coroutine[Any, Any, tuple[bytes, str]]) -> None:
        self._again(self._take_back())
        self._failing = asyncio.ensure_future(self._failed(failing))

    async def _failed(self, failing: Coroutine[Any, Any, tuple[bytes, str]]) -> None:
        try:
            payload, error = await failing
            self._end(error, payload)
            while self.under_way:  # begun too: between two looks, or taken by what the function itself started
                request_id = self.under_way[0].invocation.request_id
                self._end("Unhandled", failures.dump(failures.exited(request_id, 0, out_of_memory=False)))
        except BaseException:
            for call in self.under_way:
                call.answer.cancel()
            raise

    async def _timed_out(self) -> tuple[bytes, str]:
        request_id = self.under_way[0].invocation.request_id
        self.close()
        report = failures.timed_out(request_id, self.config.timeout)
        self._transcript.write([report["errorMessage"]])
        return failures.dump(report), "Unhandled"

    async def _exited(self) -> tuple[bytes, str]:
        return failures.dump(await self._exit_report(self.under_way[0].invocation.request_id)), "Unhandled"

    def exited(self) -> bool:
        return self._ended or super().exited()

    def close(self) -> None:
        super().close()
        self._ours.close()
        self._theirs.close()
        self._unsent.clear()
        if self.under_way and self._failing is None:
            self._failing = asyncio.ensure_future(self._failed(self._exited()))


def _is_small(call: Call) -> bool:
    """Whether it fits into a packet, however its texts are escaped in JSON."""
    known = call.is_small
    if known is None:
        invocation = call.invocation
        texts = len(invocation.request_id) + len(invocation.trace_id) + len(invocation.client_context)
        known = call.is_small = len(invocation.payload) + 6 * texts + ABOUT_BYTES < PACKET_BYTES_MAX
    return known


_KINDS: Final = (1 << KIND_BITS) - 1
_SECONDS: Final = [12e-6 * 2**number for number in range(_KINDS + 1)]
"""What a worker says of a duration, in the middle of what it may be."""

_WITH_OUTPUT = {with_output: kind for kind, with_output in WITH_OUTPUT.items()}
_ANSWERS = (*WITH_OUTPUT.keys(), *WITH_OUTPUT.values())
_PIECES: Final = (CHUNK, HEAD)
_KNOWN: Final = frozenset((*_ANSWERS, *_PIECES))
