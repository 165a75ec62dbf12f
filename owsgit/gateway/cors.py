"""Cross-origin resource sharing: which pages of other origins may read what a gateway answers.

It answers preflights by itself and replaces what an integration says of the matter, as HTTP APIs do.
Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html, https://fetch.spec.whatwg.org
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from owsgit.gateway.exchange import Exchange, Handler, Headers, Response
from owsgit.gateway.table import METHODS

_OWN = frozenset(
    {
        b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers",
        b"access-control-allow-methods", b"access-control-allow-headers", b"access-control-max-age",
    }
)  # fmt: skip
_TOKENS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,4096}")


@dataclass(frozen=True)
class Sharing:
    """What is shared with whom. An origin is `https://a.example`, or with * for a part of it, or * alone."""

    origins: Sequence[str] = ()
    methods: Sequence[str] = ()
    headers: Sequence[str] = ()
    exposed: Sequence[str] = ()
    seconds: int | None = None  # that a browser may remember a preflight
    credentials: bool = False


class Cors:
    """An observer: outside of the refusals, so that a page can read them too."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._any_origin = "*" in sharing.origins
        pattern = "|".join(re.escape(origin.lower()).replace(r"\*", r"[^/@\s]+") for origin in sharing.origins)
        self._origin = re.compile(pattern.encode())
        self._methods = ", ".join(METHODS if "*" in sharing.methods else sharing.methods).encode()
        self._headers = None if "*" in sharing.headers else ", ".join(sharing.headers).encode()
        self._exposed = ", ".join(sharing.exposed).encode()

    def __call__(self, handler: Handler) -> Handler:
        async def shared(exchange: Exchange) -> Response:
            origin = exchange.header(b"origin")
            if origin and exchange.method == "OPTIONS" and exchange.header(b"access-control-request-method"):
                return self._preflight(exchange, origin)
            response = await handler(exchange)
            response.headers = [pair for pair in response.headers if pair[0] not in _OWN]
            response.headers += self._told(origin)
            if not self._any_origin:  # without an Origin too, as it may be cached for somebody who sends one
                response.vary(b"origin")
            return response

        return shared

    def _preflight(self, exchange: Exchange, origin: bytes) -> Response:
        headers = [pair for pair in self._told(origin) if pair[0] != b"access-control-expose-headers"]
        if self._allows(origin):
            headers += self._allowed(exchange.header(b"access-control-request-headers"))
        response = Response(204, headers)
        response.vary(b"origin", b"access-control-request-method", b"access-control-request-headers")
        return response

    def _allowed(self, asked: bytes) -> Headers:
        allowed = [(b"access-control-allow-methods", self._methods)] if self._methods else []
        headers = self._headers if self._headers is not None else asked if _TOKENS.fullmatch(asked) else b""
        if headers:
            allowed.append((b"access-control-allow-headers", headers))
        if self._sharing.seconds is not None:
            allowed.append((b"access-control-max-age", str(self._sharing.seconds).encode()))
        return allowed

    def _allows(self, origin: bytes) -> bool:
        return self._any_origin or self._origin.fullmatch(origin.lower()) is not None

    def _told(self, origin: bytes) -> Headers:
        """What every response to an origin says."""
        if not origin or not self._allows(origin):
            return []
        told = [(b"access-control-allow-origin", b"*" if self._any_origin else origin)]
        if self._sharing.credentials:
            told.append((b"access-control-allow-credentials", b"true"))
        if self._exposed:
            told.append((b"access-control-expose-headers", self._exposed))
        return told
