"""What is told of the events of a function: in its status, and to `owsgit events`."""

from collections.abc import Mapping, Set
from datetime import UTC, datetime
from typing import Any

from owsgit.services.functions.event import Listed
from owsgit.services.functions.events import EventStore
from owsgit.services.functions.tally import Count

LISTED_MAX = 100
"""Events that one list tells of: those that are next, and the newest dead letters. The counts are of all."""


def facts(store: EventStore, name: str, in_flight: int, now: float) -> dict[str, Any]:
    """Counts; `oldestAge` is that of the event that is next in line, in seconds."""
    oldest = store.read.oldest(name)
    return {
        "queued": max(store.tally.queued(name).count - in_flight, 0),
        "inFlight": in_flight,
        "deadLetters": store.tally.dead.get(name, Count()).count,
        "oldestAge": None if oldest is None else round(max(now - oldest, 0.0), 3),
    }


def rows(store: EventStore, name: str, running: Mapping[str, Set[int]]) -> list[dict[str, Any]]:
    """The events themselves, without their payloads; `running` are the ids of those that run."""
    waiting, dead = store.read.listed(name, LISTED_MAX)
    found = [_row(each, "inFlight" if each.id in running.get(each.function, ()) else "waiting") for each in waiting]
    return found + [_row(each, "deadLetter") for each in dead]


def _row(event: Listed, state: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "requestId": event.request_id,
        "function": event.function,
        "state": state,
        "since": _time(event.starts),
        "invocations": event.errors,
        "bytes": event.size,
        "depth": event.depth,
    }
    if event.dead is None:
        return {**row, "due": _time(event.due)}
    return {**row, "died": _time(event.dead), "reason": event.reason, "error": event.error}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
