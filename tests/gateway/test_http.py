"""The gateway through real HTTP, in front of a target that is a small real class."""

import asyncio
import base64
import json
import socket
import struct
import threading
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, Mount, Response
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.limits import Limits
from owsgit.model.errors import UnavailableError
from tests.gateway.served import Echo, Served, raw


def test_format_2_events(gateway: Served) -> None:
    gateway.serve({"POST /a/{id}": ("echo", "2.0")})
    event = gateway.client.post(
        "/a/x%2Fy?q=1&q=2&e=&s=a%20b",
        content=b'{"k": 1}',
        headers={"content-type": "application/json", "X-Two": "1", "cookie": "a=1; b=2"},
    ).json()
    assert event["version"] == "2.0" and event["routeKey"] == "POST /a/{id}"
    assert event["pathParameters"] == {"id": "x/y"}
    assert event["rawQueryString"] == "q=1&q=2&e=&s=a%20b"
    assert event["queryStringParameters"] == {"q": "1,2", "e": "", "s": "a b"}
    assert event["cookies"] == ["a=1", "b=2"] and "cookie" not in event["headers"] and event["headers"]["x-two"] == "1"
    assert event["body"] == '{"k": 1}' and event["isBase64Encoded"] is False
    context = event["requestContext"]
    assert context["http"]["method"] == "POST" and context["http"]["sourceIp"] == "127.0.0.1"
    assert (
        context["accountId"] == "123456789012"
        and context["stage"] == "$default"
        and context["domainName"] == "127.0.0.1"
    )


def test_format_1_events(gateway: Served) -> None:
    gateway.serve({"ANY /a/{proxy+}": ("echo", "1.0")})
    event = gateway.client.put("/a/b/c?q=1&q=2", content=b"\xff\x00", headers=[("x-two", "1"), ("x-two", "2")]).json()
    assert event["version"] == "1.0" and event["resource"] == "/a/{proxy+}" and event["path"] == "/a/b/c"
    assert event["httpMethod"] == "PUT" and event["pathParameters"] == {"proxy": "b/c"}
    assert event["queryStringParameters"] == {"q": "2"} and event["multiValueQueryStringParameters"] == {
        "q": ["1", "2"]
    }
    assert event["multiValueHeaders"]["x-two"] == ["1", "2"] and event["headers"]["x-two"] == "2"
    assert event["isBase64Encoded"] is True and base64.b64decode(event["body"]) == b"\xff\x00"
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("host", ["api.test", "api.test:8080"])
def test_events_say_how_a_request_came_and_not_what_its_client_claims(gateway: Served, version: str, host: str) -> None:
    gateway.serve({"GET /a": ("echo", version)})
    port = host.partition(":")[2] or "80"
    event = gateway.client.get("/a", headers={"host": host}).json()
    names = ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"]
    if version == "1.0":
        names = [name.title() for name in names]
    assert [event["headers"][name] for name in names] == ["127.0.0.1", port, "http"]
    claims = [("X-Forwarded-For", "10.1.1.1"), ("X-Forwarded-For", "10.2.2.2"), ("X-Forwarded-Proto", "https")]
    event = gateway.client.get("/a", headers=[("host", host), *claims, ("X-Forwarded-Port", "443")]).json()
    told, *others = (event["headers"][name] for name in names)
    assert [each.strip() for each in told.split(",")] == ["10.1.1.1", "10.2.2.2", "127.0.0.1"]
    assert others == [port, "http"]
    if version == "1.0":
        assert event["multiValueHeaders"]["X-Forwarded-For"] == [told]
        assert event["multiValueHeaders"]["X-Forwarded-Proto"] == ["http"]


def test_events_of_format_1_have_names_of_headers_as_they_were_written(gateway: Served) -> None:
    """A REST API's handler looks for event["headers"]["Authorization"]."""
    gateway.serve({"POST /1": ("echo", "1.0"), "POST /2": ("echo", "2.0")})
    head = "POST /{} HTTP/1.1\r\nhOsT: a\r\nAuthorization: x\r\nX-TWO: 1\r\nx-two: 2\r\nuser-agent: me\r\naccept: b\r\n"
    chunked = "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nAccept: c\r\n\r\n"  # a trailer is no header
    told = []
    for version in (1, 2):
        answer = raw(gateway.port, (head.format(version) + "Connection: close\r\n" + chunked).encode())
        told.append(json.loads(answer.partition(b"\r\n\r\n")[2]))
    own = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Port": "80", "X-Forwarded-Proto": "http"}
    client = {"Authorization": "x", "accept": "b"}
    first, second = ({**each["headers"]} for each in told)
    assert first.pop("X-TWO") == "2" and told[0]["multiValueHeaders"]["X-TWO"] == ["1", "2"]
    assert first == {"Host": "a", "User-Agent": "me", **client, **own}
    assert second["authorization"] == "x" and all(name.islower() for name in second)
    assert second["content-length"] == "1" and not {"connection", "transfer-encoding"} & second.keys()


@pytest.mark.parametrize(
    ("written", "decoded"),
    [
        ("a", "a"),
        ("a%20b+c", "a b+c"),
        ("a%2Fb", "a/b"),
        ("50%25", "50%"),
        ("caf%C3%A9", "café"),
        ("what%3Fis%23it", "what?is#it"),
        ("%2541", "%41"),
    ],
)
def test_paths_are_as_written_in_format_1_and_decoded_in_format_2(gateway: Served, written: str, decoded: str) -> None:
    """As in REST APIs and in HTTP APIs: a framework for the former decodes a path itself."""
    gateway.serve({"GET /1/{id}/{rest+}": ("echo", "1.0"), "GET /2/{id}/{rest+}": ("echo", "2.0")})
    first = gateway.client.get(f"/1/{written}//x/{written}/").json()
    assert first["path"] == first["requestContext"]["path"] == f"/1/{written}/x/{written}/"
    assert first["pathParameters"] == {"id": written, "rest": f"x/{written}"}
    second = gateway.client.get(f"/2/{written}//x/{written}/").json()
    assert second["rawPath"] == second["requestContext"]["http"]["path"] == f"/2/{decoded}/x/{decoded}/"
    assert second["pathParameters"] == {"id": decoded, "rest": f"x/{decoded}"}


@pytest.mark.parametrize(
    ("version", "answer", "status", "body", "headers"),
    [
        ("2.0", {"a": 1}, 200, b'{"a": 1}', {"content-type": "application/json"}),
        ("2.0", "plain", 200, b"plain", {}),
        ("2.0", None, 200, b"null", {}),
        (
            "2.0",
            {"statusCode": 201, "headers": {"X-A": "b"}, "body": "hi", "cookies": ["a=1", "b=2"]},
            201,
            b"hi",
            {"x-a": "b", "set-cookie": "a=1, b=2"},
        ),
        ("2.0", {"statusCode": "204"}, 204, b"", {}),
        ("2.0", {"statusCode": 200, "body": "/w==", "isBase64Encoded": True}, 200, b"\xff", {}),
        ("1.0", {"statusCode": 200, "multiValueHeaders": {"X-A": ["1", "2"]}, "body": "x"}, 200, b"x", {"x-a": "1, 2"}),
        (
            "1.0",
            {"statusCode": 200, "headers": {"content-length": "999", "connection": "x"}, "body": "x"},
            200,
            b"x",
            {"content-length": "1"},
        ),
        ("1.0", {"a": 1}, 502, b'{"message":"Internal server error"}', {}),
        ("1.0", {"statusCode": 99}, 502, b"", {}),
        ("1.0", {"statusCode": 200, "body": {"a": 1}}, 502, b"", {}),
        (
            "2.0",
            {"statusCode": 200, "body": "!", "isBase64Encoded": True},
            500,
            b'{"message":"Internal Server Error"}',
            {},
        ),
        (
            "2.0",
            {"statusCode": 200, "body": "é", "isBase64Encoded": True},
            500,
            b'{"message":"Internal Server Error"}',
            {},
        ),
        ("2.0", {"statusCode": 200, "headers": {"x": "a\r\nset-cookie: evil=1"}}, 500, b"", {}),
        ("2.0", {"statusCode": 200, "headers": {"a b": "c"}}, 500, b"", {}),
        ("2.0", {"statusCode": 200, "headers": ["x"]}, 500, b"", {}),
    ],
)
def test_answers(gateway: Served, version: str, answer: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    gateway.serve({"POST /": ("say", version)})
    found = gateway.client.post("/", content=json.dumps(answer), headers={"content-type": "application/json"})
    assert found.status_code == status
    assert not body or found.content == body
    assert {name: found.headers.get(name) for name in headers} == headers
    assert "evil" not in str(found.headers) and uuid.UUID(found.headers["apigw-requestid"]).version == 4
    assert found.headers["date"].endswith(" GMT")


def test_errors_are_api_gateways(gateway: Served) -> None:
    gateway.serve(
        {
            "GET /e1": ("fail", "1.0"),
            "GET /e2": ("fail", "2.0"),
            "GET /gone": ("gone", "2.0"),
            "GET /s1": ("slow", "1.0"),
            "GET /s2": ("slow", "2.0"),
        },
        timeout=0.2,
    )
    for path, status, message in [
        ("/e1", 502, "Internal server error"),
        ("/e2", 500, "Internal Server Error"),
        ("/gone", 503, "Service Unavailable"),
        ("/s1", 504, "Endpoint request timed out"),
        ("/s2", 503, "Service Unavailable"),
        ("/none", 404, "Not Found"),
    ]:
        found = gateway.client.get(path)
        assert (found.status_code, found.json()) == (status, {"message": message})


def test_bodies_and_paths_are_bounded_and_dots_refused(gateway: Served) -> None:
    gateway.serve({"ANY /{proxy+}": ("echo", "2.0")})
    assert gateway.client.post("/x", content=b"x" * (10 * 1024 * 1024 + 1)).status_code == 413
    for path in (b"/a/../b", b"/a/%2e%2e/b", b"/%2E", b"/a%00b", b"/%ff", b"/" + b"x" * 9000):
        assert raw(gateway.port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(
            (b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 431")
        ), path


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_hostile_http_gets_an_error_and_harms_nobody(gateway: Served, data: bytes) -> None:
    gateway.serve({"GET /": ("echo", "2.0")})
    answer = raw(gateway.port, data + (b"" if data.endswith(b"\n") else b"\r\n\r\n"))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert gateway.client.get("/").status_code == 200


def test_a_gateway_that_is_renamed_keeps_its_port_open(gateway: Served) -> None:
    api = Api(Mount("other", "1"), [("GET /", FunctionIntegration(Echo(), "say", "2.0", 5.0))])
    listener = gateway.do(gateway.listeners.serve("other", gateway.port, [Binding(ANY_HOST, (), api)]))
    gateway.do(gateway.listeners.release("api"))
    assert listener.is_open and gateway.listeners.of("api") is None
    gateway.serve({})
    gateway.do(gateway.listeners.release("other"))


def test_a_port_that_is_taken_is_named(gateway: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            UnavailableError, match=f"port {port} of 127.0.0.1 cannot be opened: Address already in use"
        ):
            gateway.do(gateway.listeners.serve("b", port, []))


def flood(gateway: Served, start: bytes) -> int:
    """Send header lines after `start` until the gateway cuts the connection; the bytes that it took."""
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as client:
        client.sendall(start)
        sent = 0
        with pytest.raises(OSError):
            while sent < 50_000_000:
                client.sendall(b"x-%d: " % sent + b"y" * 65536 + b"\r\n")
                sent += 65536
        return sent


def test_endless_headers_are_cut_off(gateway: Served) -> None:
    assert flood(gateway, b"GET / HTTP/1.1\r\nHost: x\r\n") < 5_000_000
    assert raw(gateway.port, b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000).startswith(b"HTTP/1.1 431")


def test_a_client_that_sends_nothing_or_slowly_is_cut_off(gateway: Served) -> None:
    gateway.handle([], limits=Limits(head_seconds=0.3))
    for start in (b"", b"GET / HTTP/1.1\r\nHost"):
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
            client.sendall(start)
            assert client.recv(100) == b""


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_has_none_on_the_wire(gateway: Served, status: int) -> None:
    gateway.serve({"POST /": ("say", "2.0"), "GET /": ("echo", "2.0")})
    body = json.dumps({"statusCode": status, "body": "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nFORGE"}).encode()
    head = b"POST / HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = raw(gateway.port, head + body + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"FORGE" not in answer and answer.count(b"HTTP/1.1 ") == 2


def test_endless_trailers_are_cut_off(gateway: Served) -> None:
    gateway.serve({})
    assert flood(gateway, b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n") < 5_000_000


def test_trailers_are_not_taken_for_headers(gateway: Served) -> None:
    """Nobody has looked at them: neither at their size, nor whether somebody else is let in by them, nor for a cache."""
    gateway.serve({"GET /": ("echo", "2.0")})
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Kept: yes\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(gateway.port, head + b"1\r\na\r\n0\r\nX-User: admin\r\nHost: y\r\nTraceparent: no\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and b"x-kept" in answer
    assert not any(each in answer for each in (b"admin", b"x,y", b"traceparent"))


def test_a_body_that_never_ends_does_not_hold_its_connection(gateway: Served) -> None:
    gateway.handle([], limits=Limits(body_seconds=0.3))
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 404")
        client.sendall(b"x")
        assert client.recv(1000) == b""


def test_a_client_that_leaves_is_known_to_its_request_also_if_it_sent_another_one(gateway: Served) -> None:
    known = threading.Event()

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.01)

    async def endless(exchange: Exchange) -> Response:
        exchange.on_gone(known.set)
        return Response(200, [], pieces())

    gateway.handle([("GET /", endless)])
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        assert client.recv(1000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it resets
    assert known.wait(5)


def test_large_bodies_and_pipelined_requests_are_served(gateway: Served) -> None:
    gateway.serve({"POST /": ("echo", "2.0"), "GET /": ("echo", "2.0")})
    body = b"x" * 300_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = raw(gateway.port, head + body + head + body + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 3
    many = b"GET / HTTP/1.1\r\nHost: x\r\nx-long: %b\r\n\r\n" % (b"x" * 2000) * 100
    answer = raw(gateway.port, many + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 101, "each head is small"
    assert gateway.client.post("/", content=iter([b"y"] * 3000)).status_code == 200
