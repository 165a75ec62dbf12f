"""The ports that a node's gateways listen on, one uvicorn server each.

A port outlives the deployment behind it: a new deployment is swapped in as a whole, and even a gateway that is renamed
takes its port over without closing it.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import Receive, Scope, Send

from owsgit.gateway.exchange import Exchange, Response
from owsgit.gateway.hosts import Binding, VirtualHosts
from owsgit.gateway.protocol import BoundedProtocol
from owsgit.model.errors import UnavailableError

BACKLOG = 2048
DRAIN_SECONDS_MAX = 10
"""How long a port that is closed waits for the requests that it has begun."""

CONNECTIONS_MAX = 10_000
KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common load balancers, so that it is never we who close first."""


logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a line for every malformed request is a way to fill a disk


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: signals are the node's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """One port, and the gateways that answer on it now."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self._bindings: dict[str, tuple[Binding, ...]] = {}  # by owner, the newest last
        self._hosts = VirtualHosts(())
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def handle(self, exchange: Exchange) -> Response:
        return await self._hosts.handle(exchange)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is not HTTP/1.1."""
        websockets = self._hosts.websockets
        if scope["type"] == "websocket" and websockets is not None:
            await websockets(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    def serve(self, owner: str, bindings: Sequence[Binding]) -> None:
        """Answer with these from the next request on, in place of what `owner` had here."""
        self._bindings.pop(owner, None)
        if bindings:
            self._bindings[owner] = tuple(bindings)
        # a gateway that is renamed is here twice for a moment: then the newer one answers
        self._hosts = VirtualHosts(each for own in reversed(self._bindings.values()) for each in own)

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(self._bindings)

    async def open(self) -> None:
        """Start listening. Raises UnavailableError that names the port."""
        bound = _bind(self.address, self.port)
        config = uvicorn.Config(
            self,
            http=BoundedProtocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
        )
        self._server = _Server(config)
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[bound]))
        while not self._server.started:
            if self._serving.done():
                raise UnavailableError(f"port {self.port} cannot be served")
            await asyncio.sleep(0.001)

    @property
    def is_open(self) -> bool:
        return self._serving is not None and not self._serving.done()

    async def close(self) -> None:
        """Take no new connections, finish what is begun."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving])

    @property
    def url(self) -> str:
        shown = "127.0.0.1" if self.address in ("0.0.0.0", "::") else self.address  # noqa: S104 - only shown
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise UnavailableError(
            f"port {port} of {address} cannot be opened: {error.strerror}",
            path="$.port",
            remedy="choose another port, or stop the program that has it (ss -ltnp shows which)",
        ) from None
    return bound


class Listeners:
    """All listeners of a node, by port."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._by_port: dict[int, Listener] = {}

    async def serve(self, owner: str, port: int, bindings: Sequence[Binding]) -> Listener:
        """Have the gateway `owner` answer on `port`. A port that it had before is let go of afterwards."""
        listener = self._by_port.get(port)
        if listener is None or not listener.is_open:
            listener = Listener(self._address, port)
            listener.serve(owner, bindings)
            await listener.open()
            self._by_port[port] = listener
        else:
            listener.serve(owner, bindings)
        await self._release(owner, listener)
        return listener

    async def release(self, owner: str) -> None:
        """Let go of all ports that `owner` has; those that nobody else has are closed."""
        await self._release(owner, None)

    async def _release(self, owner: str, but: Listener | None) -> None:
        for listener in [each for each in self._by_port.values() if owner in each.owners and each is not but]:
            if listener.owners == (owner,):
                await self._close(listener)
            else:
                listener.serve(owner, ())

    def of(self, owner: str) -> Listener | None:
        return next((listener for listener in self._by_port.values() if owner in listener.owners), None)

    async def _close(self, listener: Listener) -> None:
        self._by_port.pop(listener.port, None)
        await listener.close()

    async def close(self) -> None:
        await asyncio.gather(*(self._close(listener) for listener in list(self._by_port.values())))
