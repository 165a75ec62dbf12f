"""What the PostgreSQL engine promises of crashes, of several nodes on one database, and of the server's errors."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from owsgit.model.errors import UnavailableError
from owsgit.services.tables import postgresql_connections, postgresql_writer
from owsgit.services.tables.engine import Engine, Entry, Key, Row, Snapshot, Span, Transaction
from owsgit.services.tables.postgresql import PostgresqlEngine
from tests.services.tables import crashing
from tests.support.postgresql import Server

ROUNDS = 40 if os.environ.get("OWSGIT_SOAK") else 2
T = "shop.orders"
_schemas = itertools.count()


@pytest.fixture
def schema() -> str:
    return f"several_{next(_schemas)}"


@pytest.fixture(scope="module")
def durable() -> Iterator[Server]:
    """A server that may be killed."""
    server = Server(fsync=True)
    server.start()
    yield server
    server.end()


@asynccontextmanager
async def engines(server: Server, schema: str, count: int = 2) -> AsyncIterator[list[PostgresqlEngine]]:
    """As several nodes have them."""
    made = [PostgresqlEngine(lambda: server.address, schema=schema) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            await each.close()


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def count(t: Transaction, table: str = T) -> int:
    n = int(t.get(table, Key(b"n")) or b"0") + 1
    t.put(table, Key(b"n"), b"%d" % n, [])
    t.log(table, b"%d" % n)
    return n


async def put(engine: Engine, key: Key, item: bytes, *entries: Entry) -> None:
    await engine.write([T], lambda t: t.put(T, key, item, entries))


async def rows(engine: Engine, span: Span) -> list[Row]:
    return await engine.read([span.table], lambda s: list(s.rows(span)))


def test_nodes_count_together_and_the_stream_has_the_order_of_commits(postgresql: Server, schema: str) -> None:
    async def main() -> None:
        async with engines(postgresql, schema) as (one, other):
            await asyncio.gather(one.create(T, []), other.create(T, []))
            followed: list[bytes] = []

            async def follow() -> None:
                last = 0
                while len(followed) < 200:
                    found = await one.logged(T, last, 1000)
                    followed.extend(each.record for each in found)
                    last = found[-1].number if found else last

            async def write(engine: Engine) -> list[int]:
                return [await engine.write([T], count) for _ in range(25)]

            found, _ = await asyncio.gather(
                asyncio.gather(*(write(engine) for engine in (one, other) for _ in range(4))), follow()
            )
            assert sorted(n for each in found for n in each) == list(range(1, 201))
            assert followed == [b"%d" % n for n in range(1, 201)]  # nothing came in before what had been seen
            assert await one.facts(T) == await other.facts(T) == (1, 3, {})

    asyncio.run(main())


def test_transactions_that_cross_each_other_are_whole(postgresql: Server, schema: str) -> None:
    """Keys that are found only in a second attempt are locked out of order: the server ends one, which is tried again."""

    async def main() -> None:
        async with engines(postgresql, schema) as (one, other):
            await one.create(T, [])
            for n in range(4):
                await put(one, Key(b"at", b"%d" % n), b"100")

            def move(t: Transaction, at: int, to: int) -> None:
                here = int(t.get(T, Key(b"at", b"%d" % at)) or b"0")
                if here:  # so that the other key is asked for by the second attempt
                    there = int(t.get(T, Key(b"at", b"%d" % to)) or b"0")
                    t.put(T, Key(b"at", b"%d" % at), b"%d" % (here - 1), [])
                    t.put(T, Key(b"at", b"%d" % to), b"%d" % (there + 1), [])

            async def moves(engine: Engine, step: int) -> None:
                for n in range(24):
                    await engine.write([T], lambda t, n=n: move(t, n % 4, (n + step) % 4))  # type: ignore[misc]

            async def look() -> None:
                for _ in range(20):
                    assert sum(int(row.item) for row in await rows(one, Span(T, "", b"at"))) == 400

            await asyncio.gather(moves(one, 1), moves(other, 3), look())
            assert sum(int(row.item) for row in await rows(other, Span(T, "", b"at"))) == 400

    asyncio.run(main())


def test_a_work_that_goes_through_a_span_has_its_table_for_itself(postgresql: Server, schema: str) -> None:
    def add(t: Transaction) -> None:
        here = list(t.rows(Span(T, "", b"h")))
        t.put(T, Key(b"h", b"%04d" % len(here)), b"%d" % len(here), [Entry("i", b"x", b"%04d" % len(here))])
        assert [row.item for row in t.rows(Span(T, "i", b"x", backwards=True))][:1] == [b"%d" % len(here)]
        assert len(list(t.rows(Span(T)))) == len(here) + 1

    async def main() -> None:
        async with engines(postgresql, schema) as (one, other):
            await one.create(T, ["i"])
            await asyncio.gather(*(engine.write([T], add) for engine in (one, other) for _ in range(20)))
            assert [row.item for row in await rows(one, Span(T, "", b"h"))] == [b"%d" % n for n in range(40)]

    asyncio.run(main())


def test_an_index_is_filled_by_one_node_and_by_the_next_if_that_is_lost(postgresql: Server, schema: str) -> None:
    seen: list[bytes] = []

    def entry(item: bytes) -> Entry:
        seen.append(item)
        return Entry("late", item)

    async def main() -> None:
        async with engines(postgresql, schema) as (one, other):
            await one.create(T, [])

            def fill(t: Transaction) -> None:
                for n in range(1000):
                    t.put(T, Key(b"%d" % n), b"%d" % n, [])

            await one.write([T], fill)
            await one.create(T, ["late"])
            begun = asyncio.Event()

            def lost(done: int) -> None:
                begun.set()
                if done >= 400:
                    raise UnavailableError("the node is killed")

            first = asyncio.ensure_future(one.refill(T, "late", entry, lost))
            await begun.wait()
            await other.refill(T, "late", entry, lambda done: None)
            with pytest.raises(UnavailableError):
                await first
            assert len(seen) == len(set(seen)) == 1000
            assert (await one.facts(T)).entries == {"late": 1000}

    asyncio.run(main())


def test_a_node_that_does_not_know_an_index_does_not_write(postgresql: Server, schema: str) -> None:
    async def main() -> None:
        async with engines(postgresql, schema) as (one, behind):
            for engine in (one, behind):
                await engine.create(T, [])
                engine.gives(T, [])
            await behind.create("other", [])
            await one.create(T, ["i"])
            with pytest.raises(UnavailableError, match="has the index i, of which this node does not know"):
                await asyncio.gather(put(behind, Key(b"a"), b"1"), behind.write(["other"], lambda t: count(t, "other")))
            assert await behind.read(["other"], lambda s: s.get("other", Key(b"n"))) == b"1"
            one.gives(T, ["i"])
            await put(one, Key(b"a"), b"1", Entry("i", b"x"))
            behind.gives(T, ["i"])
            await put(behind, Key(b"b"), b"2", Entry("i", b"x"))
            assert len(await rows(one, Span(T, "i", b"x"))) == 2
            await behind.create(T, [])  # and what it does not know is gone is left out
            await put(one, Key(b"a"), b"1", Entry("i", b"x"))
            await behind.drop(T)
            await behind.create(T, ["i"])
            assert await rows(one, Span(T, "i")) == await rows(one, Span(T)) == []

    asyncio.run(main())


def test_a_task_is_one_nodes_at_a_time(postgresql: Server, schema: str) -> None:
    async def main() -> None:
        async with engines(postgresql, schema) as (one, other):
            async with one.alone("a task") as mine, other.alone("a task") as too, other.alone("another") as more:
                assert (mine, too, more) == (True, False, True)
            async with other.alone("a task") as mine:
                assert mine

    asyncio.run(main())


@pytest.mark.parametrize("name", ["a'; DROP SCHEMA public; --", 'a"b', "$1", "%s {id}", "\\x00"])
def test_names_are_only_ever_values(postgresql: Server, schema: str, name: str) -> None:
    async def main() -> None:
        async with engines(postgresql, schema, 1) as [engine]:
            await engine.create(name, [name])
            await engine.write([name], lambda t: t.put(name, Key(b"a"), b"1", [Entry(name, b"x")]))
            found = await rows(engine, Span(name, name))
            assert [row.item for row in found] == [b"1"]
            await engine.drop(name)

    asyncio.run(main())


def test_a_schema_is_one_projects_and_a_database_the_one_that_it_was(postgresql: Server, schema: str) -> None:
    async def refused(**given: str) -> str:
        engine = PostgresqlEngine(lambda: postgresql.address, **({"schema": schema} | given))  # type: ignore[arg-type]
        with pytest.raises(UnavailableError) as caught:
            await engine.create(T, [])
        await engine.close()
        return str(caught.value)

    async def main() -> None:
        engine = PostgresqlEngine(lambda: postgresql.address, schema=schema, project="1" * 12)
        await engine.create(T, [])
        identity = await engine.identity()
        await engine.close()
        assert "is of another project, with the account 111111111111" in await refused(project="2" * 12)
        told = await refused(schema=f"{schema}_other", identity=identity)
        assert "nothing of this project" in told and "pg_restore" in told
        assert "other tables" in await refused(project="1" * 12, identity="0" * 32)
        engine = PostgresqlEngine(lambda: postgresql.address, schema=schema, project="1" * 12, identity=identity)
        assert await engine.shape(T) is not None
        await engine.close()

    asyncio.run(main())


def test_what_was_answered_survives_a_node_that_is_killed(durable: Server, schema: str) -> None:
    crashing.survives(f"{durable.address}#{schema}", ROUNDS)


def test_relaxed_writes_are_answered_before_the_servers_disk_has_them(durable: Server, schema: str) -> None:
    """What is flushed lags behind what is written, for once in many writes at least; with full durability never."""

    async def main() -> None:
        async with engines(durable, schema, 1) as (engine,):
            await engine.create(T, [])
            connection = await asyncpg.connect(durable.address)

            async def lags() -> bool:
                before = await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
                await put(engine, Key(b"k"), b"item")
                return bool(await connection.fetchval("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn") <= before)

            for relaxed in (False, True, False):
                engine.relaxed = relaxed
                assert any([await lags() for _ in range(30)]) is relaxed
            await connection.close()

    asyncio.run(main())


def test_what_was_answered_survives_a_backend_that_is_killed(durable: Server, schema: str) -> None:
    """The server ends all connections then, and recovers."""

    async def main() -> None:
        async with engines(durable, schema) as made:
            await crashing.create(made[0])
            told: dict[tuple[str, str], int] = {}
            failures: list[UnavailableError] = []
            stopped = False

            async def write(engine: Engine, caller: int) -> None:
                value = 0
                while not stopped:
                    value += 1
                    item = b"%08d" % value
                    key = Key(b"both-%d" % caller)

                    def work(t: Transaction, key: Key = key, item: bytes = item) -> None:
                        for table in crashing.TABLES:
                            crashing.put(t, table, key, item)

                    try:
                        await engine.write(crashing.TABLES, work)
                    except UnavailableError as error:
                        failures.append(error)
                        await asyncio.sleep(0.02)
                    else:
                        told.update({(table, f"both-{caller}"): value for table in crashing.TABLES})

            async def kill() -> None:
                nonlocal stopped
                for _ in range(ROUNDS // 2):
                    known = sum(told.values())
                    await until(lambda: answer(sum(told.values()) > known + 40))
                    connection = await asyncpg.connect(durable.address)
                    pid = await until(
                        lambda: connection.fetchval(
                            "SELECT pid FROM pg_stat_activity"
                            " WHERE application_name = 'owsgit' AND state LIKE '%transaction%' LIMIT 1"
                        )
                    )
                    os.kill(pid, signal.SIGKILL)
                    await until(lambda: answer(connection.is_closed()))  # the server ends all the others
                    await until(recovered)
                stopped = True

            async def recovered() -> bool:
                try:
                    await made[0].facts("a")
                except UnavailableError:
                    return False
                return True

            await asyncio.gather(kill(), *(write(made[n % 2], n) for n in range(8)))
            await crashing.check(made[0], told)

    asyncio.run(main())


async def answer(value: bool) -> bool:
    return value


def test_a_server_that_is_away_is_told_and_found_again(durable: Server, schema: str) -> None:
    def both(t: Transaction) -> None:
        count(t)
        count(t, "other")

    def seen(s: Snapshot) -> list[bytes | None]:
        return [s.get(table, Key(b"n")) for table in (T, "other")]

    async def main() -> None:
        async with engines(durable, schema, 1) as [engine]:
            for table in (T, "other"):
                await engine.create(table, [])
            await engine.write([T, "other"], both)
            held = asyncio.Event()

            async def hold() -> None:
                async with engine.alone("a task") as mine:
                    assert mine
                    held.set()
                    await asyncio.sleep(3600)

            holding = asyncio.ensure_future(hold())
            await held.wait()
            await asyncio.to_thread(durable.restart)
            assert await engine.read([T, "other"], seen) == [b"1", b"1"]  # of the restart nobody is told
            await engine.write([T, "other"], both)
            assert await engine.read([T], lambda s: s.get(T, Key(b"n"))) == b"2"
            holding.cancel()  # whose lock is gone
            with pytest.raises(asyncio.CancelledError):
                await holding
            await asyncio.to_thread(durable.stop)
            for what in (
                engine.write([T, "other"], both),
                engine.read([T, "other"], seen),
                engine.read([T], lambda s: s.get(T, Key(b"n"))),
                engine.facts(T),
                engine.create("more", []),
            ):
                with pytest.raises(UnavailableError, match="PostgreSQL server"):
                    await what
            assert "cannot be used" in engine.problem
            await asyncio.to_thread(durable.start)
            await engine.write([T, "other"], both)
            assert await engine.read([T, "other"], seen) == [b"3", b"3"]
            await engine.facts(T)
            assert not engine.problem

    asyncio.run(main())


def test_what_is_no_address_of_the_database_any_more_is_told_before_somebody_asks(
    postgresql: Server, schema: str
) -> None:
    async def main() -> None:
        address = postgresql.address
        engine = PostgresqlEngine(lambda: address, schema=schema)
        await engine.create(T, [])
        address = address.replace("/postgres?", "/absent?")
        await engine.look()
        assert '"absent" does not exist' in engine.problem
        address = postgresql.address
        await engine.look()
        assert not engine.problem
        await engine.close()

    asyncio.run(main())


def test_a_node_that_stands_still_does_not_hold_up_the_others(
    postgresql: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stopped node has locked is let go by the server."""
    monkeypatch.setitem(postgresql_connections._SETTINGS, "idle_in_transaction_session_timeout", "300ms")

    async def main() -> None:
        async with engines(postgresql, schema, 1) as [engine]:
            await engine.create(T, [])
            stopped = await asyncpg.connect(postgresql.address, server_settings=dict(postgresql_connections._SETTINGS))
            await stopped.execute("BEGIN")
            await stopped.execute("SELECT pg_advisory_xact_lock($1)", engine._schema.table_lock(T))
            await engine.write([T], count)
            stopped.terminate()

    asyncio.run(main())


def test_one_work_that_cannot_be_written_fails_alone(postgresql: Server, schema: str) -> None:
    async def main() -> None:
        async with engines(postgresql, schema, 1) as [engine]:
            await engine.create(T, [])
            long = os.urandom(9000)  # more than an entry of an index takes
            found = await asyncio.gather(
                put(engine, Key(b"a"), b"1"),
                put(engine, Key(b"b", long), b"2"),
                put(engine, Key(b"c"), b"3"),
                return_exceptions=True,
            )
            assert [type(each) for each in found] == [type(None), UnavailableError, type(None)]
            assert len(await rows(engine, Span(T))) == 2

    asyncio.run(main())


def test_too_many_writes_are_refused(postgresql: Server, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_writer, "WAITING_MAX", 10)

    async def main() -> None:
        async with engines(postgresql, schema, 1) as [engine]:
            await engine.create(T, [])
            found = await asyncio.gather(*(engine.write([T], count) for _ in range(50)), return_exceptions=True)
            assert any(isinstance(each, UnavailableError) for each in found)
            assert await engine.write([T], count) == sum(isinstance(each, int) for each in found) + 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "address",
    ["postgresql://owsgit:s3cr3t@127.0.0.1:1/x?password=s3cr3t", "postgresql://127.0.0.1:1/x?password=&s3cr3t"],
)
def test_passwords_are_not_told(schema: str, address: str) -> None:
    async def main() -> None:
        engine = PostgresqlEngine(lambda: address, schema=schema)
        with pytest.raises(UnavailableError) as caught:
            await put(engine, Key(b"a"), b"1")
        assert "s3cr3t" not in str(caught.value)
        await engine.close()

    asyncio.run(main())
