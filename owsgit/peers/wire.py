"""What nodes say to each other: frames on an SSH session, one JSON object each, with bytes behind it if there are any.

frame    = length of the JSON (uint32), length of the body (uint32), JSON, body; big endian
request  = {"id": n, "verb": name, ...}       answer = {"id": n, ...} or {"id": n, "problem": text}

Both sides are strangers to each other's good will: every length is bounded before anything is read.
"""

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from owsgit.model.errors import RefusedError
from owsgit.peers.certificates import ROUND_MAX, CommitId, NodeId, RecoveryId, Signature
from owsgit.peers.paxos import Accept, Ballot, Instance, Message, Nack, Prepare, Promise, Vote, Voted

CIPHERS = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr"]
"""aes128-gcm first: nearly twice as fast as chacha20 where the processor has AES."""

COMMAND = "owsgit peer"
"""What a node asks for on another node's SSH server."""

JSON_BYTES_MAX = 2 << 20
BODY_BYTES_MAX = 17 << 20
"""A request of AWS's SDKs that a node passes on has up to 16 MiB."""

OBJECTS_BYTES_MAX = 4 << 20
"""Objects that travel with a message; more of them are fetched by git."""

FRAME_SECONDS_MAX = 60.0
"""From a frame's first byte to its last: nobody keeps a half frame waiting."""

_LENGTHS = struct.Struct("!II")


class WireError(RefusedError):
    """What arrived is not a frame or not a message."""


@dataclass(frozen=True)
class Frame:
    """One message."""

    head: Mapping[str, Any]
    body: bytes = b""

    def encode(self) -> bytes:
        """Raises WireError for what no node reads: it would end the connection, and all that is under way on it."""
        text = orjson.dumps(self.head)
        _check_lengths(len(text), len(self.body))
        return _LENGTHS.pack(len(text), len(self.body)) + text + self.body


def _check_lengths(text: int, body: int) -> None:
    if text > JSON_BYTES_MAX or body > BODY_BYTES_MAX:
        raise WireError(f"a frame of {text:,} and {body:,} bytes is too long")


class Reader(Protocol):
    """What frames are read from."""

    async def readexactly(self, n: int, /) -> bytes: ...


async def read(reader: Reader) -> Frame | None:
    """The next frame; None at the end. Raises WireError."""
    try:
        lengths = await reader.readexactly(_LENGTHS.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise WireError("the connection ended within a frame") from None
        return None
    text_length, body_length = _LENGTHS.unpack(lengths)
    _check_lengths(text_length, body_length)
    try:
        async with asyncio.timeout(FRAME_SECONDS_MAX):
            text = await reader.readexactly(text_length)
            body = await reader.readexactly(body_length) if body_length else b""
    except (asyncio.IncompleteReadError, TimeoutError):
        raise WireError("the connection ended within a frame") from None
    try:
        head = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise WireError("a frame is not JSON") from None
    if not isinstance(head, dict):
        raise WireError("a frame is not a JSON object")
    return Frame(head, body)


# Messages of deciding, as JSON and back. Whatever comes in is checked by its type, field for field.
_CONFIG = ConfigDict(extra="forbid")
_BallotText = Annotated[tuple[Annotated[int, Field(ge=1, le=ROUND_MAX)], NodeId], Field(strict=False)]
_KINDS: dict[str, type[Any]] = {"prepare": Prepare, "promise": Promise, "accept": Accept, "voted": Voted, "nack": Nack}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class _Wire:
    """All fields that a message may have."""

    __pydantic_config__ = _CONFIG
    kind: str
    head: CommitId
    ballot: _BallotText
    recovery: RecoveryId = ""
    value: CommitId | None = None
    voted: tuple[_BallotText, CommitId] | None = None
    promised: _BallotText | None = None
    signature: Signature | None = None


_WIRE = TypeAdapter(_Wire)


def message_to_json(message: Message) -> dict[str, Any]:
    """A message of deciding as JSON."""
    instance = message.instance
    told: dict[str, Any] = {"kind": _NAMES[type(message)], "head": instance.head, "ballot": _ballot(message.ballot)}
    if instance.recovery:
        told["recovery"] = instance.recovery
    match message:
        case Promise(voted=Vote() as vote):
            told["voted"] = [_ballot(vote.ballot), vote.value]
        case Accept():
            told["value"] = message.value
        case Voted():
            told |= {"value": message.value, "signature": message.signature}
        case Nack():
            told["promised"] = _ballot(message.promised)
        case _:
            pass
    return told


def _ballot(ballot: Ballot) -> list[int | str]:
    return [ballot.round, ballot.node]


def message_from_json(value: Any) -> Message:
    """A message of deciding from JSON. Raises WireError."""
    try:
        found = _WIRE.validate_python(value)
    except ValidationError as error:
        raise WireError(f"not a message of deciding: {str(error).splitlines()[0]}") from None
    instance, ballot = Instance(found.head, found.recovery), Ballot(*found.ballot)
    match found:
        case _Wire(kind="prepare"):
            return Prepare(instance, ballot)
        case _Wire(kind="promise", voted=voted):
            return Promise(instance, ballot, Vote(Ballot(*voted[0]), voted[1]) if voted else None)
        case _Wire(kind="accept", value=str(wanted)):
            return Accept(instance, ballot, wanted)
        case _Wire(kind="voted", value=str(wanted), signature=str(signature)):
            return Voted(instance, ballot, wanted, signature)
        case _Wire(kind="nack", promised=tuple(promised)):
            return Nack(instance, ballot, Ballot(*promised))
    raise WireError(f"not a message of deciding: {found.kind!r:.40}")


def commit_id(value: Any) -> str:
    """A commit's id out of a message. Raises WireError."""
    if not (isinstance(value, str) and len(value) == 40 and set(value) <= set("0123456789abcdef")):
        raise WireError("not a commit id")
    return value


def list_of(value: Any) -> list[Any]:
    """A list out of a message; an empty one where there is none."""
    return value if isinstance(value, list) else []
