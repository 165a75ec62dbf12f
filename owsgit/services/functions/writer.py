"""The one thread that writes an SQLite file: what is asked for while a commit is under way goes into the next one.

A commit costs a flush of the disk, however much is in it; so many callers at once cost hardly more than one.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from owsgit.model.errors import OwsgitError, UnavailableError

GROUP_MAX = 512
"""Writes of one commit: their callers all wait for the last of them."""

Result = TypeVar("Result")


@dataclass
class Transaction:
    """What a write gets: the database, and a place for what has to be undone in memory if the commit fails."""

    database: sqlite3.Connection
    undo: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class _Asked:
    work: Callable[[Transaction], Any]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        if self.answer.done():  # nobody waits any more
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)


class Writer:
    """Runs writes, which raise OwsgitError before they have changed anything, or not at all."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        """`database` is in autocommit mode (isolation_level None), and the thread's from now on."""
        self._database = database
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Transaction], Result]) -> Result:
        """The result of `work`, once it is on the disk. Raises UnavailableError when it cannot be written."""
        if self._closed:
            raise UnavailableError("the node is stopping", remedy="try again")
        loop = asyncio.get_running_loop()
        asked = _Asked(work, loop, loop.create_future())
        self._asked.put(asked)
        result: Result = await asked.answer
        return result

    def close(self) -> None:
        """Finish what was asked for, and close the database."""
        if not self._closed:
            self._closed = True
            self._asked.put(None)
            self._thread.join()

    def _run(self) -> None:
        while group := self._next():
            self._write(group)
            for loop in {each.loop for each in group}:
                _tell(loop, [each for each in group if each.loop is loop])
        self._database.close()

    def _next(self) -> list[_Asked]:
        """What is asked for by now, once something is; nothing at the end."""
        asked = self._asked.get()
        group: list[_Asked] = []
        while asked is not None:
            group.append(asked)
            if len(group) == GROUP_MAX or self._asked.empty():
                return group
            asked = self._asked.get()
        if group:
            self._asked.put(None)
        return group

    def _write(self, group: list[_Asked]) -> None:
        """All in one commit; if that fails, each in its own, so that none is lost for another's sake."""
        if not self._commit(group) and len(group) > 1:
            for each in group:
                self._commit([each])

    def _commit(self, group: list[_Asked]) -> bool:
        transaction = Transaction(self._database)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for each in group:
                each.result, each.error = None, None
                try:
                    each.result = each.work(transaction)
                except OwsgitError as error:
                    each.error = error
            self._database.execute("COMMIT")
        except Exception as error:
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            for undo in reversed(transaction.undo):
                undo()
            for each in group:
                each.error = _told(error)
            return False
        return True


def _tell(loop: asyncio.AbstractEventLoop, group: list[_Asked]) -> None:
    def tell() -> None:
        for each in group:
            each.tell()

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop has ended, and with it everybody who waited
        return


def _told(error: Exception) -> Exception:
    if not isinstance(error, sqlite3.Error):
        return error
    told = UnavailableError(
        f"the node's events cannot be written: {error}", remedy="free some space on the node's disk, then try again"
    )
    told.__cause__ = error
    return told
