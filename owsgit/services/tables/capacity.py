"""ConsumedCapacity and ItemCollectionMetrics: what an operation would have cost at AWS. Nothing is limited by it.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

from collections.abc import Mapping
from typing import Any

from owsgit.services.tables.catalog import Table
from owsgit.services.tables.values import Item, size
from owsgit.services.tables.writing import Written, bytes_of

READ_BYTES, WRITE_BYTES = 4096, 1024
GIBIBYTE = 1024**3


def read_units(length: int, *, consistent: bool, times: int = 1) -> float:
    """Of so many bytes that were read together. `times`: 2 for transactions."""
    units = max(1, -(-length // READ_BYTES))
    return float(units * times) if consistent or times > 1 else units / 2


def write_units(length: int, times: int = 1) -> float:
    return float(max(1, -(-length // WRITE_BYTES)) * times)


class Used:
    """Units of one table: of itself and of its indexes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._own = 0.0
        self._indexes: dict[str, float] = {}

    def read(self, length: int, *, consistent: bool, index: str = "", times: int = 1) -> None:
        self._add(index, read_units(length, consistent=consistent, times=times))

    def _add(self, index: str, units: float) -> None:
        if index:
            self._indexes[index] = self._indexes.get(index, 0.0) + units
        else:
            self._own += units

    def write(self, written: Written, times: int = 1) -> None:
        self._own += write_units(bytes_of(written), times)
        for name in self._table.indexes:
            self._write_index(name, written, times)

    def _write_index(self, name: str, written: Written, times: int) -> None:
        """One write for each entry that comes or goes, one if what it shows changes."""
        index = self._table.indexes[name]
        keys = index.schema.names()
        old, new = (
            index.project(item) if item is not None and all(key in item for key in keys) else None for item in written
        )
        if old == new:
            return
        moved = old is not None and new is not None and any(old[key] != new[key] for key in keys)
        for item in (old, new) if moved else (new if new is not None else old,):
            self._add(name, write_units(size(item or {}), times))

    def told(self, how: str | None, *, written: bool | None = None) -> dict[str, Any] | None:
        """The output's ConsumedCapacity; None if it was not asked for. `written`: told apart, as transactions do."""
        if how in (None, "NONE"):
            return None
        total = self._own + sum(self._indexes.values())
        found: dict[str, Any] = {"TableName": self._table.name, **_units(total, written)}
        if how == "INDEXES":
            found["Table"] = _units(self._own, written)
            for field, is_global in (("GlobalSecondaryIndexes", True), ("LocalSecondaryIndexes", False)):
                units = {
                    name: _units(count, written)
                    for name, count in self._indexes.items()
                    if self._table.indexes[name].is_global == is_global
                }
                if units:
                    found[field] = units
        return found


def _units(count: float, written: bool | None) -> dict[str, float]:
    if written is None:
        return {"CapacityUnits": count}
    return {"CapacityUnits": count, "WriteCapacityUnits" if written else "ReadCapacityUnits": count}


def with_capacity(output: dict[str, Any], used: Used | None, how: str | None) -> dict[str, Any]:
    told = used.told(how) if used is not None else None
    return output if told is None else {**output, "ConsumedCapacity": told}


def collection(table: Table, key: Item, length: int) -> Mapping[str, Any]:
    """ItemCollectionMetrics of what lies under a hash key, in tables with local indexes: bounds of its size.

    `length`: bytes of all items of the table.
    """
    name = table.schema.hash[0].name
    return {"ItemCollectionKey": {name: key[name]}, "SizeEstimateRangeGB": [0.0, float(length // GIBIBYTE) + 1.0]}
