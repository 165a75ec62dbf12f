"""What is built for a function: from which of its files, by which command. Each family of runtimes has its own."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from owsgit.model.errors import InvalidError
from owsgit.runtime.config import NO_NETWORK, Network

FORMAT = 1
"""Part of every key: to be raised when the same files are built in another way."""

SOURCE_BYTES_MAX = 1024 * 1024
"""Of a requirements.txt or package.json that is read here; a lock is not."""


@dataclass(frozen=True)
class Places:
    """Where things are for the build: `work` holds source/, out/ and tmp/; `tools` is the installer's folder."""

    work: str
    tools: str

    @property
    def source(self) -> str:
        return f"{self.work}/source"

    @property
    def out(self) -> str:
        return f"{self.work}/out"

    @property
    def tmp(self) -> str:
        return f"{self.work}/tmp"  # noqa: S108 - the build's own


@dataclass(frozen=True)
class Failure:
    """What went wrong with a build, in words, and what to do about it."""

    message: str
    remedy: str


@dataclass(frozen=True)
class Recipe:
    """How the packages of one function are built. `explain` makes sense of what the installer said."""

    file: str
    count: int
    sources: tuple[str, ...]
    """Files of the code that the build gets, and nothing else of it."""

    identity: tuple[str, ...]
    """What else decides the result: interpreter, platform, installer."""

    command: Callable[[Places], list[str]]
    environment: Callable[[Places], Mapping[str, str]]
    explain: Callable[[str], Failure | None]
    result: str = "out"
    """Where the packages are in the end, below the work folder."""

    settle: Callable[[Path], None] = lambda work: None
    """What is still to be done in the work folder when the installer has ended."""

    tools: Path | None = None
    read_only: Mapping[str, Path] = field(default_factory=dict)
    network: Network = NO_NETWORK

    def key(self, code: Path) -> str:
        """Names all that the result is made from."""
        files = [(path, _digest(code / path)) for path in self.sources]
        text = json.dumps([FORMAT, self.file, self.identity, files])
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    @property
    def what(self) -> str:
        return f"{self.count} package{'' if self.count == 1 else 's'} of {self.file}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explain(causes: Iterable[tuple[str, str, str]], output: str) -> Failure | None:
    """The first of `causes` (a pattern, a message with its groups, a remedy) that the output speaks of."""
    for pattern, message, remedy in causes:
        if match := re.search(pattern, output):
            return Failure(message.format(**match.groupdict()), remedy)
    return None


def read(code: Path, path: str) -> str:
    """A text file of the code. Raises InvalidError."""
    try:
        if (code / path).stat().st_size > SOURCE_BYTES_MAX:
            raise InvalidError(f"more than {SOURCE_BYTES_MAX:,} bytes", file=path)
        return (code / path).read_bytes().decode()
    except UnicodeDecodeError:
        raise InvalidError("this is not UTF-8 text", file=path) from None


def within(code: Path, path: str) -> list[str]:
    """The regular files of the code at or below `path`, if it is a place in the code."""
    root = code.resolve()
    found = (root / path).resolve()
    if not found.is_relative_to(root):
        return []
    files = [found] if found.is_file() else sorted(found.rglob("*")) if found != root else []
    return [str(each.relative_to(root)) for each in files if each.is_file() and not each.is_symlink()]
