"""Key condition expressions: which part of a table or an index is queried.

DynamoDB looks at them in three steps, with other checks in between, as do its callers: `read` (syntax and
placeholders), `KeyCondition.check` (what key conditions may be at all) and `KeyCondition.range` (do they fit the keys
of the table or index). `parse` is all of it. Sources:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.KeyConditionExpressions.html and, for several
attributes, https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.DesignPattern.MultiAttributeKeys.html
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from owsgit.services.tables.engine import Position, Span
from owsgit.services.tables.errors import INVALID, NOT_VALID, ValidationError
from owsgit.services.tables.expressions import condition
from owsgit.services.tables.expressions.condition import Compared, Joined, Tree
from owsgit.services.tables.expressions.operands import Call, Literal, Path
from owsgit.services.tables.expressions.placeholders import Placeholders
from owsgit.services.tables.expressions.tokens import Problem
from owsgit.services.tables.keys import Attribute, KeySchema, after, before, encode, encode_all, last
from owsgit.services.tables.values import AttributeValue

FLIPPED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPERATORS = frozenset((*FLIPPED, "BETWEEN", "begins_with"))
_NOT_SUPPORTED = "Query key condition not supported"
_WORDS = {"S": "string", "B": "binary"}


class Term(NamedTuple):
    """What is wanted of one key attribute. `operator`: =, <, <=, >, >=, BETWEEN (two values) or begins_with."""

    operator: str
    values: tuple[AttributeValue, ...]


class Bounds(NamedTuple):
    """The bytes of the hash key, and those between which the range keys are, both inclusive; None for no bound."""

    hash: bytes
    low: bytes | None
    high: bytes | None


@dataclass(frozen=True)
class KeyRange:
    """Items of one hash key, in a range of their range keys. Good only with the schema that it was made for.

    `equal`: the values of the first range attributes. `term`: what is wanted of the one after them, if anything is;
    `rest`: how many range attributes there are after that.
    """

    hash: tuple[AttributeValue, ...]
    equal: tuple[AttributeValue, ...] = ()
    term: Term | None = None
    rest: int = 0
    several: bool = False
    """Whether the range key has several attributes: then bytes are those of `encode_all`."""

    def bounds(self) -> Bounds:
        hashed = encode(self.hash[0]) if len(self.hash) == 1 else encode_all(self.hash)
        low, high = self._range()
        return Bounds(hashed, low, high)

    def span(self, table: str, index: str = "", *, backwards: bool = False, after: Position | None = None) -> Span:
        """For an engine: this range of a table (index '') or of an index."""
        hashed, low, high = self.bounds()
        return Span(table, index, hashed, low, high, backwards, after)

    def _range(self) -> tuple[bytes | None, bytes | None]:
        if self.term is None:
            if not self.equal:
                return None, None
            if not self.several:
                return encode(self.equal[0]), encode(self.equal[0])
            prefix = encode_all(self.equal)
            return prefix, last(prefix) if self.rest else prefix
        return self._term_range(self.term)

    def _term_range(self, term: Term) -> tuple[bytes | None, bytes | None]:
        # Whatever else is equal bounds both sides.
        prefix = encode_all(self.equal)
        low: bytes | None = prefix or None
        high: bytes | None = last(prefix) if prefix else None
        first, end = self._encoded(term.values[0]), self._encoded(term.values[-1])
        match term.operator:
            case "<":
                below = before(first)
                return (low, below) if below is not None else (b"\x00", b"")  # nothing is below: an empty range
            case "<=":
                return low, self._through(first)
            case ">":
                return after(self._through(first)), high
            case ">=":
                return first, high
            case "BETWEEN":
                return first, self._through(end)
            case _:
                start = encode(term.values[0])
                if self.several:
                    # As in encode_all, but not ended: it goes on.
                    start = prefix + encode_all(term.values)[:-2]
                return start, last(start)

    def _encoded(self, value: AttributeValue) -> bytes:
        return encode_all((*self.equal, value)) if self.several else encode(value)

    def _through(self, encoded: bytes) -> bytes:
        """The highest bytes of a range key whose attributes so far have these."""
        return last(encoded) if self.rest else encoded


class KeyCondition:
    """A key condition expression whose syntax and placeholders are good."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._terms: dict[str, Term] = {}

    def check(self) -> Mapping[str, Term]:
        """What is wanted, by attribute. Raises ValidationError for what no key condition can be."""
        if not self._terms:
            for name, term in _terms(self._tree):
                if name in self._terms:
                    raise ValidationError("KeyConditionExpressions must only contain one condition per key")
                self._terms[name] = term
        return self._terms

    def range(self, schema: KeySchema) -> KeyRange:
        """Raises ValidationError if it does not fit the keys."""
        return range_of(self.check(), schema)


def read(text: str, placeholders: Placeholders) -> KeyCondition:
    try:
        return KeyCondition(condition.bound(condition.read(text), placeholders))
    except Problem as problem:
        raise ValidationError(f"Invalid KeyConditionExpression: {problem}") from None


def parse(text: str, placeholders: Placeholders, schema: KeySchema) -> KeyRange:
    return read(text, placeholders).range(schema)


def _terms(tree: Tree) -> Iterator[tuple[str, Term]]:
    if isinstance(tree, Joined):
        if tree.operator != "AND":
            raise _operator(tree.operator)
        for each in tree.conditions:
            yield from _terms(each)
        return
    yield _term(tree)


def _operator(name: str) -> ValidationError:
    return ValidationError(f"Invalid operator used in KeyConditionExpression: {name}")


def _invalid(problem: str) -> ValidationError:
    return ValidationError(f"Invalid condition in KeyConditionExpression: {problem}")


def _term(compared: Compared) -> tuple[str, Term]:
    operator, operands = compared
    if operator not in _OPERATORS:
        raise _operator(operator)
    if operator in ("BETWEEN", "begins_with") and not isinstance(operands[0], Path):
        raise _invalid(f"{operator} operator must have the key attribute as its first operand")
    name = ""
    values = []
    for operand in operands:
        if isinstance(operand, Call):
            raise ValidationError("KeyConditionExpressions cannot contain nested operations")
        if isinstance(operand, Path):
            if name:
                raise _invalid("Multiple attribute names used in one condition")
            if len(operand.steps) > 1:
                raise ValidationError("KeyConditionExpressions cannot have conditions on nested attributes")
            name = str(operand.steps[0])
        elif isinstance(operand, Literal):
            values.append(operand.value)
    if not name:
        raise _invalid("No key attribute specified")
    if operator in FLIPPED and not isinstance(operands[0], Path):
        operator = FLIPPED[operator]
    return name, Term(operator, tuple(values))


def range_of(terms: Mapping[str, Term], schema: KeySchema) -> KeyRange:
    """The range of all that is wanted of the keys, of expressions or legacy parameters."""
    if len(terms) > 2 and len(schema.hash) == 1 and len(schema.range) <= 1:
        raise ValidationError("Conditions can be of length 1 or 2 only")
    hashes = [_wanted(terms, attribute) for attribute in schema.hash]
    if any(term.operator != "=" for term in hashes):
        raise ValidationError(_NOT_SUPPORTED)
    wanted = len(terms) - len(hashes)
    ranges = [_wanted(terms, attribute) for attribute in schema.range[:wanted]]
    if wanted > len(ranges) or any(term.operator != "=" for term in ranges[:-1]):
        raise ValidationError(_NOT_SUPPORTED)
    several = len(schema.range) > 1
    rest = len(schema.range) - wanted
    hashed = tuple(term.values[0] for term in hashes)
    if ranges and ranges[-1].operator != "=":
        return KeyRange(hashed, _first_values(ranges[:-1]), ranges[-1], rest, several)
    return KeyRange(hashed, _first_values(ranges), None, rest, several)


def _first_values(terms: Sequence[Term]) -> tuple[AttributeValue, ...]:
    return tuple(term.values[0] for term in terms)


def _wanted(terms: Mapping[str, Term], attribute: Attribute) -> Term:
    name, kind = attribute
    term = terms.get(name)
    if term is None:
        raise ValidationError(f"Query condition missed key schema element: {name}")
    for value in term.values:
        if kind not in value:
            raise ValidationError(f"{INVALID}Condition parameter type does not match schema type")
    for value in term.values:
        if not value[kind]:
            raise ValidationError(
                f"{NOT_VALID}The AttributeValue for a key attribute cannot contain an empty {_WORDS[kind]} value. "
                f"Key: {name}"
            )
    return term
