"""The end of a connection with TLS, as one without has it: what was written before is still sent.

The loops' transports for TLS give all of that a fixed time, and what a slow client has not taken by then is lost to it.
They say goodbye (close_notify) only if nothing waited when they were closed, too.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from owsgit.gateway.limits import BYTES_PER_SECOND_MIN, READER_SECONDS
from owsgit.gateway.unread import unread

GOODBYE_SECONDS = 5.0
"""How long one that has taken everything may take to close its own end."""

LOOK_SECONDS = 0.2


class _Ended(asyncio.Protocol):
    """A protocol whose connection is closed: it gets nothing more of what its client says. A request would be done
    whose answer nobody gets (RFC 9112 9.6)."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]


class SecureTransport(asyncio.Transport):
    """A transport with TLS whose end waits for its client, as long as that reads. What is written after it is closed
    goes nowhere."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._left = self._taken = 0  # bytes that the client has to take, and has taken since it was looked at how fast
        self._again = self._silent = 0.0  # when that is looked at again; since when there is nothing for it to take

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        protocol = self._transport.get_protocol()
        if protocol is not None:
            self._transport.set_protocol(_Ended(protocol))
            now = self._silent = self._loop.time()
            self._again, self._left = now + READER_SECONDS, unread(self._transport)
            self._end()

    def _end(self) -> None:
        """Close it when nothing waits any more; look again until it is lost."""
        transport = self._transport
        if transport.get_protocol() is None:  # it is
            return
        if not transport.is_closing() and not transport.get_write_buffer_size():
            transport.close()
        now, left = self._loop.time(), unread(transport)
        if left:
            self._silent = now
        self._taken += max(0, self._left - left)  # it grows by what waits in the transport below, which nobody can see
        self._left, slow = left, False
        if now >= self._again:
            slow = left > 0 and self._taken < READER_SECONDS * BYTES_PER_SECOND_MIN
            self._again, self._taken = now + READER_SECONDS, 0
        if slow or now - self._silent >= GOODBYE_SECONDS:
            transport.abort()
        else:
            self._loop.call_later(LOOK_SECONDS, self._end)

    def abort(self) -> None:
        self._closed = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def write(self, data: Any) -> None:
        if not self._closed:
            self._transport.write(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        if not self._closed:
            self._transport.writelines(list_of_data)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(_Ended(protocol) if self._closed else protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol = self._transport.get_protocol()
        return protocol.protocol if isinstance(protocol, _Ended) else protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
