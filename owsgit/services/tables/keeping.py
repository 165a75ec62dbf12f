"""Which engine keeps the items of a node's tables, as project.json chooses it, and what is known of tables there.

With SQLite that lies in a file beside the table's; with PostgreSQL in the database, for all nodes.
"""

import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owsgit.model.engines import PostgresqlEngine as Chosen
from owsgit.model.engines import SqliteEngine as Files
from owsgit.model.engines import check_address
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.services.tables.catalog import Table
from owsgit.services.tables.engine import Engine
from owsgit.services.tables.spec import TableSpec
from owsgit.services.tables.streams import Stream, following

if TYPE_CHECKING:  # each is for nodes that have such tables
    from owsgit.services.tables.postgresql import PostgresqlEngine
    from owsgit.services.tables.sqlite import SqliteEngine


class Keeping:
    """The engines of a node. A database is remembered: another one would have none of the items."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._site = site
        self._folder = folder
        self._remembered = folder / "postgresql.json"
        self._sqlite: SqliteEngine | None = None
        self._postgresql: dict[str, PostgresqlEngine] = {}  # by schema

    def chosen(self) -> Chosen | None:
        """The server that all nodes share, if there is one."""
        head = self._site.head()
        engine = head.project.engines.tables if head is not None else None
        return engine if isinstance(engine, Chosen) else None

    def sqlite(self) -> "SqliteEngine":
        if self._sqlite is None:
            from owsgit.services.tables.sqlite import SqliteEngine  # noqa: PLC0415 - for nodes that have such tables

            self._sqlite = SqliteEngine(self._folder)
        self._set()
        return self._sqlite

    def is_file(self, table: str) -> bool:
        """Whether the items of a table that is here are in a file, which can be read now."""
        return self.chosen() is None and self._sqlite is not None and table not in self._sqlite.behind

    def _set(self) -> None:
        files, chosen = self._site.engines().tables, self.chosen()
        if self._sqlite is not None and isinstance(files, Files):
            self._sqlite.relaxed = files.durability == "relaxed"
        if chosen is not None and chosen.schema_name in self._postgresql:
            self._postgresql[chosen.schema_name].relaxed = chosen.durability == "relaxed"

    def postgresql(self, chosen: Chosen) -> "PostgresqlEngine":
        engine = self._postgresql.get(chosen.schema_name)
        if engine is None:
            from owsgit.services.tables.postgresql import PostgresqlEngine  # noqa: PLC0415 - as above

            engine = self._postgresql[chosen.schema_name] = PostgresqlEngine(
                self._address,
                schema=chosen.schema_name,
                project=self._site.scope().account,
                identity=self._identity(),
            )
        self._set()
        return engine

    def _address(self) -> str:
        """Of the database, as the ledger says it now. Raises UnavailableError."""
        head, chosen = self._site.head(), self.chosen()
        if head is None or chosen is None:
            raise UnavailableError("the project's tables are not in PostgreSQL any more")
        if chosen.secret is None:
            assert chosen.url is not None
            return chosen.url
        secret = head.get("secret", chosen.secret)
        if secret is None:
            raise UnavailableError(f"there is no secret {chosen.secret}, which has the address of the database")
        try:
            text = self._site.unseal(secret).content.decode().strip()
            check_address(text)
        except (ValueError, OwsgitError) as error:  # the text of a UnicodeDecodeError would tell what is sealed
            why = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
            raise UnavailableError(
                f"the secret {chosen.secret} has to be the address of the tables' database: {why}",
                file=secret.file,
                remedy=f"set it anew: owsgit secret set {chosen.secret}",
            ) from None
        return text

    async def look(self) -> None:
        """Do as the project says now: how durable files are, to which address connections are."""
        self._set()
        for engine in self._postgresql.values():
            await engine.look()

    @property
    def problem(self) -> str:
        """Why the database cannot be used, as far as that is known; '' if nothing is wrong."""
        chosen = self.chosen()
        engine = self._postgresql.get(chosen.schema_name) if chosen is not None else None
        return engine.problem if engine is not None else ""

    # -- which database it was ---------------------------------------------------------------------------------------

    def _identity(self) -> str:
        try:
            return str(json.loads(self._remembered.read_text())["identity"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"{self._remembered} cannot be read: {error}", remedy="restore it, or remove it"
            ) from None

    def remember(self, identity: str) -> None:
        if self._identity() != identity:
            _write(self._remembered, {"identity": identity})

    def forget(self) -> None:
        """There are no tables any more."""
        self._remembered.unlink(missing_ok=True)

    async def close(self) -> None:
        engines: list[Engine] = [*self._postgresql.values(), *([self._sqlite] if self._sqlite is not None else [])]
        for engine in engines:
            await engine.close()


class FileRecord:
    """What is known of a table whose items are in files: its key, when it was made, its streams once it is read."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.key.json"
        self.streams: tuple[Stream, ...] = ()

    def check(self, spec: TableSpec) -> float | None:
        """When the table was made, in seconds since 1970; None if it is not yet. Raises InvalidError if its items have
        other keys."""
        try:
            created, self.streams = _made(json.loads(self.path.read_text()), spec)
            return created
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self.path} cannot be read: {error}", remedy="restore it from a backup") from None

    def write(self, table: Table) -> None:
        _write(self.path, _record(table))


async def make(engine: "PostgresqlEngine", site: Site, resource: Resource, table: Table, commit: str) -> Table:
    """Have a table with its indexes and streams in a database of several nodes; the table as it is there.

    A node that is behind the others leaves a table as it is: it would drop their new indexes. Raises InvalidError if
    there are items with other keys, UnavailableError.
    """

    def followed(label: bytes, last: int) -> Table:
        created, streams = _made(json.loads(label), table.spec) if label else (table.created, ())
        return replace(table, created=created, streams=following(streams, table.view, last, time.time()))

    shape = await engine.shape(table.name)
    if shape is not None:
        created, streams = _made(json.loads(shape.label), table.spec)
        if shape.indexes.keys() == table.indexes.keys() and followed(shape.label, 0).streams == streams:
            return replace(table, created=created, streams=streams)
        await _check_is_ahead(site, resource, shape.commit)
    await engine.create(
        table.name,
        list(table.indexes),
        commit=commit,
        label=lambda label, last: json.dumps(_record(followed(label, last))).encode(),
    )
    shape = await engine.shape(table.name)
    if shape is None:
        raise UnavailableError("another node has dropped the table", remedy="it is made again soon")
    created, streams = _made(json.loads(shape.label), table.spec)
    return replace(table, created=created, streams=streams)


async def _check_is_ahead(site: Site, resource: Resource, commit: str) -> None:
    """That this node knows of the `commit` with which a table was changed last, and applies what the head says."""
    head = site.head()
    if head is None or not commit:
        return
    current = head.get(resource.kind.name, resource.name)
    if current is None or current.version != resource.version:
        raise UnavailableError("the ledger says something newer of the table", remedy="it is applied next")
    try:
        await asyncio.to_thread(site.resource_at, resource.kind.name, resource.name, commit)
    except InvalidError:
        raise UnavailableError(
            f"the table is in the database as commit {commit[:10]} says, which this node does not have yet",
            remedy="it goes on as soon as this node has caught up: owsgit status tells how far it is",
        ) from None


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    with scratch.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _record(table: Table) -> dict[str, Any]:
    streams = [each.document() for each in table.streams]
    return {"key": _key(table.spec), "created": table.created, "streams": streams}


def _made(record: dict[str, Any], spec: TableSpec) -> tuple[float, tuple[Stream, ...]]:
    """When the table of a record was made, and its streams. Raises InvalidError if a spec has another key."""
    key, created = record["key"], float(record["created"])
    streams = tuple(Stream(**each) for each in record.get("streams", ()))
    if key != _key(spec):
        raise InvalidError(
            f"there are items of a former table of that name, with the key {_shown(key)}",
            path="$.keySchema",
            remedy="write that key to have them again, or choose another name for the new table",
        )
    return created, streams


def _key(spec: TableSpec) -> list[list[str]]:
    return [
        [element.attribute_name, element.key_type, spec.type_of(element.attribute_name)] for element in spec.key_schema
    ]


def _shown(key: list[list[str]]) -> str:
    return ", ".join(f"{name} ({kind}, {type_})" for name, kind, type_ in key)
