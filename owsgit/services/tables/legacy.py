"""The parameters that DynamoDB had before it had expressions: Expected, AttributeUpdates, filters, KeyConditions.

Each becomes what an expression becomes, but not by way of one: they can do what expressions cannot (ADD to a list), and
have no limits of length and count. Errors: ValidationError, in DynamoDB's words and order: attribute by attribute, each
first for its values, then for how many there are, then for their types. Source:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/LegacyConditionalParameters.html
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from owsgit.services.tables import numbers
from owsgit.services.tables.errors import INVALID, ValidationError
from owsgit.services.tables.expressions.condition import Condition, begins, contains
from owsgit.services.tables.expressions.keycondition import KeyRange, Term, range_of
from owsgit.services.tables.expressions.paths import Paths
from owsgit.services.tables.expressions.projection import Projection
from owsgit.services.tables.expressions.update import Action, Delete, Remove, Set, Update
from owsgit.services.tables.keys import KeySchema
from owsgit.services.tables.values import AttributeValue, Item, check_value, compare, equal, type_of

_ANY = frozenset(("S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"))
_ORDERED = frozenset(("S", "N", "B"))

_OPERATOR_ALONE = "ConditionalOperator cannot be used without Filter or Expected"
_OPERATOR_OF_ONE = "ConditionalOperator can only be used when Filter or Expected has two or more elements"
_REVERSED = "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
_MIXED_TYPES = f"{INVALID}AttributeValues inside AttributeValueList must be of same type"
_VALUE_MISSING = f"{INVALID}Only DELETE action is allowed when no attribute value is specified"
_TOO_MANY_KEYS = "Conditions can be of length 1 or 2 only"
_NOT_INDEXABLE = "Attempted conditional constraint is not an indexable operation"
_NOT_SUPPORTED = "Query key condition not supported"
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
    return value is not None and contains(value, given[0])


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
    "BEGINS_WITH": Operator(
        1, 1, frozenset(("S", "B")), lambda value, given: value is not None and begins(value, given[0])
    ),
}
"""By their names. EQ to several values, as of IN, is to any of them."""


class Test(NamedTuple):
    """What has to be so of an attribute."""

    attribute: str
    operator: str
    values: Sequence[AttributeValue] = ()

    def holds(self, item: Item) -> bool:
        return OPERATORS[self.operator].holds(item.get(self.attribute), self.values)


def expected(given: Mapping[str, Mapping[str, Any]], operator: str | None = None) -> Condition:
    """The parameters Expected and ConditionalOperator (AND, OR)."""
    check_operator(operator, given)
    return _joined([_expected(name, wanted) for name, wanted in given.items()], operator)


def filters(given: Mapping[str, Mapping[str, Any]], operator: str | None = None) -> Condition:
    """The parameters QueryFilter or ScanFilter, and ConditionalOperator (AND, OR)."""
    check_operator(operator, given)
    return _joined([_condition(name, wanted) for name, wanted in given.items()], operator)


def _joined(tests: Sequence[Test], operator: str | None) -> Condition:
    combine = any if operator == "OR" else all

    def holds(item: Item) -> bool:
        return combine(test.holds(item) for test in tests)

    return Condition(holds, [(test.attribute,) for test in tests], (_joined, (tests, operator)))


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


def check_query_filter(condition: Condition, schema: KeySchema) -> None:
    """That a QueryFilter is not on keys of the table or index that is queried: those belong into KeyConditions."""
    for name in schema.names():
        if name in condition.attributes():
            raise ValidationError(
                f"QueryFilter can only contain non-primary key attributes: Primary key attribute: {name}"
            )


@dataclass(frozen=True)
class KeyConditions:
    tests: tuple[Test, ...]

    def range(self, schema: KeySchema) -> KeyRange:
        """Raises ValidationError if they do not fit the keys of the table or index."""
        names = schema.names()
        if len(self.tests) > len(names):
            raise ValidationError(_NOT_SUPPORTED)
        tests = {test.attribute: test for test in self.tests}
        for name in names:
            if name not in tests:
                break  # what is said of what is missing comes first
            if tests[name].operator not in _KEY_OPERATORS:
                raise ValidationError(_NOT_INDEXABLE)
        terms = {
            test.attribute: Term(_KEY_OPERATORS.get(test.operator, test.operator), tuple(test.values))
            for test in self.tests
        }
        return range_of(terms, schema)


_KEY_OPERATORS = {
    "EQ": "=", "LE": "<=", "LT": "<", "GE": ">=", "GT": ">", "BETWEEN": "BETWEEN", "BEGINS_WITH": "begins_with"
}  # fmt: skip
"""Those that keys can have, as key condition expressions have them."""

_KEY_ATTRIBUTES_MAX = 8
"""Of an index: four of its hash and four of its range key."""


def key_conditions(given: Mapping[str, Mapping[str, Any]]) -> KeyConditions:
    """The parameter KeyConditions."""
    tests = tuple(_condition(name, wanted) for name, wanted in given.items())
    if not 1 <= len(tests) <= _KEY_ATTRIBUTES_MAX:
        raise ValidationError(_TOO_MANY_KEYS)
    return KeyConditions(tests)


_ACTION_TYPES = {"ADD": frozenset(("N", "SS", "NS", "BS", "L")), "DELETE": frozenset(("SS", "NS", "BS"))}


class AttributeUpdates(Update):
    """What AttributeUpdates do to an item: what update expressions do, and ADD to lists, in words of their own."""

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__(actions, (), Paths(action.path for action in actions))

    def apply(self, item: Item) -> Item:
        """A new item. Raises ValidationError if an attribute has another type than what is added or deleted."""
        for action in self._actions:
            if isinstance(action, Delete):
                _check_same_type(item.get(str(action.path[0])), action.value)
        return super().apply(item)


def _check_same_type(old: AttributeValue | None, value: AttributeValue) -> None:
    if old is not None and type_of(value) not in old:
        raise ValidationError(_OTHER_TYPE)


def attribute_updates(given: Mapping[str, Mapping[str, Any]]) -> AttributeUpdates:
    """The parameter AttributeUpdates."""
    return AttributeUpdates([_action(name, update) for name, update in given.items()])


def _action(name: str, given: Mapping[str, Any]) -> Action:
    action, value = given.get("Action") or "PUT", given.get("Value")
    if value is None:
        if action != "DELETE":
            raise ValidationError(_VALUE_MISSING)
        return Remove((name,))
    checked = check_value(value)
    if type_of(checked) not in _ACTION_TYPES.get(action, _ANY):
        with_value = " with value" if action == "DELETE" else ""
        raise ValidationError(f"{INVALID}{action} action{with_value} is not supported for the type {type_of(checked)}")
    if action == "DELETE":
        return Delete((name,), checked)
    return _set(name, action, checked)


def _set(name: str, action: str, value: AttributeValue) -> Set:
    def compute(item: Item) -> AttributeValue:
        return _added(item.get(name), value) if action == "ADD" else value

    return Set((name,), compute, type_of(value), (_set, (name, action, value)))


def _added(old: AttributeValue | None, value: AttributeValue) -> AttributeValue:
    """ADD of a value to an attribute: a sum, a union of sets, or a list at the end of another."""
    if old is None:
        return value
    _check_same_type(old, value)
    [(kind, content)] = value.items()
    if kind == "N":
        return {"N": numbers.add(old["N"], content)}
    joined = (*old[kind], *content)
    return {kind: list(joined if kind == "L" else dict.fromkeys(joined))}


def attributes_to_get(names: Sequence[str]) -> Projection:
    """The parameter AttributesToGet: names of attributes, not paths in them."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValidationError(f"{INVALID}Duplicate value in attribute name: {name}")
        seen.add(name)
    return Projection([(name,) for name in names])
