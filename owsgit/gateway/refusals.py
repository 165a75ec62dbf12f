"""What the gateway itself answers when a request goes no further: in API Gateway's words, or in those of its owner.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-gatewayResponse-definition.html
"""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from owsgit.gateway import context
from owsgit.gateway.exchange import Exchange, RefusedError, Response

JSON = (b"content-type", b"application/json")

Refuse = Callable[[Exchange, RefusedError], Response]

_VARIABLE = re.compile(r"\$(?:context|stageVariables)(?:\.[A-Za-z_][A-Za-z0-9_]*)+|\$\{[^}]{1,200}\}")
_UNPRINTABLE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
MESSAGE_STRING = "context.error.messageString"


def response(refusal: RefusedError) -> Response:
    body: dict[str, Any] = {refusal.field: refusal.message}
    if refusal.tells_validation:
        body["errors"] = refusal.validation
    return Response(refusal.status, [JSON, *refusal.headers], orjson.dumps(body))


def refuse(exchange: Exchange, refusal: RefusedError) -> Response:
    """A Refuse: API Gateway's words."""
    return response(refusal)


def check(template: str) -> None:
    """Raises ValueError if a body or a header names a $context variable that there is not."""
    for match in _VARIABLE.finditer(template):
        scope, _, name = match[0].strip("${}").partition(".")
        if scope == "context":
            context.check(name)


def validation_text(refusal: RefusedError) -> str:
    """What is wrong with a request, on one line: $context.error.validationErrorString."""
    return "; ".join(f"{error['path']}: {error['message']}" for error in refusal.validation)


@dataclass(frozen=True)
class Custom:
    """How one type of refusal is answered. `body` and the values of `headers` are templates with $context variables."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


class CustomRefusals:
    """A Refuse: answers by type of refusal, or by DEFAULT_4XX or DEFAULT_5XX for a type without an own one."""

    def __init__(self, customs: Mapping[str, Custom]) -> None:
        self._customs = customs

    def __call__(self, exchange: Exchange, refusal: RefusedError) -> Response:
        custom = self._customs.get(refusal.kind) or self._customs.get(
            "DEFAULT_4XX" if refusal.status < 500 else "DEFAULT_5XX"
        )
        plain = response(refusal)
        if custom is None:
            return plain
        variables = _Variables(exchange, refusal)
        headers = _headers(plain, custom, variables)
        body = plain.body
        if custom.body is not None:
            kind = next((value for name, value in headers if name == b"content-type"), b"")
            body = variables.filled(custom.body, _escaping(kind)).encode()
        return Response(custom.status or refusal.status, headers, body)


def _headers(plain: Response, custom: Custom, variables: "_Variables") -> list[tuple[bytes, bytes]]:
    own = [
        (name.lower().encode(), _UNPRINTABLE.sub("?", variables.filled(text, str)).encode("latin-1"))
        for name, text in custom.headers.items()
    ]
    names = {name for name, _ in own}
    return [*(pair for pair in plain.headers if pair[0] not in names), *own]


def _escaping(content_type: bytes) -> Callable[[str], str]:
    """How a value is written into a text of a type, so that it stays a value: a request can choose its path."""
    if b"json" in content_type:
        return lambda text: orjson.dumps(text).decode()[1:-1]
    if b"html" in content_type or b"xml" in content_type:
        return html.escape
    return str


class _Variables:
    """What a template can say of a refusal: $context.name, ${context.name}, $stageVariables.name."""

    def __init__(self, exchange: Exchange, refusal: RefusedError) -> None:
        self._exchange, self._refusal = exchange, refusal

    def filled(self, template: str, escaping: Callable[[str], str]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[0].strip("${}")
            found = self._value(name)
            return found if name == MESSAGE_STRING else escaping(found)

        return _VARIABLE.sub(value, template) if "$" in template else template

    def _value(self, name: str) -> str:
        exchange, refusal = self._exchange, self._refusal
        kind, _, rest = name.partition(".")
        if kind == "stageVariables":
            return exchange.mount.variables.get(rest, "")
        if kind != "context":
            return ""
        known: dict[str, Callable[[], str]] = {
            "error.message": lambda: refusal.message,
            "error.messageString": lambda: orjson.dumps(refusal.message).decode(),
            "error.responseType": lambda: refusal.kind,
            "error.validationErrorString": lambda: validation_text(refusal),
        }
        if rest in known:
            return known[rest]()
        found = context.value(exchange, rest)
        return "" if found is None else str(found)
