"""One table as one SQLite file: its schema, how it is opened, and how it is read.

Items are clustered by a digest of their hash key, then by hash and range key: a query reads neighbouring pages, and the
segments of a parallel scan are ranges of the digest. Beside an item lie the entries that it has in indexes, so that a
change touches only the entries that differ, and finds them without an index on the index.

An entry refers to its item. Measured, 40,000 items of 1 KB in 1 and 5 indexes, commits of 32: new items 10,000 and
4,600 a second where entries with a copy of the item allow 4,800 and 1,600, changes 15,900 and 18,800 (6,800 and 2,600),
on 57 and 63 MB (111 and 334). What is given up for it: pages of an index have 198,000 rows a second (514,000).

Measured for this, 150,000 items of 1 KB under random keys, commits of 32, a page cache of 16 MB: new items 11,300 a
second where a table with row ids has 12,800, changes 20,100 (7,200), gets 63,000 (43,000), rows in pages 730,000
(104,000). Items of 400 KB: new ones 350 a second (390), changes 300 (390), rows in pages 990 (1,890). With pages of
4 KB, an item of 1 KB needs a page beside its own: an eighth of a page is what SQLite keeps of a clustered row.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from owsgit.model.errors import UnavailableError
from owsgit.services.tables.engine import DIGESTS, Key, Position, Row, Span, digest

VERSION = 1
"""PRAGMA user_version of the schema below."""

SUFFIX = ".table"
PAGE_BYTES = 8192
JOURNAL_BYTES_MAX = 64 << 20
"""What is kept of the write-ahead log after a burst."""
CHECKPOINT_PAGES = 2000
OPEN_MAX = 128
"""Files that one thread keeps open."""
STATEMENTS_MAX = 128
"""Prepared statements of a connection."""
NAME_BYTES_MAX = 200

_SCHEMA = """
BEGIN;
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, identity BLOB NOT NULL, items INTEGER NOT NULL,
  bytes INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, applied INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, '', randomblob(16), 0, 0, 0, 0, 0);
CREATE TABLE items (
  digest INTEGER NOT NULL, hash BLOB NOT NULL, range BLOB NOT NULL, entries BLOB NOT NULL, item BLOB NOT NULL,
  PRIMARY KEY (digest, hash, range)
) WITHOUT ROWID;
CREATE TABLE indexes (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, count INTEGER NOT NULL, filled INTEGER NOT NULL,
  dropped INTEGER NOT NULL, done INTEGER NOT NULL, digest INTEGER, hash BLOB, range BLOB
);
CREATE TABLE stream (number INTEGER PRIMARY KEY, at REAL NOT NULL, record BLOB NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""


def path_of(folder: Path, table: str) -> Path:
    """The table's file, whatever its name is."""
    name = quote(table, safe="")
    if len(name) > NAME_BYTES_MAX:
        name = f"{name[: NAME_BYTES_MAX // 2]}~{sha256(table.encode()).hexdigest()}"
    return folder / (name + SUFFIX)


def connect(path: Path, *, relaxed: bool = False, cache_bytes: int, create: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time. Raises sqlite3.Error, or UnavailableError."""
    if not create and not path.exists():
        raise UnavailableError("this node does not have the table", file=str(path), remedy="wait until it is made")
    mode = "rwc" if create else "rw"
    database = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_MAX,
    )
    try:
        if create:
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        set_durability(database, relaxed=relaxed)
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")
        database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        database.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX}")
    except BaseException:
        database.close()
        raise
    return database


def set_durability(database: sqlite3.Connection, *, relaxed: bool) -> bool:
    """For commits from now on; `relaxed`. With NORMAL a loss of power takes the last commits, and damages nothing: OFF
    would save no more than the flushes of checkpoints, and leave a file that may be no database any more."""
    database.execute(f"PRAGMA synchronous = {'NORMAL' if relaxed else 'FULL'}")
    return relaxed


def open_table(
    folder: Path, table: str, *, relaxed: bool, cache_bytes: int, create: bool = False
) -> sqlite3.Connection:
    """The file of a table, with its schema. Raises sqlite3.Error, or UnavailableError."""
    path = path_of(folder, table)
    database = connect(path, relaxed=relaxed, cache_bytes=cache_bytes, create=create)
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and create:
            database.executescript(_SCHEMA)
            database.execute("UPDATE meta SET name = ?", (table,))
        elif version != VERSION:
            raise UnavailableError(
                f"the table's file has the format {version}, not {VERSION}",
                file=str(path),
                remedy="use the owsgit that wrote it" if version else "deploy the table again",
            )
    except BaseException:
        database.close()
        raise
    return database


def unavailable(error: sqlite3.Error, path: Path) -> UnavailableError:
    """What to tell of an error of SQLite's."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    if code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        remedy = "the file is damaged: stop the node and put a backup of it in its place"
    elif code & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        remedy = "free some space on the node's disk, or mend it, then try again"
    else:
        remedy = "see whether the node may read and write the file, then try again"
    told = UnavailableError(f"the table cannot be used: {error}", file=str(path), remedy=remedy)
    told.__cause__ = error
    return told


class Connections:
    """The files that one thread has open; the one that was used longest ago is closed for another.

    `generation` says of a table whether it is still the one that was opened: it is another after a drop.
    """

    def __init__(self, open_: Callable[[str], sqlite3.Connection], generation: Callable[[str], int]) -> None:
        self._open = open_
        self._generation = generation
        self._kept: OrderedDict[str, tuple[int, sqlite3.Connection]] = OrderedDict()

    def has(self, table: str) -> bool:
        return self.kept(table) is not None

    def kept(self, table: str) -> sqlite3.Connection | None:
        """The file, if it is open."""
        kept = self._kept.get(table)
        if kept is None or kept[0] != self._generation(table):
            return None
        self._kept.move_to_end(table)
        return kept[1]

    def get(self, table: str) -> sqlite3.Connection:
        kept = self.kept(table)
        if kept is not None:
            return kept
        now = self._generation(table)
        self.forget(table)
        database = self._open(table)
        self._kept[table] = (now, database)
        while len(self._kept) > OPEN_MAX:
            for name, (_, old) in self._kept.items():
                if name != table and not old.in_transaction:
                    self.forget(name)
                    break
            else:
                break
        return database

    def forget(self, table: str) -> None:
        kept = self._kept.pop(table, None)
        if kept is not None:
            kept[1].close()

    def prune(self) -> None:
        """Close the files that are another table's by now: the disk has their space until then."""
        for table, (generation, database) in list(self._kept.items()):
            if generation != self._generation(table) and not database.in_transaction:
                self.forget(table)

    def close(self) -> None:
        for table in list(self._kept):
            self.forget(table)


class TooLongError(BaseException):
    """That a read in the event loop has taken more than it may. No Exception, as the caller's code may catch those."""


class Budget:
    """What a read may take: rows and bytes."""

    __slots__ = ("bytes", "rows")

    def __init__(self, rows: int, size: int) -> None:
        self.rows = rows
        self.bytes = size

    def take(self, item: bytes) -> None:
        self.rows -= 1
        self.bytes -= len(item)
        if self.rows < 0 or self.bytes < 0:
            raise TooLongError


_GET = "SELECT item FROM items WHERE digest = ? AND hash = ? AND range = ?"


def get(database: sqlite3.Connection, key: Key) -> bytes | None:
    row = database.execute(_GET, (digest(key.hash), key.hash, key.range)).fetchone()
    return None if row is None else row[0]


def rows(database: sqlite3.Connection, span: Span) -> Generator[Row, None, None]:
    """What is in a span, one row in memory at a time. Closed with the generator."""
    if span.index:
        found = database.execute("SELECT id FROM indexes WHERE name = ? AND NOT dropped", (span.index,)).fetchone()
        if found is None:
            raise UnavailableError(
                f"the table {span.table} has no index {span.index} on this node", remedy="wait until it is made"
            )
        sql, values = _index_query(span, found[0])
    else:
        sql, values = _table_query(span)
    cursor = database.execute(sql, values)
    try:
        if span.index:
            for hash_, range_, key_hash, key_range, item in cursor:
                yield Row(Position(hash_, range_, Key(key_hash, key_range)), item)
        else:
            for hash_, range_, item in cursor:
                yield Row(Position(hash_, range_, Key(hash_, range_)), item)
    finally:
        cursor.close()


class _Where:
    """Conditions of a query, with their values."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.values: list[bytes | int] = []

    def add(self, part: str, *values: bytes | int) -> None:
        self.parts.append(part)
        self.values += values

    def __str__(self) -> str:
        return f" WHERE {' AND '.join(self.parts)}" if self.parts else ""

    def bounds(self, span: Span, column: str, after: str, position: tuple[bytes | int, ...], at: bytes | None) -> None:
        """Of the range keys: from `after`, if that is closer than the span's own bound, as one bound is all that SQLite
        looks up; it would read all that is between the two."""
        low, high, more = span.low, span.high, ">"
        if span.backwards:
            low, high, more = span.high, span.low, "<"
        if at is not None and (low is None or (at <= low if span.backwards else at >= low)):
            marks = ", ".join("?" * len(position))
            self.add(f"{after} {more} ({marks})", *position)
        elif low is not None:
            self.add(f"{column} {more}= ?", low)
        if high is not None:
            self.add(f"{column} {'>=' if span.backwards else '<='} ?", high)


def _order(span: Span, columns: str) -> str:
    names = columns.split(", ")
    return " ORDER BY " + ", ".join(f"{name} DESC" if span.backwards else name for name in names)


def _segment(span: Span) -> tuple[int, int]:
    """The first digest of a segment, and the first one behind it."""
    return -(-span.segment * DIGESTS // span.segments), -(-(span.segment + 1) * DIGESTS // span.segments)


def _table_query(span: Span) -> tuple[str, list[bytes | int]]:
    where = _Where()
    after = span.after
    if span.hash is not None:
        where.add("digest = ? AND hash = ?", digest(span.hash), span.hash)
        at = after.range if after is not None else None
        where.bounds(span, "range", "(range)", (at or b"",), at)
        order = _order(span, "range")
    else:
        order = _order(span, "digest, hash, range")
        first, behind = _segment(span)
        if after is not None:
            more = "<" if span.backwards else ">"
            where.add(f"(digest, hash, range) {more} (?, ?, ?)", digest(after.hash), after.hash, after.range)
        if span.segments > 1:
            if after is None or span.backwards:
                where.add("digest >= ?", first)
            if after is None or not span.backwards:
                where.add("digest < ?", behind)
    return f"SELECT hash, range, item FROM items{where}{order}", where.values  # noqa: S608 - text of our own


def _index_query(span: Span, id_: int) -> tuple[str, list[bytes | int]]:
    where = _Where()
    after = span.after
    if span.hash is not None:
        where.add("e.hash = ?", span.hash)
        at = after.range if after is not None else None
        position = (after.range, after.key.hash, after.key.range) if after is not None else ()
        where.bounds(span, "e.range", "(e.range, e.key_hash, e.key_range)", position, at)
    elif after is not None:
        more = "<" if span.backwards else ">"
        where.add(
            f"(e.hash, e.range, e.key_hash, e.key_range) {more} (?, ?, ?, ?)", after.hash, after.range, *after.key
        )
    if span.hash is None and span.segments > 1:
        first, behind = _segment(span)
        where.add("e.digest >= ? AND e.digest < ?", first, behind)
    order = _order(span, "e.hash, e.range, e.key_hash, e.key_range")
    sql = (
        "SELECT e.hash, e.range, e.key_hash, e.key_range, i.item"  # noqa: S608 - a number of our own
        f" FROM index_{id_:d} e CROSS JOIN items i"
        " ON i.digest = e.digest AND i.hash = e.key_hash AND i.range = e.key_range"
    )
    return f"{sql}{where}{order}", where.values
