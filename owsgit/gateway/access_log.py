"""Access logs: a line for each request, in a format of API Gateway's $context variables.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html

Whatever a client sent is escaped as in JSON, so that nobody writes lines of his own. Query strings and headers are in
a line only if the format names them ($request.querystring.page, $request.header.referer).
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from owsgit.gateway import context
from owsgit.gateway.exchange import Exchange
from owsgit.gateway.observing import Outcome
from owsgit.gateway.payload import query_pairs

VALUE_CHARACTERS_MAX = 2000
"""Of one variable in one line."""

WAITING_MAX = 10_000
"""Lines that wait for the disk; what comes beyond is dropped, and counted."""

BATCH_SECONDS = 0.2

_NOTHING = "-"  # what API Gateway writes for a variable without a value
_VARIABLE = re.compile(
    r"\$(context|stageVariables|request\.header|request\.querystring|request\.path)"
    r"\.([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)"
)

Value = str | int | float | bool | None
Getter = Callable[[Exchange, Outcome], Value]


def _milliseconds(seconds: float) -> int | None:
    return round(seconds * 1000) if seconds >= 0 else None


def _clock(exchange: Exchange, outcome: Outcome) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(time.time() - outcome.seconds))


def _integration_status(exchange: Exchange, outcome: Outcome) -> int | None:
    return exchange.integration_status or None


def _integration_latency(exchange: Exchange, outcome: Outcome) -> int | None:
    return _milliseconds(exchange.integration_seconds)


def _integration_error(exchange: Exchange, outcome: Outcome) -> Value:
    return exchange.facts.get("integration.error")


def _message_string(exchange: Exchange, outcome: Outcome) -> Value:
    found = exchange.facts.get("error.message")
    return None if found is None else json.dumps(str(found), ensure_ascii=False)


def _known(of: Callable[[Exchange], str]) -> Getter:
    return lambda exchange, outcome: of(exchange) or None


VARIABLES: Mapping[str, Getter] = {
    **{name: _known(of) for name, of in context.VARIABLES.items()},
    "awsEndpointRequestId": lambda exchange, outcome: exchange.facts.get("integration.requestId"),
    "cache": lambda exchange, outcome: exchange.facts.get("cache"),  # HIT or MISS: not one of AWS's
    "customDomain.basePathMatched": lambda exchange, outcome: "/".join(exchange.mount.base_path) or None,
    "dataProcessed": lambda exchange, outcome: exchange.received + outcome.sent,
    "error.message": lambda exchange, outcome: exchange.facts.get("error.message"),
    "error.messageString": _message_string,
    "error.responseType": lambda exchange, outcome: exchange.facts.get("error.responseType"),
    "error.validationErrorString": lambda exchange, outcome: exchange.facts.get("error.validationErrorString"),
    "integration.error": _integration_error,
    "integration.integrationStatus": _integration_status,
    "integration.latency": _integration_latency,
    "integration.requestId": lambda exchange, outcome: exchange.facts.get("integration.requestId"),
    "integration.status": _integration_status,
    "integrationErrorMessage": _integration_error,
    "integrationLatency": _integration_latency,
    "integrationStatus": _integration_status,
    "isCanaryRequest": lambda exchange, outcome: exchange.facts.get("isCanaryRequest"),
    "requestTime": _clock,
    "requestTimeEpoch": lambda exchange, outcome: round((time.time() - outcome.seconds) * 1000),
    "resourceId": lambda exchange, outcome: exchange.route_key or None,
    "responseLatency": lambda exchange, outcome: _milliseconds(outcome.seconds),
    "responseLength": lambda exchange, outcome: outcome.sent,
    "status": lambda exchange, outcome: outcome.status,
    "xrayTraceId": lambda exchange, outcome: exchange.trace_id or None,
}
"""By name without "$context."."""

DEFAULT_FORMAT: Mapping[str, str] = {
    "requestId": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "requestTime": "$context.requestTime",
    "httpMethod": "$context.httpMethod",
    "domainName": "$context.domainName",
    "path": "$context.path",
    "routeKey": "$context.routeKey",
    "stage": "$context.stage",
    "protocol": "$context.protocol",
    "status": "$context.status",
    "responseLength": "$context.responseLength",
    "responseLatency": "$context.responseLatency",
    "integrationStatus": "$context.integrationStatus",
    "integrationLatency": "$context.integrationLatency",
    "error": "$context.error.message",
    "userAgent": "$context.identity.userAgent",
}


def _plain(found: Any) -> Value:
    return found if found is None or isinstance(found, str | int | float) else json.dumps(found, default=str)


def _getter(kind: str, name: str) -> Getter:
    if kind == "context":
        if name in VARIABLES:
            return VARIABLES[name]
        return lambda exchange, outcome: _plain(context.value(exchange, name))
    if kind == "stageVariables":
        return lambda exchange, outcome: exchange.mount.variables.get(name)
    if kind == "request.path":
        return lambda exchange, outcome: exchange.parameters.get(name)
    if kind == "request.header":
        key = name.lower().encode()
        return lambda exchange, outcome: exchange.header(key).decode("utf-8", "replace") or None
    return lambda exchange, outcome: next((value for key, value in query_pairs(exchange) if key == name), None)


def check(text: str) -> None:
    """Raises ValueError if a format names a variable that there is not."""
    for variable in _VARIABLE.finditer(text):
        if variable[1] == "context":
            context.check(variable[2])


def _text(value: Value) -> str:
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    return value[:VALUE_CHARACTERS_MAX] if isinstance(value, str) else str(value)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


class _Text:
    """A format that is a text: what variables stand for is put in their place."""

    def __init__(self, text: str, shown: Callable[[str], str] = str) -> None:
        self._shown = shown
        self._parts: list[str | Getter] = []
        at = 0
        for variable in _VARIABLE.finditer(text):
            self._parts += [text[at : variable.start()], _getter(variable[1], variable[2])]
            at = variable.end()
        self._parts.append(text[at:])

    def __call__(self, exchange: Exchange, outcome: Outcome) -> str:
        return "".join(
            part if isinstance(part, str) else self._shown(_text(part(exchange, outcome))) for part in self._parts
        )


def _field(text: str) -> Getter:
    """A field of a format that is an object: numbers stay numbers where one variable is all of it."""
    whole = _VARIABLE.fullmatch(text)
    if whole is None:
        return _Text(text)
    getter = _getter(whole[1], whole[2])

    def get(exchange: Exchange, outcome: Outcome) -> Value:
        value = getter(exchange, outcome)
        return value if isinstance(value, int | float) else _text(value)

    return get


@dataclass(frozen=True, slots=True)
class Line:
    """A request, as it is logged."""

    moment: float  # seconds since 1970
    request_id: str
    status: int
    text: str
    record: dict[str, Any] | None


class AccessLog:
    """A watcher: has a line written for each request, in batches and in a thread, so that no request waits for it."""

    def __init__(self, write: Callable[[Sequence[Line], int], None]) -> None:
        """`write` takes lines, and how many were dropped before them."""
        self._write = write
        self._waiting: list[Line] = []
        self._dropped = 0
        self._flushing: asyncio.Task[None] | None = None
        self.configure("$context.requestId", 1.0)

    def configure(self, form: str | Mapping[str, str], sample_rate: float) -> None:
        """Write so from now on. Answers of 5xx are logged whatever the rate."""
        self._sample_rate = sample_rate
        self._line = _Text(form, _escaped) if isinstance(form, str) else None
        self._fields = {} if isinstance(form, str) else {name: _field(text) for name, text in form.items()}

    def began(self, exchange: Exchange) -> None:
        pass

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        if self._sample_rate < 1 and outcome.status < 500 and random.random() >= self._sample_rate:  # noqa: S311
            return
        if len(self._waiting) >= WAITING_MAX:
            self._dropped += 1
            return
        record = None
        if self._line is not None:
            text = self._line(exchange, outcome)
        else:
            record = {name: get(exchange, outcome) for name, get in self._fields.items()}
            text = json.dumps(record, ensure_ascii=False)
        self._waiting.append(Line(time.time(), exchange.id, outcome.status, text, record))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._flush())

    async def _flush(self) -> None:
        await asyncio.sleep(BATCH_SECONDS)
        while self._waiting:
            lines, self._waiting, dropped, self._dropped = self._waiting, [], self._dropped, 0
            await asyncio.to_thread(self._write, lines, dropped)

    async def close(self) -> None:
        """Write what waits."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self._waiting:
            lines, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, lines, self._dropped)
