"""What a worker has to know of its function."""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from owsgit.model.errors import OwsgitError
from owsgit.runtime.debugger import Debugging

INNER_ADDRESS = "127.2.0.1"
"""In a worker's own network: where the node serves what it gives to functions. No host of `allowed` is there."""


class Closing(Protocol):
    """What serves until it is closed."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Inner:
    """What the node gives to a worker at a port of `address`: either it passes on what comes there to an address of
    this machine, or it serves there itself, in the event loop. `to` raises OSError where there is no such address."""

    port: int
    to: Callable[[], tuple[str, int]] | None = None
    serve: Callable[[socket.socket], Closing] | None = None
    address: str = INNER_ADDRESS


@dataclass(frozen=True)
class Network:
    """What a worker can reach: nothing, the internet, or the hosts of `allowed` ('host:port')."""

    internet: bool = False
    allowed: tuple[str, ...] = ()
    loopback: bool = False
    """Whether an allowed host may be this machine itself: only where the node's operator named it."""

    inner: tuple[Inner, ...] = ()

    own: Callable[[str, int], tuple[str, int] | None] = lambda host, port: None
    """Where this machine itself answers for an allowed host in public: for when the host is not reached from here."""


NO_NETWORK = Network()


@dataclass(frozen=True)
class ImageConfig:
    """The image of a container function; `port` None for an image that speaks the Lambda Runtime API."""

    uri: str
    pull_policy: str = "IfNotPresent"
    port: int | None = None
    path: str = "/"
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_directory: str | None = None


@dataclass(frozen=True)
class FunctionConfig:
    """All that a worker has to know of its function. Sizes in MiB, times in seconds."""

    name: str
    arn: str
    runtime: str
    handler: str
    code: Path
    timeout: float
    memory_size: int
    environment: dict[str, str]
    region: str
    version: str
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """Environment variables that are in no log: what is written of them is masked."""

    secret_files: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Files by the name of the variable that carries their path."""

    tmp_size: int = 512
    """MiB of /tmp."""

    network: Network = NO_NETWORK
    image: ImageConfig | None = None
    opt: Path | None = None
    """The folder that is /opt: the function's layers, one over the other."""

    fuel: int | None = None
    """Units of fuel that one request may use, of a WebAssembly function; None is not counted."""

    packages: Path | None = None
    """The folder of the packages that the function's requirements.txt or package.json ask for."""

    debugging: Debugging | None = None
    """Only where `owsgit dev` runs it."""

    def task(self, contained: bool) -> str:
        """The path of the code, as it sees it."""
        if self.debugging is not None:
            return str(self.debugging.source)
        return "/var/task" if contained else str(self.code)

    @property
    def family(self) -> str:
        """python, nodejs, provided, container or wasm."""
        return re.split(r"[0-9.]", self.runtime)[0]

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.name}"


_EXECUTABLE = "make it executable, in git too: git update-index --chmod=+x"
_PACKAGE = re.compile(
    r"Cannot find (?:module|package) '((?:@[^'/]+/)?[^'/.@][^'/]*)[^']*'"
    r"(?:\nRequire stack:\n- (?!\S*/node_worker\.cjs)| imported from)"
)
_MODULE = re.compile(r"Unable to import module '(?P<own>[^']+)': No module named '(?!(?P=own)')([^']+)'")
"""What code imports that is not there. A handler's own file is told in other words."""


def _remedy(text: str) -> str:
    if "bootstrap: permission denied" in text:
        return _EXECUTABLE
    if found := _PACKAGE.search(text):
        return f"name {found[1]} in a package.json beside the code, or correct the import"
    if found := _MODULE.search(text):
        return f"name the package of {found[2]} in a requirements.txt beside the code, or correct the import"
    return "correct the code"


class InitError(OwsgitError):
    """The function's code could not be loaded; `report` is Lambda's error object."""

    def __init__(self, report: dict[str, object]) -> None:
        text = f"{report['errorType']}: {report['errorMessage']}"
        super().__init__(text, remedy=_remedy(text))
        self.report = report
