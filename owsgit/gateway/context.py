"""API Gateway's $context variables that are known of a request itself, by name without "$context.".

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from owsgit.gateway.exchange import Exchange
from owsgit.gateway.payload import full_path

VARIABLES: Mapping[str, Callable[[Exchange], str]] = {
    "accountId": lambda exchange: exchange.mount.account,
    "apiId": lambda exchange: exchange.mount.api,
    "domainName": lambda exchange: exchange.host,
    "domainPrefix": lambda exchange: exchange.host.partition(".")[0],
    "extendedRequestId": lambda exchange: exchange.id,
    "httpMethod": lambda exchange: exchange.method,
    "identity.sourceIp": lambda exchange: exchange.client.address,
    "identity.userAgent": lambda exchange: exchange.header(b"user-agent").decode("utf-8", "replace"),
    "path": full_path,
    "protocol": lambda exchange: exchange.protocol,
    "requestId": lambda exchange: exchange.id,
    "resourcePath": lambda exchange: exchange.resource,
    "routeKey": lambda exchange: exchange.route_key,
    "stage": lambda exchange: exchange.mount.stage,
}


def value(exchange: Exchange, name: str) -> Any:
    """The variable's value, or what a step found out under that name; None if there is none."""
    known = VARIABLES.get(name)
    if known is not None:
        return known(exchange)
    if (found := exchange.facts.get(name)) is not None:
        return found
    scope, *path = name.split(".")
    if scope == "identity":
        return walked(exchange.identity, path)
    if scope != "authorizer":
        return None
    # in format 2.0 what an authorizer found stands below its kind, which $context.authorizer leaves out
    for root in (exchange.authorizer, exchange.authorizer.get("jwt"), exchange.authorizer.get("lambda")):
        if (found := walked(root, path)) is not None:
            return found
    return None


def walked(document: Any, path: Sequence[str]) -> Any:
    """What stands at a path of names; None if nothing does."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document
