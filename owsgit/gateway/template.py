"""Paths and addresses with a route's {parameters} in them.

What a client wrote is always percent-encoded into its place: it can neither end a segment or begin a query, nor climb
with `..`. A greedy parameter keeps the segments that it had, an encoded slash within one of them included.
"""

import re
from collections.abc import Callable
from urllib.parse import quote

from owsgit.gateway.exchange import Exchange, RefusedError
from owsgit.gateway.table import DEFAULT, RouteKey

_PARAMETER = re.compile(r"\{([^{}]*)\}")
_CLIMBS = re.compile(r"(?:^|[/\\])\.\.?(?:$|[/\\])")
_IN_SEGMENT = "!$&'()*+,;=:@~"
"""What stands for itself in a path's segment (RFC 3986 3.3)."""

Part = str | Callable[[Exchange], str]


class PathTemplate:
    """A text with {name} for parameters of the route `key`. Those of `$default` have {proxy}: the whole path."""

    def __init__(self, text: str, key: RouteKey) -> None:
        """Raises ValueError for a parameter that the route does not have, and for braces without one."""
        pieces = _PARAMETER.split(text)
        self._parts: list[Part] = []
        for index, piece in enumerate(pieces):
            if index % 2:
                self._parts.append(_filler(piece.removesuffix("+"), key, in_query="?" in "".join(pieces[:index:2])))
            elif "{" in piece or "}" in piece:
                raise ValueError(f"{text!r} has a brace that belongs to no {{parameter}}")
            elif piece:
                self._parts.append(piece)
        self._fixed = "".join(map(str, self._parts)) if not any(map(callable, self._parts)) else None

    def fill(self, exchange: Exchange) -> str:
        """The text for a request, percent-encoded. Raises RefusedError."""
        if self._fixed is not None:
            return self._fixed
        return "".join(part if isinstance(part, str) else part(exchange) for part in self._parts)


def rest_of(exchange: Exchange, key: RouteKey) -> list[str]:
    """The segments of a request that the greedy parameter of its route took, or of all for $default; decoded."""
    return exchange.segments[len(key.segments) - 1 :] if key.path != DEFAULT else exchange.segments


def _filler(name: str, key: RouteKey, *, in_query: bool) -> Callable[[Exchange], str]:
    safe = "" if in_query else _IN_SEGMENT
    known = list(key.names) if key.path != DEFAULT else ["proxy"]
    if name not in known:
        has = ", ".join(f"{{{each}}}" for each in known) or "none"
        raise ValueError(f"{{{name}}} is no parameter of this route; it has {has}")
    if (key.greedy and name == key.names[-1]) or key.path == DEFAULT:
        return lambda exchange: "/".join(_encoded(segment, safe) for segment in rest_of(exchange, key))
    return lambda exchange: _encoded(exchange.parameters[name], safe)


def _encoded(value: str, safe: str) -> str:
    if _CLIMBS.search(value):
        raise RefusedError(400, "Bad Request")
    return quote(value, safe)
