"""What parameters of several operations are together: expressions or legacy ones, in DynamoDB's order of checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from owsgit.services.tables import legacy
from owsgit.services.tables.catalog import Catalog
from owsgit.services.tables.errors import INVALID, ValidationError
from owsgit.services.tables.expressions import Placeholders, condition, projection, update
from owsgit.services.tables.expressions.condition import Condition
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


def shows(names: list[str] | None, text: str | None, found: Placeholders) -> Projection | None:
    """What is wanted of items; None for all."""
    if names is not None:
        return legacy.attributes_to_get(names)
    check_empty(text, "ProjectionExpression")
    return projection.parse(text, found) if text is not None else None


def check_return_values(given: str, *taken: str) -> None:
    if given not in taken:
        raise ValidationError(f"ReturnValues can only be {' or '.join(taken)}")
