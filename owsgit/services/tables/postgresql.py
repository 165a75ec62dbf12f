"""The engine of tables beyond one machine: a PostgreSQL server, of which every node of the project serves all tables.

See `postgresql_schema` for how tables lie in it, `attempts` for how works, which cannot wait, are run over a network,
`postgresql_writer` for transactions, `postgresql_reader` for reads, `postgresql_connections` for errors and times.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from owsgit.services.tables import attempts
from owsgit.services.tables import postgresql_chores as chores
from owsgit.services.tables.engine import Engine, Entry, Facts, Key, Logged, Snapshot, Transaction
from owsgit.services.tables.postgresql_connections import ERRORS, Connection, Connections, end, unavailable
from owsgit.services.tables.postgresql_reader import Reader
from owsgit.services.tables.postgresql_schema import Label, Schema, Shape, unlabelled
from owsgit.services.tables.postgresql_writer import Writer

READS = 4
"""Connections for queries and scans, of each node."""
CHORES = 3
"""Connections for what is done in the background, and for changes of tables."""
REFILLS = 2
"""Indexes that a node builds at once."""
LOCKS = REFILLS + 1
"""Connections that hold the lock of a task."""
TURN_SECONDS = 1.0
"""After which is looked again whether another node is done with a task."""

Result = TypeVar("Result")


class PostgresqlEngine(Engine):
    """Of one event loop; several may have one database."""

    def __init__(
        self, address: Callable[[], str], *, schema: str = "owsgit", project: str = "", identity: str = ""
    ) -> None:
        """Connects when it is needed.

        `address`: of the database, as libpq takes it; asked for with each connection. `project` has the schema for
        itself. `identity`: of the database that it has to be, if that is known.
        """
        self._schema = Schema(schema, project, identity)
        self._connections = [Connections(address, most, self._schema.check) for most in (1, 1, READS, CHORES, LOCKS)]
        writes, gets, reads, self._chores, self._locks = self._connections
        self._refills = asyncio.Semaphore(REFILLS)
        self._writer = Writer(writes, self._schema)
        self._reader = Reader(gets, reads, self._schema)

    async def create(
        self, table: str, indexes: Collection[str], *, commit: str = "", label: Label = unlabelled
    ) -> None:
        """`commit` and what `label` gives are kept with each change: see `shape`. `label` gets what there was before,
        and the number of the stream's last record."""
        with _told():
            await self._schema.create(self._chores, table, indexes, commit, label)

    @property
    def relaxed(self) -> bool:
        """Whether writes are answered before they are on the server's disk."""
        return self._writer.relaxed

    @relaxed.setter
    def relaxed(self, value: bool) -> None:
        self._writer.relaxed = value

    def gives(self, table: str, indexes: Collection[str]) -> None:
        self._writer.knows[table] = frozenset(indexes)

    async def drop(self, table: str) -> None:
        with _told():
            await self._schema.drop(self._chores, table)
        self._writer.knows.pop(table, None)

    async def drop_empty(self, table: str) -> int:
        """The same, unless it has items: how many that are."""
        with _told():
            items = await self._schema.drop(self._chores, table, unless_items=True)
        if not items:
            self._writer.knows.pop(table, None)
        return items

    async def shape(self, table: str) -> Shape | None:
        """What the table is in the database; None if it is not there."""
        self._schema.forget([table])
        async with self._connection() as connection:
            return (await self._schema.shapes(connection, [table])).get(table)

    async def identity(self) -> str:
        """Of the database: it is another's if it is another."""
        async with self._connection():
            return self._schema.identity

    async def look(self) -> None:
        """Have connections end that are to another address than the present one."""
        await asyncio.gather(*(each.look() for each in self._connections))

    @property
    def problem(self) -> str:
        """Why the server cannot be used, as far as that is known; '' if nothing is wrong."""
        return max(self._connections, key=lambda each: each.tried).problem

    async def write(self, tables: Collection[str], work: Callable[[Transaction], Result]) -> Result:
        return await self._writer.do(tables, work)

    async def get(self, table: str, key: Key) -> bytes | None:
        return await self.read([table], lambda snapshot: snapshot.get(table, key))

    async def read(self, tables: Collection[str], work: Callable[[Snapshot], Result]) -> Result:
        return await self._reader.read(tables, work)

    def segment_of(self, hash_key: bytes, segments: int) -> int:
        return attempts.segment_of(hash_key, segments)

    async def refill(
        self, table: str, index: str, entry: Callable[[bytes], Entry | None], told: Callable[[int], None]
    ) -> None:
        """One node does it at a time; the others wait for it, and one of them goes on if that is lost."""
        while True:
            async with self._refills, self.alone(f"refill {table} {index}") as mine:
                while mine:
                    async with self._table(table) as (connection, shape):
                        step = await chores.refill(connection, self._schema, shape, table, index)
                    done, filled = step.done, step.filled
                    if not filled:
                        done, filled = await self._writer.do([table], lambda work, step=step: step.make(work, entry))  # type: ignore[misc]
                    told(done)
                    if filled:
                        return
            await asyncio.sleep(TURN_SECONDS)
            async with self._table(table) as (connection, shape):
                step = await chores.progress(connection, self._schema, shape, table, index)
            told(step.done)
            if step.filled:
                return

    async def is_filled(self, table: str, index: str) -> bool:
        async with self._table(table) as (connection, shape):
            if index not in shape.indexes:
                return False
            return (await chores.progress(connection, self._schema, shape, table, index)).filled

    async def facts(self, table: str) -> Facts:
        """`bytes` is the length of the items as they were given."""
        async with self._table(table) as (connection, shape):
            rows = await connection.fetch(
                "SELECT index_id, sum(items)::bigint, sum(bytes)::bigint"  # noqa: S608 - a checked name
                f" FROM {self._schema.name}.counts WHERE table_id = $1 GROUP BY index_id",
                shape.id,
            )
        counts = {id_: (items, size) for id_, items, size in rows}
        entries = {name: counts.get(id_, (0, 0))[0] for name, id_ in shape.indexes.items()}
        return Facts(*counts.get(0, (0, 0)), entries)

    async def logged(self, table: str, after: int, most: int, bytes_max: int | None = None) -> list[Logged]:
        async with self._table(table) as (connection, shape):
            rows = await connection.fetch(
                "SELECT number, at, record FROM ("  # noqa: S608 - a number of our own
                "SELECT *, sum(octet_length(record)) OVER (ORDER BY number) AS size, row_number() OVER () AS n FROM ("
                f"SELECT number, at, record FROM {self._schema.stream(shape)}"
                " WHERE number > $1 ORDER BY number LIMIT $2"
                ") found) sized WHERE n = 1 OR $3::bigint IS NULL OR size <= $3 ORDER BY number",
                after,
                most,
                bytes_max,
            )
        return [Logged(*row) for row in rows]

    async def last_logged(self, table: str) -> int:
        async with self._table(table) as (connection, shape):
            return int(
                await connection.fetchval(
                    f"SELECT number FROM {self._schema.name}.streams WHERE table_id = $1",  # noqa: S608 - a checked name
                    shape.id,
                )
            )

    async def trim(self, table: str, before: float) -> None:
        more = True
        while more:
            async with self._table(table) as (connection, shape):
                more = await chores.trim(connection, self._schema, shape, before)

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[bool]:
        """The database's lock for a task, while its connection lasts."""
        lock = self._schema.task_lock(what)
        with _told():
            async with self._locks.acquire() as connection:
                mine: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock)
                try:
                    yield mine
                finally:
                    if mine:
                        try:
                            await connection.execute("SELECT pg_advisory_unlock($1)", lock)
                        except ERRORS:  # the lock ends with the connection
                            end(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        with _told():
            async with self._chores.acquire() as connection:
                yield connection

    @asynccontextmanager
    async def _table(self, table: str) -> AsyncIterator[tuple[Connection, Shape]]:
        """A table as it is now."""
        async with self._connection() as connection:
            self._schema.forget([table])
            yield connection, await self._schema.shape(connection, table)

    async def close(self) -> None:
        await self._writer.close()
        await self._reader.close()
        for each in self._connections:
            await each.close()


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the server as UnavailableError."""
    try:
        yield
    except ERRORS as error:
        raise unavailable(error) from None
