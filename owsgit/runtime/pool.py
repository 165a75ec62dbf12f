"""The warm workers of one deployment of a function."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime import failures
from owsgit.runtime.budget import ASSUMED_BYTES, Budget, ThrottledError
from owsgit.runtime.config import InitError
from owsgit.runtime.worker import Worker

WAITING_MAX = 1000
"""Requests that wait for a worker of one function; more are answered at once with a throttle."""

REAP_SECONDS_MAX = 30.0
UNASKED_SECONDS = 60.0
"""How long a function that was deployed and never asked keeps the worker that showed that it starts."""

WARMING_AT_ONCE = 4
"""Provisioned workers that are started together: more would only wait for each other."""


@dataclass(frozen=True)
class Size:
    """How many workers a pool has, and for how long; `worker_bytes` is the most that one of them may use."""

    most: int
    provisioned: int = 0
    reserved: int = 0
    idle_seconds: float = 600.0
    worker_bytes: int = ASSUMED_BYTES


class Pool:
    """Keeps workers warm and hands each to one request at a time.

    `spawn` starts a worker. A worker that failed is replaced by the next request; a pool that is closed finishes what
    it has begun and takes nothing new.
    """

    def __init__(self, spawn: Callable[[], Awaitable[Worker]], size: Size, budget: Budget) -> None:
        self._spawn = spawn
        self._size = size
        self._slots = asyncio.Semaphore(size.most)
        self._budget = budget
        self._starting = 0
        self.waiting = 0
        self.idle: list[Worker] = []  # the longest idle first
        self._busy: set[Worker] = set()
        self.closed = False
        self._asked = False
        self.typical_bytes = ASSUMED_BYTES
        budget.tenants.add(self)
        self._reaper = asyncio.ensure_future(self._reap())

    async def warm(self) -> None:
        """Have a worker ready, and as many as are provisioned. Raises InitError if the code cannot be loaded."""
        self._put_back(await self._take())
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
        self._asked = True
        if self.waiting >= WAITING_MAX:
            raise ThrottledError("Rate Exceeded.", remedy="try again later, or raise maxConcurrency")
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        try:
            try:
                worker = await self._take()
            except InitError as error:
                return Answer(failures.dump(error.report), "Unhandled")
            self._busy.add(worker)
            try:
                return await worker.invoke(invocation)
            finally:
                self._busy.discard(worker)
                self._put_back(worker)
        finally:
            self._slots.release()

    async def _take(self) -> Worker:
        while self.idle:
            worker = self.idle.pop()
            if worker.alive and not worker.exited():
                return worker
            worker.close()
        return await self._start()

    async def _start(self) -> Worker:
        self._budget.make_room(self)
        self._starting += 1
        try:
            return await self._spawn()
        finally:
            self._starting -= 1

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
        if worker.alive and not self.closed:
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
