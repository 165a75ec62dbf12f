"""Asynchronous invocation: events are accepted into the store, and functions are invoked with them until they succeed
or are given up.

The rules are Lambda's: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
An event is invoked at least once. What a function says (an error, a throttle) never stops the events of another one.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.services.functions import listing, records
from owsgit.services.functions.event import Buried, Event
from owsgit.services.functions.events import EventStore
from owsgit.services.functions.lane import Lane, Places
from owsgit.services.functions.records import Condition, Outcome
from owsgit.services.functions.rules import DEPTH_MAX, RECORD_BYTES_MAX, Delays, Rules, check
from owsgit.services.functions.spec import AsyncInvoke

LOOK_SECONDS_MAX = 60.0
"""The clock may be set: what is due is looked up so often at least."""

PRUNE_SECONDS = 600.0
CLOSE_SECONDS_MAX = 3.0
"""For events that run as the node stops. Those that take longer are tried again after the start."""

log = logging.getLogger("owsgit.functions.events")
Result = TypeVar("Result")


class Dispatcher:
    """The queue of a node. Made in a running event loop; `rules` are None for functions that are not there."""

    def __init__(
        self,
        path: Path,
        invoke: Callable[[str, Invocation], Awaitable[Answer]],
        rules: Callable[[str], Rules | None],
        *,
        delays: Delays | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._invoke = invoke
        self._rules = rules
        self._delays = delays or Delays()
        self._now = now
        self._began = now()
        self._lanes: dict[str, Lane] = {}
        self._places = Places()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._accepting: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._store: EventStore | None = None
        try:
            self._opened()
        except UnavailableError as error:  # functions go on without it; whoever needs it is told
            log.error("%s", error)

    def _opened(self) -> EventStore:
        """Raises UnavailableError as long as the file cannot be used."""
        if self._store is None:
            self._store = EventStore(self._path)
            for resource in list(self._store.tally.waiting):
                for function in self._store.tally.names(resource):
                    self._wake(function)
            self._keep(self._prune(self._store))
        return self._store

    async def enqueue(self, name: str, invocation: Invocation, key: str = "", delay: float = 0.0) -> str:
        """Accept an event: it is on the disk when this returns the request id under which it is invoked.

        Raises InvalidError, ThrottledError beyond the bounds, UnavailableError if it cannot be written.
        """
        check(invocation, key, delay)
        now = self._now()
        event = Event(
            invocation.request_id, name, invocation.payload, now + delay, invocation.trace_id, invocation.client_context
        )
        return await self._whole(self._accept(event, key, now))

    async def _accept(self, event: Event, key: str, now: float) -> str:
        request_id = await self._opened().add(event, key, now)
        self._wake(event.function)
        return request_id

    def serves(self, name: str) -> None:
        """Function `name` runs (again), or runs another version: what waits for it need not wait longer."""
        for function in self._store.tally.names(name) if self._store is not None else ():
            if (lane := self._lanes.get(function)) is not None:
                lane.go_on()
                lane.wake.set()

    def facts(self, name: str) -> dict[str, Any]:
        """For status."""
        if self._store is None:
            return {}
        return listing.facts(self._store, name, self._places.taken_by[name], self._now())

    def events(self, name: str) -> dict[str, Any]:
        """What waits for a function, what runs, and what was given up. Raises UnavailableError."""
        store = self._opened()
        running = {lane.function: lane.running for lane in self._lanes.values()}
        return {"function": name, **self.facts(name), "events": listing.rows(store, name, running)}

    async def redrive(self, name: str, request_ids: Collection[str]) -> list[str]:
        """Have dead letters tried again, all if none is named; their request ids. Raises OwsgitError."""
        return await self._whole(self._redrive(name, request_ids))

    async def _redrive(self, name: str, request_ids: Collection[str]) -> list[str]:
        found = await self._opened().redrive(name, request_ids, self._now())
        for function in set(found.values()):
            self._wake(function)
        return list(found)

    async def drop(self, name: str, request_ids: Collection[str]) -> list[str]:
        """Forget dead letters, all if none is named; their request ids. Raises OwsgitError."""
        return list(await self._opened().drop(name, request_ids))

    async def close(self) -> None:
        """Stop. What runs may end, for a moment; what does not is tried again after the next start."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_SECONDS_MAX)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*self._accepting, return_exceptions=True)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)

    def _keep(self, work: Coroutine[Any, Any, None], tasks: "set[asyncio.Task[None]] | None" = None) -> None:
        kept = self._tasks if tasks is None else tasks
        task = asyncio.ensure_future(work)
        kept.add(task)
        task.add_done_callback(kept.discard)

    async def _whole(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do it to its end, also if the caller goes away: what is written has to be dispatched."""
        task = asyncio.ensure_future(work)
        self._accepting.add(task)
        task.add_done_callback(self._accepted)
        return await asyncio.shield(task)

    def _accepted(self, task: "asyncio.Task[Any]") -> None:
        self._accepting.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has it, if there is one

    def _wake(self, function: str) -> None:
        if self._closed:
            return
        lane = self._lanes.get(function)
        if lane is None:
            lane = self._lanes[function] = Lane(function)
            self._keep(self._tend(lane))
        lane.wake.set()

    async def _tend(self, lane: Lane) -> None:
        """Start what is due, until nothing waits in the lane any more."""
        while True:
            lane.wake.clear()
            try:
                seconds = self._start_due(lane)
            except Exception:  # whatever it is, such as a disk that cannot be read: the lane goes on when it can
                log.exception("the events of %s", lane.function)
                seconds = LOOK_SECONDS_MAX
            if seconds is None:
                del self._lanes[lane.function]
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):  # wait_for would lose a cancellation that comes with a wake
                    await lane.wake.wait()

    def _start_due(self, lane: Lane) -> float | None:
        """Start what is due; in how many seconds to look again if nothing happens. None if nothing waits or runs."""
        store, now = self._opened(), self._now()
        if now < lane.resumes:
            return min(lane.resumes - now, LOOK_SECONDS_MAX)
        rules = self._rules(lane.function)
        room = min(lane.room(rules.concurrency if rules is not None else 1), self._places.room(lane))
        if room <= 0:
            return LOOK_SECONDS_MAX
        waiting = store.read.due(lane.function, now, room, lane.running)
        next_due = waiting.next_due
        for event in waiting.events:
            self._places.take(lane, event.id)
            self._keep(self._serve(lane, event), self._running)
        if not lane.running and next_due is None:
            return None
        return LOOK_SECONDS_MAX if next_due is None else min(max(next_due - now, 0.0), LOOK_SECONDS_MAX)

    async def _serve(self, lane: Lane, event: Event) -> None:
        """Invoke with one event, and write down what became of it."""
        try:
            await self._one(lane, event)
        except Exception:  # whatever it is: the event is kept, and tried again as if the function had not run
            log.exception("event %s of %s", event.request_id, event.function)
            lane.hold_back(self._now(), self._delays.throttled_first, self._delays.throttled_max)
        finally:
            self._places.give(lane, event.id)

    async def _one(self, lane: Lane, event: Event) -> None:
        if self._is_too_old(event):
            await self._ended(event, Outcome(Condition.EVENT_AGE_EXCEEDED, event.errors))
            return
        invocation = Invocation(event.payload, event.request_id, event.trace_id, event.client_context)
        try:
            answer = await self._invoke(event.function, invocation)
        except OwsgitError as error:  # throttled, or not running: it was not invoked
            log.info("event %s of %s waits: %s", event.request_id, event.function, error.problems[0].message)
            lane.hold_back(self._now(), self._delays.throttled_first, self._delays.throttled_max)
            return
        lane.go_on()
        if answer.error is None:
            await self._ended(event, Outcome(Condition.SUCCESS, event.errors + 1, answer))
            return
        rules = self._rules(event.function)
        retries = (rules.asynchronous if rules is not None else AsyncInvoke()).maximum_retry_attempts
        if event.errors < retries:
            due = self._now() + self._delays.retries[min(event.errors, len(self._delays.retries) - 1)]
            await self._written(lambda store: store.try_again(event, due))
        else:
            await self._ended(event, Outcome(Condition.RETRIES_EXHAUSTED, event.errors + 1, answer))

    def _is_too_old(self, event: Event) -> bool:
        rules = self._rules(event.function)
        if rules is None and self._now() < self._began + self._delays.settling:
            return False
        age_max = (rules.asynchronous if rules is not None else AsyncInvoke()).maximum_event_age
        return self._now() - event.starts > age_max

    async def _ended(self, event: Event, outcome: Outcome) -> None:
        """Put the record into the destination's lane; without a destination, what failed becomes a dead letter."""
        rules, now = self._rules(event.function), self._now()
        if rules is None or (destination := rules.destination(outcome.condition)) is None:
            if outcome.condition is Condition.SUCCESS:
                await self._written(lambda store: store.done(event, None, None, now))
            else:
                await self._bury(event, outcome, str(outcome.condition))
            return
        record = await asyncio.to_thread(records.make, event, outcome, rules.arn_of(event), rules.version, now)
        if len(record) > RECORD_BYTES_MAX:
            await self._bury(event, outcome, "RecordTooLarge")
            return
        follower = Event(str(uuid.uuid4()), destination.function, record, now, event.trace_id, depth=event.depth + 1)
        stopped = Buried("RecursiveLoop", outcome.error) if follower.depth > DEPTH_MAX else None
        await self._written(lambda store: store.done(event, follower, stopped, now))
        self._wake(follower.function)

    async def _bury(self, event: Event, outcome: Outcome, reason: str) -> None:
        log.info("event %s of %s is a dead letter: %s", event.request_id, event.function, reason)
        told, now = replace(event, errors=outcome.invocations), self._now()
        await self._written(lambda store: store.bury(told, Buried(reason, outcome.error), now))

    async def _written(self, write: Callable[[EventStore], Awaitable[None]]) -> None:
        """Until it is written: the function has run, and is not to run again for want of a place on the disk."""
        while True:
            try:
                return await write(self._opened())
            except UnavailableError as error:
                log.warning("%s", error)
                await asyncio.sleep(self._delays.write_again)

    async def _prune(self, store: EventStore) -> None:
        while True:
            with contextlib.suppress(OwsgitError):  # a full disk: the next time
                await store.prune(self._now())
            await asyncio.sleep(PRUNE_SECONDS)
