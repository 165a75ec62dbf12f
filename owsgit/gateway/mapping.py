"""Parameter mapping: what an integration is shown of a request, and a client of its response.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-parameter-mapping.html
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote_plus, unquote, unquote_plus

import orjson

from owsgit.gateway import context, payload
from owsgit.gateway.exchange import Exchange, Handler, Headers, RefusedError, Response
from owsgit.gateway.template import PathTemplate

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
RESERVED = frozenset(
    {
        "connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te",
        "trailer", "transfer-encoding", "upgrade", "via",
    }
)  # fmt: skip
"""Headers that frame a message or belong to one connection."""

_ACTION = re.compile(r"(append|overwrite|remove):(header|querystring|statuscode)(?:\.(.+))?")
_EMBEDDED = re.compile(r"\$\{([^{}]*)\}")
_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

Side = Literal["request", "response"]


@dataclass(frozen=True)
class Sources:
    """What values are taken from."""

    exchange: Exchange
    response: Response | None = None
    document: Any = None  # the request's body, if it is JSON and a value asks for it


Value = Callable[[Sources], str]


class Expression:
    """A text in which `${context.requestId}` and the like stand for what a request says; `$context.requestId` alone,
    too."""

    def __init__(self, text: str, side: Side = "request") -> None:
        """Raises ValueError for a variable that there is not."""
        whole = re.fullmatch(r"\$([A-Za-z]+(?:\..+)?)", text)
        names = [whole[1]] if whole else _EMBEDDED.findall(text)
        self.needs_body = any(name.startswith("request.body") for name in names)
        self.is_fixed = not names
        pieces: list[str] = ["", whole[1], ""] if whole else _EMBEDDED.split(text)
        self._parts: list[str | Value] = [
            _variable(piece, side) if index % 2 else piece for index, piece in enumerate(pieces) if index % 2 or piece
        ]

    def of(self, sources: Sources) -> str:
        return "".join(part if isinstance(part, str) else part(sources) for part in self._parts)


def _variable(name: str, side: Side) -> Value:
    if name == "request.path":
        return lambda sources: payload.full_path(sources.exchange)
    scope, _, rest = name.partition(".")
    where, _, key = rest.partition(".")
    if scope == "context" and rest:
        context.check(rest)
        return lambda sources: _text(context.value(sources.exchange, rest))
    if scope == "stageVariables" and rest:
        return lambda sources: sources.exchange.mount.variables.get(rest, "")
    if scope == "request" and key and where in ("header", "querystring", "path", "body"):
        return _of_request(where, key)
    if side == "response" and scope == "response" and where == "header" and key:
        wanted = key.lower().encode()
        return lambda sources: _joined(sources.response.headers if sources.response else [], wanted)
    known = ["request.header.NAME", "request.querystring.NAME", "request.path", "request.path.NAME"]
    known += ["request.body.NAME", "context.NAME", "stageVariables.NAME"]
    known += ["response.header.NAME"] if side == "response" else []
    raise ValueError(f"there is no variable {name!r}; known are {', '.join(known)}")


def _of_request(where: str, key: str) -> Value:
    if where == "header":
        wanted = key.lower().encode()
        return lambda sources: _joined(sources.exchange.headers, wanted)
    if where == "querystring":
        return lambda sources: ",".join(value for name, value in payload.query_pairs(sources.exchange) if name == key)
    if where == "path":
        return lambda sources: sources.exchange.parameters.get(key, "")
    return lambda sources: _text(context.walked(sources.document, key.split(".")))


def _joined(headers: Headers, wanted: bytes) -> str:
    return ",".join(value.decode("utf-8", "surrogateescape") for name, value in headers if name == wanted)


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value).decode()


@dataclass(frozen=True)
class _Change:
    action: str
    place: str
    name: str
    value: Expression


@dataclass(frozen=True)
class Changes:
    """Changes of the headers, query and status of one message, in the order in which they are written."""

    changes: tuple[_Change, ...]
    needs_body: bool = field(default=False)

    @classmethod
    def of(cls, written: Mapping[str, str], side: Side) -> "Changes":
        """By 'append:header.x', 'overwrite:querystring.y', 'remove:header.z', 'overwrite:statuscode'; ValueError."""
        changes = tuple(_change(key, value, side) for key, value in written.items())
        return cls(changes, any(change.value.needs_body for change in changes))

    def headers(self, headers: Headers, sources: Sources) -> Headers:
        """The headers as they are changed. Raises RefusedError for a value that no header can have."""
        for change in self.changes:
            if change.place == "header":
                name = change.name.lower().encode()
                if change.action != "append":
                    headers = [pair for pair in headers if pair[0] != name]
                if change.action != "remove":
                    headers = [*headers, (name, header_value(change.value.of(sources)))]
        return headers

    def query(self, query: str, sources: Sources) -> str:
        """The query as it is changed; what is not changed stays as it came."""
        for change in self.changes:
            if change.place == "querystring":
                parts = query.split("&") if query else []
                if change.action != "append":
                    parts = [part for part in parts if unquote_plus(part.partition("=")[0]) != change.name]
                if change.action != "remove":
                    parts.append(f"{quote_plus(change.name)}={quote_plus(change.value.of(sources))}")
                query = "&".join(parts)
        return query

    def status(self, status: int, sources: Sources) -> int:
        for change in self.changes:
            if change.place == "statuscode":
                text = change.value.of(sources)
                status = int(text) if re.fullmatch("[2-5][0-9]{2}", text) else status
        return status


def _change(key: str, value: str, side: Side) -> _Change:
    match = _ACTION.fullmatch(key)
    places = ("header", "querystring") if side == "request" else ("header", "statuscode")
    if match is None or match[2] not in places or (match[2] == "statuscode") != (match[3] is None):
        more = "append|overwrite|remove:querystring.NAME" if side == "request" else "overwrite:statuscode"
        path = ' (for the path there is "rewrite")' if key == "overwrite:path" else ""
        raise ValueError(f"{key!r} is neither append|overwrite|remove:header.NAME nor {more}{path}")
    action, place, name = match[1], match[2], match[3] or ""
    if place == "header" and (not HEADER_NAME.fullmatch(name) or name.lower() in RESERVED):
        raise ValueError(f"{key!r}: the header {name!r} cannot be set by a mapping")
    if place == "statuscode" and (action != "overwrite" or not re.fullmatch(r"[2-5][0-9]{2}|\$.+", value)):
        raise ValueError(f"{key!r} needs a status from 200 to 599, not {value!r:.40}")
    if place == "header":
        header_value(value)
    return _Change(action, place, name, Expression("" if action == "remove" else value, side))


def header_value(text: str) -> bytes:
    """As it goes over the wire. Raises RefusedError for what would be more than one header's value."""
    value = text.encode("utf-8", "surrogateescape")
    if not _HEADER_VALUE.fullmatch(value):
        raise RefusedError(400, "Bad Request")
    return value


class Shown:
    """A step that shows an integration another request: another path, other headers, another query."""

    def __init__(self, path: PathTemplate | None, changes: Changes) -> None:
        self._path, self._changes = path, changes

    def __call__(self, handler: Handler) -> Handler:
        async def shown(exchange: Exchange) -> Response:
            kept = exchange.headers, exchange.query, exchange.segments, exchange.written, exchange.mount
            await self._show(exchange)
            try:
                return await handler(exchange)
            finally:  # the log tells what the client asked for
                headers, exchange.query, exchange.segments, exchange.written, exchange.mount = kept
                exchange.replace_headers(headers)

        return shown

    async def _show(self, exchange: Exchange) -> None:
        changes = self._changes
        sources = Sources(exchange, document=_json(await exchange.read()) if changes.needs_body else None)
        headers, query = changes.headers(exchange.headers, sources), changes.query(exchange.query, sources)
        if self._path is not None:
            path = self._path.fill(exchange)
            exchange.written = path[1:].split("/")
            exchange.segments = [unquote(segment) for segment in exchange.written]
            exchange.mount = replace(exchange.mount, base_path=())
        exchange.query = query
        exchange.replace_headers(headers)


def answered(by_status: Mapping[int, Changes]) -> Callable[[Handler], Handler]:
    """A step that changes responses, by their status."""

    def step(handler: Handler) -> Handler:
        async def changed(exchange: Exchange) -> Response:
            response = await handler(exchange)
            if (changes := by_status.get(response.status)) is not None:
                sources = Sources(exchange, response)
                response.headers = changes.headers(response.headers, sources)
                response.status = changes.status(response.status, sources)
            return response

        return changed

    return step


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
