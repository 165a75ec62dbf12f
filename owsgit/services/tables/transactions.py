"""TransactWriteItems and TransactGetItems: all or nothing, of up to 100 items.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html. What stands in the way of
one action is told in CancellationReasons, at its place.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from owsgit.aws.api import Caller, ServiceError
from owsgit.services.tables import capacity, parameters
from owsgit.services.tables.capacity import Used
from owsgit.services.tables.catalog import Table
from owsgit.services.tables.engine import Key, Snapshot, Transaction
from owsgit.services.tables.errors import EmptyKeyError, ValidationError, older
from owsgit.services.tables.expressions.projection import Projection
from owsgit.services.tables.items import update_of
from owsgit.services.tables.keys import key_from
from owsgit.services.tables.parameters import Conditional, Given, Operations
from owsgit.services.tables.values import Item, check_item, check_size, load, size
from owsgit.services.tables.writing import Check, ConditionFailedError, Delete, Write, Written, put

TOKEN_SECONDS = 600.0
"""For which a ClientRequestToken makes a request again the same one."""

BYTES_MAX = 4 * 1024 * 1024
ACTIONS = ("ConditionCheck", "Put", "Delete", "Update")
TWICE = "Transaction request cannot include multiple operations on one item"
NOT_ONE = "TransactItems can only contain one of Check, Put, Update or Delete"
NONE = {"Code": "None"}
CODES = {
    "ValidationException": "ValidationError",
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "DuplicateItemException": "DuplicateItem",
    "ResourceNotFoundException": "ResourceNotFound",
    "AccessDeniedException": "AccessDenied",
}
"""What errors are called where each of several actions has its own."""

Output = dict[str, Any]
Reason = dict[str, Any]


class CanceledError(ServiceError):
    """AWS's TransactionCanceledException, with a reason for each action."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        codes = ", ".join(reason["Code"] for reason in reasons)
        super().__init__(
            "TransactionCanceledException",
            f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
            fields={"CancellationReasons": list(reasons)},
        )


def reason_of(error: ServiceError) -> Reason:
    """An error of one of several actions."""
    reason: Reason = {"Code": CODES.get(error.code, "InternalServerError"), "Message": error.message}
    item = error.item if isinstance(error, ConditionFailedError) else None
    return reason if item is None else {**reason, "Item": item}


class Transactions(Operations):
    async def transact_write_items(
        self,
        caller: Caller,
        *,
        transact_items: list[Given],
        return_consumed_capacity: str | None = None,
        return_item_collection_metrics: str | None = None,
        client_request_token: str | None = None,
    ) -> Output:
        with older():
            makers = [_action(each) for each in transact_items]
        tables = [self._catalog.table(name) for name, _, _ in makers]
        writes = made(lambda place: makers[place][1](tables[place]), len(makers))
        if len({(write.table.name, write.key) for write in writes}) < len(writes):
            raise ValidationError(TWICE)
        check_bytes(sum(length for _, _, length in makers))
        token = token_of(caller, client_request_token)
        digest = digest_of(transact_items) if token else b""

        def work(transaction: Transaction) -> list[Written] | None:
            if token:
                known = transaction.remember(token, digest, time.time() + TOKEN_SECONDS)
                if known is not None:
                    check_same(known, digest)
                    return None
            return attempted(transaction, writes)

        names = list(dict.fromkeys(table.name for table in tables))
        done = await self._catalog.engine.write(names, work)
        if done is None:  # it was done before
            done = [Written(None, None)] * len(writes)
        output: Output = {}
        if return_consumed_capacity not in (None, "NONE"):
            used = {table.name: Used(table) for table in tables}
            for write, written in zip(writes, done, strict=True):
                used[write.table.name].write(written, times=2)
            output["ConsumedCapacity"] = [use.told(return_consumed_capacity, written=True) for use in used.values()]
        if return_item_collection_metrics == "SIZE":
            output["ItemCollectionMetrics"] = await self._metrics(writes, makers, transact_items)
        return output

    async def _metrics(self, writes: Sequence[Write], makers: Sequence[Any], given: list[Given]) -> Output:
        found: dict[str, list[Any]] = {}
        for write, (name, _, _), request in zip(writes, makers, given, strict=True):
            if write.table.has_local_indexes and not isinstance(write, Check):
                [action] = request.values()
                length = (await self._catalog.engine.facts(write.table.name)).bytes
                told = capacity.collection(write.table, action.get("Item") or action["Key"], length)
                if told not in found.setdefault(name, []):
                    found[name].append(told)
        return found

    async def transact_get_items(
        self, caller: Caller, *, transact_items: list[Given], return_consumed_capacity: str | None = None
    ) -> Output:
        with older():
            asked = [_asked(each["Get"]) for each in transact_items]
        tables = [self._catalog.table(name) for name, _, _ in asked]
        keys = made(lambda place: key_from(tables[place].schema, asked[place][1]), len(asked))
        if len({(table.name, key) for table, key in zip(tables, keys, strict=True)}) < len(keys):
            raise ValidationError(TWICE)

        def work(snapshot: Snapshot) -> list[Item | None]:
            return [got(snapshot, table, key) for table, key in zip(tables, keys, strict=True)]

        found = await self._catalog.engine.read(list(dict.fromkeys(table.name for table in tables)), work)
        check_bytes(sum(size(item or {}) for item in found))
        output: Output = {"Responses": []}
        used = {table.name: Used(table) for table in tables}
        for table, item, (_, _, shows) in zip(tables, found, asked, strict=True):
            used[table.name].read(size(item or {}), consistent=True, times=2)
            shown = item if item is None or shows is None else shows.of(item)
            output["Responses"].append({} if shown is None else {"Item": shown})
        if return_consumed_capacity not in (None, "NONE"):
            output["ConsumedCapacity"] = [use.told(return_consumed_capacity, written=False) for use in used.values()]
        return output


def check_bytes(length: int) -> None:
    """Of all items of a transaction."""
    if length > BYTES_MAX:
        raise ValidationError("Transaction is too large: the items of a transaction have at most 4 MB together")


def made(make: Callable[[int], Any], count: int) -> list[Any]:
    """All of them, or CanceledError with what is wrong with each: keys that the table has not."""
    found, reasons = [], []
    for place in range(count):
        try:
            found.append(make(place))
            reasons.append(NONE)
        except EmptyKeyError:
            raise
        except ValidationError as error:
            reasons.append(reason_of(error))
    if len(found) < count:
        raise CanceledError(reasons)
    return found


def attempted(transaction: Transaction, writes: Sequence[Write]) -> list[Written]:
    """Each action is tried even where another failed: all reasons are told."""
    done: list[Written] = []
    reasons: list[Reason] = []
    for write in writes:
        try:
            done.append(write.make(transaction))
            reasons.append(NONE)
        except ServiceError as error:
            if error.code not in CODES:
                raise
            reasons.append(reason_of(error))
    if len(done) < len(writes):
        raise CanceledError(reasons)
    return done


def got(snapshot: Snapshot, table: Table, key: Key) -> Item | None:
    stored = snapshot.get(table.name, key)
    return load(stored) if stored is not None else None


def _asked(get: Given) -> tuple[str, Item, Projection | None]:
    text = get.get("ProjectionExpression")
    found = parameters.placeholders(get.get("ExpressionAttributeNames"), None, {"ProjectionExpression": text}, {})
    key = check_item(get["Key"])
    shows = parameters.shows(None, text, found)
    found.finish()
    return get["TableName"], key, shows


def _action(given: Given) -> tuple[str, Callable[[Table], Write], int]:
    """One action: its table, how to make the write of it, and the bytes that it brings. Raises ValidationError."""
    named = [name for name in ACTIONS if given.get(name) is not None]
    if len(named) != 1:
        raise ValidationError(NOT_ONE)
    [name] = named
    action: Given = given[name]
    conditional = Conditional(
        None,
        None,
        action.get("ConditionExpression"),
        action.get("ExpressionAttributeNames"),
        action.get("ExpressionAttributeValues"),
    )
    text = action.get("UpdateExpression")
    found = conditional.placeholders({"UpdateExpression": text} if name == "Update" else {})
    item = check_item(action["Item"] if name == "Put" else action["Key"])
    length = check_size(item)
    changes = parameters.updates(text, found)
    condition = conditional.new(found)
    found.finish()
    shows = action.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"

    def make(table: Table) -> Write:
        if name == "Put":
            parameters.check_condition(table, condition)
            return put(table, item, condition, shows=shows)
        if name == "Update":
            return update_of(table, item, changes, condition, shows=shows)
        parameters.check_condition(table, condition)
        kind = Delete if name == "Delete" else Check
        return kind(table, key_from(table.schema, item), condition, shows)

    return action["TableName"], make, length


def token_of(caller: Caller, given: str | None) -> bytes:
    """A token is its caller's: the same of another is another one."""
    return hashlib.sha256(f"{caller.arn}\n{given}".encode()).digest() if given is not None else b""


def digest_of(given: list[Given]) -> bytes:
    text = orjson.dumps(given, option=orjson.OPT_SORT_KEYS, default=bytes.hex)
    return hashlib.sha256(text).digest()


def check_same(known: bytes, digest: bytes) -> None:
    if known != digest:
        raise ServiceError(
            "IdempotentParameterMismatchException",
            "The request uses the same client token as a previous, but non-identical request. Do not reuse a client "
            "token with different requests, unless the requests are identical",
        )
