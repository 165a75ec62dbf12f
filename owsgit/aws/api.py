"""The contract of an API behind the front door: what a service writes so that AWS's SDKs can call it.

An operation is a coroutine function of the API, named as boto3 names it, with the operation's parameters by keyword,
named so as well; its result is the operation's output in AWS's own names:

    async def get_item(self, caller, *, table_name, key, consistent_read=False): ...

Requests, responses and errors on the wire are the front door's business, from botocore's model of the service.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from owsgit.model.iam.context import EMPTY, Context
from owsgit.model.iam.decision import ResourcePolicy, Session

ACCESS_DENIED = "AccessDeniedException"


class ServiceError(Exception):
    """An error of an API, as AWS answers it: `code` is the name of its shape, without a namespace."""

    def __init__(self, code: str, message: str, *, status: int = 400, fields: Mapping[str, Any] | None = None) -> None:
        """`fields` are more members of the error's shape."""
        super().__init__(message)
        self.code, self.message, self.status, self.fields = code, message, status, dict(fields or {})


class AccessDeniedError(ServiceError):
    """Refused by policies."""

    def __init__(self, message: str, code: str = ACCESS_DENIED) -> None:
        super().__init__(code, message)


@dataclass(slots=True)
class Need:
    """What somebody has to be allowed to, for an operation: an action on an ARN.

    `context` is what is known of the request beside what is known of every one; `policy` that of what it is done to.
    With `denied_only`, only an explicit Deny counts, not the want of a statement that allows it: for what another
    need has to allow. `refusal` is what the service calls the error of those who are not allowed to.
    """

    action: str
    arn: str
    context: Mapping[str, str | tuple[str, ...]] | None = None
    policy: ResourcePolicy | None = None
    denied_only: bool = False
    refusal: str = ACCESS_DENIED


@dataclass(slots=True)
class Caller:
    """Who calls an operation, once the signature was found to be good."""

    who: str | Session  # a user, or a session of a role
    arn: str
    user_id: str
    account: str
    region: str
    request_id: str
    address: str = ""  # from which the request came
    access_key: str = ""
    user: str = ""  # who logged in for the credentials, and the fingerprint of that key
    key: str = ""
    function: str = ""  # that the credentials rest on if nobody logged in, its version's commit, and its own role
    commit: str = ""
    function_role: str = ""
    expires: int = 0  # when the credentials are good no more: what is given for them is not good for longer
    context: Context = EMPTY  # the condition keys that are known of the request
    host: str = ""  # by which the client has come here, with its port


class Events(Protocol):
    """Events of a stream, as they come: each as the name of its event to the event's members, in AWS's names.

    ServiceErrors that come instead of an event are told within the stream. Whoever iterates closes it, in any case: the
    client may be gone before the first event.
    """

    def __aiter__(self) -> "Events": ...

    async def __anext__(self) -> Mapping[str, Mapping[str, Any]]: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Streamed:
    """The value of an output's member that is an event stream: the response is sent as its events come."""

    events: Events
    content_type: str = "application/vnd.amazon.eventstream"


def data_events(api: "Api") -> frozenset[str]:
    """See Api."""
    found: frozenset[str] = getattr(api, "data_events", frozenset())
    return found


class Pieces(ABC):
    """A body as it comes, of an operation that streams it: bytes by bytes.

    What is read of a request counts only once its end came without an error: its hash, signatures and checksums are
    held against what came as it goes, and the last of them at the end. Whoever writes one for a response has it closed.
    """

    length: int | None = None
    """In bytes, where it is known."""

    checksums: Mapping[str, str] = {}
    """Of a request, once its end came: those that were found to be right, by AWS's names of their headers."""

    def __aiter__(self) -> "Pieces":
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """The next piece. Raises ServiceError if what came is not what was signed, or not whole."""

    async def read(self, most: int) -> bytes:
        """All of it. Raises ServiceError, also for more than `most` bytes."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > most:
                raise ServiceError("RequestEntityTooLarge", f"the body has more than {most:,} bytes", status=413)
            pieces.append(piece)
        return b"".join(pieces)

    @abstractmethod
    async def aclose(self) -> None:
        """Nobody reads on."""


@runtime_checkable
class Streaming(Protocol):
    """What an Api has of whose operations some take their body as Pieces: their names."""

    streams: Collection[str]


class Api(Protocol):
    """A service of AWS, as far as this node answers for it.

    `data_events`, where there are any, are the operations (by AWS's names) that read and write data: as CloudTrail has
    them, they stand apart in the audit log.
    """

    @property
    def service(self) -> str:
        """As botocore calls it: dynamodb, lambda, sts."""
        ...

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        """All that the caller of an operation needs. Decided before the operation is called.

        Operation and parameters have AWS's names. Raises ServiceError for what names nothing.
        """
        ...

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        """The node that has to answer, where not every node can; None for this one."""
        ...
