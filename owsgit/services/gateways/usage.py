"""What API keys have used of their quotas, as a node keeps it: `usage.db`.

Requests are counted in memory; what has changed is written a second later, in one commit. A crash may lose the counts
of its last second, and no request ever waits for the disk.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from pathlib import Path

from owsgit.gateway.api_keys import Count
from owsgit.model.errors import UnavailableError

VERSION = 1
"""PRAGMA user_version of the schema below."""

WRITE_SECONDS = 1.0
KEPT_SECONDS = 62 * 24 * 3600.0
"""Counts of older periods are forgotten."""

_SCHEMA = f"""
BEGIN;
CREATE TABLE usage (
  plan TEXT NOT NULL, key TEXT NOT NULL, begin REAL NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (plan, key)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""

log = logging.getLogger("owsgit.gateway")


class Usage:
    """The counts of a node."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before it is needed: a node without usage plans has no such file."""
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Count] = {}
        self._changed: set[tuple[str, str]] = set()
        self._due: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Read what was counted. Raises UnavailableError that names the file."""
        if self._database is not None:
            return
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.executescript(_SCHEMA)
            if version not in (0, VERSION):
                raise UnavailableError(
                    f"the usage of API keys has the format {version}", file=str(self._path), remedy="use a newer owsgit"
                )
            database.execute("DELETE FROM usage WHERE begin < ?", (time.time() - KEPT_SECONDS,))
            for plan, key, begin, used in database.execute("SELECT plan, key, begin, used FROM usage"):
                self._counts[plan, key] = Count(used, begin)
        except (sqlite3.Error, UnavailableError) as error:
            database.close()
            if isinstance(error, UnavailableError):
                raise
            raise UnavailableError(
                f"the usage of API keys cannot be read: {error}",
                file=str(self._path),
                remedy="free some space if the disk is full; else move the file away: quotas begin anew",
            ) from None
        self._database = database

    def count(self, plan: str, key: str) -> Count:
        """What a key has used; the same object for as long as the node runs."""
        return self._counts.setdefault((plan, key), Count())

    def changed(self, plan: str, key: str) -> None:
        """Have a count written soon."""
        self._changed.add((plan, key))
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(WRITE_SECONDS, self._begin)

    def _begin(self) -> None:
        self._writing = asyncio.ensure_future(self._flush())

    async def _flush(self) -> None:
        rows = self._rows()
        try:
            await asyncio.to_thread(self._write, rows)
        except sqlite3.Error as error:
            log.warning("the usage of API keys cannot be written: %s", error)
            self._changed.update((plan, key) for plan, key, _, _ in rows)
        self._due = asyncio.get_running_loop().call_later(WRITE_SECONDS, self._begin) if self._changed else None

    def _rows(self) -> list[tuple[str, str, float, int]]:
        changed, self._changed = self._changed, set()
        return [(*name, self._counts[name].begin, self._counts[name].used) for name in changed]

    def _write(self, rows: list[tuple[str, str, float, int]]) -> None:
        with self._lock:
            if self._database is None:
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany("INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?)", rows)
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._due is not None:
            self._due.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._due is not None:
            self._due.cancel()
            self._due = None
        try:
            await asyncio.to_thread(self._write, self._rows())
        except sqlite3.Error as error:
            log.warning("the usage of API keys cannot be written: %s", error)
        if self._database is not None:
            self._database.close()
            self._database = None
