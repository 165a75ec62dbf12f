"""What differs between two JSON documents, field by field."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from owsgit.model.strictjson import join


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """One field: its JSON path, and its value before and after (ABSENT where there is none)."""

    path: str
    before: Any
    after: Any


def differences(before: Any, after: Any, path: str = "$") -> Iterator[Difference]:
    """The smallest fields that differ. Objects are compared by member; lists as a whole, as their order counts."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from differences(before.get(name, ABSENT), after.get(name, ABSENT), join(path, name))
    elif before != after or type(before) is not type(after):
        yield Difference(path, before, after)
