"""Timeouts that are all of the same length: one timer for all that runs, where asyncio.timeout makes one for each."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


class Deadlines:
    """Cancels what takes longer than so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[asyncio.Task[object], float] = {}  # until when, the first first
        self._expired: set[asyncio.Task[object]] = set()
        self._armed = False

    async def within(self, work: Awaitable[Result]) -> Result:
        """What `work` comes to. Raises TimeoutError. Called once at a time by a task."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._running[task] = loop.time() + self._seconds
        if not self._armed:
            self._armed = True
            loop.call_later(self._seconds, self._expire, loop)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._running.pop(task, None)
            self._expired.discard(task)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._armed = False
        for task, until in list(self._running.items()):
            if until > now:
                self._armed = True
                loop.call_later(until - now, self._expire, loop)
                return
            del self._running[task]
            self._expired.add(task)
            task.cancel()
