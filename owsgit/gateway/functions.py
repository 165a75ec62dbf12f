"""The integrations with what can be invoked: functions, in API Gateway's payload formats, now or later."""

import logging
from typing import Final

import orjson

from owsgit.gateway import payload
from owsgit.gateway.deadlines import Deadlines
from owsgit.gateway.exchange import Exchange, RefusedError, Response, too_large
from owsgit.gateway.payload import MalformedResponseError
from owsgit.gateway.refusals import JSON
from owsgit.gateway.throttle import Pace
from owsgit.model.errors import InvalidError, OwsgitError
from owsgit.model.service import Answer, Invocation, Target

EVENT_BYTES_MAX: Final = 6 * 1024 * 1024
"""Lambda's limit for a synchronous event."""

log = logging.getLogger("owsgit.gateway")


class FunctionIntegration:
    """Invokes resource `name` of `target`, in a payload format, and waits for its answer for `timeout` seconds."""

    def __init__(self, target: Target, name: str, payload_version: str, timeout: float) -> None:
        self._target, self._name, self._version = target, name, payload_version
        self._timeout, self._deadlines = timeout, Deadlines(timeout)
        self._pace = Pace()

    async def __call__(self, exchange: Exchange) -> Response:
        version = self._version
        body = exchange.at_once()
        invocation = invocation_with(version, exchange, await exchange.read() if body is None else body)
        try:
            # the function goes on when the client is answered, as it does behind API Gateway
            with self._deadlines:
                answer = await self._target.invoke(self._name, invocation)
        except TimeoutError:
            exchange.facts["integration.error"] = f"{self._name} did not answer within {self._timeout:g} s"
            raise failure(version, 504 if version == "1.0" else 503, "INTEGRATION_TIMEOUT") from None
        except OwsgitError as error:
            log.warning("%s %s: %s", exchange.mount.api, exchange.route_key, error)
            exchange.facts["integration.error"] = str(error)
            raise self._pace.slowed(failure(version, 503, "INTEGRATION_FAILURE"), exchange.began) from None
        if answer.error is not None:
            exchange.facts["integration.error"] = failed(self._name, answer)
            raise failure(version, 502 if version == "1.0" else 500, "INTEGRATION_FAILURE")
        try:
            return payload.response(version, answer.payload, payload.decodes(version, exchange))
        except MalformedResponseError as problem:
            log.warning("%s %s: %s answered badly: %s", exchange.mount.api, exchange.route_key, self._name, problem)
            exchange.facts["integration.error"] = str(problem)
            raise failure(version, 502 if version == "1.0" else 500, "INTEGRATION_FAILURE") from None


class EventIntegration:
    """Has resource `name` of `target` invoked later: what is answered with 202 survives a crash.

    The body names the request id under which it runs. What cannot be written is refused, so that the client comes back.
    """

    def __init__(self, target: Target, name: str, payload_version: str) -> None:
        self._target, self._name, self._version = target, name, payload_version

    async def __call__(self, exchange: Exchange) -> Response:
        invocation = await invocation_of(self._version, exchange)
        try:
            request_id = await self._target.enqueue(self._name, invocation)
        except InvalidError as too_large:
            raise RefusedError(413, str(too_large), "REQUEST_TOO_LARGE") from None
        except OwsgitError as error:
            log.warning("%s %s: %s", exchange.mount.api, exchange.route_key, error)
            exchange.facts["integration.error"] = str(error)
            raise failure(self._version, 503, "INTEGRATION_FAILURE") from None
        return Response(202, [JSON], orjson.dumps({"requestId": request_id}))


async def invocation_of(version: str, exchange: Exchange) -> Invocation:
    """Raises RefusedError for a request that is too large for an event."""
    return invocation_with(version, exchange, await exchange.read())


def invocation_with(version: str, exchange: Exchange, body: bytes) -> Invocation:
    """The same once its body is read."""
    event = payload.event(version, exchange, body)
    if len(event) > EVENT_BYTES_MAX:
        raise too_large()
    return Invocation(event, exchange.id, exchange.trace_id)


def failed(name: str, answer: Answer) -> str:
    """$context.integrationErrorMessage for a function's error: not what it says, which is for who may read its log."""
    return f"{name} failed ({answer.error}): its log says why"


def failure(version: str, status: int, kind: str) -> RefusedError:
    """API Gateway's own words: those of REST APIs for format 1.0, of HTTP APIs for 2.0."""
    words = {
        ("1.0", 504): "Endpoint request timed out",
        ("1.0", 502): "Internal server error",
        ("2.0", 500): "Internal Server Error",
    }
    return RefusedError(status, words.get((version, status), "Service Unavailable"), kind)
