"""The bound on all workers of a node: their memory, and their number."""

import os
from typing import Protocol

from owsgit.model.errors import OwsgitError, UnavailableError

WORKERS_MAX = 1000
"""Of one node: each costs it some file descriptors and two processes."""

FEW_WORKERS = 2
ASSUMED_BYTES = 16 * 1024 * 1024
"""What a worker is taken to use before it was seen: twice an idle Python."""

RESERVED_SHARE = 0.75
"""Of the budget, for all that is reserved: the rest is left to functions that reserve nothing, as Lambda keeps 100."""

GREEDY_SHARE = 0.75
"""Of the budget, for functions with more than a few workers: so no function keeps another one from its first."""


class ThrottledError(OwsgitError):
    """More requests than workers and places to wait."""


class Tenant(Protocol):
    """What the budget knows of a pool."""

    @property
    def size(self) -> int:
        """Workers that it has, or is starting."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What those use, as far as it is known."""
        ...

    @property
    def typical_bytes(self) -> int:
        """What one more is expected to use."""
        ...

    @property
    def reserved(self) -> int:
        """Workers that are kept free for it."""
        ...

    @property
    def reserved_bytes(self) -> int:
        """What those of them that it has not started are counted as."""
        ...

    @property
    def promised_bytes(self) -> int:
        """What all workers that are kept free for it are counted as, started or not."""
        ...

    def idle_since(self) -> float | None:
        """Since when the worker that could go first has been idle; None if none can go."""
        ...

    def evict(self) -> None:
        """Close that worker."""
        ...


def machine_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Budget:
    """When it is used up, a function with many idle workers makes room, with the one that was idle longest.

    What is reserved for functions is taken from the others, whether it is used or not.
    """

    def __init__(self, memory_bytes: int | None = None, workers_max: int = WORKERS_MAX) -> None:
        """`memory_bytes`: three quarters of the machine's if it is not given."""
        self.memory_bytes = memory_bytes or machine_memory_bytes() * 3 // 4
        self.workers_max = workers_max
        self.tenants: set[Tenant] = set()

    @property
    def count(self) -> int:
        return sum(each.size for each in self.tenants)

    @property
    def used_bytes(self) -> int:
        return sum(each.memory_bytes for each in self.tenants)

    def check_reserved(self, workers: int, worker_bytes: int, instead_of: Tenant | None = None) -> None:
        """Whether so many workers can be kept free beside those of others. Raises UnavailableError.

        `instead_of`: whose reservation ends with this one.
        """
        others = [each for each in self.tenants if each is not instead_of]
        places = int(self.workers_max * RESERVED_SHARE) - sum(each.reserved for each in others)
        memory = int(self.memory_bytes * RESERVED_SHARE) - sum(each.promised_bytes for each in others)
        most = max(0, min(places, memory // worker_bytes))
        if workers > most:
            raise UnavailableError(
                f"this node cannot keep {workers} workers of {worker_bytes >> 20} MiB free: beside what others reserve "
                f"there is room for {most}",
                path="$.reservedConcurrency",
                remedy="reserve fewer, or give the node more memory (memory in its node.json)",
            )

    def make_room(self, tenant: Tenant) -> None:
        """Room for one more worker of `tenant`. Raises ThrottledError when there is none."""
        while not self._has_room(tenant):
            few = tenant.size < max(FEW_WORKERS, tenant.reserved)
            fair = [each for each in self.tenants if few or each is tenant or each.size > FEW_WORKERS]
            victims = [
                (each.size <= FEW_WORKERS, since, each) for each in fair if (since := each.idle_since()) is not None
            ]
            if not victims:
                raise ThrottledError("all workers of this node are busy", remedy="try again, or add a node")
            min(victims, key=lambda victim: victim[:2])[2].evict()

    def _has_room(self, tenant: Tenant) -> bool:
        others = [each for each in self.tenants if each is not tenant]
        share = 1.0 if tenant.size < max(FEW_WORKERS, tenant.reserved) else GREEDY_SHARE
        places = self.workers_max * share - sum(max(0, each.reserved - each.size) for each in others)
        memory = self.memory_bytes * share - sum(each.reserved_bytes for each in others)
        return self.count < places and self.used_bytes + tenant.typical_bytes <= memory
