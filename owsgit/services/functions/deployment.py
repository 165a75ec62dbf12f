"""One version of a function made to run: what it needs laid out, its first worker warmed."""

import asyncio
from dataclasses import dataclass, replace

from owsgit.model.errors import UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.runtime import sdk
from owsgit.runtime.budget import Budget
from owsgit.runtime.config import FunctionConfig, ImageConfig, Network
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.sandbox import Sandbox
from owsgit.services.functions.aliases import LATEST
from owsgit.services.functions.provision import Provision, Provisions
from owsgit.services.functions.role_access import RoleAccess, without
from owsgit.services.functions.secret_uses import SecretUses
from owsgit.services.functions.spec import FunctionSpec


@dataclass
class Deployment:
    """A version of a function as it runs now."""

    resource: Resource
    config: FunctionConfig
    provision: Provision
    pool: Pool

    def note(self, sandbox: Sandbox | UnavailableError) -> str:
        """What status says of it."""
        around = None if self.config.family == "container" or isinstance(sandbox, UnavailableError) else sandbox
        return f"{self.config.runtime}, a worker is warm" + (f"; {around.note}" if around and around.note else "")


class Deployer:
    """Makes versions of functions run."""

    def __init__(self, site: Site, runtimes: Runtimes, provisions: Provisions, budget: Budget) -> None:
        self._site = site
        self._runtimes = runtimes
        self._provisions = provisions
        self._budget = budget

    async def deploy(
        self, resource: Resource, log: FunctionLog, version: str = LATEST, *, replaced: Deployment | None = None
    ) -> Deployment:
        """`replaced` ends when this one runs. Raises OwsgitError for what keeps it from running."""
        spec = resource.spec
        assert isinstance(spec, FunctionSpec) and resource.tree is not None
        secrets = SecretUses.read(spec, self._site.secrets)
        given = await self._provisions.provide(resource, spec)
        config = self._config(resource, spec, given, secrets, version)
        self._runtimes.check(config)
        await asyncio.to_thread(sdk.is_used, given.code)  # looked up now, and remembered for every worker
        size = _size(spec, version)
        if size.reserved:
            self._budget.check_reserved(size.reserved, size.worker_bytes, replaced.pool if replaced else None)
        pool = Pool(lambda: self._runtimes.start(config, log), size, self._budget)
        try:
            await pool.warm()
        except BaseException:
            pool.close()
            raise
        return Deployment(resource, config, given, pool)

    def fits(self, deployment: Deployment, resource: Resource) -> bool:
        """Whether it is `resource` with the secrets and layers of now. Raises UnavailableError, InvalidError."""
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        secrets = SecretUses.read(spec, self._site.secrets)
        config = deployment.config
        same = without(config.secrets) == secrets.variables and config.secret_files == secrets.files
        same = same and deployment.provision.layers == self._provisions.layers_of(spec)
        return same and deployment.resource.version == resource.version

    async def drift(self, deployment: Deployment) -> str | None:
        """What differs from what was laid out, in words."""
        return await asyncio.to_thread(self._provisions.drift, deployment.provision)

    def _config(
        self, resource: Resource, spec: FunctionSpec, given: Provision, secrets: SecretUses, version: str
    ) -> FunctionConfig:
        scope = self._site.scope()
        arn = resource.arn(scope)
        role = RoleAccess.of(self._site, resource, version)
        return FunctionConfig(
            name=resource.name,
            arn=arn if version == LATEST else f"{arn}:{version}",
            runtime=spec.runtime,
            handler=spec.handler,
            code=given.code,
            timeout=float(spec.timeout),
            memory_size=spec.memory_size,
            fuel=spec.fuel,
            environment={**role.variables, **spec.environment},
            tmp_size=spec.ephemeral_storage,
            network=replace(_network(spec), inner=role.inner, own=self._site.own_host),
            image=_image(spec),
            opt=given.opt,
            packages=given.packages,
            region=scope.region,
            version=version,
            secrets={**secrets.variables, **role.secrets},
            secret_files=secrets.files,
            debugging=self._site.settings.get("debugging"),
        )


def _size(spec: FunctionSpec, version: str) -> Size:
    """What is reserved and provisioned is the head's: older versions beside it take what is there."""
    at_head = version == LATEST
    return Size(
        most=spec.workers_max,
        provisioned=spec.provisioned_concurrency if at_head else 0,
        reserved=(spec.reserved_concurrency or 0) if at_head else 0,
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
