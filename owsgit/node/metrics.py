"""A node's metrics over HTTP, for Prometheus: off unless the node's settings name an address."""

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from owsgit.gateway.exchange import Exchange, Response
from owsgit.node.home import address_of
from owsgit.node.own_port import OwnPort

OWNER = "metrics"


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics, as Prometheus' text."""
    return generate_latest(registry)


class MetricsServer:
    """Serves /metrics on `address`; nothing if that is None."""

    def __init__(self, registry: CollectorRegistry, address: str | None, file: str) -> None:
        self._registry, self._address, self._file = registry, address, file
        self._port: OwnPort | None = None
        self._one = asyncio.Lock()  # who asks often waits; requests of users do not

    async def open(self) -> None:
        """Raises UnavailableError that names the setting."""
        if self._address is None:
            return
        self._port = OwnPort(*address_of(self._address), self._file, "$.metrics")
        await self._port.open(OWNER, {"GET /metrics": self._answer, "HEAD /metrics": self._answer})

    async def _answer(self, exchange: Exchange) -> Response:
        async with self._one:
            text = await asyncio.to_thread(exposition, self._registry)
        return Response(200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], text)

    async def close(self) -> None:
        if self._port is not None:
            await self._port.close()
