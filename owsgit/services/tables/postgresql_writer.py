"""Writes to a PostgreSQL server: one transaction at a time, of all that was asked for while the last one was under way.

A work's first attempt, on nothing that is known, tells which keys it reads and writes. Those of a group of works are
locked, in one order, and read; then the works are run one after the other, and what they have changed is written. Keys
are locked even where no item is, and to the end, whether read or written; a work that goes through a span has its
tables for itself. So transactions are serializable, in the order of their commits. Of what two nodes do to one key one
waits, and nobody is undone for a neighbour on the same page of an index, as with the isolation level SERIALIZABLE.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from owsgit.model.errors import UnavailableError
from owsgit.services.tables import postgresql_queries as queries
from owsgit.services.tables.attempts import Changes, Known, Place, Writing
from owsgit.services.tables.awaited import Awaited
from owsgit.services.tables.engine import Key
from owsgit.services.tables.postgresql_changes import Flush
from owsgit.services.tables.postgresql_connections import (
    AGAIN,
    CHANGED,
    ERRORS,
    LOST,
    Connection,
    Connections,
    end,
    unavailable,
)
from owsgit.services.tables.postgresql_schema import SHARDS, Schema, Shape, no_table

GROUP_MAX = 256
GROUP_KEYS_MAX = 512
"""Keys of a group: each is a lock, of which the server has some thousands."""
GROUP_BYTES_MAX = 8 << 20
WAITING_MAX = 16_384
"""Works that wait; beyond, callers are refused."""
ATTEMPTS_MAX = 12
"""At a transaction that the server undoes for another's sake, or whose connection was no more."""
PAUSE_SECONDS = 0.005
PAUSE_SECONDS_MAX = 0.5
ROUNDS_MAX = 10_000
"""Of reading what a work asks for: pages of a span, mostly."""

Result = TypeVar("Result")

Knows = dict[str, frozenset[str]]
"""By table, the indexes of which a node's works give entries; whoever does not say knows all."""


class ChangedError(Exception):
    """That what is known of tables is not so any more."""


class AloneError(Exception):
    """That a work of a group turned out to go through a span."""


OF_ONE = (
    AloneError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.OutOfMemoryError,
    asyncpg.InternalClientError,
)
"""What one work of a group may be the reason of."""


@dataclass(eq=False, kw_only=True)
class Asked(Awaited):
    work: Callable[[Any], Any]
    tables: frozenset[str]
    first: Writing  # its attempt on nothing
    knows: Knows
    alone: bool = False  # it goes through a span

    def run(self, attempt: Writing) -> None:
        self.result, self.error = None, None
        try:
            self.result = attempt.run(self.work)
        except Exception as error:  # whatever the caller's work raises is the caller's
            self.error = error


@dataclass
class Wanted:
    """What is to be locked and read. `places`: whether the item itself is needed."""

    places: dict[Place, bool] = field(default_factory=dict)
    tokens: set[bytes] = field(default_factory=set)

    def add(self, attempt: Writing, known: Known) -> None:
        self.tokens |= attempt.missing_tokens
        for place in attempt.changes.items:
            if place not in known.stored:
                self.places.setdefault(place, False)
        self.places |= dict.fromkeys(attempt.missing, True)

    def add_all(self, more: "Wanted") -> None:
        for place, whole in more.places.items():
            self.places[place] = whole or self.places.get(place, False)
        self.tokens |= more.tokens

    def __bool__(self) -> bool:
        return bool(self.places or self.tokens)


@dataclass
class _Lacking:
    """The same by table, of what is not known. Of keys: whether the item itself is needed."""

    keys: dict[str, dict[Key, bool]]
    tokens: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(self.keys.values()) or bool(self.tokens)


class Writer:
    """Of one event loop."""

    def __init__(self, connections: Connections, schema: Schema) -> None:
        """`connections`: one, which nobody else has."""
        self.knows: Knows = {}
        self.relaxed = False
        self._connections = connections
        self._schema = schema
        self._waiting: deque[Asked] = deque()
        self._woken = asyncio.Event()
        self._closed = False
        self._shard = random.randrange(SHARDS)  # noqa: S311 - spreads, and keeps no secret
        self._task: asyncio.Task[None] | None = None

    async def do(self, tables: Iterable[str], work: Callable[[Any], Result]) -> Result:
        """The result of `work`, once it is durable."""
        if self._closed:
            raise UnavailableError("the node is stopping", remedy="try again")
        if len(self._waiting) >= WAITING_MAX:
            raise UnavailableError(f"{WAITING_MAX} writes of tables wait already", remedy="try again, and less at once")
        named = frozenset(tables)
        knows = {table: self.knows[table] for table in named if table in self.knows}
        first = Writing(named, Known(), Changes())
        answer = asyncio.get_running_loop().create_future()
        asked = Asked(work=work, tables=named, answer=answer, first=first, knows=knows)
        asked.run(asked.first)
        asked.alone = asked.first.missing_span is not None
        if asked.error is not None and not asked.first.asked:  # it would fail on anything
            raise asked.error
        self._waiting.append(asked)
        self._woken.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        result: Result = await asked.answer
        return result

    async def close(self) -> None:
        """Finish what was asked for."""
        self._closed = True
        self._woken.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                self._woken.clear()
                await self._woken.wait()
                continue
            group = self._take()
            try:
                await self._commit(group)
            except Exception as error:  # whatever it is: it is these works' alone
                for each in group:
                    each.error = error
            for each in group:
                each.tell()

    def _take(self) -> list[Asked]:
        group: list[Asked] = []
        keys = size = 0
        while self._waiting and len(group) < GROUP_MAX:
            asked = self._waiting[0]
            if asked.answer.done():
                self._waiting.popleft()
                continue
            keys += len(asked.first.changes.items) + len(asked.first.missing)
            size += asked.first.changes.bytes
            if group and (asked.alone or group[0].alone or keys > GROUP_KEYS_MAX or size > GROUP_BYTES_MAX):
                break
            group.append(self._waiting.popleft())
        return group

    # -- one transaction --------------------------------------------------------------------------------------------

    async def _commit(self, group: list[Asked]) -> None:
        """All of a group, each by itself if that fails: none fails for another's sake."""
        error = await self._attempted(group)
        if error is None:
            return
        if len(group) > 1 and isinstance(error, OF_ONE):
            for each in group:
                await self._commit([each])
            return
        for each in group:
            each.error = unavailable(error)

    async def _attempted(self, group: list[Asked]) -> Exception | None:
        """What went wrong, after all attempts."""
        tables = {table for each in group for table in each.tables}
        tried, known = 0, Wanted()
        for each in group:
            known.add(each.first, Known())
        while True:
            transaction = _Transaction(self._schema, self._shard, group, relaxed=self.relaxed)
            try:
                async with self._connections.acquire() as connection:
                    await transaction.run(connection, known)
                return None
            except OF_ONE as error:
                return error
            except (ChangedError, *CHANGED) as error:
                self._schema.forget(tables)
                failed: Exception = error
            except AGAIN as error:
                failed = error
            except LOST as error:
                if transaction.committing:
                    return UnavailableError(
                        f"the PostgreSQL server was lost during a commit, which may have been made: {error}",
                        remedy="look whether it was, or try again what may be done twice",
                    )
                if not transaction.began or tried:
                    return unavailable(error)
                failed = error
            except (UnavailableError, *ERRORS) as error:
                return error
            tried += 1
            if tried == ATTEMPTS_MAX:
                return unavailable(failed)
            pause = min(PAUSE_SECONDS * 2**tried, PAUSE_SECONDS_MAX)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter


class _Transaction:
    """One attempt at a group."""

    def __init__(self, schema: Schema, shard: int, group: list[Asked], *, relaxed: bool) -> None:
        self._schema = schema
        self._shard = shard
        self._begin = "BEGIN; SET LOCAL synchronous_commit = off" if relaxed else "BEGIN"
        self._group = group
        self._shapes: dict[str, Shape] = {}
        self._known = Known()
        self._checked: set[str] = set()  # tables that are as they are known
        self.began = False
        self.committing = False

    async def run(self, connection: Connection, wanted: Wanted) -> None:
        self.began = True
        group = await self._served(connection)
        if not group:
            return
        lacking = self._lacking(wanted)
        try:  # one message to the server has all locks: of the tables, then of keys
            await connection.execute(
                f"{self._begin}; {self._table_locks(alone=group[0].alone)}; {self._locks(lacking)}"
            )
            await self._read(connection, lacking)
            changes = await self._run(connection, group, wanted)
            if changes:
                await Flush(connection, self._schema, self._shapes, self._known, self._shard).write(changes)
                self.committing = True
                status = await connection.execute("COMMIT")
                self.committing = False
                if status != "COMMIT":
                    raise UnavailableError(f"the PostgreSQL server did not commit: {status}", remedy="try again")
            else:
                await connection.execute("ROLLBACK")
        except BaseException as error:
            if isinstance(error, LOST):
                end(connection)
                raise
            self.committing = False  # the server has said that it did not
            try:
                await connection.execute("ROLLBACK")
            except ERRORS:
                end(connection)
            raise

    async def _served(self, connection: Connection) -> list[Asked]:
        """The works whose tables are there, and that give all entries which the tables' items have to have."""
        names = {table for each in self._group for table in each.tables}
        self._shapes = await self._schema.shapes(connection, names)
        found = []
        for each in self._group:
            each.error = self._unfit(each)
            if each.error is None:
                found.append(each)
        return found

    def _unfit(self, asked: Asked) -> UnavailableError | None:
        for table in sorted(asked.tables):
            shape = self._shapes.get(table)
            if shape is None:
                return no_table(table)
            unknown = sorted(shape.indexes.keys() - asked.knows.get(table, shape.indexes.keys()))
            if unknown:
                return UnavailableError(
                    f"the table {table} has the index {unknown[0]}, of which this node does not know yet",
                    remedy="try again: it is about to learn of it from the other nodes",
                )
        return None

    def _table_locks(self, *, alone: bool) -> str:
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        return _each(function, (self._schema.table_lock(table) for table in self._shapes))

    def _lacking(self, wanted: Wanted) -> _Lacking:
        """What of it is not known yet."""
        lacking = _Lacking({table: {} for table in self._shapes})
        for (table, key), whole in wanted.places.items():
            stored = self._known.stored.get((table, key))
            if table in self._shapes and (
                (table, key) not in self._known.stored or (whole and stored is not None and stored.item is None)
            ):
                lacking.keys[table][key] = whole
        lacking.tokens = sorted(token for token in wanted.tokens if token not in self._known.tokens)
        return lacking

    def _locks(self, lacking: _Lacking) -> str:
        numbers = [
            self._schema.key_lock(self._shapes[table], key) for table, keys in lacking.keys.items() for key in keys
        ]
        return _each("pg_advisory_xact_lock", (*numbers, *map(self._schema.token_lock, lacking.tokens)))

    async def _read(self, connection: Connection, lacking: _Lacking) -> None:
        """What was locked: another statement sees what others did before they let go."""
        for table, keys in lacking.keys.items():
            if not keys and table in self._checked:
                continue
            self._checked.add(table)
            read = await queries.before(connection, self._schema, table, self._shapes[table], keys)
            if read is None:
                raise ChangedError
            self._known.stored |= read
        if lacking.tokens:
            rows = await connection.fetch(
                f"SELECT token, digest FROM {self._schema.name}.tokens WHERE token = ANY($1) AND until > $2",  # noqa: S608
                lacking.tokens,
                time.time(),
            )
            self._known.tokens |= dict.fromkeys(lacking.tokens)
            self._known.tokens |= {row["token"]: row["digest"] for row in rows}

    async def _run(self, connection: Connection, group: list[Asked], wanted: Wanted) -> Changes:
        """What the works have changed, once all that they asked for is known."""
        for _ in range(ROUNDS_MAX):
            changes, span = Changes(), None
            more = Wanted()
            for each in group:
                attempt = each.first
                if attempt.asked or attempt.is_void:
                    attempt = Writing(each.tables, self._known, changes)
                    each.run(attempt)
                if attempt.missing_span is not None:
                    if not group[0].alone:
                        each.alone = True
                        raise AloneError(f"a work goes through {attempt.missing_span}")
                    span = attempt.missing_span
                more.add(attempt, self._known)
                if each.error is None:
                    changes.add(attempt.changes)
            if not more and span is None:
                return changes
            wanted.add_all(more)  # another attempt locks them at first, in their order
            if lacking := self._lacking(wanted):
                await connection.execute(self._locks(lacking))
                await self._read(connection, lacking)
            if span is not None:
                await queries.page(connection, self._schema, self._shapes[span.table], span, self._known)
        raise UnavailableError(f"a write reads more than {ROUNDS_MAX} times", remedy="write less at once")


def _each(function: str, numbers: Iterable[int]) -> str:
    """A statement that calls a function with each number, in their order."""
    listed = ",".join(f"{number:d}" for number in sorted(numbers))
    return f"SELECT {function}(k) FROM unnest('{{{listed}}}'::bigint[]) k"  # noqa: S608 - numbers
