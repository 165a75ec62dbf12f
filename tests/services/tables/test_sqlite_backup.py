"""Copies of tables are of one moment, whatever is written meanwhile."""

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.services.tables import sqlite_backup
from owsgit.services.tables.engine import Entry, Key, Snapshot, Span, Transaction
from owsgit.services.tables.sqlite import SqliteEngine

TABLES = ("a", "b", "c")
CALLERS = 8
COPIES = 12


async def write(engine: SqliteEngine, caller: int, answered: dict[int, int]) -> None:
    """Transactions that give each table the same new item."""
    while True:
        item = b"%d %08d" % (caller, answered[caller] + 1)

        def work(t: Transaction, item: bytes = item) -> None:
            for table in TABLES:
                t.put(table, Key(item), item, [Entry("i", item)])

        await engine.write(TABLES, work)
        answered[caller] += 1
        await asyncio.sleep(0)


def read(folder: Path) -> list[list[tuple[bytes, bytes]]]:
    """Keys and values of each table and of its index, from a copy."""

    async def main() -> list[list[tuple[bytes, bytes]]]:
        engine = SqliteEngine(folder)

        def work(s: Snapshot) -> list[list[tuple[bytes, bytes]]]:
            return [
                sorted((row.position.key.hash, row.item) for row in s.rows(Span(table, index)))
                for table in TABLES
                for index in ("", "i")
            ]

        try:
            return await engine.read(TABLES, work)
        finally:
            await engine.close()

    return asyncio.run(main())


@contextlib.contextmanager
def slowly(path: Path) -> Iterator[sqlite3.Connection]:
    """As where there are many tables: time enough for a transaction between one and the next."""
    with held(path) as database:
        time.sleep(0.005)
        yield database


held = sqlite_backup._held


def test_a_copy_has_transactions_over_several_tables_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = dict.fromkeys(range(CALLERS), 0)
    monkeypatch.setattr(sqlite_backup, "_held", slowly)

    async def main() -> list[dict[int, int]]:
        engine, known = SqliteEngine(tmp_path / "live", relaxed=True), []
        for table in TABLES:
            await engine.create(table, ["i"])
        writing = [asyncio.ensure_future(write(engine, caller, answered)) for caller in range(CALLERS)]
        while min(answered.values()) < 2:
            await asyncio.sleep(0.001)
        for number in range(COPIES):
            known.append(dict(answered))
            target = tmp_path / f"copy-{number}"
            target.mkdir()
            names = await asyncio.to_thread(sqlite_backup.copy, tmp_path / "live", target)
            assert names == ["a.table", "b.table", "c.table", "journal.db"]
        for task in writing:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await engine.close()
        return known

    for number, known in enumerate(asyncio.run(main())):
        first, *others = read(tmp_path / f"copy-{number}")
        assert all(each == first for each in others), "a transaction is whole, and indexes are their tables'"
        counts = Counter(int(item.split()[0]) for _, item in first)
        assert all(counts[caller] >= count for caller, count in known.items()), "what was answered is in it"


def test_what_cannot_be_copied_is_told(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    assert sqlite_backup.copy(tmp_path / "nowhere", tmp_path / "to") == []

    async def main() -> None:
        engine = SqliteEngine(tmp_path / "live")
        await engine.create("a", [])
        await engine.close()

    asyncio.run(main())
    (tmp_path / "live/a.table").write_bytes(b"no database at all" * 1000)
    with pytest.raises(UnavailableError, match="file is not a database"):
        sqlite_backup.copy(tmp_path / "live", tmp_path / "to")
