"""Timeouts that are all of the same length: one timer for all that runs, where asyncio.timeout makes one for each."""

import asyncio
from types import TracebackType


class Deadlines:
    """A context that ends with TimeoutError after so many seconds. A task enters it once at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None  # which costs a system call to be asked for
        self._running: dict[asyncio.Task[object], float] = {}  # until when, the first first
        self._expired: set[asyncio.Task[object]] = set()
        self._armed = False

    def __enter__(self) -> None:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._running[task] = loop.time() + self._seconds
        if not self._armed:
            self._armed = True
            loop.call_later(self._seconds, self._expire, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        if self._running.pop(task, None) is None:
            self._expired.discard(task)
            if kind is asyncio.CancelledError and task.uncancel() == 0:
                raise TimeoutError from None

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
