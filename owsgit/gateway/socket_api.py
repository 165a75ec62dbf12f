"""One stage of a WebSocket API: handshakes, messages and goodbyes become exchanges, which routes answer as any other.

    $connect      the handshake itself, with all the steps of its stage and its route; refused unless it answers 2xx
    messages      the route that the route selection expression finds in the message, else $default; one at a time
    $disconnect   once, when it is over; nobody hears the answer

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-overview.html
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from owsgit.gateway import refusals
from owsgit.gateway.app import Api, wrapped
from owsgit.gateway.exchange import Exchange, Handler, Mount, RefusedError, Response, SocketEvent, Step
from owsgit.gateway.limits import DEFAULT as DEFAULT_LIMITS
from owsgit.gateway.limits import Limits
from owsgit.gateway.sockets import (
    CLIENT,
    CUT,
    MESSAGE_BYTES_MAX,
    NAMES,
    Connection,
    Connections,
    GoneError,
    SocketLimits,
)
from owsgit.gateway.table import CONNECT, DEFAULT, DISCONNECT
from owsgit.gateway.throttle import Pace, too_many
from owsgit.model.errors import OwsgitError

KINDS = {
    403: "ForbiddenException",
    410: "GoneException",
    413: "PayloadTooLargeException",
    429: "LimitExceededException",
}
"""What AWS calls the errors of @connections, by status."""

CONNECTIONS = "@connections"
ERROR_TYPE = b"x-amzn-errortype"
SUBPROTOCOL = b"sec-websocket-protocol"

LIMITS = SocketLimits()
MESSAGES_AT_ONCE = 10
"""Of one connection, before the others have their turn."""

log = logging.getLogger("owsgit.gateway")


def closed(inner: Handler) -> Handler:
    """A step that refuses everybody, for want of one that verifies who asks."""

    async def step(exchange: Exchange) -> Response:
        raise RefusedError(403, "Forbidden", "ACCESS_DENIED")

    return step


@dataclass(frozen=True)
class SocketRoute:
    """What answers a message; `two_way` if the client gets the answer."""

    handler: Handler
    two_way: bool = False


class Selection:
    """A route selection expression, such as $request.body.action."""

    def __init__(self, path: Sequence[str]) -> None:
        """`path`: the names that lead to the route's key in a message."""
        self._path = tuple(path)

    def key(self, text: str) -> str:
        """The route key that a message names; empty if it names none."""
        try:
            value: Any = orjson.loads(text)
        except orjson.JSONDecodeError:
            return ""
        for name in self._path:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, str) else ""


class WebSocketApi:
    """Serves the routes of one stage, and @connections beside them."""

    def __init__(
        self,
        mount: Mount,
        routes: Mapping[str, SocketRoute],
        connections: "Deployed",
        selection: Selection,
        limits: SocketLimits = LIMITS,
        *,
        connect_steps: Sequence[Step] = (),
        steps: Sequence[Step] = (),
        observers: Sequence[Step] = (),
        seen: Sequence[Step] = (),
        manage_steps: Sequence[Step] = (closed,),
        http: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`routes` by route key, $connect and $disconnect among them if there is something to do then. `observers` see
        requests over HTTP, `seen` what happens on connections. `manage_steps` let pass who may use @connections
        (execute-api:ManageConnections); `http` is for it and for handshakes."""
        self.mount, self.limits = mount, http
        self._routes = {key: route for key, route in routes.items() if key not in (CONNECT, DISCONNECT)}
        self._disconnect = routes.get(DISCONNECT)
        self._deployed, self._selection, self._limits = connections, selection, limits
        self._seen = seen
        self._pace = Pace()
        connect = routes[CONNECT].handler if CONNECT in routes else _accept
        handshake = wrapped(connect, [_named_connect, *connect_steps])
        self._handshakes = Api(mount, [(DEFAULT, handshake)], steps, observers, http)
        manage = wrapped(self._manage, [_typed, *manage_steps])
        self._http = Api(mount, [(f"ANY /{CONNECTIONS}/{{id}}", manage), (DEFAULT, _no_socket)], (), observers, http)

    def below(self, base_path: tuple[str, ...], *, is_mapped: bool = False) -> "WebSocketApi":
        """The same with another base path; see Mount."""
        other = object.__new__(WebSocketApi)
        other.__dict__.update(self.__dict__, mount=replace(self.mount, base_path=base_path, is_mapped=is_mapped))
        other._handshakes = self._handshakes.below(base_path, is_mapped=is_mapped)
        other._http = self._http.below(base_path, is_mapped=is_mapped)
        return other

    async def handle(self, exchange: Exchange) -> Response:
        """A request that is no handshake. Handlers make its address of an event's domainName and stage, also where the
        domain leads to the stage by itself."""
        if len(exchange.segments) == 3 and exchange.segments[:2] == [self.mount.stage, CONNECTIONS]:
            exchange.segments = exchange.segments[1:]
        return await self._http.handle(exchange)

    # ---- a connection, from its handshake to its end

    async def serve(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        connections = self._deployed.connections
        exchange.socket = SocketEvent("CONNECT", connections.new_id())
        try:
            if exchange.segments not in ([], [""]):
                raise RefusedError(403, "Forbidden")
            connections.enter(self.mount.api, self._limits.connections)
        except RefusedError as refusal:
            await deny(refusals.response(refusal), send)
            return
        try:
            response = await self._handshakes.handle(exchange)
            if not 200 <= response.status < 300:
                await deny(response, send)
                return
            await response.drop()
            await self._accepted(exchange, response, scope["extensions"][CUT], receive, send)
        finally:
            connections.leave(self.mount.api)

    async def _accepted(
        self, exchange: Exchange, response: Response, cut: Callable[[int, str], None], receive: Receive, send: Send
    ) -> None:
        assert exchange.socket is not None
        connection = Connection(exchange.socket.connection_id, exchange, self._limits, send, cut)
        subprotocol = response.header(SUBPROTOCOL).decode("latin-1") or None
        connections = self._deployed.connections
        code, reason = 1006, "Connection closed abnormally"
        try:
            connections.add(connection)
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            exchange.replace_headers([])  # as long as the connection lives, they would too
            exchange.names = {}
            code, reason = await self._converse(connection, receive)
        except OSError:  # it went before it was accepted
            pass
        finally:
            connections.remove(connection)
        await self._deployed.now(connection.mount, self)._goodbye(connection, code, reason)

    async def _converse(self, connection: Connection, receive: Receive) -> tuple[int, str]:
        """Answer messages, one after another, until the connection is closed; how."""
        taken = 0
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return event.get("code") or 1005, event.get("reason") or ""
            if event["type"] != "websocket.receive" or connection.closed:
                continue
            message: str | bytes = event["text"] if event.get("text") is not None else event["bytes"]
            api = self._deployed.now(connection.mount, self)
            try:
                await api._message(connection, message)
            except GoneError:
                continue  # its end is among what is to be received
            taken += 1
            if taken % MESSAGES_AT_ONCE == 0:  # where nothing else is waited for
                await asyncio.sleep(0)

    async def _message(self, connection: Connection, message: str | bytes) -> None:
        event = SocketEvent("MESSAGE", connection.id, connection.connected_at, str(uuid.uuid4()))
        exchange = self._exchange(connection, event, message)
        exchange.id = event.message_id
        response = await wrapped(partial(self._answer, connection, message), self._seen)(exchange)
        if response.body:
            assert isinstance(response.body, bytes)
            await connection.send(response.body)

    async def _answer(self, connection: Connection, message: str | bytes, exchange: Exchange) -> Response:
        """What the client gets for a message; nothing if the body is empty."""
        try:
            if not connection.may_send():
                raise self._pace.slowed(too_many(1), time.monotonic())
            key = self._selection.key(message) if isinstance(message, str) else ""
            route = self._routes.get(key)
            if route is None:
                key, route = DEFAULT, self._routes.get(DEFAULT)
            if route is None:
                raise RefusedError(403, "Forbidden")
            exchange.route_key = exchange.resource = key
            response = await route.handler(exchange)
            if route.two_way:
                return Response(response.status, [], await _whole(response))
            await response.drop()
            return Response(response.status, [])
        except RefusedError as caught:
            refusal = caught
        except Exception:
            log.exception("a message to %s failed", self.mount.api)
            refusal = RefusedError(500, "Internal server error")
        _note(refusal, exchange)
        if refusal.held:  # meanwhile nothing more is read of this connection
            await asyncio.sleep(refusal.held)
        return Response(refusal.status, [], _error(refusal, exchange))

    async def _goodbye(self, connection: Connection, code: int, reason: str) -> None:
        if self._disconnect is None:
            return
        event = SocketEvent("DISCONNECT", connection.id, connection.connected_at, "", code, reason)
        exchange = self._exchange(connection, event, "")
        exchange.id, exchange.route_key, exchange.resource = str(uuid.uuid4()), DISCONNECT, DISCONNECT
        await wrapped(partial(self._farewell, self._disconnect.handler), self._seen)(exchange)

    async def _farewell(self, handler: Handler, exchange: Exchange) -> Response:
        """Tell that a connection is over. Nobody gets an answer."""
        try:
            response = await handler(exchange)
            await response.drop()
            return Response(response.status, [])
        except RefusedError as caught:
            refusal = caught
            log.warning("%s $disconnect: %s", self.mount.api, refusal.message)
        except Exception:
            log.exception("$disconnect of %s failed", self.mount.api)
            refusal = RefusedError(500, "Internal server error")
        _note(refusal, exchange)
        return Response(refusal.status, [])

    def _exchange(self, connection: Connection, event: SocketEvent, message: str | bytes) -> Exchange:
        """What happens on a connection, as a request."""
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        kind = b"application/json" if text else b"application/octet-stream"
        headers = [(b"host", connection.host.encode("latin-1")), (b"content-type", kind)]
        if connection.user_agent:
            headers.append((b"user-agent", connection.user_agent))
        exchange = Exchange("POST", b"/", headers, _Message(data), connection.client, connection.scheme, "HTTP/1.1")
        exchange.segments = [""]
        exchange.host, exchange.mount, exchange.limits = connection.host, self.mount, self.limits
        exchange.authorizer, exchange.identity = connection.authorizer, connection.identity
        exchange.socket = event
        return exchange

    # ---- @connections

    async def _manage(self, exchange: Exchange) -> Response:
        connection_id = exchange.parameters["id"]
        if exchange.method not in ("GET", "POST", "DELETE"):
            raise RefusedError(403, "Forbidden")
        body = await exchange.read(MESSAGE_BYTES_MAX) if exchange.method == "POST" else b""
        try:
            outcome = await self._deployed.connections.manage(exchange.method, self.mount, connection_id, body)
        except OwsgitError as error:
            log.warning("%s: the connection %s cannot be reached: %s", self.mount.api, connection_id, error)
            raise RefusedError(503, "Service Unavailable", "INTEGRATION_FAILURE") from None
        if outcome.status == 410:
            raise RefusedError(410, "Gone")
        if outcome.status == 429:
            raise RefusedError(429, "Too Many Requests", "THROTTLED")
        return Response(outcome.status, [refusals.JSON], outcome.body)


class Deployed:
    """What serves each stage of each WebSocket API now, whoever accepted a connection; with the connections."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self._apis: dict[tuple[str, str], WebSocketApi] = {}

    def now(self, mount: Mount, otherwise: WebSocketApi) -> WebSocketApi:
        return self._apis.get((mount.api, mount.stage), otherwise)

    def deploy(self, gateway: str, apis: Mapping[str, WebSocketApi]) -> None:
        """Have messages answered by these, by stage, from now on. Connections of other stages are closed."""
        for place in [each for each in self._apis if each[0] == gateway]:
            del self._apis[place]
        self._apis.update({(gateway, stage): api for stage, api in apis.items()})
        self.connections.close(gateway, but=apis)


async def deny(response: Response, send: Send) -> None:
    """Answer a handshake with something else than a WebSocket (ASGI's denial response)."""
    body = await _whole(response)
    try:
        await send({"type": "websocket.http.response.start", "status": response.status, "headers": response.headers})
        await send({"type": "websocket.http.response.body", "body": body})
    except OSError:
        pass  # the client is gone


def handshake(scope: Scope) -> Exchange:
    """The request that asks for a WebSocket."""
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    scheme = "https" if scope["scheme"] == "wss" else "http"
    made = Exchange("GET", target, headers, _Message(b""), scope["extensions"][CLIENT], scheme, "HTTP/1.1")
    made.names = scope["extensions"].pop(NAMES)  # the scope lives as long as the connection
    return made


class _Message:
    """A message as the body of a request."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def next(self) -> bytes:
        return self.rest()

    def rest(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def on_gone(self, act: Callable[[], object] | None) -> None:
        """What was said is answered to its end; then it is seen that the client has left."""


async def _whole(response: Response) -> bytes:
    """The body. Raises RefusedError for one that is too long for a message."""
    body = response.body if isinstance(response.body, bytes) else await _gathered(response.body)
    if len(body) > MESSAGE_BYTES_MAX:
        log.warning("an answer of %d bytes is too long for a message", len(body))
        raise RefusedError(502, "Internal server error", "INTEGRATION_FAILURE")
    return body


async def _gathered(pieces: AsyncIterator[bytes]) -> bytes:
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) > MESSAGE_BYTES_MAX:
            break
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
    return bytes(gathered)


def _note(refusal: RefusedError, exchange: Exchange) -> None:
    """For what sees it."""
    exchange.facts["error.message"] = refusal.message
    exchange.facts["error.responseType"] = refusal.kind


def _error(refusal: RefusedError, exchange: Exchange) -> bytes:
    """API Gateway's words on a WebSocket."""
    assert exchange.socket is not None
    message = refusal.message
    if refusal.status >= 500:
        message = "Endpoint request timed out" if refusal.kind == "INTEGRATION_TIMEOUT" else "Internal server error"
    about = {"connectionId": exchange.socket.connection_id, "requestId": exchange.id}
    return orjson.dumps({"message": message, **about})


async def _accept(exchange: Exchange) -> Response:
    """For an API without $connect."""
    return Response(200, [])


async def _no_socket(exchange: Exchange) -> Response:
    raise RefusedError(403, "Forbidden")


def _typed(inner: Handler) -> Handler:
    """Says what kind of error it is where clients of AWS look for it."""

    async def step(exchange: Exchange) -> Response:
        try:
            return await inner(exchange)
        except RefusedError as refusal:
            if refusal.status in KINDS and not any(name == ERROR_TYPE for name, _ in refusal.headers):
                refusal.headers.append((ERROR_TYPE, KINDS[refusal.status].encode()))
            raise

    return step


def _named_connect(inner: Handler) -> Handler:
    async def step(exchange: Exchange) -> Response:
        exchange.route_key = exchange.resource = CONNECT
        return await inner(exchange)

    return step
