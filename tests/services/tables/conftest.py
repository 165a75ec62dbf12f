"""The engines that tests of the contract run against."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from owsgit.services.tables.engine import Engine
from owsgit.services.tables.sqlite import SqliteEngine

Opens = Callable[[], Engine]
"""Opens the same tables as the last time; at most one engine is open at a time."""


@pytest.fixture(params=["sqlite"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opens]:
    assert request.param == "sqlite"
    yield lambda: SqliteEngine(tmp_path / "tables")
