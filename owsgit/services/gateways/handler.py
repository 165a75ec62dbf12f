"""Makes gateways listen: what serves them built whole, then swapped in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owsgit.gateway.cache import Store
from owsgit.gateway.canary import Releases
from owsgit.gateway.listener import Listeners
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site
from owsgit.services.gateways.authorization import AuthorizerState
from owsgit.services.gateways.build import Builder
from owsgit.services.gateways.integrate import Integrations
from owsgit.services.gateways.seen import Seen
from owsgit.services.gateways.spec import GatewaySpec


class GatewayHandler:
    """The handler of gateways."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._listeners = Listeners(site.listen)
        self._releases = Releases()
        self._integrations = Integrations(site)
        self._authorizers = AuthorizerState()
        self._seen = Seen(site)
        self._cache = Store()

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec = resource.spec
        assert isinstance(spec, GatewaySpec)
        await self._integrations.prepare(spec)
        self._seen.prepare(resource.name, spec)
        builder = Builder(
            self._site,
            resource.name,
            spec,
            self._releases,
            self._integrations,
            self._authorizers,
            self._seen,
            self._cache,
        )
        bindings = builder.bindings()
        self._releases.keep(resource.name, [key for key, route in spec.routes.items() if route.canary is not None])
        listener = await self._listeners.serve(resource.name, spec.port, bindings)
        self._cache.retain(resource.name, builder.fingerprints)
        await self._seen.deployed(resource.name, spec.stages, builder.route_keys)
        count = len(spec.routes)
        return Applied(f"{count} route{'s' if count != 1 else ''}", (listener.url,))

    async def delete(self, name: str) -> None:
        await self._listeners.release(name)
        self._releases.keep(name, [])
        self._cache.retain(name, ())
        await self._seen.remove(name)

    async def observe(self, resource: Resource) -> str | None:
        listener = self._listeners.of(resource.name)
        return None if listener is not None and listener.is_open else "the port is not open"

    def details(self, name: str) -> Mapping[str, Any]:
        return {**self._seen.details(name), **self._releases.details(name)}

    def logs(self, name: str) -> Path:
        """The folder of the access log."""
        return self._seen.log_folder(name)

    async def close(self) -> None:
        await self._listeners.close()
        await self._integrations.close()
        await self._authorizers.close()
        await self._seen.close()
