"""WebSocket APIs through real WebSockets, in front of a target that is a small real class."""

import asyncio
import base64
import json
import os
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Queue
from typing import Any

import boto3
import httpx
import pytest
import uvloop
from botocore.config import Config
from botocore.exceptions import ClientError
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from owsgit.gateway import throttle
from owsgit.gateway.app import Api, wrapped
from owsgit.gateway.exchange import Exchange, Handler, Mount, RefusedError, Response
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.limits import Limits, Rate
from owsgit.gateway.socket_api import MESSAGES_AT_ONCE, Deployed, Selection, SocketRoute, WebSocketApi
from owsgit.gateway.socket_api import closed as forbidden
from owsgit.gateway.socket_protocol import PIECE_BYTES, BoundedSocketProtocol
from owsgit.gateway.sockets import Connections, Outcome, SocketLimits
from owsgit.gateway.throttle import Bucket, throttled
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from tests.gateway.served import Served
from tests.support.nodes import until

Answering = Callable[[str, dict[str, Any]], Any]
LIMITS = SocketLimits()


class Target:
    """Answers with what the test says of a function and its event; keeps all events."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.events: Queue[dict[str, Any]] = Queue()

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        event = json.loads(invocation.payload)
        self.events.put(event)
        answer = self._answering(name, event)
        return answer if isinstance(answer, Answer) else Answer(json.dumps(answer).encode())

    def event(self) -> dict[str, Any]:
        return self.events.get(timeout=10)


class Sockets:
    """A gateway's WebSocket API at /, or at another base path."""

    def __init__(self, gateway: Served) -> None:
        self._gateway = gateway
        self.port = gateway.port
        self.forwarded: list[tuple[str, dict[str, str], bytes]] = []
        self.deployed = Deployed(Connections("here", self._forward))

    async def _forward(self, node: str, fields: Any, body: bytes) -> Outcome:
        self.forwarded.append((node, dict(fields), body))
        if node == "down":
            raise UnavailableError("down is not connected")
        return Outcome(200, b'{"there": 1}')

    def serve(
        self,
        target: Target,
        *keys: str,
        two_way: tuple[str, ...] = (),
        base_path: tuple[str, ...] = (),
        handlers: dict[str, SocketRoute] | None = None,
        limits: SocketLimits = LIMITS,
        timeout: float = 5.0,
        **options: Any,
    ) -> WebSocketApi:
        def integration(name: str, read: bool) -> Handler:
            any_target: Any = target
            return FunctionIntegration(any_target, name, "1.0" if read else "2.0", timeout)

        routes = {
            key: SocketRoute(integration(key, key == "$connect" or key in two_way), key in two_way)
            for key in (*keys, *two_way)
        }
        options.setdefault("manage_steps", ())
        mount = Mount("chat", "123456789012", base_path[0] if base_path else "$default", (), {"color": "red"})
        made = WebSocketApi(
            mount, {**routes, **(handlers or {})}, self.deployed, Selection(["action"]), limits, **options
        )
        self._gateway.do(
            self._gateway.listeners.serve("chat", self.port, [Binding(ANY_HOST, base_path, made.below(base_path))])
        )
        self._gateway.loop.call_soon_threadsafe(self.deployed.deploy, "chat", {mount.stage: made})
        return made

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.port}{path}", **{"compression": None, "proxy": None, "legacy": True, **options}
        )

    def now(self, act: Callable[[], Any]) -> Any:
        async def do() -> Any:
            return act()

        return self._gateway.do(do())

    def management(self, path: str = "") -> Any:
        return boto3.client(
            "apigatewaymanagementapi", endpoint_url=f"http://127.0.0.1:{self.port}{path}", region_name="us-east-1",
            aws_access_key_id="AKIA", aws_secret_access_key="x", config=Config(retries={"max_attempts": 0}),
        )  # fmt: skip


def nothing(name: str, event: dict[str, Any]) -> Any:
    return {"statusCode": 200}


LOOPS = [pytest.param(uvloop.new_event_loop, id="uvloop"), pytest.param(asyncio.new_event_loop, id="asyncio")]
"""Nodes have uvloop's, whose transports are stricter."""


@pytest.fixture(params=LOOPS)
def ws(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    gateway = Served(request.param)
    yield Sockets(gateway)
    gateway.close()


def said(client: ClientConnection) -> Any:
    return json.loads(client.recv(timeout=10))


def closed(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=10)
    frame = caught.value.rcvd
    assert frame is not None
    return frame.code, frame.reason


def test_an_upgrade_waits_for_the_responses_before_it(ws: Sockets) -> None:
    async def slowly(exchange: Exchange) -> Response:
        await exchange.read()
        await asyncio.sleep(0.3)
        return Response(200, [], b"slow")

    both = Api(Mount("api", "1"), [("POST /slow", slowly)])
    target = Target(nothing)
    chat = ws.serve(target, "$default")
    bindings = [Binding(ANY_HOST, (), both), Binding(ANY_HOST, ("chat",), chat.below(("chat",)))]
    ws._gateway.do(ws._gateway.listeners.serve("chat", ws.port, bindings))
    slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    upgrade = (
        b"GET /chat HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", ws.port), 5) as client:
        client.sendall(slow + slow + upgrade)
        got = b""
        while b"101 Switching" not in got:
            piece = client.recv(65536)
            assert piece, got
            got += piece
        assert re.findall(rb"HTTP/1.1 (\d+)", got) == [b"200", b"200", b"101"]
        client.sendall(b"\x81\x84xxxx" + bytes(each ^ ord("x") for each in b"hey!"))
        assert target.event()["body"] == "hey!"


def test_a_conversation_has_awss_events(ws: Sockets) -> None:
    target = Target(nothing)
    ws.serve(target, "$connect", "$disconnect", "$default", "join")
    client = ws.connect("/?room=1&room=2", additional_headers={"X-One": "1"}, user_agent_header="tester")
    event = target.event()
    context = event["requestContext"]
    assert event["queryStringParameters"] == {"room": "2"} and event["headers"]["X-One"] == "1"
    assert event["multiValueQueryStringParameters"] == {"room": ["1", "2"]} and event["isBase64Encoded"] is False
    assert event["stageVariables"] == {"color": "red"} and "body" not in event
    assert context["routeKey"] == "$connect" and context["eventType"] == "CONNECT"
    assert context["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "tester"}
    assert (context["apiId"], context["stage"], context["domainName"]) == ("chat", "$default", "127.0.0.1")
    assert context["messageDirection"] == "IN" and context["requestId"] and context["connectedAt"] > 1e12
    connection_id = context["connectionId"]

    for message, route in [('{"action": "join", "n": 1}', "join"), ('{"action": "x"}', "$default"), ("no JSON", "$default"), ("[1]", "$default"), ('{"action": "$connect"}', "$default")]:  # fmt: skip
        client.send(message)
        event = target.event()
        assert event["requestContext"]["routeKey"] == route and event["body"] == message
        assert event["requestContext"]["eventType"] == "MESSAGE" and event["requestContext"]["messageId"]
        assert event["requestContext"]["connectionId"] == connection_id
    client.send(b"\xff\x00")
    event = target.event()
    assert event["isBase64Encoded"] is True and base64.b64decode(event["body"]) == b"\xff\x00"
    client.close(4001, "bye")
    context = target.event()["requestContext"]
    assert (context["eventType"], context["routeKey"]) == ("DISCONNECT", "$disconnect")
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (4001, "bye")


def test_connect_decides(ws: Sockets) -> None:
    answers: dict[str, Any] = {}
    target = Target(lambda name, event: answers[event["queryStringParameters"]["as"]])
    ws.serve(target, "$connect", "$default")
    answers |= {
        "yes": {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "v2"}},
        "no": {"statusCode": 401, "headers": {"www-authenticate": "Bearer"}, "body": "who?"},
        "odd": {"hello": 1},
        "broken": Answer(b"{}", "Unhandled"),
    }
    with ws.connect("/?as=yes", subprotocols=["v1", "v2"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "v2"
    for how, status in [("no", 401), ("odd", 502), ("broken", 502)]:
        with pytest.raises(InvalidStatus) as caught:
            ws.connect(f"/?as={how}")
        assert caught.value.response.status_code == status
        if how == "no":
            assert caught.value.response.body == b"who?"
            assert caught.value.response.headers["www-authenticate"] == "Bearer"


def test_the_steps_of_a_stage_and_of_connect_see_the_handshake(ws: Sockets) -> None:
    seen: list[str] = []

    def step(name: str) -> Any:
        def made(inner: Handler) -> Handler:
            async def wrapper(exchange: Exchange) -> Response:
                seen.append(f"{name} {exchange.route_key} {exchange.query}")
                if name == "route" and exchange.query == "bad":
                    raise RefusedError(403, "Forbidden", "ACCESS_DENIED")
                exchange.authorizer = {"principalId": "anna"}
                return await inner(exchange)

            return wrapper

        return made

    target = Target(nothing)
    ws.serve(target, "$default", observers=[step("observer")], steps=[step("stage")], connect_steps=[step("route")])
    with pytest.raises(InvalidStatus) as caught:
        ws.connect("/?bad")
    assert caught.value.response.status_code == 403 and json.loads(caught.value.response.body or b"") == {
        "message": "Forbidden"
    }
    assert seen == ["observer  bad", "stage  bad", "route $connect bad"]
    with ws.connect() as client:
        client.send("hi")
        assert target.event()["requestContext"]["authorizer"] == {"principalId": "anna"}
    assert len(seen) == 6, "messages are not authorized again"


def test_a_two_way_route_answers(ws: Sockets) -> None:
    answers = {
        "text": {"statusCode": 200, "body": "hällo"},
        "binary": {"statusCode": 200, "body": "/w==", "isBase64Encoded": True},
        "empty": {"statusCode": 200},
        "odd": {"body": "no status"},
        "long": {"statusCode": 200, "body": "x" * (128 * 1024 + 1)},
        "fails": Answer(b"{}", "Unhandled"),
    }
    ws.serve(Target(lambda name, event: answers[name]), two_way=tuple(answers))
    with ws.connect() as client:
        for name in ("empty", "text"):
            client.send(json.dumps({"action": name}))
        assert client.recv(timeout=10) == "hällo"
        client.send(json.dumps({"action": "binary"}))
        assert client.recv(timeout=10) == b"\xff"
        for name in ("odd", "long", "fails"):
            client.send(json.dumps({"action": name}))
            told = said(client)
            assert told["message"] == "Internal server error" and told["connectionId"] and told["requestId"]


def test_other_integrations_answer_too(ws: Sockets) -> None:
    async def echo(exchange: Exchange) -> Response:
        return Response(200, [], await exchange.read())

    async def pieces(exchange: Exchange) -> Response:
        async def body() -> Any:
            yield b"one"
            yield b"two"

        return Response(200, [], body())

    routes = {"$default": SocketRoute(echo, True), "pieces": SocketRoute(pieces, True)}
    ws.serve(Target(nothing), handlers=routes)
    with ws.connect() as client:
        client.send("hi")
        assert client.recv(timeout=10) == "hi"
        client.send('{"action": "pieces"}')
        assert client.recv(timeout=10) == "onetwo"


def test_a_body_that_nobody_gets_is_let_go_of(ws: Sockets) -> None:
    """It may be a connection to the service that answered."""
    closed = []

    class Kept:
        """A body that somebody else knows."""

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            return b"more"

        async def aclose(self) -> None:
            closed.append(self)

    async def answers(exchange: Exchange) -> Response:
        return Response(200, [], Kept())

    ws.serve(Target(nothing), handlers={"$connect": SocketRoute(answers), "$default": SocketRoute(answers)})
    with ws.connect() as client:
        until(lambda: len(closed) == 1)
        client.send("something")
        until(lambda: len(closed) == 2)


def test_errors_are_told_in_awss_words(ws: Sockets) -> None:
    async def slow(exchange: Exchange) -> Response:
        raise RefusedError(504, "Endpoint request timed out", "INTEGRATION_TIMEOUT")

    async def broken(exchange: Exchange) -> Response:
        raise ValueError

    target = Target(lambda name, event: Answer(b"{}", "Unhandled"))
    ws.serve(target, "fails", handlers={"slow": SocketRoute(slow), "broken": SocketRoute(broken)})
    with ws.connect() as client:
        for key, message in [("fails", "Internal server error"), ("slow", "Endpoint request timed out"), ("other", "Forbidden"), ("broken", "Internal server error")]:  # fmt: skip
            client.send(json.dumps({"action": key}))
            assert said(client)["message"] == message


def test_what_is_no_websocket_is_refused(ws: Sockets) -> None:
    made = ws.serve(Target(nothing), "$default", base_path=("prod",))
    assert httpx.get(f"http://127.0.0.1:{ws.port}/prod").status_code == 403
    for path, status in [("/prod/other", 403), ("/", 403), ("/pr%6Fd/..", 421)]:
        with pytest.raises(InvalidStatus) as caught:
            ws.connect(path)
        assert caught.value.response.status_code == status, path
    ws.connect("/prod").close()
    ws.connect("/prod/").close()
    assert made.mount.base_path == ()


def test_an_http_api_beside_it_takes_no_handshake(ws: Sockets) -> None:
    async def hello(exchange: Exchange) -> Response:
        return Response(200, [], b"hello")

    ws.serve(Target(nothing), "$default", base_path=("ws",))
    api = Api(Mount("web", "1"), [("GET /", hello)])
    ws._gateway.do(ws._gateway.listeners.serve("web", ws.port, [Binding(ANY_HOST, (), api)]))
    assert httpx.get(f"http://127.0.0.1:{ws.port}/").text == "hello"
    with pytest.raises(InvalidStatus) as caught:
        ws.connect("/")
    assert caught.value.response.status_code == 403
    ws.connect("/ws").close()


def test_connections_survive_a_deployment_and_not_a_removal(ws: Sockets) -> None:
    old, new = Target(nothing), Target(nothing)
    ws.serve(old, "$default", "$disconnect")
    client = ws.connect()
    client.send("one")
    assert old.event()["body"] == "one"
    ws.serve(new, "$default", "$disconnect")
    client.send("two")
    assert new.event()["body"] == "two" and old.events.empty()
    ws.now(lambda: ws.deployed.connections.close("chat"))
    assert closed(client) == (1001, "Going away")
    context = new.event()["requestContext"]
    assert (context["eventType"], context["disconnectStatusCode"]) == ("DISCONNECT", 1001)


def test_the_management_api_is_awss(ws: Sockets) -> None:
    target = Target(nothing)
    ws.serve(target, "$connect", "$disconnect", "$default", base_path=("prod",))
    client = ws.connect("/prod", user_agent_header="tester")
    connection_id = target.event()["requestContext"]["connectionId"]
    manage = ws.management("/prod")
    manage.post_to_connection(ConnectionId=connection_id, Data=b"hello")
    manage.post_to_connection(ConnectionId=connection_id, Data=b"\xff")
    assert client.recv(timeout=10) == "hello" and client.recv(timeout=10) == b"\xff"
    shown = manage.get_connection(ConnectionId=connection_id)
    assert shown["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "tester"}
    assert shown["ConnectedAt"] <= shown["LastActiveAt"]
    with pytest.raises(manage.exceptions.PayloadTooLargeException):
        manage.post_to_connection(ConnectionId=connection_id, Data=b"x" * (128 * 1024 + 1))
    manage.delete_connection(ConnectionId=connection_id)
    assert closed(client)[0] == 1000
    assert target.event()["requestContext"]["eventType"] == "DISCONNECT"
    for unknown in (connection_id, "nonsense", "bm9uc2Vuc2U="):
        for call, more in [("get_connection", {}), ("delete_connection", {}), ("post_to_connection", {"Data": b"x"})]:
            with pytest.raises(manage.exceptions.GoneException):
                getattr(manage, call)(ConnectionId=unknown, **more)


def test_connections_of_other_gateways_and_stages_are_not_managed(ws: Sockets) -> None:
    target = Target(nothing)
    ws.serve(target, "$connect", "$default")
    with ws.connect():
        connection_id = target.event()["requestContext"]["connectionId"]
        for other in ({"gateway": "other"}, {"stage": "prod"}):
            fields = {"method": "GET", "gateway": "chat", "stage": "$default", "connection": connection_id}
            assert ws._gateway.do(ws.deployed.connections.here(fields, b"")).status == 200
            assert ws._gateway.do(ws.deployed.connections.here({**fields, **other}, b"")).status == 410


def test_nobody_manages_without_permission(ws: Sockets) -> None:
    ws.serve(Target(nothing), "$default", manage_steps=[forbidden])
    with pytest.raises(ClientError) as caught:
        ws.management().get_connection(ConnectionId="a=")
    assert caught.value.response["Error"]["Code"] == "ForbiddenException"
    ws.serve(Target(nothing), "$default")
    assert httpx.put(f"http://127.0.0.1:{ws.port}/@connections/a").status_code == 403


def test_another_nodes_connection_is_asked_for_there(ws: Sockets) -> None:
    ws.serve(Target(nothing), "$default")
    manage = ws.management()

    async def nowhere(node: str, fields: Any, body: bytes) -> Outcome:
        raise AssertionError

    there = Connections("there", nowhere).new_id()
    manage.post_to_connection(ConnectionId=there, Data=b"hello")
    fields = {"method": "POST", "gateway": "chat", "stage": "$default", "connection": there}
    assert ws.forwarded == [("there", fields, b"hello")]
    with pytest.raises(ClientError) as caught:
        manage.get_connection(ConnectionId=Connections("down", nowhere).new_id())
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


# ---- limits


def test_connections_are_counted(ws: Sockets) -> None:
    ws.serve(Target(nothing), "$default", limits=replace(LIMITS, connections=1))
    first = ws.connect()
    with pytest.raises(InvalidStatus) as caught:
        ws.connect()
    assert caught.value.response.status_code == 429
    first.close()
    with suppress(InvalidStatus):  # until it has noticed
        while True:
            ws.connect().close()
            break
    assert ws.deployed.connections.count("chat") <= 1


def test_a_client_has_so_many_connections_whatever_they_became(ws: Sockets) -> None:
    ws.serve(Target(nothing), "$default", http=Limits(connections_per_client=2))
    ws._gateway.do(ws._gateway.listeners.release("api"))  # of a port's gateways, the most generous counts
    listener = ws._gateway.listeners.of("chat")
    assert listener is not None
    counted = listener.connections
    with ws.connect(), ws.connect() as second:
        assert counted.count == 2
        with socket.create_connection(("127.0.0.1", ws.port), 10) as refused:
            assert refused.recv(1000).startswith(b"HTTP/1.1 503")
        second.close()
        until(lambda: counted.count == 1)
        ws.connect().close()
    until(lambda: not counted.count)


def test_idle_and_old_connections_are_closed(ws: Sockets) -> None:
    ws.serve(Target(nothing), "$default", limits=replace(LIMITS, idle_timeout=0.1))
    assert closed(ws.connect()) == (1001, "Going away")
    ws.serve(Target(nothing), "$default", limits=replace(LIMITS, lifetime=0.1))
    assert closed(ws.connect()) == (1001, "Going away")


def test_a_flood_of_messages_is_refused(ws: Sockets) -> None:
    target = Target(nothing)
    ws.serve(target, "$default", limits=replace(LIMITS, message_rate=0.001, message_burst=2))
    with ws.connect() as client:
        for _ in range(3):
            client.send("x")
        assert said(client)["message"] == "Too Many Requests"
    assert target.events.qsize() == 2


def test_refusals_of_a_flood_are_held_back_and_others_are_answered(
    ws: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "REFUSALS_PER_SECOND", 1 / 60)
    monkeypatch.setattr(throttle, "HELD_SECONDS_MAX", 3.0)
    flooded = SocketRoute(wrapped(greeting, [throttled(Bucket(Rate(0.001, 1)))]), two_way=True)
    ws.serve(Target(nothing), handlers={"flooded": flooded, "greet": SocketRoute(greeting, two_way=True)})
    with ws.connect(close_timeout=0.1) as flooding, ws.connect() as other:
        for _ in range(3):
            flooding.send('{"action": "flooded"}')
        assert flooding.recv(timeout=10) == "hello"
        other.send('{"action": "greet"}')
        assert other.recv(timeout=10) == "hello"
        with pytest.raises(TimeoutError):
            flooding.recv(timeout=0.2)


async def greeting(exchange: Exchange) -> Response:
    return Response(200, [], b"hello")


def test_a_burst_is_read_in_its_order_and_others_have_their_turns(ws: Sockets) -> None:
    turns, seen = [0], []

    async def count(exchange: Exchange) -> Response:
        seen.append((turns[0], await exchange.read()))
        return Response(200, [])

    def turn() -> None:
        turns[0] += 1
        asyncio.get_running_loop().call_soon(turn)

    ws.serve(Target(nothing), handlers={"$default": SocketRoute(count)}, limits=replace(LIMITS, message_burst=100_000))
    with ws.connect() as client:
        sent = [b"%d" % number for number in range(10_000)]
        ws.now(turn)
        client.socket.sendall(b"".join(b"\x81%c\0\0\0\0%b" % (0x80 | len(text), text) for text in sent))
        client.close()
    until(lambda: len(seen) == len(sent))
    assert [text for _, text in seen] == sent
    assert max(Counter(at for at, _ in seen).values()) <= MESSAGES_AT_ONCE


def test_a_message_that_is_too_long_ends_the_connection(
    ws: Sockets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Queue[None]()
    lose = WebSocketsSansIOProtocol.connection_lost

    def watched(protocol: WebSocketsSansIOProtocol, exc: Exception | None) -> None:
        lose(protocol, exc)
        lost.put(None)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "connection_lost", watched)
    ws.serve(Target(nothing), "$default")
    client = ws.connect()
    client.send("x" * (128 * 1024 + 1))
    assert closed(client)[0] == 1009
    lost.get(timeout=10)
    assert not caplog.records


@contextmanager
def raw_socket(port: int) -> Iterator[socket.socket]:
    """A WebSocket whose other end is ours, byte by byte."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        key = base64.b64encode(os.urandom(16))
        client.sendall(
            b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: " + key + b"\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        yield client


def test_endless_fragments_and_pings_end_the_connection(ws: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.gateway.socket_protocol.CLOSE_SECONDS_MAX", 0.1)
    ws.serve(Target(nothing), "$default")
    with raw_socket(ws.port) as client:
        client.sendall(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 2000)
        assert b"too many frames" in client.recv(4096)
    for kind in (0x89, 0x8A):
        with raw_socket(ws.port) as client, pytest.raises(OSError):
            while True:
                client.sendall((b"%c\xfd\0\0\0\0" % kind + bytes(125)) * 1000)
    with raw_socket(ws.port) as client:
        client.sendall(b"\x8a\x80\0\0\0\0" * 1000)
        assert b"too many pings" in client.recv(4096)


def test_no_more_is_read_than_is_parsed_and_nothing_of_it_is_lost(ws: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may send faster than that: what has come of it would be a heap, copied with each piece."""
    monkeypatch.setattr("owsgit.gateway.socket_protocol.PINGS_BURST", 1_000_000)
    heaps, answered = [0], 0
    take = BoundedSocketProtocol.data_received

    def watched(protocol: BoundedSocketProtocol, data: bytes) -> None:
        take(protocol, data)
        heaps.append(len(protocol._unparsed))

    monkeypatch.setattr(BoundedSocketProtocol, "data_received", watched)
    ws.serve(Target(nothing), "$default")
    with raw_socket(ws.port) as client:
        flood = threading.Thread(target=client.sendall, args=((b"\x89\xfd\0\0\0\0" + bytes(125)) * 15_000,))
        flood.start()
        while answered < 127 * 15_000:
            answered += len(client.recv(1 << 20))
        flood.join()
    assert answered == 127 * 15_000 and max(heaps) <= 512 * 1024


def test_what_was_said_before_a_connection_is_lost_is_parsed_in_turns(
    ws: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("owsgit.gateway.socket_protocol.PINGS_BURST", 1_000_000)
    pieces = []
    feed = BoundedSocketProtocol._feed

    def watched(protocol: BoundedSocketProtocol, data: bytes) -> None:
        pieces.append(len(data))
        feed(protocol, data)

    monkeypatch.setattr(BoundedSocketProtocol, "_feed", watched)
    target = Target(nothing)
    ws.serve(target, "$connect", "$disconnect")
    with raw_socket(ws.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
        client.sendall(b"\x89\x80\0\0\0\0" * 40_000)
    assert target.event()["requestContext"]["eventType"] == "CONNECT"
    assert target.event()["requestContext"]["eventType"] == "DISCONNECT"
    assert len(pieces) > 10 and max(pieces) <= PIECE_BYTES


def test_to_a_client_that_takes_nothing_only_so_much_is_sent_and_it_is_cut_off(
    ws: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("owsgit.gateway.sockets.SEND_SECONDS_MAX", 0.1)
    monkeypatch.setattr("owsgit.gateway.socket_protocol.CLOSE_SECONDS_MAX", 0.1)
    target = Target(nothing)
    ws.serve(target, "$connect", "$disconnect", "$default")
    with raw_socket(ws.port):
        connection_id = target.event()["requestContext"]["connectionId"]
        connections = ws.deployed.connections
        fields = {"method": "POST", "gateway": "chat", "stage": "$default", "connection": connection_id}

        async def flood() -> list[int]:
            posts = [connections.here(fields, bytes(100_000)) for _ in range(100)]
            return [outcome.status for outcome in await asyncio.gather(*posts)]

        statuses = ws._gateway.do(flood())
        assert set(statuses) >= {410, 429}
        context = target.event()["requestContext"]
        assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1008, "too slow")


def test_a_handshake_that_is_none_is_refused(ws: Sockets) -> None:
    ws.serve(Target(nothing), "$default")
    for line in (b"GET /", b"GET /\xff", b"POST /"):
        with socket.create_connection(("127.0.0.1", ws.port), 10) as client:
            client.sendall(line + b" HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            assert b" 101 " not in client.recv(4096)
            assert client.recv(4096) == b"", "the connection is closed"


def test_a_client_that_leaves_during_connect_is_said_goodbye(ws: Sockets) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def slow(exchange: Exchange) -> Response:
        entered.set()
        await asyncio.to_thread(go_on.wait, 10)
        return Response(200, [])

    target = Target(nothing)
    ws.serve(target, "$disconnect", "$default", handlers={"$connect": SocketRoute(slow)})
    with socket.create_connection(("127.0.0.1", ws.port), 10) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert entered.wait(10)
    go_on.set()
    assert target.event()["requestContext"]["eventType"] == "DISCONNECT"
