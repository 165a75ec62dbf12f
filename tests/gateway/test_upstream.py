"""Requests that are passed on to another HTTP service: real servers behind a real gateway."""

import asyncio
import datetime
import gzip
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from owsgit.gateway.exchange import Exchange, Response
from owsgit.gateway.table import parse_key
from owsgit.gateway.template import PathTemplate
from owsgit.gateway.upstream import HttpIntegration, Upstream, Upstreams
from tests.gateway.served import Served, raw
from tests.support.nodes import free_port

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
WAIT = 10.0


class Behind:
    """Services behind a gateway, in the gateway's own event loop."""

    def __init__(self, gateway: Served) -> None:
        self.gateway = gateway
        self.upstreams = Upstreams()
        self._closing: list[Any] = []

    def serve(self, answer: Answering, tls: ssl.SSLContext | None = None) -> int:
        """A service that answers all there is; its port."""

        async def start() -> int:
            app = web.Application(client_max_size=64 << 20)
            app.router.add_route("*", "/{rest:.*}", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            port = free_port()
            await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
            self._closing.append(runner.cleanup)
            return port

        made: int = self.gateway.do(start())
        return made

    def speak(self, speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
        """A service that speaks in its own way, which need not be HTTP; its port."""

        async def start() -> int:
            server = await asyncio.start_server(speak, "127.0.0.1", 0)

            async def close() -> None:
                server.close()

            self._closing.append(close)
            port: int = server.sockets[0].getsockname()[1]
            return port

        made: int = self.gateway.do(start())
        return made

    def route(self, uri: str, key: str = "ANY /api/{proxy+}", **about: Any) -> None:
        upstream = Upstream(PathTemplate(uri, parse_key(key)), **about)
        self.gateway.handle([(key, HttpIntegration(self.upstreams, upstream))])

    def close(self) -> None:
        self.gateway.do(self.upstreams.close())
        for close in self._closing:
            self.gateway.do(close())


@pytest.fixture
def behind(gateway: Served) -> Iterator[Behind]:
    made = Behind(gateway)
    yield made
    made.close()


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name.lower(), value] for name, value in request.headers.items()],
            "body": (await request.read()).decode("latin-1"),
        }
    )


def test_a_request_is_passed_on_with_the_headers_of_a_proxy(behind: Behind) -> None:
    port = behind.serve(echo)
    behind.route(f"http://127.0.0.1:{port}/base/{{proxy}}?fixed=1")
    response = behind.gateway.client.put(
        "/api/a/b%2Fc/?q=%20x&q=2",
        content=b"body",
        headers=[
            ("X-Own", "a"), ("x-own", "b"), ("X-Forwarded-For", "10.1.1.1"), ("Connection", "x-hop, keep-alive"),
            ("X-Hop", "1"), ("TE", "trailers"), ("Proxy-Authorization", "secret"), ("Authorization", "Bearer x"),
            ("Cookie", "a=1; b=2"), ("Forwarded", "for=10.1.1.1"), ("Via", "1.1 edge"),
        ],
    )  # fmt: skip
    seen = response.json()
    assert seen["method"] == "PUT" and seen["target"] == "/base/a/b%2Fc/?fixed=1&q=%20x&q=2"
    assert seen["body"] == "body"
    headers = seen["headers"]
    assert [value for name, value in headers if name == "x-own"] == ["a", "b"]
    found = dict(headers)
    own = f"127.0.0.1:{behind.gateway.port}"
    assert found["host"] == f"127.0.0.1:{port}" and found["x-forwarded-host"] == own
    assert found["x-forwarded-for"] == "10.1.1.1, 127.0.0.1" and found["x-forwarded-proto"] == "http"
    assert found["forwarded"] == f'for=10.1.1.1, for=127.0.0.1;host="{own}";proto=http'
    assert found["via"] == "1.1 edge, 1.1 owsgit" and response.headers["via"] == "1.1 owsgit"
    assert found["authorization"] == "Bearer x" and found["cookie"] == "a=1; b=2" and found["content-length"] == "4"
    assert not {"x-hop", "te", "proxy-authorization", "transfer-encoding"} & set(found)


def test_the_host_and_the_method_can_be_chosen(behind: Behind) -> None:
    port = behind.serve(echo)
    behind.route(f"http://127.0.0.1:{port}/x", "GET /a", preserve_host=True, method="POST")
    seen = behind.gateway.client.get("/a", headers={"host": "shop.example"}).json()
    assert seen["method"] == "POST" and ["host", "shop.example"] in seen["headers"] and seen["target"] == "/x"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/a%3Fb%23c", "/a%3Fb%23c"),
        ("/api/%40evil.example/x", "/@evil.example/x"),
        ("/api/a//b", "/a/b"),
        ("/api/%252e%252e/x", "/%252e%252e/x"),
        ("/api/%C3%A9", "/%C3%A9"),
        ("/api/..%2Fetc", None),
        ("/api/a%5C..%5Cb", None),
        ("/api/%2e%2e/x", None),
    ],
)
def test_what_a_client_wrote_stays_in_its_place(behind: Behind, path: str, target: str | None) -> None:
    port = behind.serve(echo)
    behind.route(f"http://127.0.0.1:{port}/{{proxy}}")
    answer = raw(behind.gateway.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    if target is None:
        assert answer.startswith(b"HTTP/1.1 400 ")
    else:
        assert f'"target": "{target}"'.encode() in answer


def test_responses_are_passed_on_as_they_are(behind: Behind) -> None:
    packed = gzip.compress(b"hello" * 100)

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/moved":
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        headers = [("Content-Encoding", "gzip"), ("X-A", "1"), ("X-A", "2"), ("Set-Cookie", "a=1"), ("X-Hop", "1")]
        headers += [("Connection", "x-hop, close"), ("X-Cookie", request.headers.get("Cookie", "none"))]
        return web.Response(body=packed, headers=headers)  # type: ignore[arg-type]

    behind.route(f"http://127.0.0.1:{behind.serve(answer)}/{{proxy}}")
    client = behind.gateway.client
    assert client.get("/api/moved").headers["location"] == "/elsewhere"
    for _ in range(2):
        with httpx.Client(base_url=client.base_url) as other, other.stream("GET", "/api/x") as response:
            assert b"".join(response.iter_raw()) == packed
            assert response.headers.get_list("x-a") == ["1", "2"] and response.headers["x-cookie"] == "none"
            assert response.headers["content-length"] == str(len(packed)) and "x-hop" not in response.headers
    head = client.head("/api/x")
    assert head.headers["content-length"] == str(len(packed)) and head.content == b""


def test_both_directions_are_streamed(behind: Behind) -> None:
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(request: web.Request) -> web.StreamResponse:
        await came.put(await request.content.readany())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(b"got " + piece)
        return response

    behind.route(f"http://127.0.0.1:{behind.serve(answer)}/{{proxy}}")
    connection = http.client.HTTPConnection("127.0.0.1", behind.gateway.port, timeout=WAIT)
    connection.putrequest("POST", "/api/x")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(b"3\r\none\r\n")
    assert behind.gateway.do(asyncio.wait_for(came.get(), WAIT)) == b"one"  # before the rest was sent
    response = connection.getresponse()  # before the request ended
    connection.send(b"3\r\ntwo\r\n")
    assert response.read(7) == b"got two"
    connection.send(b"0\r\n\r\n")
    assert response.read() == b""
    connection.close()


def test_large_bodies_come_whole(behind: Behind) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    behind.route(f"http://127.0.0.1:{behind.serve(answer)}/{{proxy}}", retries=1)
    body = bytes(range(256)) * 20_000
    assert behind.gateway.client.put("/api/x", content=body).content == body
    assert behind.gateway.client.put("/api/x", content=body[:1000]).content == body[:1000]


def test_a_body_that_was_read_before_is_passed_on_and_sent_again(behind: Behind) -> None:
    """As by a step that holds it against a schema, or verifies its signature."""
    seen: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.read())
        if len(seen) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=seen[-1])

    template = PathTemplate(f"http://127.0.0.1:{behind.serve(answer)}/{{proxy}}", parse_key("ANY /api/{proxy+}"))
    integration = HttpIntegration(behind.upstreams, Upstream(template, retries=1))

    async def read_before(exchange: Exchange) -> Response:
        assert await exchange.read() == await exchange.read()
        return await integration(exchange)

    behind.gateway.handle([("ANY /api/{proxy+}", read_before)])
    for body in (b"body", bytes(range(256)) * 2000, b""):
        del seen[:]
        assert behind.gateway.client.put("/api/x", content=body).content == body
        assert seen == [body, body]


def test_requests_that_may_be_repeated_are(behind: Behind) -> None:
    seen: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4) if b"content-length: 4" in head.lower() else b""
        seen.append(head.split(b" ", 1)[0] + body)
        if len(seen) > 2:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    behind.route(f"http://127.0.0.1:{behind.speak(speak)}/{{proxy}}", retries=2)
    client = behind.gateway.client
    assert client.put("/api/x", content=b"body").text == "ok" and seen == [b"PUTbody"] * 3
    del seen[:]
    assert client.post("/api/x", content=b"body").status_code == 502 and seen == [b"POSTbody"]
    del seen[:]
    assert client.get("/api/x").text == "ok" and seen == [b"GET"] * 3


def test_what_is_not_there_is_told_apart(behind: Behind) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 smtp.example ESMTP\r\n")
        writer.close()

    client = behind.gateway.client
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        behind.route(f"http://127.0.0.1:{bound.getsockname()[1]}/", retries=1)
        assert client.get("/api/x").json() == {"message": "Service Unavailable"}
        assert client.post("/api/x", content=b"x").status_code == 503
    behind.route("http://no-such-host.invalid/")
    assert client.get("/api/x").status_code == 503
    behind.route(f"http://127.0.0.1:{behind.speak(silent)}/", timeout=0.2)
    assert client.get("/api/x").status_code == 504
    behind.route(f"http://127.0.0.1:{behind.speak(nonsense)}/")
    assert client.get("/api/x").status_code == 502


def test_names_of_link_local_addresses_lead_nowhere(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    behind.route("http://0xa9fea9fe/latest/meta-data/")  # as the system's resolver reads 169.254.169.254, too
    assert behind.gateway.client.get("/api/x").status_code == 503
    assert "0xa9fea9fe is at no address that a gateway may connect to" in caplog.text


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
def test_half_of_a_response_is_never_taken_for_the_whole(behind: Behind, framing: bytes) -> None:
    go_on = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
        await go_on.wait()
        writer.close()

    behind.route(f"http://127.0.0.1:{behind.speak(speak)}/")
    with pytest.raises(httpx.RemoteProtocolError), behind.gateway.client.stream("GET", "/api/x") as response:
        assert response.status_code == 200
        behind.gateway.loop.call_soon_threadsafe(go_on.set)
        response.read()


def test_silence_in_the_middle_of_a_response_has_an_end(behind: Behind) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")
        await reader.read()
        writer.close()

    behind.route(f"http://127.0.0.1:{behind.speak(speak)}/", timeout=0.3)
    with pytest.raises(httpx.RemoteProtocolError):
        behind.gateway.client.get("/api/x")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello"])
def test_a_client_that_leaves_takes_its_request_with_it(behind: Behind, head: bytes) -> None:
    came, left = threading.Event(), threading.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        came.set()
        await reader.read()  # until the gateway closes
        left.set()
        writer.close()

    behind.route(f"http://127.0.0.1:{behind.speak(speak)}/")
    with socket.create_connection(("127.0.0.1", behind.gateway.port), WAIT) as client:
        client.sendall(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert came.wait(WAIT)
        if head:
            assert client.recv(15) == b"HTTP/1.1 200 OK"
    assert left.wait(WAIT)


def test_a_request_that_goes_round_is_stopped(behind: Behind) -> None:
    behind.route(f"http://127.0.0.1:{behind.gateway.port}/api/{{proxy}}")
    assert behind.gateway.client.get("/api/x").json() == {"message": "Loop Detected"}


def test_https_services_are_verified(behind: Behind, tmp_path: Path) -> None:
    certificate, server = _self_signed(tmp_path)
    port = behind.serve(echo, server)
    client = behind.gateway.client
    for tls, status in ((True, 503), (False, 200), (ssl.create_default_context(cadata=certificate), 200)):
        behind.route(f"https://127.0.0.1:{port}/", tls=tls)
        assert client.get("/api/x").status_code == status


def _self_signed(folder: Path) -> tuple[str, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "behind")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(encoded + text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return text.decode(), context
