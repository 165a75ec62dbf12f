"""Makes functions run: code laid out, a worker warmed, the new deployment swapped in, the old one drained."""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from owsgit.aws.api import Api
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.names import unqualified
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Invocation, Site
from owsgit.runtime import logs
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.budget import Budget
from owsgit.runtime.containers import Containers
from owsgit.runtime.log_lines import Source
from owsgit.runtime.logs import FunctionLog, LogSettings
from owsgit.runtime.metrics import Metrics, Workers
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.sandbox import Sandbox, Unconfined
from owsgit.services.functions import aliases, provision
from owsgit.services.functions.aliases import LATEST, Qualified
from owsgit.services.functions.api import LambdaApi
from owsgit.services.functions.controlling import ControlApi
from owsgit.services.functions.deployment import Deployer, Deployment
from owsgit.services.functions.described import Standing
from owsgit.services.functions.dispatch import Dispatcher
from owsgit.services.functions.invoking import Invoker
from owsgit.services.functions.provision import Provisions
from owsgit.services.functions.rules import Rules
from owsgit.services.functions.spec import FunctionSpec
from owsgit.services.functions.versions import Versions


class FunctionHandler:
    """The handler of functions, and the target that gateways and users call them by."""

    def __init__(self, site: Site) -> None:
        """Where functions cannot be contained, and the node was not told to do without, they fail with why."""
        self._site = site
        self._deployed: dict[str, Deployment] = {}
        self._wanted: dict[str, Resource] = {}  # also what cannot run
        self._problems: dict[str, str] = {}  # why the version that is wanted does not run
        self._since: dict[str, float] = {}  # when it came to be wanted, in seconds since 1970
        self._logs: dict[str, FunctionLog] = {}
        self._metrics = Metrics(site.registry or CollectorRegistry(), self._workers)
        self.invoke = Invoker(self._deployed, self._wanted, self._metrics, self._deployment).invoke
        self._dispatcher = Dispatcher(site.home / "events.db", self.invoke, self._rules)
        self._sweeping = asyncio.ensure_future(logs.sweep_daily(site.home / "logs" / "functions", lambda: self._logs))
        self._sandbox = self._make_sandbox()
        containers = Containers(str(site.settings["instance"]), site.home / "containers")
        containers.tidy()
        self._runtimes = Runtimes(self._sandbox, containers)
        self._provisions = Provisions(site, self._sandbox)
        self._deployer = Deployer(site, self._runtimes, self._provisions, Budget(site.settings.get("memory")))
        self._versions = Versions(site, self._deployer)
        self.apis: tuple[Api, ...] = (LambdaApi(site, self),)
        if site.edit is not None:
            self.apis = (ControlApi(site, self, site.edit), *self.apis)  # the first that knows an operation answers

    def _make_sandbox(self) -> Sandbox | UnavailableError:
        settings = self._site.settings
        if settings.get("sandbox") == "none":
            return Unconfined()
        try:
            return Bubblewrap(f"owsgit-{settings['instance']}", [provision.packages_folder(self._site)])
        except UnavailableError as error:
            return error

    async def apply(self, resource: Resource, commit: str) -> Applied:
        before = self._wanted.get(resource.name)
        self._wanted[resource.name] = resource
        if before is None or before.version != resource.version:
            self._since[resource.name] = time.time()
            self._problems.pop(resource.name, None)
        try:
            applied = await self._apply(resource)
        except OwsgitError as error:
            self._problems[resource.name] = error.problems[0].message
            raise
        self._problems.pop(resource.name, None)
        return applied

    async def _apply(self, resource: Resource) -> Applied:
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        previous = self._deployed.get(resource.name)
        log = self._log(resource)
        fits = previous is not None and self._deployer.fits(previous, resource)
        if previous is not None and fits and await self._deployer.drift(previous) is None:
            await self._check_aliases(resource, spec)
            return Applied(previous.note(self._sandbox))
        self._deployed[resource.name] = deployment = await self._deployer.deploy(resource, log, replaced=previous)
        if previous is not None:
            previous.pool.close()
        self._dispatcher.serves(resource.name)
        used = [each.provision for each in (*self._deployed.values(), *self._versions.deployments())]
        await asyncio.to_thread(self._provisions.sweep, used)
        await self._check_aliases(resource, spec)
        return Applied(deployment.note(self._sandbox))

    async def _check_aliases(self, resource: Resource, spec: FunctionSpec) -> None:
        """Have the versions that aliases name run. Raises OwsgitError with the alias."""
        for name, alias in spec.aliases.items():
            for commit in (alias.commit, *alias.weights):
                try:
                    head = self._deployed.get(resource.name)
                    await self._versions.get(resource.name, commit, head, self._log(resource))
                except OwsgitError as error:
                    problem = error.problems[0]
                    raise InvalidError(
                        f"the version {commit[:10]}: {problem.message}", path=f"$.aliases.{name}", remedy=problem.remedy
                    ) from None

    def _log(self, resource: Resource) -> FunctionLog:
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        source = Source(resource.name, str(self._site.settings.get("node", "")))
        settings = LogSettings(source, spec.logging.application_log_level, spec.logging.retention_days)
        log = self._logs.get(resource.name)
        if log is None:
            metrics = self._metrics.function(resource.name)
            log = self._logs[resource.name] = FunctionLog(self.logs(resource.name), settings, metrics.report)
        log.configure(settings)
        return log

    async def delete(self, name: str) -> None:
        """The log stays for its retention, as CloudWatch's would; so do the events: the function may come back."""
        self._wanted.pop(name, None)
        self._problems.pop(name, None)
        self._since.pop(name, None)
        self._versions.close_all(name)
        deployment = self._deployed.pop(name, None)
        self._metrics.remove(name)
        if deployment is not None:
            deployment.pool.close()
        log = self._logs.pop(name, None)
        if log is not None:
            log.close()

    async def observe(self, resource: Resource) -> str | None:
        deployment = self._deployed.get(resource.name)
        if deployment is None:
            return "the function is not running"
        drift = await self._deployer.drift(deployment)
        lost = deployment.pool.lost()
        if lost:
            await deployment.pool.warm()
            return drift or f"{lost} idle worker(s) had ended; replaced"
        return drift

    def details(self, name: str) -> Mapping[str, Any]:
        queue = self._dispatcher.facts(name)
        deployment = self._deployed.get(name)
        if deployment is None:
            return queue
        pool, metrics = deployment.pool, self._metrics.function(name)
        return {"workers": len(pool.idle) + pool.busy, "busy": pool.busy, **metrics.summary(), **queue}

    def _workers(self) -> Iterator[Workers]:
        for name, deployment in list(self._deployed.items()):
            yield Workers(name, len(deployment.pool.idle), deployment.pool.busy)

    async def _deployment(self, called: Qualified) -> Deployment:
        """What runs and is not being replaced. Raises OwsgitError."""
        while True:
            found = await self._version(called) if called.qualifier else self._deployed.get(called.name)
            if found is None:
                raise UnavailableError(
                    f"function {called.name} is not running on this node",
                    remedy="owsgit status shows why, owsgit logs what it said",
                )
            if not found.pool.closed:
                return found
            await asyncio.sleep(0)

    async def _version(self, called: Qualified) -> Deployment | None:
        resource = self._wanted.get(called.name)
        if resource is None:
            return None
        assert isinstance(resource.spec, FunctionSpec)
        commit = called.commit or aliases.choose(called.name, called.alias, resource.spec.aliases)
        return await self._versions.get(called.name, commit, self._deployed.get(called.name), self._logs[called.name])

    async def enqueue(self, name: str, invocation: Invocation, *, idempotency_key: str = "", delay: float = 0.0) -> str:
        called = Qualified.parse(name)
        resource = self._wanted.get(called.name)
        if called.alias and resource is not None:
            assert isinstance(resource.spec, FunctionSpec)
            aliases.choose(
                called.name, called.alias, resource.spec.aliases
            )  # InvalidError now: nobody reads a later one
        elif called.commit:
            await asyncio.to_thread(self._site.resource_at, "function", called.name, called.commit)
        return await self._dispatcher.enqueue(name, invocation, idempotency_key, delay)

    def events(self, name: str) -> Mapping[str, Any]:
        return self._dispatcher.events(name)

    async def redrive(self, name: str, request_ids: Collection[str]) -> list[str]:
        return await self._dispatcher.redrive(name, request_ids)

    async def drop(self, name: str, request_ids: Collection[str]) -> list[str]:
        return await self._dispatcher.drop(name, request_ids)

    def _rules(self, name: str) -> Rules | None:
        """What the dispatcher has to know of a function: of what runs, else of what is wanted."""
        function = unqualified(name)
        deployment = self._deployed.get(function)
        resource = deployment.resource if deployment is not None else self._wanted.get(function)
        if resource is None:
            return None
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        return Rules(spec.async_invoke, spec.workers_max, resource.arn(self._site.scope()), LATEST)

    def resource(self, name: str) -> Resource | None:
        """As it is wanted at the head; it need not run."""
        return self._wanted.get(name)

    def names(self) -> list[str]:
        """Of all functions, sorted."""
        return sorted(self._wanted)

    async def version(self, name: str, commit: str) -> Resource:
        """A function as it was at a commit. Raises OwsgitError."""
        return await self._versions.resource(Qualified(name, commit=commit))

    def standing(self, name: str) -> Standing:
        """How a function stands on this node."""
        deployment, wanted = self._deployed.get(name), self._wanted.get(name)
        current = deployment is not None and wanted is not None and deployment.resource.version == wanted.version
        return Standing(deployment is not None, current, self._problems.get(name, ""), self._since.get(name, 0.0))

    def logs(self, name: str) -> Path:
        return self._site.home / "logs" / "functions" / name

    async def close(self) -> None:
        self._sweeping.cancel()
        await self._dispatcher.close()
        await self._versions.close()
        for name in list(self._deployed):
            await self.delete(name)
        await self._provisions.close()
        await asyncio.sleep(0.05)  # let the workers' ends be collected
        await self._runtimes.close()
        if not isinstance(self._sandbox, UnavailableError):
            await self._sandbox.close()
