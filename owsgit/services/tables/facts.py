"""What the node's own process tells further ones of its tables, and the works that it takes from them."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from owsgit.aws.api import ServiceError
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.services.tables import carried
from owsgit.services.tables.catalog import Catalog, Table

PREFIX = b"DynamoDB_20120810."
READS = frozenset(PREFIX + name for name in (b"BatchGetItem", b"GetItem", b"Query", b"Scan"))
"""As X-Amz-Target names them. Connections change the process for these alone: with its way to the writer and back, a
write costs two processes half as much again as one, for a twentieth more of them in a second."""

OPERATIONS = READS | {PREFIX + name for name in (b"BatchWriteItem", b"DeleteItem", b"PutItem", b"UpdateItem")}
"""What further processes answer."""


@dataclass(frozen=True)
class Fact:
    """What a further process knows of a table. `serial` is another one after each change; `is_file`: whether its items
    are in a file of this node, which may be read."""

    table: Table
    building: tuple[str, ...]
    serial: int
    is_file: bool


class Facts:
    """What the node's own process tells of its tables, and the works that it takes."""

    def __init__(self, catalog: Catalog, is_file: Callable[[str], bool]) -> None:
        """`is_file`: whether the items of a table that is here are in a file that may be read."""
        self._catalog = catalog
        self._is_file = is_file
        self._told: dict[str, list[Fact]] = {}  # by table: what works may still go by, the newest last
        self._serial = 0

    def of(self, name: str) -> bytes:
        """What is to be told of a table, also of one that is gone. Works by what was told before are taken until
        `settle` says that nobody goes by it any more."""
        table = self._catalog.tables.get(name)
        if table is None:
            return pickle.dumps(None)
        self._serial += 1
        building = tuple(index for of, index in self._catalog.building if of == name)
        fact = Fact(table, building, self._serial, table.home is None and self._is_file(name))
        self._told.setdefault(name, []).append(fact)
        return pickle.dumps(fact)

    @property
    def serial(self) -> int:
        """Of what was told last."""
        return self._serial

    def settle(self, name: str, serial: int) -> None:
        """All go by what was told of a table up to that serial."""
        facts = self._told.pop(name, [])
        before = [fact for fact in facts if fact.serial <= serial]
        left = [*(before[-1:] if name in self._catalog.tables else ()), *facts[len(before) :]]
        if left:
            self._told[name] = left

    @property
    def any_file(self) -> bool:
        """Whether there is a table that further processes can read."""
        return any(facts[-1].is_file for facts in self._told.values())

    def all(self) -> dict[str, bytes]:
        return {name: pickle.dumps(facts[-1]) for name, facts in self._told.items() if name in self._catalog.tables}

    async def answer(self, body: bytes) -> bytes:
        """Make a work of a further process. What it raises that clients are told goes back as well."""
        came: tuple[bool, Any]
        try:
            tables, work = carried.load(body, self._table)
            came = True, await self._catalog.engine.write(tables, work)
        except (ServiceError, OwsgitError) as error:
            came = False, error
        return carried.dump(came, lambda name: 0)

    def _table(self, name: str, serial: int) -> Table:
        for fact in reversed(self._told.get(name, ())):
            if fact.serial == serial:
                return fact.table
        raise UnavailableError(f"the table {name} has just been changed", remedy="try again")
