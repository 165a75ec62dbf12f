"""The ports that a node's gateways listen on, one uvicorn server each.

A port outlives the deployment behind it: a new deployment is swapped in as a whole, and even a gateway that is renamed
takes its port over without closing it.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from owsgit.gateway.door import Door, Greeter
from owsgit.gateway.exchange import Exchange
from owsgit.gateway.hosts import Binding, VirtualHosts
from owsgit.gateway.limits import Connections
from owsgit.gateway.protocol import BoundedProtocol, GivenProtocol
from owsgit.gateway.tls import Secured, Security
from owsgit.model.errors import UnavailableError

BACKLOG = 2048
DRAIN_SECONDS_MAX = 10
"""How long a port that is closed waits for the requests that it has begun."""

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common load balancers, so that it is never we who close first."""


logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a line for every malformed request is a way to fill a disk


@dataclass(frozen=True)
class Place:
    """What a gateway has on one port. `secured` is None without TLS; with it, a host that is not in it is refused."""

    bindings: tuple[Binding, ...] = ()
    secured: tuple[Secured, ...] | None = None


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: signals are the node's business. With TLS, it has another door."""

    def __init__(self, config: uvicorn.Config, listener: "Listener") -> None:
        super().__init__(config)
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if not self._listener.tls:
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        self.greeter = Greeter(self._security, self._protocol)
        self.servers = [Door(each, self.greeter, self._full, self._elsewhere) for each in sockets or ()]  # type: ignore[misc]
        self.started = True

    def _security(self) -> Security:
        return self._listener.security

    def _elsewhere(self, connection: socket.socket) -> bool:
        return self._listener.elsewhere is not None and self._listener.elsewhere(connection)

    def _full(self) -> bool:
        return len(self.server_state.connections) >= self._listener.limits.connections

    def _protocol(self, name: str) -> asyncio.Protocol:
        if name == "h2":
            from owsgit.gateway.http2 import Http2Protocol  # noqa: PLC0415 - only where it is spoken

            return Http2Protocol(self._listener, self.server_state, KEEP_ALIVE_SECONDS)
        return BoundedProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class Listener:
    """One port, and the gateways that answer on it now."""

    def __init__(self, address: str, port: int, tls: bool = False, proofs: Mapping[str, bytes] | None = None) -> None:
        """`proofs`: see Security."""
        self.address, self.port, self.tls = address, port, tls
        self._places: dict[str, Place] = {}  # by owner, the newest last
        self.security = Security(proofs=proofs if proofs is not None else {})
        self._hosts = VirtualHosts(())
        self.handle = self._hosts.handle
        self.limits = self._hosts.limits
        """The largest of what the gateways take: whose request it is, is only known when its head is read."""
        self.connections = Connections()
        self.elsewhere: Callable[[socket.socket], bool] | None = None
        """Gets each connection of a port with TLS before its handshake, and says whether another process has it now."""
        self._bound: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def websockets(self) -> ASGIApp | None:
        return self._hosts.websockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is not HTTP/1.1."""
        websockets = self.websockets
        if scope["type"] == "websocket" and websockets is not None:
            await websockets(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    def admits(self, exchange: Exchange) -> bool:
        return self._hosts.admits(exchange)

    def serve(self, owner: str, place: Place) -> None:
        """Answer with this from the next request on, in place of what `owner` had here."""
        places = {name: each for name, each in self._places.items() if name != owner}
        if place != Place():
            places[owner] = place
        # a gateway that is renamed is here twice for a moment: then the newer one answers
        newest = list(reversed(places.values()))
        if self.tls:
            secured = [each for own in newest for each in own.secured or ()]
            self.security = Security.of(secured, self.security)
        bindings = (each for own in newest for each in own.bindings)
        self._places = places
        self._hosts = VirtualHosts(bindings, self.security if self.tls else None)
        self.handle, self.limits = self._hosts.handle, self._hosts.limits
        if self._server is not None:
            self._take_sockets(self._server.config)

    @property
    def places(self) -> Mapping[str, Place]:
        """What each gateway has here."""
        return self._places

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(self._places)

    def turned(self, tls: bool) -> "Listener":
        """The same port and gateways, to be served with TLS or without."""
        other = Listener(self.address, self.port, tls, self.security.proofs)
        for owner, place in self._places.items():
            other.serve(owner, place)
        return other

    async def open(self, before: "Listener | None" = None) -> None:
        """Start listening, on the socket of `before` if there is one. Raises UnavailableError that names the port."""
        given = before._bound if before is not None else None
        self._bound = given.dup() if given is not None else _bind(self.address, self.port)
        self.port = self._bound.getsockname()[1]  # of 0, the one that was free
        await self._serve([self._bound.dup()])  # the server closes its own

    async def open_for_given(self) -> None:
        """Serve the connections that are given to it (`take`), and listen to nothing."""
        await self._serve([])

    async def take(self, given: socket.socket) -> None:
        """Go on with a connection that another process had, between two requests."""
        assert self._server is not None
        server = self._server

        def protocol() -> asyncio.Protocol:
            return GivenProtocol(
                config=server.config, server_state=server.server_state, app_state=server.lifespan.state
            )

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, given)
        except OSError:  # the client has left
            given.close()

    def take_new(self, given: socket.socket) -> None:
        """Make the handshake of a connection that another process has accepted, and go on with it."""
        assert self._server is not None
        self._server.greeter.greet(given)

    @property
    def held(self) -> int:
        """Connections that it has, those whose handshake is under way among them."""
        server = self._server
        if server is None:
            return 0
        return len(server.server_state.connections) + (server.greeter.count if self.tls else 0)

    async def _serve(self, bound: list[socket.socket]) -> None:
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
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
        )
        self._take_sockets(config)
        self._server = _Server(config, self)
        self._serving = asyncio.ensure_future(self._server.serve(sockets=bound))
        while not self._server.started:
            if self._serving.done():
                raise UnavailableError(f"port {self.port} cannot be served")
            await asyncio.sleep(0.001)

    def _take_sockets(self, config: uvicorn.Config) -> None:
        """Have handshakes of WebSockets answered from the next connection on, if a gateway wants it."""
        if self._hosts.websockets is None or config.ws != "none":
            return
        from owsgit.gateway import socket_protocol  # noqa: PLC0415 - most nodes need no WebSockets

        for name, value in socket_protocol.OPTIONS.items():
            setattr(config, name, value)
        config.ws = config.ws_protocol_class = socket_protocol.BoundedSocketProtocol

    @property
    def is_open(self) -> bool:
        return self._serving is not None and not self._serving.done()

    async def close(self) -> None:
        """Take no new connections, finish what is begun."""
        if self._server is not None and self._serving is not None:
            for server in self._server.servers:
                server.close()
            if self.tls:
                self._server.greeter.close()
            self._server.should_exit = True
            if self._bound is not None:
                self._bound.close()
            await asyncio.wait([self._serving])

    @property
    def place(self) -> tuple[str, int]:
        """Host and port at which this machine itself reaches it."""
        return own_address(self.address), self.port

    @property
    def url(self) -> str:
        shown = "127.0.0.1" if self.address == "::" else own_address(self.address)
        return f"http{'s' if self.tls else ''}://{f'[{shown}]' if ':' in shown else shown}:{self.port}"


def own_address(address: str) -> str:
    """Where this machine reaches what listens on `address`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - where it listens


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sends at once
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
        self._proofs: dict[str, bytes] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()  # gateways that come together may share a new port

    async def serve(
        self,
        owner: str,
        port: int,
        bindings: Sequence[Binding],
        secured: Sequence[Secured] | None = None,
        plain: Mapping[int, Sequence[Binding]] | None = None,
    ) -> Listener:
        """Have the gateway `owner` answer on `port`, with TLS where `secured` says how, and without on further ports.

        Ports that it had before are let go of afterwards. Raises UnavailableError, InvalidError.
        """
        ports = {port}
        for other, more in (plain or {}).items():
            try:
                await self._serve(owner, other, Place(tuple(more)))
            except UnavailableError as error:
                problem = error.problems[0]
                raise UnavailableError(problem.message, path="$.tls.redirectPort", remedy=problem.remedy) from None
            ports.add(other)
        listener = await self._serve(owner, port, Place(tuple(bindings), None if secured is None else tuple(secured)))
        await self._release(owner, ports)
        return listener

    async def _serve(self, owner: str, port: int, place: Place) -> Listener:
        async with self._opening:
            return await self._serve_alone(owner, port, place)

    async def _serve_alone(self, owner: str, port: int, place: Place) -> Listener:
        listener = self._by_port.get(port)
        tls = place.secured is not None
        if listener is not None:  # one that wants TLS is never served without, not even until the others follow
            tls = tls or any(each.secured is not None for name, each in listener.places.items() if name != owner)
        if listener is None or not listener.is_open:
            listener = Listener(self._address, port, tls, self._proofs)
            listener.serve(owner, place)
            await listener.open()
            self._by_port[port] = listener
        elif listener.tls == tls:
            listener.serve(owner, place)
        else:
            listener = await self._turn(listener, tls, owner, place)
        return listener

    async def _turn(self, old: Listener, tls: bool, owner: str, place: Place) -> Listener:
        """A port that was served without TLS is served with it, or the other way round; it is never closed."""
        new = old.turned(tls)
        new.serve(owner, place)
        await new.open(old)
        self._by_port[old.port] = new
        closing = asyncio.ensure_future(old.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return new

    def secure(self, owner: str, port: int, secured: Sequence[Secured]) -> None:
        """Have new certificates shown from the next connection on. Raises InvalidError."""
        listener = self._by_port.get(port)
        place = listener.places.get(owner) if listener is not None else None
        if listener is not None and place is not None:
            listener.serve(owner, Place(place.bindings, tuple(secured)))

    def prove(self, host: str, pem: bytes | None) -> None:
        """Show a certificate to an authority that asks who has `host` (RFC 8737); None: no more."""
        if pem is None:
            self._proofs.pop(host, None)
        else:
            self._proofs[host] = pem

    async def release(self, owner: str) -> None:
        """Let go of all ports that `owner` has; those that nobody else has are closed."""
        await self._release(owner, ())

    async def _release(self, owner: str, but: Collection[int]) -> None:
        for port, listener in list(self._by_port.items()):
            if owner not in listener.owners or port in but:
                continue
            if listener.owners == (owner,):
                await self._close(listener)
            else:
                listener.serve(owner, Place())

    def all_of(self, owner: str) -> list[Listener]:
        return [listener for listener in self._by_port.values() if owner in listener.owners]

    def of(self, owner: str) -> Listener | None:
        return next(iter(self.all_of(owner)), None)

    async def _close(self, listener: Listener) -> None:
        self._by_port.pop(listener.port, None)
        await listener.close()

    async def close(self) -> None:
        await asyncio.gather(*(self._close(listener) for listener in list(self._by_port.values())), *self._closing)
