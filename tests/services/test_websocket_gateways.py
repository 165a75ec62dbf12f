"""WebSocket APIs and streaming routes from their files: what is refused, and real functions behind real sockets."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from owsgit.model.errors import InvalidError
from owsgit.runtime.log_lines import message
from owsgit.runtime.log_reader import last_lines
from owsgit.services import KINDS
from tests.support import projects
from tests.support.nodes import free_port
from tests.support.sites import Services

ROUTE = {"function": "f"}
SOCKETS = {"protocol": "WEBSOCKET", "port": 80}


@pytest.mark.parametrize(
    ("document", "path", "told"),
    [
        ({"port": 80, "routes": {"$connect": ROUTE}}, "$.routes.$connect", 'add "protocol": "WEBSOCKET"'),
        ({"port": 80, "routes": {}, "webSocket": {}}, "$.webSocket", "webSocket is for WebSocket APIs"),
        (
            {"port": 80, "routes": {}, "routeSelectionExpression": "$request.body.a"},
            "$.routeSelectionExpression",
            "routeSelectionExpression is",
        ),
        (
            {"port": 80, "routes": {"GET /": {**ROUTE, "routeResponse": True}}},
            "$.routes.GET /",
            "'GET /': routeResponse is for",
        ),
        ({**SOCKETS, "routes": {"$odd": ROUTE}}, "$.routes.$odd", "$connect, $disconnect, $default"),
        ({**SOCKETS, "routes": {"x" * 129: ROUTE}}, f"$.routes.{'x' * 129}", "1 to 128 printable characters"),
        (
            {**SOCKETS, "routes": {"x": {**ROUTE, "responseTransferMode": "STREAM"}}},
            "$.routes.x",
            "a message is sent whole",
        ),
        (
            {**SOCKETS, "routes": {"$connect": {**ROUTE, "routeResponse": True}}},
            "$.routes.$connect",
            "nobody hears its response",
        ),
        ({**SOCKETS, "routes": {}, "routeSelectionExpression": "$request.header.x"}, "$.routeSelectionExpression", ""),
        ({**SOCKETS, "routes": {}, "webSocket": {"idleTimeout": 0}}, "$.webSocket.idleTimeout", ""),
    ],
)
def test_what_a_protocol_has_not_is_refused_with_its_place(document: Any, path: str, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        KINDS["gateway"].spec.parse(json.dumps(document).encode(), "gateways/x.json")
    found = [(problem.path, problem.message) for problem in caught.value.problems]
    assert any(place.replace("['", ".").replace("']", "") == path and told in text for place, text in found), found


CHAT = """
import json
seen = []

def handler(event, context):
    about = event["requestContext"]
    if about["eventType"] == "CONNECT":
        query = event.get("queryStringParameters") or {}
        return {"statusCode": 200 if query.get("name") else 401}
    if about["eventType"] == "DISCONNECT":
        print("left", about["disconnectStatusCode"])
        return {}
    return {"statusCode": 200, "body": json.dumps({"VERSION": about["routeKey"], "said": event["body"]})}
"""
EVENTS = "def handler(event, context):\n    yield {'statusCode': 202}\n    yield 'one'\n    yield 'two'\n"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path)
    yield made
    made.close()


def test_a_conversation_outlives_deployments_and_ends_with_its_gateway(services: Services) -> None:
    gateways, functions = services.handlers["gateway"], services.handlers["function"]
    port = free_port()
    chat = {
        "protocol": "WEBSOCKET",
        "port": port,
        "routeSelectionExpression": "${request.body.to.do}",
        "routes": {
            "$connect": {"function": "chat"},
            "$disconnect": {"function": "chat"},
            "$default": {"function": "chat", "routeResponse": True},
            "shout": {"function": "chat", "routeResponse": True},
            "once": {"response": {}, "routeResponse": True, "throttle": {"rate": 0.001, "burst": 1}},
        },
    }

    def function(word: str) -> Any:
        return services.resource(
            "function", "chat", projects.function(timeout=20), **{"app.py": CHAT.replace("VERSION", word)}
        )

    async def converse() -> None:
        await functions.apply(function("one"), "a" * 40)
        applied = await gateways.apply(services.resource("gateway", "chat", chat), "a" * 40)
        assert applied.urls == (f"ws://127.0.0.1:{port}",)
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/", proxy=None)
        assert refused.value.response.status_code == 401
        client = await connect(f"ws://127.0.0.1:{port}/?name=ada", proxy=None)

        async def told(message: str) -> Any:
            await client.send(message)
            return json.loads(await asyncio.wait_for(client.recv(), 20))

        assert await told("hi") == {"one": "$default", "said": "hi"}
        assert (await told('{"to": {"do": "shout"}}'))["one"] == "shout"
        await client.send('{"to": {"do": "once"}}')  # its answer is empty, and not sent
        assert (await told('{"to": {"do": "once"}}'))["message"] == "Too Many Requests"
        assert gateways.details("chat")["connections"] == 1
        await functions.apply(function("two"), "b" * 40)
        del chat["routes"]["shout"]  # type: ignore[attr-defined]
        await gateways.apply(services.resource("gateway", "chat", chat), "b" * 40)
        assert (await told('{"to": {"do": "shout"}}'))["two"] == "$default"
        await gateways.delete("chat")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001

    services.run(converse())


def test_what_happens_on_connections_is_logged_and_counted(services: Services) -> None:
    gateways, functions = services.handlers["gateway"], services.handlers["function"]
    port = free_port()
    names = ("eventType", "routeKey", "messageDirection", "httpMethod", "status", "responseLength", "error.message")
    chat = {
        "protocol": "WEBSOCKET",
        "port": port,
        "accessLog": {"format": {name: f"$context.{name}" for name in (*names, "connectionId", "integrationLatency")}},
        "routes": {
            "$disconnect": {"function": "chat"},
            "shout": {"function": "chat", "routeResponse": True},
            "fails": {"function": "fails"},
            "once": {"response": {}, "throttle": {"rate": 0.001, "burst": 1}},
        },
    }
    fails = "def handler(event, context):\n    raise ValueError\n"

    async def converse() -> list[Any]:
        for name, code in (("chat", CHAT), ("fails", fails)):
            await functions.apply(
                services.resource("function", name, projects.function(), **{"app.py": code}), "a" * 40
            )
        await gateways.apply(services.resource("gateway", "chat", chat), "a" * 40)
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
            for action in ("shout", "odd", "fails", "once", "once"):
                await client.send(json.dumps({"action": action}))
                if action != "once":
                    await asyncio.wait_for(client.recv(), 20)
            told = json.loads(await asyncio.wait_for(client.recv(), 20))
        lines: list[Any] = []
        while len(lines) < 7:
            await asyncio.sleep(0.05)
            lines = [json.loads(message(line)) for line in last_lines(gateways.logs("chat"), 100_000)]
        assert {line.pop("connectionId") for line in lines} == {told["connectionId"]}
        assert [line.pop("integrationLatency") != "-" for line in lines] == [
            False,
            True,
            False,
            True,
            True,
            False,
            True,
        ]
        return lines

    found = services.run(converse())
    assert [tuple(line[name] for name in names) for line in found] == [
        ("CONNECT", "$connect", "IN", "GET", 200, 0, "-"),
        ("MESSAGE", "shout", "IN", "-", 200, len(json.dumps({"VERSION": "shout", "said": '{"action": "shout"}'})), "-"),
        ("MESSAGE", "-", "IN", "-", 403, found[2]["responseLength"], "Forbidden"),
        ("MESSAGE", "fails", "IN", "-", 500, found[3]["responseLength"], "Internal Server Error"),
        ("MESSAGE", "once", "IN", "-", 200, 0, "-"),
        ("MESSAGE", "once", "IN", "-", 429, found[5]["responseLength"], "Too Many Requests"),
        ("DISCONNECT", "$disconnect", "IN", "-", 200, 0, "-"),
    ]
    counted = gateways.details("chat")
    assert (counted["requests"], counted["4xx"], counted["5xx"]) == (7, 2, 1)


GUARD = """
import json

def handler(event, context):
    about = event["requestContext"]
    assert (about["eventType"], about["routeKey"]) == ("CONNECT", "$connect") and about["connectionId"], about
    token = event["queryStringParameters"]["token"]
    statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": event["methodArn"]}
    if token != "ann":
        statement["Effect"] = "Deny"
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return {"principalId": token, "policyDocument": document, "context": {"tenant": 7}}
"""


def test_an_authorizer_is_asked_as_on_aws_and_what_it_says_stands_in_all_events(services: Services) -> None:
    gateways, functions = services.handlers["gateway"], services.handlers["function"]
    port = free_port()
    told = "import json\n\ndef handler(event, context):\n"
    told += "    return {'statusCode': 200, 'body': json.dumps(event['requestContext']['authorizer'])}\n"
    chat = {
        "protocol": "WEBSOCKET",
        "port": port,
        "authorizers": {
            "guard": {"type": "request", "function": "guard", "identitySource": ["route.request.querystring.token"]}
        },
        "auth": "guard",
        "routes": {
            "$connect": {"function": "told"},
            "$default": {"function": "told", "routeResponse": True},
        },
    }

    async def converse() -> None:
        for name, code in (("guard", GUARD), ("told", told)):
            resource = services.resource("function", name, projects.function(timeout=20), **{"app.py": code})
            await functions.apply(resource, "a" * 40)
        await gateways.apply(services.resource("gateway", "chat", chat), "a" * 40)
        for query, status in (("", 401), ("?token=bob", 403)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/{query}", proxy=None)
            assert refused.value.response.status_code == status
        client = await connect(f"ws://127.0.0.1:{port}/?token=ann", proxy=None)
        await client.send("hi")
        assert json.loads(await asyncio.wait_for(client.recv(), 20)) == {"principalId": "ann", "tenant": "7"}
        await client.close()

    services.run(converse())


def test_a_streaming_route_streams(services: Services) -> None:
    gateways, functions = services.handlers["gateway"], services.handlers["function"]
    port = free_port()
    routes = {"GET /s": {"function": "f", "responseTransferMode": "STREAM"}, "GET /b": {"function": "f"}}

    async def ask() -> None:
        resource = services.resource("function", "f", projects.function(timeout=20), **{"app.py": EVENTS})
        await functions.apply(resource, "a" * 40)
        await gateways.apply(services.resource("gateway", "api", {"port": port, "routes": routes}), "a" * 40)
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/s")
            assert (answer.status_code, answer.text) == (202, "onetwo")
            assert answer.headers["transfer-encoding"] == "chunked"
            answer = await client.get(f"http://127.0.0.1:{port}/b")
            assert answer.status_code == 500, "what a function streams is no answer of a route that does not"

    services.run(ask())
