"""The spec of a function: `functions/<name>/function.json`, the code beside it."""

import re
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from owsgit.model.iam.document import Guarded
from owsgit.model.spec import Document, Name, Reference, Suspendable

ENVIRONMENT_BYTES_MAX = 4096
"""Lambda's limit for all variables of a function."""

_RUNTIME = re.compile(r"python(3\.[0-9]{1,2})?")
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]+")
RESERVED = frozenset(
    {
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
    }
)  # fmt: skip
"""https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""


def _runtime(name: str) -> str:
    if not _RUNTIME.fullmatch(name):
        raise ValueError("runtimes are 'python' (the node's own version) and 'python3.N'; others are not built yet")
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


class FunctionSpec(Suspendable, Guarded):
    """A serverless function with AWS Lambda's handler signature."""

    description: str | None = Field(None, max_length=256, description="What the function is for.")
    runtime: Annotated[str, AfterValidator(_runtime)] = Field(
        description="Lambda's name of the runtime, such as python3.11; 'python' is the node's own version.",
    )
    handler: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*\.[A-Za-z_][A-Za-z0-9_]*$",
        max_length=128,
        description="What to call: 'module.function', or 'folder/module.function'.",
    )
    timeout: int = Field(3, ge=1, le=900, description="Seconds that one request may take.")
    memory_size: int = Field(128, ge=128, le=10240, description="MiB of memory that one worker may use.")
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

    @model_validator(mode="after")
    def _environment_fits(self) -> Self:
        size = sum(len(name.encode()) + len(value.encode()) for name, value in self.environment.items())
        if size > ENVIRONMENT_BYTES_MAX:
            raise ValueError(f"environment has {size:,} bytes; at most {ENVIRONMENT_BYTES_MAX:,} are taken")
        if both := sorted(set(self.environment) & set(self.secrets)):
            raise ValueError(f"{both[0]} is a variable of environment and of secrets: remove it from one of them")
        return self

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.role is not None:
            yield Reference("role", self.role, "$.role")
        for name, use in self.secrets.items():
            yield Reference("secret", use.secret, f"$.secrets.{name}.secret")
