"""A large table over a small one, in the embedded engine: what size costs. `--items 10000000` for the real thing.

Items of `--bytes` bytes under random keys, each in one index. `open`: seconds until the first item is read after a
start; `get`, `index_page` (25 items of a query by the index), `update` (the item and its key in the index change, each
with its flush): a second, 32 callers; `load`: items a second, 500 in each transaction; `memory`: of the process, MB.
"""

import argparse
import asyncio
import random
import resource
import tempfile
import time
from pathlib import Path

from bench import report
from bench.tables_engine import PAGE, rate
from owsgit.services.tables.engine import Entry, Key, Span, Transaction
from owsgit.services.tables.sqlite import SqliteEngine

SMALL = 10_000
TOGETHER = 500
"""Items that are loaded in one transaction."""

INDEX_ENTRIES = 1000
"""So many items lie under one hash key of the index."""


def key_of(number: int) -> Key:
    return Key(b"user-%d" % (number * 0x9E3779B1 % (1 << 32)), b"%08d" % number)


class Table:
    """`items` of them, in a folder of its own."""

    def __init__(self, folder: Path, items: int, length: int) -> None:
        self.folder, self.items = folder, items
        self.content = random.Random(1).randbytes(length)

    async def opened(self) -> "Table":
        self.engine = SqliteEngine(self.folder)
        await self.engine.create("t", ["i"])
        return self

    def put(self, transaction: Transaction, number: int, version: int = 0) -> None:
        entry = Entry("i", b"%d" % (number // INDEX_ENTRIES), b"%d-%08d" % (version, number))
        transaction.put("t", key_of(number), self.content, [entry])

    async def load(self) -> float:
        began = time.perf_counter()
        for first in range(0, self.items, TOGETHER):
            numbers = range(first, min(first + TOGETHER, self.items))
            await self.engine.write(["t"], lambda t, numbers=numbers: [self.put(t, each) for each in numbers])  # type: ignore[misc]
        return self.items / (time.perf_counter() - began)

    async def get(self, number: int) -> None:
        assert await self.engine.read(["t"], lambda s: s.get("t", key_of(number)))

    async def page(self, number: int) -> None:
        span = Span("t", "i", b"%d" % (number // INDEX_ENTRIES), b"0-%08d" % number)
        assert await self.engine.read(["t"], lambda s: [row for row, _ in zip(s.rows(span), range(PAGE))])  # noqa: B905

    async def update(self, number: int) -> None:
        await self.engine.write(["t"], lambda t: self.put(t, number, 1))


async def measure(table: Table, count: int) -> dict[str, float]:
    await table.opened()
    found = {"load": await table.load()}
    await table.engine.close()
    began = time.perf_counter()
    await table.opened()
    await table.get(table.items // 2)
    found["open"] = time.perf_counter() - began
    numbers = random.Random(3).choices(range(table.items), k=count)
    for name, work in (("get", table.get), ("index_page", table.page), ("update", table.update)):
        found[name] = await rate(work, numbers, 32)
    await table.engine.close()
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    count = 1000 if given.quick else 5000
    with tempfile.TemporaryDirectory(dir=".") as folder:
        small = asyncio.run(measure(Table(Path(folder) / "small", SMALL, given.bytes), count))
        large = asyncio.run(measure(Table(Path(folder) / "large", given.items, given.bytes), count))
        size = sum(path.stat().st_size for path in (Path(folder) / "large").rglob("*") if path.is_file())
    print(f"# {given.items} items, {size / 1e9:.2f} GB on the disk")
    for name, unit in (
        ("load", "1/s"),
        ("open", "s"),
        ("get", "1/s"),
        ("index_page", "1/s"),
        ("update", "1/s"),
        ("memory", "MB"),
    ):
        report.line(name, large[name], unit, small[name], digits=3 if name == "open" else 0)


if __name__ == "__main__":
    main()
