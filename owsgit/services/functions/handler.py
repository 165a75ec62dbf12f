"""Makes functions run: code laid out, a worker warmed, the new deployment swapped in, the old one drained."""

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import unqualified
from owsgit.model.resource import Resource
from owsgit.model.service import Answer, Applied, Invocation, SecretValue, Site
from owsgit.runtime import logs
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.budget import Budget, ThrottledError
from owsgit.runtime.config import FunctionConfig, ImageConfig, Network
from owsgit.runtime.containers import Containers
from owsgit.runtime.log_lines import Source
from owsgit.runtime.logs import FunctionLog, LogSettings
from owsgit.runtime.metrics import FunctionMetrics, Metrics, Workers
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.sandbox import Sandbox, Unconfined
from owsgit.runtime.worker import Worker
from owsgit.services.functions import provision
from owsgit.services.functions.dispatch import Dispatcher
from owsgit.services.functions.provision import Provision, Provisions
from owsgit.services.functions.rules import Rules
from owsgit.services.functions.spec import FunctionSpec

VERSION = "$LATEST"


@dataclass(frozen=True)
class SecretUses:
    """The secrets of a function, as its workers get them."""

    variables: dict[str, str] = field(repr=False)
    files: dict[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, spec: FunctionSpec, known: Mapping[str, SecretValue]) -> "SecretUses":
        """Raises UnavailableError, InvalidError; neither tells what a secret is."""
        variables: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for name, use in spec.secrets.items():
            path = f"$.secrets.{name}"
            value = known.get(use.secret)
            if value is None:
                raise UnavailableError(
                    f"the secret {use.secret} is not open on this node", path=path, remedy="owsgit status says why"
                )
            content = value.content if use.json_key is None else _member(value, use.json_key, path)
            if use.as_file:
                files[name] = content
            else:
                variables[name] = _text(content, path)
        return cls(variables, files)


def _member(value: SecretValue, key: str, path: str) -> bytes:
    try:
        found = json.loads(value.content)[key]
    except (ValueError, KeyError, TypeError):
        raise InvalidError(
            f"the secret is not a JSON object with the member {key!r}",
            path=f"{path}.jsonKey",
            remedy="correct the one or the other",
        ) from None
    return (found if isinstance(found, str) else json.dumps(found)).encode()


def _text(content: bytes, path: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidError("the secret is not text, as a variable has to be", path=path, remedy='use "asFile": true')
    return text


def _size(spec: FunctionSpec) -> Size:
    return Size(
        most=spec.workers_max,
        provisioned=spec.provisioned_concurrency,
        reserved=spec.reserved_concurrency or 0,
        idle_seconds=spec.idle_timeout,
        worker_bytes=spec.memory_size << 20,
    )


def _network(spec: FunctionSpec) -> Network:
    if isinstance(spec.network, list):
        return Network(allowed=tuple(spec.network))
    return Network(internet=spec.network == "internet")


def _image(spec: FunctionSpec) -> ImageConfig | None:
    if spec.image is None:
        return None
    given = spec.image
    return ImageConfig(
        given.uri, given.pull_policy, given.port, given.path, tuple(given.entry_point), tuple(given.command),
        given.working_directory,
    )  # fmt: skip


@dataclass
class Deployment:
    """A function as it runs now."""

    resource: Resource
    config: FunctionConfig
    provision: Provision
    pool: Pool
    log: FunctionLog
    metrics: FunctionMetrics

    def runs(self, resource: Resource, secrets: SecretUses, layers: tuple[str, ...]) -> bool:
        """Whether this is `resource`, with these secrets and layers."""
        same = self.config.secrets == secrets.variables and self.config.secret_files == secrets.files
        return same and self.provision.layers == layers and self.resource.version == resource.version


class FunctionHandler:
    """The handler of functions, and the target that gateways and users call them by."""

    def __init__(self, site: Site) -> None:
        """Where functions cannot be contained, and the node was not told to do without, they fail with why."""
        self._site = site
        self._budget = Budget(site.settings.get("memory"))
        self._deployed: dict[str, Deployment] = {}
        self._wanted: dict[str, Resource] = {}  # also what cannot run
        self._dispatcher = Dispatcher(site.home / "events.db", self.invoke, self._rules)
        self._metrics = Metrics(site.registry or CollectorRegistry(), self._workers)
        self._sweeping = asyncio.ensure_future(self._sweep_logs())
        self._sandbox: Sandbox | UnavailableError
        try:
            none = site.settings.get("sandbox") == "none"
            self._sandbox = Unconfined() if none else self._contained()
        except UnavailableError as error:
            self._sandbox = error
        containers = Containers(str(site.settings["instance"]), site.home / "containers")
        containers.tidy()
        self._runtimes = Runtimes(self._sandbox, containers)
        self._provisions = Provisions(site, self._sandbox)

    def _contained(self) -> Bubblewrap:
        return Bubblewrap(f"owsgit-{self._site.settings['instance']}", [provision.packages_folder(self._site)])

    async def apply(self, resource: Resource, commit: str) -> Applied:
        self._wanted[resource.name] = resource
        spec = resource.spec
        assert isinstance(spec, FunctionSpec) and resource.tree is not None
        previous = self._deployed.get(resource.name)
        secrets = SecretUses.read(spec, self._site.secrets)
        layers = self._provisions.layers_of(spec)
        same = previous is not None and previous.runs(resource, secrets, layers)
        if previous is not None and same and await asyncio.to_thread(self._drift, previous) is None:
            return self._applied(previous)
        given = await self._provisions.provide(resource, spec)
        config = self._config(resource, spec, given, secrets)
        self._runtimes.check(config)
        metrics = self._metrics.function(resource.name)
        settings = self._log_settings(resource.name, spec)
        log = previous.log if previous else FunctionLog(self.logs(resource.name), settings, metrics.report)
        pool = Pool(lambda: self._spawn(config, log), _size(spec), self._budget)
        try:
            await pool.warm()
        except BaseException:
            pool.close()
            raise
        self._deployed[resource.name] = deployment = Deployment(resource, config, given, pool, log, metrics)
        log.configure(settings)
        self._dispatcher.serves(resource.name)
        if previous is not None:
            previous.pool.close()
        used = [each.provision for each in self._deployed.values()]
        await asyncio.to_thread(self._provisions.sweep, used)
        return self._applied(deployment)

    def _log_settings(self, name: str, spec: FunctionSpec) -> LogSettings:
        source = Source(name, str(self._site.settings.get("node", "")))
        return LogSettings(source, spec.logging.application_log_level, spec.logging.retention_days)

    def _config(
        self, resource: Resource, spec: FunctionSpec, given: Provision, secrets: "SecretUses"
    ) -> FunctionConfig:
        scope = self._site.scope()
        return FunctionConfig(
            name=resource.name,
            arn=resource.arn(scope),
            runtime=spec.runtime,
            handler=spec.handler,
            code=given.code,
            timeout=float(spec.timeout),
            memory_size=spec.memory_size,
            environment=dict(spec.environment),
            tmp_size=spec.ephemeral_storage,
            network=_network(spec),
            image=_image(spec),
            opt=given.opt,
            packages=given.packages,
            region=scope.region,
            version=VERSION,
            secrets=secrets.variables,
            secret_files=secrets.files,
        )

    async def _spawn(self, config: FunctionConfig, log: FunctionLog) -> Worker:
        return await self._runtimes.start(config, log)

    def _applied(self, deployment: Deployment) -> Applied:
        sandbox = None if deployment.config.family == "container" else self._sandbox
        note = "" if sandbox is None or isinstance(sandbox, UnavailableError) else sandbox.note
        return Applied(f"{deployment.config.runtime}, a worker is warm" + (f"; {note}" if note else ""))

    def _drift(self, deployment: Deployment) -> str | None:
        return self._provisions.drift(deployment.provision)

    async def delete(self, name: str) -> None:
        """The log stays for its retention, as CloudWatch's would; so do the events: the function may come back."""
        self._wanted.pop(name, None)
        deployment = self._deployed.pop(name, None)
        self._metrics.remove(name)
        if deployment is not None:
            deployment.pool.close()
            deployment.log.close()

    async def observe(self, resource: Resource) -> str | None:
        deployment = self._deployed.get(resource.name)
        if deployment is None:
            return "the function is not running"
        drift = await asyncio.to_thread(self._drift, deployment)
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
        pool = deployment.pool
        return {"workers": len(pool.idle) + pool.busy, "busy": pool.busy, **deployment.metrics.summary(), **queue}

    def _workers(self) -> Iterator[Workers]:
        for name, deployment in list(self._deployed.items()):
            yield Workers(name, len(deployment.pool.idle), deployment.pool.busy)

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        """Raises UnavailableError, ThrottledError; what the function does wrong is in the Answer."""
        while True:
            deployment = self._deployed.get(name)
            if deployment is None:
                raise UnavailableError(
                    f"function {name} is not running on this node",
                    remedy="owsgit status shows why, owsgit logs what it said",
                )
            if not deployment.pool.closed:
                break
            await asyncio.sleep(0)
        try:
            answer = await deployment.pool.invoke(invocation)
        except ThrottledError:
            deployment.metrics.throttled()
            raise
        deployment.metrics.answered(answer)
        return answer

    async def enqueue(self, name: str, invocation: Invocation, *, idempotency_key: str = "", delay: float = 0.0) -> str:
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
        return Rules(spec.async_invoke, spec.workers_max, resource.arn(self._site.scope()), VERSION)

    def logs(self, name: str) -> Path:
        return self._site.home / "logs" / "functions" / name

    async def _sweep_logs(self) -> None:
        """Once a day, remove what is older than it is to be kept, also of functions that are gone."""
        while True:
            for deployment in list(self._deployed.values()):
                deployment.log.sweep()
            folder = self._site.home / "logs" / "functions"
            others = [path for path in folder.glob("*") if path.name not in self._deployed]
            for path in others:
                await asyncio.to_thread(logs.sweep_forgotten, path)
            await asyncio.sleep(logs.DAY_SECONDS)

    async def close(self) -> None:
        self._sweeping.cancel()
        await self._dispatcher.close()
        for name in list(self._deployed):
            await self.delete(name)
        await self._provisions.close()
        await asyncio.sleep(0.05)  # let the workers' ends be collected
        await self._runtimes.close()
        if not isinstance(self._sandbox, UnavailableError):
            await self._sandbox.close()
