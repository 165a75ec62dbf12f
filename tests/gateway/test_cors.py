"""Cross-origin resource sharing, through real HTTP."""

import pytest

from owsgit.gateway.compression import Compression
from owsgit.gateway.cors import Cors, Sharing
from owsgit.gateway.exchange import Exchange, Headers, RefusedError, Response
from tests.gateway.served import Served

PAGE = "https://app.example.com"


async def answer(exchange: Exchange) -> Response:
    if exchange.path == "/refused":
        raise RefusedError(403, "Forbidden")
    return Response(200, [(b"access-control-allow-origin", b"https://other.example"), (b"x-own", b"1")], b"ok")


def shared(gateway: Served, sharing: Sharing) -> None:
    gateway.handle([("GET /{path}", answer)], observers=[Cors(sharing)])


def preflight(gateway: Served, origin: str = PAGE, path: str = "/there/is/none") -> dict[str, str]:
    headers = {"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "x-a, x-b"}
    response = gateway.client.options(path, headers=headers)
    assert response.status_code == 204 and response.content == b""
    return {name: value for name, value in response.headers.items() if name.startswith(("access", "vary"))}


def test_preflights_are_answered_for_every_path(gateway: Served) -> None:
    shared(gateway, Sharing([PAGE], ["GET", "PUT"], ["X-A", "X-B"], ["X-Own"], 600, credentials=True))
    assert preflight(gateway) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "X-A, X-B",
        "access-control-max-age": "600",
        "vary": "origin, access-control-request-method, access-control-request-headers",
    }
    assert set(preflight(gateway, "https://evil.example")) == {"vary"}
    assert gateway.client.options("/x").status_code == 404  # no preflight: it is routed


def test_responses_say_what_the_gateway_says_and_not_the_integration(gateway: Served) -> None:
    shared(gateway, Sharing([PAGE], exposed=["X-Own"]))
    for path, status in (("/x", 200), ("/refused", 403), ("/not/routed", 404)):
        response = gateway.client.get(path, headers={"origin": PAGE})
        assert response.status_code == status and response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-expose-headers"] == "X-Own" and response.headers["vary"] == "origin"
    for headers in ({}, {"origin": "https://evil.example"}):
        response = gateway.client.get("/x", headers=headers)
        assert "access-control-allow-origin" not in response.headers and response.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("own", "joined"),
    [
        ([], "Accept-Encoding, origin"),
        ([(b"vary", b"X-A, Origin"), (b"vary", b"x-a,accept-encoding")], "X-A, Origin, accept-encoding"),
        ([(b"vary", b"X-A, *")], "*"),
    ],
)
def test_there_is_one_vary_that_names_each_header_once(gateway: Served, own: Headers, joined: str) -> None:
    async def answer(exchange: Exchange) -> Response:
        return Response(200, [(b"content-type", b"text/plain"), *own], b"a" * 100)

    gateway.handle([("GET /{path}", answer)], [Compression(10, ("gzip",))], [Cors(Sharing([PAGE]))])
    response = gateway.client.get("/x", headers={"origin": PAGE})
    assert response.headers["content-encoding"] == "gzip" and response.headers.get_list("vary") == [joined]


def test_all_origins_methods_and_headers(gateway: Served) -> None:
    shared(gateway, Sharing(["*"], ["*"], ["*"]))
    told = preflight(gateway)
    assert told["access-control-allow-origin"] == "*" and told["access-control-allow-headers"] == "x-a, x-b"
    assert told["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert "vary" not in gateway.client.get("/x", headers={"origin": PAGE}).headers


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        ("https://*.example.com", PAGE, True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://a.example.com.evil.example", False),
        ("https://*.example.com", "https://evil.example/.example.com", False),
        ("https://*.example.com", "https://evil.example:443@a.example.com", False),
        ("https://*", "https://any.example:8443", True),
        ("https://*", "http://any.example", False),
        ("https://app.example.com", "https://appxexample.com", False),
        ("http://localhost:3000", "http://LOCALHOST:3000", True),
        ("null", "null", True),
    ],
)
def test_origins_with_a_star(gateway: Served, allowed: str, origin: str, is_allowed: bool) -> None:
    shared(gateway, Sharing([allowed]))
    response = gateway.client.get("/x", headers={"origin": origin})
    assert ("access-control-allow-origin" in response.headers) == is_allowed
