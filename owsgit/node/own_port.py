"""Ports of the node's own, beside those of gateways: one handler answers everything on it."""

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Handler, Mount
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.limits import DEFAULT, Limits
from owsgit.gateway.listener import Listener, Place
from owsgit.model.errors import UnavailableError


class OwnPort:
    """A port that is set in a file of the node."""

    def __init__(self, address: str, port: int, file: str, path: str) -> None:
        """`file` and `path` (JSON) are where it is set."""
        self._listener = Listener(address, port)
        self._file, self._path = file, path

    async def open(self, owner: str, routes: dict[str, Handler], limits: Limits = DEFAULT) -> None:
        """Raises UnavailableError that names the setting."""
        api = Api(Mount(owner, ""), routes.items(), limits=limits)
        self._listener.serve(owner, Place((Binding(ANY_HOST, (), api),)))
        try:
            await self._listener.open()
        except UnavailableError as error:
            raise UnavailableError(
                error.problems[0].message,
                file=self._file,
                path=self._path,
                remedy="choose another one, or stop the program that has it (ss -ltnp shows which)",
            ) from None

    async def close(self) -> None:
        await self._listener.close()
