"""A node's metrics over HTTP, for Prometheus: off unless the node's settings name an address."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, Mount, Response
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listener, Place
from owsgit.model.errors import UnavailableError
from owsgit.node.home import address_of

OWNER = "metrics"


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics, as Prometheus' text."""
    return generate_latest(registry)


class MetricsServer:
    """Serves /metrics on `address`; nothing if that is None."""

    def __init__(self, registry: CollectorRegistry, address: str | None, file: str) -> None:
        self._registry, self._address, self._file = registry, address, file
        self._listener: Listener | None = None
        self._one = asyncio.Lock()  # who asks often waits; requests of users do not

    async def open(self) -> None:
        """Raises UnavailableError that names the setting."""
        if self._address is None:
            return
        self._listener = Listener(*address_of(self._address))
        api = Api(Mount(OWNER, ""), [("GET /metrics", self._answer), ("HEAD /metrics", self._answer)])
        self._listener.serve(OWNER, Place((Binding(ANY_HOST, (), api),)))
        try:
            await self._listener.open()
        except UnavailableError as error:
            raise UnavailableError(
                str(error.problems[0].message),
                file=self._file,
                path="$.metrics",
                remedy="choose another address or port, or stop the program that has it (ss -ltnp shows which)",
            ) from None

    async def _answer(self, exchange: Exchange) -> Response:
        async with self._one:
            text = await asyncio.to_thread(exposition, self._registry)
        return Response(200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], text)

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
