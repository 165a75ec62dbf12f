"""What this node has applied, and how it went: a table in the node's database.

The inventory tells what to delete when a resource leaves the ledger, and what served last when a newer version fails.
"""

import json
import sqlite3
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from owsgit.model.errors import InvalidError
from owsgit.model.resource import Kinds, Resource

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
  key TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL,
  message TEXT NOT NULL,
  since TEXT NOT NULL,
  head TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  urls TEXT NOT NULL,
  drift TEXT NOT NULL,
  applied TEXT
) STRICT
"""


class Phase(StrEnum):
    """How a resource stands."""

    READY = "ready"
    PROGRESSING = "progressing"
    FAILED = "failed"
    SUSPENDED = "suspended"


@dataclass(frozen=True)
class Row:
    """One resource of the inventory. `applied` is the version that was last made real, None if there never was one."""

    key: str
    kind: str
    name: str
    phase: Phase
    message: str = ""
    since: str = ""  # UTC, when the phase last changed
    commit: str = ""  # the head it was last looked at for
    attempts: int = 0
    urls: tuple[str, ...] = ()
    drift: str = ""  # the last drift that was repaired, and when
    applied: Resource | None = None

    def document(self) -> dict[str, Any]:
        return {
            "resource": self.key,
            "kind": self.kind,
            "name": self.name,
            "state": str(self.phase),
            "message": self.message,
            "since": self.since,
            "commit": self.commit,
            "attempts": self.attempts,
            "urls": list(self.urls),
            "drift": self.drift,
        }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dump(resource: Resource) -> str:
    """A resource as JSON text, for the inventory and for `owsgit plan` on another machine."""
    parts = {"kind": resource.kind.name, "name": resource.name, "blob": resource.blob, "tree": resource.tree}
    return json.dumps({**parts, "code": resource.code, "document": resource.document()})


def restore(kinds: Kinds, text: str) -> Resource | None:
    """What `dump` wrote; None if it is of a kind or a form that this version of owsgit does not know."""
    value = json.loads(text)
    try:
        kind = kinds[value["kind"]]
        spec = kind.spec.parse(json.dumps(value["document"]).encode(), kind.file(value["name"]))
    except (KeyError, InvalidError):
        return None
    return Resource(kind, value["name"], spec, value["blob"], value["tree"], value["code"])


class Inventory:
    """The table, kept in memory as well. A row is written before anything that follows from it."""

    def __init__(self, path: Path, kinds: Kinds) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(_SCHEMA)
        self.rows: dict[str, Row] = {}
        for values in self._database.execute(
            "SELECT key, kind, name, state, message, since, head, attempts, urls, drift, applied FROM resources"
        ):
            key, kind, name, state, message, since, head, attempts, urls, drift, applied = values
            self.rows[key] = Row(
                key,
                kind,
                name,
                Phase(state),
                message,
                since,
                head,
                attempts,
                tuple(json.loads(urls)),
                drift,
                restore(kinds, applied) if applied else None,
            )

    def put(self, row: Row) -> Row:
        """Store a row; `since` moves on only when the phase changes."""
        old = self.rows.get(row.key)
        row = replace(row, since=old.since if old is not None and old.phase is row.phase else now())
        self._database.execute(
            "INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.key,
                row.kind,
                row.name,
                str(row.phase),
                row.message,
                row.since,
                row.commit,
                row.attempts,
                json.dumps(row.urls),
                row.drift,
                dump(row.applied) if row.applied else None,
            ),
        )
        self.rows[row.key] = row
        return row

    def remove(self, key: str) -> None:
        self._database.execute("DELETE FROM resources WHERE key = ?", (key,))
        self.rows.pop(key, None)

    def applied(self) -> dict[str, Resource]:
        """What is applied, by key."""
        return {key: row.applied for key, row in self.rows.items() if row.applied is not None}

    def close(self) -> None:
        self._database.close()
