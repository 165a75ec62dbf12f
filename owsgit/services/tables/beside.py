"""Tables in further processes of a node: each reads the files itself, and has the node's own process write them.

There is one writer, so that all who write at once share a commit. A further process does all else: it reads a request,
checks it, and makes the work that changes an item; that goes to the writer, and what comes of it back. What tables
there are, it is told by facts.
"""

import pickle
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from owsgit.aws.further import NODE
from owsgit.model.errors import UnavailableError
from owsgit.model.names import Scope
from owsgit.services.tables import FOLDER, KIND, carried
from owsgit.services.tables.catalog import Catalog, Table
from owsgit.services.tables.dynamodb import DynamoDb
from owsgit.services.tables.engine import Engine, Entry, Transaction
from owsgit.services.tables.facts import OPERATIONS, Fact
from owsgit.services.tables.sqlite import SqliteReads
from owsgit.services.tables.sqlite_reader import Reader

Result = TypeVar("Result")


class BesideEngine(SqliteReads, Engine):
    """The engine of a further process."""

    def __init__(self, folder: Path, facts: Mapping[str, Fact], ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._facts = facts
        self._ask = ask
        self._generations: dict[str, int] = {}
        self._reader = Reader(folder, _NothingBehind(), lambda name: self._generations.get(name, 0))

    def renew(self, table: str) -> None:
        """Its file may be another one from now on."""
        before = self._generations.get(table, 0)
        self._generations[table] = before + 1
        if before:
            self._reader.prune()

    async def write(self, tables: Collection[str], work: Callable[[Transaction], Result]) -> Result:
        body = carried.dump((list(tables), work), lambda name: self._facts[name].serial)
        is_result, came = carried.load(await self._ask(body), self._table)
        if not is_result:
            raise came
        result: Result = came
        return result

    def _table(self, name: str, serial: int) -> Table:
        return self._facts[name].table

    async def create(self, table: str, indexes: Collection[str]) -> None:
        _refuse()

    def gives(self, table: str, indexes: Collection[str]) -> None:
        _refuse()

    async def drop(self, table: str) -> None:
        _refuse()

    async def refill(
        self, table: str, index: str, entry: Callable[[bytes], Entry | None], told: Callable[[int], None]
    ) -> None:
        _refuse()

    async def trim(self, table: str, before: float) -> None:
        _refuse()

    def alone(self, what: str) -> AbstractAsyncContextManager[bool]:
        _refuse()

    async def close(self) -> None:
        await self._reader.close()


def _refuse() -> NoReturn:
    raise LookupError("only the node's own process does this")


class _NothingBehind:
    """Tables that are behind are not read here at all, nor several at one moment."""

    behind: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.publishing = threading.Lock()

    def trouble(self) -> UnavailableError:
        return UnavailableError("a transaction has yet to be finished")


class BesideDynamoDb(DynamoDb):
    """The API of a further process. What it cannot answer is at home in the node's own process."""

    further = OPERATIONS

    def __init__(self, home: Path, scope: Callable[[], Scope], ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._facts: dict[str, Fact] = {}
        self._beside = BesideEngine(home / FOLDER, self._facts, ask)
        super().__init__(Catalog(scope, KIND.arn, opened=self._beside))

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        if len(parameters.get("RequestItems", ())) > 1:  # of several tables at one moment
            return NODE
        return super().home(operation, parameters)

    def learn(self, name: str, told: bytes) -> None:
        """What is known of a table from now on."""
        catalog, before = self._catalog, self._facts.get(name)
        fact: Fact | None = pickle.loads(told)  # noqa: S301 - the node's own process says it
        for place in [place for place in catalog.building if place[0] == name]:
            del catalog.building[place]
        if fact is None or before is None or before.table.created != fact.table.created:
            self._beside.renew(name)
        if fact is None:
            self._facts.pop(name, None)
            catalog.tables.pop(name, None)
            return
        self._facts[name] = fact
        catalog.building.update(((name, index), 0) for index in fact.building)
        table = fact.table
        catalog.tables[name] = table if fact.is_file or table.home is not None else replace(table, home=NODE)

    async def close(self) -> None:
        await self._beside.close()
