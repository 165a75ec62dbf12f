"""The embedded engine of tables: SQLite files, one for each table, of one folder of a node.

What is answered is on the disk (`relaxed`: survives a crash of the node, but a loss of power may take the last seconds;
not of a transaction over several tables). See `sqlite_file` for how a table lies in its file, `sqlite_writer` for
commits, `sqlite_journal` for transactions over several tables, `sqlite_reader` for reads.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from owsgit.model.errors import UnavailableError
from owsgit.services.tables.engine import DIGESTS, Engine, Entry, Facts, Key, Logged, Snapshot, Transaction, digest
from owsgit.services.tables.sqlite_chores import clear, refill, trim
from owsgit.services.tables.sqlite_file import SUFFIX
from owsgit.services.tables.sqlite_reader import CommittedSnapshot, Reader
from owsgit.services.tables.sqlite_writer import Work, Writer

Result = TypeVar("Result")


class SqliteReads:
    """What an engine answers from the files alone."""

    _reader: Reader

    async def get(self, table: str, key: Key) -> bytes | None:
        database = self._reader.quick(table)
        if database is None:
            return await self._reader.read([table], lambda snapshot: snapshot.get(table, key))
        return self._reader.get(database, table, key)

    async def read(self, tables: Collection[str], work: Callable[[Snapshot], Result]) -> Result:
        return await self._reader.read(tables, work)

    def segment_of(self, hash_key: bytes, segments: int) -> int:
        return digest(hash_key) * segments // DIGESTS

    async def is_filled(self, table: str, index: str) -> bool:
        def work(snapshot: CommittedSnapshot) -> bool:
            database = snapshot.database(table)
            row = database.execute("SELECT filled FROM indexes WHERE name = ? AND NOT dropped", (index,)).fetchone()
            return row is not None and bool(row[0])

        return await self._reader.read([table], work)

    async def facts(self, table: str) -> Facts:
        """`bytes` is the length of the items as they were given."""

        def work(snapshot: CommittedSnapshot) -> Facts:
            database = snapshot.database(table)
            items, size = database.execute("SELECT items, bytes FROM meta").fetchone()
            return Facts(items, size, dict(database.execute("SELECT name, count FROM indexes WHERE NOT dropped")))

        return await self._reader.read([table], work)

    async def logged(self, table: str, after: int, most: int, bytes_max: int | None = None) -> list[Logged]:
        def work(snapshot: CommittedSnapshot) -> list[Logged]:
            found: list[Logged] = []
            size = 0
            cursor = snapshot.database(table).execute(
                "SELECT number, at, record FROM stream WHERE number > ? ORDER BY number LIMIT ?", (after, most)
            )
            with closing(cursor):
                for row in cursor:
                    size += len(row[2])
                    if found and bytes_max is not None and size > bytes_max:
                        break
                    snapshot.take(row[2])
                    found.append(Logged(*row))
            return found

        return await self._reader.read([table], work)

    async def last_logged(self, table: str) -> int:
        def work(snapshot: CommittedSnapshot) -> int:
            return int(snapshot.database(table).execute("SELECT number FROM meta").fetchone()[0])

        return await self._reader.read([table], work)


class SqliteEngine(SqliteReads, Engine):
    """Of one event loop. Two of them on one folder would undo each other's promises."""

    def __init__(self, folder: Path, *, relaxed: bool = False) -> None:
        """Finishes the transactions that a crash has left undone. Raises UnavailableError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for dropped in folder.glob(f"*{SUFFIX}.dropped"):
                dropped.unlink()
        except OSError as error:
            raise UnavailableError(f"the folder of tables cannot be used: {error}", file=str(folder)) from None
        self._folder = folder
        self._generations: dict[str, int] = {}
        self._writer = Writer(folder, relaxed=relaxed, generation=self._generation)
        self._reader = Reader(folder, self._writer, self._generation)

    @property
    def relaxed(self) -> bool:
        return self._writer.relaxed

    @relaxed.setter
    def relaxed(self, value: bool) -> None:
        """For what is written from now on."""
        self._writer.relaxed = value

    @property
    def behind(self) -> frozenset[str]:
        """Tables that nobody can use until a transaction is finished."""
        return self._writer.behind

    def on_behind(self, told: Callable[[], None]) -> None:
        """Have it told in this event loop when `behind` changes."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told)

        self._writer.on_behind = tell

    def _generation(self, table: str) -> int:
        return self._generations.get(table, 0)

    async def create(self, table: str, indexes: Collection[str]) -> None:
        wanted = frozenset(indexes)
        await self._writer.do([table], lambda _: self._writer.make(table, wanted), alone=True)
        while await self._writer.do([table], lambda work: clear(work.changing(table))):
            pass

    def gives(self, table: str, indexes: Collection[str]) -> None:
        """Nobody else makes indexes."""

    async def drop(self, table: str) -> None:
        await self._writer.do([table], lambda _: self._drop(table), alone=True)
        self._reader.prune()

    async def drop_empty(self, table: str, before: Callable[[], None]) -> int:
        """The same, unless it has items: how many that are, once all that was asked for is written. `before` is what
        goes before its file does, in the thread that writes."""

        def work(_: Work) -> int:
            if table in self._writer.behind:
                raise self._writer.trouble()
            items = int(self._writer.file(table).database.execute("SELECT items FROM meta").fetchone()[0])
            if not items:
                before()
                self._drop(table)
            return items

        items = await self._writer.do([table], work, alone=True)
        self._reader.prune()
        return items

    def _drop(self, table: str) -> None:
        self._writer.drop(table)
        self._generations[table] = self._generation(table) + 1

    async def write(self, tables: Collection[str], work: Callable[[Transaction], Result]) -> Result:
        return await self._writer.do(tables, work)

    async def refill(
        self, table: str, index: str, entry: Callable[[bytes], Entry | None], told: Callable[[int], None]
    ) -> None:
        """Writes that are asked for after this give the entries of this index themselves."""
        while True:
            done, filled = await self._writer.do([table], lambda work: refill(work.changing(table), index, entry))
            told(done)
            if filled:
                return
            await asyncio.sleep(0)

    async def trim(self, table: str, before: float) -> None:
        while await self._writer.do([table], lambda work: trim(work.changing(table), before)):
            pass

    def alone(self, what: str) -> AbstractAsyncContextManager[bool]:
        """No other node has these files."""
        return nullcontext(True)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
