"""What was said of commits: a node keeps it in one SQLite file, `reviews.db`.

Nothing is ever taken away or overwritten: an approval on which a head rests has to be there as long as the head. What
neighbours tell is remembered too, but only in memory, until something that was verified rests on it.
"""

import hashlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from owsgit.ledger import verdicts
from owsgit.ledger.sshsig import BadSignatureError
from owsgit.ledger.verdicts import APPROVE, Verdict
from owsgit.model.errors import UnavailableError
from owsgit.model.state import State

TOLD_OF_ONE_COMMIT_MAX = 200
"""Verdicts of one commit that one neighbour told of: as many as there can be said of it. 0.2 s to check them all."""

TOLD_MAX = 20_000
"""Verdicts that one neighbour told of, and nothing rests on them yet: 160 MB at the very most, 20 MB in practice."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (id TEXT PRIMARY KEY, commit_id TEXT NOT NULL, data BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS verdicts_commit ON verdicts (commit_id);
"""


class _Told:
    """What one neighbour told, by commit; the commits that it spoke of last are kept."""

    def __init__(self) -> None:
        self._by_commit: OrderedDict[str, OrderedDict[str, Verdict]] = OrderedDict()
        self._count = 0

    def of(self, commit: str) -> Iterable[Verdict]:
        return self._by_commit.get(commit, {}).values()

    def add(self, verdict: Verdict) -> None:
        said = self._by_commit.setdefault(verdict.commit, OrderedDict())
        self._by_commit.move_to_end(verdict.commit)
        self._count += id_of(verdict) not in said
        said[id_of(verdict)] = verdict
        while len(said) > TOLD_OF_ONE_COMMIT_MAX:
            said.popitem(last=False)
            self._count -= 1
        while self._count > TOLD_MAX:
            self._count -= len(self._by_commit.popitem(last=False)[1])


class Reviews:
    """The file. May be used from any thread."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` None: in memory only. Raises UnavailableError when the file cannot be read."""
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}  # by neighbour
        self.fresh: set[str] = set()  # commits of which something was kept that is in no note yet
        try:
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            self._any = bool(self._rows("SELECT 1 FROM verdicts LIMIT 1"))
        except sqlite3.DatabaseError as error:
            raise UnavailableError(
                f"the approvals cannot be read: {error}",
                file=str(path),
                remedy="restore the node from a backup, or join the project with a new one (owsgit node join)",
            ) from None

    def _rows(self, statement: str, *values: str | int) -> list[tuple[str, str, bytes]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def __bool__(self) -> bool:
        """Whether anything was ever said: where there are no reviews, nobody looks for any."""
        return self._any or bool(self._told)

    def kept(self, commit: str) -> list[Verdict]:
        """What was said of `commit` and is on the disk, in the order in which it came."""
        if not self._any:
            return []
        rows = self._rows("SELECT id, commit_id, data FROM verdicts WHERE commit_id = ? ORDER BY rowid", commit)
        return [verdicts.parse(data) for _, _, data in rows]

    def approvals(self, commit: str) -> Sequence[Verdict]:
        """All approvals of `commit` that are known, kept or told."""
        if not self:
            return ()
        with self._lock:
            told = [each for source in self._told.values() for each in source.of(commit)]
        return [each for each in (*self.kept(commit), *told) if each.kind == APPROVE]

    def standing(self, commit: str, state: State) -> Sequence[Verdict]:
        """The approvals of `commit` whose users have not rejected it since."""
        latest = self.latest(commit, state)
        return [each for each in latest.values() if each.kind == APPROVE]

    def latest(self, commit: str, state: State) -> dict[str, Verdict]:
        """The last word of each user of `state` on `commit`: that with the highest number, of two a rejection."""
        found: dict[str, Verdict] = {}
        for verdict in self.kept(commit):
            try:
                user = verdict.signer(state).user
            except BadSignatureError:
                continue
            before = found.get(user)
            if before is None or (before.number, before.kind) < (verdict.number, verdict.kind):  # approve < reject
                found[user] = verdict
        return found

    def keep(self, said: Iterable[Verdict]) -> None:
        """Durable when it returns. Raises UnavailableError."""
        rows = [(id_of(each), each.commit, each.data) for each in said]
        if not rows:
            return
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?)", rows)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise UnavailableError(
                    f"the approvals cannot be written: {error}", remedy="free some space on the node's disk"
                ) from error
            self._any = True
            self.fresh.update(commit for _, commit, _ in rows)

    def tell(self, said: Iterable[Verdict], source: str) -> None:
        """Remember, for a while, what a neighbour (`source`) knows; nothing of it is proven.

        So many of one commit, and so many in all, by each neighbour, the newest: what one of them makes up costs little
        to look through, and crowds out nothing that another one tells.
        """
        with self._lock:
            told = self._told.setdefault(source, _Told())
            for verdict in said:
                told.add(verdict)

    def forget_told(self) -> None:
        """What is worth keeping is kept."""
        with self._lock:
            self._told.clear()

    def all_after(self, row: int, count: int) -> list[tuple[int, Verdict]]:
        """Everything that is kept, page by page, with the number of its row."""
        with self._lock:
            rows = self._database.execute(
                "SELECT rowid, data FROM verdicts WHERE rowid > ? ORDER BY rowid LIMIT ?", (row, count)
            ).fetchall()
        return [(number, verdicts.parse(data)) for number, data in rows]

    def last(self, count: int) -> list[Verdict]:
        """The newest ones that are kept, the newest first."""
        with self._lock:
            rows = self._database.execute("SELECT data FROM verdicts ORDER BY rowid DESC LIMIT ?", (count,)).fetchall()
        return [verdicts.parse(data) for (data,) in rows]

    def commits(self) -> list[str]:
        """The commits of which anything was said."""
        with self._lock:
            rows = self._database.execute("SELECT DISTINCT commit_id FROM verdicts ORDER BY commit_id").fetchall()
        return [commit for (commit,) in rows]

    def close(self) -> None:
        with self._lock:
            self._database.close()


def id_of(verdict: Verdict) -> str:
    """The id that the verdict has as an object of git."""
    data = verdict.data
    return hashlib.sha1(b"tag %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
