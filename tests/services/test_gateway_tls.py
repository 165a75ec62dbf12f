"""Gateways with TLS as services: certificates from secrets, files and authorities, and what status says of them."""

import asyncio
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509

from owsgit.gateway.certificates import Certificate
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import Alone, Applied, SecretValue, Site, Told
from owsgit.services.gateways import KIND, orders
from owsgit.services.gateways.handler import GatewayHandler
from owsgit.services.gateways.spec import GatewaySpec
from tests.gateway.served import Echo
from tests.gateway.test_tls import until
from tests.support.acme import Pebble, pebble
from tests.support.authorities import Authority
from tests.support.nodes import free_port

ROUTES = {"GET /": {"function": "f"}}


class Gateways:
    """The handler of gateways, in an event loop of its own thread."""

    def __init__(self, folder: Path, neighbours: Any = None) -> None:
        self.name, self.home = folder.name, folder / "home"
        self.folder = folder / "certificates"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.site = Site(
            home=self.home,
            listen="127.0.0.1",
            scope=lambda: Scope("us-east-1", "1" * 12),
            read_files=lambda tree: [],
            targets={"function": Echo()},
            settings={"certificateFolders": [str(self.folder)]},
            unseal=lambda resource: SecretValue(1, b""),
            neighbours=neighbours or Alone(),
        )
        self.loop = uvloop.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = free_port()
        self.handler = self.do(self._made())

    async def _made(self) -> GatewayHandler:
        return GatewayHandler(self.site)

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def secret(self, name: str, content: bytes) -> None:
        self.site.secrets[name] = SecretValue(1, content)

    def resource(self, **document: Any) -> Resource:
        data = json.dumps({"port": self.port, "routes": ROUTES, **document}).encode()
        tree = hashlib.sha1(data).hexdigest()
        return Resource(KIND, "api", GatewaySpec.parse(data, "gateways/api.json"), tree, tree, "")

    def apply(self, **document: Any) -> Applied:
        return self.do(self.handler.apply(self.resource(**document), "0" * 40))  # type: ignore[no-any-return]

    def observe(self, **document: Any) -> str | None:
        return self.do(self.handler.observe(self.resource(**document)))  # type: ignore[no-any-return]

    def shown(self, name: str, authority: str, port: int = 0) -> dict[str, Any]:
        context = ssl.create_default_context(cadata=authority)
        plain = socket.create_connection(("127.0.0.1", port or self.port), 10)
        with context.wrap_socket(plain, server_hostname=name) as made:
            return made.getpeercert()  # type: ignore[return-value]

    def close(self) -> None:
        self.do(self.handler.close())
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Gateways]:
    made = Gateways(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def secured(secret: str = "cert", *hosts: str, **tls: Any) -> dict[str, Any]:
    domains = [{"name": host} for host in hosts or ("a.test",)]
    return {"domains": domains, "tls": {"certificate": {"secret": secret}, **tls}}


def test_a_secret_that_changes_is_shown_at_once(gateways: Gateways, authority: Authority) -> None:
    with pytest.raises(InvalidError, match="the secret cert is not open"):
        gateways.apply(**secured())
    gateways.secret("cert", authority.issue("a.test", ends=10))
    applied = gateways.apply(**secured())
    assert applied.urls[0].startswith("https://")
    place = ("127.0.0.1", gateways.port)
    assert gateways.site.own_host("a.test", 443) == gateways.site.own_host("a.test", gateways.port) == place
    assert gateways.site.own_host("a.test", 80) is gateways.site.own_host("b.test", 443) is None
    first = gateways.shown("a.test", authority.pem)
    (told,) = gateways.handler.details("api")["certificates"]
    assert told["host"] == "a.test" and told["days"] == 9 and "warning" in told and "problem" not in told
    gateways.secret("cert", authority.issue("a.test"))
    assert gateways.observe(**secured()) is None
    assert gateways.shown("a.test", authority.pem)["serialNumber"] != first["serialNumber"]
    for bad, message in (
        (authority.issue("a.test", begins=-9, ends=-1), "ended"),
        (authority.issue("b.test"), "is for b.test, not for a.test"),
        (b"-----BEGIN CERTIFICATE-----", "no certificate"),
    ):
        gateways.secret("cert", bad)
        drift = gateways.observe(**secured())
        assert drift is not None and message in drift
        with pytest.raises(InvalidError, match=message):
            gateways.apply(**secured())
        gateways.shown("a.test", authority.pem)


def test_one_bad_certificate_does_not_keep_the_others_from_serving(gateways: Gateways, authority: Authority) -> None:
    gateways.secret("cert", authority.issue("a.test"))
    document = secured()
    document["domains"].append({"name": "b.test", "certificate": {"secret": "other"}})
    with pytest.raises(InvalidError) as caught:
        gateways.apply(**document)
    assert [problem.path for problem in caught.value.problems] == ["$.domains[1].certificate.secret"]
    gateways.shown("a.test", authority.pem)
    with pytest.raises(ssl.SSLError):
        gateways.shown("b.test", authority.pem)


def test_files_are_read_again_when_they_change(gateways: Gateways, authority: Authority, tmp_path: Path) -> None:
    chain, key = gateways.folder / "chain.pem", gateways.folder / "key.pem"
    files = {"certificate": {"files": {"chain": str(chain), "key": str(key)}}}

    def put() -> None:
        pem = authority.issue("a.test")
        chain.write_bytes(pem.partition(b"-----BEGIN PRIVATE")[0])
        key.write_bytes(b"-----BEGIN PRIVATE" + pem.partition(b"-----BEGIN PRIVATE")[2])

    with pytest.raises(InvalidError, match=r"cannot be read: No such file"):
        gateways.apply(tls=files)
    put()
    gateways.apply(tls=files)
    first = gateways.shown("a.test", authority.pem)
    put()
    assert gateways.observe(tls=files) is None
    assert gateways.shown("a.test", authority.pem) != first
    outside = tmp_path / "outside.pem"
    outside.write_bytes(authority.issue("a.test"))
    (gateways.folder / "link.pem").symlink_to(outside)
    for path in (outside, gateways.folder / "link.pem", gateways.folder / ".." / "outside.pem"):
        with pytest.raises(InvalidError, match="none of the folders"):
            gateways.apply(tls={"certificate": {"files": {"chain": str(path), "key": str(path)}}})


def test_without_a_truststore_nobody_is_let_in(gateways: Gateways, authority: Authority) -> None:
    gateways.secret("cert", authority.issue("a.test"))
    with pytest.raises(UnavailableError, match="the secret trusted is not open"):
        gateways.apply(**secured(mutualTls={"truststoreSecret": "trusted"}))
    with pytest.raises(ConnectionRefusedError):
        gateways.shown("a.test", authority.pem)
    gateways.secret("trusted", b"nothing")
    with pytest.raises(InvalidError, match="no certificate in PEM"):
        gateways.apply(**secured(mutualTls={"truststoreSecret": "trusted"}))
    gateways.secret("trusted", Authority("Clients").pem.encode())
    gateways.apply(**secured(mutualTls={"truststoreSecret": "trusted"}))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"domains": [{"name": "a.test", "certificate": {"secret": "x"}}]}, "has no tls"),
        ({"tls": {}}, "tls has no certificate"),
        ({"tls": {}, "domains": [{"name": "a.test"}]}, r"domains\[0\] has no certificate"),
        ({"tls": {"certificate": {}}}, "exactly one of secret, files, acme"),
        ({"tls": {"certificate": {"secret": "x"}, "redirectPort": 443}}, "the port of the gateway itself"),
        ({"tls": {"certificate": {"secret": "x"}, "mutualTls": {}}}, "exactly one of truststore"),
        ({"tls": {"certificate": {"acme": {"termsOfServiceAgreed": True}}}}, "cannot order a certificate for every"),
        ({"tls": {"certificate": {"acme": {"termsOfServiceAgreed": True}}}, "domains": [{"name": "*.a.test"}]}, "for \\*.a.test"),
        ({"tls": {"certificate": {"acme": {"termsOfServiceAgreed": True}}}, "domains": [{"name": "a.test"}]}, "redirectPort"),
        ({"tls": {"certificate": {"acme": {"termsOfServiceAgreed": False}}}, "domains": [{"name": "a.test"}]}, "termsOfServiceAgreed"),
        ({"tls": {"certificate": {"secret": "x"}, "minVersion": "TLSv1.1"}}, "minVersion"),
    ],
)  # fmt: skip
def test_mistakes(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        GatewaySpec.parse(json.dumps({"port": 443, "routes": ROUTES, **document}).encode(), "gateways/a.json")


class Neighbour:
    """A node of several in one process."""

    def __init__(self, own: str, all_: "dict[str, Neighbour]") -> None:
        self.own, self._all = own, all_
        self.answers: dict[str, Callable[[str, Told], Awaitable[Told]]] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.reachable = True
        all_[own] = self

    def others(self) -> list[str]:
        return [name for name in self._all if name != self.own]

    async def ask(self, node: str, topic: str, told: Told) -> Told:
        other = self._all[node]
        if not other.reachable or other.loop is None:
            raise UnavailableError(f"{node} is not connected")
        work = asyncio.run_coroutine_threadsafe(other.answers[topic](self.own, told), other.loop)  # type: ignore[arg-type]
        return await asyncio.wrap_future(work)

    def answer(self, topic: str, answer: Callable[[str, Told], Awaitable[Told]]) -> None:
        self.answers[topic] = answer
        self.loop = asyncio.get_running_loop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pebble, int, int]]:
    http, tls = free_port(), free_port()
    with pebble(tmp_path_factory.mktemp("pebble"), http, tls) as made:
        yield made, http, tls


def shown_to_anybody(gateways: Gateways, name: str) -> x509.Certificate:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", gateways.port), 10)
    with context.wrap_socket(plain, server_hostname=name) as made:
        der = made.getpeercert(True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
def test_a_certificate_is_ordered_once_for_all_nodes(
    tmp_path: Path, server: tuple[Pebble, int, int], challenge: str
) -> None:
    authority, http, tls = server
    host = f"{challenge}.test"
    nodes: dict[str, Neighbour] = {}
    made = [Gateways(tmp_path / name, Neighbour(name, nodes)) for name in ("n1", "n2")]
    first, second = made if made[0].handler._orders._before(host) == [] else reversed(made)

    def document(redirects: int) -> dict[str, Any]:
        acme = authority.spec(challenge)
        return {"domains": [{"name": host}], "tls": {"certificate": {"acme": acme}, "redirectPort": redirects}}

    try:
        # the authority asks the node that does not order
        second.port = tls
        applying = second.handler.apply(second.resource(**document(http)), "0" * 40)
        waiting = asyncio.run_coroutine_threadsafe(applying, second.loop)
        until(lambda: len(second.handler._listeners.all_of("api")) == 2)
        first.apply(**document(free_port()))
        waiting.result(30)
        one = shown_to_anybody(first, host)
        assert "Pebble" in one.issuer.rfc4514_string() and one == shown_to_anybody(second, host)
        kept = list((first.home / "acme").glob("*/*"))
        assert sorted(file.name for file in kept) == ["account.pem", f"{host}.pem"]
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in kept)
        assert [file.name for file in (second.home / "acme").glob("*/*")] == [f"{host}.pem"]
        assert not first.handler._orders._challenges and not first.handler._listeners._proofs
    finally:
        for each in made:
            each.close()
    again = Gateways(first.home.parent)
    try:  # after a start nobody is asked
        unreachable = document(free_port())
        again.apply(**unreachable)
        assert shown_to_anybody(again, host) == one
    finally:
        again.close()


def test_an_authority_that_cannot_be_reached_is_told_of(gateways: Gateways) -> None:
    acme = {
        "directory": f"https://127.0.0.1:{free_port()}/dir",
        "challenge": "tls-alpn-01",
        "termsOfServiceAgreed": True,
    }
    document = {"domains": [{"name": "a.test"}], "tls": {"certificate": {"acme": acme}}}
    with pytest.raises(InvalidError, match=r"no certificate for a.test yet: .*cannot be reached") as caught:
        gateways.apply(**document)
    assert caught.value.problems[0].path == "$.tls.certificate.acme"
    (told,) = gateways.handler.details("api")["certificates"]
    assert "cannot be reached" in told["problem"]
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        shown_to_anybody(gateways, "a.test")


def test_a_name_that_is_somebody_elses_is_not_given(gateways: Gateways, server: tuple[Pebble, int, int]) -> None:
    """Nothing listens where the authority looks."""
    authority, _, _ = server
    document = {
        "domains": [{"name": "c.test"}],
        "tls": {"certificate": {"acme": authority.spec("http-01")}, "redirectPort": free_port()},
    }
    with pytest.raises(InvalidError, match=r"gave no certificate for c.test: .*onnect"):
        gateways.apply(**document)


def test_a_certificate_is_renewed_by_the_next_node_when_the_first_brings_nothing(
    tmp_path: Path, server: tuple[Pebble, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, _, tls = server
    nodes: dict[str, Neighbour] = {}
    Neighbour("gone", nodes).reachable = False
    made = Gateways(tmp_path / "here", Neighbour("here", nodes))
    hosts = (f"h{number}.test" for number in range(100))
    host = next(host for host in hosts if made.handler._orders._before(host) == ["gone"])
    made.port = tls
    document = {"domains": [{"name": host}], "tls": {"certificate": {"acme": authority.spec("tls-alpn-01")}}}
    before = Authority("Before")
    place = made.home / "acme" / hashlib.sha256(authority.directory.encode()).hexdigest()[:16]
    place.mkdir(parents=True)
    (place / f"{host}.pem").write_bytes(before.issue(host, begins=-70, ends=20))
    try:
        made.apply(**document)
        assert made.shown(host, before.pem)
        (wanted,) = made.handler._orders._wanted.values()
        until(lambda: "awaited from gone" in wanted.problem)
        (told,) = made.handler.details("api")["certificates"]
        assert told["days"] == 19 and told["problem"] == wanted.problem
        monkeypatch.setattr("owsgit.services.gateways.orders.TAKE_OVER_SECONDS", 0)
        made.loop.call_soon_threadsafe(wanted.wake.set)
        until(lambda: "Pebble" in shown_to_anybody(made, host).issuer.rfc4514_string())
        assert made.observe(**document) is None
        assert b"Before" not in (place / f"{host}.pem").read_bytes()
    finally:
        made.close()


@pytest.mark.parametrize(("ends", "due"), [(89, False), (40, False), (29, True)])
def test_a_certificate_is_due_after_two_thirds_of_its_life(authority: Authority, ends: int, due: bool) -> None:
    certificate = Certificate.parse(authority.issue("a.test", begins=ends - 90, ends=ends), "it", "$")
    assert (orders._due(certificate) == 0) is due
