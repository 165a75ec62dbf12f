"""A gateway as an ASGI application: one deployment of one gateway file.

Plain ASGI on the path of a request; a request is served by one routing table from its first byte to its last.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from owsgit.gateway import payload
from owsgit.gateway.payload import HttpRequest, HttpResponse, MalformedResponseError, RouteContext
from owsgit.gateway.table import PATH_BYTES_MAX, RoutingTable
from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Invocation, Target

BODY_BYTES_MAX = 10 * 1024 * 1024
"""API Gateway's limit for a request."""

EVENT_BYTES_MAX = 6 * 1024 * 1024
"""Lambda's limit for a synchronous event."""

BODY_SECONDS_MAX = 30.0
"""A client that takes longer to send its body is cut off."""

log = logging.getLogger("owsgit.gateway")


@dataclass(frozen=True)
class Integration:
    """What a route calls: resource `name` of `target`, in a payload format, within `timeout` seconds."""

    target: Target
    name: str
    payload_version: str
    timeout: float


class BadRequestError(Exception):
    """A request that is answered without being routed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GatewayApp:
    """Serves the routes of one gateway."""

    def __init__(self, name: str, account: str, routes: Iterable[tuple[str, Integration]]) -> None:
        self.name = name
        self._account = account
        self._table = RoutingTable(routes)
        self._calls: set[asyncio.Task[Answer]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        request_id = str(uuid.uuid4())
        try:
            path = _path(scope)  # a trailing slash does not make another route
            match = self._table.match(scope["method"], path[:-1] if path[-1] == "" else path)
            if match is None:
                raise BadRequestError(404, "Not Found")
            request = await _request(scope, receive, request_id, path)
            context = RouteContext(self.name, self._account, match.key.text, match.key.path, match.parameters)
            answer = await self._call(match.item, request, context)
        except BadRequestError as error:
            answer = JSONResponse({"message": str(error)}, error.status)
        answer.headers["apigw-requestid"] = request_id
        await answer(scope, receive, send)

    async def _call(self, integration: Integration, request: HttpRequest, context: RouteContext) -> Response:
        version = integration.payload_version
        event = payload.event(version, request, context)
        if len(event) > EVENT_BYTES_MAX:
            raise BadRequestError(413, "Request Entity Too Large")
        invocation = Invocation(event, request.id, _trace_id(request))
        call = asyncio.ensure_future(integration.target.invoke(integration.name, invocation))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            answer = await asyncio.wait_for(asyncio.shield(call), integration.timeout)
        except TimeoutError:
            return _failure(version, 504 if version == "1.0" else 503, "timeout")
        except OwsgitError as error:
            log.warning("%s %s: %s", self.name, context.route_key, error)
            return _failure(version, 503, "unavailable")
        if answer.error is not None:
            return _failure(version, 502 if version == "1.0" else 500, "error")
        try:
            return _response(payload.response(version, answer.payload))
        except MalformedResponseError as error:
            log.warning("%s %s: %s answered badly: %s", self.name, context.route_key, integration.name, error)
            return _failure(version, 502 if version == "1.0" else 500, "error")


def _response(found: HttpResponse) -> Response:
    response = Response(found.body, found.status)
    length = [] if found.status in payload.BODILESS else [(b"content-length", str(len(found.body)).encode())]
    response.raw_headers = [*found.headers, *length]
    return response


def _failure(version: str, status: int, reason: str) -> Response:
    """API Gateway's own words: those of REST APIs for format 1.0, of HTTP APIs for 2.0."""
    words = {
        ("1.0", "timeout"): "Endpoint request timed out",
        ("1.0", "error"): "Internal server error",
        ("2.0", "error"): "Internal Server Error",
    }
    return JSONResponse({"message": words.get((version, reason), "Service Unavailable")}, status)


def _path(scope: Scope) -> list[str]:
    """The path in decoded segments, split before it is decoded: an encoded slash stays inside its segment."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    raw = raw.split(b"?", 1)[0]
    if not raw.startswith(b"/") or len(raw) > PATH_BYTES_MAX:
        raise BadRequestError(400, "Bad Request")
    try:
        segments = [unquote_to_bytes(part).decode("utf-8") for part in raw[1:].split(b"/")]
    except UnicodeDecodeError:
        raise BadRequestError(400, "Bad Request") from None
    if any(segment in (".", "..") or "\0" in segment for segment in segments):
        raise BadRequestError(400, "Bad Request")
    return segments


async def _request(scope: Scope, receive: Receive, request_id: str, path: list[str]) -> HttpRequest:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    try:
        body = await asyncio.wait_for(_body(receive), BODY_SECONDS_MAX)
    except TimeoutError:
        raise BadRequestError(408, "Request Timeout") from None
    client = scope.get("client")
    return HttpRequest(
        id=request_id,
        method=scope["method"],
        path="/" + "/".join(path),
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=body,
        source_ip=client[0] if client else "",
        protocol=f"HTTP/{scope['http_version']}",
        host=next((value.rsplit(":", 1)[0] for name, value in headers if name == "host"), ""),
    )


async def _body(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequestError(400, "Bad Request")
        piece = message.get("body", b"")
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise BadRequestError(413, "Request Entity Too Large")
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


def _trace_id(request: HttpRequest) -> str:
    return next((value for name, value in request.headers if name == "x-amzn-trace-id"), "")
