"""The events that wait for functions, and those that were given up (dead letters), as a node keeps them: `events.db`.

What a write reports is on the disk (fsync) by then. What runs at the moment is not in the file: after a crash it is
tried again.
"""

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.services.functions.event import Buried, Event
from owsgit.services.functions.event_file import connect
from owsgit.services.functions.event_reader import EventReader
from owsgit.services.functions.tally import Tally
from owsgit.services.functions.writer import Transaction, Writer

KEY_SECONDS = 24 * 3600.0
"""How long an idempotency key is remembered."""

DEAD_LETTER_SECONDS_MAX = 14 * 24 * 3600.0
"""As long as SQS can keep a message."""

ROWS_MAX = 100
"""That one commit goes through, of up to a megabyte each: others wait for it."""


class EventStore:
    """The file. Writes are awaited; `read` sees what is written."""

    def __init__(self, path: Path) -> None:
        """Raises UnavailableError when the file cannot be used."""
        self.tally = Tally()
        database = connect(path)
        self.read = EventReader(connect(path), self.tally)
        try:
            self.read.count()
        except sqlite3.Error as error:
            database.close()
            self.read.close()
            raise UnavailableError(f"the node's events cannot be read: {error}", file=str(path)) from None
        self._writer = Writer(database, "owsgit-events")

    def close(self) -> None:
        self._writer.close()
        self.read.close()

    async def add(self, event: Event, key: str, now: float) -> str:
        """Keep an event; the request id under which it is kept, an earlier one's if it has come with this key already.

        Raises ThrottledError beyond the bounds, InvalidError for the key of another event.
        """

        def work(transaction: Transaction) -> str:
            earlier = _earlier(transaction, event, key, now)
            if earlier is not None:
                return earlier
            self.tally.check(event.resource, event.size, keyed=bool(key))
            if key:
                values = (event.resource, key, event.digest(), event.request_id, now + KEY_SECONDS)
                replaced = transaction.database.execute(
                    "DELETE FROM keys WHERE resource = ? AND key = ?", (event.resource, key)
                ).rowcount
                transaction.database.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?)", values)
                self.tally.has_keys(event.resource, 1 - replaced, transaction.undo)
            self._insert(transaction, event, None, now)
            return event.request_id

        return await self._writer.do(work)

    async def try_again(self, event: Event, due: float) -> None:
        """Keep an event that failed once more, until `due`."""
        await self._writer.do(
            lambda transaction: transaction.database.execute(
                "UPDATE events SET errors = ?, due = ? WHERE id = ?", (event.errors + 1, due, event.id)
            )
        )

    async def done(self, event: Event, follower: Event | None, buried: Buried | None, now: float) -> None:
        """Take an event out and put its `follower` in, if there is one: as a dead letter if it is `buried`."""

        def work(transaction: Transaction) -> None:
            if transaction.database.execute("DELETE FROM events WHERE id = ?", (event.id,)).rowcount:
                self.tally.waits(event.function, -1, -event.size, transaction.undo)
            if follower is not None:
                self._insert(transaction, follower, buried, now)

        await self._writer.do(work)

    async def bury(self, event: Event, buried: Buried, now: float) -> None:
        """Make an event a dead letter. `event.errors` is kept with it."""

        def work(transaction: Transaction) -> None:
            transaction.database.execute(
                "UPDATE events SET dead = ?, reason = ?, error = ?, errors = ? WHERE id = ?",
                (now, buried.reason, buried.error, event.errors, event.id),
            )
            self.tally.waits(event.function, -1, -event.size, transaction.undo)
            self._died(transaction, event)

        await self._writer.do(work)

    async def redrive(self, resource: str, request_ids: Collection[str], now: float) -> dict[str, str]:
        """Have dead letters tried again as if they were new, all if none is named: request id → function."""

        def again(transaction: Transaction, id_: int, function: str, size: int) -> None:
            transaction.database.execute(
                "UPDATE events SET dead = NULL, reason = '', error = '', errors = 0, depth = 0, starts = ?, due = ?"
                " WHERE id = ?",
                (now, now, id_),
            )
            self.tally.died(resource, -1, -size, transaction.undo)
            self.tally.waits(function, 1, size, transaction.undo)

        return await self._with_dead(self.read.dead(resource, request_ids), again)

    async def drop(self, resource: str, request_ids: Collection[str]) -> dict[str, str]:
        """Forget dead letters, all if none is named: request id → function."""

        def drop(transaction: Transaction, id_: int, function: str, size: int) -> None:
            self._forget(transaction, id_, resource, size)

        return await self._with_dead(self.read.dead(resource, request_ids), drop)

    async def _with_dead(self, ids: list[int], what: Callable[[Transaction, int, str, int], None]) -> dict[str, str]:
        """Do `what` with dead letters, some in each commit: request id → function of those that were still there."""
        done: dict[str, str] = {}
        for start in range(0, len(ids), ROWS_MAX):
            chunk = ids[start : start + ROWS_MAX]

            def work(transaction: Transaction, chunk: list[int] = chunk) -> dict[str, str]:
                found = {}
                for id_ in chunk:
                    row = transaction.database.execute(
                        "SELECT request_id, function, size FROM events WHERE id = ? AND dead IS NOT NULL", (id_,)
                    ).fetchone()
                    if row is not None:
                        what(transaction, id_, row[1], row[2])
                        found[row[0]] = row[1]
                return found

            done |= await self._writer.do(work)
        return done

    async def prune(self, now: float) -> None:
        """Forget keys and dead letters that are too old, some at a time."""

        def work(transaction: Transaction) -> bool:
            keys = transaction.database.execute(
                "SELECT resource, key FROM keys WHERE until <= ? ORDER BY until LIMIT ?", (now, ROWS_MAX)
            ).fetchall()
            for resource, key in keys:
                transaction.database.execute("DELETE FROM keys WHERE resource = ? AND key = ?", (resource, key))
                self.tally.has_keys(resource, -1, transaction.undo)
            dead = [
                (id_, resource, size)
                for resource in list(self.tally.dead)
                for id_, size in transaction.database.execute(
                    "SELECT id, size FROM events WHERE resource = ? AND dead <= ? ORDER BY dead LIMIT ?",
                    (resource, now - DEAD_LETTER_SECONDS_MAX, ROWS_MAX),
                ).fetchall()
            ]
            for id_, resource, size in dead:
                self._forget(transaction, id_, resource, size)
            return bool(keys or dead)

        while await self._writer.do(work):
            pass

    def _insert(self, transaction: Transaction, event: Event, buried: Buried | None, now: float) -> None:
        transaction.database.execute(
            "INSERT INTO events (request_id, function, resource, starts, due, errors, depth, size, dead, reason, error,"
            " trace_id, client_context, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.request_id,
                event.function,
                event.resource,
                event.starts,
                max(event.starts, event.due),
                event.errors,
                event.depth,
                event.size,
                now if buried else None,
                buried.reason if buried else "",
                buried.error if buried else "",
                event.trace_id,
                event.client_context,
                event.payload,
            ),
        )
        if buried:
            self._died(transaction, event)
        else:
            self.tally.waits(event.function, 1, event.size, transaction.undo)

    def _died(self, transaction: Transaction, event: Event) -> None:
        """Count a dead letter; where there are too many, the oldest make room."""
        self.tally.died(event.resource, 1, event.size, transaction.undo)
        while (resource := self.tally.overfull(event.resource)) is not None:
            oldest = transaction.database.execute(
                "SELECT id, size FROM events WHERE resource = ? AND dead IS NOT NULL ORDER BY dead, id LIMIT 1",
                (resource,),
            ).fetchone()
            self._forget(transaction, oldest[0], resource, oldest[1])

    def _forget(self, transaction: Transaction, id_: int, resource: str, size: int) -> None:
        transaction.database.execute("DELETE FROM events WHERE id = ?", (id_,))
        self.tally.died(resource, -1, -size, transaction.undo)


def _earlier(transaction: Transaction, event: Event, key: str, now: float) -> str | None:
    """The request id of the event that came with this key. Raises InvalidError if that was another one."""
    if not key:
        return None
    row = transaction.database.execute(
        "SELECT digest, request_id FROM keys WHERE resource = ? AND key = ? AND until > ?", (event.resource, key, now)
    ).fetchone()
    if row is None:
        return None
    if row[0] != event.digest():
        raise InvalidError(
            f"the idempotency key {key!r} came with another event within the last {KEY_SECONDS / 3600:.0f} h",
            remedy="a key stands for one function and one payload: choose another key",
        )
    return str(row[1])
