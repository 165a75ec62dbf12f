"""How tables lie in a PostgreSQL database, and how they get there.

All is in one schema of a project. A table is known by a number, of which the names of its relations are made: its items
under a digest of their hash key and the range key, and its stream; an index has a number and a relation of its own, of
entries that refer to items. Names that users choose are only ever values.

Digests, as an entry of a B-tree has at most a third of a page: a hash key of 2,048 bytes does not go with a range key.
So the order of hash keys is that of their digests, and segments of a scan are ranges of them.

A table has a generation, which rises as its indexes change. Whoever writes holds the table's lock with others; whoever
changes its indexes holds it alone. Counts are in rows of their own for each of some `SHARDS`, as each commit changes
one of them, and would otherwise wait for every other.
"""

import re
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b

from owsgit.model.errors import UnavailableError
from owsgit.services.tables.engine import Key
from owsgit.services.tables.postgresql_connections import Connection, Connections

VERSION = 1
"""Of the relations below."""
SHARDS = 64
SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE {schema}.about (
  one bool PRIMARY KEY CHECK (one), version int NOT NULL, project text NOT NULL, identity text NOT NULL
);
CREATE TABLE {schema}.tables (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, generation bigint NOT NULL,
  commit text NOT NULL, label bytea NOT NULL
);
CREATE TABLE {schema}.indexes (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, table_id int NOT NULL REFERENCES {schema}.tables ON DELETE CASCADE,
  name text NOT NULL, filled bool NOT NULL, done bigint NOT NULL, place bytea, range bytea, UNIQUE (table_id, name)
);
CREATE TABLE {schema}.counts (
  table_id int NOT NULL REFERENCES {schema}.tables ON DELETE CASCADE, index_id int NOT NULL, shard int NOT NULL,
  items bigint NOT NULL, bytes bigint NOT NULL, PRIMARY KEY (table_id, index_id, shard)
) WITH (fillfactor = 50);
CREATE TABLE {schema}.streams (
  table_id int PRIMARY KEY REFERENCES {schema}.tables ON DELETE CASCADE, number bigint NOT NULL,
  at double precision NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE {schema}.tokens (token bytea PRIMARY KEY, digest bytea NOT NULL, until double precision NOT NULL);
CREATE INDEX expiring ON {schema}.tokens (until);
"""

_TABLE = """
CREATE TABLE {schema}.items_{id} (
  place bytea NOT NULL, range bytea NOT NULL, hash bytea NOT NULL, entries bytea NOT NULL, item bytea NOT NULL,
  PRIMARY KEY (place, range)
);
CREATE TABLE {schema}.stream_{id} (number bigint PRIMARY KEY, at double precision NOT NULL, record bytea NOT NULL);
INSERT INTO {schema}.streams VALUES ({id}, 0, 0);
"""

_INDEX = """
CREATE TABLE {schema}.entries_{id} (
  hash bytea NOT NULL, range bytea NOT NULL, tie bytea NOT NULL, place bytea NOT NULL, key_range bytea NOT NULL,
  PRIMARY KEY (hash, range, tie)
);
"""


Label = Callable[[bytes, int], bytes]


def unlabelled(label: bytes, last: int) -> bytes:
    """Leaves a label as it is."""
    return label


@dataclass(frozen=True)
class Shape:
    """What a table is here. `indexes`: their numbers, by name."""

    id: int
    generation: int
    indexes: dict[str, int]
    commit: str
    label: bytes


def lock(*parts: bytes) -> int:
    """The number of an advisory lock."""
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return int.from_bytes(blake2b(text, digest_size=8, person=b"owsgit-tables").digest(), "big", signed=True)


class Schema:
    """The relations of one project in a database. What it knows of tables may be old: see `generation`."""

    def __init__(self, name: str, project: str, identity: str) -> None:
        """`name` is a SCHEMA; `project` tells projects apart that came to have the same by mistake. `identity`: of the
        schema in its database, '' if it is not known yet."""
        assert SCHEMA.fullmatch(name)
        self.name = f'"{name}"'
        self._lock = name.encode()
        self._project = project
        self._shapes: dict[str, Shape] = {}
        self.identity = identity
        """It goes along when the schema is copied to another server."""

    def items(self, shape: Shape) -> str:
        return f"{self.name}.items_{shape.id:d}"

    def stream(self, shape: Shape) -> str:
        return f"{self.name}.stream_{shape.id:d}"

    def entries(self, id_: int) -> str:
        return f"{self.name}.entries_{id_:d}"

    def table_lock(self, table: str) -> int:
        return lock(self._lock, b"table", table.encode())

    def key_lock(self, shape: Shape, key: Key) -> int:
        return lock(self._lock, b"key", b"%d" % shape.id, *key)

    def token_lock(self, token: bytes) -> int:
        return lock(self._lock, b"token", token)

    def task_lock(self, what: str) -> int:
        return lock(self._lock, b"task", what.encode())

    # -- the schema itself ------------------------------------------------------------------------------------------

    async def check(self, connection: Connection) -> None:
        """Have it there. Raises UnavailableError for another version or project, or another database than before."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock(self._lock, b"schema"))
            there = await connection.fetchval("SELECT to_regclass($1)", f"{self.name}.about") is not None
            if not there and self.identity:
                raise self._other_database("nothing of this project")
            if not there:
                await connection.execute(_SCHEMA.format(schema=self.name))
                await connection.execute(
                    f"INSERT INTO {self.name}.about VALUES (true, $1, $2, $3)",  # noqa: S608 - a checked name
                    VERSION,
                    self._project,
                    uuid.uuid4().hex,
                )
            [(version, project, identity)] = await connection.fetch(
                f"SELECT version, project, identity FROM {self.name}.about"  # noqa: S608 - as above
            )
        if version != VERSION:
            raise UnavailableError(
                f"the schema {self.name} of the database has the format {version}, not {VERSION}",
                remedy="use the owsgit that wrote it",
            )
        if project != self._project:
            raise UnavailableError(
                f"the schema {self.name} of the database is of another project, with the account {project}",
                remedy='name another: "schema" beside the "type" in project.json',
            )
        if self.identity not in ("", identity):
            raise self._other_database("other tables of this project")
        self.identity = identity

    def _other_database(self, what: str) -> UnavailableError:
        return UnavailableError(
            f"the database is not the one that this node used before: the schema {self.name} there has {what}",
            remedy="name the former one in project.json, or copy its schema there (pg_dump, pg_restore); to begin anew "
            "without the items, remove data/tables/postgresql.json from the home of each node, and restart it",
        )

    # -- what tables there are --------------------------------------------------------------------------------------

    async def shapes(self, connection: Connection, tables: Iterable[str]) -> dict[str, Shape]:
        """Those of the tables that are there."""
        lacking = [table for table in tables if table not in self._shapes]
        if lacking:
            rows = await connection.fetch(
                "SELECT t.id, t.name, t.generation, t.commit, t.label, i.id AS index_id, i.name AS index"  # noqa: S608
                f" FROM {self.name}.tables t LEFT JOIN {self.name}.indexes i ON i.table_id = t.id"
                " WHERE t.name = ANY($1)",
                lacking,
            )
            for row in rows:
                shape = self._shapes.setdefault(
                    row["name"], Shape(row["id"], row["generation"], {}, row["commit"], row["label"])
                )
                if row["index"] is not None:
                    shape.indexes[row["index"]] = row["index_id"]
        return {table: self._shapes[table] for table in tables if table in self._shapes}

    async def shape(self, connection: Connection, table: str) -> Shape:
        """Raises UnavailableError if there is no such table."""
        found = await self.shapes(connection, [table])
        if table not in found:
            raise no_table(table)
        return found[table]

    def forget(self, tables: Iterable[str]) -> None:
        """They may have changed."""
        for table in tables:
            self._shapes.pop(table, None)

    # -- changes ----------------------------------------------------------------------------------------------------

    async def create(
        self, connections: Connections, table: str, indexes: Collection[str], commit: str, label: Label
    ) -> None:
        async with connections.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", self.table_lock(table))
            await self._create(connection, table, set(indexes), commit, label)
        self.forget([table])

    async def _create(self, connection: Connection, table: str, wanted: set[str], commit: str, label: Label) -> None:
        schema = self.name
        row = await connection.fetchrow(
            f"SELECT id, label, number FROM {schema}.tables JOIN {schema}.streams ON table_id = id WHERE name = $1",  # noqa: S608
            table,
        )
        former = row["label"] if row is not None else b""
        new = label(former, row["number"] if row is not None else 0)
        if row is not None:
            id_ = row["id"]
        else:
            id_ = await connection.fetchval(
                f"INSERT INTO {schema}.tables (name, generation, commit, label) VALUES ($1, 0, $2, $3) RETURNING id",  # noqa: S608
                table,
                commit,
                new,
            )
            await connection.execute(_TABLE.format(schema=schema, id=int(id_)))
        rows = await connection.fetch(f"SELECT id, name FROM {schema}.indexes WHERE table_id = $1", id_)  # noqa: S608
        there = {row["name"]: row["id"] for row in rows}
        for name in sorted(there.keys() - wanted):
            await connection.execute(f"DROP TABLE {self.entries(there[name])}")
            for of, column in (("indexes", "id"), ("counts", "index_id")):
                await connection.execute(f"DELETE FROM {schema}.{of} WHERE {column} = $1", there[name])  # noqa: S608
        for name in sorted(wanted - there.keys()):
            index = await connection.fetchval(
                f"INSERT INTO {schema}.indexes (table_id, name, filled, done)"  # noqa: S608 - a number of our own
                f" VALUES ($1, $2, NOT EXISTS (SELECT 1 FROM {schema}.items_{id_:d}), 0) RETURNING id",
                id_,
                name,
            )
            await connection.execute(_INDEX.format(schema=schema, id=int(index)))
        if there.keys() != wanted or (row is not None and new != former):
            await connection.execute(
                f"UPDATE {schema}.tables SET generation = generation + 1, commit = $2, label = $3 WHERE id = $1",  # noqa: S608
                id_,
                commit,
                new,
            )

    async def drop(self, connections: Connections, table: str, *, unless_items: bool = False) -> int:
        """How many items the table has, if it is left for that."""
        async with connections.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", self.table_lock(table))
            self.forget([table])
            shape = (await self.shapes(connection, [table])).get(table)
            if shape is not None and unless_items:
                items = await connection.fetchval(
                    f"SELECT sum(items)::bigint FROM {self.name}.counts WHERE table_id = $1 AND index_id = 0",  # noqa: S608
                    shape.id,
                )
                if items:
                    return int(items)
            if shape is not None:
                gone = [self.items(shape), self.stream(shape), *map(self.entries, shape.indexes.values())]
                await connection.execute(f"DROP TABLE {', '.join(gone)}")
                await connection.execute(f"DELETE FROM {self.name}.tables WHERE id = $1", shape.id)  # noqa: S608
        self.forget([table])
        return 0


class AbsentError(UnavailableError):
    """A table or an index that is not there, as far as is known."""


def no_table(table: str) -> AbsentError:
    return AbsentError(f"the database does not have the table {table}", remedy="wait until it is made")


def no_index(table: str, index: str) -> AbsentError:
    return AbsentError(f"the table {table} has no index {index} in the database", remedy="wait until it is made")
