"""A request on its way through a gateway, and what comes back: the values that every step of a route takes and gives.

A route is a `Handler` (request in, response out) that was put together when its gateway was deployed: an integration,
wrapped in the steps that the route asks for and in no others. A step is a function from a handler to a handler.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

from starlette.types import ASGIApp

from owsgit.gateway.limits import DEFAULT, RETRY_SECONDS, ROOM, Connections, Limits

if TYPE_CHECKING:
    from owsgit.gateway.tls import Secured

BODILESS: Final = (204, 205, 304)
"""Statuses without a body (RFC 9110): bytes after their head would be read as the next response."""

MISDIRECTED: Final = 421
"""RFC 9110 15.5.20: the connection was made for another host."""

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order of the wire."""


class RefusedError(Exception):
    """A request that is answered by the gateway itself. `kind` is API Gateway's name for it (a gateway response type).

    https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
    """

    field: ClassVar[str] = "message"
    """What the text is called in the answer."""

    def __init__(self, status: int, message: str, kind: str = "", headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or []
        self.kind = kind or ("DEFAULT_4XX" if status < 500 else "DEFAULT_5XX")
        self.validation: list[dict[str, str]] = []  # what is wrong with the request, each with path and message
        self.tells_validation = False  # whether the client is told of it
        self.held = 0.0  # seconds that the answer is held back, by which a flood is slowed


class DeniedError(RefusedError):
    """Refused by a policy, in IAM's words, which come as "Message"."""

    field: ClassVar[str] = "Message"

    def __init__(self, message: str) -> None:
        super().__init__(403, message, "ACCESS_DENIED")


class ClientGoneError(Exception):
    """The client closed its connection in the middle of its request."""


class BrokenError(Exception):
    """What answers broke off in the middle of its response: the client is cut off, so that it notices."""


class Body(Protocol):
    """The body of a request as it comes in."""

    async def next(self) -> bytes:
        """The next piece; empty at the end, and from then on. Raises ClientGoneError, RefusedError if it comes slower
        than the limits of what serves the exchange allow."""
        ...

    def on_gone(self, act: Callable[[], object] | None) -> None:
        """Have `act` called once when the client closes its connection, or now if it has; None for nothing."""
        ...

    def rest(self) -> bytes | None:
        """All that is left of it, if the end is there already; else None."""
        ...


class Connection(Protocol):
    """A connection that other processes can go on with; with TLS, they can have those that its client makes next."""

    @property
    def is_secure(self) -> bool: ...

    def send_away(self) -> None: ...

    def give_away(self, take: Callable[[socket.socket | None], bool]) -> None: ...


@dataclass(frozen=True)
class Mount:
    """What an exchange is served by: one stage of one gateway."""

    api: str  # the gateway's name, API Gateway's apiId
    account: str
    stage: str = "$default"
    base_path: tuple[str, ...] = ()  # what a request's path begins with, and its route's does not
    variables: Mapping[str, str] = field(default_factory=dict)
    binary_media_types: frozenset[str] = frozenset()  # of format 1.0; empty: by what the type is
    is_mapped: bool = False  # whether the base path is a domain's (AWS's API mapping), and not the stage's name


@dataclass(frozen=True)
class Client:
    """Who is at the other end of a connection, before anything is said."""

    address: str
    port: int = 0
    certificate: bytes = b""  # DER, verified by the listener; empty without mTLS
    secured: "Secured | None" = None  # what the connection was made with; None without TLS
    tls_version: str = ""  # such as TLSv1.3
    cipher: str = ""  # OpenSSL's name of it


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
        "_room",
        "authorizer",
        "began",
        "client",
        "facts",
        "first",
        "head_bytes",
        "headers",
        "host",
        "id",
        "identity",
        "integration_seconds",
        "integration_status",
        "limits",
        "method",
        "mount",
        "names",
        "parameters",
        "prompt",
        "protocol",
        "query",
        "received",
        "resource",
        "rests",
        "route_key",
        "scheme",
        "segments",
        "socket",
        "span",
        "target",
        "trace_id",
        "written",
        "written_parameters",
    )

    def __init__(
        self, method: str, target: bytes, headers: Headers, body: Body, client: Client, scheme: str, protocol: str
    ) -> None:
        """`target` is the request's path and query as they came; `protocol` is such as HTTP/1.1."""
        self.method, self.target, self.headers, self.client = method, target, headers, client
        self.first: Mapping[bytes, bytes] = dict(reversed(headers))  # the first header of each name
        self.names: Mapping[bytes, bytes] = (
            _NO_NAMES  # of headers as the client wrote them, where that is not in lower case
        )
        self.scheme, self.protocol = scheme, protocol
        self._body = body
        self._read: bytes | None = None
        self._room = 0  # taken for the body
        self.head_bytes = 0  # of the wire; only told where there are so many that somebody may refuse them
        self.limits: Limits = DEFAULT
        self.id = ""
        self.began = monotonic()
        self.host = ""  # lower case, without its port
        self.segments: list[str] = []  # of the path, decoded, below the mount's base path
        self.written: list[str] = []  # the same segments as they were written; the same list if nothing is encoded
        self.query = ""  # as it came
        self.mount: Mount = _NOWHERE
        self.route_key: str = ""
        self.resource: str = ""
        self.parameters: dict[str, str] = {}
        self.written_parameters: dict[str, str] = {}  # as they were written, if that is otherwise
        self.authorizer: dict[str, Any] = {}  # what events show as requestContext.authorizer
        self.identity: dict[str, Any] = {}  # of requestContext.identity: apiKey, userArn, ...
        self.trace_id = ""  # as X-Amzn-Trace-Id has it; empty if nobody traces
        self.span: Any = None  # OpenTelemetry's, if this node traces
        self.received = 0  # bytes of the body that were read
        self.integration_seconds = -1.0  # that the integration took to its head; below 0 if it was not asked
        self.integration_status = 0
        self.socket: SocketEvent | None = None
        self.rests: Callable[[Connection], None] | None = None  # told when it is over and its connection has no other
        self.prompt = False  # whether its response never waits for that of another
        self.facts: dict[str, Any] = {}  # $context variables of the access log, by name without "$context."

    @property
    def path(self) -> str:
        """The decoded path below the mount."""
        return "/" + "/".join(self.segments)

    def replace_headers(self, headers: Headers) -> None:
        """Have these in place of all that came."""
        self.headers, self.first = headers, dict(reversed(headers))

    def header(self, name: bytes) -> bytes:
        """The first header of that name; empty without one."""
        return self.first.get(name, b"")

    async def read(self, most: int | None = None) -> bytes:
        """The whole body, also when asked again; at most `most` bytes, without it what the gateway takes.

        Raises RefusedError (too large, too slow, no memory), ClientGoneError.
        """
        found = self.at_once(most)
        if found is None:
            most = self.limits.body_bytes if most is None else most
            first = await self._body.next()
            found = await self._rest(first, most) if first else b""
            if len(found) > most:
                raise too_large()
            self._read, self.received = found, len(found)
        return found

    def at_once(self, most: int | None = None) -> bytes | None:
        """The same if all of it is there already, as of most requests; else None. Raises RefusedError (too large)."""
        found = self._read
        if found is None:
            found = self._body.rest()
            if found is None:
                return None
            if len(found) > (self.limits.body_bytes if most is None else most):
                raise too_large()
            self._read, self.received = found, len(found)
        elif most is not None and len(found) > most:  # whoever read it before takes more
            raise too_large()
        return found

    def replace_body(self, made: Callable[[Body], Body]) -> None:
        """Have the body read through another one, as long as nothing is read of it."""
        self._body = made(self._body)

    async def _rest(self, first: bytes, most: int) -> bytes:
        declared = self.header(b"content-length")
        if declared.isdigit() and int(declared[:20]) > most:
            raise too_large()
        pieces, size = [first], len(first)
        while piece := await self._body.next():
            size += len(piece)
            if size > most:
                raise too_large()
            self._take_room(len(piece) if self._room else size)
            pieces.append(piece)
        return b"".join(pieces) if len(pieces) > 1 else first

    def _take_room(self, count: int) -> None:
        if not ROOM.take(count):
            raise RefusedError(503, "Service Unavailable", headers=[(b"retry-after", b"%d" % RETRY_SECONDS)])
        self._room += count

    def close(self) -> None:
        """The exchange is over: what it holds is free for others."""
        if self._room:
            ROOM.give_back(self._room)
            self._room = 0

    def on_gone(self, act: Callable[[], object] | None) -> None:
        """Have `act` called when the client closes its connection, in place of what was to be called before."""
        self._body.on_gone(act)

    @property
    def whole(self) -> bytes | None:
        """The whole body, if it was read."""
        return self._read

    async def piece(self, most: int) -> bytes:
        """What comes next of a body that was not read; empty at the end. Raises RefusedError (longer than `most`, too
        slow), ClientGoneError."""
        piece = await self._body.next()
        self.received += len(piece)
        if len(piece) > most:
            raise too_large()
        return piece


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

    def vary(self, *names: bytes) -> None:
        """Say that it depends on these headers of the request, in one Vary that names each once (RFC 9110 12.5.5)."""
        said = [value for key, value in self.headers if key == b"vary"]
        once: dict[bytes, bytes] = {}
        for each in b",".join((*said, *names)).split(b","):
            once.setdefault(each.strip().lower(), each.strip())
        value = b"*" if b"*" in once else b", ".join(filter(None, once.values()))
        self.headers = [pair for pair in self.headers if pair[0] != b"vary"] + [(b"vary", value)]


Handler = Callable[[Exchange], Awaitable[Response]]
Step = Callable[[Handler], Handler]


class Application(Protocol):
    """What answers on a port: HTTP by values, WebSockets by ASGI."""

    def handle(self, exchange: Exchange) -> Awaitable[Response]:
        """Never raises but ClientGoneError and CancelledError."""
        ...

    def admits(self, exchange: Exchange) -> bool:
        """Whether its connection may ask for its host: not for one that wants other proofs of its clients."""
        ...

    @property
    def websockets(self) -> ASGIApp | None: ...

    @property
    def limits(self) -> Limits:
        """Of the port."""
        ...

    @property
    def connections(self) -> Connections:
        """Those of the port, counted."""
        ...


def too_large() -> RefusedError:
    return RefusedError(413, "Request Entity Too Large", "REQUEST_TOO_LARGE")


def too_slow() -> RefusedError:
    return RefusedError(408, "Request Timeout")


def head_size(exchange: Exchange) -> int:
    """The bytes of the request line and the headers, as HTTP/1.1 writes them."""
    line = len(exchange.method) + len(exchange.target) + len(exchange.protocol) + 4
    return line + sum(len(name) + len(value) + 4 for name, value in exchange.headers) + 2


_NOWHERE: Final = Mount("", "")
_NO_NAMES: Final[Mapping[bytes, bytes]] = {}
