"""AWS's event streams: messages of headers and a payload, with checksums, as the SDKs read them from a response.

    total length (4) | length of headers (4) | CRC-32 of these 8 (4) | headers | payload | CRC-32 of all before (4)
    a header: length of its name (1) | name | type (1) | value; a text's or bytes' value begins with its length (2)

https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import json
import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from botocore.model import Shape, StructureShape

from owsgit.aws.api import Events, ServiceError

PAYLOAD_BYTES_MAX = 24 * 1024 * 1024
HEADERS_BYTES_MAX = 128 * 1024
"""What SDKs take, as botocore.eventstream has it."""

HEADER_VALUE_BYTES_MAX = 32767

TRUE, FALSE, BYTE, SHORT, INTEGER, LONG, BYTES, TEXT, TIMESTAMP = range(9)

log = logging.getLogger("owsgit.aws")
HeaderValue = str | bytes | bool | int | datetime
Dump = Callable[[Shape, Any], bytes]


def message(headers: Iterable[tuple[str, HeaderValue]], payload: bytes = b"") -> bytes:
    """One message. Raises ValueError beyond what SDKs take."""
    named = b"".join(_header(name, value) for name, value in headers)
    if len(named) > HEADERS_BYTES_MAX or len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a message of {len(named):,} bytes of headers and {len(payload):,} of payload is too large")
    start = struct.pack("!II", 16 + len(named) + len(payload), len(named))
    start += struct.pack("!I", zlib.crc32(start))
    end = zlib.crc32(payload, zlib.crc32(named, zlib.crc32(start)))
    return b"".join((start, named, payload, struct.pack("!I", end)))


def _header(name: str, value: HeaderValue) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) < 256:
        raise ValueError(f"{name!r} cannot be the name of a header")
    return struct.pack("!B", len(encoded)) + encoded + _value(value)


def _value(value: HeaderValue) -> bytes:
    if isinstance(value, bool):
        return struct.pack("!B", TRUE if value else FALSE)
    if isinstance(value, int):
        return struct.pack("!Bq", LONG, value) if abs(value) > 2**31 - 1 else struct.pack("!Bi", INTEGER, value)
    if isinstance(value, datetime):
        return struct.pack("!Bq", TIMESTAMP, round(value.timestamp() * 1000))
    data = value.encode() if isinstance(value, str) else value
    if len(data) > HEADER_VALUE_BYTES_MAX:
        raise ValueError(f"a header's value has {len(data):,} bytes, at most {HEADER_VALUE_BYTES_MAX:,} are taken")
    return struct.pack("!BH", TEXT if isinstance(value, str) else BYTES, len(data)) + data


def _json(shape: Shape, value: Any) -> bytes:
    """Of structures of texts, numbers and truth values, which need nothing of their shape."""
    return json.dumps(value, separators=(",", ":")).encode()


class EventStream:
    """Writes the events of one stream, from the shape of the output's member that is it."""

    def __init__(self, shape: StructureShape, dump: Dump = _json, content_type: str = "application/json") -> None:
        """`dump` writes what is in no header and no payload of its own, as the service's protocol does; it has
        `content_type`."""
        self._shape, self._dump, self._content_type = shape, dump, content_type

    def encode(self, event: Mapping[str, Mapping[str, Any]]) -> bytes:
        """One event: its name to its members."""
        ((name, members),) = event.items()
        shape = self._shape.members[name]
        known = shape.members
        headers: list[tuple[str, HeaderValue]] = [(":message-type", "event"), (":event-type", name)]
        headers += [
            (member, value) for member, value in members.items() if known[member].serialization.get("eventheader")
        ]
        content_type, payload = self._payload(shape, members)
        if content_type:
            headers.append((":content-type", content_type))
        return message(headers, payload)

    def _payload(self, shape: StructureShape, members: Mapping[str, Any]) -> tuple[str, bytes]:
        """The payload and its content type."""
        for name, member in shape.members.items():
            if not member.serialization.get("eventpayload"):
                continue
            value = members.get(name)
            if member.type_name == "blob":
                return "application/octet-stream", value or b""
            if member.type_name == "string":
                return "text/plain", (value or "").encode()
            return self._content_type, self._dump(member, value or {})
        rest = {
            name: value
            for name, value in members.items()
            if not shape.members[name].serialization.get("eventheader") and value is not None
        }
        return (self._content_type, self._dump(shape, rest)) if shape.members else ("", b"")

    def exception(self, code: str, message_text: str) -> bytes:
        """An error that comes after the response began: of the stream's shape, or one that the SDKs raise as it is."""
        if code in self._shape.members:
            headers = [(":message-type", "exception"), (":exception-type", code), (":content-type", self._content_type)]
            return message(headers, self._dump(self._shape.members[code], {"message": message_text}))
        text = message_text.encode()[: HEADER_VALUE_BYTES_MAX - 3].decode("utf-8", "ignore")
        return message([(":message-type", "error"), (":error-code", code), (":error-message", text)])


class Encoded:
    """The body of a response that is an event stream."""

    def __init__(self, stream: EventStream, events: Events) -> None:
        self._stream, self._events = stream, events
        self._ended = False

    def __aiter__(self) -> "Encoded":
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            return self._stream.encode(await anext(self._events))
        except ServiceError as error:
            self._ended = True
            return self._stream.exception(error.code, error.message)
        except StopAsyncIteration:
            raise
        except Exception:
            log.exception("an event stream failed")
            self._ended = True
            return self._stream.exception("InternalFailure", "The request processing has failed.")

    async def aclose(self) -> None:
        await self._events.aclose()
