"""One invocation on its way through a custom runtime: what is sent, and the bodies that come back."""

import asyncio
import contextlib
import json
from base64 import b64decode
from collections.abc import Callable, Mapping

from owsgit.model.service import Invocation
from owsgit.runtime import failures, streamed
from owsgit.runtime.python_worker import RESPONSE_BYTES_MAX
from owsgit.runtime.runtime_http import DISCARDED_BYTES_MAX, Connection, RefusedError
from owsgit.runtime.worker import NotBegunError

STREAM_PENDING_BYTES_MAX = 256 * 1024
"""Held of a stream for a reader that is slower than the function, before the function has to wait."""

ERROR_TYPE = b"lambda-runtime-function-error-type"
ERROR_BODY = b"lambda-runtime-function-error-body"
ERROR_TYPE_UNKNOWN = "Runtime.Unknown"
ERROR_TYPE_CHARACTERS_MAX = 256

Outcome = tuple[bytes, str | None]
"""Payload and kind of error, as in an Answer."""


class Flight:
    """An invocation that is being answered, by at most one response."""

    def __init__(self, invocation: Invocation, arn: str, deadline_seconds: float) -> None:
        """`deadline_seconds`: by time.time()."""
        self.invocation = invocation
        self.headers = _headers(invocation, arn, deadline_seconds)
        self.delivered = False
        self.unread = False  # the runtime ended before it had read the whole of it
        self.claimed = False  # a response has begun
        self.outcome: Outcome | None = None
        self._lost = False
        self._sink = invocation.sink
        self._source: Connection | None = None
        self._pieces: list[bytes] = []
        self._pending = 0  # bytes of the pieces
        self._changed = asyncio.Event()

    def put(self, data: bytes, source: Connection) -> None:
        """The next piece of a stream; `source` waits while there are too many."""
        self._source = source
        self._pieces.append(data)
        self._pending += len(data)
        if self._pending > STREAM_PENDING_BYTES_MAX:
            source.pause("sink")
        self._changed.set()

    def finish(self, payload: bytes, error: str | None = None) -> None:
        self.outcome = payload, error
        self._changed.set()

    @property
    def begun(self) -> bool:
        """Whether the runtime may have begun it."""
        return self.claimed or (self.delivered and not self.unread)

    def lose(self) -> None:
        """Nothing more can come."""
        if self.outcome is None:
            self._lost = True
            self._changed.set()

    async def result(self) -> Outcome:
        """Carry pieces to the sink until the outcome is there. Raises EOFError, NotBegunError."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._pieces:
                await self._pass_on()
            if self.outcome is not None:
                return self.outcome
            if self._lost:
                raise (EOFError if self.begun else NotBegunError)("the runtime is gone")

    async def _pass_on(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._pending = 0
        if self._sink is not None:
            try:
                await self._sink(data)
            except Exception:
                self._sink = None  # its reader is gone, and knows; as on Lambda, the function comes to its end
        if self._source is not None:
            self._source.resume("sink")


class Nothing:
    """The body of a request that has none."""

    def __init__(self, end: Callable[[], bytes | None], lost: Callable[[], None]) -> None:
        self._end, self._lost = end, lost

    def take(self, data: bytes) -> None:
        raise RefusedError(400, "InvalidRequest", "This request has no body.")

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        return self._end()

    def lost(self) -> None:
        self._lost()


class Gathered:
    """A body that is kept up to `bytes_max`, and counted beyond."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self.size = 0

    @property
    def too_large(self) -> bool:
        return self.size > self._bytes_max

    def take(self, data: bytes) -> None:
        self.size += len(data)
        if not self.too_large:
            self._pieces.append(data)
            return
        self._pieces.clear()
        if self.size > DISCARDED_BYTES_MAX:
            raise self.refused()

    def content(self) -> bytes:
        return b"".join(self._pieces)

    def refused(self) -> RefusedError:
        text = f"Exceeded maximum allowed payload size ({self._bytes_max} bytes)."
        return RefusedError(413, "RequestEntityTooLarge", text)


class Report(Gathered):
    """The body of an error; `done` is given the whole of it."""

    def __init__(self, bytes_max: int, done: Callable[[bytes], bytes]) -> None:
        super().__init__(bytes_max)
        self._done = done

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        if self.too_large:
            raise self.refused()
        return self._done(self.content())

    def lost(self) -> None:
        pass


class Buffered(Gathered):
    """The body of a response, or of an error, that is answered as a whole; it may have come as a stream."""

    def __init__(self, flight: Flight, kind: str | None, accepted: bytes) -> None:
        """`kind`: that of the error, None for a response."""
        super().__init__(RESPONSE_BYTES_MAX)
        self._flight, self._kind, self._accepted = flight, kind, accepted

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        if self.too_large:
            self._flight.finish(failures.dump(failures.too_large(self.size)), "Unhandled")
            raise self.refused()
        if self._kind is not None:
            self._flight.finish(self.content() or _made_of(self._kind), "Unhandled")
        elif ERROR_TYPE in trailers:
            self._flight.finish(_error_of(trailers), "Unhandled")
        else:
            self._flight.finish(self.content())
        return self._accepted

    def lost(self) -> None:
        if self.too_large:
            self._flight.finish(failures.dump(failures.too_large(self.size)), "Unhandled")
        else:
            self._flight.claimed = False  # it may try again


class Streamed:
    """The body of a response that goes to the invocation's sink as it comes."""

    def __init__(self, flight: Flight, source: Connection, accepted: bytes) -> None:
        self._flight, self._source, self._accepted = flight, source, accepted
        self._size = 0

    def take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > streamed.STREAM_BYTES_MAX:
            report = failures.too_large(self._size, streamed.STREAM_BYTES_MAX)
            self._flight.finish(failures.dump(report), "Unhandled")
            raise RefusedError(413, "RequestEntityTooLarge", report["errorMessage"])
        self._flight.put(data, self._source)

    def end(self, trailers: Mapping[bytes, bytes]) -> bytes | None:
        if ERROR_TYPE in trailers:
            self._flight.finish(_error_of(trailers), "Unhandled")
        else:
            self._flight.finish(b"")
        return self._accepted

    def lost(self) -> None:
        self._flight.lose()


def error_type(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(ERROR_TYPE, b"").decode("latin-1")[:ERROR_TYPE_CHARACTERS_MAX] or ERROR_TYPE_UNKNOWN


def _error_of(trailers: Mapping[bytes, bytes]) -> bytes:
    """The error object of a stream that broke off."""
    with contextlib.suppress(ValueError):
        if body := b64decode(trailers.get(ERROR_BODY, b""), validate=True):
            return body
    return _made_of(error_type(trailers))


def _made_of(kind: str) -> bytes:
    return failures.dump({"errorType": kind, "errorMessage": ""})


def _headers(invocation: Invocation, arn: str, deadline_seconds: float) -> dict[str, str]:
    """What a runtime is told of an invocation beside its event."""
    headers = {
        "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
        "Lambda-Runtime-Deadline-Ms": str(int(deadline_seconds * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": arn,
    }
    if invocation.trace_id:
        headers["Lambda-Runtime-Trace-Id"] = invocation.trace_id
    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON is no context
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = json.dumps(json.loads(invocation.client_context))
    return {name: value if value.isprintable() else _printable(value) for name, value in headers.items()}


def _printable(value: str) -> str:
    """What is left of a value in which somebody hid the end of a line."""
    return "".join(filter(str.isprintable, value))
