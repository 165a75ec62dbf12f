"""The contract of engines: where the items of tables are kept. It knows bytes and their order, nothing of attributes.

An item lies in its table under a hash key and a range key (empty in tables without one): under one hash key in the
order of the range keys, byte by byte; the order of hash keys is the engine's own, and always the same. It stands in any
number of indexes as well, under other keys; under one hash key of an index, items are in the order of its range keys,
and those with the same range key in an order of the engine's own. What is changed together is changed at once or not at
all, in all tables and their indexes.
"""

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

Result = TypeVar("Result")


class Key(NamedTuple):
    """Where an item lies in its table."""

    hash: bytes
    range: bytes = b""


class Entry(NamedTuple):
    """That an item stands in an index, and under which keys."""

    of: str  # the index
    hash: bytes
    range: bytes = b""


class Position(NamedTuple):
    """A place in a table or an index. `key` is the table's own key; in a table, `hash` and `range` are that key."""

    hash: bytes
    range: bytes
    key: Key


class Row(NamedTuple):
    position: Position
    item: bytes


DIGESTS = 1 << 32


def digest(hash_key: bytes) -> int:
    """Of a hash key, even over its 32 bits also for keys that differ in little."""
    return (zlib.crc32(hash_key) * 0x9E3779B1) & 0xFFFFFFFF


@dataclass(frozen=True)
class Span:
    """A part of a table (index '') or of an index, in its order or backwards.

    With a `hash`, what lies under it, from `low` to `high` (both inclusive, None for no bound) of the range keys.
    Without, everything, or the `segment` of `segments` parts of about equal size, by a digest of the table's hash key.
    `after` is a position from which on it goes on, exclusive.
    """

    table: str
    index: str = ""
    hash: bytes | None = None
    low: bytes | None = None
    high: bytes | None = None
    backwards: bool = False
    after: Position | None = None
    segment: int = 0
    segments: int = 1


class Snapshot(Protocol):
    """The tables at one moment."""

    def get(self, table: str, key: Key) -> bytes | None: ...

    def rows(self, span: Span) -> Iterator[Row]:
        """Read as they are taken, a bounded number at a time."""
        ...


class Transaction(Snapshot, Protocol):
    """Sees its own changes."""

    def put(self, table: str, key: Key, item: bytes, entries: Collection[Entry]) -> None:
        """In place of what lies there, in the table and in all indexes."""
        ...

    def delete(self, table: str, key: Key) -> None:
        """Nothing happens if there is nothing."""
        ...

    def log(self, table: str, record: bytes) -> None:
        """Add to the table's stream, in the order of the changes: they get rising numbers."""
        ...

    def remember(self, token: bytes, digest: bytes, until: float) -> bytes | None:
        """Keep a digest under a token until a time (seconds since 1970); what is there already, if there is one."""
        ...


class Logged(NamedTuple):
    """A record of a stream. `at`: seconds since 1970."""

    number: int
    at: float
    record: bytes


class Facts(NamedTuple):
    """What is known of a table without counting: as exact as the engine has it."""

    items: int
    bytes: int
    entries: Mapping[str, int]  # by index


class Engine(Protocol):
    """All methods raise UnavailableError if the disk or the server fails; nothing is half done then."""

    async def create(self, table: str, indexes: Collection[str]) -> None:
        """Have a table with these indexes there; others are dropped. Idempotent. Does not fill them: see `refill`."""
        ...

    def gives(self, table: str, indexes: Collection[str]) -> None:
        """From now on works of this node give entries of these indexes. Of a table that others have given another, an
        engine that several nodes share takes no writes until then, as an item would be missing from it."""
        ...

    async def drop(self, table: str) -> None: ...

    async def write(self, tables: Collection[str], work: Callable[[Transaction], Result]) -> Result:
        """Run `work` as one transaction over `tables`, serializable; returns when it is durable.

        What `work` raises undoes it. `work` does not block and may be run again from its start: also on what an engine
        does not know yet and takes for nothing, and what it gives or raises then is forgotten.
        """
        ...

    async def get(self, table: str, key: Key) -> bytes | None:
        """One item, as it is committed: what `read` would get, sooner."""
        ...

    async def read(self, tables: Collection[str], work: Callable[[Snapshot], Result]) -> Result:
        """Run `work` on what is committed: all that was answered before. It may be run again as in `write`."""
        ...

    def segment_of(self, hash_key: bytes, segments: int) -> int:
        """The segment of a scan that an item is in, by its hash key in the table."""
        ...

    async def refill(
        self, table: str, index: str, entry: Callable[[bytes], Entry | None], told: Callable[[int], None]
    ) -> None:
        """Build an index from the items of its table while they change, a bounded number at a time.

        Goes on where it was if it is called again after a crash. `told` is told how many items are done.
        """
        ...

    async def is_filled(self, table: str, index: str) -> bool: ...

    async def facts(self, table: str) -> Facts: ...

    async def logged(self, table: str, after: int, most: int, bytes_max: int | None = None) -> list[Logged]:
        """Records of the table's stream with higher numbers than `after`: the first `most` of them.

        If these would have more bytes than `bytes_max`, they are fewer, but one at least. Readers go on behind the last
        one that they saw: none may come to be seen later that has a lower number.
        """
        ...

    async def last_logged(self, table: str) -> int:
        """The number of the stream's last record, also if it is forgotten; 0 if there never was one."""
        ...

    async def trim(self, table: str, before: float) -> None:
        """Forget records of the stream that are older than a time (seconds since 1970)."""
        ...

    def alone(self, what: str) -> AbstractAsyncContextManager[bool]:
        """Whether this is the node that does a task, which is for one at a time; until the context ends."""
        ...

    async def close(self) -> None: ...
