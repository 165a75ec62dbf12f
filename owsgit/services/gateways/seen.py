"""What is to be seen of the requests of a node's gateways: metrics always, access logs and traces where asked for."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from owsgit.gateway.exchange import Step
from owsgit.gateway.metrics import GatewayMetrics
from owsgit.gateway.observing import Watcher, timed, watched
from owsgit.gateway.tracing import Tracing
from owsgit.model.service import Site
from owsgit.runtime import logs
from owsgit.services.gateways.access_logs import GatewayLog
from owsgit.services.gateways.spec import GatewaySpec


class Seen:
    """Outlives deployments, so that nothing is counted anew because a route was added."""

    def __init__(self, site: Site) -> None:
        """Raises UnavailableError if the node is to trace and cannot."""
        self._site = site
        self._metrics = GatewayMetrics(site.registry)
        self._logs: dict[str, GatewayLog] = {}
        self._retired: dict[str, GatewayLog] = {}  # written to until the next deployment serves
        self._tracing = _tracing(site)
        self._sweeping = asyncio.ensure_future(logs.sweep_daily(self._folder, lambda: self._logs))

    @property
    def _folder(self) -> Path:
        return self._site.home / "logs" / "gateways"

    def log_folder(self, name: str) -> Path:
        return self._folder / name

    def observers(self, name: str, stage: str) -> list[Step]:
        """What sees all requests of a stage."""
        log = self._logs.get(name)
        watchers: list[Watcher | None] = [
            self._tracing,
            log.watcher if log is not None else None,
            self._metrics.stage(name, stage),
        ]
        return [watched([watcher for watcher in watchers if watcher is not None])]

    def around_integration(self) -> list[Step]:
        return [timed] if self._tracing is None else [timed, self._tracing.around]

    def prepare(self, name: str, spec: GatewaySpec) -> None:
        """Before a deployment is built."""
        log = self._logs.pop(name, None) or self._retired.pop(name, None)
        if spec.access_log is None:
            if log is not None:
                self._retired[name] = log
            return
        if log is None:
            log = GatewayLog(self.log_folder(name), name, str(self._site.settings.get("node", "")))
        log.configure(spec.access_log)
        self._logs[name] = log

    async def deployed(self, name: str, stages: Collection[str], routes: Collection[str]) -> None:
        """After it serves: forget what is not there any more."""
        self._metrics.retain(name, stages, routes)
        if name in self._retired:
            await self._retired.pop(name).close()

    async def remove(self, name: str) -> None:
        """The log stays for its retention."""
        self._metrics.remove(name)
        await self._close_log(name)

    async def _close_log(self, name: str) -> None:
        for log in (self._logs.pop(name, None), self._retired.pop(name, None)):
            if log is None:
                continue
            await log.close()

    def details(self, name: str) -> Mapping[str, Any]:
        return self._metrics.summary(name)

    async def close(self) -> None:
        self._sweeping.cancel()
        for name in {*self._logs, *self._retired}:
            await self._close_log(name)
        if self._tracing is not None:
            await self._tracing.close()


def _tracing(site: Site) -> Tracing | None:
    asked = site.settings.get("tracing")
    if asked is None:
        return None
    node = str(site.settings.get("node", ""))
    about = {"service.instance.id": node, "service.namespace": "owsgit"}
    return Tracing(asked["otlp"], asked["sampleRatio"], asked["headers"], about)
