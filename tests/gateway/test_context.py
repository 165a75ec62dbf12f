"""Variables of $context, as custom responses, mappings and access logs read them."""

import ssl
from typing import Any

import pytest

from owsgit.gateway import context
from owsgit.gateway.exchange import Client, Exchange, SocketEvent
from tests.support.authorities import Authority


@pytest.fixture
def exchange() -> Exchange:
    headers = [(b"user-agent", b"a\xff")]
    made = Exchange("GET", b"/", headers, None, Client("::1"), "http", "HTTP/1.1")  # type: ignore[arg-type]
    made.identity = {"apiKeyId": "alice"}
    made.facts = {"authorizer.error": "expired", "isCanaryRequest": "true"}
    return made


@pytest.mark.parametrize(
    ("authorizer", "name", "value"),
    [
        ({"sub": "a"}, "authorizer.sub", "a"),
        ({"jwt": {"claims": {"sub": "a"}}}, "authorizer.claims.sub", "a"),
        ({"lambda": {"tenant": 7}}, "authorizer.tenant", 7),
        ({"lambda": None, "jwt": "x"}, "authorizer.tenant", None),
        ({}, "authorizer.error", "expired"),
        ({}, "identity.apiKeyId", "alice"),
        ({}, "identity.sourceIp", "::1"),
        ({}, "identity.userAgent", "a\ufffd"),
        ({}, "isCanaryRequest", "true"),
        ({}, "there.is.none", None),
    ],
)
def test_a_variable_is_found_wherever_it_stands(
    exchange: Exchange, authorizer: dict[str, Any], name: str, value: Any
) -> None:
    exchange.authorizer = authorizer
    assert context.value(exchange, name) == value


def test_the_certificate_of_a_client(exchange: Exchange) -> None:
    names = [f"identity.clientCert.{name}" for name in ("subjectDN", "issuerDN", "validity.notAfter", "none")]
    assert [context.value(exchange, name) for name in names] == [None] * 4
    own, end, _ = Authority("Clients").issue("alice").decode().partition("-----END CERTIFICATE-----\n")
    exchange.client = Client("::1", certificate=ssl.PEM_cert_to_DER_cert(own + end))
    subject, issuer, ends, none = (context.value(exchange, name) for name in names)
    assert (subject, issuer, none) == ("CN=alice", "CN=Clients", None) and ends.endswith(" GMT")


def test_what_is_known_of_a_websocket(exchange: Exchange) -> None:
    names = ("connectionId", "eventType", "connectedAt", "messageId", "disconnectStatusCode")
    assert [context.value(exchange, name) for name in names] == [""] * 5
    exchange.socket = SocketEvent("MESSAGE", "abc=", 1700000000.5, "m")
    assert [context.value(exchange, name) for name in names] == ["abc=", "MESSAGE", "1700000000500", "m", ""]
