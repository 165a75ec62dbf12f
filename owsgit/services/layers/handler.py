"""Lays out layers on a node, for the functions that name them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, LaidOut, Site
from owsgit.runtime import archives, code
from owsgit.runtime.code import CodeStore


class LayerHandler:
    """The handler of layers. There is nothing to run: functions take copies of what lies here."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._store = CodeStore(site.home / "layers")
        self._store.folder.mkdir(parents=True, exist_ok=True)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        assert resource.tree is not None
        key = resource.code or resource.tree
        folder = await asyncio.to_thread(self._lay_out, key, resource.tree)
        self._site.layers[resource.name] = LaidOut(key, folder)
        await asyncio.to_thread(self._store.sweep, {each.key for each in self._site.layers.values()})
        return Applied("laid out")

    def _lay_out(self, key: str, tree: str) -> Path:
        return self._store.make(key, lambda scratch: self._fill(scratch, tree))

    def _fill(self, scratch: Path, tree: str) -> None:
        room = archives.Room()
        for file in self._site.read_files(tree):
            if file.path == "layer.json":
                continue
            path = code.write(scratch, file)
            if path.parent != scratch or path.suffix.lower() != ".zip":
                continue
            try:
                archives.unpack(path, scratch, room)
            except InvalidError as error:
                problem = error.problems[0]
                raise InvalidError(f"{file.path}: {problem.message}", remedy=problem.remedy) from None
            path.unlink()

    async def delete(self, name: str) -> None:
        """The folder stays for a while, as functions that are being replaced may still be made of it."""
        self._site.layers.pop(name, None)

    async def observe(self, resource: Resource) -> str | None:
        laid_out = self._site.layers.get(resource.name)
        if laid_out is None:
            return "the layer is not laid out"
        return await asyncio.to_thread(self._store.drift, laid_out.key)

    def details(self, name: str) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        self._site.layers.clear()
