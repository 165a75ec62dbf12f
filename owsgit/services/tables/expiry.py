"""Items that end of themselves: those whose time is over are removed, in the background, as with AWS some time later.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html. Until then they are shown. AWS does it within
days; here tables are gone through about once in `PAUSE_SECONDS`. Records of streams end here too, after a day.
"""

import asyncio
import logging
import time
from dataclasses import replace
from decimal import Decimal

from owsgit.model.errors import OwsgitError
from owsgit.services.tables.catalog import Catalog, Table
from owsgit.services.tables.engine import Position, Snapshot, Span, Transaction
from owsgit.services.tables.streams import RETENTION_SECONDS
from owsgit.services.tables.values import Item, load
from owsgit.services.tables.writing import Delete

PAUSE_SECONDS = 60.0
PAUSE_SHARE = 9
"""Of large tables: so many times as long as they took is paused at least."""
STEP_ROWS = 200
"""Rows that are looked at together."""
STEP_PAUSE_SECONDS = 0.02
"""Between steps: requests go first."""

OLD_SECONDS = 5 * 365 * 86400
"""What ended longer ago than that is taken for a mistake, and kept: AWS does so."""

log = logging.getLogger("owsgit.tables")


class Expiry:
    """Goes through the tables of a node that have a timeToLive."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            pause = PAUSE_SECONDS
            try:
                async with self._catalog.engine.alone("expiry") as mine:  # and in the pause: not every node in turn
                    if mine:
                        await asyncio.sleep(await self._sweep_all())
                        pause = 0.0
            except OwsgitError as error:
                log.warning("items that ended could not be removed: %s", error)
            await asyncio.sleep(pause)

    async def _sweep_all(self) -> float:
        """For how many seconds to pause."""
        began = time.monotonic()
        for table in self._catalog.here():
            try:
                if table.ends is not None:
                    await self.sweep(table, table.ends)
                if table.streams:
                    await self._catalog.engine.trim(table.name, time.time() - RETENTION_SECONDS)
            except OwsgitError as error:
                log.warning("%s: items that ended could not be removed: %s", table.name, error)
        return max(PAUSE_SECONDS, PAUSE_SHARE * (time.monotonic() - began))

    async def sweep(self, table: Table, attribute: str) -> int:
        """Remove what ended by now; how many items that were."""
        removed = 0
        span: Span | None = Span(table.name)
        while span is not None:
            ended, last = await self._step(span, attribute)
            if ended:
                removed += await self._remove(table, attribute, ended)
            span = replace(span, after=last) if last is not None else None
            await asyncio.sleep(STEP_PAUSE_SECONDS)
        return removed

    async def _step(self, span: Span, attribute: str) -> tuple[list[Position], Position | None]:
        """The items of one step that ended, and where it goes on."""
        now = time.time()

        def work(snapshot: Snapshot) -> tuple[list[Position], Position | None]:
            ended: list[Position] = []
            for count, row in enumerate(snapshot.rows(span), 1):
                if is_over(load(row.item), attribute, now):
                    ended.append(row.position)
                if count == STEP_ROWS:
                    return ended, row.position
            return ended, None

        return await self._catalog.engine.read([span.table], work)

    async def _remove(self, table: Table, attribute: str, positions: list[Position]) -> int:
        """They are looked at again: somebody may have given them more time."""
        now = time.time()

        def work(transaction: Transaction) -> int:
            removed = 0
            for position in positions:
                stored = transaction.get(table.name, position.key)
                if stored is not None and is_over(load(stored), attribute, now):
                    Delete(table, position.key).make(transaction, by_service=True)
                    removed += 1
            return removed

        return await self._catalog.engine.write([table.name], work)


def is_over(item: Item, attribute: str, now: float) -> bool:
    """Whether an item has ended."""
    value = item.get(attribute, {}).get("N")
    return value is not None and now - OLD_SECONDS < Decimal(value) < now
