"""An interactive page of an API: Swagger UI, served whole from its package, with nothing from elsewhere."""

import asyncio
import html
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import orjson

from owsgit.gateway.exchange import Exchange, RefusedError, Response

ASSETS = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}
CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles in elements; no script runs that is not a file of the page."""

HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
STARTER = b"""SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="icon" type="image/png" href="favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"""


class Docs:
    """Serves the page below its path. `document` makes the OpenAPI document, when it is first asked for."""

    def __init__(self, title: str, document: Callable[[Exchange], dict[str, Any]]) -> None:
        self._page = PAGE.format(title=html.escape(title)).encode()
        self._make = document
        self._documents: dict[tuple[str, ...], bytes] = {}

    async def redirect(self, exchange: Exchange) -> Response:
        """A Handler for the path without a slash: what the page names lies below it."""
        if exchange.segments[-1] == "":
            return self._answer(b"text/html; charset=utf-8", self._page)
        return Response(308, [(b"location", f"{exchange.segments[-1]}/".encode())])

    async def file(self, exchange: Exchange) -> Response:
        """A Handler for the files of the page."""
        name = exchange.segments[-1]
        if name == "openapi.json":
            return self._answer(b"application/json", self._document(exchange))
        if name == "start.js":
            return self._answer(b"text/javascript; charset=utf-8", STARTER)
        if name not in ASSETS:
            raise RefusedError(404, "Not Found", "RESOURCE_NOT_FOUND")
        tag = f'"{version("swagger-ui-bundle")}"'.encode()
        kept = [(b"etag", tag), (b"cache-control", b"max-age=86400")]
        if exchange.header(b"if-none-match") == tag:
            return Response(304, kept)
        return self._answer(ASSETS[name], await asyncio.to_thread(_asset, name), kept)

    def _document(self, exchange: Exchange) -> bytes:
        place = exchange.mount.base_path
        if place not in self._documents:
            self._documents[place] = orjson.dumps(self._make(exchange))
        return self._documents[place]

    @staticmethod
    def _answer(kind: bytes, body: bytes, more: list[tuple[bytes, bytes]] | None = None) -> Response:
        return Response(200, [(b"content-type", kind), *HEADERS, *(more or [(b"cache-control", b"no-cache")])], body)


@lru_cache(maxsize=len(ASSETS))
def _asset(name: str) -> bytes:
    from swagger_ui_bundle import swagger_ui_path  # noqa: PLC0415 - only gateways with a page need it

    return bytes((swagger_ui_path / name).read_bytes())
