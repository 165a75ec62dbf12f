"""How much of the node's time a function may take by what it sends."""

import time

WORK_FREE = 20_000
"""Callbacks of the parser for one invocation before the client is slowed: a response of 6 MiB takes a few hundred."""

WORK_PER_SECOND = 20_000
"""Callbacks a second after that: about two percent of a core."""


class Pace:
    """How much of the node's time a client may still take (the generic cell rate algorithm, ITU-T I.371)."""

    def __init__(self) -> None:
        self._due = 0.0

    def renew(self) -> None:
        """A new invocation, and with it new freedom."""
        self._due = time.monotonic()

    def spend(self, work: int) -> float:
        """Seconds for which nothing more may be read."""
        now = time.monotonic()
        self._due = max(self._due, now) + work / WORK_PER_SECOND
        return max(0.0, self._due - now - WORK_FREE / WORK_PER_SECOND)
