"""An asynchronous invocation, as it is kept and as it is told."""

import hashlib
from dataclasses import dataclass

from owsgit.model.names import unqualified


@dataclass(frozen=True)
class Event:
    """An asynchronous invocation. Times are seconds since 1970; `function` is the name as it was given."""

    request_id: str
    function: str
    payload: bytes
    starts: float  # when it was to be invoked first: its age counts from then
    trace_id: str = ""
    client_context: bytes = b""
    due: float = 0.0  # when it is tried next, if later than `starts`
    errors: int = 0  # invocations that failed
    depth: int = 0  # destinations that it has come through
    id: int = 0  # of a stored one

    @property
    def resource(self) -> str:
        return unqualified(self.function)

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.client_context)

    def digest(self) -> bytes:
        """What two events with the same idempotency key have in common."""
        parts = (self.function.encode(), self.client_context, self.payload)
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


@dataclass(frozen=True)
class Buried:
    """Why an event is given up: `reason` in a word, `error` what it said last."""

    reason: str
    error: str = ""


@dataclass(frozen=True)
class Listed:
    """A stored event as it is told, without what it carries."""

    id: int
    request_id: str
    function: str
    starts: float
    due: float
    errors: int
    depth: int
    size: int
    dead: float | None
    reason: str
    error: str


@dataclass(frozen=True)
class Waiting:
    """Events that are due, and when the next one is, if there is one."""

    events: list[Event]
    next_due: float | None
