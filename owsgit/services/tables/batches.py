"""BatchGetItem and BatchWriteItem: many items of several tables, each for itself.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html and API_BatchWriteItem.html
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from owsgit.aws.api import Caller
from owsgit.services.tables import capacity, parameters
from owsgit.services.tables.capacity import Used
from owsgit.services.tables.catalog import Table
from owsgit.services.tables.engine import Key, Snapshot, Transaction
from owsgit.services.tables.errors import ValidationError, older
from owsgit.services.tables.expressions.projection import Projection
from owsgit.services.tables.keys import check_fits, key_from
from owsgit.services.tables.parameters import Given, Operations
from owsgit.services.tables.values import Item, check_item, check_size, load, size
from owsgit.services.tables.writing import Delete, Write, Written, put

GETS_MAX, WRITES_MAX = 100, 25
RESPONSE_BYTES_MAX = 16 * 1024 * 1024

DUPLICATES = "Provided list of item keys contains duplicates"
TOO_MANY_GETS = "Too many items requested for the BatchGetItem call"
TOO_MANY_WRITES = "Too many items requested for the BatchWriteItem call"
NOT_ONE = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
"""DynamoDB speaks of values where it means requests, and says it of none as of two."""

Output = dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    """What is asked for of one table. `given` is how the request calls it."""

    given: str
    request: Given
    keys: list[Item]
    shows: Projection | None


@dataclass(frozen=True)
class _Get:
    asked: _Asked
    table: Table
    keys: list[Key]


@dataclass(frozen=True)
class _Writes:
    writes: list[Write]

    def make(self, transaction: Transaction) -> list[Written]:
        return [write.make(transaction) for write in self.writes]


class Batches(Operations):
    async def batch_get_item(
        self, caller: Caller, *, request_items: Mapping[str, Given], return_consumed_capacity: str | None = None
    ) -> Output:
        asked = [_asked(name, request) for name, request in request_items.items()]
        if sum(len(each.keys) for each in asked) > GETS_MAX:
            raise ValidationError(TOO_MANY_GETS)
        gets = []
        for each in asked:
            table = self._catalog.table(each.given)
            if each.shows is not None:
                parameters.check_scalar_keys(table, each.shows.paths)
            keys = [key_from(table.schema, key) for key in each.keys]
            if len(set(keys)) < len(keys):
                raise ValidationError(DUPLICATES)
            gets.append(_Get(each, table, keys))
        _check_once(get.table for get in gets)
        names = [get.table.name for get in gets]
        found = await self._catalog.engine.read(names, lambda snapshot: _read(snapshot, gets))
        output: Output = {"Responses": {}, "UnprocessedKeys": {}}
        used = []
        for get, items in zip(gets, found, strict=True):
            given, shows = get.asked.given, get.asked.shows
            there = [item for item in items if item is not None]
            output["Responses"][given] = there if shows is None else [shows.of(item) for item in there]
            if len(items) < len(get.keys):
                left = get.asked.keys[len(items) :]
                output["UnprocessedKeys"][given] = {**get.asked.request, "Keys": left}
            use = Used(get.table)
            for item in items:
                use.read(size(item or {}), consistent=bool(get.asked.request.get("ConsistentRead")))
            used.append(use)
        return {**output, **_told(used, return_consumed_capacity)}

    async def batch_write_item(
        self,
        caller: Caller,
        *,
        request_items: Mapping[str, list[Given]],
        return_consumed_capacity: str | None = None,
        return_item_collection_metrics: str | None = None,
    ) -> Output:
        """All of a request is written together, though AWS does not promise it."""
        if sum(map(len, request_items.values())) > WRITES_MAX:
            raise ValidationError(TOO_MANY_WRITES)
        with older():
            checked = {name: [_checked(request) for request in requests] for name, requests in request_items.items()}
        writes: list[Write] = []
        touched: list[tuple[str, Table, Item]] = []
        looks = return_consumed_capacity not in (None, "NONE")
        for name, requests in checked.items():
            table = self._catalog.table(name)
            own: list[Write] = []
            for puts, item in requests:
                check_fits(table.schema, item)
                own.append(
                    put(table, item, looks=looks) if puts else Delete(table, key_from(table.schema, item), looks=looks)
                )
                touched.append((name, table, item))
            if len({write.key for write in own}) < len(own):
                raise ValidationError(DUPLICATES)
            writes += own
        tables = {name: self._catalog.table(name) for name in checked}
        _check_once(tables.values())
        done = await self._catalog.engine.write([table.name for table in tables.values()], _Writes(writes).make)
        output: Output = {"UnprocessedItems": {}}
        if looks:
            used = {table.name: Used(table) for table in tables.values()}
            for write, written in zip(writes, done, strict=True):
                used[write.table.name].write(written)
            output.update(_told(used.values(), return_consumed_capacity))
        if return_item_collection_metrics == "SIZE":
            output["ItemCollectionMetrics"] = await self._collections(touched)
        return output

    async def _collections(self, touched: Iterable[tuple[str, Table, Item]]) -> dict[str, list[Mapping[str, Any]]]:
        """The ItemCollectionMetrics of items that were written, by what the request calls their tables."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for name, table, item in touched:
            if table.has_local_indexes:
                length = (await self._catalog.engine.facts(table.name)).bytes
                told = capacity.collection(table, item, length)
                if told not in found.setdefault(name, []):
                    found[name].append(told)
        return found


def _told(used: Iterable[Used], how: str | None) -> Output:
    found = [told for use in used if (told := use.told(how)) is not None]
    return {"ConsumedCapacity": found} if found else {}


def _check_once(tables: Iterable[Table]) -> None:
    """A table may be called by its name or its ARN, but not both."""
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise ValidationError(DUPLICATES)


def _asked(name: str, request: Given) -> _Asked:
    names, text = request.get("AttributesToGet"), request.get("ProjectionExpression")
    found = parameters.placeholders(
        request.get("ExpressionAttributeNames"), None, {"ProjectionExpression": text}, {"AttributesToGet": names}
    )
    keys = [check_item(key) for key in request["Keys"]]
    shows = parameters.shows(names, text, found)
    found.finish()
    return _Asked(name, request, keys, shows)


def _read(snapshot: Snapshot, gets: list[_Get]) -> list[list[Item | None]]:
    """Items in the order of the keys, until there are 16 MB of them."""
    found: list[list[Item | None]] = []
    total = 0
    for get in gets:
        items: list[Item | None] = []
        found.append(items)
        for key in get.keys:
            if total >= RESPONSE_BYTES_MAX:
                break
            stored = snapshot.get(get.table.name, key)
            item = load(stored) if stored is not None else None
            items.append(item)
            total += size(item or {})
    return found


def _checked(request: Given) -> tuple[bool, Item]:
    """Whether a WriteRequest puts, and the item or the key that it names."""
    puts, deletes = request.get("PutRequest"), request.get("DeleteRequest")
    if (puts is None) == (deletes is None):
        raise ValidationError(NOT_ONE)
    if puts is not None:
        item = check_item(puts["Item"])
        check_size(item)
        return True, item
    assert deletes is not None
    return False, check_item(deletes["Key"])
