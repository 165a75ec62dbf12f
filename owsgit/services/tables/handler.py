"""Makes tables real on a node: their files, their indexes, and what ends of itself."""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from owsgit.model.errors import InvalidError, OwsgitError, Problem, UnavailableError
from owsgit.model.housing import home_of
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site, Told
from owsgit.services.tables import FOLDER, KIND
from owsgit.services.tables.catalog import Catalog, Table, table_of
from owsgit.services.tables.dynamodb import DynamoDb
from owsgit.services.tables.expiry import Expiry
from owsgit.services.tables.source import TableSource
from owsgit.services.tables.spec import TableSpec
from owsgit.services.tables.stream_api import DynamoDbStreams
from owsgit.services.tables.streams import Stream, following, kept

log = logging.getLogger("owsgit.tables")

TOPIC = "tables"
"""Under which nodes ask each other how many items a table has, and which streams there are."""


class TableHandler:
    """The handler of tables. Only the node that a table is on has a file of it; all know what it is."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = site.home / FOLDER
        self._catalog = Catalog(site.scope, KIND.arn, edit=site.edit)
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._failed: set[tuple[str, str]] = set()
        self._expiry = Expiry(self._catalog)
        self.apis = (DynamoDb(self._catalog), DynamoDbStreams(self._catalog, self._streams_elsewhere))
        site.sources[KIND.name] = TableSource(self._catalog)
        site.neighbours.answer(TOPIC, self._answer_neighbour)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec, name = resource.spec, resource.name
        assert isinstance(spec, TableSpec)
        home = self._home(spec)
        if home is not None:
            self._catalog.tables[name] = table_of(name, spec, home)
            return Applied(f"on node {home}")
        await self._stop_building(name)
        engine = self._engine()
        record = _Record(self._folder, name)
        created = record.check(spec)
        table = table_of(name, spec, None, created)
        served = self._catalog.tables.get(name)
        if served is not None:  # what goes is out of use before it is gone
            left = {each: index for each, index in served.indexes.items() if each in table.indexes}
            self._catalog.tables[name] = replace(served, indexes=left)
        await engine.create(name, list(table.indexes))
        streams = following(record.streams, table.view, await engine.last_logged(name), time.time())
        table = replace(table, streams=streams)
        if created is None or streams != record.streams:  # on the disk before anything is written into a new stream
            record.write(spec, table.created, streams)
        self._catalog.tables[name] = table
        unfilled = [index for index in table.indexes if not await engine.is_filled(name, index)]
        if unfilled:
            for index in unfilled:
                self._catalog.building[name, index] = 0
            self._builds[name] = asyncio.ensure_future(self._build(table, unfilled))
        self._expiry.start()
        return Applied(f"builds {', '.join(unfilled)}" if unfilled and not await self._is_empty(name) else "")

    def _home(self, spec: TableSpec) -> str | None:
        """The node that a table is on; None for this one."""
        own, others = self._site.neighbours.own, self._site.neighbours.others()
        home = home_of(spec, [own, *others]) if others else own
        return None if home in (own, None) else home

    def _engine(self) -> Any:
        if self._catalog.opened is None:
            from owsgit.services.tables.sqlite import SqliteEngine  # noqa: PLC0415 - for nodes that have tables

            self._catalog.opened = SqliteEngine(self._folder)
        engine: Any = self._catalog.opened
        engine.relaxed = self._site.engines().tables.durability == "relaxed"
        return engine

    async def _is_empty(self, name: str) -> bool:
        return (await self._catalog.engine.facts(name)).items == 0

    async def _build(self, table: Table, indexes: list[str]) -> None:
        """Fill indexes from the items, one after the other."""
        for index in indexes:
            place = (table.name, index)

            def told(done: int, place: tuple[str, str] = place) -> None:
                self._catalog.building[place] = done

            try:
                await self._catalog.engine.refill(table.name, index, table.entry(index), told)
            except Exception as error:  # whatever it is: it is told, and tried again
                log.error("%s: the index %s could not be built", table.name, index, exc_info=error)
                self._failed.add(place)
            else:
                self._failed.discard(place)
                self._catalog.building.pop(place, None)

    async def _stop_building(self, name: str) -> None:
        task = self._builds.pop(name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for place in [place for place in self._catalog.building if place[0] == name]:
            del self._catalog.building[place]
        self._failed = {place for place in self._failed if place[0] != name}

    async def delete(self, name: str) -> None:
        """Items are never removed by this: a table that has some is not served any more, and its file stays."""
        await self._stop_building(name)
        table = self._catalog.tables.pop(name, None)
        record = _Record(self._folder, name)
        if (table is not None and table.home is not None) or not record.path.exists():
            return
        engine = self._engine()
        items = (await engine.facts(name)).items
        if items and name not in self._catalog.dropping:
            raise InvalidError(
                f"the table {name} has {items:,} items, and is not deleted with them; nobody can reach them now",
                remedy=f"put tables/{name}.json back to have the table with its items again; "
                "to lose them, delete the items first, then the file",
            )
        record.path.unlink(missing_ok=True)
        await engine.drop(name)

    async def keeps(self, resource: Resource) -> Problem | None:
        """A table that has items. Its node is asked, if it is another."""
        table = self._catalog.tables.get(resource.name)
        if table is None:
            return None
        try:
            items = await self._items(table)
        except OwsgitError as error:
            log.info("%s: whether it has items is not known: %s", table.name, error)
            return None
        if not items:
            return None
        return Problem(
            f"the table has {items:,} items, and is not deleted with them",
            resource.file,
            remedy="delete the items first, then the file",
        )

    async def _items(self, table: Table) -> int:
        if table.home is None:
            return (await self._catalog.engine.facts(table.name)).items
        answer = await self._site.neighbours.ask(table.home, TOPIC, Told({"table": table.name}))
        return int(answer.fields["items"])

    async def _streams_elsewhere(self) -> list[tuple[str, str]]:
        """Tables and labels of the streams that other nodes have. Raises OwsgitError if one of them does not answer."""
        homes = sorted({table.home for table in self._catalog.tables.values() if table.home is not None})
        found: list[tuple[str, str]] = []
        for home in homes:
            answer = await self._site.neighbours.ask(home, TOPIC, Told({"streams": True}))
            found += [(str(table), str(label)) for table, label in answer.fields["streams"]]
        return found

    async def _answer_neighbour(self, node: str, told: Told) -> Told:
        """How many items a table has that is here, or which streams are. Raises OwsgitError if it is not."""
        if told.fields.get("streams") is True:
            here = [(each.name, kept(each.streams, time.time())) for each in self._catalog.here()]
            return Told({"streams": [[name, stream.label] for name, streams in here for stream in streams]})
        table = self._catalog.tables.get(str(told.fields.get("table")))
        if table is None or table.home is not None:
            raise UnavailableError("the table is not on this node")
        return Told({"items": await self._items(table)})

    async def observe(self, resource: Resource) -> str | None:
        """A build of an index that ended before its end is drift: it is begun again where it was."""
        name = resource.name
        table = self._catalog.tables.get(name)
        if table is None:
            return "the table is not served"
        assert isinstance(resource.spec, TableSpec)
        if table.home != self._home(resource.spec):
            return "the table is on another node than it was"
        if table.home is None:
            self._engine()  # whose settings may have changed
        failed = [index for place, index in self._failed if place == name]
        return f"the index {failed[0]} is not built" if failed else None

    def details(self, name: str) -> Mapping[str, Any]:
        table = self._catalog.tables.get(name)
        if table is None or table.home is not None:
            return {}
        building = {
            index: f"building, {done:,} items done"
            for (place, index), done in self._catalog.building.items()
            if place == name
        }
        return {"indexes": building} if building else {}

    async def close(self) -> None:
        for name in list(self._builds):
            await self._stop_building(name)
        await self._expiry.stop()
        if self._catalog.opened is not None:
            await self._catalog.opened.close()
            self._catalog.opened = None


class _Record:
    """What a table's file was made for, beside it: keys of items in a file cannot mean something else later. And the
    table's streams, once it was read."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.key.json"
        self.streams: tuple[Stream, ...] = ()

    def check(self, spec: TableSpec) -> float | None:
        """When the table was made; None if it is not yet. Raises InvalidError if its items have other keys."""
        try:
            known = json.loads(self.path.read_text())
            key, created = known["key"], float(known["created"])
            self.streams = tuple(Stream(**each) for each in known.get("streams", ()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self.path} cannot be read: {error}", remedy="restore it from a backup") from None
        if key != _key(spec):
            raise InvalidError(
                f"this node has items of a former table of that name, with the key {_shown(key)}",
                path="$.keySchema",
                remedy="write that key to have them again, or choose another name for the new table",
            )
        return created

    def write(self, spec: TableSpec, created: float, streams: Sequence[Stream]) -> None:
        scratch = self.path.with_suffix(".new")
        told = {"key": _key(spec), "created": created, "streams": [each.document() for each in streams]}
        with scratch.open("w") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)


def _key(spec: TableSpec) -> list[list[str]]:
    return [
        [element.attribute_name, element.key_type, spec.type_of(element.attribute_name)] for element in spec.key_schema
    ]


def _shown(key: list[list[str]]) -> str:
    return ", ".join(f"{name} ({kind}, {type_})" for name, kind, type_ in key)
