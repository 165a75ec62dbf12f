"""A request on its way through a gateway, and what comes back: the values that every step of a route takes and gives.

A route is a `Handler` (request in, response out) that was put together when its gateway was deployed: an integration,
wrapped in the steps that the route asks for and in no others. A step is a function from a handler to a handler.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from starlette.types import ASGIApp

if TYPE_CHECKING:
    from owsgit.gateway.tls import Secured

BODY_BYTES_MAX = 10 * 1024 * 1024
"""API Gateway's limit for a request."""

BODY_SECONDS_MAX = 30.0
"""A client that takes longer to send its body is cut off."""

BODILESS = (204, 205, 304)
"""Statuses without a body (RFC 9110): bytes after their head would be read as the next response."""

MISDIRECTED = 421
"""RFC 9110 15.5.20: the connection was made for another host."""

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order of the wire."""


class RefusedError(Exception):
    """A request that is answered by the gateway itself. `kind` is API Gateway's name for it (a gateway response type).

    https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
    """

    field = "message"
    """What the text is called in the answer."""

    def __init__(self, status: int, message: str, kind: str = "", headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or []
        self.kind = kind or ("DEFAULT_4XX" if status < 500 else "DEFAULT_5XX")
        self.validation: list[dict[str, str]] = []  # what is wrong with the request, each with path and message
        self.tells_validation = False  # whether the client is told of it


class DeniedError(RefusedError):
    """Refused by a policy, in IAM's words, which come as "Message"."""

    field = "Message"

    def __init__(self, message: str) -> None:
        super().__init__(403, message, "ACCESS_DENIED")


class ClientGoneError(Exception):
    """The client closed its connection in the middle of its request."""


class BrokenError(Exception):
    """What answers broke off in the middle of its response: the client is cut off, so that it notices."""


class Body(Protocol):
    """The body of a request as it comes in."""

    async def next(self) -> bytes:
        """The next piece; empty at the end, and from then on. Raises ClientGoneError."""
        ...

    def on_gone(self, act: Callable[[], object] | None) -> None:
        """Have `act` called once when the client closes its connection, or now if it has; None for nothing."""
        ...

    def rest(self) -> bytes | None:
        """All that is left of it, if the end is there already; else None."""
        ...


@dataclass(frozen=True)
class Mount:
    """What an exchange is served by: one stage of one gateway."""

    api: str  # the gateway's name, API Gateway's apiId
    account: str
    stage: str = "$default"
    base_path: tuple[str, ...] = ()  # what a request's path begins with, and its route's does not
    variables: Mapping[str, str] = field(default_factory=dict)
    binary_media_types: frozenset[str] = frozenset()  # of format 1.0; empty: by what the type is


@dataclass(frozen=True)
class Client:
    """Who is at the other end of a connection, before anything is said."""

    address: str
    port: int = 0
    certificate: bytes = b""  # DER, verified by the listener; empty without mTLS
    secured: "Secured | None" = None  # what the connection was made with; None without TLS


@dataclass(frozen=True)
class SocketEvent:
    """What an exchange is about that has come over a WebSocket, or is the handshake of one."""

    kind: Literal["CONNECT", "MESSAGE", "DISCONNECT"]
    connection_id: str
    connected_at: float = 0.0  # seconds since 1970
    message_id: str = ""
    code: int = 0  # with which it was closed
    reason: str = ""


class Exchange:
    """One request. What is found out about it on its way is kept here for later steps and for the log."""

    __slots__ = (
        "_body",
        "_read",
        "authorizer",
        "began",
        "client",
        "facts",
        "headers",
        "host",
        "id",
        "identity",
        "integration_seconds",
        "integration_status",
        "method",
        "mount",
        "parameters",
        "protocol",
        "query",
        "received",
        "resource",
        "route_key",
        "scheme",
        "segments",
        "socket",
        "span",
        "target",
        "trace_id",
    )

    def __init__(
        self, method: str, target: bytes, headers: Headers, body: Body, client: Client, scheme: str, protocol: str
    ) -> None:
        """`target` is the request's path and query as they came; `protocol` is such as HTTP/1.1."""
        self.method, self.target, self.headers, self.client = method, target, headers, client
        self.scheme, self.protocol = scheme, protocol
        self._body = body
        self._read: bytes | None = None
        self.id = ""
        self.began = 0.0  # of the event loop's clock
        self.host = ""  # lower case, without its port
        self.segments: list[str] = []  # of the path, decoded, below the mount's base path
        self.query = ""  # as it came
        self.mount: Mount = _NOWHERE
        self.route_key = self.resource = ""
        self.parameters: dict[str, str] = {}
        self.authorizer: dict[str, Any] = {}  # what events show as requestContext.authorizer
        self.identity: dict[str, Any] = {}  # of requestContext.identity: apiKey, userArn, ...
        self.trace_id = ""  # as X-Amzn-Trace-Id has it; empty if nobody traces
        self.span: Any = None  # OpenTelemetry's, if this node traces
        self.received = 0  # bytes of the body that were read
        self.integration_seconds = -1.0  # that the integration took to its head; below 0 if it was not asked
        self.integration_status = 0
        self.socket: SocketEvent | None = None
        self.facts: dict[str, Any] = {}  # $context variables of the access log, by name without "$context."

    @property
    def path(self) -> str:
        """The decoded path below the mount."""
        return "/" + "/".join(self.segments)

    def header(self, name: bytes) -> bytes:
        """The first header of that name; empty without one."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    async def read(self, most: int = BODY_BYTES_MAX) -> bytes:
        """The whole body, also when asked again. Raises RefusedError (too large, too slow), ClientGoneError."""
        if self._read is None:
            self._read = self._body.rest()
        if self._read is None:
            first = await self._next()
            self._read = await self._rest(first, most) if first else b""
        if len(self._read) > most:
            raise too_large()
        return self._read

    def replace_body(self, made: Callable[[Body], Body]) -> None:
        """Have the body read through another one, as long as nothing is read of it."""
        self._body = made(self._body)

    async def _rest(self, first: bytes, most: int) -> bytes:
        pieces, size = [first], len(first)
        if size > most:
            raise too_large()
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                while piece := await self._body.next():
                    size += len(piece)
                    if size > most:
                        raise too_large()
                    pieces.append(piece)
                    self.received += len(piece)
        except TimeoutError:
            raise RefusedError(408, "Request Timeout") from None
        return b"".join(pieces) if len(pieces) > 1 else first

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                piece = await self._body.next()
                self.received += len(piece)
                return piece
        except TimeoutError:
            raise RefusedError(408, "Request Timeout") from None

    def on_gone(self, act: Callable[[], object] | None) -> None:
        """Have `act` called when the client closes its connection, in place of what was to be called before."""
        self._body.on_gone(act)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, for whoever passes it on. Raises ClientGoneError, RefusedError if it stalls."""
        if self._read is not None:
            if self._read:
                yield self._read
            return
        while piece := await self._next():
            yield piece


class Variants(Protocol):
    """Other forms of a body that is answered more than once, such as an encoded one."""

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, body: bytes) -> None: ...


class Response:
    """What goes back. `body` is the whole of it, or its pieces as they come; `length` is its length in bytes, None if
    that is not known before the last piece. An answer to HEAD has the length of what GET would get."""

    __slots__ = ("body", "headers", "length", "status", "variants")

    def __init__(
        self, status: int, headers: Headers, body: bytes | AsyncIterator[bytes] = b"", length: int | None = None
    ) -> None:
        """`headers` without what frames the body on the wire: content-length, transfer-encoding, connection."""
        self.status, self.headers, self.body = status, headers, body
        self.length = len(body) if length is None and isinstance(body, bytes) else length
        self.variants: Variants | None = None

    async def drop(self) -> None:
        """Let go of a body that nobody will read."""
        close = getattr(self.body, "aclose", None)
        if close is not None:
            await close()

    def header(self, name: bytes) -> bytes:
        for key, value in self.headers:
            if key == name:
                return value
        return b""


Handler = Callable[[Exchange], Awaitable[Response]]
Step = Callable[[Handler], Handler]


class Application(Protocol):
    """What answers on a port: HTTP by values, WebSockets by ASGI."""

    async def handle(self, exchange: Exchange) -> Response:
        """Never raises but ClientGoneError and CancelledError."""
        ...

    def admits(self, exchange: Exchange) -> bool:
        """Whether its connection may ask for its host: not for one that wants other proofs of its clients."""
        ...

    @property
    def websockets(self) -> ASGIApp | None: ...


def too_large() -> RefusedError:
    return RefusedError(413, "Request Entity Too Large", "REQUEST_TOO_LARGE")


_NOWHERE = Mount("", "")
