"""Versions of functions at other commits than the head, which run beside the one of the head."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass

from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.runtime.logs import FunctionLog
from owsgit.services.functions.aliases import Qualified
from owsgit.services.functions.deployment import Deployer, Deployment
from owsgit.services.functions.spec import FunctionSpec

RUNNING_MAX = 100
"""Of one node; the one that was asked longest ago makes room."""

RESOURCES_MAX = 1000
"""Specs of versions that are kept: some KiB each."""

EXPIRE_SECONDS = 30.0


@dataclass
class _Running:
    """An older version that runs beside the one of the head."""

    deployment: Deployment
    last_used: float


class Versions:
    """The versions of other commits than the head, each made to run when it is first asked for."""

    def __init__(self, site: Site, deployer: Deployer) -> None:
        self._site = site
        self._deployer = deployer
        self._running: dict[Qualified, _Running] = {}
        self._resources: dict[Qualified, Resource] = {}  # the longest known first
        self._locks: defaultdict[Qualified, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._expiring = asyncio.ensure_future(self._expire())

    async def get(self, name: str, commit: str, head: Deployment | None, log: FunctionLog) -> Deployment:
        """The version of a commit; that of the head, where they are the same. Raises OwsgitError."""
        version = Qualified(name, commit=commit)
        async with self._locks[version]:
            found = self._running.get(version)
            if found is None or not self._deployer.fits(found.deployment, found.deployment.resource):
                resource = await self.resource(version)
                if head is not None and head.resource.version == resource.version:
                    return head
                made = await self._deployer.deploy(resource, log, commit)
                self._close(version)
                found = self._running[version] = _Running(made, time.monotonic())
                self._make_room()
        found.last_used = time.monotonic()
        return found.deployment

    async def resource(self, version: Qualified) -> Resource:
        """What a commit says never changes, and is looked up once: every request for the head's own version asks.

        Raises OwsgitError."""
        found = self._resources.get(version)
        if found is None:
            found = await asyncio.to_thread(self._site.resource_at, "function", version.name, version.commit)
            self._resources[version] = found
            while len(self._resources) > RESOURCES_MAX:
                del self._resources[next(iter(self._resources))]
        return found

    def _make_room(self) -> None:
        while len(self._running) > RUNNING_MAX:
            self._close(min(self._running, key=lambda version: self._running[version].last_used))

    def deployments(self) -> list[Deployment]:
        return [each.deployment for each in self._running.values()]

    def close_all(self, name: str) -> None:
        """Stop every version of a function."""
        for version in [each for each in self._running if each.name == name]:
            self._close(version)

    def _close(self, version: Qualified) -> None:
        found = self._running.pop(version, None)
        if found is not None:
            found.deployment.pool.close()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            for version, running in list(self._running.items()):
                spec = running.deployment.resource.spec
                assert isinstance(spec, FunctionSpec)
                idle = not running.deployment.pool.busy and not running.deployment.pool.waiting
                if idle and time.monotonic() - running.last_used > spec.idle_timeout:
                    self._close(version)
            for version in [each for each, lock in self._locks.items() if not lock.locked()]:
                if version not in self._running:
                    del self._locks[version]

    async def close(self) -> None:
        self._expiring.cancel()
        for version in list(self._running):
            self._close(version)
