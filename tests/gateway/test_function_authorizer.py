"""Functions as authorizers: what they are asked, what their answers mean, and for how long."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from owsgit.gateway import function_authorizer
from owsgit.gateway.app import wrapped
from owsgit.gateway.exchange import Exchange, Response
from owsgit.gateway.function_authorizer import Asking, FunctionAuthorizer, Verdicts
from owsgit.gateway.identity import Identity, source
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import Scope
from owsgit.model.service import Answer, Invocation
from owsgit.services.gateways.authorization import arn_of, context_of
from owsgit.services.gateways.function_authorizers import matcher
from owsgit.services.gateways.spec import GatewaySpec
from tests.gateway.served import Served

SCOPE = Scope("us-east-1", "123456789012")
METHODS = "arn:aws:execute-api:us-east-1:123456789012:api/$default"


class Function:
    """A target that answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = {"isAuthorized": True}
        self.error: str | None = None
        self.asked: list[Any] = []
        self.go_on: asyncio.Event | None = None

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        self.asked.append(json.loads(invocation.payload))
        if self.go_on is not None:
            await self.go_on.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return Answer(self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode(), self.error)

    def logs(self, name: str) -> Path:
        raise NotImplementedError


async def show(exchange: Exchange) -> Response:
    return Response(200, [], json.dumps([exchange.authorizer, exchange.identity]).encode())


class Guarded:
    """A gateway whose routes ask a function."""

    def __init__(self, gateway: Served) -> None:
        self.gateway, self.function, self.verdicts = gateway, Function(), Verdicts()
        self.asking = Asking(
            "request",
            self.function,
            "authz",
            "2.0",
            Identity([source("$request.header.Authorization")]),
            True,
            300.0,
            5.0,
        )

    def serve(self, payload_version: str = "2.0", **changes: Any) -> None:
        asked = FunctionAuthorizer(
            "a", replace(self.asking, **changes), self.verdicts, lambda exchange: arn_of(exchange, SCOPE), context_of
        )
        steps = [asked.step(payload_version)]
        self.gateway.handle([(key, wrapped(show, steps)) for key in ("GET /a", "GET /b/{x}", "GET /c/{rest+}")])

    def get(self, path: str = "/a", token: str = "t", **options: Any) -> httpx.Response:
        return self.gateway.client.get(path, headers={"authorization": token} if token else {}, **options)


@pytest.fixture
def guarded(gateway: Served) -> Iterator[Guarded]:
    yield Guarded(gateway)


def policy(effect: str = "Allow", resource: Any = "*", **more: Any) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return {"principalId": "ann", "policyDocument": document, **more}


def test_a_simple_answer_says_yes_or_no_and_is_kept(guarded: Guarded) -> None:
    guarded.serve()
    guarded.function.answer = {"isAuthorized": True, "context": {"n": 1, "list": [1], "map": {"a": "b"}}}
    assert guarded.get().json() == [{"lambda": {"n": 1, "list": [1], "map": {"a": "b"}}}, {}]
    guarded.function.answer = {"isAuthorized": False}
    assert guarded.get("/b/1").status_code == 200, "the same identity"
    refused = guarded.get(token="other")
    assert (refused.status_code, refused.json()) == (403, {"message": "Forbidden"})
    assert len(guarded.function.asked) == 2
    asked = guarded.function.asked[0]
    assert asked["type"] == "REQUEST" and asked["version"] == "2.0" and asked["identitySource"] == ["t"]
    assert asked["routeArn"] == f"{METHODS}/GET/a" and asked["routeKey"] == "GET /a"
    assert asked["requestContext"]["http"]["method"] == "GET" and "body" not in asked


def test_who_shows_no_identity_gets_401_and_nobody_is_asked(guarded: Guarded) -> None:
    sources = [source(each) for each in ("$request.header.Authorization", "$request.querystring.q")]
    guarded.serve(identity=Identity(sources))
    for answer in (guarded.get(), guarded.get(token="", params={"q": "1"}), guarded.get(params={"q": ""})):
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})
    assert guarded.function.asked == []
    assert guarded.get(params={"q": "1"}).status_code == 200


def test_a_policy_decides_for_every_route_also_when_it_is_kept(guarded: Guarded) -> None:
    guarded.serve(simple=False)
    guarded.function.answer = policy(resource=f"{METHODS}/GET/b/*")
    assert guarded.get("/b/1").status_code == 200
    assert guarded.get("/a").status_code == 403 and len(guarded.function.asked) == 1
    guarded.function.answer = policy(resource=[f"{METHODS}/GET/c/*"])
    guarded.function.answer["policyDocument"]["Statement"].append(
        {"Action": "*", "Effect": "Deny", "Resource": f"{METHODS}/*/c/x"}
    )
    codes = {path: guarded.get(path, "u").status_code for path in ("/c/y", "/c/x", "/c/x/", "/c/%78", "/c/x%2Fy")}
    assert codes == {"/c/y": 200, "/c/x": 403, "/c/x/": 403, "/c/%78": 403, "/c/x%2Fy": 200}
    assert len(guarded.function.asked) == 2


def test_rest_apis_have_their_own_words_and_texts(guarded: Guarded) -> None:
    guarded.serve("1.0", simple=False, version="1.0")
    guarded.function.answer = policy(context={"n": 1.5, "yes": True, "s": "x"}, usageIdentifierKey="k")
    expected = {"n": "1.5", "yes": "true", "s": "x", "principalId": "ann"}
    assert guarded.get().json() == [expected, {"apiKey": "k"}]
    asked = guarded.function.asked[0]
    assert asked["methodArn"] == f"{METHODS}/GET/a" and asked["authorizationToken"] == asked["identitySource"] == "t"
    guarded.function.answer = policy("Deny")
    assert guarded.get(token="u").json() == {
        "Message": "User is not authorized to access this resource with an explicit deny"
    }
    guarded.function.answer = policy(resource=f"{METHODS}/GET/z")
    assert guarded.get(token="v").json() == {"Message": "User is not authorized to access this resource"}


def test_a_token_is_all_that_a_token_authorizer_sees(guarded: Guarded) -> None:
    identity = replace(guarded.asking.identity, valid=matcher("Bearer [a-z]+"))
    guarded.serve("1.0", kind="token", simple=False, version="1.0", identity=identity)
    guarded.function.answer = policy()
    assert guarded.get(token="Bearer abc").status_code == 200
    for wrong in ("Bearer", "Bearer ABC", "xBearer abc", "Bearer abcx1"):
        assert guarded.get(token=wrong).status_code == 401
    assert guarded.function.asked == [
        {"type": "TOKEN", "methodArn": f"{METHODS}/GET/a", "authorizationToken": "Bearer abc"}
    ]


@pytest.mark.parametrize(
    ("answer", "simple"),
    [
        (b"no JSON", True),
        ([], True),
        ({"isAuthorized": "true"}, True),
        ({}, True),
        ({"isAuthorized": True, "context": 1}, True),
        ({"principalId": "a"}, False),
        (policy("Perhaps"), False),
        (policy(resource="arn:*"), False),
        (policy(usageIdentifierKey=1), False),
        ({"isAuthorized": True}, False),
        (b'"' + b"x" * 40_000 + b'"', True),
        (UnavailableError("it is not running"), True),
    ],
)
def test_what_is_no_answer_lets_nobody_through_and_is_not_kept(guarded: Guarded, answer: Any, simple: bool) -> None:
    guarded.serve(simple=simple)
    guarded.function.answer = answer
    for n in (1, 2):
        failed = guarded.get()
        assert (failed.status_code, failed.json()) == (500, {"message": "Internal Server Error"})
        assert len(guarded.function.asked) == n


def test_what_the_function_throws_is_401_or_500(guarded: Guarded) -> None:
    guarded.serve()
    guarded.function.error = "Unhandled"
    guarded.function.answer = {"errorMessage": "Unauthorized", "errorType": "Exception"}
    assert guarded.get().status_code == 401
    guarded.function.answer = {"errorMessage": "oops", "errorType": "Exception"}
    assert guarded.get().status_code == 500
    guarded.function.error, guarded.function.go_on = None, asyncio.Event()
    guarded.serve(timeout=0.05)
    assert guarded.get().status_code == 500


def test_one_question_is_asked_for_all_who_show_the_same_at_once(guarded: Guarded) -> None:
    guarded.function.go_on = go_on = asyncio.Event()
    guarded.serve()

    async def ask() -> list[int]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{guarded.gateway.port}") as client:
            calls = [asyncio.ensure_future(client.get("/a", headers={"authorization": "t"})) for _ in range(20)]
            gone = asyncio.ensure_future(client.get("/a", headers={"authorization": "t"}))
            while not guarded.function.asked:
                await asyncio.sleep(0.01)
            gone.cancel()
            guarded.gateway.loop.call_soon_threadsafe(go_on.set)
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [200] * 20
    assert len(guarded.function.asked) == 1 and guarded.verdicts.asking == {}
    guarded.serve(ttl=0.0)
    assert [guarded.get().status_code for _ in range(2)] == [200, 200] and len(guarded.function.asked) == 3


def test_verdicts_are_bounded_in_number_in_bytes_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_authorizer, "CACHED_MAX", 3)
    monkeypatch.setattr(function_authorizer, "CACHED_BYTES_MAX", 100)
    kept, yes = Verdicts(), function_authorizer.Verdict(True)
    for n in range(5):
        kept.put(b"%d" % n, 10.0, 10, yes)
    assert [kept.get(b"%d" % n, 0.0) for n in range(5)] == [None, None, yes, yes, yes]
    kept.get(b"2", 0.0)
    kept.put(b"5", 10.0, 85, yes)
    assert len(kept) == 2 and kept.get(b"2", 0.0) is yes
    assert kept.get(b"2", 10.0) is None and len(kept) == 1


def spec(authorizer: dict[str, Any], **more: Any) -> GatewaySpec:
    document = {
        "port": 8080,
        "authorizers": {"a": authorizer},
        "auth": "a",
        "routes": {"GET /": {"function": "f"}},
        **more,
    }
    return GatewaySpec.parse(json.dumps(document).encode(), "gateways/api.json")


@pytest.mark.parametrize(
    ("authorizer", "told"),
    [
        ({"identitySource": ["$request.body"]}, "no identity source"),
        ({"identitySource": ["$context.nothing"]}, "$context. and one of path"),
        ({"identitySource": []}, "set resultTtl to 0"),
        ({"enableSimpleResponses": True, "payloadFormatVersion": "1.0"}, "needs payloadFormatVersion 2.0"),
        ({"resultTtl": 3601}, "less than or equal to 3600"),
        ({"type": "token", "identityValidationExpression": "(?=x)y"}, "no regular expression"),
        ({"type": "token", "identitySource": "$request.querystring.q"}, "a token is in a header"),
        ({"function": "${stageVariables.who}"}, "authorizer 'a': '${stageVariables.who}' names a variable"),
    ],
)
def test_a_mistake_is_told_in_words(authorizer: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        spec({"type": "request", "function": "authz", **authorizer})
    assert told in str(caught.value)


def test_the_function_of_an_authorizer_is_referred_to() -> None:
    found = spec({"type": "request", "function": "authz:live"}).references()
    assert [(each.kind, each.name, each.path) for each in found] == [
        ("function", "f", "$.routes['GET /'].function"),
        ("function", "authz", "$.authorizers.a.function"),
    ]
