"""Update expressions: what becomes of an item.

All operands see the item as it was, and indexes of lists mean the elements it had, whatever the order in the text.
Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.UpdateExpressions.html
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from owsgit.services.tables import numbers
from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions.operands import (
    CONDITION_FUNCTIONS,
    UPDATE_FUNCTIONS,
    Call,
    Getter,
    Literal,
    Operand,
    OperandReader,
    Path,
    Steps,
    Value,
    at,
    bind,
    bind_path,
    check_count,
    follow,
    requires_path,
    wrong_type,
)
from owsgit.services.tables.expressions.paths import Paths
from owsgit.services.tables.expressions.placeholders import Placeholders
from owsgit.services.tables.expressions.tokens import END, Problem
from owsgit.services.tables.values import ITEM_BYTES_MAX, AttributeValue, Item, check_size, check_value, type_of

_WRONG_TYPE = "An operand in the update expression has an incorrect data type"
_NO_ATTRIBUTE = "The provided expression refers to an attribute that does not exist in the item"
_NO_PATH = "The document path provided in the update expression is invalid for update"

_KEYWORDS = frozenset({"SET", "REMOVE", "ADD", "DELETE"})
_LONG_NAMES = {"S": "STRING", "N": "NUMBER", "B": "BINARY", "BOOL": "BOOLEAN", "NULL": "NULL", "L": "LIST", "M": "MAP"}
"""Of types, in the messages about ADD and DELETE."""

Compute = Callable[[Item], AttributeValue]
"""A value of an item. Raises ValidationError if it has none."""


class Set(NamedTuple):
    """`kind`: the type of the value, where it is known without an item. `again`: what makes the same once more of what,
    in another process."""

    path: Steps
    value: Compute
    kind: str | None
    again: tuple[Callable[..., "Set"], tuple[Any, ...]]

    def __reduce__(self) -> tuple[Callable[..., "Set"], tuple[Any, ...]]:
        return self.again


class Remove(NamedTuple):
    path: Steps


class Add(NamedTuple):
    """To a number or a set."""

    path: Steps
    value: AttributeValue


class Delete(NamedTuple):
    """From a set."""

    path: Steps
    value: AttributeValue


Action = Set | Remove | Add | Delete


class Update:
    """What is done to an item."""

    def __init__(self, actions: Sequence[Action], reads: Sequence[Steps], tree: Paths) -> None:
        """`reads`: the paths whose values are used. `tree`: of the paths that are changed."""
        self._actions = actions
        self.paths = [action.path for action in actions]
        """What is changed."""
        self.reads = reads
        self._tree = tree

    def attributes(self) -> set[str]:
        """The names of the attributes that are changed, or parts of which are."""
        return {str(path[0]) for path in self.paths}

    def types(self) -> dict[str, str]:
        """The types that attributes get, or have to have, as far as they are known without an item."""
        found = {}
        for action in self._actions:
            if len(action.path) == 1 and not isinstance(action, Remove):
                kind = action.kind if isinstance(action, Set) else type_of(action.value)
                if kind is not None:
                    found[str(action.path[0])] = kind
        return found

    @property
    def creates(self) -> bool:
        """Whether it makes an item where there is none: REMOVE and DELETE do not."""
        return any(isinstance(action, Set | Add) for action in self._actions)

    def apply(self, item: Item) -> Item:
        """The item after the update: a new one, which shares what did not change. Its size and keys are not checked."""
        change = _Change(item)
        for action in self._actions:
            match action:
                case Set(path, value):
                    change.set(path, value(item))
                case Remove(path):
                    change.remove(path)
                case Add(path, value):
                    change.put(path, _added(_found(item, path), value))
                case Delete(path, value):
                    _delete(change, path, _found(item, path), value)
        return change.done()

    def updated_old(self, item: Item) -> Item:
        """What ReturnValues UPDATED_OLD shows of the item as it was."""
        return self._tree.of(item)

    def updated_new(self, item: Item) -> Item:
        """What ReturnValues UPDATED_NEW shows of the item as it became."""
        return self._tree.of(item)


def _added(old: AttributeValue | None, value: AttributeValue) -> AttributeValue:
    if old is None:
        return value
    kind = type_of(value)
    if kind not in old:
        raise ValidationError(_WRONG_TYPE)
    if kind == "N":
        return {"N": numbers.add(old["N"], value["N"])}
    return {kind: list(dict.fromkeys((*old[kind], *value[kind])))}


def _delete(change: "_Change", path: Steps, old: AttributeValue | None, value: AttributeValue) -> None:
    kind = type_of(value)
    if old is None:
        change.remove(path)
    elif kind not in old:
        raise ValidationError(_WRONG_TYPE)
    elif left := _without(old[kind], value[kind]):
        change.put(path, {kind: left})
    else:  # there are no empty sets
        change.remove(path)


def _without(elements: Sequence[Any], taken: Sequence[Any]) -> list[Any]:
    out = set(taken)
    return [element for element in elements if element not in out]


def _found(item: Item, path: Steps) -> AttributeValue | None:
    return follow(item.get(path[0]), path[1:])  # type: ignore[arg-type] # a path begins with a name


class _Change:
    """An item in the making. Maps and lists in it are copied once something in them changes."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._top: Item = dict(item)
        self._open: dict[Steps, Any] = {(): self._top}
        self._puts: list[tuple[Steps, AttributeValue]] = []
        self._removals: list[Steps] = []
        self._elements = 0

    def put(self, path: Steps, value: AttributeValue) -> None:
        self._check_path(path)
        self._puts.append((path, value))

    def remove(self, path: Steps) -> None:
        self._check_path(path)
        self._removals.append(path)

    def _check_path(self, path: Steps) -> None:
        """That the map or list is there which the path's last step is in. No other action touches it."""
        if len(path) > 1:
            container = _found(self._item, path[:-1])
            if container is None or ("M" if isinstance(path[-1], str) else "L") not in container:
                raise ValidationError(_NO_PATH)

    def set(self, path: Steps, value: AttributeValue) -> None:
        """Put what was computed. Lists are new ones: many large ones are refused before they are more than an item."""
        self.put(path, value)
        if "L" in value:
            self._elements += len(value["L"])
            if self._elements > ITEM_BYTES_MAX:
                check_size({str(number): each for number, (_, each) in enumerate(self._puts)}, update=True)

    def done(self) -> Item:
        appended: list[tuple[Steps, AttributeValue]] = []
        for path, value in self._puts:
            if len(path) == 1:
                self._top[path[0]] = value  # type: ignore[index] # a path begins with a name
                continue
            if "M" in value or "L" in value:
                check_value(value, depth=len(path))
            content, last = self._content(path), path[-1]
            if isinstance(last, int) and last >= len(content):
                appended.append((path, value))
            else:
                content[last] = value
        # From the back: an element's index stays what it was until it is gone. Paths are of the same types of steps
        # as far as they are the same.
        for path in sorted(self._removals, reverse=True):
            self._remove(path)
        for path, value in sorted(appended, key=lambda each: each[0]):
            self._open[path[:-1]].append(value)
        return self._top

    def _remove(self, path: Steps) -> None:
        content, last = self._content(path), path[-1]
        if isinstance(last, str):
            content.pop(last, None)
        elif last < len(content):
            del content[last]

    def _content(self, path: Steps) -> Any:
        """The copy of the map or list that the path's last step is in."""
        container = path[:-1]
        found = self._open.get(container)
        if found is None:
            outer, step = self._content(container), container[-1]
            kind = "M" if isinstance(path[-1], str) else "L"
            found = outer[step][kind].copy()
            outer[step] = {kind: found}
            self._open[container] = found
        return found


# Reading


class Arithmetic(NamedTuple):
    """What SET assigns. `operator`: + or -."""

    operator: str
    left: Operand
    right: Operand


class Clause(NamedTuple):
    """What is done to one path. `verb`: SET, REMOVE, ADD or DELETE."""

    verb: str
    path: Path
    value: Operand | Arithmetic | None = None


class _Read(NamedTuple):
    """A text that was read. `names` and `keys`: its placeholders, in their order."""

    actions: tuple[Clause, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]


def parse(text: str, placeholders: Placeholders) -> Update:
    try:
        return _bound(_read(text), placeholders)
    except Problem as problem:
        raise ValidationError(f"Invalid UpdateExpression: {problem}") from None


@lru_cache(maxsize=512)
def _read(text: str) -> _Read:
    reader = OperandReader(text, _KEYWORDS, UPDATE_FUNCTIONS, CONDITION_FUNCTIONS, "an update expression")
    actions: list[Clause] = []
    sections: list[str] = []
    while True:
        if reader.kind not in _KEYWORDS:
            raise reader.unexpected()
        verb = reader.take().upper()
        sections.append(verb)
        actions.append(_read_action(reader, verb))
        while reader.accept(","):
            actions.append(_read_action(reader, verb))
        if reader.kind == END:
            break
    reader.check()
    for verb in sections:
        if sections.count(verb) > 1:
            raise Problem(f'The "{verb}" section can only be used once in an update expression;')
    return _Read(tuple(actions), tuple(reader.names), tuple(reader.keys))


def _read_action(reader: OperandReader, verb: str) -> Clause:
    path = reader.path()
    if verb == "REMOVE":
        return Clause(verb, path)
    if verb == "SET":
        reader.expect("=")
        return Clause(verb, path, _read_value(reader))
    key = reader.expect(":")
    reader.keys.append(key)
    return Clause(verb, path, Value(key))


def _read_value(reader: OperandReader) -> Operand | Arithmetic:
    # Parentheses around all of it, or around an operand that + or - come after.
    if reader.kind == "(" and reader.after_closing() not in ("+", "-"):
        reader.take()
        reader.deeper()
        found = _read_value(reader)
        reader.expect(")")
        reader.higher()
        return found
    left = reader.operand(grouped_paths=False)
    if reader.kind not in ("+", "-"):
        return left
    reader.count()
    return Arithmetic(reader.take(), left, reader.operand(grouped_paths=False))


def made(clauses: Sequence[Clause], placeholders: Placeholders) -> Update:
    """Of clauses that were read elsewhere. Raises Problem."""
    return _bound(_Read(tuple(clauses), (), ()), placeholders)


# Binding


def _bound(read: _Read, placeholders: Placeholders) -> Update:
    for name in read.names:
        placeholders.name(name)
    for key in read.keys:
        placeholders.value(key)
    paths = [bind_path(action.path, placeholders).steps for action in read.actions]
    values = [None if action.value is None else _bind_value(action.value, placeholders) for action in read.actions]
    tree = Paths(paths)
    for action, value in zip(read.actions, values, strict=True):
        if action.verb in ("ADD", "DELETE"):
            _check_added(action.verb, value)
    for value in values:
        _check_value(value)
    reads: list[Steps] = []
    actions = [
        _action(action.verb, path, value, reads)
        for action, path, value in zip(read.actions, paths, values, strict=True)
    ]
    return Update(actions, reads, tree)


def _bind_value(value: Operand | Arithmetic, placeholders: Placeholders) -> Operand | Arithmetic:
    if isinstance(value, Arithmetic):
        return Arithmetic(value.operator, bind(value.left, placeholders), bind(value.right, placeholders))
    return bind(value, placeholders)


def _check_added(verb: str, value: Operand | Arithmetic | None) -> None:
    kind = type_of(value.value) if isinstance(value, Literal) else ""
    if kind in _LONG_NAMES and not (verb == "ADD" and kind == "N"):
        raise Problem(
            f"Incorrect operand type for operator or function; operator: {verb}, operand type: {_LONG_NAMES[kind]}"
        )


def _check_value(value: Operand | Arithmetic | None) -> None:
    if isinstance(value, Call):
        for operand in value.operands:
            _check_value(operand)
        check_count(value, UPDATE_FUNCTIONS[value.name])
        if value.name == "if_not_exists":
            requires_path(value)
        else:
            _check_types(value.name, "L", value.operands)
    elif isinstance(value, Arithmetic):
        _check_value(value.left)
        _check_value(value.right)
        _check_types(value.operator, "N", (value.left, value.right))


def _check_types(name: str, kind: str, operands: Sequence[Operand]) -> None:
    for operand in operands:
        if isinstance(operand, Literal) and kind not in operand.value:
            raise wrong_type(name, type_of(operand.value))


def _action(verb: str, path: Steps, value: Operand | Arithmetic | None, reads: list[Steps]) -> Action:
    """`reads` get the paths whose values are used."""
    if value is None:
        return Remove(path)
    if verb == "SET":
        reads.extend(_paths(value))
        return _set(path, value)
    assert isinstance(value, Literal)  # nothing else is read after ADD and DELETE
    return Add(path, value.value) if verb == "ADD" else Delete(path, value.value)


def _set(path: Steps, value: Operand | Arithmetic) -> Set:
    return Set(path, _compute(value), _kind(value), (_set, (path, value)))


def _kind(value: Operand | Arithmetic) -> str | None:
    if isinstance(value, Arithmetic):
        return "N"
    if isinstance(value, Call) and value.name == "list_append":
        return "L"
    return type_of(value.value) if isinstance(value, Literal) else None


def _paths(value: Operand | Arithmetic) -> Iterator[Steps]:
    if isinstance(value, Path):
        yield value.steps
    elif isinstance(value, Call | Arithmetic):
        for operand in value.operands if isinstance(value, Call) else (value.left, value.right):
            yield from _paths(operand)


# Evaluation


def _compute(value: Operand | Arithmetic) -> Compute:
    if isinstance(value, Literal):
        literal = value.value
        return lambda _: literal
    if isinstance(value, Path):
        return _required(at(value.steps))
    if isinstance(value, Arithmetic):
        return _arithmetic(value.operator, _compute(value.left), _compute(value.right))
    assert isinstance(value, Call)  # values are bound
    first, second = value.operands
    if value.name == "list_append":
        return _list_append(_compute(first), _compute(second))
    assert isinstance(first, Path)  # was checked
    return _if_not_exists(at(first.steps), _compute(second))


def _required(get: Getter) -> Compute:
    def compute(item: Item) -> AttributeValue:
        value = get(item)
        if value is None:
            raise ValidationError(_NO_ATTRIBUTE)
        return value

    return compute


def _arithmetic(operator: str, left: Compute, right: Compute) -> Compute:
    function = numbers.add if operator == "+" else numbers.subtract

    def compute(item: Item) -> AttributeValue:
        a, b = left(item), right(item)
        if "N" not in a or "N" not in b:
            raise ValidationError(_WRONG_TYPE)
        return {"N": function(a["N"], b["N"])}

    return compute


def _list_append(left: Compute, right: Compute) -> Compute:
    def compute(item: Item) -> AttributeValue:
        a, b = left(item), right(item)
        if "L" not in a or "L" not in b:
            raise ValidationError(_WRONG_TYPE)
        if len(a["L"]) + len(b["L"]) > ITEM_BYTES_MAX:  # each element takes a byte at least
            check_size({"a": a, "b": b}, update=True)
        return {"L": [*a["L"], *b["L"]]}

    return compute


def _if_not_exists(get: Getter, other: Compute) -> Compute:
    def compute(item: Item) -> AttributeValue:
        value = get(item)
        return other(item) if value is None else value

    return compute
