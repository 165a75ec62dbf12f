"""A worker's container as the engine is told to create it: its limits, what it may do, and the files it finds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owsgit.runtime import environment
from owsgit.runtime.bubblewrap import GID, UID
from owsgit.runtime.cgroup import CPU_SHARES_PER_GIB
from owsgit.runtime.config import FunctionConfig, ImageConfig
from owsgit.runtime.worker import MEBIBYTE, PROCESSES_MAX

FILES_MAX = 1024
"""Lambda's limit for open files."""

TMP = "/tmp"  # noqa: S108 - the container's own
OMITTED = ("PATH", "LANG", "TZ", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "AWS_EXECUTION_ENV", "_HANDLER")
"""Variables that an image brings itself."""


def options(
    config: FunctionConfig, image: ImageConfig, volumes: tuple[str, ...], variables: Mapping[str, str]
) -> dict[str, Any]:
    """What docker's APIClient.create_container takes beside the image; joining a network is the caller's.

    `volumes` are those that the image declares. Secrets that are variables stand in the engine's own description of
    the container, for root alone to read, as long as the container is there; those that are files do not.
    """
    memory = config.memory_size * MEBIBYTE
    return {
        "command": list(image.command) or None,
        "entrypoint": list(image.entry_point) or None,
        "working_dir": image.working_directory,
        "environment": dict(variables),
        "user": f"{UID}:{GID}",
        "stop_signal": "SIGKILL",  # as an engine that stops ends it: functions are given no time to say farewell
        "healthcheck": {"Test": ["NONE"]},
        "labels": {"owsgit.function": config.name},
        "host_config": {
            "IpcMode": "private",
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": PROCESSES_MAX,
            "CpuShares": max(2, memory * CPU_SHARES_PER_GIB >> 30),
            "Ulimits": [
                {"Name": "nofile", "Soft": FILES_MAX, "Hard": FILES_MAX},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Mounts": [_tmpfs(path, config.tmp_size * MEBIBYTE) for path in volumes],  # else on the engine's disk
            "Tmpfs": {} if TMP in volumes else {TMP: f"rw,exec,nosuid,nodev,mode=1777,size={config.tmp_size}m"},
            "LogConfig": {"Type": "none", "Config": {}},  # the node reads it; the engine's disk is not filled
        },
    }


def _tmpfs(path: str, size_bytes: int) -> dict[str, Any]:
    return {"Type": "tmpfs", "Target": path, "TmpfsOptions": {"SizeBytes": size_bytes, "Mode": 0o1777}}


def variables(config: FunctionConfig, log_stream: str) -> dict[str, str]:
    """The environment of a worker, without what is the image's to say."""
    return {name: value for name, value in environment.of(config, log_stream).items() if name not in OMITTED}


def mounts(folder: Path, config: FunctionConfig, etc: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Write the files that are one worker's alone, those of /etc and its secrets, into a new `folder`; their mounts."""
    found = {f"/etc/{name}": folder / name for name in etc}
    contents = {folder / name: content for name, content in etc.items()}
    if config.secret_files:
        found[environment.SECRETS_FOLDER] = secrets = folder / "secrets"
        contents |= {secrets / name: content for name, content in config.secret_files.items()}
    for file, content in contents.items():
        file.parent.mkdir(mode=0o755, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o444)
    return [
        {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True} for target, source in found.items()
    ]
