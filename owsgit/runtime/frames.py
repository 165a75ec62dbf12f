"""The node's end of the framed protocol (python_worker.py): whole frames, read into the place where they stay."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from owsgit.runtime.python_worker import HEADER, RESPONSE_BYTES_MAX
from owsgit.runtime.worker import NotBegunError

FRAME_BYTES_MAX = RESPONSE_BYTES_MAX + 1024 * 1024
BUFFER_BYTES = 16 * 1024
WAITING_BYTES_MAX = 1024 * 1024
"""Of frames that nobody has taken yet; then the worker has to wait."""

FRAME_BYTES = 256
"""What one that waits costs beside its payload: a worker may send millions of empty ones."""

SOCKET_BYTES = 1024 * 1024
"""Asked of the kernel for each direction, so that large events and answers need few turns of two processes."""

SO_SNDBUFFORCE = 32


def widen(end: socket.socket) -> None:
    """Let more lie in a socket than the machine's default; where that is not allowed, what is."""
    try:
        end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES)
    except PermissionError:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)


class Frames(asyncio.BufferedProtocol):
    """Frames from and to one worker. `receive` raises ValueError for what is no frame, EOFError at the
    end: NotBegunError if not all that was sent was taken."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(BUFFER_BYTES)
        self._end = 0  # of what the buffer holds
        self._frame: tuple[int, int] = (0, 0)  # kind and number of the frame that is being read
        self._payload = bytearray()
        self._filled = -1  # of its payload; -1: no frame has begun
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._problem: Exception | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._taker: Callable[[int, int, bytes], None] | None = None
        self._told: Callable[[Exception], None] | None = None

    def deliver(self, taker: Callable[[int, int, bytes], None], told: Callable[[Exception], None]) -> None:
        """Call `taker` with each frame as it comes, and `told` with what ends them, in place of `receive`."""
        self._taker, self._told = taker, told
        while self._waiting and self._taker is not None:
            taker(*self._next())
        if self._problem is not None and self._told is not None:
            told(self._problem)

    def hold(self) -> None:
        """Keep frames for `receive` again."""
        self._taker = self._told = None

    @classmethod
    async def open(cls, end: socket.socket) -> "Frames":
        widen(end)
        _, made = await asyncio.get_running_loop().create_unix_connection(cls, sock=end)
        return made

    def send(self, kind: int, number: int, pieces: Sequence[bytes]) -> None:
        assert self._transport is not None
        if self._transport.is_closing():  # who reads is told; uvloop's transports would raise it here
            self._problem = NotBegunError("the worker was gone")
            return
        header = HEADER.pack(sum(map(len, pieces)), kind, number)
        self._transport.writelines([header, *pieces])

    async def receive(self) -> tuple[int, int, bytes]:
        """The next frame: its kind, its number, its payload."""
        while not self._waiting:
            if self._problem is not None:
                raise self._problem
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None
        return self._next()

    def _next(self) -> tuple[int, int, bytes]:
        frame = self._waiting.popleft()
        self._waiting_bytes -= len(frame[2]) + FRAME_BYTES
        if self._paused and self._waiting_bytes <= WAITING_BYTES_MAX // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return frame

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of that class

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, ConnectionResetError | BrokenPipeError):  # it left unread what was sent, or some of it
            self._fail(NotBegunError("the worker was gone"))
        else:
            self._fail(EOFError("the worker is gone"))

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._filled >= 0:
            return memoryview(self._payload)[self._filled :]
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._filled >= 0:
            self._filled += nbytes
            if self._filled == len(self._payload):
                self._finish()
            return
        self._end += nbytes
        start = self._take_whole() if self._taker is not None else 0
        while self._filled < 0 and self._end - start >= HEADER.size and self._problem is None:
            start = self._begin(start)
        rest = self._end - start
        self._buffer[:rest] = self._buffer[start : self._end]
        self._end = rest

    def _take_whole(self) -> int:
        """Take the frames that are whole in the buffer, as most are; where the next one begins."""
        start, size, last = 0, HEADER.size, self._end - HEADER.size
        buffer = memoryview(self._buffer)
        while start <= last and self._taker is not None and self._problem is None:
            length, kind, number = HEADER.unpack_from(buffer, start)
            end = start + size + length
            if end > self._end:
                break
            payload = bytes(buffer[start + size : end])
            start = end
            self._taker(kind, number, payload)
        return start

    def _begin(self, start: int) -> int:
        """Take the frame that begins in the buffer, as far as it is there; where the next one begins."""
        length, kind, number = HEADER.unpack_from(self._buffer, start)
        start += HEADER.size
        end: int = start + length
        if length > FRAME_BYTES_MAX:
            self._fail(ValueError("the frame is too long"))
            self.abort()
            return self._end
        self._frame = kind, number
        if end <= self._end:
            self._give(bytes(memoryview(self._buffer)[start:end]))
            return end
        self._payload = bytearray(length)
        self._filled = self._end - start
        self._payload[: self._filled] = self._buffer[start : self._end]
        return self._end

    def _finish(self) -> None:
        payload = bytes(self._payload)
        self._payload = bytearray()
        self._filled = -1
        self._give(payload)

    def _give(self, payload: bytes) -> None:
        if self._taker is not None:
            self._taker(*self._frame, payload)
            return
        self._waiting.append((*self._frame, payload))
        self._waiting_bytes += len(payload) + FRAME_BYTES
        if self._waiting_bytes > WAITING_BYTES_MAX and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _fail(self, problem: Exception) -> None:
        if self._problem is None:
            self._problem = problem
            if self._told is not None:
                self._told(problem)
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
