"""One item's change, as PutItem, UpdateItem, DeleteItem and transactions make it, inside of a transaction."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from owsgit.aws.api import ServiceError
from owsgit.services.tables import records
from owsgit.services.tables.catalog import Table
from owsgit.services.tables.engine import Entry, Key, Transaction
from owsgit.services.tables.expressions.condition import Condition
from owsgit.services.tables.expressions.update import Update
from owsgit.services.tables.keys import key_of
from owsgit.services.tables.values import Item, check_item, check_size, dump, load, size

CONDITION_FAILED = "The conditional request failed"


class ConditionFailedError(ServiceError):
    """AWS's ConditionalCheckFailedException. `item`: what is there, for those who asked to be told."""

    def __init__(self, item: Item | None) -> None:
        super().__init__(
            "ConditionalCheckFailedException", CONDITION_FAILED, fields={} if item is None else {"Item": item}
        )
        self.item = item


class Written(NamedTuple):
    """What a write found and left; None where there is no item. `old` is not known of a write that did not look."""

    old: Item | None
    new: Item | None


@dataclass(frozen=True)
class Write(ABC):
    """A change of the item with a key. `condition` has to hold of what is there, or ConditionFailedError is raised.

    `looks`: whether the result has to know what was there. `shows`: whether the error does.
    """

    table: Table
    key: Key
    condition: Condition | None = None
    shows: bool = False
    looks: bool = True

    @abstractmethod
    def make(self, transaction: Transaction, *, by_service: bool = False) -> Written:
        """`by_service`: nobody asked for it, but the table's time to live."""

    def _met(self, transaction: Transaction, *, reads: bool) -> Item | None:
        """What is there, if it is to be read or the condition asks. Raises ConditionFailedError."""
        if not reads and self.condition is None:
            return None
        stored = transaction.get(self.table.name, self.key)
        old = load(stored) if stored is not None else None
        if self.condition is not None and not self.condition.holds(old or {}):
            raise ConditionFailedError(old if self.shows else None)
        return old


@dataclass(frozen=True)
class Check(Write):
    """Changes nothing: the condition of a transaction."""

    def make(self, transaction: Transaction, *, by_service: bool = False) -> Written:
        old = self._met(transaction, reads=True)
        return Written(old, old)


@dataclass(frozen=True)
class Changing(Write):
    """What leaves another item there, or none, and a record in the table's stream."""

    def make(self, transaction: Transaction, *, by_service: bool = False) -> Written:
        table = self.table
        old = self._met(transaction, reads=self.looks or table.view is not None)
        new = self._change(transaction, old)
        if table.view is not None and (record := records.record(table, old, new, by_service=by_service)):
            transaction.log(table.name, record)
        return Written(old, new)

    @abstractmethod
    def _change(self, transaction: Transaction, old: Item | None) -> Item | None:
        """The item after the change, which was made."""


@dataclass(frozen=True)
class Put(Changing):
    """Whatever can be wrong with an item is found when this is made: see `put`."""

    item: Item = field(default_factory=dict)
    stored: bytes = b""
    entries: Sequence[Entry] = ()

    def _change(self, transaction: Transaction, old: Item | None) -> Item | None:
        transaction.put(self.table.name, self.key, self.stored, self.entries)
        return self.item


def put(
    table: Table, item: Item, condition: Condition | None = None, *, shows: bool = False, looks: bool = True
) -> Put:
    """A Put of a checked item. Raises ValidationError for its keys."""
    key, entries = key_of(table.schema, item), table.entries(item)
    return Put(table, key, condition, shows, looks, item, dump(item), entries)


@dataclass(frozen=True)
class Delete(Changing):
    def _change(self, transaction: Transaction, old: Item | None) -> Item | None:
        transaction.delete(self.table.name, self.key)
        return None


@dataclass(frozen=True)
class Change(Changing):
    """`named`: the key's attributes. `creates`: whether there is an item afterwards where none was."""

    named: Item = field(default_factory=dict)
    updates: Update | None = None
    creates: bool = True

    def _change(self, transaction: Transaction, old: Item | None) -> Item | None:
        base = old if old is not None else self.named
        new = base if self.updates is None else self.updates.apply(base)
        if old is None and not self.creates:
            return None
        new = check_item(new)
        check_size(new, update=True)
        transaction.put(self.table.name, self.key, dump(new), self.table.entries(new, update=True))
        return new


def bytes_of(written: Written) -> int:
    """What a write is counted as: the larger of the item before and after."""
    return max(size(written.old or {}), size(written.new or {}))


def returned(kind: str, written: Written, updates: Update | None = None) -> dict[str, Any]:
    """The output's Attributes for a ReturnValues, if there are any."""
    old, new = written
    found: Item | None = None
    if kind == "ALL_OLD":
        found = old
    elif kind == "ALL_NEW":
        found = new
    elif kind == "UPDATED_OLD" and old is not None and updates is not None:
        found = updates.updated_old(old)
    elif kind == "UPDATED_NEW" and new is not None and updates is not None:
        found = updates.updated_new(new)
    return {"Attributes": found} if found else {}
