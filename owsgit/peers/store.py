"""What deciding has to remember through a crash: promises, votes, decisions, recoveries. One SQLite file, `votes.db`.

Every write is on the disk (fsync) when its method returns.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from owsgit.model.errors import UnavailableError
from owsgit.peers import certificates, recovery
from owsgit.peers.certificates import Certificate
from owsgit.peers.paxos import Ballot, Seat, Vote
from owsgit.peers.recovery import SignedRecovery

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seats (
  head TEXT PRIMARY KEY, promised_round INTEGER, promised_node TEXT, voted_round INTEGER, voted_node TEXT, value TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS decisions (
  head TEXT PRIMARY KEY, value TEXT NOT NULL UNIQUE, certificate TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS recoveries (id TEXT PRIMARY KEY, head TEXT NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS former (node TEXT PRIMARY KEY, name TEXT NOT NULL, head TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""

RESTORED = "restored"
"""Fact: this home comes from a backup and may have forgotten votes; the value tells until when it abstains."""

STOPPED = "stopped"
"""Fact: why this node must not run any more."""


class Store:
    """The file. May be used from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises UnavailableError when the file cannot be read."""
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UnavailableError(
                f"the node's votes cannot be read: {error}",
                file=str(path),
                remedy="restore the node from a backup, or join the project with a new one (owsgit node join)",
            ) from None

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise UnavailableError(
                        f"the node's votes cannot be written: {error}", remedy="free some space on the node's disk"
                    ) from error
                raise

    def _rows(self, statement: str, *values: str | int) -> list[tuple[str, ...]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def seats(self) -> dict[str, Seat]:
        found = {}
        with self._lock:
            rows = self._database.execute("SELECT * FROM seats").fetchall()
        for head, promised_round, promised_node, voted_round, voted_node, value in rows:
            promised = Ballot(promised_round, promised_node) if promised_round is not None else None
            voted = Vote(Ballot(voted_round, voted_node), value) if voted_round is not None else None
            found[head] = Seat(promised, voted)
        return found

    def put_seat(self, head: str, seat: Seat) -> None:
        promised, voted = seat.promised, seat.voted
        row = (
            head,
            promised.round if promised else None,
            promised.node if promised else None,
            voted.ballot.round if voted else None,
            voted.ballot.node if voted else None,
            voted.value if voted else None,
        )
        with self._write() as database:
            database.execute("INSERT OR REPLACE INTO seats VALUES (?, ?, ?, ?, ?, ?)", row)

    def drop_seats(self) -> None:
        """Forget all promises and votes: for a node that is another one from now on."""
        with self._write() as database:
            database.execute("DELETE FROM seats")

    def drop_seats_but(self, head: str) -> None:
        """Forget what was promised and voted about heads that are past."""
        with self._write() as database:
            database.execute("DELETE FROM seats WHERE head <> ?", (head,))

    def put_decisions(self, decided: list[Certificate]) -> None:
        """Keep decisions, which come in the order of the history. The first one on a head is the one that counts."""
        rows = [(each.instance.head, each.value, each.text()) for each in decided]
        with self._write() as database:
            database.executemany("INSERT OR IGNORE INTO decisions VALUES (?, ?, ?)", rows)

    def is_before(self, value: str, last: str) -> bool:
        """Whether the head `value` was decided before the head `last`."""
        query = "SELECT 1 FROM decisions AS one, decisions AS other WHERE one.value = ? AND other.value = ?"
        return bool(self._rows(f"{query} AND one.rowid < other.rowid", value, last))

    def decision(self, head: str) -> Certificate | None:
        """The decision on the successor of `head`."""
        rows = self._rows("SELECT certificate FROM decisions WHERE head = ?", head)
        return certificates.parse(rows[0][0]) if rows else None

    def decision_for(self, value: str) -> Certificate | None:
        """The decision that made `value` a head."""
        rows = self._rows("SELECT certificate FROM decisions WHERE value = ?", value)
        return certificates.parse(rows[0][0]) if rows else None

    def decisions_after(self, head: str, count: int) -> list[Certificate]:
        """The next decisions in order, at most `count`."""
        found: list[Certificate] = []
        while len(found) < count and (decided := self.decision(head)) is not None:
            found.append(decided)
            head = decided.value
        return found

    def put_recovery(self, signed: SignedRecovery) -> None:
        text = signed.model_dump_json(by_alias=True)
        with self._write() as database:
            database.execute(
                "INSERT OR REPLACE INTO recoveries VALUES (?, ?, ?)", (signed.recovery.id, signed.recovery.head, text)
            )

    def recoveries(self) -> list[SignedRecovery]:
        """In the order in which they came."""
        return [
            recovery.parse(text.encode()) for (text,) in self._rows("SELECT document FROM recoveries ORDER BY rowid")
        ]

    def put_former(self, node: str, name: str, head: str) -> None:
        """A node that the ledger named until `head` took it out."""
        with self._write() as database:
            database.execute("INSERT OR REPLACE INTO former VALUES (?, ?, ?)", (node, name, head))

    def former(self, node: str) -> tuple[str, str] | None:
        """Name, and the head that took the node out of the ledger."""
        rows = self._rows("SELECT name, head FROM former WHERE node = ?", node)
        return (rows[0][0], rows[0][1]) if rows else None

    def fact(self, name: str) -> str | None:
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return rows[0][0] if rows else None

    def put_fact(self, name: str, value: str) -> None:
        with self._write() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def drop_fact(self, name: str) -> None:
        with self._write() as database:
            database.execute("DELETE FROM facts WHERE name = ?", (name,))

    def close(self) -> None:
        with self._lock:
            self._database.close()
