"""Files that a function names by address and digest, and that the node fetches: what is too large for the ledger.

Where an address leads is hostile: it may be the node's own network. What comes is believed only by its digest.
"""

import contextlib
import hashlib
import http.client
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from owsgit.model import addresses
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.runtime.archives import UNPACKED_BYTES_MAX
from owsgit.runtime.code import sync

REDIRECTS_MAX = 5
READ_SECONDS_MAX = 30.0
"""Without a byte."""

FETCH_SECONDS_MAX = 110.0
"""Of one asset, whatever trickles in; less than the reconciler's patience."""

SPARE_MAX = 10
"""Assets that are kept; code folders have copies of them."""

_PIECE_BYTES = 1 << 18
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Asset:
    """A file by its address, and the sha256 of its content (64 hex digits)."""

    url: str
    sha256: str


@dataclass(frozen=True)
class AssetStore:
    """Fetched assets, by digest. `private`: addresses of private networks and of this machine are let through."""

    folder: Path
    private: bool = False

    def fetch(self, asset: Asset) -> Path:
        """The file; fetched if it is not there or was changed. Raises UnavailableError, InvalidError."""
        path = self.folder / asset.sha256
        if path.is_file() and _digest(path) == asset.sha256:
            os.utime(path)
            return path
        scratch = self.folder / f".{asset.sha256}.{os.getpid()}.{time.monotonic_ns()}.new"
        try:
            found = self._download(asset.url, scratch)
            if found != asset.sha256:
                raise InvalidError(
                    f"what {asset.url} has is another file: its sha256 is {found}",
                    remedy="find out why it is another one before you write its digest down",
                )
            scratch.chmod(0o444)
            sync(scratch)
            scratch.replace(path)
            sync(self.folder)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError(f"{asset.url} cannot be fetched: {error}", remedy="is it up?") from None
        finally:
            scratch.unlink(missing_ok=True)
        return path

    def _download(self, url: str, scratch: Path) -> str:
        """Fetch into `scratch`; the sha256 of what came."""
        deadline = time.monotonic() + FETCH_SECONDS_MAX
        for _ in range(REDIRECTS_MAX + 1):
            connection = _connect(url, self.private)
            with contextlib.closing(connection):
                parts = urlsplit(url)
                connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
                response = connection.getresponse()
                if response.status in _REDIRECTS:
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status != http.client.OK:
                    raise ValueError(f"the answer is {response.status} {response.reason}")
                return _save(response, scratch, deadline)
        raise ValueError(f"more than {REDIRECTS_MAX} redirects")

    def sweep(self) -> None:
        """Remove what a killed node left half fetched, and the oldest assets beyond SPARE_MAX."""
        for path in self.folder.glob(".*.new"):
            if f".{os.getpid()}." not in path.name:
                path.unlink(missing_ok=True)
        spare = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        for path in sorted(spare, key=lambda each: each.stat().st_mtime, reverse=True)[SPARE_MAX:]:
            path.unlink(missing_ok=True)


class ForbiddenError(OwsgitError):
    """An address that a node does not fetch from."""


def _connect(url: str, private: bool) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ForbiddenError(f"{url} is not an address of HTTP", remedy="assets are at https://...")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = kind(parts.hostname, port, timeout=READ_SECONDS_MAX)

    def create(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        return _open(address, private)

    connection._create_connection = create  # type: ignore[attr-defined]
    return connection


def _open(address: tuple[str, int], private: bool) -> socket.socket:
    """Connected to the very address that was looked at: a name may mean another one a moment later."""
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        if reason := _forbidden(str(place[0]), private):
            raise ForbiddenError(
                f"{address[0]} is at {place[0]}, {reason}",
                remedy="assets come from the internet; from a private network if node.json says privateAssets",
            )
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(READ_SECONDS_MAX)
            made.connect(place)
            return made
        except OSError as error:
            made.close()
            problem = error
    raise problem


def _forbidden(address: str, private: bool) -> str:
    """Why nothing is fetched from an address; '' if it may be."""
    found = addresses.parsed(address)
    if addresses.is_metadata(found) or found.is_unspecified:
        return "where a provider's metadata may be"
    return "" if private or found.is_global else "which is not of the internet"


def _save(response: http.client.HTTPResponse, scratch: Path, deadline: float) -> str:
    digest, size = hashlib.sha256(), 0
    with scratch.open("xb") as file:
        while piece := response.read1(_PIECE_BYTES):
            size += len(piece)
            if size > UNPACKED_BYTES_MAX:
                raise ValueError(f"it has more than {UNPACKED_BYTES_MAX // 1024**2} MiB")
            if time.monotonic() > deadline:
                raise ValueError(f"it is not there after {FETCH_SECONDS_MAX:.0f} s")
            digest.update(piece)
            file.write(piece)
    if response.length:
        raise ValueError("it ended too early")
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
