"""Works of engines that read over a network: a work is run on what is known, and again once what it asked for is.

A work is a plain function, and cannot wait. So an attempt takes down what it asks for and is not known yet; of an item
it is told that there is none, so that one attempt finds all keys of a work. What such an attempt gave, or raised, is
thrown away. A work that asks for nothing, as many writes do, is run once.
"""

import heapq
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from owsgit.services.tables.engine import Entry, Key, Position, Row, Snapshot, Span, Transaction
from owsgit.services.tables.packed import Packed

DIGEST_BYTES = 20
"""Of a hash key: long enough that nobody finds two keys of one digest."""
SEGMENT_BYTES = 8
"""Of a digest, by which segments are told apart."""

Place = tuple[str, Key]
"""A table, and a key in it."""


def digest(hash_key: bytes) -> bytes:
    return blake2b(hash_key, digest_size=DIGEST_BYTES).digest()


def tie(key: Key) -> bytes:
    """What orders entries of an index that have the same keys in it."""
    return digest(len(key.hash).to_bytes(4, "big") + key.hash + key.range)


def order(position: Position, index: str) -> tuple[bytes, ...]:
    """Where something stands: in a table, or in an index."""
    if index:
        return (digest(position.hash), position.range, tie(position.key))
    return (digest(position.hash), position.range)


def segment(span: Span) -> tuple[bytes, bytes | None]:
    """The first digest of a segment, and the first one behind it; None for no end."""
    every = 1 << (8 * SEGMENT_BYTES)
    first, behind = (-(-number * every // span.segments) for number in (span.segment, span.segment + 1))
    return first.to_bytes(SEGMENT_BYTES, "big"), behind.to_bytes(SEGMENT_BYTES, "big") if behind < every else None


def segment_of(hash_key: bytes, segments: int) -> int:
    return int.from_bytes(digest(hash_key)[:SEGMENT_BYTES], "big") * segments >> (8 * SEGMENT_BYTES)


def is_in(span: Span, position: Position) -> bool:
    if span.hash is not None and (
        position.hash != span.hash
        or (span.low is not None and position.range < span.low)
        or (span.high is not None and position.range > span.high)
    ):
        return False
    if span.hash is None and span.segments > 1:
        first, behind = segment(span)
        place = digest(position.key.hash)
        if place < first or (behind is not None and place >= behind):
            return False
    if span.after is None:
        return True
    here, after = order(position, span.index), order(span.after, span.index)
    return here < after if span.backwards else here > after


class MissingError(BaseException):
    """That an attempt cannot go on. No Exception, as the caller's code may catch those."""


class Stored(NamedTuple):
    """What lies under a key. `item`: None where only its length was asked for."""

    item: bytes | None
    size: int
    entries: list[Packed]


@dataclass
class Rows:
    """The first rows of a span. `all`: there are no more."""

    rows: list[Row] = field(default_factory=list)
    all: bool = False


@dataclass
class Known:
    """What was read so far, all at one moment."""

    stored: dict[Place, Stored | None] = field(default_factory=dict)
    spans: dict[Span, Rows] = field(default_factory=dict)
    tokens: dict[bytes, bytes | None] = field(default_factory=dict)


class Reading(Snapshot):
    """One attempt at a work that reads."""

    def __init__(self, tables: frozenset[str], known: Known) -> None:
        self._tables = tables
        self._known = known
        self.missing: dict[Place, None] = {}
        self.missing_span: Span | None = None

    @property
    def is_void(self) -> bool:
        """Whether it has asked for what is not known."""
        return bool(self.missing) or self.missing_span is not None

    def run(self, work: Callable[[Any], Any]) -> Any:
        """What `work` gives, or raises; None if the attempt is void."""
        try:
            return work(self)
        except MissingError:
            return None
        except Exception:
            if self.is_void:
                return None
            raise

    def check(self, table: str) -> None:
        if table not in self._tables:
            raise LookupError(f"the transaction does not name the table {table}")

    def get(self, table: str, key: Key) -> bytes | None:
        self.check(table)
        place = (table, key)
        stored = self._known.stored.get(place)
        if stored is None:
            if place not in self._known.stored:
                self.missing[place] = None
            return None
        if stored.item is None:
            self.missing[place] = None
        return stored.item

    def rows(self, span: Span) -> Iterator[Row]:
        self.check(span.table)
        return self._rows(span)

    def _rows(self, span: Span) -> Iterator[Row]:
        known = self._known.spans.get(span)
        if known is not None:
            yield from known.rows
        if known is None or not known.all:
            self.missing_span = span
            raise MissingError


class Progress(NamedTuple):
    """How far an index is built: so many items, up to the key `last` of them."""

    done: int
    filled: bool
    last: Key | None


@dataclass
class Changes:
    """What works have changed; a deleted item is None. `logs`: tables with their records, in the order."""

    items: dict[Place, tuple[bytes, Collection[Entry]] | None] = field(default_factory=dict)
    logs: list[tuple[str, bytes]] = field(default_factory=list)
    tokens: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    entered: dict[Place, Packed] = field(default_factory=dict)
    """Entries that items get which stay as they are, unless they are in `items`."""
    progress: dict[int, "Progress"] = field(default_factory=dict)
    """Of indexes that are built, by number."""
    bytes: int = 0

    def add(self, later: "Changes") -> None:
        self.items |= later.items
        self.logs += later.logs
        self.tokens |= later.tokens
        self.entered |= later.entered
        self.progress |= later.progress
        self.bytes += later.bytes

    def __bool__(self) -> bool:
        return bool(self.items or self.logs or self.tokens or self.entered or self.progress)


class Writing(Reading, Transaction):
    """One attempt at a work that writes, after others that have changed something (`before`)."""

    def __init__(self, tables: frozenset[str], known: Known, before: Changes) -> None:
        super().__init__(tables, known)
        self._before = before
        self.changes = Changes()
        self.asked = False
        """Whether it has looked at anything but its own changes: else it need not be run again."""
        self.missing_tokens: set[bytes] = set()

    @property
    def is_void(self) -> bool:
        return super().is_void or bool(self.missing_tokens)

    def get(self, table: str, key: Key) -> bytes | None:
        place = (table, key)
        if place in self.changes.items:
            changed = self.changes.items[place]
            return None if changed is None else changed[0]
        self.asked = True
        if place in self._before.items:
            self.check(table)
            changed = self._before.items[place]
            return None if changed is None else changed[0]
        return super().get(table, key)

    def rows(self, span: Span) -> Iterator[Row]:
        self.check(span.table)
        self.asked = True
        changed = {
            key: what
            for of in (self._before, self.changes)
            for (table, key), what in of.items.items()
            if table == span.table
        }
        kept = (row for row in self._rows(span) if row.position.key not in changed)
        if not changed:
            return kept
        own = [
            Row(position, what[0])
            for key, what in changed.items()
            if what is not None
            for position in _positions(span, key, what[1])
            if is_in(span, position)
        ]

        def place(row: Row) -> tuple[bytes, ...]:
            return order(row.position, span.index)

        own.sort(key=place, reverse=span.backwards)
        return heapq.merge(kept, own, key=place, reverse=span.backwards)

    def put(self, table: str, key: Key, item: bytes, entries: Collection[Entry]) -> None:
        self.check(table)
        self.changes.items[table, key] = (item, entries)
        self.changes.bytes += len(item)

    def delete(self, table: str, key: Key) -> None:
        self.check(table)
        self.changes.items[table, key] = None

    def log(self, table: str, record: bytes) -> None:
        self.check(table)
        self.changes.logs.append((table, record))
        self.changes.bytes += len(record)

    def remember(self, token: bytes, digest: bytes, until: float) -> bytes | None:
        self.asked = True
        for of in (self.changes, self._before):
            kept = of.tokens.get(token)
            if kept is not None and kept[1] > time.time():
                return kept[0]
        if token not in self._known.tokens:
            self.missing_tokens.add(token)
        elif (known := self._known.tokens[token]) is not None:
            return known
        self.changes.tokens[token] = (digest, until)
        return None

    def enter(self, table: str, key: Key, id_: int, entry: Callable[[bytes], Entry | None]) -> None:
        """Give an item its entry of an index, if it has none: those that were changed since the index is there have."""
        self.asked = True
        place = (table, key)
        if place in self._before.items:
            return
        item = Reading.get(self, table, key)
        stored = self._known.stored.get(place)
        if item is None or stored is None or any(each[0] == id_ for each in stored.entries):
            return
        found = entry(item)
        if found is not None:
            self.changes.entered[place] = (id_, found.hash, found.range)

    def progress(self, id_: int, progress: Progress) -> None:
        self.changes.progress[id_] = progress


def _positions(span: Span, key: Key, entries: Collection[Entry]) -> Iterator[Position]:
    """Where a changed item stands in what a span is of."""
    if not span.index:
        yield Position(key.hash, key.range, key)
    else:
        yield from (Position(each.hash, each.range, key) for each in entries if each.of == span.index)
