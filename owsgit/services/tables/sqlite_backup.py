"""Copies of all tables of a node, as they were at one moment, while the node writes them.

A read transaction holds a file as it is; all of them are begun while the journal is held, so that no transaction over
several tables is decided in between. One that was decided and is made in some of them only is in the journal's copy,
and is made in the others when the copies are opened. Writers wait for that moment alone, not for the copying.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from owsgit.model.errors import UnavailableError
from owsgit.services.tables.sqlite_file import SUFFIX, unavailable
from owsgit.services.tables.sqlite_journal import FILE

WAIT_SECONDS_MAX = 60.0
"""For a commit of the node's."""


def copy(folder: Path, target: Path) -> list[str]:
    """Copy what is in `folder`, the engine's, to the empty folder `target`; the names of the files.

    Raises UnavailableError.
    """
    journal = folder / FILE
    if not journal.exists():
        return []
    with ExitStack() as held:
        with _locked(journal):
            tables = [(path, held.enter_context(_held(path))) for path in sorted(folder.glob(f"*{SUFFIX}"))]
            with _reading(journal) as database:
                _copy(journal, database, target / FILE)
            _copy_records(folder, target)
        for path, database in tables:
            _copy(path, database, target / path.name)
            database.execute("ROLLBACK")  # or the node's log of changes grows until all the others are copied
    return sorted(path.name for path in target.iterdir())


def _copy_records(folder: Path, target: Path) -> None:
    """What is written beside the files of tables."""
    for path in folder.glob("*.json"):
        try:
            shutil.copyfile(path, target / path.name)
        except FileNotFoundError:  # the table was dropped just now
            continue
        except OSError as error:
            raise UnavailableError(f"it cannot be copied: {error.strerror}", file=str(path)) from None


@contextmanager
def _locked(journal: Path) -> Iterator[None]:
    """Nothing is decided meanwhile."""
    try:
        with closing(_connect(journal, "rw")) as database:
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise unavailable(error, journal) from None


@contextmanager
def _held(path: Path) -> Iterator[sqlite3.Connection]:
    """A file as it is now."""
    with _reading(path) as database:
        try:
            database.execute("BEGIN")
            database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            raise unavailable(error, path) from None
        yield database


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        database = _connect(path, "ro")
    except sqlite3.Error as error:
        raise unavailable(error, path) from None
    with closing(database):
        yield database


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, timeout=WAIT_SECONDS_MAX
    )


def _copy(path: Path, database: sqlite3.Connection, target: Path) -> None:
    try:
        with closing(sqlite3.connect(target)) as made:
            database.backup(made)
    except sqlite3.Error as error:
        raise unavailable(error, path) from None
