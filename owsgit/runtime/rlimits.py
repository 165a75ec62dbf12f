"""Limits of memory and processes by resource limits, where a node may not make control groups.

Weaker than a control group: each process is limited by itself, so a function with several processes may use several
times its memory; and the kernel answers with a failed allocation instead of ending the worker.
"""

import resource

from owsgit.runtime.cgroup import Limits

OVERHEAD_BYTES = 64 * 1024 * 1024
"""What an interpreter maps privately before it runs any code of the function."""


class RlimitGroup:
    """The limits of one worker; the same calls as a control group's."""

    def __init__(self) -> None:
        self._limits = Limits(0, 0)

    def add(self, pid: int) -> None:
        """A process limits itself, before it runs anything."""

    def limit(self, limits: Limits) -> None:
        self._limits = limits

    def resource_limits(self) -> list[tuple[int, int]]:
        """What a worker has to set for itself: the number of a limit and its value."""
        memory = self._limits.memory_bytes + self._limits.reserved_bytes + OVERHEAD_BYTES
        return [(resource.RLIMIT_DATA, memory), (resource.RLIMIT_NPROC, self._limits.processes)]

    def memory_peak_bytes(self) -> int:
        """Not known."""
        return 0

    def out_of_memory(self) -> bool:
        """Not known: the function gets MemoryError, or ends."""
        return False

    def remove(self) -> None:
        """Nothing is left behind."""


class Rlimits:
    """Makes groups that are limited by resource limits."""

    def create(self, name: str) -> RlimitGroup:
        return RlimitGroup()

    def remove(self) -> None:
        """Nothing is left behind."""
