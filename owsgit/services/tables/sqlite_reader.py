"""Reads of what is committed, beside the thread that writes: in the event loop while they are short, then in threads.

A read through a thread costs the hop there and back, several times what a get costs itself. Measured, gets of 1 KB a
second by 1 and 32 callers: in the loop 61,000 and 63,000; one hop each 14,000 and 28,000; one hop for all that are
asked for in a turn of the loop 13,000 and 50,000. Beside 16 writers a get takes 0.02 ms (99 of 100 under 0.06 ms) in
the loop, 0.7 ms (2 ms) grouped, 0.9 ms (6 ms) with a hop each. So a read begins in the event loop, and is begun anew in
a thread once it has taken more than a little; a table whose reads had to wait for the disk is read in threads for a
while.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from owsgit.model.errors import UnavailableError
from owsgit.services.tables import sqlite_file
from owsgit.services.tables.engine import Key, Row, Snapshot, Span
from owsgit.services.tables.sqlite_file import Budget, Connections, TooLongError, open_table, path_of, unavailable

THREADS = 2
CACHE_BYTES = 4 << 20
"""Of pages, for each table, in the event loop and in each thread. The system caches the files besides."""
SHORT_ROWS = 100
SHORT_BYTES = 128 << 10
"""What a read in the event loop may take: about a millisecond of it."""
SLOW_SECONDS = 0.005
"""A read in the event loop that takes longer has waited for the disk."""
AVOID_SECONDS = 1.0
PRUNE_SECONDS = 0.2
"""For which a thread waits, so that each of them has one of the same works."""

Result = TypeVar("Result")


class CommittedSnapshot(Snapshot):
    """Tables as they are committed, at one moment."""

    def __init__(self, databases: dict[str, sqlite3.Connection], budget: Budget | None) -> None:
        self._databases = databases
        self._budget = budget
        self._reads: list[Generator[Row, None, None]] = []

    def get(self, table: str, key: Key) -> bytes | None:
        item = sqlite_file.get(self.database(table), key)
        self.take(item or b"")
        return item

    def take(self, item: bytes) -> None:
        if self._budget is not None:
            self._budget.take(item)

    def rows(self, span: Span) -> Iterator[Row]:
        if self._budget is not None and span.index and span.segments > 1:
            raise TooLongError  # it may go through many entries of other segments until there is one
        found = sqlite_file.rows(self.database(span.table), span)
        self._reads.append(found)
        return found if self._budget is None else self._counted(found, self._budget)

    @staticmethod
    def _counted(found: Iterator[Row], budget: Budget) -> Iterator[Row]:
        for row in found:
            budget.take(row.item)
            yield row

    def database(self, table: str) -> sqlite3.Connection:
        found = self._databases.get(table)
        if found is None:
            raise LookupError(f"the read does not name the table {table}")
        return found

    def end(self) -> None:
        for found in self._reads:
            found.close()  # or its statement would hold the snapshot


class Committed(Protocol):
    """What readers have to know of the writer."""

    @property
    def publishing(self) -> threading.Lock:
        """Held while a transaction over several tables becomes visible in one after the other."""
        ...

    @property
    def behind(self) -> frozenset[str]:
        """Tables that lack something which is decided."""
        ...

    def trouble(self) -> UnavailableError:
        """For those who need a table that is behind."""
        ...


class Reader:
    """For the event loop."""

    def __init__(self, folder: Path, writer: Committed, generation: Callable[[str], int]) -> None:
        self._folder = folder
        self._writer = writer
        self._generation = generation
        self._here = Connections(self._open, generation)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="owsgit-tables-read")
        self._local = threading.local()
        self._all = [self._here]
        self._avoid: dict[str, float] = {}  # table → until when it is not read in the loop
        self._closed = False

    def _open(self, table: str) -> sqlite3.Connection:
        database = open_table(self._folder, table, relaxed=True, cache_bytes=CACHE_BYTES)
        database.execute("PRAGMA query_only = ON")
        return database

    def quick(self, table: str) -> sqlite3.Connection | None:
        """What `get` needs, if it can be had without waiting."""
        if self._closed or (self._avoid and self._avoided([table])):
            return None
        return self._here.kept(table)

    def get(self, database: sqlite3.Connection, table: str, key: Key) -> bytes | None:
        """One item, in the event loop. A statement by itself sees what is committed, and needs no transaction."""
        if table in self._writer.behind:
            raise self._writer.trouble()
        began = time.perf_counter()
        try:
            return sqlite_file.get(database, key)
        except sqlite3.Error as error:
            self._here.forget(table)  # opened anew the next time: the file may have been mended by then
            raise unavailable(error, path_of(self._folder, table)) from None
        finally:
            if time.perf_counter() - began > SLOW_SECONDS:
                self._avoid_for_a_while([table])

    def _avoid_for_a_while(self, tables: Collection[str]) -> None:
        """These wait for the disk: they are not read in the event loop."""
        self._avoid |= dict.fromkeys(tables, time.monotonic() + AVOID_SECONDS)

    async def read(self, tables: Collection[str], work: Callable[[CommittedSnapshot], Result]) -> Result:
        if self._closed:
            raise UnavailableError("the node is stopping", remedy="try again")
        names = sorted(set(tables))
        here = all(map(self._here.has, names))
        if here and not self._avoided(names):
            began = time.perf_counter()
            try:
                return self._run(self._here, names, work, Budget(SHORT_ROWS, SHORT_BYTES))
            except TooLongError:
                pass
            finally:
                if time.perf_counter() - began > SLOW_SECONDS:
                    self._avoid_for_a_while(names)
        result = await asyncio.get_running_loop().run_in_executor(self._threads, self._in_thread, names, work)
        if not here and not self._closed:  # the first to open a file may have to recover it: not the loop
            self._open_here(names)
        return result

    def _open_here(self, tables: Sequence[str]) -> None:
        for table in tables:
            with suppress(sqlite3.Error, UnavailableError):
                self._here.get(table)

    def prune(self) -> None:
        """Close files of tables that are dropped, in each thread by itself."""
        if self._closed:
            return
        self._here.prune()
        each = threading.Barrier(THREADS)
        for _ in range(THREADS):
            self._threads.submit(self._prune, each)

    def _prune(self, each: threading.Barrier) -> None:
        with suppress(threading.BrokenBarrierError):  # one of them reads for longer: it does this behind that
            each.wait(PRUNE_SECONDS)
        connections: Connections | None = getattr(self._local, "connections", None)
        if connections is not None:
            connections.prune()

    def _avoided(self, tables: Sequence[str]) -> bool:
        if not self._avoid:
            return False
        now = time.monotonic()
        found = False
        for table in tables:
            until = self._avoid.get(table)
            if until is not None and until > now:
                found = True
            elif until is not None:
                del self._avoid[table]
        return found

    def _in_thread(self, tables: Sequence[str], work: Callable[[CommittedSnapshot], Result]) -> Result:
        connections: Connections | None = getattr(self._local, "connections", None)
        if connections is None:
            connections = self._local.connections = Connections(self._open, self._generation)
            self._all.append(connections)
        return self._run(connections, tables, work, None)

    def _run(
        self,
        connections: Connections,
        tables: Sequence[str],
        work: Callable[[CommittedSnapshot], Result],
        budget: Budget | None,
    ) -> Result:
        databases: dict[str, sqlite3.Connection] = {}
        snapshot = CommittedSnapshot(databases, budget)
        table = ""
        try:
            for table in tables:
                databases[table] = connections.get(table)
            self._begin(databases, wait=budget is None)
            return work(snapshot)
        except sqlite3.Error as error:
            for table in tables:  # opened anew the next time: the file may have been mended by then
                databases.pop(table, None)
                connections.forget(table)
            raise unavailable(error, path_of(self._folder, table)) from None
        finally:
            with suppress(sqlite3.Error):
                snapshot.end()
            for database in databases.values():
                with suppress(sqlite3.Error):
                    if database.in_transaction:
                        database.execute("COMMIT")

    def _begin(self, databases: dict[str, sqlite3.Connection], *, wait: bool) -> None:
        """Of several tables, when no transaction is about to become visible in one after the other."""
        writer = self._writer
        if not writer.behind.isdisjoint(databases):
            raise writer.trouble()
        if len(databases) == 1:
            for database in databases.values():
                database.execute("BEGIN")  # what is seen is what is committed at the first read
            return
        if not writer.publishing.acquire(blocking=wait):
            raise TooLongError
        try:
            for database in databases.values():
                database.execute("BEGIN")
                database.execute("SELECT one FROM meta").fetchone()
        finally:
            writer.publishing.release()

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connections in self._all:
            connections.close()
