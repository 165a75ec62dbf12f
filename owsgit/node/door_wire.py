"""What a node's own process and its further ones say to each other about the front door (link.py carries it)."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Any

from owsgit.aws.sigv4 import Request

KEPT, NEW = b"k", b"n"
"""What is said with a connection that is given: it is between two requests, or its handshake is yet to be made."""


@unique
class Kind(IntEnum):
    """Of messages; behind each, who says it and what comes back."""

    SET_UP = 1  # node: SetUp
    HEAD = 2  # node: the commit that the ledger is at
    FACTS = 3  # node: a service and its facts
    SHOW = 4  # node: the certificate, as PEM with its key
    PING = 5  # node: whether it goes on
    BODY = 6  # node: the number of a request, and whether all of its body is wanted or the next piece; that, or Unread
    STOP = 7  # node: finish what is begun
    SERVICE = 8  # further: a service and a question to it; its answer
    PASS = 9  # further: Passed; Answered
    NEXT = 10  # further: the number of a body; its next piece, empty at its end
    CLOSE = 11  # further, without an answer: that number
    NEIGHBOUR = 12  # further: a node and what it is asked; what it says, or the text of why it does not
    AUDIT = 13  # further, without an answer: a record of a call
    LINES = 14  # further, without an answer: lines of the audit log
    HOLDS = 15  # further, without an answer: how many connections it has taken in all, and how many it has


@dataclass(frozen=True)
class SetUp:
    """What a further process begins with: the head, the facts of each service, and the certificate of a port with TLS,
    as PEM with its key."""

    node: str
    genesis: str
    commit: str
    facts: Mapping[str, Mapping[str, bytes]]
    certificate: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Passed:
    """A request that the node's own process is to answer, as it came. `body`: None if it is to be asked for."""

    id: str
    request: Request
    body: bytes | None
    address: str
    secure: bool
    number: int


@dataclass(frozen=True)
class Unread:
    """Why the body of a request cannot be read, as its client is told."""

    code: str
    message: str
    status: int


@dataclass(frozen=True)
class Answered:
    """What it answered. `number`: of a body that comes in pieces; 0 if `body` is the whole of it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    length: int | None
    number: int = 0


def write(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def read(data: bytes) -> Any:
    """Of the other process of this node: nobody else has the sockets."""
    return pickle.loads(data)  # noqa: S301
