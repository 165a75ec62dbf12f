"""A port with TLS, through real handshakes."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from owsgit.gateway import context, door, hello, protocol, secure_transport
from owsgit.gateway.app import Api
from owsgit.gateway.certificates import Certificate, of_client
from owsgit.gateway.exchange import Exchange, Handler, Mount, Response
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hello import Hello, NotTlsError
from owsgit.gateway.hosts import Binding
from owsgit.gateway.limits import UNSENT
from owsgit.gateway.redirects import challenges, to_https, with_header
from owsgit.gateway.tls import Secured, Trust
from owsgit.model.errors import InvalidError
from tests.gateway.served import Echo, Served, raw
from tests.support.authorities import Authority

LOOPS = [pytest.param(uvloop.new_event_loop, id="uvloop"), pytest.param(asyncio.new_event_loop, id="asyncio")]
"""Nodes have uvloop's; both have a TLS of their own."""


def says(text: str) -> Handler:
    async def handle(exchange: Exchange) -> Response:
        await exchange.read()
        return Response(200, [], text.encode())

    return handle


class Secure(Served):
    """A port with TLS."""

    def __init__(self, folder: Path, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.authority = Authority()
        self.trusted = folder / "authority.pem"
        self.trusted.write_text(self.authority.pem)
        self.folder = folder
        super().__init__(loop)

    def certificate(self, *names: str, **options: Any) -> Certificate:
        return Certificate.parse(self.authority.issue(*names, **options), "the certificate", "$.tls")

    def secured(self, host: str, **options: Any) -> Secured:
        return Secured(host, self.certificate(host or "any.test"), **options)

    def show(self, *secured: Secured, owner: str = "api", base: tuple[str, ...] = ()) -> None:
        """Each host answers with its name."""
        bindings = [
            Binding(each.host, base, Api(Mount(owner, "1"), [("$default", says(each.host or "any"))]))
            for each in secured
        ]
        self.do(self.listeners.serve(owner, self.port, bindings, secured))

    def context(self, client: bytes = b"", protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem)
        context.check_hostname = False
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if client:
            file = self.folder / f"client-{hash(client)}.pem"
            file.write_bytes(client)
            context.load_cert_chain(file)
        return context

    @contextlib.contextmanager
    def connected(self, name: str | None, client: bytes = b"", **options: Any) -> Iterator[ssl.SSLSocket]:
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        with self.context(client, **options).wrap_socket(plain, server_hostname=name) as made:
            yield made

    def ask(self, name: str | None, host: str | None = None, client: bytes = b"", path: str = "/") -> tuple[int, str]:
        """Status and body of one request over one connection."""
        with self.connected(name, client) as made:
            return over(made, host or name or "", path)

    def curl(self, host: str, *options: str | Path) -> str:
        """What curl writes."""
        place = f"{host}:{self.port}"
        command = ["curl", "-sS", "--cacert", self.trusted, "--resolve", f"{place}:127.0.0.1", *options]
        told = subprocess.run([*command, f"https://{place}/"], capture_output=True, text=True, timeout=30)
        return told.stdout or told.stderr

    def subject(self, name: str | None) -> str:
        with self.connected(name) as made:
            return dict(pair for (pair,) in made.getpeercert()["subject"])["commonName"]  # type: ignore[index,misc,union-attr]


def over(made: ssl.SSLSocket, host: str, path: str = "/", more: str = "") -> tuple[int, str]:
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
    return answered(made)


def answered(made: ssl.SSLSocket) -> tuple[int, str]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = made.recv(65536)
        if not piece:
            return 0, data.decode()
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += made.recv(65536)
    return int(head.split()[1]), body.decode()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module", params=LOOPS)
def secure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    made = Secure(tmp_path_factory.mktemp("tls"), request.param)
    yield made
    made.close()


def test_the_name_that_a_client_asks_for_chooses_the_certificate(secure: Secure) -> None:
    secure.show(*(secure.secured(name) for name in ("a.test", "*.wild.test", "")))
    assert secure.subject("a.test") == "a.test" and secure.ask("a.test") == (200, "a.test")
    assert secure.subject("x.wild.test") == "*.wild.test" and secure.ask("x.wild.test") == (200, "*.wild.test")
    for name in ("x.y.wild.test", "other.test", "A.TEST.other", None):
        assert secure.subject(name) == "any.test"
    assert secure.subject("A.Test") == "a.test"
    assert secure.ask(None, "127.0.0.1") == (200, "any")


def test_a_name_that_is_not_served_is_refused_by_an_alert(secure: Secure) -> None:
    secure.show(secure.secured("a.test"))
    for name in ("b.test", None):
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            secure.ask(name)
    assert secure.ask("a.test")[0] == 200


def test_several_gateways_share_a_port(secure: Secure) -> None:
    secure.show(secure.secured("a.test"))
    secure.show(secure.secured("b.test"), owner="other")
    assert secure.subject("a.test") == "a.test" and secure.subject("b.test") == "b.test"
    assert secure.ask("b.test") == (200, "b.test")
    secure.do(secure.listeners.release("other"))
    with pytest.raises(ssl.SSLError):
        secure.ask("b.test")


def test_what_is_no_tls_is_closed_and_a_hello_may_come_in_pieces(secure: Secure) -> None:
    secure.show(secure.secured("a.test"))
    assert raw(secure.port, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n") == b""
    assert raw(secure.port, b"\x16\x03\x01\xff\xff" + b"a" * 10) == b""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = secure.context().wrap_bio(incoming, outgoing, server_hostname="a.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    data = outgoing.read()
    with socket.create_connection(("127.0.0.1", secure.port), 10) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 40):
            plain.sendall(data[at : at + 40])
        incoming.write(plain.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        assert client.version() == "TLSv1.3"


def test_a_handshake_that_is_not_gone_on_with_is_cut_off(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKE_SECONDS_MAX", 0.2)
    secure.show(secure.secured("a.test"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = secure.context().wrap_bio(incoming, outgoing, server_hostname="a.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    whole = outgoing.read()
    for sent in (b"", whole[:3], whole[:100], whole):
        assert raw(secure.port, sent) == b"" or sent == whole
    server = secure.listeners._by_port[secure.port]._server
    assert server is not None
    until(lambda: server.greeter.count == 0)


def test_the_oldest_version(secure: Secure) -> None:
    secure.show(secure.secured("old.test"), secure.secured("new.test", version_min="TLSv1.3"))
    older = secure.context()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    for name, works in (("old.test", True), ("new.test", False)):
        plain = socket.create_connection(("127.0.0.1", secure.port), 10)
        with contextlib.ExitStack() as stack:
            if not works:
                stack.enter_context(pytest.raises((ssl.SSLError, ConnectionError)))
            with older.wrap_socket(plain, server_hostname=name) as made:
                assert made.version() == "TLSv1.2"


def test_a_new_certificate_closes_no_connection(secure: Secure) -> None:
    secure.show(secure.secured("a.test"))
    with secure.connected("a.test") as made:
        first = made.getpeercert(True)
        assert over(made, "a.test")[0] == 200
        secure.show(secure.secured("a.test"))
        assert over(made, "a.test")[0] == 200
    with secure.connected("a.test") as made:
        assert made.getpeercert(True) != first


def test_clients_prove_themselves(secure: Secure) -> None:
    theirs = Authority("Clients")
    trust = Trust(theirs.pem.encode())
    target = FunctionIntegration(Echo(), "echo", "2.0", 5.0)
    first = FunctionIntegration(Echo(), "echo", "1.0", 5.0)
    api = Api(Mount("api", "1"), [("ANY /", target), ("ANY /one", first)])
    secured = secure.secured("m.test", trust=trust)
    secure.do(secure.listeners.serve("api", secure.port, [Binding("m.test", (), api)], [secured]))
    good = theirs.issue("alice")
    status, body = secure.ask("m.test", client=good)
    told = json.loads(body)["requestContext"]["authentication"]["clientCert"]
    assert status == 200 and told["subjectDN"] == "CN=alice" and told["issuerDN"] == "CN=Clients"
    assert told["clientCertPem"].encode() in good and told["serialNumber"] == "03:e8"
    assert told["validity"]["notAfter"].endswith(" GMT")
    _, body = secure.ask("m.test", client=good, path="/one")
    assert json.loads(body)["requestContext"]["identity"]["clientCert"] == told
    for client in (b"", secure.authority.issue("mallory"), theirs.issue("gone", begins=-9, ends=-1)):
        with pytest.raises((ssl.SSLError, ConnectionError)):  # TLS 1.3: known at the first byte that is read
            assert secure.ask("m.test", client=client) == (0, "")
            raise ConnectionError


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("client", "alerts"),
    [
        ("none", "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
        ("stranger", "UNKNOWN_CA"),
        ("revoked", "CERTIFICATE_REVOKED"),
    ],
)
def test_a_client_that_is_refused_is_told_why_by_an_alert(
    secure: Secure, client: str, alerts: str, version: ssl.TLSVersion
) -> None:
    theirs = Authority("Clients")
    revoked = theirs.issue("mallory")
    trust = Trust(theirs.pem.encode(), revoked=theirs.revoked([revoked]).encode())
    secure.show(secure.secured("m.test", trust=trust))
    shown = {"none": b"", "stranger": Authority("Others").issue("alice"), "revoked": revoked}[client]
    context = secure.context(shown)
    context.maximum_version = version
    with socket.create_connection(("127.0.0.1", secure.port), 10) as plain, pytest.raises(ssl.SSLError, match=alerts):
        over(context.wrap_socket(plain, server_hostname="m.test"), "m.test")
    assert secure.ask("m.test", client=theirs.issue("alice")) == (200, "m.test")


def test_clients_may_prove_themselves(secure: Secure) -> None:
    theirs = Authority("Clients")
    revoked = theirs.issue("revoked")
    trust = Trust(theirs.pem.encode(), False, theirs.revoked([revoked]).encode())
    secure.show(secure.secured("m.test", trust=trust))
    assert secure.ask("m.test")[0] == 200
    assert secure.ask("m.test", client=theirs.issue("alice"))[0] == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert secure.ask("m.test", client=revoked) == (0, "")
        raise ConnectionError


@pytest.fixture
def guarded(secure: Secure) -> Secure:
    """m.test asks clients for a certificate, a.test and what is for every host do not."""
    secure.show(
        secure.secured("m.test", trust=Trust(Authority("Clients").pem.encode())),
        secure.secured("a.test"),
        secure.secured(""),
    )
    return secure


@pytest.mark.parametrize("name", ["a.test", "other.test", None])
def test_a_connection_for_one_host_does_not_reach_one_that_asks_for_more(guarded: Secure, name: str | None) -> None:
    for host in ("m.test", "M.TEST", "m.test:443", f"m.test:{guarded.port}"):
        assert guarded.ask(name, host)[0] == 421
    assert guarded.ask(name, "m.test.") != (200, "m.test")
    with guarded.connected(name) as made:
        made.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: m.test\r\n\r\n")
        assert answered(made) != (200, "m.test")
        with contextlib.suppress(OSError):
            assert over(made, "m.test")[1] != "m.test"


def test_a_misdirected_request_ends_its_connection(guarded: Secure) -> None:
    with guarded.connected("a.test") as made:
        assert over(made, "m.test")[0] == 421
        assert made.recv(1) == b""


def test_an_upgrade_is_held_against_its_connection_too(guarded: Secure) -> None:
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with guarded.connected("a.test") as made:
        assert over(made, "m.test", "/", upgrade)[0] == 421


def test_what_is_for_every_host_may_ask_for_more_than_a_host(secure: Secure) -> None:
    """A request for a host that has nothing at its path falls to what is for every host, which wants more."""
    theirs = Authority("Clients")
    secure.show(secure.secured("", trust=Trust(theirs.pem.encode())))
    secure.show(secure.secured("a.test"), owner="other", base=("v1",))
    assert secure.ask("a.test", path="/v1") == (200, "a.test")
    assert secure.ask("a.test", path="/v2")[0] == 404
    assert secure.ask(None, "x.test", client=theirs.issue("alice"), path="/v2") == (200, "any")
    secure.do(secure.listeners.release("other"))


def test_hosts_of_one_certificate_share_connections(secure: Secure) -> None:
    shared = secure.certificate("a.test", "b.test")
    secure.show(Secured("a.test", shared), Secured("b.test", shared), secure.secured("c.test"))
    assert secure.ask("a.test", "b.test") == (200, "b.test")
    assert secure.ask("a.test", "c.test")[0] == 421
    assert secure.ask("a.test", "unknown.test")[0] == 421


def test_when_more_is_asked_of_clients_what_is_open_does_not_count_any_more(secure: Secure) -> None:
    secure.show(secure.secured("a.test"))
    with secure.connected("a.test") as made:
        assert over(made, "a.test")[0] == 200
        secure.show(secure.secured("a.test", trust=Trust(Authority("Clients").pem.encode())))
        assert over(made, "a.test")[0] == 421


def test_of_two_that_share_a_host_the_one_that_asks_for_more_counts(secure: Secure) -> None:
    secure.show(secure.secured("m.test", trust=Trust(Authority("Clients").pem.encode())))
    secure.show(secure.secured("m.test"), owner="other", base=("v1",))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert secure.ask("m.test", path="/v1") == (0, "")
        raise ConnectionError
    secure.do(secure.listeners.release("other"))


def test_curl_speaks_both_protocols(secure: Secure) -> None:
    secure.show(secure.secured("a.test"), secure.secured("b.test", http2=False))
    for host, option, version in (
        ("a.test", "--http2", "2"),
        ("a.test", "--http1.1", "1.1"),
        ("b.test", "--http2", "1.1"),
    ):
        assert secure.curl(host, option, "-w", " %{http_version}") == f"{host} {version}"


@pytest.mark.parametrize("option", ["--http2", "--http1.1"])
def test_logs_and_mappings_know_what_a_connection_is_made_with(secure: Secure, option: str) -> None:
    async def told(exchange: Exchange) -> Response:
        return Response(
            200, [], f"{context.value(exchange, 'tlsVersion')} {context.value(exchange, 'cipherSuite')}".encode()
        )

    bindings = [Binding("a.test", (), Api(Mount("api", "1"), [("$default", told)]))]
    secure.do(secure.listeners.serve("api", secure.port, bindings, [secure.secured("a.test")]))
    assert secure.curl("a.test", option, "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384") in (
        "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384",
    )
    assert secure.curl("a.test", option).startswith("TLSv1.3 TLS_")


def test_what_a_client_does_not_read_of_a_large_response_is_counted_and_has_an_end(
    secure: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "READER_SECONDS", 0.5)

    async def large(exchange: Exchange) -> Response:
        return Response(200, [], bytes(30_000_000))

    bindings = [Binding("a.test", (), Api(Mount("api", "1"), [("$default", large)]))]
    secure.do(secure.listeners.serve("api", secure.port, bindings, [secure.secured("a.test")]))
    before = UNSENT.free
    assert len(secure.curl("a.test", "--http1.1")) == 30_000_000
    assert secure.curl("a.test", "--http1.1", "--head").count("content-length: 30000000") == 1
    with secure.connected("a.test") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        until(lambda: UNSENT.free < before - 15_000_000)
        until(lambda: UNSENT.free == before)
        with contextlib.suppress(OSError):
            assert sum(iter(lambda: len(client.recv(65536)), 0)) < 30_000_000
    monkeypatch.setattr(UNSENT, "free", 20_000_000)
    with secure.connected("a.test") as client, contextlib.suppress(OSError):
        client.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert sum(iter(lambda: len(client.recv(65536)), 0)) < 1000, "there is no memory for it"
    assert UNSENT.free == 20_000_000


def test_a_port_turns_to_tls_and_back_without_being_closed(secure: Secure) -> None:
    api = Api(Mount("api", "1"), [("$default", says("plain"))])
    secure.do(secure.listeners.serve("api", secure.port, [Binding("", (), api)]))
    with httpx.Client() as client:
        url = f"http://127.0.0.1:{secure.port}/"
        assert client.get(url).text == "plain"
        secure.show(secure.secured("a.test"))
        assert secure.ask("a.test") == (200, "a.test")
        # one that still wants TLS keeps the port to it
        secure.do(secure.listeners.serve("other", secure.port, [Binding("", (), api)]))
        assert secure.ask("a.test") == (200, "a.test")
        secure.do(secure.listeners.release("other"))
        secure.do(secure.listeners.serve("api", secure.port, [Binding("", (), api)]))
        assert httpx.get(url).text == "plain"


def test_a_plain_port_leads_to_the_one_with_tls(secure: Secure) -> None:
    answers = {("a.test", "token"): "token.thumb"}
    api = Api(
        Mount("api", "1"),
        [("$default", to_https(8443))],
        [challenges(lambda host, token: answers.get((host, token)))],
        [with_header(b"strict-transport-security", b"max-age=1")],
    )
    secure.do(secure.listeners.serve("api", secure.port, [Binding("", (), api)]))
    base = f"http://127.0.0.1:{secure.port}"
    got = httpx.get(f"{base}/x%2Fy?a=b", headers={"host": "a.test:8080"})
    assert got.status_code == 301 and got.headers["location"] == "https://a.test:8443/x%2Fy?a=b"
    assert got.headers["strict-transport-security"] == "max-age=1"
    assert httpx.post(base, headers={"host": "a.test"}).status_code == 308
    assert httpx.get(base, headers={"host": "a.test/evil?"}).status_code == 400
    path = "/.well-known/acme-challenge/token"
    assert httpx.get(base + path, headers={"host": "a.test"}).text == "token.thumb"
    assert httpx.get(base + path, headers={"host": "b.test"}).status_code == 404


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: b"", "no certificate"),
        (lambda a: a.issue("x").partition(b"-----BEGIN PRIVATE")[0], "no private key"),
        (lambda a: a.issue("x").partition(b"-----BEGIN PRIVATE")[0] + b"-----BEGIN PRIVATE" + a.issue("y").partition(b"-----BEGIN PRIVATE")[2], "not the one of the first"),
        (lambda a: a.issue("x") + b" " * 300_000, "too many"),
    ],
)  # fmt: skip
def test_a_certificate_that_cannot_be_served_is_refused(change: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        Certificate.parse(change(Authority()), "it", "$.tls")


def test_a_certificate_is_for_names_and_for_a_time() -> None:
    authority = Authority()
    found = Certificate.parse(authority.issue("a.test", "*.b.test"), "it", "$.tls")
    assert "PRIVATE" not in repr(found)
    for host in ("a.test", "x.b.test", "*.b.test", ""):
        found.check(host, "it", "$")
    for host in ("b.test", "x.y.b.test", "*.a.test"):
        with pytest.raises(InvalidError, match="not for"):
            found.check(host, "it", "$")
    with pytest.raises(InvalidError, match="ended"):
        Certificate.parse(authority.issue("a", begins=-9, ends=-1), "it", "$").check("a", "it", "$")
    with pytest.raises(InvalidError, match="not yet"):
        Certificate.parse(authority.issue("a", begins=1), "it", "$").check("a", "it", "$")
    assert "warning" in Certificate.parse(authority.issue("a", ends=13), "it", "$").facts("a")
    assert "warning" not in found.facts("a.test")


@given(st.binary(max_size=600))
def test_whatever_comes_is_a_hello_or_not(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01" + len(data).to_bytes(2, "big") + b"\x01"):
        with contextlib.suppress(NotTlsError):
            found = hello.read(start + data)
            assert isinstance(found, Hello) or found > len(start + data)


def test_a_clients_certificate_is_read_once() -> None:
    der = ssl.PEM_cert_to_DER_cert(Authority().pem)
    assert of_client(der) is of_client(der)


class Slow:
    """A client with little room, that asks for a large response and the end of the connection."""

    def __init__(self, secure: Secure, path: str, version: str = "HTTP/1.0") -> None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        plain.connect(("127.0.0.1", secure.port))
        plain.settimeout(10)
        self.socket = secure.context().wrap_socket(plain, server_hostname="a.test", suppress_ragged_eofs=False)
        self.socket.sendall(f"GET {path} {version}\r\nHost: a.test\r\n\r\n".encode())


@pytest.fixture
def ending(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> Secure:
    """Serves large responses; the times of its ends are short."""
    for each in (protocol, secure_transport):
        monkeypatch.setattr(each, "READER_SECONDS", 3.0)
    monkeypatch.setattr(secure_transport, "GOODBYE_SECONDS", 0.3)
    monkeypatch.setattr(secure_transport, "LOOK_SECONDS", 0.05)

    async def whole(exchange: Exchange) -> Response:
        return Response(200, [], bytes(LARGE))

    async def stream(exchange: Exchange) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(LARGE // 100_000):
                yield bytes(100_000)

        return Response(200, [], pieces())

    api = Api(Mount("api", "1"), [("GET /whole", whole), ("GET /stream", stream)])
    secure.do(secure.listeners.serve("api", secure.port, [Binding("a.test", (), api)], [secure.secured("a.test")]))
    return secure


LARGE = 10_000_000


def test_slow_clients_get_all_before_the_end(ending: Secure) -> None:
    """As without TLS: however long it takes, and then a goodbye, or it would be no end."""
    clients = [Slow(ending, path) for path in ("/whole", "/stream")]
    taken = [sum(len(client.socket.recv(16_384)) for _ in range(LARGE // 2 // 16_384)) for client in clients]
    for _ in range(60):  # meanwhile the server has written all of it
        taken = [before + len(client.socket.recv(16_384)) for before, client in zip(taken, clients, strict=True)]
        time.sleep(0.1)
    for before, client in zip(taken, clients, strict=True):
        rest = sum(map(len, iter(lambda: client.socket.recv(16_384), b"")))
        assert before + rest > LARGE
        client.socket.close()


def test_what_a_client_asks_after_the_end_is_not_done(ending: Secure) -> None:
    asked: list[str] = []
    listener = ending.listeners.of("api")
    assert listener is not None and listener._server is not None
    connections = listener._server.server_state.connections

    async def handle(exchange: Exchange) -> Response:
        asked.append(exchange.path)
        return Response(200, [], pieces())

    async def pieces() -> AsyncIterator[bytes]:
        (connection,) = connections
        while connection.transport.get_write_buffer_size() < 20_000:  # what waits before the end, and does not pause
            yield bytes(20_000)
        connection.shutdown()

    api = Api(Mount("api", "1"), [("$default", handle)])
    ending.do(ending.listeners.serve("api", ending.port, [Binding("a.test", (), api)], [ending.secured("a.test")]))
    client = Slow(ending, "/first", "HTTP/1.1")
    until(lambda: any(each.transport and each.transport.is_closing() for each in connections))
    client.socket.sendall(b"GET /again HTTP/1.1\r\nHost: a.test\r\n\r\n")
    time.sleep(0.2)
    while client.socket.recv(65_536):
        pass
    client.socket.close()
    until(lambda: not connections)
    assert asked == ["/first"]


def test_a_client_that_takes_nothing_before_the_end_is_cut_off(ending: Secure) -> None:
    client = Slow(ending, "/whole")
    connections = ending.listeners.of("api").connections  # type: ignore[union-attr]
    until(lambda: connections.count == 1)
    until(lambda: connections.count == 0)
    client.socket.close()


def test_a_client_that_does_not_answer_a_goodbye_is_cut_off(ending: Secure) -> None:
    client = Slow(ending, "/none")
    connections = ending.listeners.of("api").connections  # type: ignore[union-attr]
    until(lambda: connections.count == 1)
    until(lambda: connections.count == 0)
    client.socket.close()
