"""The order in which events are dispatched: a lane for each function, and the places that all lanes share."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from owsgit.model.names import unqualified

PLACES_MAX = 128
"""Events that run at once on a node. Each is held in memory: 128 MiB if all are as large as they may be."""

FEW = 2
"""A quarter of the places is kept for lanes that have fewer, so that long events of one do not hold up another."""


@dataclass
class Lane:
    """The events of one function (or one version of it), as it was named."""

    function: str
    running: set[int] = field(default_factory=set)  # ids of events
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    pause: float = 0.0  # seconds of the last pause; 0 while the function takes events
    resumes: float = 0.0

    def hold_back(self, now: float, first: float, most: float) -> None:
        """The function took none: wait before the next one, each time for twice as long."""
        if now >= self.resumes:
            self.pause = min(max(first, self.pause * 2), most)
            self.resumes = now + self.pause

    def go_on(self) -> None:
        """The function takes events (again)."""
        self.pause = self.resumes = 0.0

    def room(self, concurrency: int) -> int:
        """How many more may run. After a pause one is tried first."""
        return (1 if self.pause else concurrency) - len(self.running)


class Places:
    """The places of a node. Lanes that found none are woken in turn."""

    def __init__(self, most: int = PLACES_MAX) -> None:
        self.most = most
        self.taken = 0
        self.taken_by: Counter[str] = Counter()  # by function, of all its versions
        self._waiting: dict[str, Lane] = {}

    def room(self, lane: Lane) -> int:
        """How many places there are for a lane. If there are none, it is woken when there may be."""
        free = self.most - self.most // 4 - self.taken
        if len(lane.running) < FEW:
            free = max(free, min(FEW - len(lane.running), self.most - self.taken))
        if free <= 0:
            self._waiting[lane.function] = lane
        return max(free, 0)

    def take(self, lane: Lane, id_: int) -> None:
        lane.running.add(id_)
        self.taken += 1
        self.taken_by[unqualified(lane.function)] += 1

    def give(self, lane: Lane, id_: int) -> None:
        lane.running.discard(id_)
        self.taken -= 1
        self.taken_by[unqualified(lane.function)] -= 1
        self.taken_by += Counter()  # forgets those that have none
        lane.wake.set()
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.wake.set()
