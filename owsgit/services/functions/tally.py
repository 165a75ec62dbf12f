"""What is in the store of events, counted, and the bounds on it. Pure."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from owsgit.model.names import unqualified
from owsgit.runtime.budget import ThrottledError

QUEUED_MAX = 1_000_000
"""Events of one function that wait: hours of work for any function of one node."""

QUEUED_BYTES_MAX = 1 << 30
"""Of one function."""

NODE_BYTES_MAX = 4 << 30
"""Of all functions of a node: what a small server's disk can spare. Four functions at their bounds fill it."""

DEAD_LETTERS_MAX = 10_000
"""Of one function: more than anybody looks through. The oldest make room."""

DEAD_LETTER_BYTES_MAX = 1 << 30
"""Of all functions of a node. The function that has most gives the oldest of its own."""

KEYS_MAX = 1_000_000
"""Idempotency keys of one function within a day: more than ten a second."""

Undo = list[Callable[[], None]]


@dataclass(frozen=True)
class Count:
    """How many, and of how many bytes."""

    count: int = 0
    size: int = 0


class Tally:
    """Counts by function. What a commit counted and then failed is taken back by what it left in `undo`."""

    def __init__(self) -> None:
        self.waiting: dict[str, dict[str, Count]] = {}  # by function, then by name as it was given
        self.dead: dict[str, Count] = {}
        self._keys: dict[str, Count] = {}
        self._totals: defaultdict[str, int] = defaultdict(int)  # bytes

    def check(self, resource: str, size: int, *, keyed: bool) -> None:
        """Raises ThrottledError if there is no room for one more event of a function."""
        queued = self.queued(resource)
        if queued.count >= QUEUED_MAX or queued.size + size > QUEUED_BYTES_MAX:
            raise ThrottledError(
                f"Rate Exceeded. {queued.count:,} events of {queued.size:,} bytes wait for function {resource}",
                remedy=f"try again later; {QUEUED_MAX:,} events or {QUEUED_BYTES_MAX:,} bytes of a function are kept",
            )
        if self._totals["waiting"] + size > NODE_BYTES_MAX:
            raise ThrottledError(
                f"Rate Exceeded. This node keeps no more than {NODE_BYTES_MAX:,} bytes of events",
                remedy="try again later, or on another node",
            )
        if keyed and self._keys.get(resource, Count()).count >= KEYS_MAX:
            raise ThrottledError(
                f"Rate Exceeded. Function {resource} got {KEYS_MAX:,} idempotency keys within a day",
                remedy="try again later, or without a key",
            )

    def names(self, resource: str) -> list[str]:
        """The names under which events of a function wait: f, f:alias, f@commit."""
        return sorted(self.waiting.get(resource, {}))

    def queued(self, resource: str) -> Count:
        """What waits for a function, or runs."""
        found = self.waiting.get(resource, {}).values()
        return Count(sum(each.count for each in found), sum(each.size for each in found))

    def overfull(self, resource: str) -> str | None:
        """The function whose oldest dead letter has to go, after one of `resource` was added."""
        if self.dead[resource].count > DEAD_LETTERS_MAX:
            return resource
        if self._totals["dead"] > DEAD_LETTER_BYTES_MAX:
            return max(self.dead, key=lambda name: self.dead[name].size)
        return None

    def waits(self, function: str, count: int, size: int, undo: Undo | None = None) -> None:
        """Count events that wait."""
        resource = unqualified(function)
        names = dict(self.waiting.get(resource, {}))  # replaced, never changed: other threads read it
        _add(names, function, count, size)
        if names:
            self.waiting[resource] = names
        else:
            self.waiting.pop(resource, None)
        self._totals["waiting"] += size
        if undo is not None:
            undo.append(lambda: self.waits(function, -count, -size))

    def died(self, resource: str, count: int, size: int, undo: Undo | None = None) -> None:
        """Count dead letters."""
        _add(self.dead, resource, count, size)
        self._totals["dead"] += size
        if undo is not None:
            undo.append(lambda: self.died(resource, -count, -size))

    def has_keys(self, resource: str, count: int, undo: Undo | None = None) -> None:
        """Count idempotency keys."""
        _add(self._keys, resource, count, 0)
        if undo is not None:
            undo.append(lambda: self.has_keys(resource, -count))


def _add(counts: dict[str, Count], name: str, count: int, size: int) -> None:
    before = counts.get(name, Count())
    after = Count(before.count + count, before.size + size)
    if after.count:
        counts[name] = after
    else:
        counts.pop(name, None)
