"""The SQLite file of events, `events.db`: its tables, and how it is opened."""

import sqlite3
from pathlib import Path

from owsgit.model.errors import UnavailableError

VERSION = 1
"""PRAGMA user_version of the schema below."""

JOURNAL_BYTES_MAX = 64 * 1024 * 1024
"""What is kept of the write-ahead log after a burst."""

_SCHEMA = f"""
BEGIN;
CREATE TABLE events (
  id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, function TEXT NOT NULL, resource TEXT NOT NULL,
  starts REAL NOT NULL, due REAL NOT NULL, errors INTEGER NOT NULL, depth INTEGER NOT NULL, size INTEGER NOT NULL,
  dead REAL, reason TEXT NOT NULL, error TEXT NOT NULL, trace_id TEXT NOT NULL, client_context BLOB NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX waiting ON events (function, due, id, size) WHERE dead IS NULL;
CREATE INDEX dead ON events (resource, dead, id, size) WHERE dead IS NOT NULL;
CREATE TABLE keys (
  resource TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, request_id TEXT NOT NULL, until REAL NOT NULL,
  PRIMARY KEY (resource, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX expiring ON keys (until);
PRAGMA user_version = {VERSION};
COMMIT;
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, for any thread; what it commits is on the disk. Raises UnavailableError."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX}")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(_SCHEMA)
    except sqlite3.Error as error:
        database.close()
        raise UnavailableError(
            f"the node's events cannot be read: {error}",
            file=str(path),
            remedy="free some space if the disk is full; else move the file away: what waited in it is lost",
        ) from None
    if version not in (0, VERSION):
        database.close()
        raise UnavailableError(
            f"the node's events have the format {version}", file=str(path), remedy="use a newer owsgit"
        )
    return database
