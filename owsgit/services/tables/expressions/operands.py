"""Operands of conditions and updates: document paths, values and functions. How they are read, bound, and evaluated.

An operand as it is read has placeholders in it; bound, it has what they stand for. Evaluated, it is the value that is
found in an item, or None for none.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from owsgit.services.tables.expressions.placeholders import Placeholders
from owsgit.services.tables.expressions.reserved import WORDS
from owsgit.services.tables.expressions.tokens import INDEX_MAX, Problem, Reader
from owsgit.services.tables.values import AttributeValue, Item

PATH_DEPTH_MAX = 32

CONDITION_FUNCTIONS = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
"""How many operands each has."""
UPDATE_FUNCTIONS = {"if_not_exists": 2, "list_append": 2}

Steps = tuple[str | int, ...]
"""Where in an item: the name of an attribute, then keys of maps and indexes of lists."""
Getter = Callable[[Item], AttributeValue | None]


class Path(NamedTuple):
    """A document path. `named`: it has names in it that are placeholders; they begin with #, which no other does."""

    steps: Steps
    named: bool


class Value(NamedTuple):
    """A placeholder of a value."""

    key: str


class Literal(NamedTuple):
    """A value."""

    value: AttributeValue


class Call(NamedTuple):
    """A function of operands."""

    name: str
    operands: tuple["Operand", ...]


Operand = Path | Value | Literal | Call


class OperandReader(Reader):
    """Reads operands, and takes notes of what is wrong with them once the syntax is right."""

    def __init__(
        self, text: str, keywords: frozenset[str], functions: Mapping[str, int], elsewhere: Mapping[str, int], kind: str
    ) -> None:
        """`functions` are allowed, those `elsewhere` are not allowed in an expression of this `kind`."""
        super().__init__(text, keywords)
        self._functions, self._elsewhere, self._kind = functions, elsewhere, kind
        self._closing = self.closing()
        self._index: str | None = None
        self._unknown: str | None = None
        self._misused: str | None = None
        self._reserved: str | None = None
        self.names: list[str] = []
        """The placeholders of names, in their order."""
        self.keys: list[str] = []
        """The placeholders of values, in their order."""

    def path(self) -> Path:
        named = self.kind == "#"
        return self._path([self._name()], named)

    def _name(self) -> str:
        if self.kind == "#":
            self.names.append(self.tokens[self.at].text)
            return self.take()
        word = self.expect("NAME")
        if self._reserved is None and word.upper() in WORDS:
            self._reserved = word
        return word

    def _path(self, steps: list[str | int], named: bool) -> Path:
        while True:
            if self.accept("."):
                named = named or self.kind == "#"
                steps.append(self._name())
            elif self.accept("["):
                steps.append(self._at())
                self.expect("]")
            else:
                return Path(tuple(steps), named)

    def _at(self) -> int:
        text = self.expect("NUMBER")
        # Not by way of a number: it may have thousands of digits.
        if len(text.lstrip("0")) > 10 or int(text) > INDEX_MAX:
            self._index = self._index or text
            return INDEX_MAX
        return int(text)

    def operand(self, *, grouped_paths: bool = True) -> Operand:
        """An operand, maybe in parentheses. `grouped_paths`: a path may go on after its parentheses."""
        if self.accept("("):
            self.deeper()
            found = self.operand(grouped_paths=grouped_paths)
            self.expect(")")
            self.higher()
            if grouped_paths and isinstance(found, Path) and self.kind in (".", "["):
                return self._path(list(found.steps), found.named)
            return found
        if self.kind == ":":
            key = self.take()
            self.keys.append(key)
            return Value(key)
        if self.kind == "NAME" and self.tokens[self.at + 1].kind == "(":
            return self.call(grouped_paths=grouped_paths)
        return self.path()

    def call(self, *, grouped_paths: bool = True) -> Call:
        self.count()
        name = self.take()
        self.expect("(")
        self.deeper()
        operands = [self.operand(grouped_paths=grouped_paths)]
        while self.accept(","):
            operands.append(self.operand(grouped_paths=grouped_paths))
        self.expect(")")
        self.higher()
        if name not in self._functions and self._unknown is None:
            self._unknown = (
                f"The function is not allowed in {self._kind}; function: {name}"
                if name in self._elsewhere
                else f"Invalid function name; function: {name}"
            )
        return Call(name, tuple(operands))

    def misuse(self, operand: Operand | None) -> None:
        """Note a function where it is not allowed to be."""
        if isinstance(operand, Call) and self._misused is None:
            self._misused = operand.name

    def check(self) -> None:
        """The text is read to its end: what is wrong with it, whatever its placeholders stand for."""
        self.check_operators()
        if self._index is not None:
            raise Problem(f"List index is not within the allowable range; index: [{self._index}]")
        if self._unknown is not None:
            raise Problem(self._unknown)
        if self._misused is not None:
            raise Problem(
                "The function is not allowed to be used this way in an expression; function: " + self._misused
            )
        if self._reserved is not None:
            raise Problem(f"Attribute name is a reserved keyword; reserved keyword: {self._reserved}")

    def is_grouped(self, at: int) -> bool:
        """Whether the parenthesis there opens a group, not the operands of a function or of IN."""
        return self.tokens[at].kind == "(" and (at == 0 or self.tokens[at - 1].kind not in ("NAME", "IN"))

    def has_redundant_parentheses(self) -> bool:
        return any(
            self.is_grouped(at) and self.tokens[at + 1].kind == "(" and self._closing.get(at + 1) == end - 1
            for at, end in self._closing.items()
        )

    def after_closing(self) -> str:
        """The kind of the token after the one that closes the parenthesis that is next."""
        end = self._closing.get(self.at)
        return "" if end is None else self.tokens[end + 1].kind


def bind_path(path: Path, placeholders: Placeholders) -> Path:
    if len(path.steps) > PATH_DEPTH_MAX:
        raise Problem(f"The document path has too many nesting levels; nesting levels: {len(path.steps)}")
    if not path.named:
        return path
    name = placeholders.name
    return Path(
        tuple(name(step) if isinstance(step, str) and step.startswith("#") else step for step in path.steps), False
    )


def bind(operand: Operand, placeholders: Placeholders) -> Operand:
    """The operand with what its placeholders stand for. Raises Problem for the first one that stands for nothing."""
    if isinstance(operand, Path):
        return bind_path(operand, placeholders)
    if isinstance(operand, Value):
        return Literal(placeholders.value(operand.key))
    if isinstance(operand, Call):
        return Call(operand.name, tuple(bind(each, placeholders) for each in operand.operands))
    return operand


def check_count(call: Call, expected: int) -> None:
    if len(call.operands) != expected:
        raise Problem(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {call.name}, number of operands: {len(call.operands)}"
        )


def requires_path(call: Call) -> None:
    if not isinstance(call.operands[0], Path):
        raise Problem(f"Operator or function requires a document path; operator or function: {call.name}")


def wrong_type(name: str, kind: str) -> Problem:
    return Problem(
        f"Incorrect operand type for operator or function; operator or function: {name}, operand type: {kind}"
    )


def shown(steps: Steps) -> str:
    """A path in DynamoDB's messages: [a, b, [1]]."""
    return f"[{', '.join(f'[{step}]' if isinstance(step, int) else step for step in steps)}]"


def at(steps: Steps) -> Getter:
    """What finds the value at a path."""
    first, rest = steps[0], steps[1:]
    if not rest:
        return lambda item: item.get(first)  # type: ignore[arg-type] # a path begins with a name
    return lambda item: follow(item.get(first), rest)  # type: ignore[arg-type] # a path begins with a name


def follow(value: AttributeValue | None, steps: Steps) -> AttributeValue | None:
    """What lies in a value."""
    for step in steps:
        if value is None:
            return None
        if isinstance(step, str):
            value = value["M"].get(step) if "M" in value else None
        else:
            value = value["L"][step] if "L" in value and step < len(value["L"]) else None
    return value
