"""The environment variables of a worker, as Lambda sets them.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

from owsgit.runtime.config import FunctionConfig

SECRETS_FOLDER = "/run/secrets"


def of(config: FunctionConfig, log_stream: str, task: str = "/var/task") -> dict[str, str]:
    """All variables of a worker of `config` whose code lies at `task`."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
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
        **config.secrets,
        **{name: f"{SECRETS_FOLDER}/{name}" for name in config.secret_files},
    }
