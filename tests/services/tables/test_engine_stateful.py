"""Random changes of two tables against dictionaries, with restarts."""

import asyncio
import os
import tempfile
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from owsgit.services.tables.engine import Engine, Entry, Key, Position, Snapshot, Span, Transaction
from tests.services.tables.conftest import ENGINES, Opens, opening

KEYS = st.builds(Key, st.sampled_from([b"", b"a", b"b", b"b\0"]), st.sampled_from([b"", b"\0", b"1", b"\xff"]))
ITEMS = st.one_of(st.binary(max_size=6), st.binary(min_size=3000, max_size=3001))
ENTRIES = st.dictionaries(st.sampled_from(["i", "j"]), KEYS)
TABLES = ("one", "two")
CHANGES = st.lists(st.tuples(st.sampled_from(TABLES), KEYS, st.none() | st.tuples(ITEMS, ENTRIES)), max_size=6)

Model = dict[str, dict[Key, tuple[bytes, dict[str, Key]]]]


class Tables(RuleBasedStateMachine):
    def __init__(self, opens: Opens) -> None:
        super().__init__()
        self.opens = opens
        self.loop = asyncio.new_event_loop()
        self.model: Model = {table: {} for table in TABLES}
        self.indexes = {table: {"i"} for table in TABLES}
        self.logs: dict[str, list[bytes]] = {table: [] for table in TABLES}
        self.open()
        for table in TABLES:
            self.loop.run_until_complete(self.engine.create(table, {"i"}))

    def open(self) -> None:
        async def opened() -> Engine:
            return self.opens()

        self.engine = self.loop.run_until_complete(opened())

    def teardown(self) -> None:
        self.loop.run_until_complete(self.engine.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    @rule(works=st.lists(st.tuples(CHANGES, st.booleans()), max_size=4), looks=st.booleans())
    def write(self, works: list[tuple[list, bool]], looks: bool) -> None:  # type: ignore[type-arg]
        def work(t: Transaction, changes: list, fails: bool) -> None:  # type: ignore[type-arg]
            for table, key, what in changes:
                if what is None:
                    t.delete(table, key)
                else:
                    t.put(table, key, what[0], [Entry(index, *keys) for index, keys in what[1].items()])
                t.log(table, b"".join(key))
            for (table, key), what in {(table, key): what for table, key, what in changes}.items() if looks else ():
                found = {row.position: row.item for row in t.rows(Span(table))}
                assert found.get(Position(*key, key)) == t.get(table, key) == (what[0] if what else None)
                under = [row.position for row in t.rows(Span(table, "", key.hash, backwards=True))]
                assert under == sorted((place for place in found if place.hash == key.hash), reverse=True)
                for index in self.indexes[table]:
                    entries = [row.position for row in t.rows(Span(table, index)) if row.position.key == key]
                    assert entries == ([Position(*what[1][index], key)] if what and index in what[1] else [])
            if fails:
                raise KeyError("mine")

        async def write() -> None:
            found = await asyncio.gather(
                *(
                    self.engine.write(TABLES, lambda t, c=c, f=f: work(t, c, f))  # type: ignore[misc]
                    for c, f in works
                ),
                return_exceptions=True,
            )
            assert [type(each) for each in found] == [KeyError if fails else type(None) for _, fails in works], found

        self.loop.run_until_complete(write())
        for changes, fails in works:
            for table, key, what in () if fails else changes:
                self.logs[table].append(b"".join(key))
                self.model[table].pop(key, None)
                if what is not None:
                    mine = {index: keys for index, keys in what[1].items() if index in self.indexes[table]}
                    self.model[table][key] = (what[0], mine)

    @rule(table=st.sampled_from(TABLES), indexes=st.sets(st.sampled_from(["i", "j"])))
    def change_indexes(self, table: str, indexes: set[str]) -> None:
        self.loop.run_until_complete(self.engine.create(table, indexes))
        for key, (item, entries) in self.model[table].items():
            mine = {index: keys for index, keys in entries.items() if index in indexes and index in self.indexes[table]}
            self.model[table][key] = (item, mine)
        for index in indexes - self.indexes[table]:
            self.loop.run_until_complete(
                self.engine.refill(table, index, lambda item, i=index: Entry(i, item[:1]), lambda done: None)  # type: ignore[misc]
            )
            for item, entries in self.model[table].values():
                entries.setdefault(index, Key(item[:1]))
        self.indexes[table] = indexes

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.engine.close())
        self.open()

    @invariant()
    def everything_is_as_it_should(self) -> None:
        def look(s: Snapshot) -> None:
            for table, wanted in self.model.items():
                assert {row.position.key: row.item for row in s.rows(Span(table))} == {
                    k: v[0] for k, v in wanted.items()
                }
                for hash_ in {key.hash for key in wanted}:
                    found = [row.position.key for row in s.rows(Span(table, "", hash_, backwards=True))]
                    assert found == sorted((key for key in wanted if key.hash == hash_), reverse=True)
                for index in self.indexes[table]:
                    entries = sorted(
                        ((Position(*e[index], key), item) for key, (item, e) in wanted.items() if index in e),
                        key=lambda each: self.opens.order(each[0], index),
                    )
                    assert [(row.position, row.item) for row in s.rows(Span(table, index))] == entries

        self.loop.run_until_complete(self.engine.read(TABLES, look))
        for table, wanted in self.model.items():
            facts = self.loop.run_until_complete(self.engine.facts(table))
            assert facts == (
                len(wanted),
                sum(len(item) for item, _ in wanted.values()),
                {index: sum(index in e for _, e in wanted.values()) for index in self.indexes[table]},
            )
            logged = self.loop.run_until_complete(self.engine.logged(table, 0, 10_000))
            assert [each.record for each in logged] == self.logs[table]


EXAMPLES = {"sqlite": 12, "postgresql": 4}
SETTINGS = settings(
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],  # the disk's flushes count; runs are long
)


@pytest.mark.parametrize("kind", ENGINES)
def test_random_changes(kind: str, request: pytest.FixtureRequest) -> None:
    examples = 300 if os.environ.get("OWSGIT_SOAK") else EXAMPLES[kind]
    with tempfile.TemporaryDirectory() as folder:
        made = (opening(kind, Path(folder) / f"{n}", lambda: request.getfixturevalue("postgresql")) for n in count())
        run_state_machine_as_test(lambda: Tables(next(made)), settings=settings(SETTINGS, max_examples=examples))  # type: ignore[no-untyped-call]
