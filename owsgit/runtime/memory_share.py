"""Memory that many requests share in one process, reserved before it is used, so that none can take another's."""

import asyncio
from collections import Counter, deque


class MemoryShare:
    """Who does not fit waits, in order of coming. One owner may hold half of all, so that others are served as well."""

    def __init__(self, size: int) -> None:
        """`size` in bytes, as every size here."""
        self.size = size
        self._used = 0
        self._by_owner: Counter[str] = Counter()
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    @property
    def per_owner(self) -> int:
        return self.size // 2

    async def take(self, owner: str, size: int) -> None:
        """Reserve; `size` is at most `per_owner`. What was taken has to be given back."""
        if not self._waiting and self._fits(owner, size):
            self._grant(owner, size)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, size, granted))
        self._next()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give(owner, size)
            raise

    def give(self, owner: str, size: int) -> None:
        self._used -= size
        self._by_owner[owner] -= size
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        self._next()

    def _next(self) -> None:
        """Grant to all who fit, until the first for whom the whole is too small; who holds too much is passed over."""
        kept: deque[tuple[str, int, asyncio.Future[None]]] = deque()
        while self._waiting:
            owner, size, granted = self._waiting.popleft()
            if granted.done():
                continue  # cancelled
            if self._fits(owner, size):
                self._grant(owner, size)
                granted.set_result(None)
                continue
            kept.append((owner, size, granted))
            if self._used + size > self.size:
                break
        self._waiting = kept + self._waiting

    def _fits(self, owner: str, size: int) -> bool:
        return self._used + size <= self.size and self._by_owner[owner] + size <= self.per_owner

    def _grant(self, owner: str, size: int) -> None:
        self._used += size
        self._by_owner[owner] += size
