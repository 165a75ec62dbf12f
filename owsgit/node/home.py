"""A node's home: one folder with all that is the node's own, so that it can be moved, backed up and looked at.

node.json   the node's settings (not configuration of the project: that is the ledger)
key         its Ed25519 private key, the SSH host key
ledger.git  the bare repository
verified    the last head that this node verified
node.db     what it has applied
reviews.db  the approvals on which its heads rest, and what else was said of commits
events.db   asynchronous invocations that wait, and those that failed
usage.db    what API keys have used of their quotas
votes.db    what it has promised, voted for, and seen decided: never restore it from an older copy by hand
acme/       accounts at authorities, and the certificates that they gave
code/ logs/ data/
"""

import contextlib
import fcntl
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AfterValidator, Field, StringConstraints

from owsgit.model import keys
from owsgit.model.core import Address, NodeSpec, Port, PublicKey
from owsgit.model.errors import OwsgitError, UnavailableError
from owsgit.model.spec import Document, Name, Spec

DISK_BYTES_MIN = 64 << 20
"""With less on its disk, a node says that it is full: git, SQLite and the log each want some at once."""

SandboxName = Literal["bubblewrap", "none"]


def address_of(text: str) -> tuple[str, int]:
    """The IP address and the port of '127.0.0.1:9100' or '[::1]:9100'. Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    ipaddress.ip_address(host)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(port)
    return host, int(port)


def _listens(text: str) -> str:
    try:
        address_of(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address and a port, such as 127.0.0.1:9100") from None
    return text


def _index(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an index is an address such as https://packages.example.com/simple")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an index whose address holds a password would tell it to every package that is built")
    return url


IndexUrl = Annotated[str, AfterValidator(_index)]


PROCESSES_MAX = 16
"""Further processes of a node, at most."""

AUDIT_FOLDER = "logs/aws/audit"
"""Where the audit log lies, below the home."""


class PackageIndexes(Document):
    """Where the packages of functions come from."""

    python: IndexUrl | None = Field(None, description="For pip, as its --index-url; by default what pip is set to.")
    npm: IndexUrl | None = Field(None, description="For npm, as its registry; by default what npm is set to.")


FilePath = Annotated[str, StringConstraints(pattern=r"^/", max_length=1024)]


class AwsTlsSettings(Document):
    """The certificate of the port for AWS's SDKs; its files are read again when they change."""

    chain: FilePath = Field(description="PEM of the certificate and those between it and its authority.")
    key: FilePath = Field(description="PEM of its private key, without a password.")
    authority: FilePath | None = Field(
        None, description="PEM of an authority of one's own, for `owsgit node show`: clients get it by the ledger."
    )
    host: Address | None = Field(None, description="The name that it is for, if that is not the node's address.")


def _collector(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("a collector is an address such as http://127.0.0.1:4318")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a collector's address holds no password: put it into headers")
    return url


class TracingSettings(Document):
    """Where traces of requests go, by OpenTelemetry."""

    otlp: Annotated[str, AfterValidator(_collector)] = Field(
        description="Address of a collector that takes OTLP over HTTP: 'http://127.0.0.1:4318'; /v1/traces is added."
    )
    sample_ratio: float = Field(0.1, ge=0, le=1, description="The share of requests that is traced.")
    headers: dict[str, str] = Field(
        default_factory=dict, max_length=20, description="Headers for the collector, such as its token."
    )


class NodeSettings(Spec):
    """`node.json`: what only this machine knows."""

    name: Name = Field(description="The node's name, as in nodes/<name>.json.")
    address: Address = Field(description="Where users and other nodes reach it.")
    listen: str = Field(description="Address that it listens on, for SSH and for gateways.")
    ssh_port: Port = Field(description="Port that it serves SSH on.")
    aws_port: Port | None = Field(None, description="Port on which it answers AWS's SDKs; absent: it does not.")
    aws_tls: AwsTlsSettings | None = Field(
        None,
        description="Have it answer them over HTTPS: {'chain': '/etc/owsgit/certificates/aws.pem', 'key': "
        "'/etc/owsgit/certificates/aws.key'}. Absent: over HTTP, which is for loopback and private networks.",
    )
    aws_processes: int | None = Field(
        None,
        ge=0,
        le=PROCESSES_MAX,
        description="Further processes that answer them while there is much to answer; absent: one less than there "
        "are processors for the node.",
    )
    memory: int | None = Field(
        None,
        ge=128,
        description="MiB for all workers of functions together; absent: three quarters of the machine's.",
    )
    sandbox: SandboxName = Field("bubblewrap", description="How functions are contained; 'none' is not at all.")
    metrics: Annotated[str, AfterValidator(_listens)] | None = Field(
        None,
        description="Address and port on which it serves its metrics to whoever asks, at /metrics for Prometheus: "
        "'127.0.0.1:9100'. Nowhere by default.",
    )
    certificate_folders: list[FilePath] = Field(
        default_factory=lambda: ["/etc/letsencrypt", "/etc/owsgit/certificates"],
        max_length=100,
        description="Folders from which gateways may take certificates and their keys (files of tls).",
    )
    tracing: TracingSettings | None = Field(
        None,
        description="Have requests to gateways traced by OpenTelemetry: {'otlp': 'http://127.0.0.1:4318'}; needs "
        "pip install 'owsgit[otel]'. Not by default.",
    )
    package_indexes: PackageIndexes = Field(
        default_factory=PackageIndexes,
        description="Where the packages of functions come from: a build can reach that host and nothing else.",
    )
    private_assets: bool = Field(
        False, description="Whether assets of functions may come from private networks and from this machine itself."
    )
    owners: list[PublicKey] = Field(description="SSH keys that may bring the genesis commit to an empty node.")


class Home:
    """The folder, and the paths in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.key = self.folder / "key"
        self.settings_file = self.folder / "node.json"
        self.ledger = self.folder / "ledger.git"
        self.verified = self.folder / "verified"
        self.database = self.folder / "node.db"
        self.votes = self.folder / "votes.db"
        self.reviews = self.folder / "reviews.db"
        self.hook_socket = self.folder / "hook.sock"

    def lack(self) -> str:
        """What the node has not of its disk, '' if nothing. In one wording, as each change of it is noted by others."""
        try:
            found = os.statvfs(self.folder)
        except OSError as error:
            return f"its home cannot be read: {error.strerror}"
        if found.f_flag & os.ST_RDONLY:
            return "its home is read-only: mount it for writing"
        if found.f_bavail * found.f_frsize >= DISK_BYTES_MIN:
            return ""
        return f"its disk is full, less than {DISK_BYTES_MIN >> 20} MiB are free: make room, it goes on by itself then"

    @classmethod
    def create(cls, folder: Path, settings: NodeSettings) -> "Home":
        """Make the home of a new node, with a new key. Raises OwsgitError if there is one already."""
        home = cls(folder)
        if home.settings_file.exists():
            raise OwsgitError(
                f"{home.folder} is the home of a node already",
                remedy="choose another with --home, or start the node that is there: owsgit node run --home "
                + str(home.folder),
            )
        home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.make(settings, None)
        return home

    def make(self, settings: NodeSettings, key: bytes | None) -> None:
        """Write the settings and the key, a new one if there is none yet."""
        _write(
            self.key,
            key
            or Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            ),
        )
        text = settings.model_dump_json(by_alias=True, indent=2, exclude_none=True)
        _write(self.settings_file, text.encode() + b"\n")

    def settings(self) -> NodeSettings:
        """Raises UnavailableError where there is no node, InvalidError where node.json is damaged."""
        try:
            data = self.settings_file.read_bytes()
        except FileNotFoundError:
            raise UnavailableError(
                f"{self.folder} is not the home of a node",
                remedy=f"name it by --home; or make one there: owsgit node init NAME --home {self.folder}",
            ) from None
        return NodeSettings.parse(data, str(self.settings_file))

    def private_key(self) -> Ed25519PrivateKey:
        """The node's key. Raises UnavailableError."""
        try:
            private = serialization.load_ssh_private_key(self.key.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the node's key cannot be read: {error}", file=str(self.key)) from None
        if not isinstance(private, Ed25519PrivateKey):
            raise UnavailableError("the node's key is not an Ed25519 key", file=str(self.key))
        return private

    def public_key(self) -> keys.SshKey:
        """The node's public key."""
        private = self.private_key()
        line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return keys.parse_ssh(line.decode())

    def node_spec(self) -> NodeSpec:
        """What to commit as nodes/<name>.json."""
        settings, tls = self.settings(), self._aws_tls()
        return NodeSpec.model_validate(
            {
                "key": self.public_key().line,
                "address": settings.address,
                "ports": {"ssh": settings.ssh_port, **({"aws": settings.aws_port} if settings.aws_port else {})},
                **({"awsTls": tls} if tls is not None else {}),
            }
        )

    def _aws_tls(self) -> dict[str, str] | None:
        """What clients have to know. Raises UnavailableError."""
        tls = self.settings().aws_tls
        if tls is None:
            return None
        told = {"host": tls.host} if tls.host is not None else {}
        if tls.authority is not None:
            try:
                told["authorities"] = Path(tls.authority).read_text("ascii")
            except (OSError, ValueError) as error:
                raise UnavailableError(
                    f"{tls.authority} cannot be read: {error}", file=str(self.settings_file), path="$.awsTls.authority"
                ) from None
        return told

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process may run a node. The lock ends with the process, however it ends."""
        try:
            opened = (self.folder / "lock").open("w")
        except OSError as error:
            raise UnavailableError(
                f"the home {self.folder} cannot be written: {error.strerror}",
                remedy="give the node's user the right to write it, mount it for writing, or name another with --home",
            ) from None
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnavailableError(
                    f"a node is running in {self.folder} already", remedy="stop it first, or use another home"
                ) from None
            yield


def _write(path: Path, data: bytes) -> None:
    """Write a private file whole, or not at all."""
    scratch = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        scratch.unlink()
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
