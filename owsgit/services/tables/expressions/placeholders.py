"""ExpressionAttributeNames and ExpressionAttributeValues: what #names and :values of a request's expressions stand for.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.ExpressionAttributeNames.html
"""

import re
from collections.abc import Iterable, Mapping

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions.tokens import Problem
from owsgit.services.tables.values import NAME_BYTES_MAX, AttributeValue, check_value, size

KEY_BYTES_MAX = 255
TOTAL_BYTES_MAX = 2 * 1024 * 1024
"""Of all values together."""

_NAME = re.compile(r"#[A-Za-z0-9_]+")
_VALUE = re.compile(r":[A-Za-z0-9_]+")
_NAMES, _VALUES = "ExpressionAttributeNames", "ExpressionAttributeValues"


class Placeholders:
    """The placeholders of one request. Remembers which of them its expressions used."""

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, AttributeValue] | None = None,
        expressions: Mapping[str, str | None] | None = None,
    ) -> None:
        """Checks the placeholders themselves. Numbers in values get their normal form.

        `expressions` are those that the operation can have, by their parameters, None where the request has none: the
        first thing that DynamoDB says of placeholders is that there is no expression for them.
        """
        if expressions is not None:
            _check_use(names, values, expressions)
        self._names: Mapping[str, str] = {} if names is None else _checked_names(names)
        self._values: Mapping[str, AttributeValue] = {} if values is None else _checked_values(values)
        self._unused_names = set(self._names)
        self._unused_values = set(self._values)

    def name(self, key: str) -> str:
        """The attribute's name that a #key stands for. Raises Problem."""
        found = self._names.get(key)
        if found is None:
            raise Problem(
                f"An expression attribute name used in the document path is not defined; attribute name: {key}"
            )
        self._unused_names.discard(key)
        return found

    def value(self, key: str) -> AttributeValue:
        """The value that a :key stands for. Raises Problem."""
        found = self._values.get(key)
        if found is None:
            raise Problem(f"An expression attribute value used in expression is not defined; attribute value: {key}")
        self._unused_values.discard(key)
        return found

    def finish(self) -> None:
        """Once all expressions of the request are parsed: none may be left over."""
        if self._unused_names:
            raise _unused(_NAMES, self._names, self._unused_names)
        if self._unused_values:
            raise _unused(_VALUES, self._values, self._unused_values)


def _unused(what: str, given: Iterable[str], unused: set[str]) -> ValidationError:
    keys = ", ".join(key for key in given if key in unused)
    return ValidationError(f"Value provided in {what} unused in expressions: keys: {{{keys}}}")


def _check_use(
    names: Mapping[str, str] | None,
    values: Mapping[str, AttributeValue] | None,
    expressions: Mapping[str, str | None],
) -> None:
    if names is not None and all(text is None for text in expressions.values()):
        raise ValidationError(f"{_NAMES} can only be specified when using expressions")
    # A projection has no values.
    having = [name for name in expressions if name != "ProjectionExpression"]
    if values is not None and all(expressions[name] is None for name in having):
        alone = f"{_VALUES} can only be specified when using expressions"
        null = f"{' and '.join(having)} {'are' if len(having) > 1 else 'is'} null"
        raise ValidationError(alone, older=f"{alone}: {null}")


def _check_keys(what: str, given: Iterable[str], form: re.Pattern[str]) -> None:
    for key in given:
        if not key:
            raise ValidationError(f"{what} contains invalid key: The expression attribute map contains an empty key;")
        if not form.fullmatch(key):
            raise ValidationError(f'{what} contains invalid key: Syntax error; key: "{key}"')
        if len(key) > KEY_BYTES_MAX:
            raise ValidationError(
                f"{what} contains invalid key: The expression attribute map contains a key that is too long; "
                f"key length: {len(key)}"
            )


def _checked_names(names: Mapping[str, str]) -> Mapping[str, str]:
    if not names:
        raise ValidationError(f"{_NAMES} must not be empty")
    _check_keys(_NAMES, names, _NAME)
    for key, name in names.items():
        if not name:
            raise ValidationError(f"{_NAMES} contains invalid value: Empty attribute name for key {key}")
        if not name.isascii() or len(name) > NAME_BYTES_MAX:
            _check_name(key, name)
    return names


def _check_name(key: str, name: str) -> None:
    try:
        long = len(name.encode()) > NAME_BYTES_MAX
    except UnicodeEncodeError:
        raise ValidationError(f"{_NAMES} contains invalid value: Not valid UTF-8 for key {key}") from None
    if long:
        raise ValidationError(
            f"{_NAMES} contains invalid value: "
            f"Attribute name is too large, must be less than {NAME_BYTES_MAX + 1} bytes for key {key}"
        )


def _checked_values(values: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue]:
    if not values:
        raise ValidationError(f"{_VALUES} must not be empty")
    _check_keys(_VALUES, values, _VALUE)
    checked = {}
    for key, value in values.items():
        try:
            checked[key] = check_value(value)
        except ValidationError as error:
            wrapped = f"{_VALUES} contains invalid value: {error.older} for key {key}"
            raise ValidationError(error.message, older=wrapped) from None
    if size(checked) > TOTAL_BYTES_MAX:
        raise ValidationError(f"{_VALUES} exceeds max size")
    return checked
