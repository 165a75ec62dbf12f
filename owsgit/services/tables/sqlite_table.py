"""A table's file as the one thread that writes has it: changes of items with their entries, and what is counted."""

import os
import sqlite3
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from owsgit.services.tables.engine import Entry, Key, digest
from owsgit.services.tables.packed import Packed, pack, unpack
from owsgit.services.tables.sqlite_journal import Change


@dataclass
class Counts:
    """What is known without counting. `number` and `at` are of the last record of the stream."""

    items: int
    bytes: int
    number: int
    at: float
    entries: dict[int, int] = field(default_factory=dict)  # by number of the index

    def copy(self) -> "Counts":
        return replace(self, entries=dict(self.entries))


class TableFile:
    """All methods raise sqlite3.Error. What is changed is committed by `commit`, and taken back by `rollback`."""

    def __init__(self, table: str, database: sqlite3.Connection) -> None:
        self.table = table
        self.database = database
        self.relaxed: bool | None = None  # not known yet
        self.changes: list[Change] = []
        self._marked: tuple[Counts, int] | None = None
        self.load()

    def load(self) -> None:
        """What the file says is what counts."""
        self.identity, items, size, number, at, self.applied = self.database.execute(
            "SELECT identity, items, bytes, number, at, applied FROM meta"
        ).fetchone()
        self.indexes: dict[str, int] = {}
        self.counts = Counts(items, size, number, at)
        for id_, name, count in self.database.execute("SELECT id, name, count FROM indexes WHERE NOT dropped"):
            self.indexes[name] = id_
            self.counts.entries[id_] = count
        self._told = self.counts.copy()
        self.changes = []
        self._marked = None

    # -- a work, and a commit of several ---------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return bool(self.changes)

    def begin(self) -> None:
        if not self.database.in_transaction:
            self.database.execute("BEGIN IMMEDIATE")

    def mark(self) -> None:
        """Before the first change of a work."""
        if self._marked is None:
            self.begin()
            self.database.execute("SAVEPOINT work")
            self._marked = (self.counts.copy(), len(self.changes))

    def keep(self) -> None:
        """The work is done."""
        if self._marked is not None:
            self.database.execute("RELEASE work")
            self._marked = None

    def undo(self) -> None:
        """The work has failed."""
        if self._marked is not None:
            self.database.execute("ROLLBACK TO work")
            self.database.execute("RELEASE work")
            self.counts, changes = self._marked
            del self.changes[changes:]
            self._marked = None

    def commit(self, number: int | None = None) -> None:
        """`number`: of what was decided and is made herewith."""
        if not self.database.in_transaction:
            return
        counts, applied = self.counts, self.applied if number is None else number
        if counts != self._told or number is not None:
            self.database.execute(
                "UPDATE meta SET items = ?, bytes = ?, number = ?, at = ?, applied = ?",
                (counts.items, counts.bytes, counts.number, counts.at, applied),
            )
            for id_, count in counts.entries.items():
                if count != self._told.entries.get(id_):
                    self.database.execute("UPDATE indexes SET count = ? WHERE id = ?", (count, id_))
        self.database.execute("COMMIT")
        self._told, self.applied = counts.copy(), applied
        self.changes = []

    def rollback(self) -> None:
        with suppress(sqlite3.Error):
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
        self.counts, self.changes, self._marked = self._told.copy(), [], None

    # -- changes ---------------------------------------------------------------------------------------------------

    def put(self, key: Key, item: bytes, entries: Collection[Entry]) -> None:
        """Entries of indexes that are not there are left out: a request may have seen one that was dropped since."""
        self.mark()
        packed: list[Packed] = []
        if entries:
            indexes = self.indexes
            packed = sorted((indexes[e.of], e.hash, e.range) for e in entries if e.of in indexes)
        self._put(key, item, pack(packed))

    def _put(self, key: Key, item: bytes, packed: bytes) -> None:
        digest_ = digest(key.hash)
        row = self._find(digest_, key)
        if row is None:
            self.database.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?)", (digest_, *key, packed, item))
            self.counts.items += 1
            self.counts.bytes += len(item)
            before = b""
        else:
            before, size = row
            self.database.execute(
                "UPDATE items SET entries = ?, item = ? WHERE digest = ? AND hash = ? AND range = ?",
                (packed, item, digest_, *key),
            )
            self.counts.bytes += len(item) - size
        if packed != before:
            self._move(digest_, key, unpack(before), unpack(packed))
        self.changes.append(Change("put", *key, item, packed))

    def delete(self, key: Key) -> None:
        digest_ = digest(key.hash)
        row = self._find(digest_, key)
        if row is None:
            return
        self.mark()
        self.database.execute("DELETE FROM items WHERE digest = ? AND hash = ? AND range = ?", (digest_, *key))
        self.counts.items -= 1
        self.counts.bytes -= row[1]
        self._move(digest_, key, unpack(row[0]), [])
        self.changes.append(Change("delete", *key))

    def log(self, record: bytes) -> None:
        """Times rise as the numbers do, even if the clock is set back."""
        self.mark()
        self._log(self.counts.number + 1, max(self.counts.at, time.time()), record)

    def _log(self, number: int, at: float, record: bytes) -> None:
        self.database.execute("INSERT INTO stream VALUES (?, ?, ?)", (number, at, record))
        self.counts.number, self.counts.at = number, at
        self.changes.append(Change("log", number, at, record))

    def again(self, change: Change) -> None:
        """Make a change that was decided."""
        self.begin()
        if change.kind == "put":
            self._put(Key(change.a, change.b), change.c, change.d)
        elif change.kind == "delete":
            self.delete(Key(change.a, change.b))
            self.keep()
        else:
            self._log(change.a, change.b, change.c)

    def _find(self, digest_: int, key: Key) -> tuple[bytes, int] | None:
        """The entries of an item and its size; the item itself is not read."""
        row: tuple[bytes, int] | None = self.database.execute(
            "SELECT entries, length(item) FROM items WHERE digest = ? AND hash = ? AND range = ?", (digest_, *key)
        ).fetchone()
        return row

    def _move(self, digest_: int, key: Key, before: list[Packed], after: list[Packed]) -> None:
        """Change those entries of an item that are others than before. What an index had that was dropped is gone."""
        counted = self.counts.entries
        old, new = set(before), set(after)
        for entry in old - new:
            if entry[0] in counted:
                self.database.execute(
                    f"DELETE FROM index_{entry[0]:d}"  # noqa: S608 - a number of our own
                    " WHERE hash = ? AND range = ? AND key_hash = ? AND key_range = ?",
                    (entry[1], entry[2], *key),
                )
                counted[entry[0]] -= 1
        for entry in new - old:
            if entry[0] in counted:
                self.enter(digest_, key, entry)

    def enter(self, digest_: int, key: Key, entry: Packed) -> None:
        self.database.execute(
            f"INSERT INTO index_{entry[0]:d} VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - a number of our own
            (entry[1], entry[2], *key, digest_),
        )
        self.counts.entries[entry[0]] += 1

    # -- indexes ---------------------------------------------------------------------------------------------------

    def have_indexes(self, wanted: Collection[str], *, filled: bool) -> None:
        """Make those that lack, and leave those that are too many to `clear`. Committed by then. `filled`: nobody has
        the table yet; else items may be on their way that were made without the entries of new indexes."""
        self.begin()
        for name in set(self.indexes) - set(wanted):
            self.database.execute("UPDATE indexes SET dropped = 1 WHERE id = ?", (self.indexes[name],))
        for name in sorted(set(wanted) - set(self.indexes)):
            id_ = self.database.execute(
                "INSERT INTO indexes (name, count, filled, dropped, done) VALUES (?, 0, ?, 0, 0)",
                (name, filled),
            ).lastrowid
            self.database.execute(
                f"CREATE TABLE index_{id_:d} (hash BLOB NOT NULL, range BLOB NOT NULL, key_hash BLOB NOT NULL,"
                " key_range BLOB NOT NULL, digest INTEGER NOT NULL,"
                " PRIMARY KEY (hash, range, key_hash, key_range)) WITHOUT ROWID"
            )
        self.database.execute("COMMIT")
        self.load()

    def close(self) -> None:
        self.database.close()


def force(database_path: Path) -> None:
    """Have the write-ahead log of a file on the disk, and the names in its folder."""
    for path, flags in ((Path(f"{database_path}-wal"), os.O_RDWR), (database_path.parent, os.O_RDONLY)):
        if not path.exists():
            continue
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
