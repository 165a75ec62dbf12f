"""So much at once, so much a second: a token bucket."""

import time


class Allowance:
    """What may be taken. The last taking may go below zero: nothing is too large to be ever let through."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left = burst
        self._at = time.monotonic()

    def take(self, amount: float, *, always: bool = False) -> bool:
        """Take `amount` if anything is left; `always` takes it anyhow."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left <= 0 and not always:
            return False
        self._left = max(self._left - amount, -self._burst)
        return True
