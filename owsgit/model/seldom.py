"""What happens again and again, and is to be logged now and then."""

import time

SECONDS = 60.0
MOST = 100


class Seldom:
    """Lets the same text through once in so many seconds, and so many texts in all: what others do fills no log."""

    def __init__(self, seconds: float = SECONDS, most: int = MOST) -> None:
        self._seconds, self._most = seconds, most
        self._said: set[str] = set()
        self._since = 0.0

    def takes(self, text: str) -> bool:
        """Whether it is to be told now."""
        now = time.monotonic()
        if now - self._since > self._seconds:
            self._since = now
            self._said.clear()
        if text in self._said or len(self._said) >= self._most:
            return False
        self._said.add(text)
        return True
