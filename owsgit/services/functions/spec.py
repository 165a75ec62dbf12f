"""The spec of a function: `functions/<name>/function.json`, the code beside it."""

import contextlib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from owsgit.model.iam.document import Guarded
from owsgit.model.names import ALIAS_NEED, COMMIT
from owsgit.model.spec import Document, Name, Reference, Suspendable, nearest

ENVIRONMENT_BYTES_MAX = 4096
"""Lambda's limit for all variables of a function."""

FUEL_MAX = 10**14
"""More than a core can use in the longest timeout, and a number that every reader of JSON keeps exact."""

_RUNTIME = re.compile(r"python(3\.[0-9]{1,2})?|nodejs([0-9]{2}\.x)?|provided(\.al2|\.al2023)?|container|wasm")
_HANDLERS = {
    "python": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.[A-Za-z_][A-Za-z0-9_]*"), "module.function"),
    "nodejs": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.[A-Za-z_$][A-Za-z0-9_$.]*"), "file.export"),
    "wasm": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.wasm"), "file.wasm"),
    "provided": (re.compile(r"[!-~]*"), "anything without spaces"),
    "container": (re.compile(r""), "nothing"),
}
"""What a handler looks like in each family of runtimes."""

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}:){_LABEL}(\.{_LABEL})*:[0-9]{{1,5}}")
_ALIAS = re.compile(r"(?![0-9]+$)[A-Za-z0-9_-]{1,128}")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}|sha256:[0-9a-f]{64}")
_CODE_PATH = re.compile(r"[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]*(/[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]*){0,31}")
_URL = re.compile(r"https?://[!-~]{1,2000}")
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]+")
RESERVED = frozenset(
    {
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
    }
)  # fmt: skip
"""https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""


def _runtime(name: str) -> str:
    if not _RUNTIME.fullmatch(name):
        raise ValueError(
            "runtimes are 'python' and 'nodejs' (the node's own version), 'python3.N', 'nodejsN.x', 'provided', "
            "'provided.al2023', 'container' and 'wasm'"
        )
    return name


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("a variable's name has letters, digits and '_', starts with a letter and has two or more")
    if name in RESERVED:
        raise ValueError("this variable is set by the runtime and cannot be chosen")
    return name


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("a variable cannot hold a NUL character")
    return value


class SecretUse(Document):
    """How a function gets a secret."""

    secret: Name = Field(description="The secret. Naming it needs secretsmanager:GetSecretValue on it.")
    json_key: str | None = Field(
        None, max_length=256, description="Of a secret whose value is a JSON object: the member that is meant."
    )
    as_file: bool = Field(
        False, description="Put the value into a file, /run/secrets/<variable>, and the file's path into the variable."
    )


def family(runtime: str) -> str:
    """python, nodejs, provided, container or wasm."""
    return re.split(r"[0-9.]", runtime)[0]


def _host(value: str) -> str:
    if not _HOST.fullmatch(value) or not 0 < int(value.rpartition(":")[2]) < 65536:
        raise ValueError(f"{value!r} is not host:port, such as db.example.com:5432")
    with contextlib.suppress(ipaddress.AddressValueError):  # a name: looked at when it is connected to
        address = ipaddress.IPv4Address(value.rpartition(":")[0])
        if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
            raise ValueError(f"{address} is never reached: it is the node's own machine, or a metadata service")
    return value


def _commit(value: str) -> str:
    if not COMMIT.fullmatch(value):
        raise ValueError("a commit is named by all 40 digits of its id")
    return value


def _alias(name: str) -> str:
    if not _ALIAS.fullmatch(name):
        raise ValueError("an alias has letters, digits, '-' and '_', and is not a number alone")
    return name


def _path(value: str) -> str:
    if not _CODE_PATH.fullmatch(value) or {"..", "."} & set(value.split("/")) or value == "function.json":
        raise ValueError(f"{value!r} is not a path below the function's folder, such as wheels/x.whl")
    return value


def _address(value: str) -> str:
    if not _URL.fullmatch(value):
        raise ValueError(f"{value!r} is not an address such as https://files.example.com/x.whl")
    return value


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError("an image is pinned by its digest: name@sha256:<64 digits> (docker images --digests)")
    return value


NetworkAccess = Annotated[
    Annotated[Literal["none", "internet"], Tag("one")]
    | Annotated[list[Annotated[str, AfterValidator(_host)]], Tag("many")],
    Discriminator(lambda value: "many" if isinstance(value, list) else "one"),
]


class Destination(Document):
    """Where a record of an asynchronous invocation goes."""

    function: Name = Field(description="The function that is invoked with the record, asynchronously.")


class AsyncInvoke(Document):
    """How asynchronous invocations are retried, and what becomes of their results."""

    maximum_retry_attempts: int = Field(2, ge=0, le=2, description="Retries after an error of the function.")
    maximum_event_age: int = Field(
        21600, ge=60, le=21600, description="Seconds after which an event is given up, however often it was tried."
    )
    on_success: Destination | None = Field(None, description="Where the results of successful invocations go.")
    on_failure: Destination | None = Field(
        None, description="Where events go that failed for good. Without it, the node keeps them as dead letters."
    )


class LoggingConfig(Document):
    """What of a function's log is kept, and for how long; its size is bounded in any case."""

    application_log_level: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] | None = Field(
        None,
        description="Lines of the function's own below this level are dropped; lines without a level are INFO. "
        "By default none is dropped.",
    )
    retention_days: int = Field(
        14, ge=1, le=3653, description="Days after which lines are removed, also those of a function that was deleted."
    )


class Asset(Document):
    """A file that is too large for the ledger: each node fetches it, and takes it only if its digest is right."""

    url: Annotated[str, AfterValidator(_address)] = Field(description="Its address, https or http.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="The digest of its content: sha256sum FILE.")


class Image(Document):
    """The image of a container function."""

    uri: Annotated[str, AfterValidator(_image)] = Field(
        description="The image, pinned by its digest: name@sha256:..., or an image id sha256:... on every node."
    )
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        "IfNotPresent", description="Whether a node pulls the image."
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="The port on which it serves HTTP; without one it is an AWS Lambda image."
    )
    path: str = Field(
        "/", pattern=r"^/[!-~]*$", max_length=1024, description="Where events are posted to, with a port."
    )
    entry_point: list[str] = Field([], max_length=100, description="Instead of the image's ENTRYPOINT.")
    command: list[str] = Field([], max_length=100, description="Instead of the image's CMD.")
    working_directory: str | None = Field(None, pattern=r"^/[ -~]*$", description="Instead of the image's WORKDIR.")


class Alias(Document):
    """A name for versions of a function. A version is a commit of the ledger."""

    commit: Annotated[str, AfterValidator(_commit)] = Field(description="The commit whose version is meant.")
    weights: dict[Annotated[str, AfterValidator(_commit)], float] = Field(
        {}, max_length=10, description="Further versions, each with its share of the requests, from 0 to 1."
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if any(not 0 <= share <= 1 for share in self.weights.values()) or sum(self.weights.values()) > 1:
            raise ValueError("weights lie between 0 and 1, and are together at most 1")
        return self


class FunctionSpec(Suspendable, Guarded):
    """A serverless function with AWS Lambda's handler signature."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "functionName": "take it out: the function is called as its folder",
        "code": "take it out: the code lies beside this file, or in the zip that `package` names",
        "packageType": "take it out: `runtime` says it, which is container for an image",
        "architectures": "take it out: a function runs on what its node is",
        "vpcConfig": "write what it connects to in `network`",
        "deadLetterConfig": "write asyncInvoke.onFailure",
    }

    description: str | None = Field(None, max_length=256, description="What the function is for.")
    runtime: Annotated[str, AfterValidator(_runtime)] = Field(
        description="Lambda's name of the runtime, such as python3.11, nodejs20.x or provided.al2023; 'python' and "
        "'nodejs' are the node's own versions. 'container' is an image, 'wasm' a WebAssembly module.",
    )
    handler: str = Field(
        "",
        max_length=128,
        validate_default=True,
        description="What to call: 'module.function' or 'folder/module.function' for Python, 'file.export' for Node, "
        "'file.wasm' for WebAssembly; custom runtimes get it as $_HANDLER.",
    )
    image: Image | None = Field(None, description="The image of a function with the runtime 'container'.")
    layers: list[Name] = Field(
        [],
        max_length=5,
        description="Layers that are laid over each other at /opt, in order. Naming "
        "one needs lambda:GetLayerVersion on it.",
    )
    package: Annotated[str, AfterValidator(_path)] | None = Field(
        None,
        pattern=r"\.zip$",
        description="A zip beside function.json (or an asset) that is the code: a deployment package, complete as on "
        "Lambda. It is unpacked; requirements.txt and package.json are then not looked at.",
    )
    assets: dict[Annotated[str, AfterValidator(_path)], Asset] = Field(
        {},
        max_length=50,
        description="Files that are fetched and laid out beside the code, by path; a wheel among them can be named by "
        "requirements.txt, a zip by `package`.",
    )
    timeout: int = Field(3, ge=1, le=900, description="Seconds that one request may take.")
    memory_size: int = Field(
        128, ge=128, le=10240, description="MiB of memory that one worker may use. Its share of the CPU grows with it."
    )
    fuel: int | None = Field(
        None,
        ge=1,
        le=FUEL_MAX,
        description="WebAssembly instructions, roughly, that one request may use; only for the runtime 'wasm'. They "
        "are counted only if this is given, which slows the module down; the REPORT line then tells how many were "
        "used.",
    )
    ephemeral_storage: int = Field(
        512,
        ge=64,
        le=10240,
        description="MiB that a worker may keep in /tmp. They are memory, and count towards memorySize too.",
    )
    network: Annotated[
        Annotated[Literal["none", "internet"], Tag("one")]
        | Annotated[list[Annotated[str, AfterValidator(_host)]], Field(max_length=100), Tag("many")],
        Discriminator(lambda value: "many" if isinstance(value, list) else "one"),
    ] = Field(
        "none",
        description="What a worker can reach: 'none', 'internet' (never the node's own machine), or a list of "
        "'host:port' that it may connect to.",
    )
    environment: dict[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_text)]] = Field(
        {}, description="Environment variables; 4 KB in all."
    )
    secrets: dict[Annotated[str, AfterValidator(_variable)], SecretUse] = Field(
        {}, max_length=100, description="Environment variables whose values are secrets (secrets/<name>.json)."
    )
    role: Name | None = Field(
        None, description="The role whose rights the function has. Naming it needs iam:PassRole on the role."
    )
    max_concurrency: int = Field(
        10, ge=1, le=1000, description="Requests that one node serves at once; further ones wait for a worker."
    )
    reserved_concurrency: int | None = Field(
        None, ge=1, le=1000, description="Workers that each node keeps free for this function alone; also its most."
    )
    provisioned_concurrency: int = Field(0, ge=0, le=100, description="Workers that each node keeps warm at all times.")
    idle_timeout: int = Field(600, ge=1, le=86400, description="Seconds after which a worker that nobody asked ends.")
    async_invoke: AsyncInvoke = Field(
        default_factory=AsyncInvoke, description="What becomes of asynchronous invocations."
    )
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="What of its log is kept, and how long.")
    aliases: dict[Annotated[str, AfterValidator(_alias)], Alias] = Field(
        {}, max_length=100, description="Names for versions: `owsgit invoke f:live` calls the alias live."
    )

    @property
    def family(self) -> str:
        """python, nodejs, provided, container or wasm."""
        return family(self.runtime)

    @field_validator("handler")
    @classmethod
    def _handler_fits(cls, handler: str, info: ValidationInfo) -> str:
        runtime = info.data.get("runtime")  # absent if it is wrong itself
        pattern, form = _HANDLERS[family(runtime)] if runtime else (re.compile(".*"), "")
        if not pattern.fullmatch(handler):
            raise ValueError(f"with the runtime {runtime}, the handler has to be {form}")
        return handler

    @field_validator("environment", mode="before")
    @classmethod
    def _environment_is_flat(cls, environment: Any) -> Any:
        if isinstance(environment, dict) and any(
            isinstance(environment.get(name), dict) for name in ("Variables", "variables")
        ):
            raise ValueError("the variables stand in environment itself: leave out what AWS calls Variables")
        return environment

    @field_validator("role", mode="before")
    @classmethod
    def _role_is_named(cls, role: Any) -> Any:
        if isinstance(role, str) and role.startswith("arn:"):
            raise ValueError(f"a role is named without its ARN: write {role.rpartition('/')[2]!r:.80}")
        return role

    @field_validator("fuel")
    @classmethod
    def _fuel_fits(cls, fuel: int | None, info: ValidationInfo) -> int | None:
        runtime = info.data.get("runtime")  # absent if it is wrong itself
        if fuel is not None and runtime not in (None, "wasm"):
            raise ValueError(f"only functions with the runtime wasm use fuel, not those with {runtime}: leave it out")
        return fuel

    @model_validator(mode="after")
    def _runtime_fits(self) -> Self:
        if (self.image is not None) != (self.family == "container"):
            raise ValueError("a function has an image if its runtime is 'container', and only then")
        if self.reserved_concurrency is not None and "max_concurrency" in self.model_fields_set:
            raise ValueError("reservedConcurrency is the most as well: leave maxConcurrency out")
        if self.family == "wasm" and self.network != "none":
            raise ValueError("a WebAssembly function has no network: leave $.network out")
        if self.layers and self.family in ("container", "wasm"):
            raise ValueError(f"a function with the runtime {self.runtime} has no layers: leave $.layers out")
        if self.provisioned_concurrency > self.workers_max:
            field = "maxConcurrency" if self.reserved_concurrency is None else "reservedConcurrency"
            raise ValueError(
                f"provisionedConcurrency is {self.provisioned_concurrency}, more than the function may have at once: "
                f"{field} is {self.workers_max}"
            )
        return self

    @property
    def workers_max(self) -> int:
        """The most workers of one node."""
        return self.reserved_concurrency or self.max_concurrency

    @model_validator(mode="after")
    def _environment_fits(self) -> Self:
        size = sum(len(name.encode()) + len(value.encode()) for name, value in self.environment.items())
        if size > ENVIRONMENT_BYTES_MAX:
            raise ValueError(f"environment has {size:,} bytes; at most {ENVIRONMENT_BYTES_MAX:,} are taken")
        if both := sorted(set(self.environment) & set(self.secrets)):
            raise ValueError(f"{both[0]} is a variable of environment and of secrets: remove it from one of them")
        return self

    def lacks(self, need: str) -> str | None:
        """Who calls a version of it may name an alias."""
        alias = need.removeprefix(ALIAS_NEED)
        if alias == need or alias in self.aliases:
            return None
        return f"it has no alias {alias!r}; {nearest(alias, self.aliases, 'alias', 'aliases')}"

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.role is not None:
            yield Reference("role", self.role, "$.role")
        for index, layer in enumerate(self.layers):
            yield Reference("layer", layer, f"$.layers[{index}]", need=self.runtime)
        for name, use in self.secrets.items():
            yield Reference("secret", use.secret, f"$.secrets.{name}.secret")
        for name, destination in (
            ("onSuccess", self.async_invoke.on_success),
            ("onFailure", self.async_invoke.on_failure),
        ):
            if destination is not None:
                path = f"$.asyncInvoke.{name}.function"
                yield Reference("function", destination.function, path, orders=False)
