"""The AWS Lambda Runtime API: where a custom runtime asks for its events, and gives its answers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html; what is refused is worded as AWS's own server words it
(github.com/aws/aws-lambda-runtime-interface-emulator).
"""

import asyncio
import contextlib
import socket
from functools import partial

from owsgit.model.service import Invocation
from owsgit.runtime import failures, runtime_http
from owsgit.runtime.runtime_flight import Buffered, Flight, Nothing, Outcome, Report, Streamed, error_type
from owsgit.runtime.runtime_http import Body, Connection, RefusedError, Request
from owsgit.runtime.worker import NotBegunError

PREFIX = b"/2018-06-01/runtime/"
MODE = b"lambda-runtime-function-response-mode"
INIT_REPORT_BYTES_MAX = 256 * 1024
"""Of an init error: it is parsed, and stands in the function's status."""

LAST_WORDS_SECONDS_MAX = 0.5
"""For what a process wrote before its end; its connections end with it, unless it left children behind."""

ACCEPTED = runtime_http.reply(202, b'{"status":"OK"}\n')


class RuntimeApi:
    """The API of one worker: serves on `listener`, one invocation at a time."""

    def __init__(self, listener: socket.socket) -> None:
        """Has to be made in a running loop; `listener` is bound and listens, in whatever network namespace."""
        self._server = runtime_http.Server(listener, self._receive)
        self._init: asyncio.Future[failures.Report | None] = asyncio.get_running_loop().create_future()
        self._poller: Connection | None = None  # the runtime waits here for its next event
        self._flight: Flight | None = None  # the present invocation, or the last
        self._ended = False

    async def ready(self) -> failures.Report | None:
        """Wait for the end of the init phase: None, or the error that the runtime reports. Raises EOFError."""
        return await self._init

    async def invoke(self, invocation: Invocation, arn: str, deadline_seconds: float) -> Outcome:
        """Have one invocation answered. Raises EOFError when the runtime ends, or breaks off a stream; NotBegunError if
        it ends before."""
        self._server.pace.renew()
        self._flight = Flight(invocation, arn, deadline_seconds)
        if self._ended:
            raise NotBegunError("the runtime is gone")
        if self._poller is not None:
            poller, self._poller = self._poller, None
            self._deliver(self._flight, poller)
        return await self._flight.result()

    @property
    def begun(self) -> bool:
        """Whether the runtime may have begun the last invocation."""
        return self._flight is not None and self._flight.begun

    async def end(self) -> None:
        """The runtime's process has ended: hear what it said last, then no more."""
        await asyncio.sleep(0.01)  # for what was not accepted yet
        answering = self._flight is not None and self._flight.claimed and self._flight.outcome is None
        with contextlib.suppress(TimeoutError):  # a slow sink may take its time, which the function's timeout bounds
            await asyncio.wait_for(self._server.empty.wait(), None if answering else LAST_WORDS_SECONDS_MAX)
        self._ended = True
        if not self._init.done():
            self._init.set_exception(EOFError("the runtime is gone"))
            self._init.exception()  # it is no fault if nobody waits for it
        if self._flight is not None:
            self._flight.lose()

    def close(self) -> None:
        """End all connections; idempotent."""
        self._server.close()

    def _receive(self, request: Request, connection: Connection) -> Body:
        """Who takes the body of a request. Raises RefusedError."""
        path = request.path.removeprefix(PREFIX) if request.path.startswith(PREFIX) else b""
        match path.split(b"/"):
            case [b"invocation", b"next"]:
                _only(b"GET", request)
                return Nothing(partial(self._next, connection), partial(self._poller_lost, connection))
            case [b"invocation", request_id, b"response"]:
                _only(b"POST", request)
                return self._response(self._claim(request_id, "InvocationResponse"), request, connection)
            case [b"invocation", request_id, b"error"]:
                _only(b"POST", request)
                return Buffered(
                    self._claim(request_id, "InvocationErrorResponse"), error_type(request.headers), ACCEPTED
                )
            case [b"init", b"error"]:
                _only(b"POST", request)
                self._check_starting()
                return Report(INIT_REPORT_BYTES_MAX, partial(self._init_error, error_type(request.headers)))
        raise RefusedError(404, "NotFound", "The Runtime API has no such path.")

    def _next(self, connection: Connection) -> bytes | None:
        """The next event, if it is there already."""
        state = self._state()
        if state in ("Ready", "Running", "InitError"):
            raise _transition(state, "Ready")
        if not self._init.done():
            self._init.set_result(None)
        if self._flight is not None and not self._flight.delivered:
            self._deliver(self._flight, connection)
        else:
            self._poller = connection
        return None

    def _deliver(self, flight: Flight, connection: Connection) -> None:
        flight.delivered = True
        payload = flight.invocation.payload
        connection.answer(runtime_http.head(200, len(payload), flight.headers), payload)
        connection.on_unread = partial(setattr, flight, "unread", True)

    def _poller_lost(self, connection: Connection) -> None:
        if self._poller is connection:
            self._poller = None

    def _claim(self, request_id: bytes, wanted: str) -> Flight:
        """The present flight, for the one response to it."""
        flight = self._flight
        if flight is None or not flight.delivered or flight.invocation.request_id.encode() != request_id:
            raise RefusedError(400, "InvalidRequestID", "Invalid request ID")
        if flight.claimed:
            raise _transition(self._state(), wanted)
        flight.claimed = True
        return flight

    def _response(self, flight: Flight, request: Request, connection: Connection) -> Body:
        if flight.invocation.sink is not None and request.headers.get(MODE, b"").lower() == b"streaming":
            if flight.invocation.announce is not None:
                flight.invocation.announce(request.headers.get(b"content-type", b"")[:256].decode("latin-1"))
            return Streamed(flight, connection, ACCEPTED)
        return Buffered(flight, None, ACCEPTED)

    def _check_starting(self) -> None:
        if self._init.done():
            raise _transition(self._state(), "InitError")

    def _init_error(self, kind: str, body: bytes) -> bytes:
        self._check_starting()
        self._init.set_result(failures.read(body, kind))
        return ACCEPTED

    def _state(self) -> str:
        """In AWS's words."""
        flight = self._flight
        if not self._init.done():
            return "Started"
        if self._init.cancelled() or self._init.exception() is not None or self._init.result() is not None:
            return "InitError"
        if self._poller is not None:
            return "Ready"
        if flight is None or not flight.delivered or flight.outcome is not None:
            return "ResponseSent"
        return "InvocationResponse" if flight.claimed else "Running"


def _only(method: bytes, request: Request) -> None:
    if request.method != method:
        raise RefusedError(405, "MethodNotAllowed", f"This path is asked with {method.decode()} only.")


def _transition(state: str, wanted: str) -> RefusedError:
    text = f"Transition from {state} to {wanted} failed for runtime. Error: State transition is not allowed"
    return RefusedError(403, "InvalidStateTransition", text)
