"""The pieces of a streamed response: handed on as they come, or put together.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html
"""

from owsgit.model.service import Sink
from owsgit.runtime import failures
from owsgit.runtime.python_worker import ERROR, RESPONSE_BYTES_MAX, RESULT

STREAM_BYTES_MAX = 200 * 1024 * 1024
"""Lambda's limit for a streamed response."""

CONTENT_TYPE_BYTES_MAX = 256


async def _drop(piece: bytes) -> None:
    """Takes pieces that nobody wants any more."""


class Streamed:
    """Takes the pieces of one response. What is beyond the limit is dropped, and told at the end."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self._limit = RESPONSE_BYTES_MAX if sink is None else STREAM_BYTES_MAX
        self._pieces = bytearray()
        self._size = 0

    async def take(self, piece: bytes) -> None:
        """Take the next piece; returns when there is room for more."""
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()
        elif self._sink is None:
            self._pieces += piece
        else:
            try:
                await self._sink(piece)
            except Exception:  # who listened is gone: the function runs to its end unheard, as on Lambda
                self._sink = _drop

    def end(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        """The kind and payload of the whole answer, given those of the last frame."""
        if self._size > self._limit:
            return ERROR, failures.dump(failures.too_large(self._size, self._limit))
        return (kind, bytes(self._pieces) + payload) if kind == RESULT else (kind, payload)
