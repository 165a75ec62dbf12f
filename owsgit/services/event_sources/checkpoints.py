"""How far each mapping is, as its node keeps it: `event-sources.db`. What a write reports is on the disk (fsync)."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from owsgit.model.errors import UnavailableError

Result = TypeVar("Result")

FILE = "event-sources.db"
"""In the node's home."""
VERSION = 1
"""PRAGMA user_version of the schema below."""

_SCHEMA = f"""
BEGIN;
CREATE TABLE checkpoints (
  mapping TEXT NOT NULL, lane INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (mapping, lane)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""


class Checkpoints:
    """Of a mapping, for each of its lanes the number of the last record that was dealt with. For one event loop; all
    methods raise UnavailableError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="owsgit-event-sources")  # one transaction at a time

    async def positions(self, mapping: str) -> list[int]:
        """By lane. Empty for a mapping that is new."""

        def work(database: sqlite3.Connection) -> list[int]:
            rows = database.execute("SELECT position FROM checkpoints WHERE mapping = ? ORDER BY lane", (mapping,))
            return [position for (position,) in rows]

        return await self._do(work)

    async def forget(self, mapping: str) -> None:
        if self._path.exists():
            await self.replace(mapping, ())

    async def replace(self, mapping: str, positions: Sequence[int]) -> None:
        """In place of all that is known of the mapping."""

        def work(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM checkpoints WHERE mapping = ?", (mapping,))
            rows = [(mapping, lane, position) for lane, position in enumerate(positions)]
            database.executemany("INSERT INTO checkpoints VALUES (?, ?, ?)", rows)

        await self._do(work)

    async def advance(self, mapping: str, lane: int, position: int) -> None:
        def work(database: sqlite3.Connection) -> None:
            database.execute(
                "UPDATE checkpoints SET position = ? WHERE mapping = ? AND lane = ?", (position, mapping, lane)
            )

        await self._do(work)

    async def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._committed, work)

    def _committed(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            database = self._opened()
            with database:  # commits, or takes back
                database.execute("BEGIN")
                return work(database)
        except sqlite3.Error as error:
            raise UnavailableError(
                f"how far event sources are cannot be read or written: {error}",
                file=str(self._path),
                remedy="free some space if the disk is full; else move the file away: mappings begin anew then",
            ) from None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                [version] = database.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    database.executescript(_SCHEMA)
                elif version != VERSION:
                    raise UnavailableError(
                        f"it has the format {version}", file=str(self._path), remedy="use a newer owsgit"
                    )
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        if self._database is not None:
            self._database.close()
            self._database = None
