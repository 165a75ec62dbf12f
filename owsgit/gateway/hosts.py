"""Virtual hosts: which of the gateways that share a port a request is for, by its host name and the start of its path.

Here a request's target and host are read, once, before anything is routed or authorized: no later step sees what a
client wrote in two ways.
"""

import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from owsgit.gateway import refusals
from owsgit.gateway.app import Api, identified, request_id
from owsgit.gateway.exchange import MISDIRECTED, Exchange, RefusedError, Response
from owsgit.gateway.limits import largest
from owsgit.gateway.socket_api import WebSocketApi, deny, handshake
from owsgit.gateway.table import PATH_BYTES_MAX
from owsgit.gateway.tls import Security

ANY_HOST: Final = ""
KNOWN_BYTES_MAX: Final = 256
"""Of a path whose segments are kept."""


@dataclass(frozen=True)
class Binding:
    """That `api` answers for a host (`*.example.com` for all names one label below it, ANY_HOST for all the others)."""

    host: str
    base_path: tuple[str, ...]
    api: Api | WebSocketApi


class VirtualHosts:
    """What answers on one port: immutable, a deployment makes a new one and swaps it in whole."""

    def __init__(self, bindings: Iterable[Binding], security: Security | None = None) -> None:
        """`security` is that of a port with TLS."""
        self._security = security
        self._hosts: dict[str, list[Binding]] = {}
        self._sockets = False
        for binding in bindings:
            self._hosts.setdefault(binding.host, []).append(binding)
            self._sockets = self._sockets or isinstance(binding.api, WebSocketApi)
        self.limits = largest(binding.api.limits for each in self._hosts.values() for binding in each)
        own = self._hosts.get(ANY_HOST, [])
        alone = len(self._hosts) == len(own) == 1 and not own[0].base_path and security is None
        self._only = own[0].api if alone else None  # which most ports have
        for each in self._hosts.values():
            each.sort(key=lambda binding: -len(binding.base_path))  # the longest base path first

    @property
    def websockets(self) -> ASGIApp | None:
        """What answers handshakes, if anything here takes them."""
        return self._serve if self._sockets else None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = handshake(scope)
        await receive()  # that it wants to connect
        try:
            api = self._wanted(exchange)
            if not isinstance(api, WebSocketApi):
                raise RefusedError(403, "Forbidden")
        except RefusedError as refusal:
            denied = refusals.response(refusal)
        else:
            await api.serve(exchange, scope, receive, send)
            return
        await deny(denied, send)

    def handle(self, exchange: Exchange) -> Awaitable[Response]:
        api = self._only
        try:
            if api is not None:
                read_target(exchange)
            else:
                api = self._wanted(exchange)
        except RefusedError as refusal:
            return _refused(refusal)
        return api.handle(exchange)

    def _wanted(self, exchange: Exchange) -> Api | WebSocketApi:
        """The api that answers, once target and host are read. Raises RefusedError."""
        read_target(exchange)
        if self._security is not None and not self._security.admits(exchange.client.secured, exchange.host):
            raise RefusedError(MISDIRECTED, "Misdirected Request")
        return self._find(exchange)

    def admits(self, exchange: Exchange) -> bool:
        """Whether its connection may ask for its host: not for one that wants other proofs of its clients."""
        try:
            read_target(exchange)
        except RefusedError:
            return False
        return self._security is None or self._security.admits(exchange.client.secured, exchange.host)

    def _find(self, exchange: Exchange) -> Api | WebSocketApi:
        """The api that answers; its base path is taken off the exchange's path. Raises RefusedError."""
        if self._only is not None:
            return self._only
        hosts = self._hosts
        host = exchange.host
        for name in (host, f"*.{host.partition('.')[2]}", ANY_HOST):
            if self._security is not None and not self._security.trusts(exchange.client.secured, name):
                continue  # what is for every host may ask more of its clients than this one did
            for binding in hosts.get(name, ()):
                length = len(binding.base_path)
                if not length:
                    return binding.api
                if tuple(exchange.segments[:length]) == binding.base_path:
                    _take_off(exchange, length)
                    return binding.api
        raise RefusedError(404, "Not Found")


def _take_off(exchange: Exchange, length: int) -> None:
    """Take so many segments off the exchange's path."""
    segments, written = exchange.segments, exchange.written
    exchange.segments = segments[length:] or [""]
    exchange.written = exchange.segments if written is segments else written[length:] or [""]


async def _refused(refusal: RefusedError) -> Response:
    return identified(refusals.response(refusal), request_id())


def read_target(exchange: Exchange) -> None:
    """Set the exchange's segments (decoded, and as written), query and host. Raises RefusedError for what has no one
    meaning.

    The path is split before it is decoded: an encoded slash stays inside its segment. Empty segments are left out, as
    most servers behind a gateway do; a path that climbs, however it is written, is refused. RFC 9112 3.2, RFC 3986 3.3.
    """
    target, first = exchange.target, exchange.first
    hosts = [first[b"host"]] if b"host" in first else []
    if hosts and len(first) < len(exchange.headers):
        hosts = [value for name, value in exchange.headers if name == b"host"]
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise _bad()
        # RFC 9112 3.2.2: the field is ignored, and replaced for whoever reads it later
        target, hosts = absolute["rest"] or b"/", [absolute["host"]]
        exchange.target = target
        exchange.replace_headers([(b"host", hosts[0]), *(pair for pair in exchange.headers if pair[0] != b"host")])
    if len(hosts) > 1 or (not hosts and exchange.protocol != "HTTP/1.0"):
        raise _bad()
    exchange.host = host_of(hosts[0]) if hosts else ""
    if target == b"/":
        exchange.segments = exchange.written = [""]
        exchange.query = ""
        return
    path, _, query = target.partition(b"?")
    if len(path) > PATH_BYTES_MAX:
        raise RefusedError(414, "URI Too Long")
    exchange.segments = list(_known(path)) if len(path) <= KNOWN_BYTES_MAX else _segments(path)
    exchange.written = _pieces(path) if b"%" in path else exchange.segments
    exchange.query = query.decode("latin-1")


@lru_cache(1024)
def _known(path: bytes) -> tuple[str, ...]:
    """The segments of a path that is asked for again and again. Raises RefusedError."""
    return tuple(_segments(path))


def _segments(path: bytes) -> list[str]:
    if _CLEAN.fullmatch(path):
        return path[1:].decode("ascii").split("/")
    if not _PATH.fullmatch(path):
        raise _bad()
    try:
        segments = [unquote_to_bytes(piece).decode("utf-8") for piece in _pieces(path)]
    except UnicodeDecodeError:
        raise _bad() from None
    for segment in segments:
        if _CONTROLS.search(segment) or any(part.partition(";")[0] in _CLIMBS for part in _SLASHES.split(segment)):
            raise _bad()
    return segments


def _pieces(path: bytes) -> list[str]:
    """The segments of a path of printable ASCII, still encoded."""
    *before, last = path[1:].decode("ascii").split("/")
    return [*(piece for piece in before if piece), last]


@lru_cache(1024)
def host_of(value: bytes) -> str:
    """The host name of a Host field, as it is compared: lower case, without port and final dot. Raises RefusedError."""
    match = _HOST.fullmatch(value)
    if match is None:
        raise _bad()
    return match["name"].decode("ascii").lower().removesuffix(".")


def _bad() -> RefusedError:
    return RefusedError(400, "Bad Request")


_ABSOLUTE = re.compile(rb"https?://(?P<host>[^/?#@]+)(?P<rest>/[^#]*)?", re.IGNORECASE)
_HOST = re.compile(rb"(?P<name>[A-Za-z0-9._-]{0,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?")
_CLEAN: Final = re.compile(rb"/|(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?")
"""A path that means what it says. Most are such, and then nothing is looked at twice."""

_PATH = re.compile(rb"/([\x21-\x22\x24\x26-\x5b\x5d-\x7e]|%[0-9A-Fa-f]{2})*")
"""Printable ASCII but # and backslash; % only before two hexadecimal digits."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_SLASHES = re.compile(r"[/\\]")
_CLIMBS = (".", "..")
"""As what is before a semicolon too: some servers take `..;` for `..`."""
