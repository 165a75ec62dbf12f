"""Statements with the values of their parameters, and the writes that they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from owsgit.aws.api import ServiceError
from owsgit.services.tables.catalog import Table
from owsgit.services.tables.engine import Transaction
from owsgit.services.tables.errors import ValidationError, older
from owsgit.services.tables.expressions import Placeholders, condition, update
from owsgit.services.tables.expressions.condition import Compared, Condition, Tree
from owsgit.services.tables.expressions.operands import Literal, Path, Value
from owsgit.services.tables.expressions.tokens import Problem
from owsgit.services.tables.expressions.update import Update
from owsgit.services.tables.items import update_of
from owsgit.services.tables.keys import key_from
from owsgit.services.tables.partiql import grammar, plans
from owsgit.services.tables.partiql.statements import Change, Exists, Insert, Select, Statement
from owsgit.services.tables.partiql.statements import Delete as DeleteStatement
from owsgit.services.tables.values import AttributeValue, Item, check_item, check_size, check_value
from owsgit.services.tables.writing import Check, ConditionFailedError, Delete, Put, Write, Written, put

PARAMETERS_DIFFER = "Number of parameters in request and statement don't match."
EXISTS_ALONE = "EXISTS() must contain a single item read with additional condition"


class DuplicateItemError(ServiceError):
    """AWS's DuplicateItemException: INSERT makes items and replaces none."""

    def __init__(self) -> None:
        super().__init__("DuplicateItemException", "Duplicate primary key exists in table")


@dataclass(frozen=True)
class Inserted(Put):
    def make(self, transaction: Transaction, *, by_service: bool = False) -> Written:
        try:
            return super().make(transaction, by_service=by_service)
        except ConditionFailedError:
            raise DuplicateItemError from None


@dataclass(frozen=True)
class Bound:
    """`where`: its condition, `item`: what it inserts, `updates`: what it changes; all without parameters."""

    statement: Statement
    where: Tree | None = None
    item: Item = field(default_factory=dict)
    updates: Update | None = None

    @property
    def table(self) -> str:
        """What it calls its table."""
        return self.statement.source.table

    @property
    def returning(self) -> str:
        """A ReturnValues."""
        return self.statement.returning if isinstance(self.statement, Change | DeleteStatement) else "NONE"


def check_parameters(given: Sequence[AttributeValue] | None) -> list[AttributeValue]:
    """DynamoDB looks at them before it looks at the statement."""
    with older():
        return [check_value(value) for value in given or ()]


def bind(text: str, parameters: Sequence[AttributeValue]) -> Bound:
    """`parameters` were checked. Raises ValidationError."""
    parsed = grammar.read(text)
    if parsed.parameters != len(parameters):
        raise ValidationError(PARAMETERS_DIFFER)
    values = {f":{number}": value for number, value in enumerate(parameters)}
    found = Placeholders(None, values or None)
    try:
        return _bound(parsed.statement, found, values)
    except Problem as problem:
        raise ValidationError(str(problem)) from None


def _bound(statement: Statement, found: Placeholders, values: Mapping[str, AttributeValue]) -> Bound:
    if isinstance(statement, Insert):
        return Bound(statement, item={name: _value(value, values) for name, value in statement.item})
    where = statement.select.where if isinstance(statement, Exists) else statement.where
    tree = condition.bound(where, found) if where is not None else None
    if isinstance(statement, Change):
        return Bound(statement, tree, updates=update.made(statement.clauses, found))
    return Bound(statement, tree)


def _value(value: Literal | Value, values: Mapping[str, AttributeValue]) -> AttributeValue:
    return value.value if isinstance(value, Literal) else values[value.key]


def write_of(table: Table, bound: Bound, *, shows: bool = False, partly: bool = False) -> Write:
    """The write that a statement is, unless it is a SELECT. Raises ValidationError.

    `partly`: a key that is not complete is told as one that does not match: transactions do it so.
    """
    statement = bound.statement
    if isinstance(statement, Insert):
        return _insert(table, bound.item)
    is_exists = isinstance(statement, Exists)
    key, rest = plans.item_key(table.schema, bound.where, several=is_exists)
    if is_exists:
        return Check(table, key_from(table.schema, key), condition.made(_all(rest)), shows)
    if not partly and len(key) < len(table.schema.names()):
        raise ValidationError(plans.NOT_ALL_KEYS)
    if isinstance(statement, Change):
        there = condition.made(_all([_exists(table), *rest]))
        return update_of(table, key, bound.updates, there, shows=shows)
    holds: Condition | None = None
    if rest:  # of an item that is not there, nothing has to hold
        holds = condition.made(condition.Joined("OR", (_exists(table, is_there=False), _all(rest))))
    return Delete(table, key_from(table.schema, key), holds, shows)


def check_exists(table: Table, bound: Bound) -> None:
    """Of an EXISTS: it names an item, and something of it."""
    key, rest = plans.item_key(table.schema, bound.where, several=True)
    if len(key) < len(table.schema.names()) or not rest:
        raise ValidationError(EXISTS_ALONE)


def _insert(table: Table, item: Item) -> Inserted:
    with older():
        item = check_item(item)
    check_size(item)
    made = put(table, item)
    return Inserted(
        table, made.key, condition.made(_exists(table, is_there=False)), False, True, item, made.stored, made.entries
    )


def _exists(table: Table, *, is_there: bool = True) -> Tree:
    name = "attribute_exists" if is_there else "attribute_not_exists"
    return Compared(name, (Path((table.schema.hash[0].name,), False),))


def _all(trees: Sequence[Tree]) -> Tree:
    return plans.joined("AND", trees) or condition.Joined("AND", ())


def attributes(bound: Bound) -> set[str]:
    """The names of all attributes that a statement names."""
    found = set(bound.item)
    if bound.where is not None:
        found |= condition.made(bound.where).attributes()
    if bound.updates is not None:
        found |= bound.updates.attributes() | {str(path[0]) for path in bound.updates.reads}
    statement = bound.statement
    if isinstance(statement, Select) and statement.columns is not None:
        found |= set(statement.columns.names())
    return found


def named(table: Table, bound: Bound) -> list[Item]:
    """What a statement names of the keys of its items, the hash key at least; nothing for a scan."""
    statement = bound.statement
    if isinstance(statement, Insert):
        keys = [bound.item]
    elif isinstance(statement, Select):
        index = table.indexes.get(statement.source.index or "")
        schema = index.schema if index is not None else table.schema
        found = plans.branches(schema, bound.where) or ()
        keys = [{schema.hash[0].name: branch.hash} for branch in found]
    else:
        keys = [plans.item_key(table.schema, bound.where, several=isinstance(statement, Exists))[0]]
    return keys
