"""What a function needs on the disk before it can run: its code, its layers and its packages."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.service import LaidOut, Site
from owsgit.runtime import archives, assets, overlay
from owsgit.runtime.assets import AssetStore
from owsgit.runtime.code import CodeStore, put, write
from owsgit.runtime.indexes import Indexes
from owsgit.runtime.packages import PackageStore
from owsgit.runtime.sandbox import Sandbox
from owsgit.services.functions.spec import Asset, FunctionSpec


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

    def __init__(self, site: Site, sandbox: Sandbox | UnavailableError) -> None:
        self._site = site
        self._code, self._opt = (CodeStore(site.home / name) for name in ("code", "opt"))
        self._assets = AssetStore(site.home / "assets", bool(site.settings.get("privateAssets")))
        for folder in (self._code.folder, self._opt.folder, self._assets.folder):
            folder.mkdir(parents=True, exist_ok=True)
        indexes = Indexes(site.settings.get("packageIndexes", {}))
        self._packages = PackageStore(packages_folder(site), sandbox, indexes)

    async def provide(self, resource: Resource, spec: FunctionSpec) -> Provision:
        """Raises OwsgitError for what cannot be had."""
        assert resource.tree is not None
        layers = self._layers(spec)
        code = await asyncio.to_thread(self._lay_out, resource, spec)
        opt = await asyncio.to_thread(self._merge, layers) if layers else None
        found = Provision(resource.tree, code, tuple(layer.key for layer in layers), opt)
        if spec.package is not None:
            return found
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

    def _lay_out(self, resource: Resource, spec: FunctionSpec) -> Path:
        """The code. All that it is made of is named by the tree, assets by their digests."""
        tree = resource.tree
        assert tree is not None
        if (found := self._code.find(tree)) is not None:
            return found
        fetched = {path: self._asset(path, asset) for path, asset in spec.assets.items()}
        size = sum(path.stat().st_size for path in fetched.values())
        if size > archives.UNPACKED_BYTES_MAX:
            limit = archives.UNPACKED_BYTES_MAX // 1024**2
            raise InvalidError(f"more than {limit} MiB, Lambda's limit", path="$.assets", remedy="ask for less")
        return self._code.make(tree, lambda scratch: self._fill(scratch, tree, spec, fetched))

    def _asset(self, path: str, asset: Asset) -> Path:
        try:
            return self._assets.fetch(assets.Asset(asset.url, asset.sha256))
        except OwsgitError as error:
            problem = error.problems[0]
            raise type(error)(problem.message, path=f"$.assets['{path}']", remedy=problem.remedy) from None

    def _fill(self, scratch: Path, tree: str, spec: FunctionSpec, fetched: Mapping[str, Path]) -> None:
        for file in self._site.read_files(tree):
            if file.path != "function.json":
                write(scratch, file)
        for path, source in fetched.items():
            put(scratch, path, source)
        if spec.package is not None:
            _unpack(scratch, spec.package)

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
        self._assets.sweep()

    async def close(self) -> None:
        await self._packages.close()


def packages_folder(site: Site) -> Path:
    """Where packages are built: the sandbox has to let its commands write there."""
    folder = site.home / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unpack(scratch: Path, package: str) -> None:
    """Have the content of a deployment package in its place."""
    archive = scratch / package
    try:
        if not archive.is_file():
            raise InvalidError("there is no such file beside function.json", remedy="commit it, or correct the name")
        archives.unpack(archive, scratch, archives.Room())
    except InvalidError as error:
        problem = error.problems[0]
        raise InvalidError(f"{package}: {problem.message}", path="$.package", remedy=problem.remedy) from None
    archive.unlink()


def _opt_key(layers: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()[:40]
