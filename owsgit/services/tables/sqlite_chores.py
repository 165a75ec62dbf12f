"""What takes long in a table's file, a bounded step at a time, each in a transaction of its own or with others' writes:
to build an index, to remove one, to forget records of the stream. A crash loses no more than a step."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from owsgit.model.errors import UnavailableError
from owsgit.services.tables.engine import Entry, Key
from owsgit.services.tables.packed import pack, unpack
from owsgit.services.tables.sqlite_table import TableFile

REFILL_ITEMS = 200
REFILL_BYTES = 1 << 20
"""Items that one step of building an index goes through."""
CHUNK = 1000
"""Rows that one step of removing goes through."""


def refill(file: TableFile, index: str, entry: Callable[[bytes], Entry | None]) -> tuple[int, bool]:
    """How many items are done, and whether these are all. Items that were changed since have their entry already."""
    file.mark()
    id_ = file.indexes.get(index)
    if id_ is None:
        raise UnavailableError(f"the table {file.table} has no index {index} on this node")
    done, filled, *position = file.database.execute(
        "SELECT done, filled, digest, hash, range FROM indexes WHERE id = ?", (id_,)
    ).fetchone()
    if filled:
        return done, True
    step, last = _items(file, position)
    for digest, hash_, range_, packed, item in step:
        found, entries = entry(item), unpack(packed)
        if found is not None and all(each[0] != id_ for each in entries):
            added = (id_, found.hash, found.range)
            file.database.execute(
                "UPDATE items SET entries = ? WHERE digest = ? AND hash = ? AND range = ?",
                (pack(sorted([*entries, added])), digest, hash_, range_),
            )
            file.enter(digest, Key(hash_, range_), added)
    position = step[-1][:3] if step else position
    done += len(step)
    file.database.execute(
        "UPDATE indexes SET done = ?, filled = ?, digest = ?, hash = ?, range = ? WHERE id = ?",
        (done, last, *position, id_),
    )
    return done, last


def _items(file: TableFile, position: list[Any]) -> tuple[list[Any], bool]:
    """The next ones after a position, and whether there are no more."""
    begun = position[0] is not None
    where = "WHERE (digest, hash, range) > (?, ?, ?)" if begun else ""
    cursor = file.database.execute(
        f"SELECT digest, hash, range, entries, item FROM items {where}"  # noqa: S608 - text of our own
        " ORDER BY digest, hash, range LIMIT ?",
        (*(position if begun else ()), REFILL_ITEMS),
    )
    found, size = [], 0
    with closing(cursor):
        for row in cursor:
            found.append(row)
            size += len(row[4])
            if size > REFILL_BYTES:
                return found, False
    return found, len(found) < REFILL_ITEMS


def clear(file: TableFile) -> bool:
    """Remove a part of an index that was dropped; whether there is more to do."""
    row = file.database.execute("SELECT id FROM indexes WHERE dropped LIMIT 1").fetchone()
    if row is None:
        return False
    file.mark()
    index = f"index_{row[0]:d}"
    rows = file.database.execute(
        f"SELECT hash, range, key_hash, key_range FROM {index} LIMIT ?",  # noqa: S608 - a number of our own
        (CHUNK,),
    ).fetchall()
    if rows:
        file.database.executemany(
            f"DELETE FROM {index} WHERE hash = ? AND range = ? AND key_hash = ? AND key_range = ?",  # noqa: S608 - as above
            rows,
        )
    else:
        file.database.execute(f"DROP TABLE {index}")
        file.database.execute("DELETE FROM indexes WHERE id = ?", row)
    return True


def trim(file: TableFile, before: float) -> bool:
    """Forget some records of the stream that are older than a time; whether there may be more."""
    rows = file.database.execute("SELECT number, at FROM stream ORDER BY number LIMIT ?", (CHUNK,)).fetchall()
    old = [number for number, at in rows if at < before]
    if old:
        file.mark()
        file.database.execute("DELETE FROM stream WHERE number <= ?", (old[-1],))
    return len(old) == CHUNK
