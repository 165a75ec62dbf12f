"""Questions and answers between two processes of a node, over a pair of sockets that nobody else has.

A message is its length, its kind, a number and a body of bytes. Each side asks with numbers of its own, and gets one
answer to each; what is only told has no number. All that one side says arrives in the order in which it was said.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from owsgit.model.errors import UnavailableError

_HEAD = struct.Struct("!IBQ")
_ANSWER, _FAILURE = 254, 255

Answers = Callable[[bytes], Awaitable[bytes]]
Hears = Callable[[bytes], None]

log = logging.getLogger("owsgit.node")


class LostError(UnavailableError):
    """The other process is gone, or did not answer."""

    def __init__(self) -> None:
        super().__init__("a process of the node is gone", remedy="try again")


class Link(asyncio.Protocol):
    """One side. `answers` and `hears` say by kind (below 250) what is asked and told here."""

    def __init__(self, answers: Mapping[int, Answers], hears: Mapping[int, Hears], lost: Callable[[], None]) -> None:
        self._answers, self._hears, self._lost = answers, hears, lost
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._pieces: list[bytes] = []  # of a message that is not whole yet
        self._size = 0  # of these
        self._wanted = _HEAD.size  # bytes, until there is more to take
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_lost = False

    @classmethod
    async def open(
        cls, end: socket.socket, answers: Mapping[int, Answers], hears: Mapping[int, Hears], lost: Callable[[], None]
    ) -> "Link":
        """`lost` is called once, when the other side is gone."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_unix_connection(lambda: cls(answers, hears, lost), sock=end)
        return made

    async def ask(self, kind: int, body: bytes) -> bytes:
        """The answer. Raises LostError."""
        if self.is_lost or self._transport is None:
            raise LostError
        self._number = number = self._number + 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._transport.write(_HEAD.pack(len(body), kind, number) + body)
            return await answer
        finally:
            del self._asked[number]

    def tell(self, kind: int, body: bytes) -> None:
        if not self.is_lost and self._transport is not None:
            self._transport.write(_HEAD.pack(len(body), kind, 0) + body)

    # -- what comes --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of that class

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return
        if len(self._pieces) > 1:
            data = b"".join(self._pieces)
        start, self._wanted = 0, _HEAD.size
        while len(data) - start >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(data, start)
            behind = start + _HEAD.size + length
            if behind > len(data):
                self._wanted = _HEAD.size + length
                break
            self._take(kind, number, data[start + _HEAD.size : behind])
            start = behind
        rest = data[start:]
        self._pieces, self._size = [rest] if rest else [], len(rest)

    def _take(self, kind: int, number: int, body: bytes) -> None:
        if kind in (_ANSWER, _FAILURE):
            answer = self._asked.get(number)
            if answer is not None and not answer.done():
                if kind == _ANSWER:
                    answer.set_result(body)
                else:
                    answer.set_exception(UnavailableError("a process of the node failed", remedy="try again"))
        elif number:
            task = asyncio.ensure_future(self._answer(self._answers[kind], number, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._hears[kind](body)

    async def _answer(self, answers: Answers, number: int, body: bytes) -> None:
        try:
            kind, said = _ANSWER, await answers(body)
        except Exception:
            log.exception("a question of another process of the node could not be answered")
            kind, said = _FAILURE, b""
        if not self.is_lost and self._transport is not None:
            self._transport.write(_HEAD.pack(len(said), kind, number) + said)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LostError())
        self._lost()
