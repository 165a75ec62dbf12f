"""What makes a transaction over several tables whole: `journal.db`, beside their files.

Each table is a file, and commits of several files are not atomic together, not even to SQLite once they have
write-ahead logs. So the changes of such a transaction are written here first, as they are to be made; that commit
decides, and is on the disk whatever the durability of the tables. After a crash they are made again in the tables that
lack them. Idempotency tokens are here as well, as they belong to no single table.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from owsgit.model.errors import UnavailableError
from owsgit.services.tables.sqlite_file import connect

FILE = "journal.db"
VERSION = 1
CACHE_BYTES = 2 << 20
EXPIRED_MAX = 16
"""Tokens that one new one throws away, once they have expired."""

_SCHEMA = """
BEGIN;
CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL);
INSERT INTO counter VALUES (1, 0);
CREATE TABLE changes (
  number INTEGER NOT NULL, place INTEGER NOT NULL, table_ TEXT NOT NULL, identity BLOB NOT NULL, kind TEXT NOT NULL,
  a ANY, b ANY, c ANY, d ANY, PRIMARY KEY (number, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (token BLOB PRIMARY KEY, digest BLOB NOT NULL, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX expiring ON tokens (until);
PRAGMA user_version = 1;
COMMIT;
"""


class Change(NamedTuple):
    """A change of a table: "put" (hash, range, item, entries), "delete" (hash, range), "log" (number, at, record)."""

    kind: str
    a: Any = None
    b: Any = None
    c: Any = None
    d: Any = None


class Decided(NamedTuple):
    """A change that is decided and may have to be made. `identity`: of the table's file."""

    number: int
    table: str
    identity: bytes
    change: Change


class Journal:
    """The file, of the writing thread alone. Methods raise sqlite3.Error."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.database = connect(self.path, cache_bytes=CACHE_BYTES, create=True)
        try:
            version = self.database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self.database.executescript(_SCHEMA)
            elif version != VERSION:
                raise UnavailableError(
                    f"the journal has the format {version}, not {VERSION}",
                    file=str(self.path),
                    remedy="use the owsgit that wrote it",
                )
        except BaseException:
            self.database.close()
            raise

    def begin(self) -> None:
        if not self.database.in_transaction:
            self.database.execute("BEGIN IMMEDIATE")

    def remember(self, token: bytes, digest: bytes, until: float, now: float) -> bytes | None:
        self.begin()
        row = self.database.execute("SELECT digest FROM tokens WHERE token = ? AND until > ?", (token, now)).fetchone()
        if row is not None:
            found: bytes = row[0]
            return found
        expired = self.database.execute(
            "SELECT token FROM tokens WHERE until <= ? ORDER BY until LIMIT ?", (now, EXPIRED_MAX)
        ).fetchall()
        self.database.executemany("DELETE FROM tokens WHERE token = ?", expired)
        self.database.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (token, digest, until))
        return None

    def decide(self, changes: Iterator[tuple[str, bytes, Change]], behind: Collection[str]) -> int:
        """Keep changes (table, identity of its file, change) in place of those before, but for those of the tables that
        are `behind`; their number. Committed by then: they are decided."""
        self.begin()
        self._forget_made(behind)
        number: int = self.database.execute("UPDATE counter SET number = number + 1 RETURNING number").fetchone()[0]
        self.database.executemany(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((number, place, table, identity, *change) for place, (table, identity, change) in enumerate(changes)),
        )
        self.database.execute("COMMIT")
        return number

    def _forget_made(self, behind: Collection[str]) -> None:
        if not behind:
            self.database.execute("DELETE FROM changes")
            return
        for (table,) in self.database.execute("SELECT DISTINCT table_ FROM changes").fetchall():
            if table not in behind:
                self.database.execute("DELETE FROM changes WHERE table_ = ?", (table,))

    def forget_made(self, behind: Collection[str]) -> None:
        """What is decided is made, but in the tables that are `behind`."""
        self.begin()
        self._forget_made(behind)
        self.database.execute("COMMIT")

    def decided(self) -> list[Decided]:
        """The changes that were decided and may not be made, in their order."""
        found = self.database.execute("SELECT * FROM changes ORDER BY number, place").fetchall()
        return [Decided(number, table, identity, Change(*change)) for number, _, table, identity, *change in found]

    def rollback(self) -> None:
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")

    def close(self) -> None:
        self.database.close()
