"""How callers name versions of functions: every commit is one; an alias of the file names one, or several by weight.

`f` is the version at the head, as is `f:$LATEST`; `f:live` is what the alias says at the head, `f@<commit>` the version
of that commit.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-aliases.html
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from owsgit.model.errors import InvalidError
from owsgit.model.spec import nearest
from owsgit.services.functions.spec import Alias

LATEST = "$LATEST"
NAMES_KEPT = 1024
"""Callers name few functions, and each of them with every request."""

_QUALIFIED = re.compile(r"(?P<name>[^:@]+)(:(?P<alias>[^:@]+)|@(?P<commit>[0-9a-f]{40}))?")


@dataclass(frozen=True)
class Qualified:
    """A function as a caller names it."""

    name: str
    alias: str = ""
    commit: str = ""

    @classmethod
    @lru_cache(maxsize=NAMES_KEPT)
    def parse(cls, text: str) -> "Qualified":
        """Raises InvalidError."""
        match = _QUALIFIED.fullmatch(text)
        if match is None:
            raise InvalidError(
                f"{text!r} is not a function", remedy="name it as f, f:alias or f@<all 40 digits of a commit>"
            )
        alias = match["alias"] or ""
        return cls(match["name"], "" if alias == LATEST else alias, match["commit"] or "")

    @property
    def qualifier(self) -> str:
        """What follows the function's name in the ARN; empty for the version at the head."""
        return self.alias or self.commit


def choose(name: str, alias: str, aliases: dict[str, Alias], draw: Callable[[], float] = random.random) -> str:
    """The commit that a request to an alias goes to. Raises InvalidError. `draw` gives numbers from 0 to 1."""
    found = aliases.get(alias)
    if found is None:
        raise InvalidError(
            f"the function {name} has no alias {alias!r}", remedy=nearest(alias, aliases, "alias", "aliases")
        )
    drawn = draw()
    for commit, share in found.weights.items():
        if drawn < share:
            return commit
        drawn -= share
    return found.commit
