"""Between exchanges and ASGI, for what speaks it: servers of other protocols, Starlette's own applications."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from owsgit.gateway import pieces
from owsgit.gateway.exchange import (
    BODILESS,
    Application,
    Client,
    ClientGoneError,
    Exchange,
    Response,
    head_size,
    too_slow,
)
from owsgit.gateway.limits import DEFAULT, Limits

_FRAMING = (b"content-length", b"transfer-encoding", b"connection")


class _Received:
    """The body of an ASGI request."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._over = False
        self._began = asyncio.get_running_loop().time()
        self._received = 0
        self.limits: Limits = DEFAULT
        self._leaving: Callable[[], object] | None = None
        self._watching: asyncio.Task[None] | None = None

    def on_gone(self, act: Callable[[], object] | None) -> None:
        self._leaving = act
        self._watch()

    def _watch(self) -> None:
        """What comes after the body is that the client leaves; before, `next` learns of it."""
        if self._over and self._leaving is not None and self._watching is None:
            self._watching = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._leaving is not None:
            self._leaving()

    def close(self) -> None:
        """The response is over: nobody wants to know any more."""
        if self._watching is not None:
            self._watching.cancel()

    async def next(self) -> bytes:
        while not self._over:
            try:
                async with asyncio.timeout_at(self.limits.body_deadline(self._began, self._received)):
                    message = await self._receive()
            except TimeoutError:
                raise too_slow() from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._over = not message.get("more_body")
            self._watch()
            if piece := message.get("body"):
                self._received += len(piece)
                return bytes(piece)
        return b""

    def rest(self) -> bytes | None:
        return b"" if self._over else None


async def serve(application: Application, scope: Scope, receive: Receive, send: Send, client: Client) -> None:
    """Answer one ASGI request (scope type http) with what answers exchanges."""
    received = _Received(receive)
    try:
        await _serve(application, scope, received, send, client)
    finally:
        received.close()


async def _serve(application: Application, scope: Scope, received: _Received, send: Send, client: Client) -> None:
    target = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    received.limits = application.limits
    exchange = Exchange(
        scope["method"],
        target,
        [(name.lower(), value) for name, value in scope["headers"]],
        received,
        client,
        scope.get("scheme", "http"),
        f"HTTP/{scope['http_version']}",
    )
    exchange.head_bytes = head_size(exchange)
    try:
        response = await application.handle(exchange)
        await _send(exchange, response, send)
    except ClientGoneError:
        return
    finally:
        exchange.close()


async def _send(exchange: Exchange, response: Response, send: Send) -> None:
    bodiless = response.status in BODILESS
    known = response.length is not None and not bodiless
    length = [(b"content-length", str(response.length).encode())] if known else []
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers + length})
    body = response.body
    if bodiless or exchange.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        await response.drop()
        return
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    try:
        async for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        await response.drop()
    await send({"type": "http.response.body", "body": b""})


def scope_of(exchange: Exchange) -> Scope:
    """The exchange as an ASGI scope; its path is the one below the mount."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": exchange.protocol.partition("/")[2],
        "method": exchange.method,
        "scheme": exchange.scheme,
        "path": exchange.path,
        "raw_path": exchange.path.encode(),
        "root_path": "",
        "query_string": exchange.query.encode("latin-1"),
        "headers": exchange.headers,
        "client": (exchange.client.address, exchange.client.port),
        "server": (exchange.host, None),
    }


async def response_of(app: ASGIApp, exchange: Exchange, scope: Scope | None = None) -> Response:
    """What an ASGI application answers; its body is passed on as it comes."""
    messages: asyncio.Queue[Message] = asyncio.Queue(1)
    incoming = pieces.received(exchange)
    over = False

    async def receive() -> Message:
        nonlocal over
        if over:  # the application is ended when the client leaves
            await asyncio.Event().wait()
        piece = await anext(incoming, b"")
        over = not piece
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    running = asyncio.ensure_future(_run(app, scope or scope_of(exchange), receive, messages))
    try:
        start = await messages.get()
    except BaseException:
        running.cancel()
        raise
    if start["type"] != "http.response.start":
        await running
        raise RuntimeError("the application did not answer")
    headers = [(bytes(name).lower(), bytes(value)) for name, value in start["headers"]]
    length = next((int(value) for name, value in headers if name == b"content-length"), None)
    kept = [pair for pair in headers if pair[0] not in _FRAMING]
    return Response(start["status"], kept, _pieces(messages, running), length)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, messages: "asyncio.Queue[Message]") -> None:
    over: dict[str, Any] = {"type": "http.response.body", "body": b""}
    try:
        await app(scope, receive, messages.put)
    finally:
        await messages.put(over)


async def _pieces(messages: "asyncio.Queue[Message]", running: "asyncio.Future[None]") -> AsyncIterator[bytes]:
    try:
        while True:
            message = await messages.get()
            if piece := message.get("body"):
                yield bytes(piece)
            if not message.get("more_body"):
                return
    finally:
        running.cancel()
