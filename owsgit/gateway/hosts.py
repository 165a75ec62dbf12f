"""Virtual hosts: which of the gateways that share a port a request is for, by its host name and the start of its path.

Here a request's target and host are read, once, before anything is routed or authorized: no later step sees what a
client wrote in two ways.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp

from owsgit.gateway import refusals
from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, RefusedError, Response
from owsgit.gateway.table import PATH_BYTES_MAX

ANY_HOST = ""


@dataclass(frozen=True)
class Binding:
    """That `api` answers for a host (`*.example.com` for all names one label below it, ANY_HOST for all the others)."""

    host: str
    base_path: tuple[str, ...]
    api: Api


class VirtualHosts:
    """What answers on one port: immutable, a deployment makes a new one and swaps it in whole."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._hosts: dict[str, list[Binding]] = {}
        for binding in bindings:
            self._hosts.setdefault(binding.host, []).append(binding)
        for each in self._hosts.values():
            each.sort(key=lambda binding: -len(binding.base_path))  # the longest base path first

    @property
    def websockets(self) -> ASGIApp | None:
        return None

    async def handle(self, exchange: Exchange) -> Response:
        exchange.began = asyncio.get_running_loop().time()
        try:
            read_target(exchange)
            api = self._find(exchange)
        except RefusedError as refusal:
            return refusals.response(refusal)
        return await api.handle(exchange)

    def _find(self, exchange: Exchange) -> Api:
        """The api that answers; its base path is taken off the exchange's path. Raises RefusedError."""
        hosts = self._hosts
        host = exchange.host
        for name in (host, f"*.{host.partition('.')[2]}", ANY_HOST):
            for binding in hosts.get(name, ()):
                length = len(binding.base_path)
                if not length:
                    return binding.api
                if tuple(exchange.segments[:length]) == binding.base_path:
                    exchange.segments = exchange.segments[length:] or [""]
                    return binding.api
        raise RefusedError(404, "Not Found")


def read_target(exchange: Exchange) -> None:
    """Set the exchange's segments, query and host. Raises RefusedError for what has no one meaning.

    The path is split before it is decoded: an encoded slash stays inside its segment.
    """
    target, _, query = exchange.target.partition(b"?")
    if not target.startswith(b"/") or len(target) > PATH_BYTES_MAX:
        raise RefusedError(400, "Bad Request")
    try:
        if b"%" in target:
            segments = [unquote_to_bytes(part).decode("utf-8") for part in target[1:].split(b"/")]
        else:
            segments = target[1:].decode("utf-8").split("/")
    except UnicodeDecodeError:
        raise RefusedError(400, "Bad Request") from None
    if any(segment in (".", "..") or "\0" in segment for segment in segments):
        raise RefusedError(400, "Bad Request")
    exchange.segments = segments
    exchange.query = query.decode("latin-1")
    exchange.host = exchange.header(b"host").decode("latin-1").rsplit(":", 1)[0].lower()
