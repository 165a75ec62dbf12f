"""The one thread that writes the files of tables. What is asked for while a commit is under way goes into the next one.

A commit costs a flush of the disk, however much is in it; so many callers at once cost hardly more than one. Each work
runs within a savepoint, so that one that raises undoes only itself; callers are answered when all is on the disk.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from owsgit.model.errors import UnavailableError
from owsgit.services.tables import sqlite_file, sqlite_journal
from owsgit.services.tables.awaited import Awaited
from owsgit.services.tables.engine import Entry, Key, Row, Span, Transaction
from owsgit.services.tables.sqlite_file import Connections, open_table, path_of, unavailable
from owsgit.services.tables.sqlite_flushing import Flusher
from owsgit.services.tables.sqlite_journal import Decided, Journal
from owsgit.services.tables.sqlite_table import TableFile, force

GROUP_MAX = 256
"""Works of one commit: their callers all wait for the last of them."""
GROUP_BYTES_MAX = 16 << 20
"""That a commit writes, as soon as the works that are done by then have written more."""
WAITING_MAX = 16_384
"""Works that wait; beyond, callers are refused."""
CACHE_BYTES = 16 << 20
"""Of pages, for each table."""
MEND_SECONDS = 1.0
"""Between two attempts at what could not be made."""

Result = TypeVar("Result")


@dataclass(eq=False, kw_only=True)
class Asked(Awaited):
    work: Callable[["Work"], Any]
    tables: frozenset[str]
    alone: bool
    loop: asyncio.AbstractEventLoop
    touched: frozenset[str] = frozenset()  # tables that it has changed
    remembers: bool = False


class Work(Transaction):
    """What a work gets: the tables that it named, with what those before it in the group have done."""

    def __init__(self, group: "_Group", tables: frozenset[str]) -> None:
        self._group = group
        self._tables = tables
        self._reads: list[Generator[Row, None, None]] = []
        self.remembers = False
        self.used: set[str] = set()
        self.touched: set[str] = set()

    def file(self, table: str) -> TableFile:
        if table not in self._tables:
            raise LookupError(f"the transaction does not name the table {table}")
        self.used.add(table)
        return self._group.file(table)

    def get(self, table: str, key: Key) -> bytes | None:
        return sqlite_file.get(self.file(table).database, key)

    def rows(self, span: Span) -> Iterator[Row]:
        found = sqlite_file.rows(self.file(span.table).database, span)
        self._reads.append(found)
        return found

    def put(self, table: str, key: Key, item: bytes, entries: Collection[Entry]) -> None:
        self.changing(table).put(key, item, entries)
        self._group.bytes += len(item)

    def delete(self, table: str, key: Key) -> None:
        self.changing(table).delete(key)

    def log(self, table: str, record: bytes) -> None:
        self.changing(table).log(record)
        self._group.bytes += len(record)

    def remember(self, token: bytes, digest: bytes, until: float) -> bytes | None:
        journal = self._group.journal
        if not self.remembers:
            journal.begin()
            journal.database.execute("SAVEPOINT work")
            self.remembers = True
        return journal.remember(token, digest, until, time.time())

    def changing(self, table: str) -> TableFile:
        file = self.file(table)
        self.touched.add(table)
        return file

    def end(self, *, keep: bool) -> None:
        for found in self._reads:
            found.close()  # or its statement would go on
        for table in self.touched:
            file = self._group.file(table)
            if keep:
                file.keep()
            else:
                file.undo()
        if self.remembers:
            if not keep:
                self._group.journal.database.execute("ROLLBACK TO work")
            self._group.journal.database.execute("RELEASE work")


class _Group:
    """What one commit is made of."""

    def __init__(self, writer: "Writer") -> None:
        self._writer = writer
        self.journal = writer.journal
        self.bytes = 0
        self.together: set[str] = set()  # tables whose changes are decided at once
        self.done: set[str] = set()  # tables that are committed, or decided
        self.remembered = False  # the same of tokens
        self._files: dict[str, TableFile] = {}

    def file(self, table: str) -> TableFile:
        found = self._files.get(table)
        if found is None:
            found = self._files[table] = self._writer.file(table)
        return found

    def run(self, asked: Asked) -> None:
        """Raises sqlite3.Error and UnavailableError of the files, after which the group has to be rolled back."""
        asked.result, asked.error, asked.touched, asked.remembers = None, None, frozenset(), False
        if asked.tables & self._writer.behind:
            asked.error = self._writer.trouble()
            return
        work = Work(self, asked.tables)
        try:
            asked.result = asked.work(work)
        except sqlite3.Error:
            work.end(keep=False)
            raise
        except Exception as error:  # whatever the caller's work raises is the caller's
            asked.error = error
            work.end(keep=False)
            return
        work.end(keep=True)
        asked.touched, asked.remembers = frozenset(work.touched), work.remembers
        if not (work.touched or work.remembers):
            return
        # what it has seen of others' changes is decided with its own
        changed = {table for table in work.used if self._files[table].changed}
        if len(changed) > 1 or (changed and work.remembers):
            self.together |= changed

    def commit(self) -> None:
        together = [self._files[table] for table in sorted(self.together)]
        if together:
            self._commit_together(together)
        elif self.journal.database.in_transaction:
            self.journal.database.execute("COMMIT")
        self.remembered = True
        for table, file in self._files.items():
            if table not in self.together:
                file.commit()
                self.done.add(table)
                if file.relaxed:
                    self._writer.flusher.note(table)

    def is_done(self, asked: Asked) -> bool:
        """Whether a work must not be run again after `commit` has failed: it is committed or decided, or has failed
        for reasons of its own. One that has changed nothing may have seen what is undone now."""
        if asked.touched or asked.remembers:
            return asked.touched <= self.done and (self.remembered or not asked.remembers)
        return False

    def _commit_together(self, files: list[TableFile]) -> None:
        """Readers of several tables see all of it or nothing."""
        writer = self._writer
        with writer.publishing:
            number = self.journal.decide(
                ((each.table, each.identity, change) for each in files for change in each.changes), writer.behind
            )
            self.done |= self.together
            self.remembered = True
            try:
                for file in files:
                    file.commit(number)
                    writer.force(file.table)
            except BaseException:
                writer.behind |= self.together
                raise

    def rollback(self) -> None:
        for file in self._files.values():
            file.rollback()
        with suppress(sqlite3.Error):
            self.journal.rollback()


class Writer:
    """Runs works, in the order in which they are asked for."""

    def __init__(self, folder: Path, *, relaxed: bool, generation: Callable[[str], int]) -> None:
        """Makes what was decided before a crash. Raises UnavailableError for a journal that cannot be used."""
        self.folder = folder
        self.relaxed = relaxed  # may change at any time, for the commits that begin then
        self.flusher = Flusher(folder)
        try:
            self.journal = Journal(folder)
        except sqlite3.Error as error:
            raise unavailable(error, folder / sqlite_journal.FILE) from None
        self._connections = Connections(self._open, generation)
        self._files: dict[str, TableFile] = {}
        self.publishing = threading.Lock()
        """Held while a transaction over several tables becomes visible in one after the other."""
        self._behind: frozenset[str] = frozenset()
        self.on_behind: Callable[[], None] = lambda: None
        """Called in any thread when `behind` changes."""
        self._trouble = ""
        self._mend_at = 0.0
        self._waiting = 0
        self._turn: list[Asked] = []  # asked for in this turn of the loop
        self._asked: queue.SimpleQueue[list[Asked] | None] = queue.SimpleQueue()
        self._closed = False
        try:
            self._mend()
        except sqlite3.Error as error:
            self.journal.close()
            raise unavailable(error, self.journal.path) from None
        self._thread = threading.Thread(target=self._run, name="owsgit-tables", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> frozenset[str]:
        """Tables that lack something which is decided."""
        return self._behind

    @behind.setter
    def behind(self, tables: frozenset[str]) -> None:
        if tables != self._behind:
            self._behind = tables
            self.on_behind()

    # -- for the event loop ----------------------------------------------------------------------------------------

    async def do(self, tables: Iterable[str], work: Callable[[Work], Result], *, alone: bool = False) -> Result:
        """The result of `work`, once it is on the disk. `alone`: in no transaction, as the only one at the time."""
        if self._closed:
            raise UnavailableError("the node is stopping", remedy="try again")
        if self._waiting >= WAITING_MAX:
            raise UnavailableError(f"{WAITING_MAX} writes of tables wait already", remedy="try again, and less at once")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        asked = Asked(work=work, tables=frozenset(tables), alone=alone, loop=loop, answer=answer)
        self._waiting += 1
        if not self._turn:
            loop.call_soon(self._hand_over)
        self._turn.append(asked)
        try:
            result: Result = await asked.answer
        finally:
            self._waiting -= 1
        return result

    def _hand_over(self) -> None:
        if self._turn:
            turn, self._turn = self._turn, []
            self._asked.put(turn)

    async def close(self) -> None:
        """Finish what was asked for, and close the files."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._asked.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        waiting: deque[Asked] = deque()
        last = False
        while waiting or not last:
            while not last and (not waiting or not self._asked.empty()):
                turn = self._asked.get()
                if turn is None:
                    last = True
                else:
                    waiting.extend(turn)
            group = self._write(waiting) if waiting else []
            for loop in {each.loop for each in group}:
                _tell(loop, [each for each in group if each.loop is loop])
        with suppress(sqlite3.Error):  # it is known by then, or is found out at the next start
            self.journal.forget_made(self.behind)
        self._files.clear()
        self.flusher.close()
        self._connections.close()
        self.journal.close()

    def _write(self, waiting: deque[Asked]) -> list[Asked]:
        """Take works and commit them; if that fails, each by itself, so that none is lost for another's sake."""
        if waiting[0].alone:
            asked = waiting.popleft()
            self._alone(asked)
            return [asked]
        group = _Group(self)
        taken: list[Asked] = []
        error: Exception | None = None
        try:
            self._mend_if_behind()
            while waiting and not waiting[0].alone and len(taken) < GROUP_MAX and group.bytes < GROUP_BYTES_MAX:
                taken.append(waiting.popleft())
                if not taken[-1].answer.cancelled():
                    group.run(taken[-1])
            group.commit()
        except Exception as failed:
            error = failed
            group.rollback()
        if error is not None:
            self._mend_if_behind(at_once=True)
            for each in taken:
                if not group.is_done(each):
                    self._single(each)
                elif each.touched & self.behind:
                    each.error = self._told(error, each.touched & self.behind)
        return taken

    def _single(self, asked: Asked) -> None:
        group = _Group(self)
        try:
            group.run(asked)
            group.commit()
        except Exception as error:
            group.rollback()
            for table in asked.tables:  # opened anew the next time: the file may have been mended by then
                self._forget(table)
            self._mend_if_behind(at_once=True)
            if not group.is_done(asked) or asked.touched & self.behind:
                asked.error = self._told(error, asked.tables)

    def _alone(self, asked: Asked) -> None:
        self._mend_if_behind()
        try:
            asked.result = asked.work(Work(_Group(self), asked.tables))
        except Exception as error:
            for table in asked.tables:
                self._forget(table)
            asked.error = self._told(error, asked.tables)

    def _told(self, error: Exception, tables: Collection[str]) -> Exception:
        if isinstance(error, sqlite3.Error):
            table = min(tables, default=None)
            return unavailable(error, self.journal.path if table is None else path_of(self.folder, table))
        if isinstance(error, OSError):
            return UnavailableError(
                f"the table cannot be used: {error}", remedy="see to the node's disk, then try again"
            )
        return error

    # -- files -----------------------------------------------------------------------------------------------------

    def _open(self, table: str) -> sqlite3.Connection:
        return open_table(self.folder, table, relaxed=self.relaxed, cache_bytes=CACHE_BYTES)

    def file(self, table: str) -> TableFile:
        """Raises sqlite3.Error, or UnavailableError if it is not there."""
        database = self._connections.get(table)
        found = self._files.get(table)
        if found is None or found.database is not database:
            found = self._files[table] = TableFile(table, database)
        if found.relaxed is not self.relaxed and not database.in_transaction:
            found.relaxed = sqlite_file.set_durability(database, relaxed=self.relaxed)
        return found

    def _forget(self, table: str) -> None:
        self._files.pop(table, None)
        self._connections.forget(table)

    def force(self, table: str) -> None:
        """What is committed is on the disk by then, also where the durability is relaxed."""
        file = self._files.get(table)
        if file is None or file.relaxed:
            force(path_of(self.folder, table))

    def make(self, table: str, indexes: Collection[str]) -> None:
        """The file of a table with these indexes. For a work that is `alone`."""
        path = path_of(self.folder, table)
        is_new = not path.exists()
        if is_new:
            self._forget(table)
            for rest in ("-wal", "-shm"):  # of one that was dropped, or SQLite would take them for this one's
                Path(f"{path}{rest}").unlink(missing_ok=True)
        with closing(
            open_table(self.folder, table, relaxed=self.relaxed, cache_bytes=CACHE_BYTES, create=True)
        ) as database:
            if database.execute("SELECT name FROM meta").fetchone()[0] != table:
                database.execute("UPDATE meta SET name = ?", (table,))
        self.file(table).have_indexes(indexes, filled=is_new)
        force(path)

    def drop(self, table: str) -> None:
        """Remove the file of a table: its name goes first, so that half of it is never opened. For a work `alone`."""
        path = path_of(self.folder, table)
        self._forget(table)
        if path.exists():
            dropped = path.with_name(path.name + ".dropped")
            path.rename(dropped)
            for each in (Path(f"{path}-wal"), Path(f"{path}-shm"), dropped):
                each.unlink(missing_ok=True)
            force(path)
        self.behind -= {table}

    # -- what is decided but not made ------------------------------------------------------------------------------

    def trouble(self) -> UnavailableError:
        """For those who need a table that is behind."""
        return UnavailableError(
            f"a transaction has yet to be finished: {self._trouble}",
            remedy="see to the node's disk and the file; it is finished as soon as the file can be written",
        )

    def _mend_if_behind(self, *, at_once: bool = False) -> None:
        if self.behind and (at_once or time.monotonic() >= self._mend_at):
            self._mend_at = time.monotonic() + MEND_SECONDS
            try:
                self._mend()
            except sqlite3.Error as error:
                self._trouble = str(error)

    def _mend(self) -> None:
        """Make what is decided, in the tables that lack it. A table that cannot be used stays behind, and holds up only
        those who need it. Raises sqlite3.Error of the journal."""
        missing: dict[str, list[Decided]] = {}
        for each in self.journal.decided():
            missing.setdefault(each.table, []).append(each)
        with self.publishing:
            behind = {table for table, changes in missing.items() if not self._make_good(table, changes)}
        self.journal.forget_made(behind)
        self.behind = frozenset(behind)

    def _make_good(self, table: str, decided: list[Decided]) -> bool:
        """Whether a table has by now what is decided; one that was dropped since needs nothing."""
        path = path_of(self.folder, table)
        if not path.exists():
            return True
        try:
            file = self.file(table)
            for each in decided:
                if file.identity == each.identity and file.applied < each.number:
                    file.again(each.change)
            file.commit(max(file.applied, decided[-1].number))
            self.force(table)
        except (sqlite3.Error, OSError, UnavailableError) as error:
            if table in self._files:
                self._files[table].rollback()
            self._forget(table)
            self._trouble = (
                f"{path.name}: {error.problems[0].message if isinstance(error, UnavailableError) else error}"
            )
            return False
        return True


def _tell(loop: asyncio.AbstractEventLoop, group: list[Asked]) -> None:
    def tell() -> None:
        for each in group:
            each.tell()

    with suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
        loop.call_soon_threadsafe(tell)
