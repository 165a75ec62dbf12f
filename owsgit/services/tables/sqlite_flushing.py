"""What relaxed commits have written gets onto the disk soon after: a thread flushes the files that were written.

SQLite itself would leave that to the kernel, which takes half a minute, until a log is long enough for a checkpoint.
"""

import logging
import threading
from pathlib import Path

from owsgit.services.tables.sqlite_file import path_of
from owsgit.services.tables.sqlite_table import force

SECONDS = 1.0
"""What a loss of power may take is about as much as is written in this time, and while it is flushed."""

log = logging.getLogger("owsgit.tables")


class Flusher:
    """Of the tables in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: set[str] = set()
        self._lock = threading.Lock()
        self._some, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, table: str) -> None:
        """That something was committed. For one thread."""
        with self._lock:
            self._tables.add(table)
        if not self._some.is_set():
            self._some.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="owsgit-tables-flush", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._some.wait() and not self._closing.wait(SECONDS):
            self._some.clear()  # before the names are taken: who is noted from now on wakes this again
            with self._lock:
                tables, self._tables = self._tables, set()
            for table in tables:
                try:
                    force(path_of(self._folder, table))
                except OSError as error:
                    log.error("%s: what was written last may be lost with the power: %s", table, error)

    def close(self) -> None:
        """Closing the files flushes them."""
        self._closing.set()
        self._some.set()
        if self._thread is not None:
            self._thread.join()
