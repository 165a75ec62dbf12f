"""A function's answer as the event stream of Lambda's InvokeWithResponseStream.

https://docs.aws.amazon.com/lambda/latest/api/API_InvokeWithResponseStream.html
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from owsgit.gateway.exchange import ClientGoneError
from owsgit.gateway.streaming import Stream
from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Invocation

IDLE_SECONDS_MAX = 300.0
"""A client that takes nothing for so long loses its stream, as at a gateway."""

CHUNK_BYTES_MAX = 1024 * 1024
"""Of one event, so that no client has to take a large message whole."""

Event = Mapping[str, Mapping[str, Any]]

_running: set[asyncio.Future[None]] = set()
"""Calls go on when their client is gone, as on Lambda."""


class StreamedAnswer:
    """The events of one invocation: PayloadChunk for each piece, then InvokeComplete."""

    def __init__(self, name: str, invoke: Callable[[Invocation], Awaitable[Answer]], invocation: Invocation) -> None:
        self._stream = Stream(f"the stream of {name}", IDLE_SECONDS_MAX)
        self._invoke = invoke
        self._invocation = replace(invocation, sink=self._stream.put, announce=self._stream.announce)
        self._rest = b""  # of pieces, not sent yet
        self._answer: Answer | None = None
        self._ended = False

    async def begin(self) -> None:
        """Have the function invoked; returns with its first piece. Raises OwsgitError if it cannot be invoked."""
        call = asyncio.ensure_future(self._stream.run(self._call()))
        _running.add(call)
        call.add_done_callback(_running.discard)
        try:
            self._take(await self._stream.get())
        except BaseException:
            self._stream.leave()
            raise

    async def _call(self) -> Answer:
        return await self._invoke(self._invocation)

    def _take(self, came: bytes | Answer) -> None:
        if isinstance(came, bytes):
            self._rest = came
            return
        self._answer = came
        if came.error is None:
            self._rest = came.payload

    def __aiter__(self) -> "StreamedAnswer":
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        if not self._rest and self._answer is None:
            try:
                self._take(await self._stream.get())
            except ClientGoneError:
                raise StopAsyncIteration from None
            except OwsgitError as error:  # the node stops, a worker could not be had again
                return self._complete({"ErrorCode": "ServiceException", "ErrorDetails": str(error)})
        if self._rest:
            piece, self._rest = self._rest[:CHUNK_BYTES_MAX], self._rest[CHUNK_BYTES_MAX:]
            return {"PayloadChunk": {"Payload": piece}}
        assert self._answer is not None
        return self._complete(_outcome(self._answer, self._invocation.wants_log))

    def _complete(self, members: Mapping[str, Any]) -> Event:
        self._ended = True
        return {"InvokeComplete": members}

    async def aclose(self) -> None:
        """The client is gone, or has it all."""
        self._ended = True
        self._stream.leave()


def _outcome(answer: Answer, wants_log: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if answer.error is not None:
        found = {"ErrorCode": answer.error, "ErrorDetails": answer.payload.decode("utf-8", "replace")}
    if wants_log:
        found["LogResult"] = base64.b64encode(answer.log_tail).decode()
    return found
