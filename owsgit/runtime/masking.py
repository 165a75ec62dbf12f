"""A function's secrets in what it writes: each of their lines is masked.

A secret may have thousands of lines, and a function may write a megabyte at once, while all others wait: they are
looked for together, in a time that does not grow with their number.
"""

from collections.abc import Iterable
from itertools import pairwise

from owsgit.runtime.config import FunctionConfig

MASKED = b"***"
CHARACTERS_MIN = 6
"""Shorter lines of a secret would be found everywhere."""


class Mask:
    """Finds texts, of those that begin at one place the longest."""

    def __init__(self, texts: Iterable[str]) -> None:
        from ahocorasick_rs import BytesAhoCorasick, MatchKind  # noqa: PLC0415 - most functions have no secrets

        self._found = BytesAhoCorasick(map(_encoded, texts), matchkind=MatchKind.LeftmostLongest)

    def over(self, text: str) -> str:
        data = _encoded(text)
        places = self._found.find_matches_as_indexes(data)
        if not places:
            return text
        ends = [(0, 0), *((start, end) for _, start, end in places), (len(data), 0)]
        kept = [data[end:start] for (_, end), (start, _) in pairwise(ends)]
        return MASKED.join(kept).decode("utf-8", "surrogatepass")


def of(config: FunctionConfig) -> Mask | None:
    """What masks a function's secrets, if it has any."""
    texts = [*config.secrets.values(), *(each.decode("utf-8", "replace") for each in config.secret_files.values())]
    lines = {line.strip() for text in texts for line in text.splitlines()}
    wanted = {line for line in lines if len(line) >= CHARACTERS_MIN}
    return Mask(wanted) if wanted else None


def _encoded(text: str) -> bytes:
    """With halves of surrogate pairs, which records may have."""
    return text.encode("utf-8", "surrogatepass")
