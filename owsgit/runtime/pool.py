"""The warm workers of one deployment of a function."""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime import failures
from owsgit.runtime.budget import ASSUMED_BYTES, Budget, ThrottledError
from owsgit.runtime.call import Call
from owsgit.runtime.config import InitError
from owsgit.runtime.queued import DEPTH, PATIENCE_SECONDS, QueuedWorker
from owsgit.runtime.worker import NotBegunError, Worker

MOVES_MAX: Final = 3
"""How often a request is given to another worker, as one after the other ends before it begins."""

WAITING_MAX: Final = 1000
"""Requests that wait for a worker of one function; more are answered at once with a throttle."""

REAP_SECONDS_MAX = 30.0
UNASKED_SECONDS = 60.0
"""How long a function that was deployed and never asked keeps the worker that showed that it starts."""

WARMING_AT_ONCE = 4
"""Provisioned workers that are started together: more would only wait for each other."""

PROCESSORS = len(os.sched_getaffinity(0))
STARTING_AT_ONCE = max(4, 2 * PROCESSORS)
"""Workers that are started together for requests: a start needs a processor, and meanwhile others may have answered."""

BRIEF_SECONDS: Final = 0.001
"""To wait behind a request of so long costs less than to wake another process."""

WAKE_SECONDS = 0.0001
AWAKE_SECONDS = 0.0002
"""Who asks for one request of so short a time waits for its answer awake, but not longer than the second."""

WAIT_SECONDS = 0.002
DRAIN_SECONDS = 0.02
"""To wait so long costs less than to start another process: the first as long as there are processors for more, the
second when there are none, and others would only take turns with those that are there."""


@dataclass(frozen=True)
class Size:
    """How many workers a pool has, and for how long; `worker_bytes` is the most that one of them may use."""

    most: int
    provisioned: int = 0
    reserved: int = 0
    idle_seconds: float = 600.0
    worker_bytes: int = ASSUMED_BYTES


class Pool:
    """Keeps workers warm and has each run one request at a time.

    `spawn` starts a worker. A worker that failed is replaced by the next request; a pool that is closed finishes what
    it has begun and takes nothing new. Where requests are brief, they wait behind others in the worker itself.
    """

    def __init__(self, spawn: Callable[[], Awaitable[Worker]], size: Size, budget: Budget) -> None:
        self._spawn = spawn
        self._size = size
        self._budget = budget
        self._starting = 0
        self._growing = False  # whether it is about to be looked at what waits
        self._calls: deque[Call] = deque()  # what waits for a worker, the longest waiting first
        self.idle: list[Worker] = []  # the longest idle first
        self._busy: dict[Worker, None] = {}
        self._queued = False  # whether requests can wait in its workers
        self._typical: float | None = None  # seconds of a request, where they can
        self._tasks: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._awake_until = 0.0
        self.closed = False
        self._asked = False
        self.typical_bytes = ASSUMED_BYTES
        budget.tenants.add(self)
        self._loop = asyncio.get_running_loop()  # asked for with each request, it costs a system call
        self._reaper = asyncio.ensure_future(self._reap())

    async def warm(self) -> None:
        """Have a worker ready, and as many as are provisioned. Raises InitError if the code cannot be loaded."""
        self._put_back(self._idle() or await self._start())
        await self._provision()

    async def _provision(self) -> None:
        while (missing := self._size.provisioned - self.size) > 0 and not self.closed:
            together = range(min(missing, WARMING_AT_ONCE))
            started = await asyncio.gather(*(self._add() for _ in together), return_exceptions=True)
            for each in started:
                if isinstance(each, BaseException):
                    raise each

    async def _add(self) -> None:
        self._put_back(await self._start())

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Raises ThrottledError; what the function does wrong is in the Answer."""
        return await self.submit(invocation).answer

    def submit(self, invocation: Invocation) -> Call:
        """Have one request answered. Raises ThrottledError, now or from the call's answer."""
        self._asked = True
        call = Call(invocation, self._loop.create_future())
        if self._calls or not self._give(call):
            if len(self._calls) >= WAITING_MAX:
                raise ThrottledError("Rate Exceeded.", remedy="try again later, or raise maxConcurrency")
            self._calls.append(call)
            self._grow_soon()
        self._look_in(PATIENCE_SECONDS, time.monotonic())
        return call

    def _give(self, call: Call) -> bool:
        """Hand it to a worker, if there is one for it."""
        worker = self._behind(call, BRIEF_SECONDS) or self._idle() or self._behind(call, WAIT_SECONDS)
        if worker is None:
            return False
        if isinstance(worker, QueuedWorker):
            alone = not self._busy
            self._busy[worker] = None
            worker.ask(call, alone=alone)
            if alone and self._typical is not None and self._typical < WAKE_SECONDS and PROCESSORS > 1:
                self._awake_until = time.monotonic() + AWAKE_SECONDS
                self._loop.call_soon(self._stay_awake)
        else:
            self._busy[worker] = None
            self._keep(asyncio.ensure_future(self._run(worker, call)))
        return True

    def _stay_awake(self) -> None:
        """Keep the loop turning while the only request is answered: that is sooner than the node would be awake again,
        and its processor's caches full."""
        if len(self._busy) == 1 and time.monotonic() < self._awake_until:
            self._loop.call_soon(self._stay_awake)

    def _behind(self, call: Call, seconds: float) -> Worker | None:
        """A worker that is through in `seconds` with what it has."""
        if self._typical is None or self._typical >= seconds:
            return None
        most = min(seconds / self._typical, DEPTH)  # looked at here already: there is one full worker after the other
        for worker in self._busy:
            if isinstance(worker, QueuedWorker) and len(worker.under_way) < most and worker.has_room(call):
                return worker
        return None

    def _idle(self) -> Worker | None:
        while self.idle:
            worker = self.idle.pop()
            if worker.alive and not worker.exited():
                return worker
            worker.close()
        return None

    async def _run(self, worker: Worker, call: Call) -> None:
        try:
            call.resolve(await worker.invoke(call.invocation))
        except asyncio.CancelledError:
            call.answer.cancel()
            raise
        except NotBegunError:
            self._move(call)
        except Exception as error:
            call.fail(error)
        finally:
            self._free(worker)

    def _move(self, call: Call) -> None:
        call.moved += 1
        self._calls.extendleft(self._not_given_up([call]))

    @staticmethod
    def _not_given_up(calls: list[Call]) -> list[Call]:
        """Those that may still be given to another worker; the others are answered."""
        for call in calls:
            if call.moved > MOVES_MAX:
                report = failures.exited(call.invocation.request_id, 0, out_of_memory=False)
                call.resolve(Answer(failures.dump(report), "Unhandled"))
        return [call for call in calls if call.moved <= MOVES_MAX]

    def answered(self, worker: QueuedWorker, seconds: float) -> None:
        """Called by a worker when it has room for more."""
        self._learn(seconds)
        if not worker.alive:
            self._free(worker)
            return
        while self._calls and (not worker.under_way or self._fits_behind(worker, self._calls[0])):
            if (call := self._next()) is not None:
                worker.ask(call, alone=False)
        if not worker.under_way:
            self._free(worker)

    def _fits_behind(self, worker: QueuedWorker, call: Call) -> bool:
        """Whether a worker of brief requests takes one more, and is soon through with what it has."""
        typical, waiting = self._typical, len(worker.under_way)
        return typical is not None and waiting < DEPTH and waiting * typical < WAIT_SECONDS and worker.has_room(call)

    def _learn(self, seconds: float) -> None:
        """Brief ones count for more: on a busy machine others take longer than they need."""
        typical = self._typical
        if typical is None:
            self._typical = seconds
        else:
            self._typical = typical + (seconds - typical) / (4 if seconds < typical else 32)

    def again(self, calls: list[Call]) -> None:
        """Called by a worker with what it has not begun."""
        self._calls.extendleft(reversed(self._not_given_up(calls)))
        self._loop.call_soon(self._serve_again)

    def _serve_again(self) -> None:
        for worker in list(self._busy):
            if isinstance(worker, QueuedWorker) and not worker.under_way:
                self._busy.pop(worker)
                self._put_back(worker)
        self._serve()

    def _free(self, worker: Worker) -> None:
        self._busy.pop(worker, None)
        self._put_back(worker)
        self._serve()

    def _serve(self) -> None:
        """Hand out what waits, as far as there are workers; have others started."""
        while self._calls:
            call = self._next()
            if call is not None and not self._give(call):
                self._calls.appendleft(call)
                break
        if self._calls:
            self._grow_soon()
            self._look_in(PATIENCE_SECONDS, time.monotonic())
        while self.closed and self.idle:
            self.evict()

    def _next(self) -> Call | None:
        """The call that waits longest; None if nobody wants its answer any more."""
        call = self._calls.popleft()
        return None if call.answer.done() else call

    def _grow_soon(self) -> None:
        """Look at what waits once for all that comes in this turn of the loop."""
        if not self._growing:
            self._growing = True
            self._loop.call_soon(self._grow)

    def _grow(self) -> None:
        """Start workers for what waits."""
        self._growing = False
        for _ in range(self._missing()):
            try:
                self._budget.make_room(self)
            except ThrottledError as error:
                if not self._moving():
                    self._calls.pop().fail(error)
                continue
            self._starting += 1
            self._keep(asyncio.ensure_future(self._start_for_call()))

    def _missing(self) -> int:
        missing = min(len(self._calls) - self._starting, self._size.most - self.size)
        if missing <= 0 or not self._queued:
            return max(missing, 0)
        moving, typical = self._moving(), self._typical
        if not moving or typical is None:
            return min(missing, max(0, STARTING_AT_ONCE - self._starting))
        drained = len(self._calls) * typical / moving
        return int(drained > (WAIT_SECONDS if moving + self._starting < PROCESSORS - 1 else DRAIN_SECONDS))

    def _moving(self) -> int:
        """Workers whose requests are brief, now as well."""
        if self._typical is None or self._typical >= WAIT_SECONDS:
            return 0
        return sum(isinstance(worker, QueuedWorker) and not worker.is_slow for worker in self._busy)

    def _keep(self, task: "asyncio.Future[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_for_call(self) -> None:
        worker: Worker | None = None
        error: Exception | None = None
        try:
            worker = self._owned(await self._spawn())
        except Exception as caught:
            error = caught
        finally:
            self._starting -= 1
        if worker is not None:
            self._put_back(worker)
        elif self._calls:
            call = self._calls.popleft()
            if isinstance(error, InitError):
                call.resolve(Answer(failures.dump(error.report), "Unhandled"))
            elif error is not None:
                call.fail(error)
        self._serve()

    def _owned(self, worker: Worker) -> Worker:
        if isinstance(worker, QueuedWorker):
            worker.owner = self
            self._queued = True
        return worker

    async def _start(self) -> Worker:
        self._budget.make_room(self)
        self._starting += 1
        try:
            return self._owned(await self._spawn())
        finally:
            self._starting -= 1

    def _look_in(self, seconds: float, now: float) -> None:
        """Look in so many seconds what takes too long, if not before."""
        at = now + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """See to what takes too long. One timer for all requests: one for each would cost more than a brief request."""
        self._timer = None
        now = time.monotonic()
        soonest = REAP_SECONDS_MAX
        for worker in list(self._busy):
            if isinstance(worker, QueuedWorker):
                soonest = min(soonest, worker.look())
        if self._calls:
            soonest = min(soonest, PATIENCE_SECONDS)
            self._grow()
        if self._calls or any(isinstance(worker, QueuedWorker) for worker in self._busy):
            self._look_in(max(soonest, 0.0), now)

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return len(self._calls)

    @property
    def busy(self) -> int:
        """Workers that answer a request."""
        return len(self._busy)

    @property
    def size(self) -> int:
        """Workers that it has, or is starting."""
        return len(self.idle) + self.busy + self._starting

    @property
    def memory_bytes(self) -> int:
        """What they use, as far as it is known."""
        known = sum(each.memory_bytes or self.typical_bytes for each in (*self.idle, *self._busy))
        return known + self._starting * self.typical_bytes

    @property
    def reserved(self) -> int:
        return self._size.reserved

    @property
    def reserved_bytes(self) -> int:
        return max(0, self._size.reserved - self.size) * self._size.worker_bytes

    @property
    def promised_bytes(self) -> int:
        return self._size.reserved * self._size.worker_bytes

    def _put_back(self, worker: Worker) -> None:
        self.typical_bytes = min(max(self.typical_bytes, worker.memory_bytes), self._budget.memory_bytes // 2)
        if worker.alive and (not self.closed or self._calls):
            self.idle.append(worker)
        else:
            worker.close()

    def idle_since(self) -> float | None:
        if len(self.idle) + self.busy <= self._size.provisioned or not self.idle:
            return None
        return self.idle[0].last_used

    def evict(self) -> None:
        """Close the worker that was idle longest."""
        self.idle.pop(0).close()

    def lost(self) -> int:
        """Idle workers that ended behind our back; they are cleared away."""
        gone = [worker for worker in self.idle if worker.exited()]
        for worker in gone:
            self.idle.remove(worker)
            worker.close()
        return len(gone)

    def close(self) -> None:
        """Take no more workers in; those that are busy end after their request."""
        if self.closed:
            return
        self.closed = True
        self._budget.tenants.discard(self)
        self._reaper.cancel()
        while self.idle:
            self.evict()

    async def _reap(self) -> None:
        """End workers that nobody asks, and keep the provisioned ones there."""
        while True:
            await asyncio.sleep(min(REAP_SECONDS_MAX, self._size.idle_seconds / 2))
            most = self._size.idle_seconds if self._asked else min(self._size.idle_seconds, UNASKED_SECONDS)
            while (since := self.idle_since()) is not None and time.monotonic() - since > most:
                self.evict()
            self.lost()
            with contextlib.suppress(OwsgitError):  # whoever asks next is told
                await self._provision()
