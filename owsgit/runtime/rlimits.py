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

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def add(self, pid: int) -> None:
        memory = self._limits.memory_bytes + OVERHEAD_BYTES
        resource.prlimit(pid, resource.RLIMIT_DATA, (memory, memory))
        resource.prlimit(pid, resource.RLIMIT_NPROC, (self._limits.processes, self._limits.processes))

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

    def create(self, name: str, limits: Limits) -> RlimitGroup:
        return RlimitGroup(limits)

    def remove(self) -> None:
        """Nothing is left behind."""
