"""Opens secrets on a node, for what refers to them. Values are kept in memory only."""

from collections.abc import Mapping
from typing import Any

from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site
from owsgit.services.secrets.spec import SecretSpec


class SecretHandler:
    """The handler of secrets."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def apply(self, resource: Resource, commit: str) -> Applied:
        try:
            value = self._site.unseal(resource)
        except Exception:
            self._site.secrets.pop(resource.name, None)
            raise
        self._site.secrets[resource.name] = value
        spec = resource.spec
        assert isinstance(spec, SecretSpec)
        return Applied(f"version {value.version}")

    async def delete(self, name: str) -> None:
        self._site.secrets.pop(name, None)

    async def observe(self, resource: Resource) -> str | None:
        return None if resource.name in self._site.secrets else "the secret is not open"

    def details(self, name: str) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        self._site.secrets.clear()
