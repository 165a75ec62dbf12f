"""The engines that tests of the contract run against."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from owsgit.services.tables import attempts
from owsgit.services.tables.engine import Engine, Position
from owsgit.services.tables.postgresql import PostgresqlEngine
from owsgit.services.tables.sqlite import SqliteEngine
from tests.services.tables.api import PLAIN, WHOLE, Tables, TablesBeside
from tests.support.postgresql import Server

ENGINES = ["sqlite", "postgresql"]
_schemas = itertools.count()


class Opens(NamedTuple):
    """Opens the same tables as the last time; at most one engine is open at a time."""

    make: Callable[[], Engine]
    order: Callable[[Position, str], Any]
    """The place of something in a table or, by name, an index."""

    def __call__(self) -> Engine:
        return self.make()


def opening(kind: str, folder: Path, postgresql: Callable[[], Server]) -> Opens:
    """An engine with no tables."""
    if kind == "sqlite":
        return Opens(lambda: SqliteEngine(folder), lambda position, _: position)
    address, schema = postgresql().address, f"tables_{next(_schemas)}"
    return Opens(lambda: PostgresqlEngine(lambda: address, schema=schema), attempts.order)


@pytest.fixture(params=ENGINES)
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    return opening(request.param, tmp_path / "tables", lambda: request.getfixturevalue("postgresql"))


@pytest.fixture(params=[*ENGINES, "beside"])
def everywhere(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tables]:
    """The API over each engine, and as a further process of a node has it, with the tables `whole` and `plain`."""
    if request.param == "beside":
        made: Tables = TablesBeside(tmp_path)
    else:
        made = Tables(tmp_path, opening(request.param, tmp_path, lambda: request.getfixturevalue("postgresql")))
    made.add("whole", WHOLE)
    made.add("plain", PLAIN)
    yield made
    made.close()
