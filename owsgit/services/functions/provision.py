"""What a function needs on the disk before it can run: its code, its layers and its packages."""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from owsgit.model.errors import UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.service import LaidOut, Site
from owsgit.runtime import node_packages, overlay
from owsgit.runtime.code import CodeStore, write
from owsgit.runtime.indexes import Indexes
from owsgit.runtime.packages import PackageStore
from owsgit.runtime.sandbox import Sandbox
from owsgit.services.functions.spec import FunctionSpec


@dataclass(frozen=True)
class Provision:
    """The folders of one version of a function, and the keys that name their content."""

    tree: str
    code: Path
    layers: tuple[str, ...] = ()
    opt: Path | None = None
    packages_key: str = ""
    packages: Path | None = None


class Provisions:
    """Lays out what functions need; the same content once, whoever uses it."""

    def __init__(self, site: Site, sandbox: Sandbox) -> None:
        self._site = site
        self._code, self._opt = (CodeStore(site.home / name) for name in ("code", "opt"))
        for folder in (self._code.folder, self._opt.folder):
            folder.mkdir(parents=True, exist_ok=True)
        indexes = Indexes(site.settings.get("packageIndexes", {}))
        self._packages = PackageStore(packages_folder(site), sandbox, indexes)

    async def provide(self, resource: Resource, spec: FunctionSpec) -> Provision:
        """Raises OwsgitError for what cannot be had."""
        assert resource.tree is not None
        layers = self._layers(spec)
        code = await asyncio.to_thread(self._lay_out, resource.tree, spec)
        opt = await asyncio.to_thread(self._merge, layers) if layers else None
        found = Provision(resource.tree, code, tuple(layer.key for layer in layers), opt)
        recipe = await asyncio.to_thread(self._packages.recipe, code, spec.runtime)
        if recipe is None:
            return found
        key, packages = await self._packages.provide(code, recipe, lambda text: self._site.report(resource.key, text))
        return replace(found, packages_key=key, packages=packages)

    def layers_of(self, spec: FunctionSpec) -> tuple[str, ...]:
        """The keys of the layers as they are now. Raises UnavailableError."""
        return tuple(layer.key for layer in self._layers(spec))

    def _layers(self, spec: FunctionSpec) -> list[LaidOut]:
        for index, name in enumerate(spec.layers):
            if name not in self._site.layers:
                raise UnavailableError(
                    f"the layer {name} is not laid out on this node",
                    path=f"$.layers[{index}]",
                    remedy="owsgit status says why",
                )
        return [self._site.layers[name] for name in spec.layers]

    def _lay_out(self, tree: str, spec: FunctionSpec) -> Path:
        return self._code.make(tree, lambda scratch: self._fill(scratch, tree, spec))

    def _fill(self, scratch: Path, tree: str, spec: FunctionSpec) -> None:
        for file in self._site.read_files(tree):
            if file.path != "function.json":
                write(scratch, file)
        if spec.family == "nodejs" and node_packages.asks(scratch):
            (scratch / node_packages.FOLDER).mkdir(exist_ok=True)  # where they will be mounted: code is read-only

    def _merge(self, layers: list[LaidOut]) -> Path:
        folders = [layer.folder for layer in layers]
        key = _opt_key(layer.key for layer in layers)
        return self._opt.make(key, lambda scratch: overlay.merge(folders, scratch))

    def drift(self, provision: Provision) -> str | None:
        """What differs from what was laid out, in words."""
        found = self._code.drift(provision.tree)
        if found is None and provision.layers:
            found = self._opt.drift(_opt_key(provision.layers))
        if found is None and provision.packages_key:
            found = self._packages.drift(provision.packages_key)
        return found

    def sweep(self, used: Iterable[Provision]) -> None:
        """Remove what is left over, and the oldest of what nobody uses."""
        provisions = list(used)
        self._code.sweep({each.tree for each in provisions})
        self._opt.sweep({_opt_key(each.layers) for each in provisions if each.layers})
        self._packages.sweep({each.packages_key for each in provisions})

    async def close(self) -> None:
        await self._packages.close()


def packages_folder(site: Site) -> Path:
    """Where packages are built: the sandbox has to let its commands write there."""
    folder = site.home / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _opt_key(layers: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()[:40]
