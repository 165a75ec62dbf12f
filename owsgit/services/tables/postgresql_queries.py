"""What is asked of the server for items: those under given keys, and the rows of a span, a page at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from owsgit.services.tables.attempts import Known, Place, Rows, Stored, digest, segment, tie
from owsgit.services.tables.engine import Key, Position, Row, Span
from owsgit.services.tables.packed import unpack
from owsgit.services.tables.postgresql_connections import Connection
from owsgit.services.tables.postgresql_schema import Schema, Shape, no_index

ROWS_FIRST = 32
ROWS_MAX = 2000
PAGE_BYTES = 1 << 20
"""What is read of a span at once, about: first few rows, as nobody knows how large they are."""


async def items(
    connection: Connection, schema: Schema, table: str, shape: Shape, keys: Sequence[Key]
) -> dict[Place, Stored | None]:
    """What lies under keys."""
    found: dict[Place, Stored | None] = dict.fromkeys((table, key) for key in keys)
    rows = await connection.fetch(
        "SELECT k.n, i.entries, i.item FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS k(place, range, n)"  # noqa: S608
        f" JOIN {schema.items(shape)} i ON i.place = k.place AND i.range = k.range",
        [digest(key.hash) for key in keys],
        [key.range for key in keys],
    )
    for n, entries, item in rows:
        found[table, keys[n - 1]] = Stored(item, len(item), unpack(entries))
    return found


async def before(
    connection: Connection, schema: Schema, table: str, shape: Shape, wanted: Mapping[Key, bool]
) -> dict[Place, Stored | None] | None:
    """The same for those who change it; `wanted` says of keys whether more than the item's length is needed. None if
    the table was changed or dropped since."""
    keys = list(wanted)
    found: dict[Place, Stored | None] = dict.fromkeys((table, key) for key in keys)
    rows = await connection.fetch(
        f"""SELECT t.generation, f.n, f.entries, f.size, f.item FROM {schema.name}.tables t LEFT JOIN (
          SELECT k.n, i.entries, octet_length(i.item) AS size, CASE WHEN k.whole THEN i.item END AS item
          FROM unnest($2::bytea[], $3::bytea[], $4::bool[]) WITH ORDINALITY AS k(place, range, whole, n)
          JOIN {schema.items(shape)} i ON i.place = k.place AND i.range = k.range
        ) f ON true WHERE t.id = $1""",  # noqa: S608 - numbers of our own
        shape.id,
        [digest(key.hash) for key in keys],
        [key.range for key in keys],
        list(wanted.values()),
    )
    if not rows or rows[0]["generation"] != shape.generation:
        return None
    for _, n, entries, size, item in rows:
        if n is not None:
            found[table, keys[n - 1]] = Stored(item, size, unpack(entries))
    return found


async def page(connection: Connection, schema: Schema, shape: Shape, span: Span, known: Known) -> Rows:
    """What is known of a span, with the next page of it."""
    rows = known.spans.setdefault(span, Rows())
    count = ROWS_FIRST
    if rows.rows:
        span = replace(span, after=rows.rows[-1].position)
        size = sum(len(row.item) for row in rows.rows) // len(rows.rows)
        count = max(ROWS_FIRST, min(ROWS_MAX, PAGE_BYTES // (size + 1)))
    found = await _rows(connection, schema, shape, span, count)
    rows.rows += found
    rows.all = len(found) < count
    return rows


async def _rows(connection: Connection, schema: Schema, shape: Shape, span: Span, count: int) -> list[Row]:
    if not span.index:
        sql, values = _table_query(schema.items(shape), span)
        found = await connection.fetch(f"{sql} LIMIT {count:d}", *values)
        return [Row(Position(hash_, range_, Key(hash_, range_)), item) for hash_, range_, item in found]
    id_ = shape.indexes.get(span.index)
    if id_ is None:
        raise no_index(span.table, span.index)
    sql, values = _index_query(schema.items(shape), schema.entries(id_), span)
    rows = []
    for range_, key_hash, key_range, item, entries in await connection.fetch(f"{sql} LIMIT {count:d}", *values):
        hash_ = span.hash
        if hash_ is None:
            hash_ = next(each[1] for each in unpack(entries) if each[0] == id_)
        rows.append(Row(Position(hash_, range_, Key(key_hash, key_range)), item))
    return rows


class _Where:
    """Conditions of a query, with their values."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._parts: list[str] = []
        self.values: list[Any] = []

    def add(self, columns: str, sign: str, *values: bytes) -> None:
        marks = ", ".join(f"${len(self.values) + n}" for n in range(1, len(values) + 1))
        self._parts.append(f"({columns}) {sign} ({marks})")
        self.values += values

    def bounds(self, column: str, columns: str, after: tuple[bytes, ...]) -> None:
        """Of range keys: from `after`, if that is closer than the span's own bound, as the server looks up one of them,
        and goes through all that is between the two."""
        span = self._span
        low, high = span.low, span.high
        if after and span.backwards and (high is None or after[0] <= high):
            high = None
        elif after and not span.backwards and (low is None or after[0] >= low):
            low = None
        else:
            after = ()
        self.after(columns, after)
        if low is not None:
            self.add(column, ">=", low)
        if high is not None:
            self.add(column, "<=", high)

    def after(self, columns: str, after: tuple[bytes, ...]) -> None:
        if after:
            self.add(columns, "<" if self._span.backwards else ">", *after)

    def segment(self, column: str, *, after: bool) -> None:
        """`after`: a position in it is the closer one of its bounds already."""
        if self._span.segments > 1:
            first, behind = segment(self._span)
            if not after or self._span.backwards:
                self.add(column, ">=", first)
            if behind is not None and not (after and self._span.backwards):
                self.add(column, "<", behind)

    def ordered(self, columns: str) -> str:
        back = " DESC" if self._span.backwards else ""
        where = f" WHERE {' AND '.join(self._parts)}" if self._parts else ""
        return f"{where} ORDER BY " + ", ".join(name + back for name in columns.split(", "))


def _table_query(items_: str, span: Span) -> tuple[str, list[Any]]:
    where, at = _Where(span), span.after
    if span.hash is not None:
        where.add("place", "=", digest(span.hash))
        where.bounds("range", "range", () if at is None else (at.range,))
    else:
        where.after("place, range", () if at is None else (digest(at.hash), at.range))
        where.segment("place", after=at is not None)
    return f"SELECT hash, range, item FROM {items_}{where.ordered('place, range')}", where.values  # noqa: S608


def _index_query(items_: str, entries: str, span: Span) -> tuple[str, list[Any]]:
    where, at = _Where(span), span.after
    if span.hash is not None:
        where.add("e.hash", "=", digest(span.hash))
        where.bounds("e.range", "e.range, e.tie", () if at is None else (at.range, tie(at.key)))
    else:
        where.after("e.hash, e.range, e.tie", () if at is None else (digest(at.hash), at.range, tie(at.key)))
        where.segment("e.place", after=False)
    return (
        f"SELECT e.range, i.hash, i.range, i.item, i.entries FROM {entries} e"  # noqa: S608 - numbers of our own
        f" JOIN {items_} i ON i.place = e.place AND i.range = e.key_range"
        f"{where.ordered('e.hash, e.range, e.tie')}"
    ), where.values
