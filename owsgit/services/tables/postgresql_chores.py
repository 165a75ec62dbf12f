"""What takes long in a PostgreSQL database, by bounded steps: building an index, forgetting a stream's records."""

from collections.abc import Callable
from dataclasses import dataclass, field

from owsgit.services.tables.attempts import Progress, Writing
from owsgit.services.tables.engine import Entry, Key
from owsgit.services.tables.postgresql_connections import Connection
from owsgit.services.tables.postgresql_schema import Schema, Shape, no_index

REFILL_ITEMS = 200
REFILL_BYTES = 1 << 20
"""Items that one step of building an index goes through, about."""
CHUNK = 1000
"""Records that one step of forgetting goes through."""


@dataclass
class Step:
    """How far an index is built, and the keys of the items that are next; `last`: there are no more."""

    table: str
    index: str
    id: int
    done: int
    filled: bool
    position: tuple[bytes, bytes] | None  # of the last one that is done
    keys: list[Key] = field(default_factory=list)
    last: bool = False

    def make(self, work: Writing, entry: Callable[[bytes], Entry | None]) -> tuple[int, bool]:
        """The step, as a work. Items that were changed since have their entry already."""
        for key in self.keys:
            work.enter(self.table, key, self.id, entry)
        done = self.done + len(self.keys)
        work.progress(self.id, Progress(done, self.last, self.keys[-1] if self.keys else None))
        return done, self.last


async def progress(connection: Connection, schema: Schema, shape: Shape, table: str, index: str) -> Step:
    """Raises UnavailableError if there is no such index."""
    row = await connection.fetchrow(
        f"SELECT id, done, filled, place, range FROM {schema.name}.indexes WHERE table_id = $1 AND name = $2",  # noqa: S608
        shape.id,
        index,
    )
    if row is None:
        schema.forget([table])
        raise no_index(table, index)
    position = (row["place"], row["range"]) if row["place"] is not None else None
    return Step(table, index, row["id"], row["done"], row["filled"], position)


async def refill(connection: Connection, schema: Schema, shape: Shape, table: str, index: str) -> Step:
    """The next step."""
    step = await progress(connection, schema, shape, table, index)
    if step.filled:
        return step
    where = "WHERE (place, range) > ($1, $2)" if step.position is not None else ""
    rows = await connection.fetch(
        f"SELECT hash, range, octet_length(item) FROM {schema.items(shape)} {where}"  # noqa: S608 - text of our own
        f" ORDER BY place, range LIMIT {REFILL_ITEMS:d}",
        *(step.position or ()),
    )
    size = 0
    for hash_, range_, length in rows:
        step.keys.append(Key(hash_, range_))
        size += length
        if size > REFILL_BYTES:
            return step
    step.last = len(rows) < REFILL_ITEMS
    return step


async def trim(connection: Connection, schema: Schema, shape: Shape, before: float) -> bool:
    """Forget some records of the stream that are older than a time; whether there may be more."""
    stream = schema.stream(shape)
    rows = await connection.fetch(f"SELECT number, at FROM {stream} ORDER BY number LIMIT {CHUNK:d}")  # noqa: S608
    old = [number for number, at in rows if at < before]
    if old:
        await connection.execute(f"DELETE FROM {stream} WHERE number <= $1", old[-1])  # noqa: S608 - as above
    return len(old) == CHUNK
