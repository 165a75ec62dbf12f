"""Integrations that answer by themselves: a fixed response, a redirect."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from owsgit.gateway.exchange import BODILESS, Exchange, Headers, RefusedError, Response
from owsgit.gateway.mapping import Expression, Sources, header_value
from owsgit.gateway.template import PathTemplate

_IN_QUERY = "!$%&'()*+,-./:;=?@_~[]|"
"""What stays of a client's query; the rest is percent-encoded."""


class FixedResponse:
    """Answers the same to everybody, but for `${context.requestId}` and the like in headers and in the strings of a
    JSON body: there a value can be put safely, whatever the client wrote. A body that is text is sent as it is."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes | dict[str, Any] | list[Any]) -> None:
        self._status = status
        self._headers = [(name.lower().encode(), Expression(value)) for name, value in headers.items()]
        if not isinstance(body, bytes) and "content-type" not in {name.lower() for name in headers}:
            self._headers.append((b"content-type", Expression("application/json")))
        self._body = body if isinstance(body, bytes) else _json(body)

    async def __call__(self, exchange: Exchange) -> Response:
        sources = Sources(exchange)
        headers: Headers = [(name, header_value(value.of(sources))) for name, value in self._headers]
        body = self._body if isinstance(self._body, bytes) else orjson.dumps(self._body(sources))
        return Response(self._status, headers, b"" if self._status in BODILESS else body)


def _json(value: Any) -> bytes | Callable[[Sources], Any]:
    filler = _filler(value)
    return orjson.dumps(value) if filler is None else filler


def _filler(value: Any) -> Callable[[Sources], Any] | None:
    """What makes the value for a request; None if it is always the same."""
    if isinstance(value, str):
        expression = Expression(value)
        return None if expression.is_fixed else lambda sources: _clean(expression.of(sources))
    if isinstance(value, dict):
        members = {key: _filler(each) for key, each in value.items()}
        if any(members.values()):
            return lambda sources: {
                key: value[key] if filler is None else filler(sources) for key, filler in members.items()
            }
    if isinstance(value, list):
        fillers = [_filler(each) for each in value]
        if any(fillers):
            return lambda sources: [
                each if filler is None else filler(sources) for each, filler in zip(value, fillers, strict=True)
            ]
    return None


def _clean(text: str) -> str:
    """Without bytes that are not UTF-8, which headers may have and JSON may not."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Redirect:
    """Sends the client elsewhere. The host is the file's alone: no parameter reaches it."""

    def __init__(self, location: PathTemplate, status: int, *, keep_query: bool) -> None:
        self._location, self._status, self._keep_query = location, status, keep_query

    async def __call__(self, exchange: Exchange) -> Response:
        location = self._location.fill(exchange)
        if location.startswith("//"):  # an empty segment in front: browsers would take the next one for a host
            raise RefusedError(400, "Bad Request")
        if self._keep_query and exchange.query:
            address, hash_sign, fragment = location.partition("#")
            query = quote(exchange.query, _IN_QUERY, "latin-1")
            location = f"{address}{'&' if '?' in address else '?'}{query}{hash_sign}{fragment}"
        return Response(self._status, [(b"location", header_value(location))], b"")
