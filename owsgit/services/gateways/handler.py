"""Makes gateways listen: a routing table built whole, then swapped in."""

from collections.abc import Mapping
from typing import Any

from owsgit.gateway.app import GatewayApp, Integration
from owsgit.gateway.listener import Listeners
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site
from owsgit.services.gateways.spec import GatewaySpec


class GatewayHandler:
    """The handler of gateways."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._listeners = Listeners(site.listen)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec = resource.spec
        assert isinstance(spec, GatewaySpec)
        functions = self._site.targets["function"]
        routes = [
            (key, Integration(functions, route.function, route.payload_format_version, float(route.timeout)))
            for key, route in spec.routes.items()
        ]
        app = GatewayApp(resource.name, self._site.scope().account, routes)
        listener = await self._listeners.serve(resource.name, spec.port, app)
        return Applied(f"{len(routes)} route{'s' if len(routes) != 1 else ''}", (listener.url,))

    async def delete(self, name: str) -> None:
        await self._listeners.release(name)

    async def observe(self, resource: Resource) -> str | None:
        listener = self._listeners.of(resource.name)
        return None if listener is not None and listener.is_open else "the port is not open"

    def details(self, name: str) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        await self._listeners.close()
