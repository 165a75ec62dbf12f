"""A lane of a mapping: the records of some keys, delivered in their order, one batch after the other.

At least once: how far a lane is, is written down after the function was invoked. So what was under way when the node
was killed is delivered again.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from owsgit.model.errors import OwsgitError
from owsgit.model.service import Source, SourcePage, SourceRecord
from owsgit.services.event_sources.outcomes import Condition, Tried
from owsgit.services.event_sources.spec import EventSourceSpec

PAYLOAD_BYTES_MAX = 6 * 1024 * 1024
"""Lambda's limit for what a function is invoked with."""

ENVELOPE_BYTES = len(b'{"Records":[]}')
READ_RECORDS_MAX = 100
"""At once: they are taken apart in the event loop, which takes some milliseconds."""

READ_BYTES_MAX = 1024 * 1024
GATHER_SECONDS_MAX = 1.0
"""For which a batch is filled from a source that has more and more of which little is wanted, beside its window."""

POLL_SECONDS = 0.2
"""After which a source that had nothing more is asked again; at AWS a shard is, four times a second."""

RETRY_SECONDS_FIRST = 0.2
RETRY_SECONDS_MAX = 60.0
"""Waits before a batch is tried again, doubled each time."""

SAVE_SECONDS = 10.0
"""How often it is written down that records were passed over: they would only be passed over again."""

log = logging.getLogger("owsgit.event_sources")


class Feeding(Protocol):
    """What a lane needs of its mapping."""

    name: str
    spec: EventSourceSpec

    @property
    def source(self) -> Source: ...

    @property
    def stopping(self) -> bool: ...

    async def pause(self, seconds: float) -> None: ...

    def wants(self, record: SourceRecord) -> bool: ...

    def filtered(self) -> None: ...

    async def read(self, after: int, most: int, bytes_max: int, wanted: Callable[[bytes], bool]) -> SourcePage: ...

    async def invoke(self, records: Sequence[SourceRecord]) -> Tried: ...

    async def give_up(
        self, records: Sequence[SourceRecord], condition: Condition, invocations: int, tried: Tried | None
    ) -> bool: ...

    async def advance(self, lane: int, position: int) -> bool: ...

    def trouble(self, error: OwsgitError) -> None: ...


class Part(NamedTuple):
    """Records of a batch that are tried together; `failures` so far."""

    records: Sequence[SourceRecord]
    failures: int = 0


@dataclass
class Lane:
    """`position`: the number of the last record that was dealt with. `since`: when the oldest came that waits."""

    feed: Feeding
    number: int
    lanes: int
    position: int
    since: float | None = None
    _delay: float = 0.0
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._saved = self.position

    async def run(self) -> None:
        """Until the feed is to stop."""
        while not self.feed.stopping:
            try:
                records, through = await self._gather()
                if not records:
                    await self._pass_over(through)
                elif await self._deliver(records):
                    self.position = through
            except OwsgitError as error:  # the source cannot be read
                self.feed.trouble(error)
                await self._back_off()
            except Exception:  # whatever it is: nothing is passed over for it
                log.exception("event source %s", self.feed.name)
                await self._back_off()
        if self.position > self._saved:
            await self._advance(self.position)

    async def _gather(self) -> tuple[list[SourceRecord], int]:
        """A batch, and the number of the last record that was looked at for it. Empty if there is none now."""
        feed, spec = self.feed, self.feed.spec
        records: list[SourceRecord] = []
        size, through = ENVELOPE_BYTES, self.position
        ends = 0.0
        while not feed.stopping:
            most = min(READ_RECORDS_MAX, spec.batch_size * self.lanes)
            page = await feed.read(through, most, READ_BYTES_MAX, self._is_mine)
            await asyncio.sleep(0)  # a source may answer at once, again and again: others have their turn
            found = page.last > through
            for record in page.records:
                if self._is_wanted(record):
                    size += len(record.payload) + 1
                    if records and size > PAYLOAD_BYTES_MAX:
                        return records, through
                    if not records:
                        self.since = record.at
                        ends = time.monotonic() + spec.maximum_batching_window
                    records.append(record)
                through = record.number
                if len(records) == spec.batch_size:
                    return records, through
            through = page.last
            left = ends - time.monotonic()
            if (not found and (not records or left <= 0)) or (records and left <= -GATHER_SECONDS_MAX):
                return records, through
            if not found:
                await feed.pause(min(left, POLL_SECONDS))
        return [], self.position

    def _is_mine(self, key: bytes) -> bool:
        return self.lanes == 1 or zlib.crc32(key) % self.lanes == self.number

    def _is_wanted(self, record: SourceRecord) -> bool:
        wanted = self.feed.wants(record)
        if not wanted:
            self.feed.filtered()
        return wanted

    async def _pass_over(self, through: int) -> None:
        """Nothing of what was read is for this lane, and there is no more."""
        self.position, self.since = max(self.position, through), None
        if self.position > self._saved and time.monotonic() - self._saved_at > SAVE_SECONDS:
            await self._advance(self.position)
        await self.feed.pause(POLL_SECONDS)

    async def _advance(self, position: int) -> None:
        if await self.feed.advance(self.number, position):
            self.position = self._saved = position
            self._saved_at = time.monotonic()

    async def _deliver(self, records: Sequence[SourceRecord]) -> bool:
        """Until all of them are done or given up; False if the feed stops before."""
        parts = [Part(records)]  # the last one is the next
        while parts:
            part = await self._without_old(parts.pop())
            if self.feed.stopping:
                return False
            if not part.records:
                continue
            self.since = part.records[0].at
            tried = await self.feed.invoke(part.records)
            rest = part.records[tried.done :]
            if tried.done:
                self._delay = 0.0
                await self._advance(part.records[tried.done - 1].number)
            if not rest:
                continue
            if tried.answer is None:
                parts.append(part)
                await self._back_off()
                continue
            left = await self._failed(Part(rest, 0 if tried.done else part.failures), tried, whole=not tried.done)
            parts += left
        return True

    async def _failed(self, part: Part, tried: Tried, *, whole: bool) -> list[Part]:
        """What is tried next of what failed, in backward order. `whole`: no record before them was done."""
        spec, (records, failures) = self.feed.spec, part
        if spec.bisect_batch_on_function_error and whole and len(records) > 1:
            middle = len(records) // 2
            return [Part(records[middle:], failures), Part(records[:middle], failures)]
        failures += 1
        if 0 <= spec.maximum_retry_attempts < failures:
            return await self._given_up(Part(records, failures), Condition.RETRIES_EXHAUSTED, tried)
        await self._back_off()
        return [Part(records, failures)]

    async def _without_old(self, part: Part) -> Part:
        """What is not older than records may be; the others are given up."""
        age = self.feed.spec.maximum_record_age
        age_max = min(self.feed.source.retention_seconds, age if age > 0 else float("inf"))
        oldest = time.time() - age_max
        count = next((n for n, record in enumerate(part.records) if record.at >= oldest), len(part.records))
        if not count:
            return part
        old = Part(part.records[:count], part.failures)
        left = await self._given_up(old, Condition.RECORD_AGE_EXCEEDED, None)
        return part if left else Part(part.records[count:], part.failures)

    async def _given_up(self, part: Part, condition: Condition, tried: Tried | None) -> list[Part]:
        """What is left of it: nothing, unless the feed has to stop."""
        if not await self.feed.give_up(part.records, condition, part.failures, tried):
            return [part]
        await self._advance(part.records[-1].number)
        self._delay = 0.0
        return []

    async def _back_off(self) -> None:
        self._delay = min(max(RETRY_SECONDS_FIRST, self._delay * 2), RETRY_SECONDS_MAX)
        await self.feed.pause(self._delay)
