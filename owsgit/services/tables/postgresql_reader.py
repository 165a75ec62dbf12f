"""Reads from a PostgreSQL server. Gets that are asked for while others are under way are answered by one statement.

A read that asks for more than one statement gives is begun anew in a transaction that sees one moment.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from owsgit.services.tables import postgresql_queries as queries
from owsgit.services.tables.attempts import Known, Place, Reading, Stored
from owsgit.services.tables.engine import Key
from owsgit.services.tables.postgresql_connections import CHANGED, ERRORS, LOST, Connection, Connections, unavailable
from owsgit.services.tables.postgresql_schema import AbsentError, Schema, Shape, no_table

GETS_MAX = 256
"""Keys of one statement."""
SHORT_ROWS = 100
"""A work on more of them is run in a thread: the event loop has others to serve."""
ATTEMPTS_MAX = 3

Result = TypeVar("Result")


class Reader:
    """Of one event loop."""

    def __init__(self, gets: Connections, longer: Connections, schema: Schema) -> None:
        """`gets`: one connection for gets; `longer`: some for everything else."""
        self._longer = longer
        self._schema = schema
        self._gets = _Gets(gets, schema)

    async def read(self, tables: Collection[str], work: Callable[[Any], Result]) -> Result:
        named = frozenset(tables)
        first = Reading(named, Known())
        result: Result = first.run(work)
        if not first.is_void:
            return result
        for last in (False, False, True):
            try:
                return await self._read(named, work, first)
            except (AbsentError, *CHANGED) as error:
                self._schema.forget(named)
                failed: Exception = error
            except LOST as error:  # as after a restart of the server: there are new connections
                failed = error
            except ERRORS as error:
                raise unavailable(error) from None
            if last:
                break
        raise unavailable(failed) from None

    async def _read(self, named: frozenset[str], work: Callable[[Any], Result], first: Reading) -> Result:
        known = Known()
        if len({table for table, _ in first.missing}) == 1 and first.missing_span is None:
            known.stored = await self._gets.ask(list(first.missing))
            reading = Reading(named, known)
            result: Result = reading.run(work)
            if not reading.is_void:
                return result
        async with self._longer.acquire() as connection:
            shapes = await self._schema.shapes(connection, named)
            if first.missing_span is not None and not first.missing:
                known = Known()
                await self._find(connection, shapes, first, known)
                reading = Reading(named, known)
                result = await _run(reading, work, known)
                if not reading.is_void:
                    return result
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                reading, known = first, Known()
                while reading.is_void:
                    await self._find(connection, shapes, reading, known)
                    reading = Reading(named, known)
                    result = await _run(reading, work, known)
                return result

    async def _find(self, connection: Connection, shapes: dict[str, Shape], reading: Reading, known: Known) -> None:
        """What a reading asked for."""
        by_table: dict[str, list[Key]] = {}
        for table, key in reading.missing:
            by_table.setdefault(table, []).append(key)
        for table, keys in by_table.items():
            known.stored |= await queries.items(connection, self._schema, table, _shape(shapes, table), keys)
        span = reading.missing_span
        if span is not None:
            await queries.page(connection, self._schema, _shape(shapes, span.table), span, known)

    async def close(self) -> None:
        await self._gets.close()


def _shape(shapes: dict[str, Shape], table: str) -> Shape:
    found = shapes.get(table)
    if found is None:
        raise no_table(table)
    return found


async def _run(reading: Reading, work: Callable[[Any], Result], known: Known) -> Result:
    if sum(len(rows.rows) for rows in known.spans.values()) <= SHORT_ROWS:
        result: Result = reading.run(work)
        return result
    return await asyncio.to_thread(reading.run, work)


class _Gets:
    """Answers gets, all that wait by one statement for each table."""

    def __init__(self, connections: Connections, schema: Schema) -> None:
        self._connections = connections
        self._schema = schema
        self._waiting: list[tuple[list[Place], asyncio.Future[dict[Place, Stored | None]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, places: list[Place]) -> dict[Place, Stored | None]:
        """Of one table. Raises UnavailableError, and whatever is in ERRORS."""
        answer: asyncio.Future[dict[Place, Stored | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((places, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # for all that are asked for in this turn of the loop
            count, keys = 0, 0
            while count < len(self._waiting) and (not count or keys < GETS_MAX):
                keys += len(self._waiting[count][0])
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            try:
                async with self._connections.acquire() as connection:
                    for table in {places[0][0] for places, _ in taken}:
                        await self._answer(connection, table, [each for each in taken if each[0][0][0] == table])
            except Exception as error:
                for _, answer in taken:
                    if not answer.done():
                        answer.set_exception(error)

    async def _answer(
        self,
        connection: Connection,
        table: str,
        taken: list[tuple[list[Place], "asyncio.Future[dict[Place, Stored | None]]"]],
    ) -> None:
        try:
            shape = await self._schema.shape(connection, table)
            keys = list(dict.fromkeys(key for places, _ in taken for _, key in places))
            found = await queries.items(connection, self._schema, table, shape, keys)
        except (AbsentError, *CHANGED) as error:  # of this table alone
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for places, answer in taken:
            if not answer.done():
                answer.set_result({place: found[place] for place in places})

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
