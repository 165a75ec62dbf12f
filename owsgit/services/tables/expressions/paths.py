"""Several document paths that must not touch each other, and what they find in an item."""

from collections.abc import Iterable

from owsgit.services.tables.expressions.operands import Steps, shown
from owsgit.services.tables.expressions.tokens import Problem
from owsgit.services.tables.values import AttributeValue, Item

_REWRITE = "must remove or rewrite one of these paths; path one: {}, path two: {}"


class _Node:
    """`first`: the first of the paths that go through here. `ends`: it ends here, and is the only one."""

    __slots__ = ("ends", "first", "steps")

    def __init__(self, first: Steps) -> None:
        self.first = first
        self.ends = False
        self.steps: dict[str | int, _Node] = {}


class Paths:
    """A tree of paths. Raises Problem if one of them is or leads into another, or if both cannot be in one item."""

    def __init__(self, paths: Iterable[Steps]) -> None:
        self._root = _Node(())
        conflict: Problem | None = None
        for path in paths:
            found = self._add(path)
            conflict = conflict or found
        if conflict:
            raise conflict

    def _add(self, path: Steps) -> Problem | None:
        """Overlaps are raised, conflicts returned: DynamoDB speaks of an overlap first."""
        node = self._root
        for step in path:
            found = node.steps.get(step)
            if found is None:
                other = next(iter(node.steps.values()), None)
                if other is not None and isinstance(next(iter(node.steps)), str) != isinstance(step, str):
                    return _problem("conflict", other.first, path)
                found = node.steps[step] = _Node(path)
            elif found.ends:
                raise _problem("overlap", found.first, path)
            node = found
        if node.steps:
            raise _problem("overlap", node.first, path)
        node.ends = True
        return None

    def of(self, item: Item) -> Item:
        """An item of what lies at these paths, with the elements of lists moved together, in their order."""
        found: Item = {}
        for name, node in self._root.steps.items():
            value = item.get(name)  # type: ignore[arg-type] # paths begin with names
            if value is not None and (part := value if node.ends else _part(value, node)) is not None:
                found[name] = part  # type: ignore[index] # as above
        return found


def _part(value: AttributeValue, node: _Node) -> AttributeValue | None:
    steps = node.steps
    if "M" in value:
        content = value["M"]
        kept = {
            step: part
            for step, below in steps.items()
            if (inner := content.get(step)) is not None
            and (part := inner if below.ends else _part(inner, below)) is not None
        }
        return {"M": kept} if kept else None
    if "L" in value and isinstance(next(iter(steps)), int):
        elements = value["L"]
        parts = []
        for step in sorted(steps, key=int):
            below = steps[step]
            if int(step) < len(elements):
                inner = elements[int(step)]
                part = inner if below.ends else _part(inner, below)
                if part is not None:
                    parts.append(part)
        return {"L": parts} if parts else None
    return None


def _problem(what: str, one: Steps, two: Steps) -> Problem:
    return Problem(f"Two document paths {what} with each other; {_REWRITE.format(shown(one), shown(two))}")
