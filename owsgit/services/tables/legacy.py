"""The parameters that DynamoDB had before it had expressions: Expected, AttributeUpdates, filters, KeyConditions.

Each becomes what an expression becomes: something that holds, is applied, projects, or is a range of keys. They are not
turned into expressions, for they can do some things that expressions cannot (ADD to a list), and have other limits.
Errors: ValidationError, in DynamoDB's words and order: attribute by attribute, each first for its values, then for how
many there are, then for their types. Source:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/LegacyConditionalParameters.html
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from owsgit.services.tables import numbers
from owsgit.services.tables.errors import INVALID, ValidationError
from owsgit.services.tables.keys import KeySchema
from owsgit.services.tables.values import AttributeValue, Item, check_value, compare, equal, type_of

_ANY = frozenset(("S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"))
_SETS = frozenset(("SS", "NS", "BS"))
_ORDERED = frozenset(("S", "N", "B"))

_OPERATOR_ALONE = "ConditionalOperator cannot be used without Filter or Expected"
_OPERATOR_OF_ONE = "ConditionalOperator can only be used when Filter or Expected has two or more elements"
_REVERSED = "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
_MIXED_TYPES = f"{INVALID}AttributeValues inside AttributeValueList must be of same type"
_VALUE_MISSING = f"{INVALID}Only DELETE action is allowed when no attribute value is specified"
_OTHER_TYPE = "Type mismatch for attribute to update"


class Operator(NamedTuple):
    """How many values a ComparisonOperator takes (`most` None for no bound), of which types, and when it holds.

    `holds` gets the attribute's value (None if it is missing) and the operator's.
    """

    least: int
    most: int | None
    types: frozenset[str]
    holds: Callable[[AttributeValue | None, Sequence[AttributeValue]], bool]


def _equals(value: AttributeValue | None, given: Sequence[AttributeValue]) -> bool:
    return value is not None and any(equal(value, each) for each in given)


def _ordered(holds: Callable[[int], bool]) -> Operator:
    def compared(value: AttributeValue | None, given: Sequence[AttributeValue]) -> bool:
        order = None if value is None else compare(value, given[0])
        return order is not None and holds(order)

    return Operator(1, 1, _ORDERED, compared)


def _between(value: AttributeValue | None, given: Sequence[AttributeValue]) -> bool:
    if value is None:
        return False
    low, high = compare(value, given[0]), compare(value, given[1])
    return low is not None and high is not None and low >= 0 and high <= 0


def _contains(value: AttributeValue | None, given: Sequence[AttributeValue]) -> bool:
    """A part of a string or binary, an element of a set or a list."""
    if value is None:
        return False
    [(kind, content)], [(wanted, part)] = value.items(), given[0].items()
    if kind == "L":
        return any(equal(element, given[0]) for element in content)
    return bool(kind in (wanted, f"{wanted}S") and kind in ("S", "B", *_SETS) and part in content)


def _begins(value: AttributeValue | None, given: Sequence[AttributeValue]) -> bool:
    [(kind, prefix)] = given[0].items()
    return value is not None and kind in value and bool(value[kind].startswith(prefix))


_CONTAINED = frozenset(("S", "N", "B", "BOOL", "NULL"))

OPERATORS: Mapping[str, Operator] = {
    "EQ": Operator(1, 1, _ANY, _equals),
    "NE": Operator(1, 1, _ANY, lambda value, given: not _equals(value, given)),
    "IN": Operator(1, None, _ORDERED, _equals),
    "LE": _ordered(lambda order: order <= 0),
    "LT": _ordered(lambda order: order < 0),
    "GE": _ordered(lambda order: order >= 0),
    "GT": _ordered(lambda order: order > 0),
    "BETWEEN": Operator(2, 2, _ORDERED, _between),
    "NOT_NULL": Operator(0, 0, _ANY, lambda value, _: value is not None),
    "NULL": Operator(0, 0, _ANY, lambda value, _: value is None),
    "CONTAINS": Operator(1, 1, _CONTAINED, _contains),
    "NOT_CONTAINS": Operator(1, 1, _CONTAINED, lambda value, given: not _contains(value, given)),
    "BEGINS_WITH": Operator(1, 1, frozenset(("S", "B")), _begins),
}
"""By their names. EQ to several values, as of IN, is to any of them."""


class Test(NamedTuple):
    """What has to be so of an attribute."""

    attribute: str
    operator: str
    values: Sequence[AttributeValue] = ()

    def holds(self, item: Item) -> bool:
        return OPERATORS[self.operator].holds(item.get(self.attribute), self.values)


@dataclass(frozen=True)
class Conditions:
    """Expected, QueryFilter or ScanFilter: all tests have to hold, or any of them (`any_of`)."""

    tests: tuple[Test, ...]
    any_of: bool = False

    def holds(self, item: Item) -> bool:
        """Of an item; of {} where there is none."""
        return (any if self.any_of else all)(test.holds(item) for test in self.tests)

    def attributes(self) -> set[str]:
        return {test.attribute for test in self.tests}


def expected(given: Mapping[str, Mapping[str, Any]], operator: str | None = None) -> Conditions:
    """The parameters Expected and ConditionalOperator (AND, OR)."""
    check_operator(operator, given)
    return Conditions(tuple(_expected(name, wanted) for name, wanted in given.items()), operator == "OR")


def filters(given: Mapping[str, Mapping[str, Any]], operator: str | None = None) -> Conditions:
    """The parameters QueryFilter or ScanFilter, and ConditionalOperator (AND, OR)."""
    check_operator(operator, given)
    return Conditions(tuple(_condition(name, wanted) for name, wanted in given.items()), operator == "OR")


def check_operator(operator: str | None, given: Mapping[str, Any] | None) -> None:
    """That a ConditionalOperator has at least two conditions to combine."""
    if operator is not None and not given:
        raise ValidationError(_OPERATOR_ALONE)
    if operator is not None and len(given or ()) < 2:
        raise ValidationError(_OPERATOR_OF_ONE)


def _condition(name: str, given: Mapping[str, Any]) -> Test:
    return _test(name, given["ComparisonOperator"], given.get("AttributeValueList") or ())


def _test(name: str, operator: str, given: Iterable[AttributeValue]) -> Test:
    values = [check_value(value) for value in given]
    least, most, types, _ = OPERATORS[operator]
    if len(values) < least or (most is not None and len(values) > most):
        raise ValidationError(f"{INVALID}Invalid number of argument(s) for the {operator} ComparisonOperator")
    kinds = [type_of(value) for value in values]
    if len(set(kinds)) > 1:
        raise ValidationError(_MIXED_TYPES)
    if kinds and kinds[0] not in types:
        raise ValidationError(f"{INVALID}ComparisonOperator {operator} is not valid for {kinds[0]} AttributeValue type")
    if operator == "BETWEEN" and compare(values[0], values[1]) == 1:
        raise ValidationError(_REVERSED)
    return Test(name, operator, values)


def _expected(name: str, given: Mapping[str, Any]) -> Test:
    operator, listed, value = (given.get(member) for member in ("ComparisonOperator", "AttributeValueList", "Value"))
    if listed is not None and value is not None:
        raise ValidationError(f"{INVALID}Value and AttributeValueList cannot be used together for Attribute: {name}")
    if operator is None:
        return _expected_value(name, given.get("Exists"), listed, value)
    if given.get("Exists") is not None:
        raise ValidationError(f"{INVALID}Exists and ComparisonOperator cannot be used together for Attribute: {name}")
    if listed is None and value is None and OPERATORS[operator].least:
        needs = f"Value or AttributeValueList must be used with ComparisonOperator: {operator} for Attribute: {name}"
        raise ValidationError(f"{INVALID}{needs}")
    return _test(name, operator, (listed or ()) if value is None else (value,))


def _expected_value(name: str, exists: bool | None, listed: Any, value: AttributeValue | None) -> Test:
    """What is expected without a ComparisonOperator: that the attribute has a value, or is not there."""
    if listed is not None:
        raise ValidationError(
            f"{INVALID}AttributeValueList can only be used with a ComparisonOperator for Attribute: {name}"
        )
    if exists is False:
        if value is not None:
            raise ValidationError(f"{INVALID}Value cannot be used when Exists is false for Attribute: {name}")
        return Test(name, "NULL")
    if value is None:
        shown = "null" if exists is None else "true"
        raise ValidationError(f"{INVALID}Value must be provided when Exists is {shown} for Attribute: {name}")
    return _test(name, "EQ", (value,))


def check_query_filter(conditions: Conditions, schema: KeySchema) -> None:
    """That a QueryFilter is not on keys of the table or index that is queried: those belong into KeyConditions."""
    for name in schema.names():
        if name in conditions.attributes():
            raise ValidationError(
                f"QueryFilter can only contain non-primary key attributes: Primary key attribute: {name}"
            )


class Change(NamedTuple):
    """What is done to an attribute: PUT, ADD or DELETE; `value` is None only for DELETE."""

    attribute: str
    action: str
    value: AttributeValue | None


@dataclass(frozen=True)
class AttributeUpdates:
    changes: tuple[Change, ...]

    def apply(self, item: Item) -> Item:
        """A new item. Raises ValidationError if an attribute has another type than what is added or deleted."""
        result = dict(item)
        for name, action, value in self.changes:
            found = _changed(result.get(name), action, value)
            if found is None:
                result.pop(name, None)
            else:
                result[name] = found
        return result

    def attributes(self) -> set[str]:
        return {change.attribute for change in self.changes}

    def updated_old(self, item: Item) -> Item:
        """What is changed, of the item before."""
        return {change.attribute: item[change.attribute] for change in self.changes if change.attribute in item}

    def updated_new(self, item: Item) -> Item:
        """What was changed, of the item after."""
        return self.updated_old(item)


_ACTION_TYPES = {"ADD": _SETS | {"N", "L"}, "DELETE": _SETS}


def attribute_updates(given: Mapping[str, Mapping[str, Any]]) -> AttributeUpdates:
    """The parameter AttributeUpdates."""
    return AttributeUpdates(tuple(_change(name, update) for name, update in given.items()))


def _change(name: str, given: Mapping[str, Any]) -> Change:
    action, value = given.get("Action") or "PUT", given.get("Value")
    if value is None:
        if action != "DELETE":
            raise ValidationError(_VALUE_MISSING)
        return Change(name, action, None)
    value = check_value(value)
    if type_of(value) not in _ACTION_TYPES.get(action, _ANY):
        with_value = " with value" if action == "DELETE" else ""
        raise ValidationError(f"{INVALID}{action} action{with_value} is not supported for the type {type_of(value)}")
    return Change(name, action, value)


def _changed(old: AttributeValue | None, action: str, value: AttributeValue | None) -> AttributeValue | None:
    """The value after a change; None if there is none."""
    if value is None or action == "PUT":
        return value
    if old is None:
        return value if action == "ADD" else None
    [(kind, content)] = value.items()
    if kind not in old:
        raise ValidationError(_OTHER_TYPE)
    if kind == "N":
        return {"N": numbers.add(old["N"], content)}
    if kind == "L":
        return {"L": [*old["L"], *content]}
    if action == "ADD":
        return {kind: list(dict.fromkeys((*old[kind], *content)))}
    deleted = set(content)
    left = [element for element in old[kind] if element not in deleted]
    return {kind: left} if left else None


@dataclass(frozen=True)
class AttributesToGet:
    names: tuple[str, ...]

    def of(self, item: Item) -> Item:
        return {name: item[name] for name in self.names if name in item}


def attributes_to_get(names: Sequence[str]) -> AttributesToGet:
    """The parameter AttributesToGet: names of attributes, not paths in them."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValidationError(f"{INVALID}Duplicate value in attribute name: {name}")
        seen.add(name)
    return AttributesToGet(tuple(names))
