"""What a gateway's file may say of integrations and sharing, and what its handler makes of it."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, OwsgitError
from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import Answer, Invocation
from owsgit.model.state import State
from owsgit.services import KINDS
from owsgit.services.gateways.spec import GatewaySpec
from tests.support.nodes import free_port
from tests.support.sites import Result, Services


def parsed(routes: dict[str, Any], **more: Any) -> GatewaySpec:
    return GatewaySpec.parse(json.dumps({"port": 8080, "routes": routes, **more}).encode(), "gateways/api.json")


STAGES = {"blue": {"variables": {"host": "10.0.0.5:9000"}}, "green": {"variables": {"host": "10.0.0.6:9000"}}}


@pytest.mark.parametrize(
    ("key", "route", "more"),
    [
        (
            "ANY /a/{proxy+}",
            {"http": {"uri": "http://${stageVariables.host}/x/{proxy}?a={proxy+}"}},
            {"stages": STAGES},
        ),
        ("$default", {"http": {"uri": "https://[::1]:8443/{proxy}", "tls": {"verify": False}}}, {}),
        ("GET /a/{id}", {"http": {"uri": "http://127.0.0.1:9000/base"}, "rewrite": "/users/{id}"}, {}),
        ("GET /a", {"redirect": {"location": "/b#top"}}, {}),
        ("GET /a", {"response": {"body": {"price": "$5", "id": "$context.requestId"}}}, {}),
        ("GET /a/{rest+}", {"files": {"website": "www", "path": ".well-known/x", "spa": True}}, {}),
        ("POST /a", {"function": "f", "invocationType": "Event"}, {}),
        ("POST /a", {"invoke": {"kind": "function", "name": "f"}, "requestParameters": {"remove:header.x": ""}}, {}),
        ("GET /a", {"function": "f", "responseParameters": {"200": {"overwrite:statuscode": "201"}}}, {}),
    ],
)
def test_what_is_taken(key: str, route: dict[str, Any], more: dict[str, Any]) -> None:
    assert key in parsed({key: route}, **more).routes


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ({"http": {"uri": "http://{id}.example/"}}, "with parameters in path and query alone"),
        ({"http": {"uri": "http://a.example:{id}/"}}, "with parameters in path and query alone"),
        ({"http": {"uri": "http://user:pw@a.example/"}}, "is not http(s)://host:port/path"),
        ({"http": {"uri": "http://a.example/#x"}}, "is not http(s)://host:port/path"),
        ({"http": {"uri": "http://a.example/{other}"}}, "{other} is no parameter of this route; it has {id}"),
        ({"http": {"uri": "http://a.example/{id"}}, "a brace that belongs to no {parameter}"),
        (
            {"http": {"uri": "http://${stageVariables.none}/"}},
            "names a variable that the stage '$default' does not have",
        ),
        ({"http": {"uri": "http://169.254.169.254/latest/meta-data"}}, "no gateway connects to 169.254.169.254"),
        ({"http": {"uri": "http://[::ffff:169.254.169.254]/"}}, "no gateway connects to"),
        ({"http": {"uri": "http://[fd00:ec2::254]/"}}, "no gateway connects to"),
        ({"http": {"uri": "http://2852039166/"}}, "neither a name nor an IPv4 address"),
        ({"http": {"uri": "http://0xA9.254.0xa9fe/"}}, "neither a name nor an IPv4 address"),
        ({"http": {"uri": "http://a.example/", "retries": 6}}, "less than or equal to 5"),
        ({"http": {"uri": "https://a.example/", "tls": {"ca": "x"}}}, "ca is not a certificate in PEM"),
        ({"http": {"uri": "https://a.example/", "tls": {"ca": "x", "verify": False}}}, "of no use"),
        ({"http": {"uri": "http://a.example/{id}"}, "rewrite": "/{id}"}, "rewrite is added to it"),
        ({"http": {"uri": "http://a.example/"}, "invocationType": "Event"}, "is for function and invoke"),
        ({"response": {"statusCode": 199}}, "greater than or equal to 200"),
        ({"response": {"headers": {"X-A": "a\r\nb"}}}, "control character"),
        ({"response": {"headers": {"Content-Length": "1"}}}, "no header that a response can set"),
        ({"response": {"body": "%%%", "isBase64Encoded": True}}, "not base64"),
        ({"response": {"body": {"a": ["${context}"]}}}, "there is no variable 'context'"),
        ({"response": {"body": {"a": ["${context.requestid}"]}}}, "did you mean the variable 'requestId'"),
        ({"response": {"headers": {"x-a": "$context.nothing"}}}, "$context.nothing is not known"),
        (
            {"function": "f", "requestParameters": {"append:header.x": "a-${context.pathh}"}},
            "did you mean the variable 'path'",
        ),
        (
            {"function": "f", "responseParameters": {"200": {"overwrite:header.x": "$context.identity.ip"}}},
            "$context.identity.ip is not known",
        ),
        ({"response": {}, "rewrite": "/x"}, "rewrite is for function, invoke and http, not for response"),
        ({"response": {}, "requestParameters": {"remove:header.x": ""}}, "not for response: remove them"),
        ({"response": {}, "redirect": {"location": "/"}}, "this one has response and redirect"),
        ({"redirect": {"location": "https://{id}/x"}}, "in path and query alone"),
        ({"redirect": {"location": "https://a.example{id}"}}, "in path and query alone"),
        ({"redirect": {"location": "//{id}"}}, "which is another host"),
        ({"redirect": {"location": "javascript:alert(1)"}}, "redirect.location"),
        ({"redirect": {"location": "/", "statusCode": 300}}, "statusCode"),
        ({"files": {"website": "www", "path": "../x"}}, "files.path"),
        ({"files": {"website": "www", "path": "a/.git"}}, "files.path"),
        ({"function": "f", "rewrite": "/x/{none}"}, "{none} is no parameter"),
        ({"function": "f", "requestParameters": {"overwrite:path": "/x"}}, '"rewrite"'),
        ({"function": "f", "responseParameters": {"700": {}}}, "responseParameters"),
    ],
)
def test_what_is_refused(route: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parsed({"GET /a/{id}": route})
    assert says in " ".join(f"{each.path} {each.message}" for each in caught.value.problems)


@pytest.mark.parametrize(
    ("cors", "says"),
    [
        ({"allowOrigins": ["*"], "allowCredentials": True}, "browsers take no * in allowOrigins with allowCredentials"),
        ({"exposeHeaders": ["*"], "allowCredentials": True}, "browsers take no * in exposeHeaders"),
        ({"allowOrigins": ["https://a.example/path"]}, "allowOrigins"),
        ({"allowOrigins": ["a.example"]}, "allowOrigins"),
        ({"allowMethods": ["get"]}, "allowMethods"),
        ({"maxAge": 100_000}, "maxAge"),
    ],
)
def test_sharing_that_browsers_would_not_understand_is_refused(cors: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parsed({}, cors=cors)
    assert says in " ".join(f"{each.path} {each.message}" for each in caught.value.problems)


def test_the_example_of_the_how_to_is_taken() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/integrate-with-a-gateway.md").read_text()
    document = page.partition("```json\n")[2].partition("```")[0]
    assert len(GatewaySpec.parse(document.encode(), "gateways/shop.json").routes) == 7


def test_what_a_route_invokes_has_to_be_there_and_be_of_a_kind_that_there_is(tmp_path: Path) -> None:
    for route, says in [
        ({"invoke": {"kind": "functoin", "name": "f"}}, "there is no kind 'functoin' of resources"),
        ({"invoke": {"kind": "function", "name": "f"}}, "there is no function 'f'"),
        ({"files": {"website": "www"}}, "there is no website 'www'"),
    ]:
        with pytest.raises(InvalidError) as caught:
            State.empty(KINDS).after([_added(parsed({"GET /a": route}))])
        assert says in " ".join(each.message for each in caught.value.problems)


def test_publishing_a_website_needs_the_right_to() -> None:
    changes = {
        "ows:PublishWebsite": _added(parsed({"GET /a": {"files": {"website": "www"}}})),
        "lambda:AddPermission": _added(parsed({"GET /a": {"invoke": {"kind": "function", "name": "f"}}})),
    }
    for action, change in changes.items():
        needs = {need.action for need in change.needs(Scope("us-east-1", "1" * 12), KINDS)}
        assert needs == {"apigateway:POST", action}


def _added(spec: GatewaySpec) -> Change:
    return Change(None, Resource(KINDS["gateway"], "api", spec, "0" * 40))


class Running(Services):
    """Services in an event loop that goes on."""

    def __init__(self, home: Path) -> None:
        self._running = asyncio.new_event_loop()
        threading.Thread(target=self._running.run_forever, daemon=True).start()
        super().__init__(home)
        self.loop.close()
        self.loop = self._running

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._running).result(30)

    def close(self) -> None:
        async def end() -> None:
            for handler in reversed(self.handlers.values()):
                await handler.close()

        self.run(end())
        self._running.call_soon_threadsafe(self._running.stop)


class Greeter:
    """A service of another kind that can be invoked."""

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        return Answer(
            json.dumps({"statusCode": 200, "body": f"{name} {json.loads(invocation.payload)['rawPath']}"}).encode()
        )


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "home")
    yield made
    made.close()


def test_everything_of_a_gateways_file_is_served(services: Running) -> None:
    port, behind = free_port(), free_port()
    services.site.targets["greeter"] = Greeter()  # type: ignore[index]
    www = services.resource("website", "www", {}, **{"index.html": "<h1>one</h1>", "sub/a.txt": "a"})
    document = {
        "port": port,
        "cors": {"allowOrigins": ["https://app.example"], "allowMethods": ["*"]},
        "stages": {"$default": {"variables": {"behind": str(behind), "to": "b.example"}}},
        "routes": {
            "GET /": {"files": {"website": "www"}},
            "GET /www/{path+}": {"files": {"website": "www", "path": "sub", "cacheControl": "no-cache"}},
            "GET /hello/{name}": {
                "invoke": {"kind": "greeter", "name": "g"},
                "rewrite": "/greet/{name}",
                "responseParameters": {"200": {"append:header.x-stage": "$context.stage"}},
            },
            "GET /old/{proxy+}": {"redirect": {"location": "https://${stageVariables.to}/{proxy}", "statusCode": 301}},
            "GET /health": {"response": {"body": {"status": "ok", "id": "$context.requestId"}}},
            "GET /api/{id}": {"http": {"uri": "http://localhost:${stageVariables.behind}/v1"}, "rewrite": "/x/{id}"},
        },
    }
    services.apply(www)
    services.apply(services.resource("gateway", "api", document))
    behind_document = {"port": behind, "routes": {"$default": {"invoke": {"kind": "greeter", "name": "behind"}}}}
    services.apply(services.resource("gateway", "behind", behind_document))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/").text == "<h1>one</h1>" and client.head("/").headers["content-length"] == "12"
        assert client.get("/www/a.txt").text == "a" and client.get("/www/index.html").status_code == 404
        greeted = client.get("/hello/you")
        assert greeted.text == "g /greet/you" and greeted.headers["x-stage"] == "$default"
        assert client.get("/old/a?b=c").headers["location"] == "https://b.example/a?b=c"
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/api/7").text == "behind /v1/x/7"
        origin = {"origin": "https://app.example"}
        assert client.get("/none", headers=origin).headers["access-control-allow-origin"] == origin["origin"]
        changed = services.resource("website", "www", {}, **{"index.html": "<h1>two</h1>"})
        services.apply(changed)
        assert client.get("/").text == "<h1>one</h1>"  # until the gateway is deployed with it
        with pytest.raises(OwsgitError, match="the website www has no 'sub'"):
            services.apply(services.resource("gateway", "api", document))
        del document["routes"]["GET /www/{path+}"]  # type: ignore[attr-defined]
        services.apply(services.resource("gateway", "api", document))
        assert client.get("/").text == "<h1>two</h1>"


def test_what_cannot_be_invoked_is_told(services: Running) -> None:
    document = {"port": free_port(), "routes": {"GET /a": {"invoke": {"kind": "secret", "name": "s"}}}}
    with pytest.raises(InvalidError, match="a secret cannot be invoked"):
        services.apply(services.resource("gateway", "api", document))
