"""Projection expressions: which parts of an item are wanted.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.ProjectionExpressions.html
"""

from functools import lru_cache

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions.operands import OperandReader, Path, Steps, bind_path
from owsgit.services.tables.expressions.paths import Paths
from owsgit.services.tables.expressions.placeholders import Placeholders
from owsgit.services.tables.expressions.tokens import END, Problem
from owsgit.services.tables.values import Item


class Projection:
    """`paths`: all that is wanted."""

    def __init__(self, paths: list[Steps]) -> None:
        """Raises Problem for paths that touch each other."""
        self.paths = paths
        self._tree = Paths(paths)

    def attributes(self) -> set[str]:
        """The names of the attributes that are wanted, or parts of which are."""
        return {str(path[0]) for path in self.paths}

    def of(self, item: Item) -> Item:
        """What is wanted of an item: a new one, which shares the values."""
        return self._tree.of(item)


def parse(text: str, placeholders: Placeholders) -> Projection:
    try:
        return Projection([bind_path(path, placeholders).steps for path in _parsed(text)])
    except Problem as problem:
        raise ValidationError(f"Invalid ProjectionExpression: {problem}") from None


@lru_cache(maxsize=512)
def _parsed(text: str) -> tuple[Path, ...]:
    reader = OperandReader(text, frozenset(), {}, {}, "a projection expression")
    paths = [reader.path()]
    while reader.accept(","):
        paths.append(reader.path())
    reader.expect(END)
    reader.check()
    return tuple(paths)
