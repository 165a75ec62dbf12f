"""The AWS SDK that the managed Python runtime has without being asked, as Lambda's has: boto3 and what it needs."""

import itertools
import re
from functools import lru_cache
from importlib import metadata
from pathlib import Path

ROOT = "boto3"
IMPORTED = ("boto3", "boto3.session", "botocore.client", "botocore.httpsession", "botocore.parsers", "botocore.waiter")
"""What is imported before a worker starts."""

FILES_LOOKED_AT_MAX = 1000
FILE_BYTES_MAX = 1024 * 1024
"""Of a function's own code: to look at more would take longer than it saves."""

_MENTIONED = re.compile(rb"\b(boto3|botocore)\b")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@lru_cache(maxsize=1)
def entries() -> dict[str, Path]:
    """The files and folders of the SDK, by the name below site-packages; empty if it is not installed."""
    found: dict[str, Path] = {}
    wanted, seen = [ROOT], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in (".", "..", "__pycache__"):
                found[top] = Path(str(distribution.locate_file(top)))
        for requirement in distribution.requires or ():
            match = _NAME.match(requirement)
            if match and "extra ==" not in requirement:
                wanted.append(match.group())
    return {name: path for name, path in sorted(found.items()) if path.exists()}


def modules() -> list[str]:
    """The names of its top-level modules."""
    names = (name.removesuffix(".py") for name in entries())
    return [name for name in names if name.isidentifier()]


@lru_cache(maxsize=1024)
def is_used(code: Path) -> bool:
    """Whether a function's code, which never changes in its folder, speaks of the SDK."""
    files = itertools.islice(code.rglob("*.py"), FILES_LOOKED_AT_MAX)
    return any(
        file.stat().st_size <= FILE_BYTES_MAX and _MENTIONED.search(file.read_bytes())
        for file in files
        if file.is_file()
    )
