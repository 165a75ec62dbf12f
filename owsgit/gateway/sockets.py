"""Open WebSockets: they outlive the deployment that accepted them, and are found by their id from every node.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html
"""

import asyncio
import base64
import binascii
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from owsgit.gateway.exchange import Client, Exchange, Mount, RefusedError

MESSAGE_BYTES_MAX = 128 * 1024
"""API Gateway's limit, in both directions."""

PENDING_BYTES_MAX = 512 * 1024
"""Of messages that wait for a client to take what came before. More is refused to who sends by @connections; a client
that makes its own answers fall back further is cut off."""

SEND_SECONDS_MAX = 30.0
"""How long one message may wait for that."""

CUT = "owsgit.cut"
CLIENT = "owsgit.client"
NAMES = "owsgit.names"
"""What the extensions of an ASGI scope have beside ASGI's: how to close without waiting for room, and who is there."""

NONCE_BYTES = 15
GOING_AWAY = 1001
POLICY = 1008

Forward = Callable[[str, Mapping[str, str], bytes], Awaitable["Outcome"]]
"""Has another node, by the name that an id says, do something with a connection of its own. Raises OwsgitError."""


@dataclass(frozen=True)
class SocketLimits:
    """Of one gateway. Times are in seconds; messages are those of one connection."""

    idle_timeout: float = 600.0
    lifetime: float = 7200.0
    connections: int = 10_000
    message_rate: float = 500.0  # a second
    message_burst: int = 1000


class GoneError(Exception):
    """The client is not there any more, or is being cut off."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request to @connections: a status, and what GET shows."""

    status: int
    body: bytes = b""


class Connection:
    """One open WebSocket."""

    __slots__ = (
        "_cut",
        "_pending",
        "_send",
        "_timer",
        "_tokens",
        "_tokens_at",
        "active_at",
        "authorizer",
        "client",
        "closed",
        "connected_at",
        "host",
        "id",
        "identity",
        "limits",
        "mount",
        "scheme",
        "user_agent",
    )

    def __init__(
        self,
        connection_id: str,
        exchange: Exchange,
        limits: SocketLimits,
        send: Callable[[dict[str, Any]], Awaitable[None]],
        cut: Callable[[int, str], None],
    ) -> None:
        """`exchange` is its handshake, as an authorizer left it; `cut` closes without waiting."""
        self.id = connection_id
        self.limits = limits
        self.mount: Mount = exchange.mount
        self.client: Client = exchange.client
        self.host, self.scheme = exchange.host, exchange.scheme
        self.user_agent = exchange.header(b"user-agent")
        self.authorizer, self.identity = exchange.authorizer, exchange.identity
        self.connected_at = self.active_at = time.time()
        self.closed = False
        self._send, self._cut = send, cut
        self._pending = 0
        self._tokens, self._tokens_at = float(limits.message_burst), time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(limits.idle_timeout, limits.lifetime), self._look)

    def _look(self) -> None:
        """Close it if it is idle or old; else look again when it might be."""
        now = time.time()
        left = min(self.active_at + self.limits.idle_timeout, self.connected_at + self.limits.lifetime) - now
        if left <= 0:
            self.close(GOING_AWAY, "Going away")
        else:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)

    def may_send(self) -> bool:
        """Whether the client keeps to the rate of messages; this one is counted."""
        now = time.monotonic()
        self.active_at = time.time()
        rate, burst = self.limits.message_rate, self.limits.message_burst
        self._tokens = min(burst, self._tokens + (now - self._tokens_at) * rate)
        self._tokens_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def has_room(self, size: int) -> bool:
        """Whether a message of that size can wait until the client has taken what came before."""
        return self._pending + size <= PENDING_BYTES_MAX

    async def send(self, data: bytes) -> None:
        """Send a message: as text, if it is. Returns when it is on its way. Raises GoneError."""
        if self.closed:
            raise GoneError
        size = len(data)
        if not self.has_room(size):
            self.close(POLICY, "too slow")
            raise GoneError
        try:
            message: dict[str, Any] = {"type": "websocket.send", "text": data.decode("utf-8")}
        except UnicodeDecodeError:
            message = {"type": "websocket.send", "bytes": data}
        self._pending += size
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await self._send(message)
        except TimeoutError:
            self.close(POLICY, "too slow")
            raise GoneError from None
        except (OSError, RuntimeError):  # what the protocol raises when the connection is closed
            raise GoneError from None
        finally:
            self._pending -= size
        self.active_at = time.time()

    def close(self, code: int, reason: str) -> None:
        self.closed = True
        self._cut(code, reason)

    def end(self) -> None:
        """It is closed."""
        self.closed = True
        self._timer.cancel()


class Connections:
    """All WebSockets of a node."""

    def __init__(self, node: str, forward: Forward) -> None:
        self._node, self._forward = node, forward
        self._open: dict[str, Connection] = {}
        self._counts: dict[str, int] = {}  # by gateway, with those whose handshake is under way

    def new_id(self) -> str:
        """An id that nobody guesses and that tells the nodes where the connection is."""
        return base64.urlsafe_b64encode(secrets.token_bytes(NONCE_BYTES) + self._node.encode()).decode()

    def enter(self, gateway: str, most: int) -> None:
        """Count a connection in. Raises RefusedError if there are too many."""
        count = self._counts.get(gateway, 0)
        if count >= most:
            raise RefusedError(429, "Too Many Requests", "THROTTLED")
        self._counts[gateway] = count + 1

    def leave(self, gateway: str) -> None:
        left = self._counts.pop(gateway) - 1
        if left:
            self._counts[gateway] = left

    def add(self, connection: Connection) -> None:
        self._open[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        self._open.pop(connection.id, None)
        connection.end()

    def count(self, gateway: str) -> int:
        return self._counts.get(gateway, 0)

    def close(self, gateway: str, but: Iterable[str] = ()) -> None:
        """Send away those of a gateway, except for the stages that it still has."""
        kept = set(but)
        for connection in list(self._open.values()):
            if connection.mount.api == gateway and connection.mount.stage not in kept:
                connection.close(GOING_AWAY, "Going away")

    def find(self, connection_id: str) -> Connection | None:
        """One that is open on this node."""
        return self._open.get(connection_id)

    async def manage(self, method: str, mount: Mount, connection_id: str, body: bytes) -> Outcome:
        """POST, GET or DELETE of a connection, wherever it is. Raises OwsgitError if its node cannot be asked."""
        node = node_of(connection_id)
        if node is None:
            return Outcome(410)
        fields = {"method": method, "gateway": mount.api, "stage": mount.stage, "connection": connection_id}
        return await (self.here(fields, body) if node == self._node else self._forward(node, fields, body))

    async def here(self, fields: Mapping[str, str], body: bytes) -> Outcome:
        """The same, with a connection of this node, as any node may ask for it."""
        connection = self.find(fields["connection"])
        wanted = fields["gateway"], fields["stage"]
        if connection is None or connection.closed or (connection.mount.api, connection.mount.stage) != wanted:
            return Outcome(410)
        if fields["method"] == "GET":
            return Outcome(200, _shown(connection))
        if fields["method"] == "DELETE":
            connection.close(1000, "")
            return Outcome(204)
        if not connection.has_room(len(body)):
            return Outcome(429)
        try:
            await connection.send(body)
        except GoneError:
            return Outcome(410)
        return Outcome(200)


def node_of(connection_id: str) -> str | None:
    """The name of the node that has, or had, the connection; None for what is no id."""
    try:
        return base64.b64decode(connection_id, altchars=b"-_", validate=True)[NONCE_BYTES:].decode() or None
    except (binascii.Error, ValueError):
        return None


def _shown(connection: Connection) -> bytes:
    shown = {
        "connectedAt": _time(connection.connected_at),
        "lastActiveAt": _time(connection.active_at),
        "identity": {
            "sourceIp": connection.client.address,
            "userAgent": connection.user_agent.decode("latin-1"),
        },
    }
    return orjson.dumps(shown)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
