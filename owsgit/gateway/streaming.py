"""Functions whose response goes to the client as it comes (`responseTransferMode` STREAM).

A function may say status and headers before its first byte: JSON metadata and eight zero bytes, announced by their
content type. Without them the answer is 200. A function that does not stream is answered as without STREAM.

https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import orjson

from owsgit.gateway import payload
from owsgit.gateway.exchange import BrokenError, ClientGoneError, Exchange, Response
from owsgit.gateway.functions import failed, failure, invocation_of
from owsgit.gateway.payload import MalformedResponseError
from owsgit.model.errors import OwsgitError
from owsgit.model.service import Answer, Target

HTTP_RESPONSE = "application/vnd.awslambda.http-integration-response"
"""The content type of a stream that begins with metadata."""

DELIMITER = bytes(8)
PRELUDE_BYTES_MAX = 16 * 1024
"""API Gateway's limit for the metadata."""

IDLE_SECONDS_MAX = 300.0
"""Between two pieces: API Gateway's limit. A client that takes nothing for so long loses its stream too."""

OCTETS = b"application/octet-stream"

log = logging.getLogger("owsgit.gateway")


class StreamingFunctionIntegration:
    """Invokes resource `name` of `target` and passes its response on; the first byte comes within `timeout` seconds."""

    def __init__(
        self, target: Target, name: str, payload_version: str, timeout: float, idle: float = IDLE_SECONDS_MAX
    ) -> None:
        self._target, self._name, self._version, self._timeout = target, name, payload_version, timeout
        self._idle = idle
        self._calls: set[asyncio.Task[None]] = set()

    async def __call__(self, exchange: Exchange) -> Response:
        version = self._version
        stream = Stream(f"{exchange.mount.api} {exchange.route_key}: {self._name}", self._idle)
        invocation = replace(await invocation_of(version, exchange), sink=stream.put, announce=stream.announce)
        # the function goes on when the client is gone, as it does behind API Gateway
        call = asyncio.ensure_future(stream.run(self._target.invoke(self._name, invocation)))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        exchange.on_gone(stream.leave)  # or a silent stream would be held for nobody
        try:
            async with asyncio.timeout(self._timeout):
                return await self._head(stream, exchange)
        except TimeoutError:
            exchange.facts["integration.error"] = f"{self._name} did not begin its answer within {self._timeout:g} s"
            raise failure(version, 504 if version == "1.0" else 503, "INTEGRATION_TIMEOUT") from None
        except OwsgitError as error:
            log.warning("%s: %s", stream.name, error)
            exchange.facts["integration.error"] = str(error)
            raise failure(version, 503, "INTEGRATION_FAILURE") from None
        except MalformedResponseError as error:
            log.warning("%s answered badly: %s", stream.name, error)
            exchange.facts["integration.error"] = str(error)
            raise failure(version, 502 if version == "1.0" else 500, "INTEGRATION_FAILURE") from None
        finally:
            if not stream.begun:
                stream.leave()

    async def _head(self, stream: "Stream", exchange: Exchange) -> Response:
        """The response, as soon as the stream says how it begins.

        Raises MalformedResponseError, OwsgitError, ClientGoneError.
        """
        first = await stream.get()
        if isinstance(first, Answer):
            if first.error is not None:
                raise MalformedResponseError(failed(self._name, first))
            return payload.response(self._version, first.payload, payload.decodes(self._version, exchange))
        if stream.content_type == HTTP_RESPONSE:
            status, headers, rest = await _prelude(stream, first)
        else:
            status, headers, rest = 200, [(b"content-type", _content_type(stream.content_type))], first
        stream.begun = True
        return Response(status, headers, _Body(stream, rest))


class Stream:
    """Pieces from a function to a client: few wait at a time, and either end may leave."""

    def __init__(self, name: str, idle: float) -> None:
        """`name` is said in the log."""
        self.name, self._idle = name, idle
        self.content_type = ""
        self.begun = False  # the response has a head
        self.left = False  # nobody takes pieces any more
        self._taking = False  # somebody waits for the next piece
        self._waiting: asyncio.Queue[bytes | Answer | Exception] = asyncio.Queue(1)

    def announce(self, content_type: str) -> None:
        self.content_type = content_type

    async def put(self, piece: bytes) -> None:
        """The sink. Raises ClientGoneError when nobody listens."""
        if not piece:
            return
        try:
            async with asyncio.timeout(self._idle):
                await self._put(piece)
        except TimeoutError:
            self.leave()
        if self.left:
            raise ClientGoneError

    async def _put(self, item: bytes | Answer | OwsgitError) -> None:
        if not self.left:
            await self._waiting.put(item)

    async def run(self, call: Coroutine[Any, Any, Answer]) -> None:
        """Make the call; its outcome follows the pieces."""
        outcome: Answer | OwsgitError
        try:
            outcome = await call
        except OwsgitError as error:
            outcome = error
        except Exception:
            log.exception("%s could not be called", self.name)
            outcome = Answer(b"", "Unhandled")
        await self._put(outcome)

    async def get(self) -> bytes | Answer:
        """The next piece, or the outcome. Raises OwsgitError, ClientGoneError."""
        if self.left:
            raise ClientGoneError
        self._taking = True
        try:
            item = await self._waiting.get()
        finally:
            self._taking = False
        if isinstance(item, Exception):
            raise item
        return item

    async def next(self) -> bytes:
        """The next piece; empty at the end. Raises BrokenError, ClientGoneError."""
        try:
            async with asyncio.timeout(self._idle):
                item = await self.get()
        except TimeoutError:
            raise self._broken(f"nothing came for {self._idle:.0f} s") from None
        except OwsgitError as error:
            raise self._broken(str(error)) from None
        if isinstance(item, bytes):
            return item
        if item.error is not None:
            raise self._broken(f"failed in the middle of its response: {item.payload[:500].decode('utf-8', 'replace')}")
        return b""  # what it answers beside its stream is not part of it, as on Lambda

    def _broken(self, why: str) -> BrokenError:
        log.warning("%s: %s", self.name, why)
        return BrokenError(why)

    def leave(self) -> None:
        """Let the function go on unheard; whoever waits for it is told."""
        self.left = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        if self._taking:
            self._waiting.put_nowait(ClientGoneError())


class _Body:
    """What is left of a stream behind its head. Not a generator, as those do not notice if they are never begun."""

    def __init__(self, stream: Stream, first: bytes) -> None:
        self._stream, self._first = stream, first

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        piece, self._first = self._first or await self._stream.next(), b""
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._stream.leave()


async def _prelude(stream: Stream, data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers, and what came of the body. Raises MalformedResponseError, OwsgitError."""
    while (end := data.find(DELIMITER)) < 0:
        if len(data) > PRELUDE_BYTES_MAX:
            break
        more = await stream.get()
        if isinstance(more, Answer):
            raise MalformedResponseError("the stream ended within its metadata")
        data += more
    if end < 0 or end > PRELUDE_BYTES_MAX:
        raise MalformedResponseError(f"no eight zero bytes after {PRELUDE_BYTES_MAX:,} bytes of metadata")
    try:
        metadata = orjson.loads(data[:end])
    except orjson.JSONDecodeError as error:
        raise MalformedResponseError(f"the metadata is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise MalformedResponseError("the metadata is not an object")
    status, headers = payload.head({"statusCode": 200, **metadata}, OCTETS)
    return status, headers, data[end + len(DELIMITER) :]


def _content_type(given: str) -> bytes:
    return given.encode("latin-1", "replace") if given.isprintable() and given and given.isascii() else OCTETS
