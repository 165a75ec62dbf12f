"""What the engines of tables do in a second, over their databases by hand.

SQLite: over plain sqlite3 in one thread, one call, one commit. PostgreSQL: over asyncpg with 16 connections and 32
callers, one statement a call. Items of 1 KB under random keys; a page is 25 items of a query. All with a flush for each
commit; the engine's callers at once are tasks of one event loop, as requests of a node are.
"""

import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from bench import report
from owsgit.services.tables.engine import Engine, Entry, Key, Span
from owsgit.services.tables.postgresql import PostgresqlEngine
from owsgit.services.tables.sqlite import SqliteEngine
from tests.support.postgresql import Server

ITEM = random.Random(1).randbytes(1000)
PAGE = 25
PARTITIONS = 40


def key_of(number: int) -> Key:
    return Key(b"user-%d" % (number % PARTITIONS), b"%08d" % number)


class Plain:
    """A table by hand, with a plain primary key."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA page_size = 8192")
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute(
            "CREATE TABLE t (hash BLOB, range BLOB, item BLOB, PRIMARY KEY (hash, range)) WITHOUT ROWID"
        )

    def put(self, number: int) -> None:
        self.database.execute("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (*key_of(number), ITEM))

    def get(self, number: int) -> None:
        assert self.database.execute("SELECT item FROM t WHERE hash = ? AND range = ?", key_of(number)).fetchone()

    def page(self, number: int) -> None:
        found = self.database.execute(
            "SELECT * FROM t WHERE hash = ? AND range >= ? ORDER BY range LIMIT ?", (*key_of(number), PAGE)
        ).fetchall()
        assert found


class PlainPostgresql:
    """The same by a pool of connections."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.pool = pool

    async def put(self, number: int) -> None:
        await self.pool.execute(
            "INSERT INTO t VALUES ($1, $2, $3) ON CONFLICT (hash, range) DO UPDATE SET item = excluded.item",
            *key_of(number),
            ITEM,
        )

    async def get(self, number: int) -> None:
        assert await self.pool.fetchrow("SELECT item FROM t WHERE hash = $1 AND range = $2", *key_of(number))

    async def page(self, number: int) -> None:
        assert await self.pool.fetch(
            "SELECT * FROM t WHERE hash = $1 AND range >= $2 ORDER BY range LIMIT $3", *key_of(number), PAGE
        )


class Ours:
    def __init__(self, engine: Engine, table: str, indexes: int) -> None:
        self.engine = engine
        self.table = table
        self.indexes = indexes

    async def put(self, number: int) -> None:
        key = key_of(number)
        entries = [Entry(f"i{n}", b"%d" % (number % 100), b"%08d" % number) for n in range(self.indexes)]
        await self.engine.write([self.table], lambda t: t.put(self.table, key, ITEM, entries))

    async def get(self, number: int) -> None:
        key = key_of(number)
        assert await self.engine.read([self.table], lambda s: s.get(self.table, key))

    async def page(self, number: int) -> None:
        hash_, low = key_of(number)
        span = Span(self.table, "", hash_, low)
        assert await self.engine.read([self.table], lambda s: [row for row, _ in zip(s.rows(span), range(PAGE))])  # noqa: B905

    async def update(self, number: int) -> None:
        key = key_of(number)

        def work(t) -> None:  # type: ignore[no-untyped-def]
            item = t.get(self.table, key)
            t.put(self.table, key, item[::-1], [])

        await self.engine.write([self.table], work)

    async def both(self, number: int) -> None:
        key = key_of(number)

        def work(t) -> None:  # type: ignore[no-untyped-def]
            t.put(self.table, key, ITEM, [])
            t.put("other", key, ITEM, [])

        await self.engine.write([self.table, "other"], work)


async def rate(what: Callable[[int], Awaitable[None]], numbers: list[int], callers: int) -> float:
    left = iter(numbers)

    async def call() -> None:
        for number in left:
            await what(number)

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return len(numbers) / (time.perf_counter() - began)


def plain_rate(what: Callable[[int], None], numbers: list[int]) -> float:
    began = time.perf_counter()
    for number in numbers:
        what(number)
    return len(numbers) / (time.perf_counter() - began)


PlainRates = Callable[[list[int], list[int]], Awaitable[dict[str, float]]]


async def measure(engine: Engine, plain: PlainRates, prefix: str, count: int, rounds: int) -> None:
    """`plain` gives the rates of "put", "get" and "page", for many numbers and for few."""
    for table, indexes in (("t0", 0), ("t1", 1), ("t5", 5), ("other", 0)):
        await engine.create(table, [f"i{n}" for n in range(indexes)])
    ours = {n: Ours(engine, f"t{n}", n) for n in (0, 1, 5)}
    rates: dict[str, list[float]] = {}
    chance = random.Random(2)
    for turn in range(rounds):
        numbers = chance.sample(range(turn * count * 4, (turn + 1) * count * 4), count * 4)
        few = numbers[:count]
        found = await plain(numbers, few)
        found |= {
            "put_c1": await rate(ours[0].put, few, 1),
            "put_c32": await rate(ours[0].put, numbers, 32),
            "put_1_index_c32": await rate(ours[1].put, numbers, 32),
            "put_5_indexes_c32": await rate(ours[5].put, numbers, 32),
            "put_changes_c32": await rate(ours[0].update, numbers, 32),
            "put_two_tables_c32": await rate(ours[0].both, few, 32),
            "get_c1": await rate(ours[0].get, numbers, 1),
            "get_c32": await rate(ours[0].get, numbers, 32),
            "page_c1": await rate(ours[0].page, few, 1),
            "page_c32": await rate(ours[0].page, few, 32),
        }
        for name, value in found.items():
            rates.setdefault(name, []).append(value)
    await engine.close()
    for name in list(rates)[3:]:
        baseline = report.median(rates[name.split("_")[0]])
        report.line(prefix + name, report.median(rates[name]), "1/s", baseline, digits=0)


async def sqlite(folder: Path, count: int, rounds: int) -> None:
    by_hand = Plain(folder / "plain.db")

    async def plain(numbers: list[int], few: list[int]) -> dict[str, float]:
        return {
            "put": plain_rate(by_hand.put, numbers),
            "get": plain_rate(by_hand.get, numbers),
            "page": plain_rate(by_hand.page, few),
        }

    await measure(SqliteEngine(folder / "tables"), plain, "", count, rounds)


async def postgresql(server: Server, count: int, rounds: int) -> None:
    async with asyncpg.create_pool(server.address, min_size=16, max_size=16) as pool:
        await pool.execute("CREATE TABLE t (hash bytea, range bytea, item bytea, PRIMARY KEY (hash, range))")
        by_hand = PlainPostgresql(pool)

        async def plain(numbers: list[int], few: list[int]) -> dict[str, float]:
            return {
                "put": await rate(by_hand.put, numbers, 32),
                "get": await rate(by_hand.get, numbers, 32),
                "page": await rate(by_hand.page, few, 32),
            }

        await measure(PostgresqlEngine(lambda: server.address), plain, "postgresql_", count, rounds)


def main() -> None:
    count, rounds = (400, 3) if report.quick() else (2000, 7)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        asyncio.run(sqlite(Path(folder), count, rounds))
    server = Server(fsync=True)
    try:
        server.start()
        asyncio.run(postgresql(server, count, rounds))
    finally:
        server.end()


if __name__ == "__main__":
    main()
