"""What sees requests end: one step for all that count, log and trace, so that a request pays for it once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Protocol

from owsgit.gateway.exchange import ClientGoneError, Exchange, Handler, RefusedError, Response, Step

CLIENT_GONE = 499
"""nginx's status for a client that did not wait for its answer."""


class Outcome:
    """How a request ended. (Tuples and dataclasses with names take longer to make than a class that is compiled.)"""

    __slots__ = ("at", "seconds", "sent", "status")

    def __init__(self, status: int, seconds: float, sent: int, at: float = 0.0) -> None:
        """`seconds` from its head to the last byte of its response, as far as the gateway has it; `sent`: bytes of the
        body; `at`: of time.monotonic()."""
        self.status, self.seconds, self.sent, self.at = status, seconds, sent, at


class Watcher(Protocol):
    """Is told of requests. Neither of its methods may wait for anything."""

    def began(self, exchange: Exchange) -> None: ...

    def ended(self, exchange: Exchange, outcome: Outcome) -> None: ...


def watched(watchers: Sequence[Watcher]) -> Step:
    """A step that tells `watchers` of every request, also of those whose body is streamed, or that break off."""
    return partial(_Observed, watchers)


class _Observed:
    """A handler that is watched."""

    def __init__(self, watchers: Sequence[Watcher], handler: Handler) -> None:
        self._watchers, self._handler = watchers, handler

    async def __call__(self, exchange: Exchange) -> Response:
        for watcher in self._watchers:
            watcher.began(exchange)
        try:
            response = await self._handler(exchange)
        except BaseException as error:
            self.end(exchange, _status_of(error), 0)
            raise
        body = response.body
        if isinstance(body, bytes):
            self.end(exchange, response.status, 0 if exchange.method == "HEAD" else len(body))
        else:
            response.body = _Watched(body, response.status, partial(self.end, exchange))
        return response

    def end(self, exchange: Exchange, status: int, sent: int) -> None:
        now = monotonic()
        outcome = Outcome(status, now - exchange.began, sent, now)
        for watcher in self._watchers:
            watcher.ended(exchange, outcome)


def _status_of(error: BaseException) -> int:
    """What stands for a response that was not made to its end."""
    return 500 if isinstance(error, Exception) and not isinstance(error, ClientGoneError) else CLIENT_GONE


class _Watched:
    """A streamed body, whose end is told once: when it is over, or when nobody wants the rest."""

    def __init__(self, pieces: AsyncIterator[bytes], status: int, end: Callable[[int, int], None]) -> None:
        self._pieces, self._status = pieces, status
        self._end: Callable[[int, int], None] | None = end
        self._sent = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._tell(self._status)
            raise
        except BaseException as error:
            self._tell(_status_of(error))
            raise
        self._sent += len(piece)
        return piece

    async def aclose(self) -> None:
        self._tell(self._status)
        close: Callable[[], Awaitable[None]] | None = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    def _tell(self, status: int) -> None:
        if self._end is not None:
            end, self._end = self._end, None
            end(status, self._sent)


def timed(handler: Handler) -> Handler:
    """A step around an integration: keeps how long it took and what it answered."""

    async def answer(exchange: Exchange) -> Response:
        began = monotonic()
        try:
            response = await handler(exchange)
            exchange.integration_status = response.status
            return response
        except RefusedError as refusal:
            exchange.integration_status = refusal.status
            raise
        finally:
            exchange.integration_seconds = monotonic() - began

    return answer
