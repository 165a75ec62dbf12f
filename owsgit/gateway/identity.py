"""Whom a request is from, as function authorizers are told to know it: identity sources.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:  # whoever only reads the ledger needs no requests
    from owsgit.gateway.exchange import Exchange

QUERY_FIELDS_MAX = 1000
_PREFIX = re.compile(r"method\.|route\.|\$")


@dataclass(frozen=True)
class Identity:
    """What a client has to show before a function is asked about it."""

    sources: "Sequence[Callable[[Exchange], str]]"
    valid: Callable[[str], bool] | None = None  # what the first of them, a token, has to look like

    def shown(self, exchange: "Exchange") -> list[str] | None:
        """All of it; None if some is missing or is not valid."""
        found = [read(exchange) for read in self.sources]
        return found if all(found) and (self.valid is None or self.valid(found[0])) else None


def _path(exchange: "Exchange") -> str:
    return "/" + "/".join((*exchange.mount.base_path, *exchange.segments))


def _source_ip(exchange: "Exchange") -> str:
    return exchange.client.address


CONTEXT: dict[str, "Callable[[Exchange], str]"] = {
    "path": _path,
    "httpMethod": lambda exchange: exchange.method,
    "http.method": lambda exchange: exchange.method,
    "http.path": _path,
    "http.sourceIp": _source_ip,
    "identity.sourceIp": _source_ip,
    "routeKey": lambda exchange: exchange.route_key,
    "resourcePath": lambda exchange: exchange.resource,
    "stage": lambda exchange: exchange.mount.stage,
    "domainName": lambda exchange: exchange.host,
}
"""The $context variables that an identity can be made of."""


def source(text: str) -> "Callable[[Exchange], str]":
    """What reads an identity source. Raises ValueError that says which there are.

    REST APIs' way to write them (method.request.header.Name) and WebSocket APIs' (route.request.header.Name) mean the
    same as HTTP APIs' ($request.header.Name).
    """
    prefix = _PREFIX.match(text)
    plain = text[prefix.end() :] if prefix else text
    place, _, name = plain.partition(".")
    if place == "request":
        place, _, name = name.partition(".")
        if place == "header" and name:
            header = name.lower().encode()
            return lambda exchange: exchange.header(header).decode("latin-1")
        if place == "querystring" and name:
            return lambda exchange: _query(exchange, name)
    if place == "context" and name in CONTEXT:
        return CONTEXT[name]
    if place == "stageVariables" and name:
        return lambda exchange: exchange.mount.variables.get(name, "")
    raise ValueError(
        "this is no identity source: write $request.header.NAME, $request.querystring.NAME, $stageVariables.NAME "
        f"or $context. and one of {', '.join(CONTEXT)}"
    )


def _query(exchange: "Exchange", name: str) -> str:
    try:
        pairs = parse_qsl(exchange.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        return ""
    return next((value for key, value in pairs if key == name), "")
