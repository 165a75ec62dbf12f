"""Where packages come from: the indexes of this node, and what a build may reach of the network to get to them.

What the node's settings name; else what pip and npm are configured to for the node's user; else their own default.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from owsgit.runtime.config import Network

ASK_SECONDS_MAX = 30
_ASK_PIP = """
import json
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
configuration = Configuration(isolated=False)
configuration.load()
found = {}
for name, value in configuration.items():
    found.update(value) if isinstance(value, dict) else found.update({name: value})
order = (":env:.index-url", "install.index-url", "global.index-url")
print(json.dumps([next((found[name] for name in order if name in found), ""), PyPI.netloc, PyPI.file_storage_domain]))
"""


@dataclass(frozen=True)
class Index:
    """An index: its address, '' for the installer's own, and the network that a build needs to reach it."""

    url: str
    network: Network

    @classmethod
    def at(cls, url: str) -> "Index":
        """One that the node's operator chose; it may be on this very machine."""
        return cls(url, Network(allowed=(_place(url),), loopback=True))

    @property
    def is_plain(self) -> bool:
        return self.url.startswith("http:")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class Indexes:
    """The indexes of a node; `chosen` are those of its settings, by 'python' and 'npm'."""

    chosen: Mapping[str, str]

    def python(self) -> Index:
        if url := self.chosen.get("python"):
            return Index.at(url)
        url, *hosts = _asked_pip()
        return Index.at(url) if url else Index("", Network(allowed=tuple(f"{host}:443" for host in hosts if host)))

    def npm(self) -> Index:
        url = self.chosen.get("npm") or _asked_npm()
        return Index.at(url) if url else Index("", Network())


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


@lru_cache(maxsize=1)
def _asked_pip() -> tuple[str, ...]:
    found = _ask([sys.executable, "-I", "-c", _ASK_PIP])
    url, *hosts = json.loads(found) if found else [""]
    return (url if urlsplit(url).scheme in ("http", "https") else "", *hosts)


@lru_cache(maxsize=1)
def _asked_npm() -> str:
    program = shutil.which("npm")
    url = _ask([program, "config", "get", "registry"]) if program else ""
    return url if urlsplit(url).scheme in ("http", "https") else ""


def _ask(command: list[str]) -> str:
    """What a program says, '' if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=ASK_SECONDS_MAX,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
