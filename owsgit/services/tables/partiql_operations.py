"""ExecuteStatement, BatchExecuteStatement and ExecuteTransaction: items by statements of PartiQL.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_ExecuteStatement.html and its neighbours. Reads are
consistent, whether they ask for it or not.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import orjson

from owsgit.aws.api import Caller, ServiceError
from owsgit.services.tables import capacity, transactions
from owsgit.services.tables.capacity import Used
from owsgit.services.tables.catalog import Index, Table
from owsgit.services.tables.engine import Snapshot, Span, Transaction
from owsgit.services.tables.errors import INVALID, ValidationError
from owsgit.services.tables.expressions import condition
from owsgit.services.tables.expressions.condition import Condition, Tree
from owsgit.services.tables.keys import key_from
from owsgit.services.tables.parameters import Given
from owsgit.services.tables.partiql import binding, plans
from owsgit.services.tables.partiql.binding import Bound
from owsgit.services.tables.partiql.statements import Exists, Select
from owsgit.services.tables.searching import PAGE_BYTES_MAX, Page, Searches, Wanted, check_inside, position, read_page
from owsgit.services.tables.transactions import CanceledError, reason_of
from owsgit.services.tables.values import AttributeValue, Item, check_item, dump, load, size
from owsgit.services.tables.writing import Written, returned

EXISTS_OUTSIDE = "EXISTS can only be used in ExecuteTransaction write requests."
SEVERAL_KEYS = (
    "PartiQL statements cannot be executed on tables with multi-attribute HASH keys or multi-attribute RANGE keys."
)
KEY_ONLY = "Select statements within {} must specify the primary key in the where clause."
MIXED = "{} API does not support both read and write operations in the same request."
TOKEN_OTHER = "NextToken does not match request"  # noqa: S105 - a message
TOKEN_INVALID = "Given NextToken is invalid"  # noqa: S105 - a message

Output = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Part:
    """What a SELECT reads in one go."""

    span: Span
    holds: Condition | None


@dataclass(frozen=True)
class _Place:
    """Where a SELECT goes on: in which part, and after which key."""

    part: int = 0
    after: Item | None = None


class Statements(Searches):
    async def execute_statement(
        self,
        caller: Caller,
        *,
        statement: str,
        parameters: list[AttributeValue] | None = None,
        consistent_read: bool = False,
        next_token: str | None = None,
        return_consumed_capacity: str | None = None,
        limit: int | None = None,
        return_values_on_condition_check_failure: str | None = None,
    ) -> Output:
        checked = binding.check_parameters(parameters)
        bound = binding.bind(statement, checked)
        if isinstance(bound.statement, Exists):
            raise ValidationError(EXISTS_OUTSIDE)
        table = self._catalog.table(bound.table)
        if isinstance(bound.statement, Select):
            digest = _digest(statement, checked)
            place = _read_token(next_token, digest)
            wanted = Wanted(None, None, None, limit, None, consistent_read, return_consumed_capacity)
            return await self._select(table, bound, bound.statement, wanted, place, digest)
        shows = return_values_on_condition_check_failure == "ALL_OLD"
        write = binding.write_of(table, bound, shows=shows)
        written = await self._catalog.engine.write([table.name], write.make)
        item = _returned(bound, written)
        used = Used(table)
        used.write(written)
        return capacity.with_capacity({"Items": [item] if item else []}, used, return_consumed_capacity)

    async def _select(
        self, table: Table, bound: Bound, select: Select, wanted: Wanted, place: _Place, digest: bytes
    ) -> Output:
        index = self._readable(table, select, consistent=wanted.consistent)
        parts = _parts(table, index, select, bound.where)
        _check_columns(index, select)
        wanted = replace(wanted, select=_selected(index, select))
        first = _first(table, index, parts, place)

        def work(snapshot: Snapshot) -> tuple[Page, _Place | None]:
            return _read(snapshot, table, index, [first, *parts[place.part + 1 :]], wanted)

        page, left = await self._catalog.engine.read([table.name], work)
        items = page.items if select.columns is None else [select.columns.of(item) for item in page.items]
        output: Output = {"Items": items}
        if left is not None:
            output["NextToken"] = _token(digest, _Place(place.part + left.part, left.after))
            if left.after is not None:
                output["LastEvaluatedKey"] = left.after
        used = Used(table)
        used.read(page.bytes, consistent=wanted.consistent, index=index.name if index is not None else "")
        return capacity.with_capacity(output, used, wanted.capacity)

    def _readable(self, table: Table, select: Select, *, consistent: bool) -> Index | None:
        """The index that is read; DynamoDB has other words for what is wrong with it than for a Query."""
        name = select.source.index
        if name is None:
            return None
        index = table.indexes.get(name)
        if index is None:
            raise ValidationError("The table does not have the specified index")
        if len(index.schema.hash) > 1 or len(index.schema.range) > 1:
            raise ValidationError(SEVERAL_KEYS)
        if index.is_global and consistent:
            raise ValidationError("Strongly consistent read is not supported on Global Secondary Indexes")
        self._check_built(table, index, "global" if index.is_global else "local")
        return index

    async def batch_execute_statement(
        self, caller: Caller, *, statements: list[Given], return_consumed_capacity: str | None = None
    ) -> Output:
        """Each statement for itself; what is wrong with one is told at its place."""
        used: dict[str, Used] = {}
        bounds = [_attempted(partial(_bind, each)) for each in statements]
        kinds = {isinstance(bound.statement, Select) for bound in bounds if isinstance(bound, Bound)}
        if len(kinds) > 1:
            raise ValidationError(MIXED.format("BatchExecuteStatement"))
        answers = [self._one(bound, each, used) for bound, each in zip(bounds, statements, strict=True)]
        output: Output = {"Responses": await asyncio.gather(*answers)}
        told = [told for use in used.values() if (told := use.told(return_consumed_capacity)) is not None]
        return {**output, "ConsumedCapacity": told} if told else output

    async def _one(self, bound: Bound | ServiceError, given: Given, used: dict[str, Used]) -> Output:
        """The answer to one statement of a batch. The table is told of those that got as far as to it."""
        ran: Output = {}
        try:
            if isinstance(bound, ServiceError):
                raise bound
            if isinstance(bound.statement, Exists):
                raise ValidationError(EXISTS_OUTSIDE)
            table = self._catalog.table(bound.table)
            use = used.setdefault(table.name, Used(table))
            if isinstance(bound.statement, Select):
                item = await self._get(table, bound, bound.statement, use, given.get("ConsistentRead", False))
            else:
                shows = given.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
                write = binding.write_of(table, bound, shows=shows)
                ran = {"TableName": table.name}
                written = await self._catalog.engine.write([table.name], write.make)
                use.write(written)
                item = _returned(bound, written)
        except ServiceError as error:
            return {"Error": reason_of(error), **ran}
        return {"TableName": table.name, **({"Item": item} if item else {})}

    async def _get(self, table: Table, bound: Bound, select: Select, use: Used, consistent: bool) -> Item | None:
        self._readable(table, select, consistent=False)
        place = key_from(table.schema, _only_key(table, bound, select, "BatchExecuteStatement"))
        stored = await self._catalog.engine.get(table.name, place)
        item = load(stored) if stored is not None else None
        use.read(size(item or {}), consistent=consistent)
        return _shown(select, item)

    async def execute_transaction(
        self,
        caller: Caller,
        *,
        transact_statements: list[Given],
        client_request_token: str | None = None,
        return_consumed_capacity: str | None = None,
    ) -> Output:
        """All statements or none: reads, or writes with conditions that EXISTS states."""
        tables, bounds = self._transacted(transact_statements)
        if isinstance(bounds[0].statement, Select):
            return await self._read_all(tables, bounds, return_consumed_capacity)
        shown = [each.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" for each in transact_statements]
        writes = transactions.made(
            lambda place: binding.write_of(tables[place], bounds[place], shows=shown[place], partly=True), len(bounds)
        )
        if len({(write.table.name, write.key) for write in writes}) < len(writes):
            raise ValidationError(transactions.TWICE)
        token = transactions.token_of(caller, client_request_token)
        digest = transactions.digest_of(transact_statements) if token else b""

        def work(transaction: Transaction) -> list[Written] | None:
            if token:
                known = transaction.remember(token, digest, time.time() + transactions.TOKEN_SECONDS)
                if known is not None:
                    transactions.check_same(known, digest)
                    return None
            return transactions.attempted(transaction, writes)

        done = await self._catalog.engine.write(_names(tables), work)
        used = {table.name: Used(table) for table in tables}
        for write in writes if done is None else ():  # it was done before: that is looked up
            used[write.table.name].read(0, consistent=True, times=2)
        for write, written in zip(writes, done or (), strict=False):
            used[write.table.name].write(written, times=2)
        return _with_capacity({"Responses": []}, used, return_consumed_capacity, written=done is not None)

    def _transacted(self, statements: Sequence[Given]) -> tuple[list[Table], list[Bound]]:
        """The statements of a transaction and the table of each. Raises what is wrong with them as they are written."""
        checked = [binding.check_parameters(each.get("Parameters")) for each in statements]
        bounds = [
            _told_of(number, partial(binding.bind, each["Statement"], values))
            for number, (each, values) in enumerate(zip(statements, checked, strict=True))
        ]
        found = [self._catalog.find(bound.table) for bound in bounds]
        for number, (bound, table) in enumerate(zip(bounds, found, strict=True)):
            if table is not None:
                _told_of(number, partial(_check_transacted, table, bound))
        if len({isinstance(bound.statement, Select) for bound in bounds}) > 1:
            raise ValidationError(MIXED.format("ExecuteTransaction"))
        transactions.check_bytes(sum(size({"": value}) for values in checked for value in values))
        tables = [table for table in found if table is not None]
        if len(tables) < len(found):
            raise CanceledError([transactions.NONE if table is not None else _NOT_FOUND for table in found])
        return tables, bounds

    async def _read_all(self, tables: Sequence[Table], bounds: Sequence[Bound], how: str | None) -> Output:
        selects = [bound.statement for bound in bounds if isinstance(bound.statement, Select)]
        keys = transactions.made(
            lambda place: key_from(
                tables[place].schema, _only_key(tables[place], bounds[place], selects[place], "ExecuteTransaction")
            ),
            len(bounds),
        )
        if len({(table.name, key) for table, key in zip(tables, keys, strict=True)}) < len(keys):
            raise ValidationError(transactions.TWICE)

        def work(snapshot: Snapshot) -> list[Item | None]:
            return [transactions.got(snapshot, table, key) for table, key in zip(tables, keys, strict=True)]

        found = await self._catalog.engine.read(_names(tables), work)
        transactions.check_bytes(sum(size(item or {}) for item in found))
        used = {table.name: Used(table) for table in tables}
        responses = []
        for table, select, item in zip(tables, selects, found, strict=True):
            used[table.name].read(size(item or {}), consistent=True, times=2)
            shown = _shown(select, item)
            responses.append({"Item": shown} if shown is not None else {})
        return _with_capacity({"Responses": responses}, used, how, written=False)


_NOT_FOUND = {"Code": "ResourceNotFound", "Message": "Requested resource not found"}


def _with_capacity(output: Output, used: dict[str, Used], how: str | None, *, written: bool) -> Output:
    told = [told for use in used.values() if (told := use.told(how, written=written)) is not None]
    return {**output, "ConsumedCapacity": told} if told else output


def _names(tables: Sequence[Table]) -> list[str]:
    return list(dict.fromkeys(table.name for table in tables))


def _bind(given: Given) -> Bound:
    return binding.bind(given["Statement"], binding.check_parameters(given.get("Parameters")))


def _attempted(make: Callable[[], Bound]) -> Bound | ServiceError:
    try:
        return make()
    except ServiceError as error:
        return error


def _told_of(number: int, make: Callable[[], Result]) -> Result:
    """What is wrong with a statement of a transaction is told with its number."""
    try:
        return make()
    except ValidationError as error:
        raise ValidationError(f"Validation failed in TransactStatements[{number}]: {error.message}") from None


def _check_transacted(table: Table, bound: Bound) -> None:
    statement = bound.statement
    if bound.returning != "NONE":
        raise ValidationError("RETURNING clause is not supported in ExecuteTransaction.")
    if isinstance(statement, Exists):
        if statement.source.index is not None:
            raise ValidationError("Operations on indices are not supported in transactions")
        binding.check_exists(table, bound)
    elif isinstance(statement, Select):
        if statement.source.index is not None:
            raise ValidationError("Reads on indices are not supported within transactions.")
        _only_key(table, bound, statement, "ExecuteTransaction")


def _only_key(table: Table, bound: Bound, select: Select, operation: str) -> Item:
    """The key of the one item that is read."""
    key = plans.only_key(table.schema, bound.where) if select.source.index is None else None
    if key is None:
        if select.source.index is None:
            plans.branches(table.schema, bound.where)  # there may be something else wrong with it
        raise ValidationError(KEY_ONLY.format(operation))
    return key


def _shown(select: Select, item: Item | None) -> Item | None:
    return item if item is None or select.columns is None else select.columns.of(item)


def _returned(bound: Bound, written: Written) -> Item | None:
    found: Item | None = returned(bound.returning, written, bound.updates).get("Attributes")
    return found


# Reads of many items


def _parts(table: Table, index: Index | None, select: Select, where: Tree | None) -> list[_Part]:
    schema = index.schema if index is not None else table.schema
    found, backwards = plans.ordered(schema, select.order, where, plans.branches(schema, where))
    name = index.name if index is not None else ""
    if found is None:
        return [_Part(Span(table.name, name), _filter(index, where, keyed=False))]
    return [
        _Part(
            plans.key_range(schema, branch).span(table.name, name, backwards=backwards),
            _filter(index, plans.joined("AND", branch.rest), keyed=True),
        )
        for branch in found
    ]


def _filter(index: Index | None, tree: Tree | None, *, keyed: bool) -> Condition | None:
    """Filters see what an index shows; a query by its keys cannot ask for more."""
    if tree is None:
        return None
    made = condition.made(tree)
    if index is None or index.shown is None:
        return made
    hidden = [name for name in dict.fromkeys(str(path[0]) for path in made.paths) if name not in index.shown]
    if not hidden:
        return made
    if keyed:
        raise ValidationError(
            f"{INVALID}Secondary index {index.name} does not project one or more filter attributes: "
            f"[{', '.join(hidden)}]"
        )
    return made._replace(holds=lambda item: made.holds(index.project(item)))


def _check_columns(index: Index | None, select: Select) -> None:
    if index is None or not index.is_global or index.shown is None or select.columns is None:
        return
    hidden = [name for name in select.columns.names() if name not in index.shown]
    if hidden:
        raise ValidationError(f"{INVALID}Global secondary index {index.name} does not project [{', '.join(hidden)}]")


def _selected(index: Index | None, select: Select) -> str | None:
    """Columns that a local index does not show come from the table."""
    return "ALL_ATTRIBUTES" if index is not None and not index.is_global and select.columns is not None else None


def _first(table: Table, index: Index | None, parts: Sequence[_Part], place: _Place) -> _Part:
    if place.part >= len(parts):
        raise ValidationError(TOKEN_INVALID)
    part = parts[place.part]
    if place.after is None:
        return part
    after = position(table, index, place.after)
    if part.span.hash is not None:
        check_inside(part.span, after)
    return replace(part, span=replace(part.span, after=after))


def _read(
    snapshot: Snapshot, table: Table, index: Index | None, parts: Sequence[_Part], wanted: Wanted
) -> tuple[Page, _Place | None]:
    """One page of all parts, and where the next one begins."""
    whole = Page([])
    for number, part in enumerate(parts):
        limit = None if wanted.limit is None else wanted.limit - whole.scanned
        page = read_page(snapshot, table, index, part.span, replace(wanted, holds=part.holds, limit=limit))
        whole.items += page.items
        whole.scanned += page.scanned
        whole.bytes += page.bytes
        if page.last is not None:
            return whole, _Place(number, page.last)
        if whole.bytes >= PAGE_BYTES_MAX and number + 1 < len(parts):
            return whole, _Place(number + 1)
    return whole, None


# Tokens: which statement they are of, and where it goes on.


def _digest(statement: str, parameters: Sequence[Item]) -> bytes:
    text = orjson.dumps([statement, parameters], option=orjson.OPT_SORT_KEYS, default=bytes.hex)
    return hashlib.sha256(text).digest()[:16]


def _token(digest: bytes, place: _Place) -> str:
    after = base64.b64encode(dump(place.after)).decode() if place.after is not None else None
    return base64.urlsafe_b64encode(orjson.dumps([digest.hex(), place.part, after])).decode()


def _read_token(text: str | None, digest: bytes) -> _Place:
    """What a client sends is looked at as anything else that it sends."""
    if text is None:
        return _Place()
    try:
        of, part, after = orjson.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        key = load(base64.b64decode(after)) if after is not None else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValidationError(TOKEN_INVALID) from None
    if type(part) is not int or part < 0 or (key is not None and not _is_key(key)):
        raise ValidationError(TOKEN_INVALID)
    if of != digest.hex():
        raise ValidationError(TOKEN_OTHER)
    return _Place(part, check_item(key) if key is not None else None)


def _is_key(key: Item) -> bool:
    """Whether it has the form of one: strings, numbers and binaries, as the front door would have let them in."""
    kinds = {"S": str, "N": str, "B": bytes}
    return type(key) is dict and all(
        type(value) is dict and len(value) == 1 and all(type(each) is kinds.get(kind) for kind, each in value.items())
        for value in key.values()
    )
