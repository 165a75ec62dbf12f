"""The warm workers of one deployment of a function, and the bound on all workers of a node."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime.config import InitError
from owsgit.runtime.worker import Worker

WAITING_MAX = 1000
"""Requests that wait for a worker of one function; more are answered at once with a throttle."""

IDLE_SECONDS_MAX = 600.0
"""A worker that nobody asked for so long is closed."""

REAP_SECONDS = 30.0
WORKERS_MAX = 64
"""Workers of one node, of all functions: about 1 GiB of idle Python."""


FEW_WORKERS = 2


class ThrottledError(OwsgitError):
    """More requests than workers and places to wait."""


class Budget:
    """Bounds the workers of a node: when it is used up, the worker that was idle longest makes room."""

    def __init__(self, workers_max: int = WORKERS_MAX) -> None:
        self.workers_max = workers_max
        self.count = 0
        self.pools: set[Pool] = set()

    def take(self, pool: "Pool") -> None:
        """Make room for one more worker of `pool`. Raises ThrottledError when there is none.

        A quarter of the places is kept for functions that have fewer than two workers, so that no function, however
        many requests it gets, keeps another one from its first worker.
        """
        few = pool.size < FEW_WORKERS
        limit = self.workers_max if few else self.workers_max - self.workers_max // 4
        if self.count >= limit:
            idle = [each for each in self.pools if each.idle and (few or each is pool or each.size > FEW_WORKERS)]
            if not idle:
                raise ThrottledError("all workers of this node are busy", remedy="try again, or add a node")
            min(idle, key=lambda each: each.idle[0].last_used).evict()
        self.count += 1

    def give(self) -> None:
        self.count -= 1


class Pool:
    """Keeps workers warm and hands each to one request at a time.

    `spawn` starts a worker. A worker that failed is replaced by the next request; a pool that is closed finishes what
    it has begun and takes nothing new.
    """

    def __init__(self, spawn: Callable[[], Awaitable[Worker]], workers_max: int, budget: Budget) -> None:
        self._spawn = spawn
        self._slots = asyncio.Semaphore(min(workers_max, budget.workers_max - budget.workers_max // 4))
        self._budget = budget
        self._waiting = 0
        self._starting = 0
        self.idle: list[Worker] = []  # the longest idle first
        self.busy = 0
        self.closed = False
        budget.pools.add(self)
        self._reaper = asyncio.ensure_future(self._reap())

    async def warm(self) -> None:
        """Have one worker ready. Raises InitError if the function's code cannot be loaded."""
        worker = await self._take()
        self._put_back(worker)

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Raises ThrottledError; what the function does wrong is in the Answer."""
        if self._waiting >= WAITING_MAX:
            raise ThrottledError("Rate Exceeded.", remedy="try again later, or raise maxConcurrency")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            try:
                worker = await self._take()
            except InitError as error:
                return Answer(json.dumps(error.report).encode(), "Unhandled")
            self.busy += 1
            try:
                return await worker.invoke(invocation)
            finally:
                self.busy -= 1
                self._put_back(worker)
        finally:
            self._slots.release()

    async def _take(self) -> Worker:
        while self.idle:
            worker = self.idle.pop()
            if worker.alive and not worker.exited():
                return worker
            self._discard(worker)
        self._budget.take(self)
        self._starting += 1
        try:
            return await self._spawn()
        except BaseException:
            self._budget.give()
            raise
        finally:
            self._starting -= 1

    @property
    def size(self) -> int:
        """Workers that it has, or is starting."""
        return len(self.idle) + self.busy + self._starting

    def _put_back(self, worker: Worker) -> None:
        if worker.alive and not self.closed:
            self.idle.append(worker)
        else:
            self._discard(worker)

    def _discard(self, worker: Worker) -> None:
        worker.close()
        self._budget.give()

    def evict(self) -> None:
        """Close the worker that was idle longest."""
        self._discard(self.idle.pop(0))

    def lost(self) -> int:
        """Idle workers that ended behind our back; they are cleared away."""
        gone = [worker for worker in self.idle if worker.exited()]
        for worker in gone:
            self.idle.remove(worker)
            self._discard(worker)
        return len(gone)

    def close(self) -> None:
        """Take no more workers in; those that are busy end after their request."""
        if self.closed:
            return
        self.closed = True
        self._budget.pools.discard(self)
        self._reaper.cancel()
        while self.idle:
            self.evict()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            while self.idle and time.monotonic() - self.idle[0].last_used > IDLE_SECONDS_MAX:
                self.evict()
