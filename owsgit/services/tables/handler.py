"""Makes tables real on a node: where their items are, their indexes, and what ends of itself."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from owsgit.aws.further import Shared
from owsgit.model.errors import InvalidError, OwsgitError, Problem, UnavailableError
from owsgit.model.housing import home_of
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site, Told
from owsgit.services.tables import FOLDER, KIND
from owsgit.services.tables.catalog import Catalog, Table, table_of
from owsgit.services.tables.dynamodb import DynamoDb
from owsgit.services.tables.engine import Engine
from owsgit.services.tables.expiry import Expiry
from owsgit.services.tables.facts import READS, Facts
from owsgit.services.tables.keeping import FileRecord, Keeping, make
from owsgit.services.tables.source import TableSource
from owsgit.services.tables.spec import TableSpec
from owsgit.services.tables.stream_api import DynamoDbStreams
from owsgit.services.tables.streams import following, kept

log = logging.getLogger("owsgit.tables")

FURTHER = "owsgit.services.tables.beside:BesideDynamoDb"
"""What answers in further processes of the node."""

TOPIC = "tables"
"""Under which nodes ask each other how many items a table has, and which streams there are."""


class TableHandler:
    """The handler of tables. All nodes know what a table is; the one that it is on has a file of it, or, where a server
    has the items, all serve them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = site.home / FOLDER
        self._catalog = Catalog(site.scope, KIND.arn, edit=site.edit)
        self._keeping = Keeping(site, self._folder)
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._failed: set[tuple[str, str]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._expiry = Expiry(self._catalog)
        self.apis = (DynamoDb(self._catalog), DynamoDbStreams(self._catalog, self._streams_elsewhere))
        self._in_files: set[str] = set()  # tables that were made in a file
        self._facts = Facts(self._catalog, lambda name: name in self._in_files and self._keeping.is_file(name))
        self.shared = Shared(FURTHER, READS, self._facts.all, self._facts.answer, lambda: self._facts.any_file)
        site.sources[KIND.name] = TableSource(self._catalog, self._reader)
        site.neighbours.answer(TOPIC, self._answer_neighbour)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec, name = resource.spec, resource.name
        assert isinstance(spec, TableSpec)
        home = self._home(spec)
        if home is not None:
            await self._serve(table_of(name, spec, home))
            return Applied(f"on node {home}")
        await self._stop_building(name)
        table = table_of(name, spec, None)
        served = self._catalog.tables.get(name)
        if served is not None:  # what goes is out of use before it is gone
            left = {each: index for each, index in served.indexes.items() if each in table.indexes}
            await self._serve(replace(served, indexes=left))
        chosen = self._keeping.chosen()
        engine: Engine
        if chosen is None:
            engine = files = self._keeping.sqlite()
            files.on_behind(self._behind)
            await self._use(engine)
            table = await self._make(engine, table)
            self._in_files.add(name)
        else:
            engine = shared = self._keeping.postgresql(chosen)
            await self._use(engine)
            self._in_files.discard(name)
            table = await make(shared, self._site, resource, table, commit)
            self._keeping.remember(await shared.identity())
        unfilled = [index for index in table.indexes if not await engine.is_filled(name, index)]
        self._catalog.building.update(((name, index), 0) for index in unfilled)
        self._catalog.tables[name] = table
        engine.gives(name, list(table.indexes))
        await self._tell(name)
        self._expiry.start()
        is_short = bool(unfilled) and chosen is None and await self._is_empty(name)
        if unfilled:
            self._builds[name] = building = asyncio.ensure_future(self._build(table, unfilled))
        if is_short:
            await asyncio.wait([building])
        elif unfilled:  # told once, not kept: status has how far it is, until it is done
            told = f"builds {', '.join(unfilled)} in the background: owsgit status tells how far it is"
            self._site.report(resource.key, told)
        return Applied()

    async def _use(self, engine: Engine) -> None:
        """Have it keep the items of all tables that are here, also of those that are yet to be applied again."""
        if self._catalog.opened is not engine:
            self._catalog.opened = engine
            await self._tell(*self._catalog.tables)

    async def _serve(self, table: Table) -> None:
        self._catalog.tables[table.name] = table
        await self._tell(table.name)

    async def _tell(self, *names: str) -> None:
        """Have further processes know what tables are now."""
        told = {name: self._facts.of(name) for name in names}
        serial = self._facts.serial
        await self._site.processes.tell(FURTHER, told)
        for name in names:
            self._facts.settle(name, serial)

    def _behind(self) -> None:
        """Tables cannot be used, or can again."""
        task = asyncio.ensure_future(self._tell(*self._catalog.tables))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _make(self, engine: Engine, table: Table) -> Table:
        """Have a table that is on this node."""
        record = FileRecord(self._folder, table.name)
        created = record.check(table.spec)
        await engine.create(table.name, list(table.indexes))
        streams = following(record.streams, table.view, await engine.last_logged(table.name), time.time())
        made = replace(table, created=table.created if created is None else created, streams=streams)
        if created is None or streams != record.streams:  # on the disk before anything is written into a new stream
            record.write(made)
        return made

    def _home(self, spec: TableSpec) -> str | None:
        """The node that a table is on; None for this one, and where all serve it."""
        if self._keeping.chosen() is not None:
            return None
        own, others = self._site.neighbours.own, self._site.neighbours.others()
        home = home_of(spec, [own, *others]) if others else own
        return None if home in (own, None) else home

    def _reader(self, table: Table) -> str | None:
        """The node that feeds functions from a table; None for this one. One of them, also where all serve it."""
        if table.home is not None or self._keeping.chosen() is None:
            return table.home
        own = self._site.neighbours.own
        reader = table.spec.node or min([own, *self._site.neighbours.others()])
        return None if reader == own else reader

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
                await self._tell(table.name)

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
        self._in_files.discard(name)
        await self._tell(name)
        if table is not None and table.home is not None:
            return
        record = FileRecord(self._folder, name)
        chosen = self._keeping.chosen()
        if record.path.exists():
            engine = self._keeping.sqlite()
            items = 0
            if name in self._catalog.dropping:
                record.path.unlink(missing_ok=True)
                await engine.drop(name)
            else:
                items = await engine.drop_empty(name, lambda: record.path.unlink(missing_ok=True))
        elif chosen is not None:
            items = await self._keeping.postgresql(chosen).drop_empty(name)
            if not items and not self._catalog.tables:
                self._keeping.forget()
        else:
            return
        if items:
            raise InvalidError(
                f"the table {name} has {items:,} items, and is not deleted with them; nobody can reach them now",
                remedy=f"put tables/{name}.json back to have the table with its items again; "
                "to lose them, delete the items first, then the file",
            )

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
        await self._keeping.look()
        name = resource.name
        table = self._catalog.tables.get(name)
        if table is None:
            return "the table is not served"
        assert isinstance(resource.spec, TableSpec)
        if table.home != self._home(resource.spec):
            return "the table is on another node than it was"
        failed = [index for place, index in self._failed if place == name]
        return f"the index {failed[0]} is not built" if failed else None

    def details(self, name: str) -> Mapping[str, Any]:
        table = self._catalog.tables.get(name)
        if table is None:
            return {}
        if table.home is not None:
            return {"home": table.home}
        building = {
            index: f"building, {done:,} items done"
            for (place, index), done in self._catalog.building.items()
            if place == name
        }
        found: dict[str, Any] = {"indexes": building} if building else {}
        return found | ({"problem": problem} if (problem := self._keeping.problem) else {})

    async def close(self) -> None:
        for name in list(self._builds):
            await self._stop_building(name)
        await self._expiry.stop()
        self._catalog.opened = None
        await self._keeping.close()
