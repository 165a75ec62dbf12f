"""WebSocket APIs: what a gateway of `protocol` WEBSOCKET has beside, or instead of, what an HTTP API has.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api.html
"""

import re
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from owsgit.gateway.table import CONNECT, DEFAULT, DISCONNECT, RouteKeyError, parse_key
from owsgit.model.spec import Document, PlacedError

HTTP, WEBSOCKET = "HTTP", "WEBSOCKET"
SELECTION = "$request.body.action"
KEY_CHARACTERS_MAX = 128
OWN_KEYS = (CONNECT, DISCONNECT, DEFAULT)

SelectionExpression = Annotated[
    str,
    StringConstraints(
        pattern=r"^(\$request\.body(\.[A-Za-z0-9_-]+){1,8}|\$\{request\.body(\.[A-Za-z0-9_-]+){1,8}\})$",
        max_length=256,
    ),
]


class WebSocketSpec(Document):
    """How long connections live, how many there are, and how much each may say. Messages have up to 128 KB."""

    idle_timeout: int = Field(
        600, ge=1, le=86_400, description="Seconds without a message after which a connection is closed."
    )
    lifetime: int = Field(7200, ge=1, le=604_800, description="Seconds after which every connection is closed.")
    connections: int = Field(10_000, ge=1, le=100_000, description="Open connections on one node, at most.")
    message_rate: int = Field(500, ge=1, le=100_000, description="Messages a second that one client may send.")
    message_burst: int = Field(1000, ge=1, le=100_000, description="Messages that it may send at once.")


class SocketRouted(Protocol):
    """What a route says that means something on one protocol alone."""

    @property
    def response_transfer_mode(self) -> str: ...

    @property
    def route_response(self) -> bool: ...

    @property
    def auth(self) -> str | None: ...

    @property
    def scopes(self) -> list[str]: ...

    @property
    def rewrite(self) -> str | None: ...

    @property
    def files(self) -> object | None: ...

    @property
    def redirect(self) -> object | None: ...


def check_key(text: str, protocol: str) -> None:
    """Raises RouteKeyError if it is no route key of that protocol."""
    if protocol == HTTP:
        if text in (CONNECT, DISCONNECT):
            raise RouteKeyError(f'{text!r} is a route of WebSocket APIs: add "protocol": "WEBSOCKET"')
        parse_key(text)
    elif len(text) > KEY_CHARACTERS_MAX or not text.isprintable() or not text:
        raise RouteKeyError(f"a route of a WebSocket API has 1 to {KEY_CHARACTERS_MAX} printable characters")
    elif text.startswith("$") and text not in OWN_KEYS:
        raise RouteKeyError(f"with $ begin only {', '.join(OWN_KEYS)}; others are what a message says")


def check_route(key: str, route: SocketRouted, protocol: str) -> None:
    """Raises ValueError if the route asks for what its protocol has not."""
    at = ("routes", key)
    if protocol == HTTP and route.route_response:
        raise PlacedError(f"route {key!r}: routeResponse is for WebSocket APIs: remove it", *at)
    if protocol == WEBSOCKET and route.response_transfer_mode != "BUFFERED":
        raise PlacedError(f"route {key!r}: a message is sent whole: remove responseTransferMode", *at)
    if protocol == WEBSOCKET and key != CONNECT and (route.auth is not None or route.scopes):
        words = f"route {key!r}: who may connect may send: move auth and scopes to the route {CONNECT!r}"
        raise PlacedError(words, *at)
    if protocol == WEBSOCKET:
        for name in ("files", "redirect", "rewrite"):
            if getattr(route, name) is not None:
                words = f"route {key!r}: {name} is about paths, which a message has not: remove it"
                raise PlacedError(words, *at, name)
    if key in (CONNECT, DISCONNECT) and route.route_response:
        raise PlacedError(f"route {key!r}: nobody hears its response: remove routeResponse", *at)


def names(expression: str) -> list[str]:
    """The names that lead to the route's key in a message."""
    return re.sub(r"[${}]", "", expression).split(".")[2:]
