"""What a statement says. Values in it are literals or placeholders of its parameters: :0, :1 and so on."""

from dataclasses import dataclass
from typing import NamedTuple

from owsgit.services.tables.expressions.condition import Tree
from owsgit.services.tables.expressions.operands import Literal, Steps, Value, at
from owsgit.services.tables.expressions.update import Clause
from owsgit.services.tables.values import Item


@dataclass(frozen=True)
class Source:
    """A table or, for reading, an index of it."""

    table: str
    index: str | None = None


class Columns:
    """What a SELECT shows of an item: what lies at paths, each under the last name of its path."""

    def __init__(self, paths: tuple[Steps, ...]) -> None:
        self.paths = paths
        self._getters = [(_column(path), at(path)) for path in paths]

    def names(self) -> list[str]:
        """The attributes that are shown, or parts of which are, in their order."""
        return list(dict.fromkeys(str(path[0]) for path in self.paths))

    def of(self, item: Item) -> Item:
        return {name: value for name, get in self._getters if (value := get(item)) is not None}


def _column(path: Steps) -> str:
    last = max(place for place, step in enumerate(path) if isinstance(step, str))
    return str(path[last]) + "".join(f"[{step}]" for step in path[last + 1 :])


class Order(NamedTuple):
    """One attribute of an ORDER BY."""

    attribute: str
    backwards: bool


class Select(NamedTuple):
    """`columns`: None for all."""

    source: Source
    columns: Columns | None
    where: Tree | None
    order: tuple[Order, ...] = ()


class Insert(NamedTuple):
    source: Source
    item: tuple[tuple[str, Literal | Value], ...]


class Change(NamedTuple):
    """An UPDATE. `returning`: a ReturnValues, NONE without the clause."""

    source: Source
    clauses: tuple[Clause, ...]
    where: Tree | None
    returning: str = "NONE"


class Delete(NamedTuple):
    source: Source
    where: Tree | None
    returning: str = "NONE"


class Exists(NamedTuple):
    """A condition of a transaction."""

    select: Select

    @property
    def source(self) -> Source:
        return self.select.source


Statement = Select | Insert | Change | Delete | Exists
