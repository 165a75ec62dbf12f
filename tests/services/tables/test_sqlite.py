"""What the embedded engine promises of crashes, disks and files."""

import asyncio
import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.services.tables import sqlite_flushing, sqlite_table
from owsgit.services.tables.engine import Entry, Key, Transaction
from owsgit.services.tables.sqlite import SqliteEngine
from owsgit.services.tables.sqlite_file import path_of
from tests.services.tables import crashing

ROUNDS = 60 if os.environ.get("OWSGIT_SOAK") else 4


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: what would be longer cannot be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_answered_survives_being_killed(tmp_path: Path) -> None:
    crashing.survives(str(tmp_path), ROUNDS)


async def write_both(engine: SqliteEngine, value: bytes) -> None:
    def work(t: Transaction) -> None:
        for table in crashing.TABLES:
            t.put(table, Key(b"k"), value, [Entry("i", value)])
            t.log(table, value)

    await engine.write(crashing.TABLES, work)


@pytest.mark.parametrize("made", [0, 1])
@pytest.mark.parametrize("again", ["at once", "after a start"])
def test_what_is_decided_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: int, again: str) -> None:
    """The disk fails after `made` of two files were committed."""
    commit = sqlite_table.TableFile.commit
    commits: list[str] = []
    failing = True

    def fails(self: sqlite_table.TableFile, number: int | None = None) -> None:
        if number is not None and failing:
            if len(commits) >= made:
                raise OSError(28, "No space left on device")
            commits.append(self.table)
        commit(self, number)

    async def main() -> None:
        nonlocal failing
        engine = SqliteEngine(tmp_path)
        for table in crashing.TABLES:
            await engine.create(table, ["i"])
        await engine.create("other", [])
        await write_both(engine, b"1")
        monkeypatch.setattr(sqlite_table.TableFile, "commit", fails)
        with pytest.raises(UnavailableError):
            await write_both(engine, b"2")
        with pytest.raises(UnavailableError):
            await write_both(engine, b"no")
        for table in crashing.TABLES:
            with pytest.raises(UnavailableError):
                await engine.read([table], lambda s, t=table: s.get(t, Key(b"k")))  # type: ignore[misc]
        await engine.write(["other"], lambda t: t.put("other", Key(b"k"), b"1", []))
        failing = False
        if again == "after a start":
            await engine.close()
            engine = SqliteEngine(tmp_path)
        else:
            engine._writer._mend_at = 0.0
        await write_both(engine, b"3")
        await engine.create("a", ["i"])
        for table in crashing.TABLES:
            assert [each.record for each in await engine.logged(table, 0, 10)] == [b"1", b"2", b"3"]
            assert (await engine.facts(table)) == (1, 1, {"i": 1})
        await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize("together", [False, True])
def test_a_commit_that_fails_once_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    commit = sqlite_table.TableFile.commit
    failures: list[str] = []

    def fails(self: sqlite_table.TableFile, number: int | None = None) -> None:
        if self.table == "b" and not failures:
            failures.append("b")
            raise sqlite3.OperationalError("disk I/O error")
        commit(self, number)

    def count(t: Transaction, tables: tuple[str, ...]) -> None:
        for table in tables:
            t.put(table, Key(b"n"), b"%d" % (int(t.get(table, Key(b"n")) or b"0") + 1), [])

    async def main() -> None:
        engine = SqliteEngine(tmp_path)
        for table in crashing.TABLES:
            await engine.create(table, [])
        monkeypatch.setattr(sqlite_table.TableFile, "commit", fails)
        named = [crashing.TABLES] if together else [("a",), ("b",)]
        await asyncio.gather(*(engine.write(n, lambda t, n=n: count(t, n)) for n in named for _ in range(5)))  # type: ignore[misc]
        assert failures
        for table in crashing.TABLES:
            assert await engine.read([table], lambda s, t=table: s.get(t, Key(b"n"))) == b"5"  # type: ignore[misc]
        await engine.close()

    asyncio.run(main())


def test_a_full_disk_is_told_and_undoes_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        engine = SqliteEngine(tmp_path)
        for table in (*crashing.TABLES, "c"):
            await engine.create(table, ["i"])
        await write_both(engine, b"1")
        with files_no_larger_than(300_000):
            found = await asyncio.gather(
                engine.write(["a"], lambda t: t.put("a", Key(b"large"), bytes(1_000_000), [])),
                engine.write(["c"], lambda t: t.put("c", Key(b"small"), b"1", [])),
                return_exceptions=True,
            )
            assert isinstance(found[0], UnavailableError), found
            assert found[0].problems[0].remedy
            assert found[1] is None
        assert await engine.read(["a"], lambda s: s.get("a", Key(b"large"))) is None
        assert await engine.read(["c"], lambda s: s.get("c", Key(b"small"))) == b"1"
        await write_both(engine, b"2")
        await engine.close()

    asyncio.run(main())


def test_a_damaged_file_is_told_and_others_work(tmp_path: Path) -> None:
    async def main() -> None:
        engine = SqliteEngine(tmp_path)
        for table in crashing.TABLES:
            await engine.create(table, ["i"])
        await write_both(engine, b"1")
        await engine.close()
        path_of(tmp_path, "a").write_bytes(b"no database at all" * 1000)
        engine = SqliteEngine(tmp_path)
        for what in (
            engine.read(["a"], lambda s: s.get("a", Key(b"k"))),
            engine.write(["a"], lambda t: t.put("a", Key(b"k"), b"2", [])),
            engine.facts("a"),
            engine.create("a", ["i"]),
        ):
            with pytest.raises(UnavailableError) as told:
                await what
            assert "backup" in told.value.problems[0].remedy
        await engine.write(["b"], lambda t: t.put("b", Key(b"k"), b"2", []))
        assert await engine.read(["b"], lambda s: s.get("b", Key(b"k"))) == b"2"
        await engine.drop("a")
        await engine.create("a", [])
        await engine.close()
        (tmp_path / "journal.db").write_bytes(b"no database at all" * 1000)
        with pytest.raises(UnavailableError):
            SqliteEngine(tmp_path)

    asyncio.run(main())


def test_relaxed_is_the_same_but_for_the_flush(tmp_path: Path) -> None:
    async def main() -> None:
        engine = SqliteEngine(tmp_path, relaxed=True)
        for table in crashing.TABLES:
            await engine.create(table, ["i"])
        await write_both(engine, b"1")
        await write_both(engine, b"2")
        await engine.close()
        engine = SqliteEngine(tmp_path)
        assert [each.record for each in await engine.logged("a", 0, 10)] == [b"1", b"2"]
        await engine.close()

    asyncio.run(main())
    assert not list(tmp_path.glob("*-wal"))


def test_durability_may_change_while_the_engine_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written without a flush is flushed soon after, without anybody asking."""
    flushed: list[Path] = []
    force = sqlite_flushing.force
    monkeypatch.setattr(sqlite_flushing, "SECONDS", 0.01)
    monkeypatch.setattr(sqlite_flushing, "force", lambda path: (force(path), flushed.append(path)))

    async def main() -> None:
        engine = SqliteEngine(tmp_path)
        await engine.create("a", [])

        async def written(value: bytes) -> int:
            await engine.write(["a"], lambda t: t.put("a", Key(b"k"), value, []))
            found = await engine._writer.do(["a"], lambda work: work.file("a").database.execute("PRAGMA synchronous"))
            return int(found.fetchone()[0])

        full, normal = 2, 1
        assert await written(b"1") == full and not flushed
        engine.relaxed = True
        assert await written(b"2") == normal
        while not flushed:
            await asyncio.sleep(0.01)
        assert flushed[0].name == "a.table"
        engine.relaxed = False
        assert await written(b"3") == full
        await engine.close()

    asyncio.run(main())


def test_an_index_of_an_empty_table_has_what_was_on_its_way_when_it_was_made(tmp_path: Path) -> None:
    async def what() -> None:
        engine = SqliteEngine(tmp_path, relaxed=True)
        await engine.create("t", [])
        await engine.create("t", ["late"])
        await engine.write(["t"], lambda t: t.put("t", Key(b"1"), b"1", []))  # by one that does not know yet
        await engine.refill("t", "late", lambda item: Entry("late", b"x"), lambda done: None)
        assert await engine.is_filled("t", "late")
        assert (await engine.facts("t")).entries == {"late": 1}
        await engine.close()

    asyncio.run(what())


def test_a_table_that_is_dropped_takes_no_space(tmp_path: Path) -> None:
    def kept() -> list[str]:
        files = [str(file) for file in Path("/proc/self/fd").iterdir()]
        return [path for path in map(os.path.realpath, files) if path.startswith(str(tmp_path / "gone"))]

    async def what() -> None:
        engine = SqliteEngine(tmp_path, relaxed=True)
        await engine.create("gone", [])
        await engine.facts("gone")  # in a thread, and from now on in the event loop as well
        assert await engine.get("gone", Key(b"1")) is None
        assert len(kept()) > 4
        await engine.drop("gone")
        async with asyncio.timeout(2):
            while kept():
                await asyncio.sleep(0.002)
        await engine.close()

    asyncio.run(what())
