"""API Gateway's $context variables that are known of a request itself, by name without "$context.".

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-logging.html
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from owsgit.gateway import certificates
from owsgit.gateway.exchange import Exchange, SocketEvent
from owsgit.gateway.payload import full_path
from owsgit.model.spec import nearest


def _of_socket(of: Callable[[SocketEvent], str | int]) -> Callable[[Exchange], str]:
    """What is known of an event of a WebSocket; empty for other requests."""
    return lambda exchange: str(of(exchange.socket) or "") if exchange.socket is not None else ""


def _is_http(exchange: Exchange) -> bool:
    return exchange.socket is None or exchange.socket.kind == "CONNECT"


VARIABLES: Mapping[str, Callable[[Exchange], str]] = {
    "accountId": lambda exchange: exchange.mount.account,
    "apiId": lambda exchange: exchange.mount.api,
    "cipherSuite": lambda exchange: exchange.client.cipher,
    "connectedAt": _of_socket(lambda event: round(event.connected_at * 1000)),
    "connectionId": _of_socket(lambda event: event.connection_id),
    "disconnectReason": _of_socket(lambda event: event.reason),
    "disconnectStatusCode": _of_socket(lambda event: event.code),
    "domainName": lambda exchange: exchange.host,
    "domainPrefix": lambda exchange: exchange.host.partition(".")[0],
    "eventType": _of_socket(lambda event: event.kind),
    "extendedRequestId": lambda exchange: exchange.id,
    "httpMethod": lambda exchange: exchange.method if _is_http(exchange) else "",
    "identity.sourceIp": lambda exchange: exchange.client.address,
    "identity.userAgent": lambda exchange: exchange.header(b"user-agent").decode("utf-8", "replace"),
    "messageDirection": _of_socket(lambda event: "IN"),
    "messageId": _of_socket(lambda event: event.message_id),
    "path": lambda exchange: full_path(exchange) if _is_http(exchange) else "",
    "protocol": lambda exchange: exchange.protocol if _is_http(exchange) else "",
    "requestId": lambda exchange: exchange.id,
    "resourcePath": lambda exchange: exchange.resource,
    "routeKey": lambda exchange: exchange.route_key,
    "stage": lambda exchange: exchange.mount.stage,
    "tlsVersion": lambda exchange: exchange.client.tls_version,
}

_NAMES = """
    authenticate.error authenticate.latency authenticate.status authorize.error authorize.latency authorize.status
    awsEndpointRequestId awsEndpointRequestId2 cache customDomain.basePathMatched
    customDomain.routingRuleIdMatched dataProcessed deploymentId endpointType error.message error.messageString
    error.responseType error.validationErrorString identity.accessKey identity.accountId identity.apiKey
    identity.apiKeyId identity.caller identity.clientCert.clientCertPem identity.clientCert.issuerDN
    identity.clientCert.serialNumber identity.clientCert.subjectDN identity.clientCert.validity.notAfter
    identity.clientCert.validity.notBefore identity.cognitoAuthenticationProvider identity.cognitoAuthenticationType
    identity.cognitoIdentityId identity.cognitoIdentityPoolId identity.principalOrgId identity.user identity.userArn
    identity.vpcId identity.vpceId integration.error integration.integrationStatus integration.latency
    integration.requestId integration.responseTransferMode integration.status integration.timeToAllHeaders
    integration.timeToFirstContent integrationErrorMessage integrationLatency integrationStatus isCanaryRequest
    requestTime requestTimeEpoch resourceId responseLatency responseLength
    status waf.error waf.latency waf.status wafResponseCode webaclArn xrayTraceId
"""
"""Every other name, AWS's whole list and "cache": some stand for something in a log alone, some have no value here."""

NAMES = frozenset({*VARIABLES, *_NAMES.split()})
CLIENT_CERTIFICATE = "identity.clientCert."
OPEN = ("authorizer.", "requestOverride.", "responseOverride.")
"""What begins so is whatever authorizers found out, or mappings wrote."""


def check(name: str) -> None:
    """Raises ValueError for a name that nobody knows: it would be empty for ever."""
    if name not in NAMES and not name.startswith(OPEN):
        remedy = nearest(name, (*NAMES, *(f"{scope}NAME" for scope in OPEN)), "variable", "variables")
        raise ValueError(f"$context.{name} is not known; {remedy}")


def value(exchange: Exchange, name: str) -> Any:
    """The variable's value, or what a step found out under that name; None if there is none."""
    known = VARIABLES.get(name)
    if known is not None:
        return known(exchange)
    if (found := exchange.facts.get(name)) is not None:
        return found
    scope, *path = name.split(".")
    if name.startswith(CLIENT_CERTIFICATE) and exchange.client.certificate:
        return walked(certificates.of_client(exchange.client.certificate), path[1:])
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
