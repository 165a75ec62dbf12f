"""Which keys a statement names: the item that is written, or the parts of a table or an index that are read.

A SELECT whose condition bounds the hash key to values is that many queries, one after the other; any other is a scan.
Conditions here are bound: they have no parameters any more. What a query's keys do not say is left as its filter.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, islice
from typing import NamedTuple

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions.condition import Compared, Joined, Tree
from owsgit.services.tables.expressions.keycondition import FLIPPED, KeyRange, Term, range_of
from owsgit.services.tables.expressions.operands import Literal, Operand, Path
from owsgit.services.tables.keys import Attribute, KeySchema
from owsgit.services.tables.partiql.statements import Order
from owsgit.services.tables.values import AttributeValue, Item, equal

READS_MAX = 50
"""Queries of one statement."""

NOT_ALL_KEYS = "Where clause does not contain a mandatory equality on all key attributes"
_OVERLAPPING = "Overlapping conditions with range keys are not supported in where clause"
_TOO_MANY = "Too many decomposed read operations for a given query."
_RANGES = frozenset(("=", "<", "<=", ">", ">=", "BETWEEN", "begins_with"))


class Branch(NamedTuple):
    """One query. `rest`: the conditions that are its filter, all of which have to hold."""

    hash: AttributeValue
    term: Term | None = None
    rest: tuple[Tree, ...] = ()


class Comparison(NamedTuple):
    """What a condition says of one attribute with values alone."""

    name: str
    term: Term


def conjuncts(tree: Tree | None) -> Iterator[Tree]:
    """The conditions all of which have to hold."""
    if isinstance(tree, Joined) and tree.operator == "AND":
        for each in tree.conditions:
            yield from conjuncts(each)
    elif tree is not None:
        yield tree


def joined(operator: str, trees: Sequence[Tree]) -> Tree | None:
    return None if not trees else trees[0] if len(trees) == 1 else Joined(operator, tuple(trees))


def comparison(tree: Tree) -> Comparison | None:
    """None for all conditions that no key can be found by. IN is one of `=` with several values."""
    if not isinstance(tree, Compared) or tree.operator not in (*_RANGES, "IN"):
        return None
    operator, operands = tree
    if operator in FLIPPED and isinstance(operands[0], Literal):
        operator, operands = FLIPPED[operator], operands[::-1]
    name, values = _top(operands[0]), [each.value for each in operands[1:] if isinstance(each, Literal)]
    if name is None or len(values) < len(operands) - 1:
        return None
    return Comparison(name, Term("=" if operator == "IN" else operator, tuple(values)))


def _top(operand: Operand) -> str | None:
    is_top = isinstance(operand, Path) and len(operand.steps) == 1
    return str(operand.steps[0]) if is_top and isinstance(operand, Path) else None


# Items


def item_key(schema: KeySchema, where: Tree | None, *, several: bool = False) -> tuple[Item, list[Tree]]:
    """The key that equalities name, as far as they do, and all conditions beside it.

    `several`: where a key attribute has two values, the second one is a condition as any other.
    """
    key: Item = {}
    rest = []
    for tree in conjuncts(where):
        found = comparison(tree) if isinstance(tree, Compared) and tree.operator == "=" else None
        if found is None or found.name not in schema.names():
            rest.append(tree)
            continue
        [value] = found.term.values
        known = key.setdefault(found.name, value)
        if not equal(known, value):
            if not several:
                raise ValidationError(
                    f"Multiple conditions on same key {found.name}. Only single item Update/Insert/Delete are supported"
                )
            rest.append(tree)
    return key, rest


def only_key(schema: KeySchema, where: Tree | None) -> Item | None:
    """The key of the one item that a SELECT reads; None if it says anything else, or less."""
    key: Item = {}
    for tree in conjuncts(where):
        found = comparison(tree)
        if found is None or found.name not in schema.names():
            return None
        operator, values = found.term
        if operator != "=" or len(values) > 1 or not equal(key.setdefault(found.name, values[0]), values[0]):
            return None
    return key if len(key) == len(schema.names()) else None


# Reads


def branches(schema: KeySchema, where: Tree | None) -> list[Branch] | None:
    """The queries that read what the condition wants; None for a scan. The schema has one hash attribute."""
    hashed = schema.hash[0]
    found = _branches(hashed, where)
    if found is None:
        return None
    ranged = schema.range[0] if schema.range else None
    if ranged is not None:
        # Not all of them if there are too many: each OR may double them.
        found = list(islice((each for branch in found for each in _with_range(ranged, branch)), READS_MAX + 1))
    if len(found) > READS_MAX:
        raise ValidationError(_TOO_MANY)
    for branch in found:
        _check_types(hashed, [branch.hash])
        if branch.term is not None and ranged is not None:
            _check_types(ranged, branch.term.values)
    return _apart(schema, found, where)


def _branches(hashed: Attribute, where: Tree | None) -> list[Branch] | None:
    if where is None:
        return None
    if isinstance(where, Joined) and where.operator == "OR":
        found: list[Branch] = []
        for tree in where.conditions:
            own = _branches(hashed, tree)
            if own is None:
                return None
            found += own
            _check_count(found)
        return found
    parts = list(conjuncts(where))
    for place, tree in enumerate(parts):
        own = _of_one(hashed, tree)
        if own is not None:
            rest = (*parts[:place], *parts[place + 1 :])
            return [branch._replace(rest=(*branch.rest, *rest)) for branch in own]
    return None


def _of_one(hashed: Attribute, tree: Tree) -> list[Branch] | None:
    """The branches of one of the conditions all of which have to hold."""
    if isinstance(tree, Joined):
        return _branches(hashed, tree) if tree.operator == "OR" else None
    found = comparison(tree)
    if found is None or found.name != hashed.name or found.term.operator != "=":
        return None
    return [Branch(value) for value in found.term.values]


def _check_count(found: Sequence[Branch]) -> None:
    if len(found) > READS_MAX:
        raise ValidationError(_TOO_MANY)


def _with_range(ranged: Attribute, branch: Branch) -> Iterator[Branch]:
    """The branch by its range key, if it says something of it: each value of an IN, each part of an OR is a query."""
    for place, tree in enumerate(branch.rest):
        others = (*branch.rest[:place], *branch.rest[place + 1 :])
        found = comparison(tree)
        if found is not None and found.name == ranged.name:
            operator, values = found.term
            if operator != "=":
                yield branch._replace(term=found.term, rest=others)
                return
            for value in values:
                yield branch._replace(term=Term("=", (value,)), rest=others)
            return
        if isinstance(tree, Joined) and tree.operator == "OR" and any(_says(ranged, each) for each in tree.conditions):
            for each in tree.conditions:
                yield from _with_range(ranged, branch._replace(rest=(*conjuncts(each), *others)))
            return
    yield branch


def _says(ranged: Attribute, tree: Tree) -> bool:
    return any(
        found is not None and found.name == ranged.name for found in (comparison(each) for each in conjuncts(tree))
    )


def _check_types(attribute: Attribute, values: Iterable[AttributeValue]) -> None:
    if any(attribute.type not in value for value in values):
        raise ValidationError(
            f"Key attribute's data type should match its data type in table's schema: Key {attribute.name}"
        )


def key_range(schema: KeySchema, branch: Branch) -> KeyRange:
    terms = {schema.hash[0].name: Term("=", (branch.hash,))}
    if branch.term is not None:
        terms[schema.range[0].name] = branch.term
    return range_of(terms, schema)


def _apart(schema: KeySchema, found: list[Branch], where: Tree | None) -> list[Branch]:
    """Branches that read nothing twice.

    Where they do, they are refused, as they are by DynamoDB; but if what they do not want of the range key is among
    their conditions, all that lies under their hash keys is read and filtered.
    """
    bounds = [key_range(schema, branch).bounds() for branch in found]
    for one, other in combinations(bounds, 2):
        if one.hash == other.hash and _overlap(one.low, one.high, other.low, other.high):
            break
    else:
        return found
    if not schema.range or not any(_denies(schema.range[0], tree) for branch in found for tree in branch.rest):
        raise ValidationError(_OVERLAPPING)
    values = {bound.hash: branch.hash for bound, branch in zip(bounds, found, strict=True)}
    return [Branch(value, None, tuple(conjuncts(where))) for value in values.values()]


def _overlap(low: bytes | None, high: bytes | None, other_low: bytes | None, other_high: bytes | None) -> bool:
    start = max(low or b"", other_low or b"")
    return (high is None or start <= high) and (other_high is None or start <= other_high)


def _denies(ranged: Attribute, tree: Tree) -> bool:
    """Whether it is NOT something of the range key, or <>."""
    if isinstance(tree, Joined):
        return tree.operator == "NOT" and _touches(ranged, tree.conditions[0])
    return tree.operator == "<>" and any(_top(operand) == ranged.name for operand in tree.operands)


def _touches(ranged: Attribute, tree: Tree) -> bool:
    if isinstance(tree, Joined):
        return any(_touches(ranged, each) for each in tree.conditions)
    return any(_top(operand) == ranged.name for operand in tree.operands)


def ordered(
    schema: KeySchema, order: Sequence[Order], where: Tree | None, found: list[Branch] | None
) -> tuple[list[Branch] | None, bool]:
    """The branches in the order that ORDER BY wants, and whether each is read backwards.

    Where it does not name the range key, that comes backwards: so DynamoDB does it.
    """
    if not order:
        return found, False
    if where is None:
        raise ValidationError("Must have WHERE clause in the statement when using ORDER BY clause.")
    for attribute, _ in order:
        if attribute not in schema.names():
            raise ValidationError(f"Attribute {attribute} in ORDER BY clause must be part of the primary key")
    if found is None:
        raise ValidationError(
            "Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause."
        )
    ways = {each.attribute: each.backwards for each in reversed(order)}
    ranges = {key_range(schema, branch).bounds(): branch for branch in found}
    backwards = ways.get(schema.range[0].name, True) if schema.range else False
    hashed = schema.hash[0].name
    if hashed not in ways and len({bound.hash for bound in ranges}) > 1:
        raise ValidationError(
            "Must have hash key in ORDER BY clause when more than one hash key condition specified in WHERE clause."
        )
    # First by the range keys, then, stable, by the hash keys.
    bounds = sorted(ranges, key=lambda bound: bound.low or b"", reverse=backwards)
    bounds.sort(key=lambda bound: bound.hash, reverse=ways.get(hashed, False))
    return [ranges[bound] for bound in bounds], backwards
