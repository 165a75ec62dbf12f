"""What a plain port says that only leads to one with TLS: where to go; and to an authority, who has the name."""

import re
from collections.abc import Callable

from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response, Step

HTTPS_PORT = 443
_HOST = re.compile(r"[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\]")
_CHALLENGES = ["", ".well-known", "acme-challenge"]


def to_https(port: int) -> Handler:
    """Sends every request to the same address with https; with 308 those whose method has to stay (RFC 9110 15.4.9)."""

    async def redirect(exchange: Exchange) -> Response:
        if not _HOST.fullmatch(exchange.host):
            raise RefusedError(400, "Bad Request")
        place = exchange.host if port == HTTPS_PORT else f"{exchange.host}:{port}"
        location = b"https://" + place.encode("ascii") + exchange.target
        return Response(301 if exchange.method in ("GET", "HEAD") else 308, [(b"location", location)])

    return redirect


def challenges(answer: Callable[[str, str], str | None]) -> Step:
    """Answers http-01 (RFC 8555 8.3); `answer` knows what to say to a host and a token, or None."""

    def step(inner: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            segments = exchange.segments
            if exchange.method != "GET" or len(segments) != 3 or segments[:2] != _CHALLENGES[1:]:
                return await inner(exchange)
            found = answer(exchange.host, segments[2])
            if found is None:
                raise RefusedError(404, "Not Found")
            return Response(200, [(b"content-type", b"application/octet-stream")], found.encode("ascii"))

        return handle

    return step


def with_header(name: bytes, value: bytes) -> Step:
    """Adds a header to every response that does not have it."""

    def step(inner: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            response = await inner(exchange)
            if not response.header(name):
                response.headers.append((name, value))
            return response

        return handle

    return step
