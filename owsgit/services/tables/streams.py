"""The streams of a table: the records of its changes, in the shapes of DynamoDB Streams and of Lambda's events.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html. A table has one stream at a time. Records
have numbers that rise over all streams that the table ever had; a stream is one shard, which ends with the stream.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from owsgit.services.tables.engine import Logged
from owsgit.services.tables.values import Item

RETENTION_SECONDS = 24 * 3600.0
"""AWS's: of records, and of what is told of a stream that was ended."""

CLOSED_MAX = 100
"""Ended streams that a table remembers, should somebody switch it on and off all day."""

_FIRST = 10**20
"""Sequence numbers have 21 digits: AWS's have that many at least."""


@dataclass(frozen=True)
class Stream:
    """`begins` and `ends` are the numbers of its first and its last record; `closed` is when it was ended, in seconds
    since 1970."""

    label: str
    view: str
    begins: int
    ends: int | None = None
    closed: float | None = None

    @property
    def is_open(self) -> bool:
        return self.closed is None

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.label).replace(tzinfo=UTC)

    def has(self, number: int) -> bool:
        return self.begins <= number and (self.ends is None or number <= self.ends)

    def shard(self, table_arn: str) -> str:
        """The id of its one shard, in AWS's form."""
        digest = hashlib.sha256(f"{table_arn}/{self.label}".encode()).hexdigest()
        return f"shardId-{int(self.created.timestamp() * 1000):020d}-{digest[:8]}"

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


def following(streams: Sequence[Stream], view: str | None, last: int, now: float) -> tuple[Stream, ...]:
    """The streams of a table that is to show `view` from now on; `last` is the number of its last record."""
    found = list(kept(streams, now))[-CLOSED_MAX:]
    if found and found[-1].is_open:
        if found[-1].view == view:
            return tuple(found)
        found[-1] = replace(found[-1], ends=last, closed=now)
    if view is not None:
        former = found[-1].created.timestamp() if found else 0.0
        label = datetime.fromtimestamp(max(now, former + 0.001), UTC).replace(tzinfo=None)
        found.append(Stream(label.isoformat(timespec="milliseconds"), view, last + 1))
    return tuple(found)


def kept(streams: Iterable[Stream], now: float) -> Iterator[Stream]:
    """Without those that ended so long ago that nothing is told of them any more."""
    return (each for each in streams if each.closed is None or now - each.closed < RETENTION_SECONDS)


def sequence(number: int) -> str:
    """A record's sequence number, as AWS writes them."""
    return str(_FIRST + number)


def number_of(given: str) -> int | None:
    """The number of a record whose sequence number is `given`; None if it is none."""
    found = int(given) - _FIRST if given.isascii() and given.isdigit() else 0
    return found if 0 < found < _FIRST else None


def event(logged: Logged, kept: Item, arn: str, region: str) -> dict[str, Any]:
    """A record, which is `kept` so, as Lambda's events have it, but for `eventSourceARN`: `arn` is the stream's. Times
    are seconds."""
    shown: dict[str, Any] = {
        "ApproximateCreationDateTime": int(logged.at),
        "Keys": kept["Keys"]["M"],
        "SequenceNumber": sequence(logged.number),
        "SizeBytes": int(kept["SizeBytes"]["N"]),
        "StreamViewType": kept["StreamViewType"]["S"],
    }
    for name in ("NewImage", "OldImage"):
        if name in kept:
            shown[name] = kept[name]["M"]
    found: dict[str, Any] = {
        "eventID": hashlib.sha256(f"{arn}/{logged.number}".encode()).hexdigest()[:32],
        "eventName": kept["eventName"]["S"],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": region,
        "dynamodb": shown,
    }
    if "userIdentity" in kept:
        found["userIdentity"] = {name: value["S"] for name, value in kept["userIdentity"]["M"].items()}
    return found


def output(found: Mapping[str, Any]) -> dict[str, Any]:
    """An event as GetRecords gives it, whose shapes have other names and types in places."""
    shown = found["dynamodb"]
    at = datetime.fromtimestamp(shown["ApproximateCreationDateTime"], UTC)
    record = {**found, "dynamodb": {**shown, "ApproximateCreationDateTime": at}}
    if "userIdentity" in found:
        identity = found["userIdentity"]
        record["userIdentity"] = {"Type": identity["type"], "PrincipalId": identity["principalId"]}
    return record
