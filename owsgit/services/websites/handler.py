"""Lays out websites on a node, for the gateways that serve them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from owsgit.model.resource import Resource
from owsgit.model.service import Applied, LaidOut, Site
from owsgit.runtime.code import CodeStore


class WebsiteHandler:
    """The handler of websites. There is nothing to run: gateways read what lies here."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = CodeStore(site.home / "websites")
        self._store.folder.mkdir(parents=True, exist_ok=True)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        assert resource.tree is not None
        tree = resource.tree
        folder = await asyncio.to_thread(lambda: self._store.lay_out(tree, self._site.read_files(tree)))
        self._site.websites[resource.name] = LaidOut(tree, folder)
        await asyncio.to_thread(self._store.sweep, {each.key for each in self._site.websites.values()})
        return Applied("laid out")

    async def delete(self, name: str) -> None:
        """The folder stays for a while, as requests that are being answered may still read it."""
        self._site.websites.pop(name, None)

    async def observe(self, resource: Resource) -> str | None:
        laid_out = self._site.websites.get(resource.name)
        if laid_out is None:
            return "the website is not laid out"
        return await asyncio.to_thread(self._store.drift, laid_out.key)

    def details(self, name: str) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        self._site.websites.clear()
