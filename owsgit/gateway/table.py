"""Routing tables, with API Gateway's precedence: full matches, then path parameters, then `{proxy+}`, then `$default`.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ANY: Final = "ANY"
_METHODS_AND_ANY = (*METHODS, ANY)
DEFAULT: Final = "$default"
CONNECT, DISCONNECT = "$connect", "$disconnect"
"""Of WebSocket APIs, whose messages are routed by what they say."""

PATH_BYTES_MAX = 8192
ROUTE_CHARACTERS_MAX = 1024
SEGMENTS_MAX = 64
"""Of a route's path: longer than anybody's, and short enough that a thousand of them are read in no time."""

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+")
_PARAMETER = re.compile(r"\{([A-Za-z0-9._-]+)(\+?)\}")

Item = TypeVar("Item")


class RouteKeyError(ValueError):
    """A route key that is not 'METHOD /path' or '$default'."""


@dataclass(frozen=True)
class RouteKey:
    """A parsed route key. `segments` are literal texts; parameters are None there and named in `names`."""

    method: str
    path: str
    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    greedy: bool

    @property
    def text(self) -> str:
        return self.path if self.path == DEFAULT else f"{self.method} {self.path}"

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for two keys that match the same requests."""
        return self.method, self.segments, self.greedy

    def parameters(self, segments: list[str]) -> dict[str, str]:
        """What a path that matches says of the parameters."""
        places = [index for index, segment in enumerate(self.segments) if segment is None]
        values = [segments[place] for place in places]
        if self.greedy:
            values[-1] = "/".join(segments[places[-1] :])
        return dict(zip(self.names, values, strict=True))


def parse_key(text: str) -> RouteKey:
    """Raises RouteKeyError that says what is wrong."""
    if text == DEFAULT:
        return RouteKey(ANY, DEFAULT, (), (), False)
    method, _, path = text.partition(" ")
    if method not in _METHODS_AND_ANY or not path.startswith("/"):
        raise RouteKeyError(f"not 'METHOD /path' with a method of {', '.join(_METHODS_AND_ANY)}, and not '{DEFAULT}'")
    parts = path[1:].split("/") if path != "/" else []
    if len(path) > ROUTE_CHARACTERS_MAX or len(parts) > SEGMENTS_MAX:
        raise RouteKeyError(f"longer than {ROUTE_CHARACTERS_MAX} characters or {SEGMENTS_MAX} segments")
    segments: list[str | None] = []
    names: list[str] = []
    greedy = False
    for index, part in enumerate(parts):
        parameter = _PARAMETER.fullmatch(part)
        if parameter:
            greedy = bool(parameter[2])
            if greedy and index != len(parts) - 1:
                raise RouteKeyError(f"{part} takes the rest of the path, so it can only be last")
            if parameter[1] in names:
                raise RouteKeyError(f"the parameter {parameter[1]!r} is named twice")
            names.append(parameter[1])
            segments.append(None)
        elif not part or part in (".", "..") or not _SEGMENT.fullmatch(part):
            raise RouteKeyError(f"the segment {part!r} is neither text nor {{parameter}} nor {{parameter+}}")
        else:
            segments.append(part)
    return RouteKey(method, path, tuple(segments), tuple(names), greedy)


class _Node(Generic[Item]):
    def __init__(self) -> None:
        self.literal: dict[str, _Node[Item]] = {}
        self.parameter: _Node[Item] | None = None
        self.here: dict[str, tuple[RouteKey, Item]] = {}  # by method
        self.rest: dict[str, tuple[RouteKey, Item]] = {}  # greedy, by method


class Match(Generic[Item]):
    """The route of a request, and what its path says of the route's parameters."""

    __slots__ = ("item", "key", "parameters")

    def __init__(self, key: RouteKey, item: Item, parameters: dict[str, str]) -> None:
        self.key, self.item, self.parameters = key, item, parameters


class RoutingTable(Generic[Item]):
    """Immutable once made: a deployment makes a new one and swaps it in whole."""

    def __init__(self, routes: Iterable[tuple[str, Item]]) -> None:
        self._root: _Node[Item] = _Node()
        self._default: tuple[RouteKey, Item] | None = None
        self._plain: dict[tuple[str, ...], dict[str, tuple[RouteKey, Item]]] = {}
        """Routes without parameters, by their segments and then by method."""

        for text, item in routes:
            key = parse_key(text)
            if key.path == DEFAULT:
                self._default = key, item
            else:
                self._add(key, item)
        root = self._root
        has_more = root.literal or root.parameter or root.here or root.rest
        self._only = None if has_more else self._default  # as on ports of the node's own

    def _add(self, key: RouteKey, item: Item) -> None:
        node = self._root
        for segment in key.segments[:-1] if key.greedy else key.segments:
            if segment is None:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        (node.rest if key.greedy else node.here)[key.method] = key, item
        if not key.names:
            self._plain.setdefault(tuple(filter(None, key.segments)), {})[key.method] = key, item

    def match(self, method: str, segments: list[str]) -> Match[Item] | None:
        """The route of a request, whose path is given as decoded segments."""
        if self._only is not None:
            return Match(*self._only, {})
        values: list[str] = []
        plain = self._plain.get(tuple(segments))  # they go before all others, and need no search
        if plain is not None and (route := plain.get(method) or plain.get(ANY)):
            return Match(*route, {})
        found = self._find(self._root, method, segments, 0, values)
        if found is None and self._default is not None:
            found, values = self._default, []
        if found is None:
            return None
        key, item = found
        return Match(key, item, dict(zip(key.names, values, strict=True)) if values else {})

    def _find(
        self, node: _Node[Item], method: str, segments: list[str], at: int, values: list[str]
    ) -> tuple[RouteKey, Item] | None:
        if at == len(segments):
            return node.here.get(method) or node.here.get(ANY)
        segment = segments[at]
        below = node.literal.get(segment)
        found = self._find(below, method, segments, at + 1, values) if below else None
        if found is None and node.parameter is not None and segment:
            values.append(segment)
            found = self._find(node.parameter, method, segments, at + 1, values)
            if found is None:
                values.pop()
        if found is None and (found := node.rest.get(method) or node.rest.get(ANY)):
            values.append("/".join(segments[at:]))
        return found
