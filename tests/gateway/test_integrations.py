"""Fixed responses, redirects, events, rewritten paths and mapped parameters, through real HTTP."""

import json
import re
from typing import Any

import pytest

from owsgit.gateway.exchange import Exchange, Handler, Mount, Response
from owsgit.gateway.fixed import FixedResponse, Redirect
from owsgit.gateway.functions import EventIntegration, FunctionIntegration
from owsgit.gateway.mapping import Changes, Shown, answered
from owsgit.gateway.table import parse_key
from owsgit.gateway.template import PathTemplate
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.service import Invocation
from tests.gateway.served import Echo, Served, raw

MOUNT = Mount("api", "123456789012", "prod", (), {"color": "blue"})


async def show(exchange: Exchange) -> Response:
    """What an integration is shown."""
    headers = [[name.decode(), value.decode("utf-8", "replace")] for name, value in exchange.headers]
    seen = {"path": exchange.path, "query": exchange.query, "headers": headers}
    return Response(200, [(b"content-type", b"application/json"), (b"x-a", b"1")], json.dumps(seen).encode())


def shown(gateway: Served, key: str, changes: dict[str, str], path: str | None = None) -> None:
    template = None if path is None else PathTemplate(path, parse_key(key))
    step = Shown(template, Changes.of(changes, "request"))
    gateway.handle([(key, step(show))], mount=MOUNT)


def fixed(gateway: Served, handler: Handler, key: str = "GET /a/{id}") -> None:
    gateway.handle([(key, handler)], mount=MOUNT)


def test_fixed_responses(gateway: Served) -> None:
    fixed(gateway, FixedResponse(418, {"X-A": "b", "Content-Type": "text/plain"}, b"I am ${context.stage}"))
    response = gateway.client.get("/a/x")
    assert response.status_code == 418 and response.headers["x-a"] == "b" and response.text == "I am ${context.stage}"
    fixed(gateway, FixedResponse(204, {}, b""))
    assert gateway.client.get("/a/x").status_code == 204


def test_what_a_client_wrote_is_safe_in_a_fixed_response(gateway: Served) -> None:
    body = {"id": "${request.path.id}", "more": [{"stage": "$context.stage"}, 1, "price: $5"], "fixed": {"a": None}}
    fixed(gateway, FixedResponse(200, {"X-Q": "q=${request.querystring.q}", "X-R": "$context.requestId"}, body))
    response = gateway.client.get("/a/%22%7D%3Cscript%3E?q=%C3%A9", headers={"x-own": "1"})
    assert response.json() == {"id": '"}<script>', "more": [{"stage": "prod"}, 1, "price: $5"], "fixed": {"a": None}}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-q"] == "q=é"
    assert response.headers["x-r"] == response.headers["apigw-requestid"]
    assert gateway.client.get("/a/x?q=%0D%0ASet-Cookie:%20a=1").status_code == 400


@pytest.mark.parametrize(
    ("location", "target", "found"),
    [
        ("https://x.example/new/{proxy}", "/old/a/b%2Fc?q=1", "https://x.example/new/a/b%2Fc?q=1"),
        ("https://x.example/{proxy}?fixed=1#top", "/old/a?q=1", "https://x.example/a?fixed=1&q=1#top"),
        ("https://x.example/?next={proxy}", "/old/a&b=c%3D", "https://x.example/?next=a%26b%3Dc%3D"),
        ("/new/{proxy}", "/old/%40evil.example", "/new/@evil.example"),
        ("/{proxy}", "/old//evil.example/x", "/evil.example/x"),
        ("/{proxy}", "/old/%5C%5Cevil.example", "/%5C%5Cevil.example"),
        ("/{proxy}", "/old/a%0D%0Ab", None),
        ("/{proxy}", "/old/%2Fevil.example", "/%2Fevil.example"),
    ],
)
def test_redirects(gateway: Served, location: str, target: str, found: str | None) -> None:
    key = "ANY /old/{proxy+}"
    gateway.handle([(key, Redirect(PathTemplate(location, parse_key(key)), 308, keep_query=True))])
    answer = raw(gateway.port, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    if found is None:
        assert answer.startswith(b"HTTP/1.1 400 ")
    else:
        assert answer.startswith(b"HTTP/1.1 308 ") and f"location: {found}\r\n".encode() in answer


class Queue(Echo):
    """A target that keeps what is enqueued."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, dict[str, Any]]] = []

    async def enqueue(self, name: str, invocation: Invocation, **_: Any) -> str:
        if name == "large":
            raise InvalidError("the payload has too many bytes")
        if name == "full":
            raise UnavailableError("the disk is full")
        self.kept.append((name, json.loads(invocation.payload)))
        return invocation.request_id


def test_events_are_accepted_and_made_later(gateway: Served) -> None:
    queue = Queue()
    routes = [(f"POST /{name}", EventIntegration(queue, name, "2.0")) for name in ("f", "large", "full")]
    gateway.handle(routes)
    response = gateway.client.post("/f", json={"a": 1})
    assert response.status_code == 202 and response.json() == {"requestId": response.headers["apigw-requestid"]}
    name, event = queue.kept[0]
    assert name == "f" and json.loads(event["body"]) == {"a": 1} and event["routeKey"] == "POST /f"
    assert gateway.client.post("/large").status_code == 413
    assert gateway.client.post("/full").json() == {"message": "Service Unavailable"}


def test_rewritten_paths(gateway: Served) -> None:
    shown(gateway, "GET /users/{id}/{rest+}", {}, "/internal/{rest}/of/{id}")
    assert gateway.client.get("/users/a%2Fb/c/d/?q=1").json()["path"] == "/internal/c/d//of/a/b"
    shown(gateway, "$default", {}, "/all/{proxy}")
    assert gateway.client.get("/x/y").json()["path"] == "/all/x/y"


def test_functions_of_format_1_see_a_rewritten_path_encoded(gateway: Served) -> None:
    key = "GET /users/{id}"
    step = Shown(PathTemplate("/internal/{id}", parse_key(key)), Changes.of({}, "request"))
    gateway.handle([(key, step(FunctionIntegration(Echo(), "echo", "1.0", 5.0)))], mount=MOUNT)
    event = gateway.client.get("/users/a%2Fb%20c").json()
    assert event["path"] == event["requestContext"]["path"] == "/internal/a%2Fb%20c"
    assert event["pathParameters"] == {"id": "a%2Fb%20c"}


def test_requests_are_mapped(gateway: Served) -> None:
    shown(
        gateway,
        "POST /users/{id}",
        {
            "append:header.x-more": "$request.header.x-one",
            "overwrite:header.x-all": "${request.path.id}-${context.stage}-$5",
            "remove:header.x-gone": "",
            "overwrite:querystring.user": "$request.body.user.name",
            "append:querystring.tag": "$stageVariables.color",
            "remove:querystring.secret": "''",
            "append:header.x-path": "$request.path",
            "append:header.x-q": "$request.querystring.q",
            "append:header.x-none": "$request.body.none.at.all",
        },
    )
    response = gateway.client.post(
        "/users/7?q=1&q=%202&secret=x&user=old&%73ecret=y&tag=red",
        json={"user": {"name": "a&b"}},
        headers=[("x-one", "1"), ("x-one", "2"), ("x-more", "0"), ("x-gone", "1"), ("x-all", "1"), ("x-all", "2")],
    )
    seen = response.json()
    assert seen["query"] == "q=1&q=%202&tag=red&user=a%26b&tag=blue" and seen["path"] == "/users/7"
    found = [tuple(pair) for pair in seen["headers"] if pair[0].startswith("x-")]
    assert sorted(found) == [
        ("x-all", "7-prod-$5"), ("x-more", "0"), ("x-more", "1,2"), ("x-none", ""), ("x-one", "1"), ("x-one", "2"),
        ("x-path", "/users/7"), ("x-q", "1, 2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("authorizer", "name"),
    [
        ({"claims": {"sub": "ann"}}, "claims.sub"),
        ({"jwt": {"claims": {"sub": "ann"}}}, "claims.sub"),
        ({"lambda": {"user": "ann"}}, "user"),
        ({"user": "ann"}, "user"),
    ],
)
def test_what_an_authorizer_found_can_be_mapped(gateway: Served, authorizer: dict[str, Any], name: str) -> None:
    async def authorized(exchange: Exchange) -> Response:
        exchange.authorizer = authorizer
        return await step(show)(exchange)

    changes = {
        "overwrite:header.x-user": f"$context.authorizer.{name}",
        "append:header.x-none": "$context.authorizer.a",
    }
    step = Shown(None, Changes.of(changes, "request"))
    gateway.handle([("GET /a", authorized)])
    headers = gateway.client.get("/a", headers={"x-user": "forged"}).json()["headers"]
    assert [pair for pair in headers if pair[0].startswith("x-")] == [["x-user", "ann"], ["x-none", ""]]


def test_a_mapped_value_cannot_become_a_second_header(gateway: Served) -> None:
    shown(gateway, "GET /a", {"append:header.x": "$request.querystring.q"})
    assert gateway.client.get("/a?q=1%0d%0ahost:%20evil").status_code == 400


def test_responses_are_mapped_by_their_status(gateway: Served) -> None:
    changes = {
        "overwrite:statuscode": "203",
        "append:header.x-b": "$response.header.x-a",
        "remove:header.x-a": "",
        "overwrite:header.x-id": "$context.requestId",
    }
    step = answered({200: Changes.of(changes, "response")})
    gateway.handle([("GET /a", step(show)), ("GET /b", step(FixedResponse(201, {"x-a": "1"}, b"")))])
    response = gateway.client.get("/a")
    assert response.status_code == 203 and response.headers["x-b"] == "1" and "x-a" not in response.headers
    assert response.headers["x-id"] == response.headers["apigw-requestid"]
    assert gateway.client.get("/b").headers["x-a"] == "1"


@pytest.mark.parametrize(
    ("key", "value", "side", "says"),
    [
        ("add:header.x", "1", "request", "neither append|overwrite|remove:header.NAME"),
        ("overwrite:path", "/x", "request", '"rewrite"'),
        ("overwrite:header.Content-Length", "1", "request", "cannot be set"),
        ("overwrite:header.a b", "1", "request", "cannot be set"),
        ("append:statuscode", "200", "response", "needs a status"),
        ("overwrite:statuscode", "99", "response", "needs a status"),
        ("append:querystring.a", "1", "response", "neither"),
        ("append:header.x", "$request.cookie.a", "request", "there is no variable"),
        ("append:header.x", "$response.header.a", "request", "there is no variable"),
        ("append:header.x", "a ${context} b", "request", "there is no variable"),
    ],
)
def test_mappings_that_there_are_not(key: str, value: str, side: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Changes.of({key: value}, side)
