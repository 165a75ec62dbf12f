"""What parameters of several operations are together: expressions or legacy ones, in DynamoDB's order of checks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from owsgit.services.tables import legacy
from owsgit.services.tables.catalog import Catalog, Table
from owsgit.services.tables.errors import INVALID, ValidationError
from owsgit.services.tables.expressions import Placeholders, condition, projection, update
from owsgit.services.tables.expressions.condition import Condition
from owsgit.services.tables.expressions.operands import Steps
from owsgit.services.tables.expressions.projection import Projection
from owsgit.services.tables.expressions.update import Update
from owsgit.services.tables.keys import KeySchema

Given = Mapping[str, Any]


class Operations:
    """What all operations need: the tables."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog


def placeholders(
    names: Mapping[str, str] | None, values: Given | None, expressions: Mapping[str, str | None], legacies: Given
) -> Placeholders:
    """`expressions` and `legacies` by their parameters: no request has both."""
    olds = [name for name, value in legacies.items() if value is not None]
    if olds:
        news = [name for name, text in expressions.items() if text is not None]
        if news:
            raise ValidationError(
                "Can not use both expression and non-expression parameters in the same request: "
                f"Non-expression parameters: {{{', '.join(olds)}}} Expression parameters: {{{', '.join(news)}}}"
            )
    if names is None and values is None:
        return NO_PLACEHOLDERS if not any(expressions.values()) else Placeholders()
    return Placeholders(names, values, expressions)


NO_PLACEHOLDERS = Placeholders()
"""For requests without expressions."""


def check_empty(text: str | None, what: str) -> None:
    if text is not None and not text:
        raise ValidationError(f"Invalid {what}: The expression can not be empty;")


@dataclass(frozen=True)
class Conditional:
    """What PutItem, DeleteItem and UpdateItem have in common."""

    expected: Given | None
    operator: str | None
    text: str | None
    names: Mapping[str, str] | None
    values: Given | None

    def placeholders(self, more: Mapping[str, str | None] | None = None, legacies: Given | None = None) -> Placeholders:
        """`more` expressions and `legacies`: those of the operation alone."""
        given = (self.names, self.values, self.text, self.expected, self.operator)
        if not more and not legacies and all(each is None for each in given):
            return NO_PLACEHOLDERS
        return placeholders(
            self.names,
            self.values,
            {**(more or {}), "ConditionExpression": self.text},
            {**(legacies or {}), "Expected": self.expected, "ConditionalOperator": self.operator},
        )

    def old(self) -> Condition | None:
        """The legacy condition."""
        legacy.check_operator(self.operator, self.expected)
        return legacy.expected(self.expected, self.operator) if self.expected else None

    def new(self, found: Placeholders) -> Condition | None:
        """The condition of the expression."""
        check_empty(self.text, "ConditionExpression")
        return condition.parse(self.text, found) if self.text is not None else None


def updates(text: str | None, found: Placeholders) -> Update | None:
    check_empty(text, "UpdateExpression")
    return update.parse(text, found) if text is not None else None


def check_key_stays(schema: KeySchema, changed: Update | None) -> None:
    touched = changed.attributes() if changed is not None else set()
    for name in schema.names():
        if name in touched:
            raise ValidationError(f"{INVALID}Cannot update attribute {name}. This attribute is part of the key")


def check_scalar_keys(table: Table, paths: Iterable[Steps]) -> None:
    """That no path of an expression leads into a key of the table or of its indexes."""
    nested = {path[0] for path in paths if len(path) > 1}
    if not nested:
        return
    for name in table.schema.names():
        if name in nested:
            raise ValidationError(f"{_SCALARS} Key: {name}")
    for index in table.indexes.values():
        for name in index.schema.names():
            if name in nested:
                raise ValidationError(f"{_SCALARS} IndexKey: {name}")


def check_condition(table: Table, condition: Condition | None) -> None:
    if condition is not None:
        check_scalar_keys(table, condition.paths)


_SCALARS = "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed:"


def check_update(table: Table, changed: Update | None, *, types: bool = False) -> None:
    """That an update leaves the table's key as it is, and leads into no key.

    `types`: and gives the keys of indexes their types, as far as it says without an item.
    """
    check_key_stays(table.schema, changed)
    if changed is None:
        return
    if types:
        _check_index_types(table, changed.types())
    check_scalar_keys(table, (*changed.paths, *changed.reads))


def _check_index_types(table: Table, types: Mapping[str, str]) -> None:
    for index in table.indexes.values():
        for name, kind in (*index.schema.hash, *index.schema.range):
            if types.get(name, kind) != kind:
                mismatch = f"Type mismatch for Index Key {name} Expected: {kind} Actual: {types[name]}"
                raise ValidationError(f"{INVALID}{mismatch} IndexName: {index.name}")


def shows(names: list[str] | None, text: str | None, found: Placeholders) -> Projection | None:
    """What is wanted of items; None for all."""
    if names is not None:
        return legacy.attributes_to_get(names)
    check_empty(text, "ProjectionExpression")
    return projection.parse(text, found) if text is not None else None


def check_return_values(given: str, *taken: str) -> None:
    if given not in taken:
        raise ValidationError(f"ReturnValues can only be {' or '.join(taken)}")
