"""A process that writes tables under load until it is killed: `python -m tests.services.tables.crashing FOLDER SEED`.

Each answered write is a line on stdout: "put TABLE N VALUE" of the item N, or "move N" of the Nth transaction over both.
"""

import asyncio
import random
import sys
from pathlib import Path

from owsgit.services.tables.engine import Entry, Key, Transaction
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


async def write(engine: SqliteEngine, seed: int, caller: int) -> None:
    """The caller's own items, with rising values."""
    chance = random.Random(f"{seed}-{caller}")
    value = 0
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


async def main(folder: Path, seed: int) -> None:
    engine = SqliteEngine(folder, relaxed=seed % 2 == 1)  # of which a kill takes as little
    for table in TABLES:
        await engine.create(table, ["i", "late"])
    async with asyncio.TaskGroup() as group:
        for table in TABLES:
            group.create_task(engine.refill(table, "late", late, lambda done: None))
        for caller in range(CALLERS):
            group.create_task(write(engine, seed, caller))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
