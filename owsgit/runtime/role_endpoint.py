"""Where a worker gets the credentials of its function's role: the SDKs' container provider asks, and again in time.

The node serves this inside of the worker's own network, so nobody else can ask; and it wants the worker's own token, so
that a function which can be made to fetch an address does not give its credentials away.

https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

import asyncio
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import orjson

from owsgit.model.errors import OwsgitError
from owsgit.runtime import runtime_http
from owsgit.runtime.runtime_http import Body, Connection, RefusedError, Request

PATH = b"/credentials"
Fetch = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives AccessKeyId, SecretAccessKey, Token and Expiration. Raises OwsgitError."""

log = logging.getLogger("owsgit.runtime")


class RoleEndpoint:
    """Answers one worker, on `listener`, which it then owns. Has to be made in a running loop."""

    def __init__(self, listener: socket.socket, authorization: str, fetch: Fetch) -> None:
        self._authorization = authorization.encode()
        self._fetch = fetch
        self._asked: set[asyncio.Task[None]] = set()
        self._server = runtime_http.Server(listener, self._receive)

    def _receive(self, request: Request, connection: Connection) -> Body:
        """Raises RefusedError."""
        given = request.headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, self._authorization):
            raise RefusedError(401, "Unauthorized", "The header Authorization has to be the token of this function.")
        if request.method != b"GET" or request.path != PATH:
            raise RefusedError(404, "NotFound", f"There is nothing but GET {PATH.decode()}.")
        return _Asked(partial(self._ask, connection))

    def _ask(self, connection: Connection) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(self._answer(connection))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        return task

    async def _answer(self, connection: Connection) -> None:
        try:
            answer = runtime_http.reply(200, orjson.dumps(dict(await self._fetch())))
        except OwsgitError as error:
            answer = RefusedError(403, "AccessDenied", str(error)).reply()
        except Exception:
            log.exception("credentials could not be given")
            answer = RefusedError(500, "InternalError", "credentials could not be given").reply()
        connection.answer(answer)

    def close(self) -> None:
        self._server.close()
        for task in self._asked:
            task.cancel()


class _Asked:
    """The body of a request for credentials: none. The answer comes later."""

    def __init__(self, ask: Callable[[], "asyncio.Task[None]"]) -> None:
        self._ask = ask
        self._task: asyncio.Task[None] | None = None

    def take(self, data: bytes) -> None:
        pass

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        self._task = self._ask()
        return None

    def lost(self) -> None:
        if self._task is not None:
            self._task.cancel()
