"""The tables of a node: what each of them is, in the form in which requests need it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from owsgit.aws.api import ServiceError
from owsgit.model.names import Scope
from owsgit.model.service import Edit
from owsgit.services.tables.engine import Engine, Entry
from owsgit.services.tables.keys import Attribute, KeySchema, entry_of
from owsgit.services.tables.spec import GlobalIndexSpec, KeyElement, LocalIndexSpec, TableSpec
from owsgit.services.tables.streams import Stream
from owsgit.services.tables.values import Item, load


class TableNotFoundError(ServiceError):
    """AWS's ResourceNotFoundException, as for items."""

    def __init__(self, message: str = "Requested resource not found") -> None:
        super().__init__("ResourceNotFoundException", message)


@dataclass(frozen=True)
class Index:
    """An index of a table. `shown`: the attributes that it shows beside all keys; None for all."""

    name: str
    schema: KeySchema
    is_global: bool
    shown: frozenset[str] | None
    spec: LocalIndexSpec

    def project(self, item: Item) -> Item:
        """What the index shows of an item."""
        if self.shown is None:
            return item
        return {name: value for name, value in item.items() if name in self.shown}


@dataclass(frozen=True)
class Table:
    """A table that is served. `home`: the node that keeps its items; None for this one."""

    name: str
    spec: TableSpec
    schema: KeySchema
    indexes: Mapping[str, Index]
    home: str | None
    created: float = 0.0  # seconds since 1970
    streams: tuple[Stream, ...] = ()  # in their order; those that ended are told of for a day

    @property
    def stream(self) -> Stream | None:
        """The one that records go to."""
        return self.streams[-1] if self.streams and self.streams[-1].is_open else None

    @property
    def ends(self) -> str | None:
        """The attribute that says when an item ends."""
        ends = self.spec.time_to_live
        return ends.attribute_name if ends is not None and ends.enabled else None

    @property
    def view(self) -> str | None:
        """What the table's stream shows of items; None without a stream."""
        stream = self.spec.stream_specification
        return stream.stream_view_type if stream is not None and stream.stream_enabled else None

    @property
    def has_local_indexes(self) -> bool:
        return bool(self.spec.local_secondary_indexes)

    def entries(self, item: Item, *, update: bool = False) -> list[Entry]:
        """Where an item stands in the indexes. Raises ValidationError for bad keys of indexes."""
        found = (entry_of(index.name, index.schema, item, update=update) for index in self.indexes.values())
        return [entry for entry in found if entry is not None]

    def entry(self, index: str) -> Callable[[bytes], Entry | None]:
        """For a refill of an index: an item that has no good key for it is not in it, as with AWS."""
        schema = self.indexes[index].schema

        def entry(stored: bytes) -> Entry | None:
            try:
                return entry_of(index, schema, load(stored))
            except ServiceError:
                return None

        return entry

    def key_of(self, item: Item) -> Item:
        """The key attributes of an item."""
        return {name: item[name] for name in self.schema.names()}


def table_of(name: str, spec: TableSpec, home: str | None, created: float | None = None) -> Table:
    schema = _schema(spec, spec.key_schema)
    indexes = {}
    for _, _, index in spec.indexes():
        own = _schema(spec, index.key_schema)
        is_global = isinstance(index, GlobalIndexSpec)
        shown = None
        if index.projection.projection_type != "ALL":
            shown = frozenset((*schema.names(), *own.names(), *index.projection.non_key_attributes))
        indexes[index.index_name] = Index(index.index_name, own, is_global, shown, index)
    return Table(name, spec, schema, indexes, home, time.time() if created is None else created)


def _schema(spec: TableSpec, elements: Iterable[KeyElement]) -> KeySchema:
    found: dict[str, list[Attribute]] = {"HASH": [], "RANGE": []}
    for element in elements:
        found[element.key_type].append(Attribute(element.attribute_name, spec.type_of(element.attribute_name)))
    return KeySchema(tuple(found["HASH"]), tuple(found["RANGE"]))


@dataclass
class Catalog:
    """All tables of the project, as this node has them. `engine` is there once a table is here."""

    scope: Callable[[], Scope]
    template: str  # of the ARNs of tables
    tables: dict[str, Table] = field(default_factory=dict)
    building: dict[tuple[str, str], int] = field(default_factory=dict)
    """Indexes that are being built: by table and index, how many items are done."""
    opened: Engine | None = None
    edit: Edit | None = None
    """None where tables are changed by commits alone."""
    dropping: set[str] = field(default_factory=set)
    """Tables that somebody has asked to be deleted with their items."""

    @property
    def engine(self) -> Engine:
        if self.opened is None:
            raise TableNotFoundError
        return self.opened

    def name_of(self, given: str) -> str:
        """The name of a table that is named, or given by its ARN."""
        if not given.startswith("arn:"):
            return given
        before = self.scope().arn(self.template.partition("{name}")[0], "")
        if not given.startswith(before):
            raise ServiceError(
                "AccessDeniedException", f"the table {given} is of another project or region: tables here are {before}*"
            )
        return given.removeprefix(before)

    def arn(self, name: str) -> str:
        return self.scope().arn(self.template, name)

    def stream_arn(self, name: str, label: str) -> str:
        """Of a stream of a table."""
        return f"{self.arn(name)}/stream/{label}"

    def find(self, given: str) -> Table | None:
        return self.tables.get(self.name_of(given))

    def table(self, given: str) -> Table:
        """A table by its name or ARN. Raises TableNotFoundError."""
        found = self.tables.get(given) or self.tables.get(self.name_of(given))
        if found is None:
            raise TableNotFoundError
        return found

    def here(self) -> Iterator[Table]:
        """The tables whose items this node keeps."""
        return (table for table in list(self.tables.values()) if table.home is None)


Parameters = Mapping[str, Any]
