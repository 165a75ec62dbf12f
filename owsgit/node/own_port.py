"""Ports of the node's own, beside those of gateways: one handler answers everything on it."""

import socket
from collections.abc import Callable

from owsgit.gateway.app import Api
from owsgit.gateway.certificates import Certificate
from owsgit.gateway.exchange import Handler, Mount
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.limits import DEFAULT, Limits
from owsgit.gateway.listener import Listener, Place
from owsgit.gateway.tls import Secured
from owsgit.model.errors import UnavailableError


class OwnPort:
    """A port that is set in a file of the node."""

    def __init__(self, address: str, port: int, file: str, path: str, *, tls: bool = False) -> None:
        """`file` and `path` (JSON) are where it is set."""
        self._listener = Listener(address, port, tls)
        self._file, self._path = file, path
        self._owner = ""
        self._bindings: tuple[Binding, ...] = ()

    async def open(
        self, owner: str, routes: dict[str, Handler], limits: Limits = DEFAULT, certificate: Certificate | None = None
    ) -> None:
        """Serve, with TLS if it was made so. Raises UnavailableError that names the setting."""
        api = Api(Mount(owner, ""), routes.items(), limits=limits)
        self._owner, self._bindings = owner, (Binding(ANY_HOST, (), api),)
        self.show(certificate)
        try:
            await self._listener.open()
        except UnavailableError as error:
            raise UnavailableError(
                error.problems[0].message,
                file=self._file,
                path=self._path,
                remedy="choose another one, or stop the program that has it (ss -ltnp shows which)",
            ) from None

    def show(self, certificate: Certificate | None) -> None:
        """Have it shown from the next connection on. Raises InvalidError."""
        secured = (Secured(ANY_HOST, certificate),) if certificate is not None else None
        self._listener.serve(self._owner, Place(self._bindings, secured))

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._listener.address, self._listener.port

    def elsewhere(self, takes: Callable[[socket.socket], bool]) -> None:
        """Have each connection offered to other processes before its handshake."""
        self._listener.elsewhere = takes

    @property
    def connections(self) -> int:
        return self._listener.connections.count

    async def close(self) -> None:
        await self._listener.close()
