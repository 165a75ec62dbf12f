"""The contract of a service: what the reconciler, the gateway and the node know of it.

A service is one folder in `owsgit/services`: its kind (spec, ARN, actions), its handler and its data plane. The core
owns this contract; services import the core, never each other.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from owsgit.model.engines import Engines
from owsgit.model.errors import OwsgitError, Problem, UnavailableError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Decision, ResourcePolicy, Session
from owsgit.model.names import Scope
from owsgit.model.resource import Kind, Resource

if TYPE_CHECKING:  # the hook reads this file, and counts nothing
    from prometheus_client import CollectorRegistry

    from owsgit.model.state import State


@dataclass(frozen=True)
class CodeFile:
    """A file beside a resource: its path below the resource's folder."""

    path: str
    executable: bool
    content: bytes


@dataclass(frozen=True)
class Applied:
    """What became of a resource: `message` for people, `urls` where it serves, `details` for machines."""

    message: str = ""
    urls: tuple[str, ...] = ()


class Handler(Protocol):
    """Makes the resources of one kind real on this node. Every method is idempotent: a repeated call changes nothing.

    Errors that the user can act on are raised as OwsgitError; they become the resource's status.
    """

    async def apply(self, resource: Resource, commit: str) -> Applied:
        """Make the resource real, or bring it up to date; return when it serves."""
        ...

    async def delete(self, name: str) -> None:
        """Remove what `apply` made. Data that users would miss is never removed by this."""
        ...

    async def observe(self, resource: Resource) -> str | None:
        """What differs from what was applied (drift), in words; None if all is as it should be."""
        ...

    def details(self, name: str) -> Mapping[str, Any]:
        """Live facts for status, such as running workers."""
        ...

    async def close(self) -> None:
        """Stop serving, as the node stops."""
        ...


class Keeper(Protocol):
    """A handler whose resources hold what users would miss. `delete` keeps that; better is to refuse before."""

    async def keeps(self, resource: Resource) -> Problem | None:
        """Why a resource should not be deleted now, and what to do first; None if it may, or nobody can tell."""
        ...


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A record of a Source: `number` rises from record to record, `at` is when it came, in seconds since 1970.

    `identifier` is what a function calls it by (itemIdentifier); `payload` is what the function gets of it, a JSON
    object.
    """

    number: int
    at: float
    identifier: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SourcePage:
    """Some records of a Source. `last` is the number of the last one that was looked at for them."""

    records: Sequence[SourceRecord]
    last: int


class Source(Protocol):
    """Resources of one kind that functions can be fed from: each is a row of records that stay where they are for a
    while, so that whoever reads them remembers how far. A table's stream is one; so is a queue, whose messages are
    numbered as they come, for a reader that takes them in order.

    All methods raise UnavailableError if it is not there, or cannot be read now.
    """

    retention_seconds: float
    """For how long records stay."""

    def home(self, name: str) -> str | None:
        """The node that has the records; None for this one. The others cannot read them."""
        ...

    def arn(self, name: str) -> str:
        """What is read, as EventSourceArn tells it."""
        ...

    def horizon(self, name: str) -> int:
        """The number after which its records begin: those before it are of something else, or were never there."""
        ...

    async def newest(self, name: str) -> int:
        """The number of the last record; 0 if there was none yet."""
        ...

    async def read(
        self, name: str, after: int, most: int, bytes_max: int, wanted: Callable[[bytes], bool]
    ) -> SourcePage:
        """Of the first `most` records with higher numbers than `after` those with a `wanted` key.

        If the `most` would have more bytes than `bytes_max`, fewer are looked at, but one at least; where there are no
        more yet, the last one is `after`. Records with the same key are to be handed on in their order.
        """
        ...

    def batch(self, name: str, records: Sequence[SourceRecord]) -> Mapping[str, Any]:
        """What a failure's destination is told of these records: members of its record, as Lambda names them."""
        ...


Sink = Callable[[bytes], Awaitable[None]]
"""Takes the next piece of a streamed response; returns when there is room for more."""


@dataclass(slots=True)
class Invocation:
    """One call of something that can be called. `payload` is JSON text.

    With a `sink`, a function that streams its response has it called with each piece as it comes; the Answer's payload
    is then what was not streamed. Without one, the pieces are put together. `announce` is told the content type of a
    stream, before its first piece, if the function says one. `wants_log`: the Answer has the end of its log, as with
    Lambda's LogType Tail.
    """

    payload: bytes
    request_id: str
    trace_id: str = ""
    client_context: bytes = b""
    sink: Sink | None = None
    announce: Callable[[str], None] | None = None
    wants_log: bool = False


@dataclass(slots=True)
class Answer:
    """The result of an Invocation: the payload, or Lambda's error object with `error` set to the kind of error."""

    payload: bytes
    error: str | None = None  # None, "Handled" or "Unhandled", as Lambda's X-Amz-Function-Error
    log_tail: bytes = b""


def answered(payload: bytes) -> Any:
    """What a payload says: JSON; as text if it is not, which custom runtimes and streamed responses may give."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace")


class Target(Protocol):
    """A handler whose resources can be called, by name, by gateways and users."""

    async def invoke(self, name: str, invocation: Invocation) -> Answer: ...

    async def enqueue(self, name: str, invocation: Invocation, *, idempotency_key: str = "", delay: float = 0.0) -> str:
        """Accept an asynchronous invocation, to be made in `delay` seconds: it survives a crash from now on.

        Returns the request id under which it is made: an earlier one's, if it came with the same key before. Raises
        InvalidError for what cannot be taken, UnavailableError if it cannot be written, OwsgitError for a throttle.
        """
        ...

    def events(self, name: str) -> Mapping[str, Any]:
        """The asynchronous invocations of a resource that wait, run, or were given up (dead letters)."""
        ...

    async def redrive(self, name: str, request_ids: Collection[str]) -> list[str]:
        """Have dead letters tried again, all of them if none is named; their request ids."""
        ...

    async def drop(self, name: str, request_ids: Collection[str]) -> list[str]:
        """Forget dead letters, all of them if none is named; their request ids."""
        ...

    def logs(self, name: str) -> Path:
        """The folder of the log files of the resource `name`."""
        ...


@dataclass(frozen=True)
class SecretValue:
    """What a secret is at one version. Its repr does not say it."""

    version: int
    content: bytes = field(repr=False)
    binary: bool = False


@dataclass(frozen=True)
class Credential:
    """What temporary credentials stand for: who signs with them. The repr does not tell the secret."""

    access_key: str
    secret: str = field(repr=False)
    who: str | Session  # a user, or a session of a role
    arn: str
    user_id: str
    issued: int  # seconds since 1970
    expires: int = 0
    user: str = ""  # who logged in for them, and the fingerprint of that key
    key: str = ""
    function: str = ""  # that they rest on if nobody logged in, the commit of its version, and its own role
    commit: str = ""
    function_role: str = ""


class CredentialError(OwsgitError):
    """Credentials that are not (or no longer) good."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


@dataclass(frozen=True)
class LaidOut:
    """The files of a resource as they lie on this node; `key` names their content."""

    key: str
    folder: Path


@dataclass(frozen=True)
class Told:
    """What one node says to another for a service. Its repr does not say the body, which may be a key."""

    fields: Mapping[str, Any]
    body: bytes = field(default=b"", repr=False)


class Neighbours(Protocol):
    """The other nodes of the ledger, over the connections that they have: proven on both sides, and encrypted."""

    @property
    def own(self) -> str:
        """This node's name."""
        ...

    def others(self) -> list[str]:
        """The names of the other nodes, reachable or not."""
        ...

    async def ask(self, node: str, topic: str, told: Told) -> Told:
        """What `node` answers. Raises OwsgitError if it does not, or not in time."""
        ...

    async def await_back(self, node: str) -> None:
        """Wait some seconds for a node that was there a moment ago, as one that is restarted was."""
        ...

    def answer(self, topic: str, answer: Callable[[str, Told], Awaitable[Told]]) -> None:
        """Have questions about `topic` answered: `answer` gets who asks, and may raise OwsgitError."""
        ...


class Alone:
    """For a node without others."""

    own = "local"

    def others(self) -> list[str]:
        return []

    async def ask(self, node: str, topic: str, told: Told) -> Told:
        raise UnavailableError(f"there is no node {node}")

    async def await_back(self, node: str) -> None:
        pass

    def answer(self, topic: str, answer: Callable[[str, Told], Awaitable[Told]]) -> None:
        pass


def no_history(kind: str, name: str, commit: str) -> Resource:
    """For a node without commits, as `owsgit up` is one."""
    raise UnavailableError("versions of other commits run on nodes alone", remedy="push it to a node")


def no_credentials(token: str) -> Credential:
    """For a node that nobody logs in to, as `owsgit dev` is one."""
    raise CredentialError("credentials are given by the nodes of a project alone")


def no_role_credentials(function: str, commit: str, role: str) -> Mapping[str, str]:
    """For a node that gives none, as `owsgit dev` is one."""
    raise UnavailableError("credentials of roles are given by the nodes of a project alone")


Decide = Callable[[str | Session | None, str, str, Context, ResourcePolicy | None], Decision]
"""Whether somebody (None: nobody that is known) may do an action on an ARN, given the policy of what it is done to."""


Document = Mapping[str, Any]


class NotAppliedError(UnavailableError):
    """What was edited is written, but was not made real, or not yet."""


class Edit(Protocol):
    """Changes the file of a resource, by kind and name: from what it says (None: it is not there) to what it is to say.

    `files` is a folder whose files are to lie beside it, instead of those that do; it is taken away.
    Returns when that is applied. Raises NotAppliedError if it was not, OwsgitError, and what the change raises; what
    is not valid is not written.
    """

    def __call__(
        self,
        kind: str,
        name: str,
        change: Callable[[Document | None], Document | None],
        files: Path | None = None,
        /,
    ) -> Awaitable[None]: ...


class Processes(Protocol):
    """Further processes of the node, which answer a part of its APIs (owsgit/aws/further.py)."""

    async def tell(self, service: str, facts: Mapping[str, bytes]) -> None:
        """Have all of them know facts of a service. None of them goes by older ones when this returns."""
        ...


class OneProcess:
    """For a node that has no further ones."""

    async def tell(self, service: str, facts: Mapping[str, bytes]) -> None:
        pass


HTTPS = 443


@dataclass(frozen=True)
class Site:
    """What a node gives to every handler: where it may keep things, how it reads the ledger, whom it may call."""

    home: Path
    listen: str  # the address on which gateways listen
    scope: Callable[[], Scope]
    read_files: Callable[[str], Iterable[CodeFile]]  # of a tree id
    targets: Mapping[str, Target]  # by kind name; filled by the node before anything is applied
    settings: Mapping[str, Any]
    unseal: Callable[[Resource], SecretValue]  # raises OwsgitError
    secrets: dict[str, SecretValue] = field(default_factory=dict)  # by name; kept by the secrets' handler
    registry: "CollectorRegistry | None" = None  # where metrics are registered that the node shows
    layers: dict[str, LaidOut] = field(default_factory=dict)  # by name; kept by the layers' handler
    shared: dict[str, Any] = field(default_factory=dict)  # by name; what handlers of one service have in common
    websites: dict[str, LaidOut] = field(default_factory=dict)  # by name; kept by the websites' handler
    hosts: dict[str, Mapping[str, tuple[str, int]]] = field(default_factory=dict)
    """By gateway, the names that it has TLS for, and where that is on this machine; kept by the gateways' handler."""

    sources: dict[str, Source] = field(default_factory=dict)  # by kind name; put there by the handlers that are ones
    resource_at: Callable[[str, str, str], Resource] = no_history
    """A resource, by kind and name, as it was at a commit of main. Raises InvalidError, UnavailableError."""

    decide: Decide = lambda who, action, arn, context, policy: Decision(False, "nobody decides here", explicit=False)
    """Decides by the state at the head."""

    credential: Callable[[str], Credential] = no_credentials
    """What a session token stands for now. Raises CredentialError."""

    door: Callable[[], tuple[str, int] | None] = lambda: None
    """Host and port of the front door on this machine, without TLS; None where there is none."""

    role_credentials: Callable[[str, str, str], Mapping[str, str]] = no_role_credentials
    """Credentials for a function, by name and commit ("" at the head), of its role: as the SDKs' container provider
    takes them. Raises OwsgitError."""

    edit: Edit | None = None
    """None where commits alone change what there is; `owsgit up` has a working tree to write."""

    engines: Callable[[], Engines] = lambda: Engines.model_validate({})
    """What keeps data, as the project says now."""

    head: "Callable[[], State | None]" = lambda: None
    """What the ledger says at the head; None where that is not heeded, as by `owsgit up`, which keeps its own data."""

    neighbours: Neighbours = field(default_factory=Alone)
    processes: Processes = field(default_factory=OneProcess)
    report: Callable[[str, str], None] = lambda key, text: None
    """Tells whoever waits how it goes with a resource (by key) that takes long to apply."""

    def own_host(self, host: str, port: int) -> tuple[str, int] | None:
        """Where a gateway of this node has TLS for a host. 443 may be another port here, as behind a load balancer."""
        names = (host, f"*.{host.partition('.')[2]}")
        found = [places[name] for places in self.hosts.values() for name in names if name in places]
        exact = next((place for place in found if place[1] == port), None)
        return exact or (found[0] if found and port == HTTPS else None)


@dataclass(frozen=True)
class Service:
    """A service as it is registered. `handler` is 'module:Class', imported only where services run."""

    kind: Kind
    handler: str
