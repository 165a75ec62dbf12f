"""What asynchronous invocation goes by: Lambda's limits and waits, and what each function says of its own. Pure.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from dataclasses import dataclass

from owsgit.model.errors import InvalidError
from owsgit.model.service import Invocation
from owsgit.services.functions.event import Event
from owsgit.services.functions.records import Condition
from owsgit.services.functions.spec import AsyncInvoke, Destination

PAYLOAD_BYTES_MAX = 1024 * 1024
"""Lambda's limit for an asynchronous event."""

RECORD_BYTES_MAX = 6 * 1024 * 1024
"""Of a record for a destination: what a function can be invoked with at all. It holds the event and the answer."""

CLIENT_CONTEXT_BYTES_MAX = 3583
"""Lambda's limit."""

KEY_CHARACTERS_MAX = 256
DELAY_SECONDS_MAX = 24 * 3600.0
"""A daily schedule can be queued when it ran last. Longer ones are kept by whoever has them."""

DEPTH_MAX = 16
"""Destinations that one event comes through: then Lambda takes it for a loop, and stops."""

RETRY_SECONDS = (60.0, 120.0)
"""Lambda's waits before the first and the second retry after an error of the function."""

THROTTLED_SECONDS_FIRST = 1.0
THROTTLED_SECONDS_MAX = 300.0
"""Lambda's waits while a function is throttled or does not run: doubled each time."""

WRITE_AGAIN_SECONDS = 1.0
"""Before what became of an event is written again, as after a full disk."""

SETTLING_SECONDS = 300.0
"""After a start: for so long, functions that do not run are believed to come; nothing of theirs is given up."""


@dataclass(frozen=True)
class Delays:
    """How long is waited, in seconds."""

    retries: tuple[float, ...] = RETRY_SECONDS
    throttled_first: float = THROTTLED_SECONDS_FIRST
    throttled_max: float = THROTTLED_SECONDS_MAX
    write_again: float = WRITE_AGAIN_SECONDS
    settling: float = SETTLING_SECONDS


@dataclass(frozen=True)
class Rules:
    """What the dispatcher has to know of a function that is there."""

    asynchronous: AsyncInvoke
    concurrency: int
    arn: str
    version: str

    def destination(self, condition: Condition) -> Destination | None:
        return self.asynchronous.on_success if condition is Condition.SUCCESS else self.asynchronous.on_failure

    def arn_of(self, event: Event) -> str:
        """With the qualifier that was invoked."""
        qualifier = event.function.removeprefix(event.resource)[1:]
        return f"{self.arn}:{qualifier or self.version}"


def check(invocation: Invocation, key: str, delay: float) -> None:
    """Raises InvalidError."""
    if len(invocation.payload) > PAYLOAD_BYTES_MAX:
        raise InvalidError(
            f"the payload has {len(invocation.payload):,} bytes: an asynchronous one has at most {PAYLOAD_BYTES_MAX:,}",
            remedy="keep the content elsewhere and send where it is, or invoke without --async",
        )
    if len(invocation.client_context) > CLIENT_CONTEXT_BYTES_MAX:
        raise InvalidError(f"the client context has more than {CLIENT_CONTEXT_BYTES_MAX:,} bytes")
    if len(key) > KEY_CHARACTERS_MAX or not key.isprintable():
        raise InvalidError(f"an idempotency key has at most {KEY_CHARACTERS_MAX} printable characters")
    if not 0 <= delay <= DELAY_SECONDS_MAX:
        raise InvalidError(f"a delay lies between 0 and {DELAY_SECONDS_MAX:.0f} s")
