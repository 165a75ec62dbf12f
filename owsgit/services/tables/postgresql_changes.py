"""What works have changed, as statements to a PostgreSQL server: few, however many the changes are."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from owsgit.services.tables.attempts import Changes, Known, Stored, digest, tie
from owsgit.services.tables.engine import Entry, Key
from owsgit.services.tables.packed import Packed, pack
from owsgit.services.tables.postgresql_connections import Connection
from owsgit.services.tables.postgresql_schema import Schema, Shape

EXPIRED_MAX = 16
"""Tokens that a transaction with some throws away, once they have expired."""


@dataclass
class _TableChanges:
    gone: list[Key] = field(default_factory=list)
    put: list[tuple[Key, bytes, bytes]] = field(default_factory=list)  # key, packed entries, item
    again: list[tuple[Key, bytes]] = field(default_factory=list)  # entries of an item that stays as it is
    left: list[tuple[Packed, Key]] = field(default_factory=list)
    entered: list[tuple[Packed, Key]] = field(default_factory=list)
    counts: dict[int, list[int]] = field(default_factory=dict)  # by index (0: the table): items, bytes

    def count(self, id_: int, items: int, size: int = 0) -> None:
        counts = self.counts.setdefault(id_, [0, 0])
        counts[0] += items
        counts[1] += size


class Flush:
    """Writes what works have changed, in the transaction that they are run in."""

    def __init__(
        self, connection: Connection, schema: Schema, shapes: dict[str, Shape], known: Known, shard: int
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._shapes = shapes
        self._known = known
        self._shard = shard

    async def write(self, changes: Changes) -> None:
        """In one order for everybody: the tables' items and counts, then streams, as nobody lets go before the end."""
        found: dict[str, _TableChanges] = {}
        for (table, key), what in changes.items.items():
            self._change(found.setdefault(table, _TableChanges()), self._shapes[table], key, what, table)
        for (table, key), entry in changes.entered.items():
            if (table, key) not in changes.items:
                self._enter_again(found.setdefault(table, _TableChanges()), self._shapes[table], key, entry, table)
        for table in sorted(found, key=lambda name: self._shapes[name].id):
            await self._write(self._shapes[table], found[table])
        records: dict[str, list[bytes]] = {}
        for table, record in changes.logs:
            records.setdefault(table, []).append(record)
        for table in sorted(records, key=lambda name: self._shapes[name].id):
            await self._log(self._shapes[table], records[table])
        for id_, (done, filled, last) in changes.progress.items():
            await self._connection.execute(
                f"UPDATE {self._schema.name}.indexes SET done = $2, filled = $3, place = coalesce($4, place),"  # noqa: S608
                " range = coalesce($5, range) WHERE id = $1",
                id_,
                done,
                filled,
                digest(last.hash) if last is not None else None,
                last.range if last is not None else None,
            )
        if changes.tokens:
            await self._remember(changes.tokens)

    def _change(
        self,
        found: _TableChanges,
        shape: Shape,
        key: Key,
        what: tuple[bytes, Collection[Entry]] | None,
        table: str,
    ) -> None:
        stored: Stored | None = self._known.stored[table, key]
        old = set(stored.entries) if stored is not None else set()
        packed: list[Packed] = []
        if what is not None:
            # entries of indexes that are not there are left out: a request may have seen one that was dropped since
            packed = sorted((shape.indexes[e.of], e.hash, e.range) for e in what[1] if e.of in shape.indexes)
            found.put.append((key, pack(packed), what[0]))
        elif stored is not None:
            found.gone.append(key)
        items = (what is not None) - (stored is not None)
        size = (len(what[0]) if what is not None else 0) - (stored.size if stored is not None else 0)
        if items or size:
            found.count(0, items, size)
        new, ours = set(packed), set(shape.indexes.values())
        for entry in old - new:
            if entry[0] in ours:
                found.left.append((entry, key))
                found.count(entry[0], -1)
        for entry in new - old:
            found.entered.append((entry, key))
            found.count(entry[0], 1)

    def _enter_again(self, found: _TableChanges, shape: Shape, key: Key, entry: Packed, table: str) -> None:
        stored = self._known.stored[table, key]
        if stored is not None and entry[0] in shape.indexes.values():
            found.again.append((key, pack(sorted([*stored.entries, entry]))))
            found.entered.append((entry, key))
            found.count(entry[0], 1)

    async def _write(self, shape: Shape, found: _TableChanges) -> None:
        items = self._schema.items(shape)
        if found.gone:
            await self._connection.execute(
                f"DELETE FROM {items} i USING unnest($1::bytea[], $2::bytea[]) AS k(place, range)"  # noqa: S608
                " WHERE i.place = k.place AND i.range = k.range",
                [digest(key.hash) for key in found.gone],
                [key.range for key in found.gone],
            )
        if found.again:
            await self._connection.execute(
                f"UPDATE {items} i SET entries = k.entries"  # noqa: S608 - a number of our own
                " FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS k(place, range, entries)"
                " WHERE i.place = k.place AND i.range = k.range",
                [digest(key.hash) for key, _ in found.again],
                [key.range for key, _ in found.again],
                [entries for _, entries in found.again],
            )
        counts = sorted((id_, *each) for id_, each in found.counts.items() if any(each))
        put = f"""INSERT INTO {items} (place, range, hash, entries, item)
          SELECT * FROM unnest($5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[])
          ON CONFLICT (place, range) DO UPDATE SET entries = excluded.entries, item = excluded.item"""  # noqa: S608
        values: list[Any] = [
            [digest(key.hash) for key, _, _ in found.put],
            [key.range for key, _, _ in found.put],
            [key.hash for key, _, _ in found.put],
            [entries for _, entries, _ in found.put],
            [item for _, _, item in found.put],
        ]
        await self._connection.execute(
            f"""{f"WITH put AS ({put})" if found.put else ""}
            INSERT INTO {self._schema.name}.counts AS c (table_id, index_id, shard, items, bytes)
            SELECT $1, n.id, {self._shard:d}, n.items, n.bytes
            FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS n(id, items, bytes)
            ON CONFLICT (table_id, index_id, shard)
            DO UPDATE SET items = c.items + excluded.items, bytes = c.bytes + excluded.bytes""",  # noqa: S608
            shape.id,
            [each[0] for each in counts],
            [each[1] for each in counts],
            [each[2] for each in counts],
            *(values if found.put else ()),
        )
        for id_ in sorted({entry[0] for entry, _ in (*found.left, *found.entered)}):
            await self._enter(
                self._schema.entries(id_),
                [each for each in found.left if each[0][0] == id_],
                [each for each in found.entered if each[0][0] == id_],
            )

    async def _enter(self, entries: str, left: list[tuple[Packed, Key]], entered: list[tuple[Packed, Key]]) -> None:
        if left:
            await self._connection.execute(
                f"DELETE FROM {entries} e USING unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS k(hash, range, tie)"  # noqa: S608
                " WHERE e.hash = k.hash AND e.range = k.range AND e.tie = k.tie",
                [digest(entry[1]) for entry, _ in left],
                [entry[2] for entry, _ in left],
                [tie(key) for _, key in left],
            )
        if entered:
            await self._connection.execute(
                f"INSERT INTO {entries} (hash, range, tie, place, key_range)"  # noqa: S608 - numbers of our own
                " SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[])",
                [digest(entry[1]) for entry, _ in entered],
                [entry[2] for entry, _ in entered],
                [tie(key) for _, key in entered],
                [digest(key.hash) for _, key in entered],
                [key.range for _, key in entered],
            )

    async def _log(self, shape: Shape, records: list[bytes]) -> None:
        """Whoever has the row of the stream commits before the next one gets it: numbers rise as commits do, and times
        with them, even if a clock is set back."""
        await self._connection.execute(
            f"""WITH counted AS (
              UPDATE {self._schema.name}.streams SET number = number + $2::bigint, at = greatest(at, $3)
              WHERE table_id = $1 RETURNING number - $2::bigint AS before, at
            ) INSERT INTO {self._schema.stream(shape)} (number, at, record)
            SELECT counted.before + l.n, counted.at, l.record
            FROM counted, unnest($4::bytea[]) WITH ORDINALITY AS l(record, n)""",  # noqa: S608 - numbers of our own
            shape.id,
            len(records),
            time.time(),
            records,
        )

    async def _remember(self, tokens: dict[bytes, tuple[bytes, float]]) -> None:
        name = f"{self._schema.name}.tokens"
        await self._connection.execute(
            f"DELETE FROM {name} WHERE token IN (SELECT token FROM {name} WHERE until <= $1"  # noqa: S608
            " ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED)",
            time.time(),
            EXPIRED_MAX,
        )
        await self._connection.execute(
            f"INSERT INTO {name} SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::double precision[])"  # noqa: S608
            " ON CONFLICT (token) DO UPDATE SET digest = excluded.digest, until = excluded.until",
            list(tokens),
            [kept[0] for kept in tokens.values()],
            [kept[1] for kept in tokens.values()],
        )
