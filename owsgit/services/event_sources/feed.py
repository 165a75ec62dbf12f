"""One mapping at work: its lanes, started and ended as the mapping is changed, and what is known of how they do."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from owsgit.model.errors import OwsgitError
from owsgit.model.event_pattern import Pattern
from owsgit.model.service import Invocation, Source, SourcePage, SourceRecord, Target
from owsgit.services.event_sources import outcomes
from owsgit.services.event_sources.checkpoints import Checkpoints
from owsgit.services.event_sources.lane import Lane
from owsgit.services.event_sources.outcomes import Condition, Tried
from owsgit.services.event_sources.spec import EventSourceSpec

CLOSE_SECONDS_MAX = 3.0
"""For batches that are under way as the node stops. Those that take longer are delivered again after the start."""

TRY_AGAIN_SECONDS = 1.0
"""Before a source that cannot be read is read again, and what became of a batch is written again."""

log = logging.getLogger("owsgit.event_sources")


@dataclass(frozen=True)
class Surroundings:
    """What all feeds of a node need."""

    sources: Mapping[str, Source]
    functions: Callable[[], Target]
    checkpoints: Checkpoints
    function_arn: Callable[[str], str]  # of a function's name, which may be qualified
    now: Callable[[], float] = time.time


@dataclass
class Counts:
    """Records since the node's start, by what became of them."""

    delivered: int = 0
    filtered: int = 0
    discarded: int = 0


@dataclass
class Feed:
    """Made in a running event loop. `begin` before anything else."""

    name: str
    spec: EventSourceSpec
    around: Surroundings
    counts: Counts = field(default_factory=Counts)
    result: str = "No records processed"
    lanes: list[Lane] = field(default_factory=list)
    changed: float = 0.0  # when the spec came, in seconds since 1970

    def __post_init__(self) -> None:
        self.kind, self.of = self.spec.source.named()
        self._stop = asyncio.Event()  # what runs is to end
        self._configured = asyncio.Event()  # there is something new in the spec
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._take(self.spec)

    def _take(self, spec: EventSourceSpec) -> None:
        self.spec, self.changed = spec, self.around.now()
        self._patterns = [Pattern(each) for each in spec.filters]

    @property
    def source(self) -> Source:
        return self.around.sources[self.kind]

    async def begin(self) -> None:
        """Start it where it was, or where the mapping says. Where that is, is on the disk by then. Idempotent.

        Raises UnavailableError.
        """
        if not await self.around.checkpoints.positions(self.name):
            latest = self.spec.starting_position == "LATEST"
            position = await self.source.newest(self.of) if latest else self.source.horizon(self.of)
            await self.around.checkpoints.replace(self.name, [position])
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    def configure(self, spec: EventSourceSpec) -> None:
        """Take what counts from the next batch on. Batches that are under way end first."""
        before = self.spec
        self._take(spec)
        if (before.enabled, before.parallelization_factor) != (spec.enabled, spec.parallelization_factor):
            self._stop.set()
        self._configured.set()

    @property
    def runs(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def close(self, seconds: float = CLOSE_SECONDS_MAX) -> None:
        """End it. What is under way may end, for so long."""
        task, self._task = self._task, None
        if task is None:
            return
        self._closing = True
        self._stop.set()
        self._configured.set()
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._closing:
            self._stop.clear()
            self._configured.clear()
            if not self.spec.enabled:
                await self._configured.wait()
                continue
            try:
                positions = await self._positions(self.spec.parallelization_factor)
            except OwsgitError as error:
                self.trouble(error)
                await self.pause(TRY_AGAIN_SECONDS)
                continue
            self.lanes = [Lane(self, number, len(positions), at) for number, at in enumerate(positions)]
            async with asyncio.TaskGroup() as group:
                for lane in self.lanes:
                    group.create_task(lane.run())
            self.lanes = []

    async def _positions(self, factor: int) -> list[int]:
        """Where each lane goes on. With another number of lanes than before, all do where the last of them was."""
        newest = await self.source.newest(self.of)  # less than what is written down, of a table from an older backup
        found = [min(position, newest) for position in await self.around.checkpoints.positions(self.name)]
        if len(found) != factor:
            found = [min(found)] * factor
            await self.around.checkpoints.replace(self.name, found)
        return found

    # -- what lanes ask for ----------------------------------------------------------------------------------------

    async def pause(self, seconds: float) -> None:
        """Wait, but not if the feed is to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def wants(self, record: SourceRecord) -> bool:
        if not self._patterns:
            return True
        event = orjson.loads(record.payload)
        return any(pattern.matches(event) for pattern in self._patterns)

    def filtered(self) -> None:
        """A record that is not wanted was passed over."""
        self.counts.filtered += 1

    async def read(self, after: int, most: int, bytes_max: int, wanted: Callable[[bytes], bool]) -> SourcePage:
        return await self.source.read(self.of, after, most, bytes_max, wanted)

    async def invoke(self, records: Sequence[SourceRecord]) -> Tried:
        """Invoke the function with a batch."""
        payload = b'{"Records":[' + b",".join(record.payload for record in records) + b"]}"
        invocation = Invocation(payload, str(uuid.uuid4()))
        try:
            answer = await self.around.functions().invoke(self.spec.function, invocation)
        except OwsgitError as error:
            self.trouble(error)
            return Tried(0, request_id=invocation.request_id, problem=error.problems[0].message)
        if answer.error is not None:
            done, self.result = 0, "PROBLEM: Function call failed"
        else:
            done = outcomes.done_of(records, answer.payload) if self.spec.reports else len(records)
            self.result = "OK" if done == len(records) else "PROBLEM: Function reported failed records"
        self.counts.delivered += done
        return Tried(done, answer, invocation.request_id)

    async def give_up(
        self, records: Sequence[SourceRecord], condition: Condition, invocations: int, tried: Tried | None
    ) -> bool:
        """Tell the destination, durably; whether that was done before the feed had to stop."""
        log.warning(
            "event source %s: %s records from %s to %s are given up: %s",
            self.name,
            len(records),
            records[0].identifier,
            records[-1].identifier,
            condition,
        )
        if self.spec.on_failure is not None:
            arn, batch = self.around.function_arn(self.spec.function), self.source.batch(self.of, records)
            told = outcomes.record(condition, invocations, tried, arn, batch, self.around.now())
            function = self.spec.on_failure.function
            if not await self._until(
                lambda: self.around.functions().enqueue(function, Invocation(told, str(uuid.uuid4())))
            ):
                return False
        self.counts.discarded += len(records)
        return True

    async def advance(self, lane: int, position: int) -> bool:
        """Have it on the disk how far a lane is; whether that was done before the feed had to stop."""
        return await self._until(lambda: self.around.checkpoints.advance(self.name, lane, position))

    async def _until(self, work: Callable[[], Awaitable[Any]]) -> bool:
        """Try until it is done, once at least."""
        while True:
            try:
                await work()
            except OwsgitError as error:
                self.trouble(error)
                await self.pause(TRY_AGAIN_SECONDS)
                if self.stopping:
                    return False
            else:
                return True

    def trouble(self, error: OwsgitError) -> None:
        problem = error.problems[0].message
        told = f"PROBLEM: {problem}"
        if told != self.result:
            log.warning("event source %s: %s", self.name, problem)
        self.result = told

    # -- for status ------------------------------------------------------------------------------------------------

    @property
    def age(self) -> float:
        """Seconds since the oldest record came that waits here: Lambda's IteratorAge."""
        waiting = [lane.since for lane in self.lanes if lane.since is not None]
        return max(0.0, self.around.now() - min(waiting)) if waiting else 0.0

    def facts(self) -> dict[str, Any]:
        return {
            "state": "Enabled" if self.spec.enabled else "Disabled",
            "lastResult": self.result,
            "iteratorAge": round(self.age, 3),
            "records": dict(vars(self.counts)),
        }
