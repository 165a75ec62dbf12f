"""The environment variables of a worker, as Lambda sets them.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from owsgit.runtime.config import FunctionConfig

SECRETS_FOLDER = "/run/secrets"
TASK = "/var/task"
OPT = "/opt"
PACKAGES = {"python": "/var/lang/site-packages", "nodejs": "/var/node_modules"}
"""Where the packages that were built for a function lie. Node.js looks there for modules of either kind that /var/task
names, after its own node_modules."""


def mounts(config: FunctionConfig) -> dict[str, Path]:
    """What is in the sandbox beside the code, by its path inside."""
    found = {OPT: config.opt, _packages_place(config): config.packages}
    return {inside: folder for inside, folder in found.items() if inside and folder is not None}


def _packages_place(config: FunctionConfig) -> str:
    """For debugged Node.js code, that is not at /var/task: in the folder above, where it looks after its own."""
    if config.debugging is not None and config.family == "nodejs":
        return str(config.debugging.source.parent / "node_modules")
    return PACKAGES.get(config.family, "")


def has_libraries(config: FunctionConfig) -> bool:
    """Whether there are shared libraries on LD_LIBRARY_PATH, read when a program starts."""
    folders = [config.code, config.code / "lib", *([config.opt / "lib"] if config.opt is not None else [])]
    return any(next(folder.glob("lib*.so*"), None) is not None for folder in folders)


def of(config: FunctionConfig, log_stream: str, contained: bool = True) -> dict[str, str]:
    """All variables of a worker of `config`."""
    places, task = mounts(config), config.task(contained)
    opt, packages = (
        str(inside if contained else places[inside]) if inside in places else ""
        for inside in (OPT, _packages_place(config))
    )
    return {
        "PATH": _joined("/usr/local/bin:/usr/bin:/bin", opt and f"{opt}/bin"),
        "LD_LIBRARY_PATH": _joined(task, f"{task}/lib", opt and f"{opt}/lib"),
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "HOME": "/tmp",  # noqa: S108 - the sandbox's own
        "LAMBDA_TASK_ROOT": task,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "AWS_REGION": config.region,
        "AWS_DEFAULT_REGION": config.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": config.name,
        "AWS_LAMBDA_FUNCTION_VERSION": config.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_size),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": config.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "_HANDLER": config.handler,
        **config.environment,
        **_modules(config, opt, packages, contained),
        **config.secrets,
        **{name: f"{SECRETS_FOLDER}/{name}" for name in config.secret_files},
    }


def _modules(config: FunctionConfig, opt: str, packages: str, contained: bool) -> Mapping[str, str]:
    """Where an interpreter looks for modules after the code; what the function adds of its own comes first. Node.js
    knows its places by itself, where they are those of the sandbox."""
    places: tuple[str, ...] = ()
    name = "PYTHONPATH" if config.family == "python" else "NODE_PATH"
    if config.family == "python":
        version = config.runtime if config.runtime != "python" else f"python3.{sys.version_info.minor}"
        places = (opt and f"{opt}/python/lib/{version}/site-packages", opt and f"{opt}/python", packages)
    elif config.family == "nodejs" and not contained:
        places = (opt and f"{opt}/nodejs/node_modules", packages)
    found = _joined(config.environment.get(name, ""), *places)
    return {name: found} if found else {}


def _joined(*places: str) -> str:
    return ":".join(place for place in places if place)
