"""Reads the events of a node, while its writer goes on: what is committed, at once."""

import sqlite3
from collections.abc import Collection

from owsgit.model.errors import InvalidError
from owsgit.services.functions.event import Event, Listed, Waiting
from owsgit.services.functions.tally import Tally

_EVENT = "request_id, function, payload, starts, trace_id, client_context, due, errors, depth, id"
_LISTED = "id, request_id, function, starts, due, errors, depth, size, dead, reason, error"


class EventReader:
    """A connection that only reads; `tally` says what there is to read."""

    def __init__(self, database: sqlite3.Connection, tally: Tally) -> None:
        self._database = database
        self._tally = tally
        database.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        self._database.close()

    def count(self) -> None:
        """Count what is there, into the tally."""
        waiting = "SELECT function, count(*), sum(size) FROM events WHERE dead IS NULL GROUP BY function"
        for function, count, size in self._database.execute(waiting):
            self._tally.waits(function, count, size)
        dead = "SELECT resource, count(*), sum(size) FROM events WHERE dead IS NOT NULL GROUP BY resource"
        for resource, count, size in self._database.execute(dead):
            self._tally.died(resource, count, size)
        for resource, count in self._database.execute("SELECT resource, count(*) FROM keys GROUP BY resource"):
            self._tally.has_keys(resource, count)

    def due(self, function: str, now: float, count: int, but: Collection[int]) -> Waiting:
        """At most `count` events that are due, without those of the ids `but`; and when the next one is."""
        rows = self._database.execute(
            "SELECT id, due FROM events WHERE function = ? AND dead IS NULL ORDER BY due, id LIMIT ?",
            (function, count + len(but) + 1),
        ).fetchall()
        left = [(id_, due) for id_, due in rows if id_ not in but]
        ready = [id_ for id_, due in left if due <= now][:count]
        return Waiting([self._event(id_) for id_ in ready], left[len(ready)][1] if len(left) > len(ready) else None)

    def _event(self, id_: int) -> Event:
        row = self._database.execute(f"SELECT {_EVENT} FROM events WHERE id = ?", (id_,)).fetchone()  # noqa: S608
        return Event(*row)

    def oldest(self, resource: str) -> float | None:
        """When the event of a function that is next in line was to be invoked first."""
        query = "SELECT starts FROM events WHERE function = ? AND dead IS NULL ORDER BY due, id LIMIT 1"
        rows = [self._database.execute(query, (each,)).fetchone() for each in self._tally.names(resource)]
        return min((row[0] for row in rows if row is not None), default=None)

    def listed(self, resource: str, count: int) -> tuple[list[Listed], list[Listed]]:
        """The first `count` events of a function that wait (or run), and its last `count` dead letters."""
        query = f"SELECT {_LISTED} FROM events WHERE function = ? AND dead IS NULL ORDER BY due, id LIMIT ?"  # noqa: S608
        waiting: list[Listed] = []
        for function in self._tally.names(resource):
            waiting += [Listed(*row) for row in self._database.execute(query, (function, count - len(waiting)))]
        query = f"SELECT {_LISTED} FROM events WHERE resource = ? AND dead IS NOT NULL ORDER BY dead DESC, id LIMIT ?"  # noqa: S608
        return waiting, [Listed(*row) for row in self._database.execute(query, (resource, count))]

    def dead(self, resource: str, request_ids: Collection[str]) -> list[int]:
        """The ids of dead letters, all if none is named. Raises InvalidError for a request id that none has."""
        rows: list[tuple[int, str]] = self._database.execute(
            "SELECT id, request_id FROM events WHERE resource = ? AND dead IS NOT NULL ORDER BY dead, id", (resource,)
        ).fetchall()
        known = {request_id for _, request_id in rows}
        for request_id in request_ids:
            if request_id not in known:
                raise InvalidError(
                    f"function {resource} has no dead letter {request_id!r:.60} on this node",
                    remedy=f"owsgit events {resource} lists them",
                )
        wanted = set(request_ids) or known
        return [id_ for id_, request_id in rows if request_id in wanted]
