"""What a gateway takes from its clients: how much, how fast, and how many at once.

A request's head is read before its gateway is known, as several may share a port. So a port takes the largest of what
its gateways take, and each gateway then refuses by its own limits.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from owsgit.gateway.clients import network

BODY_BYTES_MAX = 10 * 1024 * 1024
"""API Gateway's limit for a request."""

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers: six times what API Gateway takes (10,240 bytes), as others have larger cookies."""

HEAD_BYTES_SMALL = 8 * 1024
"""No gateway takes less: heads up to this need not be measured."""

HEAD_SECONDS_MAX = 20.0
BODY_SECONDS_MAX = 30.0
BYTES_PER_SECOND_MIN = 1024
"""Less than any phone has, and enough that a thousand idle senders do not stay for long."""

READER_SECONDS = 10.0
"""How long a client that reads may take for what the slowest rate allows in that time, over every protocol."""

CONNECTIONS_MAX = 10_000

RETRY_SECONDS = 1
"""What a client is told to wait when something is full: it may be free at any time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one gateway, or of the port that it listens on."""

    body_bytes: int = BODY_BYTES_MAX
    head_bytes: int = HEAD_BYTES_MAX
    head_seconds: float = HEAD_SECONDS_MAX  # a client that sends nothing, or a head byte by byte, is cut off
    body_seconds: float = BODY_SECONDS_MAX  # and so much more as a body takes at this rate:
    bytes_per_second: int = BYTES_PER_SECOND_MIN  # also of a client that reads its response
    connections: int = CONNECTIONS_MAX
    connections_per_client: int = CONNECTIONS_MAX

    def body_deadline(self, began: float, received: int) -> float:
        """By when more of a body has to be there, of which `received` bytes are."""
        return began + self.body_seconds + received / self.bytes_per_second


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second in the long run, and at once."""

    rate: float
    burst: int


DEFAULT = Limits()


def largest(limits: Iterable[Limits]) -> Limits:
    """What a port takes for all of its gateways."""
    every = tuple(limits) or (DEFAULT,)
    return Limits(
        body_bytes=max(each.body_bytes for each in every),
        head_bytes=max(each.head_bytes for each in every),
        head_seconds=max(each.head_seconds for each in every),
        body_seconds=max(each.body_seconds for each in every),
        bytes_per_second=min(each.bytes_per_second for each in every),
        connections=max(each.connections for each in every),
        connections_per_client=max(each.connections_per_client for each in every),
    )


class Connections:
    """The connections of one port, counted by client."""

    def __init__(self) -> None:
        self._by_client: Counter[str] = Counter()
        self.count = 0

    def enter(self, address: str, limits: Limits) -> bool:
        """Count one more, if there is room for it."""
        client = network(address)
        if self.count >= limits.connections or self._by_client[client] >= limits.connections_per_client:
            return False
        self.count += 1
        self._by_client[client] += 1
        return True

    def leave(self, address: str) -> None:
        client = network(address)
        self.count -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]


class Room:
    """Memory that all bodies in a node's gateways share: many large ones at once must not fill the machine."""

    def __init__(self, size: int) -> None:
        self.free = size

    def take(self, count: int) -> bool:
        if count > self.free:
            return False
        self.free -= count
        return True

    def give_back(self, count: int) -> None:
        self.free += count


ROOM = Room(512 * 1024 * 1024)
"""For bodies of requests that are read whole and did not come in one piece."""

UNSENT = Room(512 * 1024 * 1024)
"""For responses whose clients do not read them as fast as they are there."""
