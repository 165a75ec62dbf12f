"""The contract of engines (owsgit/services/tables/engine.py), against each of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.services.tables.engine import Engine, Entry, Facts, Key, Position, Row, Snapshot, Span, Transaction
from tests.services.tables.conftest import Opens

T = "shop.orders"


def run(opens: Opens, what: Callable[[Engine], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = opens()
        try:
            await what(engine)
        finally:
            await engine.close()

    asyncio.run(main())


async def put(engine: Engine, key: Key, item: bytes, *entries: Entry, table: str = T) -> None:
    await engine.write([table], lambda t: t.put(table, key, item, entries))


async def get(engine: Engine, key: Key, table: str = T) -> bytes | None:
    return await engine.read([table], lambda s: s.get(table, key))


async def rows(engine: Engine, span: Span) -> list[Row]:
    return await engine.read([span.table], lambda s: list(s.rows(span)))


async def items(engine: Engine, span: Span) -> list[bytes]:
    return [row.item for row in await rows(engine, span)]


def test_put_replaces_and_delete_forgets(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        key = Key(b"a", b"\0\xff")
        assert await get(engine, key) is None
        await put(engine, key, b"1")
        await put(engine, Key(b"a"), b"other")
        await put(engine, key, b"22")
        assert await get(engine, key) == b"22"
        assert await engine.facts(T) == Facts(2, 7, {})
        await engine.write([T], lambda t: t.delete(T, key))
        await engine.write([T], lambda t: t.delete(T, key))
        assert await get(engine, key) is None
        assert await engine.facts(T) == Facts(1, 5, {})

    run(opens, what)


def test_what_is_written_is_there_when_it_is_opened_again(opens: Opens) -> None:
    async def first(engine: Engine) -> None:
        await engine.create(T, ["i"])
        await put(engine, Key(b"a"), b"1", Entry("i", b"x"))

    async def second(engine: Engine) -> None:
        await engine.create(T, ["i"])
        assert await get(engine, Key(b"a")) == b"1"
        assert await items(engine, Span(T, "i", b"x")) == [b"1"]
        assert await engine.facts(T) == Facts(1, 1, {"i": 1})

    run(opens, first)
    run(opens, second)


def test_a_work_that_raises_undoes_only_itself(opens: Opens) -> None:
    def fails(t: Transaction) -> None:
        t.put(T, Key(b"a"), b"wrong", [Entry("i", b"y")])
        t.put(T, Key(b"b"), b"wrong", [])
        t.log(T, b"wrong")
        assert t.remember(b"token", b"wrong", time.time() + 60) is None
        raise KeyError("mine")

    async def what(engine: Engine) -> None:
        await engine.create(T, ["i"])
        found = await asyncio.gather(
            put(engine, Key(b"a"), b"1", Entry("i", b"x")),
            engine.write([T], fails),
            put(engine, Key(b"c"), b"3"),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [type(None), KeyError, type(None)]
        assert await get(engine, Key(b"a")) == b"1"
        assert await get(engine, Key(b"b")) is None
        assert await engine.facts(T) == Facts(2, 2, {"i": 1})
        assert await items(engine, Span(T, "i")) == [b"1"]
        assert await engine.logged(T, 0, 10) == []
        assert await engine.write([T], lambda t: t.remember(b"token", b"right", time.time() + 60)) is None

    run(opens, what)


def test_a_transaction_sees_its_own_changes_and_those_before_it(opens: Opens) -> None:
    def count(t: Transaction) -> int:
        n = int(t.get(T, Key(b"n")) or b"0") + 1
        t.put(T, Key(b"n"), str(n).encode(), [Entry("i", b"all", str(n).encode())])
        assert [row.item for row in t.rows(Span(T, "i", b"all"))] == [str(n).encode()]
        return n

    async def what(engine: Engine) -> None:
        await engine.create(T, ["i"])
        found = await asyncio.gather(*(engine.write([T], count) for _ in range(100)))
        assert sorted(found) == list(range(1, 101))
        assert await get(engine, Key(b"n")) == b"100"

    run(opens, what)


def test_tables_that_a_transaction_does_not_name_are_not_its(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        await engine.create("other", [])
        with pytest.raises(LookupError):
            await engine.write(["other"], lambda t: t.put(T, Key(b"a"), b"1", []))
        with pytest.raises(LookupError):
            await engine.read(["other"], lambda s: s.get(T, Key(b"a")))

    run(opens, what)


def test_spans_of_a_table(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        keys = [b"", b"\0", b"a", b"a\0", b"a\xff", b"b", b"\xff"]
        for range_ in keys:
            await put(engine, Key(b"h", range_), range_)
            await put(engine, Key(b"h2", range_), b"no")
        for low in (None, b"", b"a", b"aa", b"\xff\xff"):
            for high in (None, b"", b"a\0", b"zz"):
                for after in (None, b"", b"a", b"b"):
                    for backwards in (False, True):
                        wanted = [
                            each
                            for each in sorted(keys, reverse=backwards)
                            if (low is None or each >= low)
                            and (high is None or each <= high)
                            and (after is None or (each < after if backwards else each > after))
                        ]
                        at = None if after is None else Position(b"h", after, Key(b"h", after))
                        span = Span(T, "", b"h", low, high, backwards, at)
                        assert await items(engine, span) == wanted, span

    run(opens, what)


def test_spans_of_an_index(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, ["i", "j"])
        placed = [(r, Key(k, s)) for r in (b"1", b"2", b"3") for k in (b"x", b"y") for s in (b"p", b"q")]
        for r, key in placed:
            own = Key(key.hash + r, key.range)
            await put(engine, own, b"v" + r + own.hash + own.range, Entry("i", b"h", r), Entry("j", b"other", r))
        placed = [(r, Key(key.hash + r, key.range)) for r, key in placed]
        afters = [None, *(Position(b"h", r, key) for r, key in placed)]

        def order(found: Position) -> Any:
            return opens.order(found, "i")

        for low in (None, b"1", b"2", b"25"):
            for high in (None, b"2", b"3"):
                for after in afters:
                    for backwards in (False, True):
                        wanted = [
                            each
                            for each in sorted((Position(b"h", *at) for at in placed), key=order, reverse=backwards)
                            if (low is None or each.range >= low)
                            and (high is None or each.range <= high)
                            and each != after
                            and (after is None or (order(each) < order(after)) == backwards)
                        ]
                        found = await rows(engine, Span(T, "i", b"h", low, high, backwards, after))
                        assert [row.position for row in found] == wanted
                        assert all(row.item == b"v" + row.position.range + b"".join(row.position.key) for row in found)
        assert len(await rows(engine, Span(T, "j", b"other"))) == len(placed)
        assert await rows(engine, Span(T, "j", b"h")) == []

    run(opens, what)


@pytest.mark.parametrize("index", ["", "i"])
@pytest.mark.parametrize("segments", [1, 4, 1_000_000])
def test_segments_part_a_table(opens: Opens, index: str, segments: int) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, ["i"])
        keys = [Key(b"%03d" % n, r) for n in range(100) for r in (b"", b"2")]

        def fill(t: Transaction) -> None:
            for key in keys:
                t.put(T, key, b"".join(key), [Entry("i", b"one" if key.range else b"two")])

        await engine.write([T], fill)
        wanted = range(segments) if segments < 10 else (0, 1, segments - 1)
        parts = [
            [row.position.key for row in await rows(engine, Span(T, index, segment=s, segments=segments))]
            for s in wanted
        ]
        for place, part in zip(wanted, parts, strict=True):
            assert {engine.segment_of(key.hash, segments) for key in part} <= {place}
        if segments < 10:
            assert sorted(key for part in parts for key in part) == sorted(keys)
            assert all(len(part) >= len(keys) / segments / 3 for part in parts)
        for backwards in (False, True):  # page by page
            found: list[Key] = []
            after = None
            while True:
                span = Span(T, index, backwards=backwards, after=after, segment=wanted[-1], segments=segments)
                page = await engine.read([T], lambda s: [row for row, _ in zip(s.rows(span), range(7))])
                if not page:
                    break
                found += [row.position.key for row in page]
                after = page[-1].position
            assert found == (parts[-1][::-1] if backwards else parts[-1])

    run(opens, what)


def test_entries_follow_their_item(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, ["i", "j"])
        key = Key(b"a", b"b")
        await put(engine, key, b"1", Entry("i", b"x", b"1"), Entry("j", b"y"))
        await put(engine, key, b"2", Entry("i", b"x", b"2"))
        assert [row.position for row in await rows(engine, Span(T, "i"))] == [Position(b"x", b"2", key)]
        assert await rows(engine, Span(T, "j")) == []
        assert (await engine.facts(T)).entries == {"i": 1, "j": 0}
        await put(engine, key, b"3", Entry("i", b"x", b"2"))
        assert await items(engine, Span(T, "i", b"x", b"2", b"2")) == [b"3"]
        await engine.write([T], lambda t: t.delete(T, key))
        assert await rows(engine, Span(T, "i")) == []
        assert (await engine.facts(T)).entries == {"i": 0, "j": 0}

    run(opens, what)


def test_items_of_400_kilobytes(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, ["i"])
        item = bytes(range(256)) * 1600
        await asyncio.gather(*(put(engine, Key(b"h", b"%d" % n), item, Entry("i", b"x")) for n in range(9)))
        assert await items(engine, Span(T, "", b"h")) == [item] * 9
        assert await items(engine, Span(T, "i", b"x")) == [item] * 9
        assert await get(engine, Key(b"h", b"3")) == item

    run(opens, what)


def test_the_stream_has_rising_numbers_and_forgets(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        assert await engine.last_logged(T) == 0
        began = time.time()
        await asyncio.gather(*(engine.write([T], lambda t, n=n: t.log(T, b"%d" % n)) for n in range(30)))  # type: ignore[misc]
        found = await engine.logged(T, 0, 100)
        assert [each.record for each in found] == [b"%d" % n for n in range(30)]
        assert [each.number for each in found] == sorted({each.number for each in found})
        assert [each.at for each in found] == sorted(each.at for each in found)
        assert found[0].at >= began - 1
        assert await engine.logged(T, found[9].number, 5) == found[10:15]
        assert await engine.logged(T, 0, 100, bytes_max=5) == found[:5]
        assert await engine.logged(T, 0, 100, bytes_max=0) == found[:1]
        assert await engine.last_logged(T) == found[-1].number
        await engine.trim(T, began - 60)
        assert await engine.logged(T, 0, 100) == found
        await engine.trim(T, time.time() + 60)
        assert await engine.logged(T, 0, 100) == []
        assert await engine.last_logged(T) == found[-1].number
        await engine.write([T], lambda t: t.log(T, b"new"))
        assert (await engine.logged(T, found[-1].number, 100))[0].record == b"new"

    run(opens, what)


def test_tokens_are_remembered_until_their_time(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        await engine.create("other", [])

        async def remember(token: bytes, digest: bytes, seconds: float, table: str = T) -> bytes | None:
            return await engine.write([table], lambda t: t.remember(token, digest, time.time() + seconds))

        assert await remember(b"t", b"1", 60) is None
        assert await remember(b"t", b"2", 60) == b"1"
        assert await remember(b"t", b"2", 60, "other") == b"1"
        assert await remember(b"gone", b"1", -1) is None
        assert await remember(b"gone", b"2", 60) is None
        assert await remember(b"gone", b"3", 60) == b"2"

    run(opens, what)


def test_a_transaction_over_several_tables_is_whole(opens: Opens) -> None:
    names = ["a", "b", "c"]

    async def what(engine: Engine) -> None:
        for name in names:
            await engine.create(name, [])

        def move(t: Transaction, n: int) -> None:
            for name in names:
                t.put(name, Key(b"k"), b"%d" % n, [])

        def seen(s: Snapshot) -> set[bytes | None]:
            return {s.get(name, Key(b"k")) for name in names}

        async def look() -> None:
            for _ in range(60):
                assert len(await engine.read(names, seen)) == 1
                await asyncio.sleep(0)

        async def write() -> None:
            for n in range(40):
                await engine.write(names, lambda t: move(t, n))

        await asyncio.gather(write(), look(), look())

        def fails(t: Transaction) -> None:
            move(t, -1)
            raise KeyError

        with pytest.raises(KeyError):
            await engine.write(names, fails)
        assert await engine.read(names, seen) == {b"39"}

    run(opens, what)


def test_an_index_is_filled_while_items_change(opens: Opens) -> None:
    def entry(item: bytes) -> Entry | None:
        return None if item.startswith(b"-") else Entry("late", item[:1], item)

    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        wanted: dict[Key, bytes] = {}

        def fill(t: Transaction) -> None:
            for n in range(1000):
                wanted[Key(b"%d" % n)] = b"-" if n % 10 == 0 else b"%d" % n
                t.put(T, Key(b"%d" % n), wanted[Key(b"%d" % n)], [])

        await engine.write([T], fill)
        await engine.create(T, ["late"])
        assert not await engine.is_filled(T, "late")
        told: list[int] = []
        filling = asyncio.ensure_future(engine.refill(T, "late", entry, told.append))
        for n in range(0, 1000, 7):
            key, item = Key(b"%d" % n), b"x%d" % n
            wanted[key] = item
            await put(engine, key, item, Entry("late", b"x", item))
        gone = Key(b"3")
        await engine.write([T], lambda t: t.delete(T, gone))
        del wanted[gone]
        await filling
        assert await engine.is_filled(T, "late")
        assert told == sorted(told)
        assert 900 <= told[-1] <= 1000
        found = await rows(engine, Span(T, "late"))
        full = {key: item for key, item in wanted.items() if not item.startswith(b"-")}
        assert {row.position.key: row.item for row in found} == full
        assert all(Entry("late", *row.position[:2]) == entry(row.item) for row in found)
        assert (await engine.facts(T)).entries == {"late": len(full)}

    run(opens, what)


def test_filling_goes_on_where_it_was(opens: Opens) -> None:
    class Stopped(OwsgitError):
        pass

    seen: list[bytes] = []

    def entry(item: bytes) -> Entry:
        seen.append(item)
        return Entry("late", item)

    async def first(engine: Engine) -> None:
        await engine.create(T, [])

        def fill(t: Transaction) -> None:
            for n in range(1000):
                t.put(T, Key(b"%d" % n), b"%d" % n, [])

        await engine.write([T], fill)
        await engine.create(T, ["late"])

        def stop(done: int) -> None:
            raise Stopped("enough")

        with pytest.raises(Stopped):
            await engine.refill(T, "late", entry, stop)
        assert 0 < len(seen) < 1000

    async def second(engine: Engine) -> None:
        await engine.create(T, ["late"])
        assert not await engine.is_filled(T, "late")
        await engine.refill(T, "late", entry, lambda done: None)
        assert len(seen) == len(set(seen)) == 1000
        assert (await engine.facts(T)).entries == {"late": 1000}

    run(opens, first)
    run(opens, second)


def test_an_index_that_is_dropped_and_made_again_is_new(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, ["i"])
        assert await engine.is_filled(T, "i")

        def fill(t: Transaction) -> None:
            for n in range(1500):
                t.put(T, Key(b"%d" % n), b"1", [Entry("i", b"x")])

        await engine.write([T], fill)
        await engine.create(T, [])
        assert (await engine.facts(T)).entries == {}
        with pytest.raises(UnavailableError):
            await rows(engine, Span(T, "i"))
        await put(engine, Key(b"1"), b"late", Entry("i", b"x"))  # by one that does not know yet
        await engine.create(T, ["i"])
        assert not await engine.is_filled(T, "i")
        assert await rows(engine, Span(T, "i")) == []
        await put(engine, Key(b"2"), b"2", Entry("i", b"y"))
        await engine.write([T], lambda t: t.delete(T, Key(b"3")))
        await engine.refill(T, "i", lambda item: Entry("i", b"z"), lambda done: None)
        assert (await engine.facts(T)).entries == {"i": 1499}
        assert len(await rows(engine, Span(T, "i", b"z"))) == 1498

    run(opens, what)


def test_a_table_that_is_dropped_is_gone(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        await put(engine, Key(b"a"), b"1")
        assert await get(engine, Key(b"a")) == b"1"
        await engine.drop(T)
        await engine.drop(T)
        with pytest.raises(UnavailableError):
            await get(engine, Key(b"a"))
        with pytest.raises(UnavailableError):
            await put(engine, Key(b"a"), b"1")
        await engine.create(T, [])
        assert await get(engine, Key(b"a")) is None
        assert await engine.facts(T) == Facts(0, 0, {})

    run(opens, what)


@pytest.mark.parametrize("name", ["a" * 255, "..", "a/../b", "journal", "Ünï"])
def test_any_name_will_do(opens: Opens, name: str) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(name, [])
        await put(engine, Key(b"a"), b"1", table=name)
        assert await get(engine, Key(b"a"), name) == b"1"

    run(opens, what)


def test_long_reads_see_one_moment(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])

        def fill(t: Transaction, value: bytes) -> None:
            for n in range(500):
                t.put(T, Key(b"h", b"%03d" % n), value, [])

        await engine.write([T], lambda t: fill(t, b"0"))

        async def look() -> None:
            for _ in range(5):
                assert len(set(await items(engine, Span(T, "", b"h")))) == 1

        async def write() -> None:
            for n in range(10):
                await engine.write([T], lambda t: fill(t, b"%d" % n))

        await asyncio.gather(look(), write(), look())

    run(opens, what)


def test_what_was_given_up_is_not_answered_but_harms_nobody(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        tasks = [asyncio.ensure_future(put(engine, Key(b"%d" % n), b"1")) for n in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(not task.cancelled() for task in tasks[1::2])
        for n in range(1, 50, 2):
            assert await get(engine, Key(b"%d" % n)) == b"1"

    run(opens, what)


def test_a_closed_engine_refuses(opens: Opens) -> None:
    async def what(engine: Engine) -> None:
        await engine.create(T, [])
        await engine.close()
        with pytest.raises(UnavailableError):
            await put(engine, Key(b"a"), b"1")
        with pytest.raises(UnavailableError):
            await get(engine, Key(b"a"))

    run(opens, what)
