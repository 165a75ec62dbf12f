"""A process that writes tables under load until it is killed: `python -m tests.services.tables.crashing PLACE SEED`.

The place is a folder, or an address of PostgreSQL and behind `#` the schema. Each answered write is a line on stdout: "put TABLE N VALUE" of the item N, or "move N" of the Nth transaction over both.
"""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from owsgit.services.tables.engine import Engine, Entry, Key, Snapshot, Span, Transaction
from owsgit.services.tables.postgresql import PostgresqlEngine
from owsgit.services.tables.sqlite import SqliteEngine

TABLES = ("a", "b")
ITEMS = 40
CALLERS = 8


def entry(item: bytes) -> Entry:
    return Entry("i", item[-1:], item)


def late(item: bytes) -> Entry:
    return Entry("late", item[:3], item)


def put(t: Transaction, table: str, key: Key, item: bytes) -> None:
    t.put(table, key, item, [entry(item), late(item)])
    t.log(table, key.hash + b"=" + item)


async def write(engine: Engine, seed: int, caller: int) -> None:
    """The caller's own items, with rising values."""
    chance = random.Random(f"{seed}-{caller}")
    value = seed * 1_000_000
    while True:
        value += 1
        item = b"%08d" % value + b"." * chance.choice((0, 900, 20_000)) + b"%d" % (value % 3)
        if chance.random() < 0.4:
            key = Key(b"both-%d" % caller)

            def move(t: Transaction, key: Key = key, item: bytes = item) -> None:
                for table in TABLES:
                    put(t, table, key, item)

            await engine.write(TABLES, move)
            line = f"move {caller} {value}\n"
        else:
            table, number = chance.choice(TABLES), chance.randrange(ITEMS)
            key = Key(b"%d-%d" % (caller, number))
            await engine.write([table], lambda t: put(t, table, key, item))
            line = f"put {table} {caller}-{number} {value}\n"
        sys.stdout.write(line)
        sys.stdout.flush()


def opened(place: str, *, relaxed: bool = False) -> Engine:
    if not place.startswith("postgresql:"):
        return SqliteEngine(Path(place), relaxed=relaxed)
    address, _, schema = place.partition("#")
    return PostgresqlEngine(lambda: address, schema=schema)


async def main(place: str, seed: int) -> None:
    engine = opened(place, relaxed=seed % 2 == 1)  # of which a kill takes as little
    await create(engine)
    async with asyncio.TaskGroup() as group:
        for table in TABLES:
            group.create_task(engine.refill(table, "late", late, lambda done: None))
        for caller in range(CALLERS):
            group.create_task(write(engine, seed, caller))


async def create(engine: Engine) -> None:
    for table in TABLES:
        await engine.create(table, ["i", "late"])


async def check(engine: Engine, told: dict[tuple[str, str], int]) -> None:
    """That all of `told` is there, or what came after it; transactions are whole; indexes and streams are as the items."""

    def look(s: Snapshot) -> None:
        both: list[dict[bytes, bytes]] = []
        for table in TABLES:
            rows = {row.position.key.hash: row.item for row in s.rows(Span(table))}
            for name, make in (("i", entry), ("late", late)):
                found = sorted(
                    (row.position.key.hash, Entry(name, *row.position[:2])) for row in s.rows(Span(table, name))
                )
                assert found == sorted((key, make(item)) for key, item in rows.items())
            for (where, key), value in told.items():
                if where == table:
                    assert int(rows[key.encode()][:8]) >= value, (table, key)
            both.append({key: item for key, item in rows.items() if key.startswith(b"both")})
        assert both[0] == both[1]

    await create(engine)  # what was under way by then is done, or not
    for table in TABLES:
        await engine.refill(table, "late", late, lambda done: None)
    await engine.read(TABLES, look)
    for table in TABLES:
        log = await engine.logged(table, 0, 1_000_000)
        assert [each.number for each in log] == list(range(1, len(log) + 1))
        last = dict(each.record.split(b"=", 1) for each in log)
        rows = await engine.read([table], lambda s, t=table: {r.position.key.hash: r.item for r in s.rows(Span(t))})  # type: ignore[misc]
        assert rows == last
        assert (await engine.facts(table)).items == len(rows)


def survives(place: str, rounds: int) -> None:
    """Kill the process at any instant, again and again: what it was answered is there."""
    chance = random.Random(7)
    for seed in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, place, str(seed)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(chance.random() * 0.3)
        process.kill()
        lines = [first, *process.stdout]
        process.wait()
        told: dict[tuple[str, str], int] = {}
        for line in lines:
            words = line.split()
            if not line.endswith("\n"):
                continue
            if words[0] == "move":
                told |= {(table, f"both-{words[1]}"): int(words[2]) for table in TABLES}
            else:
                told[words[1], words[2]] = int(words[3])
        assert told
        asyncio.run(checked(place, told))


async def checked(place: str, told: dict[tuple[str, str], int]) -> None:
    engine = opened(place)
    try:
        await check(engine, told)
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
