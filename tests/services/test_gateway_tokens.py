"""JSON Web Tokens at a gateway: a real issuer over HTTP, real keys, and what is tried with them."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import algorithms

from owsgit.gateway import issuers
from owsgit.gateway.tokens import shown_as_text
from owsgit.model.errors import InvalidError
from tests.support.gateways import Account, Gateways
from tests.support.issuers import Issuer

AUDIENCE = "shop"


RSA = rsa.generate_private_key(65537, 2048)
P256, P384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"rsa": RSA, "p256": P256, "p384": P384, "ed": ED}


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = Gateways(tmp_path_factory.mktemp("gateways"), Account())
    yield made
    made.close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    for name, key in KEYS.items():
        made.add(name, key)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def served(gateways: Gateways, issuer: Issuer) -> Gateways:
    serve(gateways, issuer)
    return gateways


def serve(gateways: Gateways, issuer: Issuer, **more: Any) -> None:
    gateways.serve(
        authorizers={"login": {"type": "jwt", "issuer": issuer.url, "audience": [AUDIENCE, "other"], **more}},
        auth="login",
        routes={
            "GET /me": {"function": "echo"},
            "GET /one": {"function": "echo", "payloadFormatVersion": "1.0"},
            "GET /write": {"function": "echo", "scopes": ["write", "admin"]},
            "GET /open": {"function": "echo", "auth": "none"},
        },
    )


def token(issuer: Issuer, key: str = "rsa", algorithm: str = "RS256", headers: Any = None, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": issuer.url, "aud": AUDIENCE, "sub": "u1", "iat": now, "exp": now + 300, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, KEYS[key], algorithm, headers={"kid": key, **(headers or {})})


def get(gateways: Gateways, path: str, bearer: str | None = None, **headers: str) -> Any:
    return gateways.client.get(path, headers={**({"authorization": f"Bearer {bearer}"} if bearer else {}), **headers})


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("rsa", "RS256"), ("rsa", "RS512"), ("rsa", "PS384"), ("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA")],
)
def test_tokens_of_every_kind_of_key_are_taken(served: Gateways, issuer: Issuer, key: str, algorithm: str) -> None:
    answer = get(served, "/me", token(issuer, key, algorithm))
    assert answer.status_code == 200
    assert answer.json()["requestContext"]["authorizer"]["jwt"]["claims"]["sub"] == "u1"


def test_claims_are_shown_as_text_and_scopes_as_a_list(served: Gateways, issuer: Issuer) -> None:
    good = token(issuer, groups=["a", "b"], ok=True, scope="read write", address={"city": "x"}, exp=2**33, iat=5)
    shown = get(served, "/me", good).json()["requestContext"]["authorizer"]
    assert shown["jwt"]["scopes"] == ["read", "write"]
    claims = shown["jwt"]["claims"]
    assert claims["groups"] == "[a b]" and claims["ok"] == "true" and claims["exp"] == str(2**33)
    assert claims["address"] == "map[city:x]" and claims["aud"] == AUDIENCE
    first = get(served, "/one", good).json()["requestContext"]["authorizer"]
    assert first == {"claims": claims, "scopes": ["read", "write"]}
    assert shown_as_text(None) == "<nil>"


def test_a_route_without_authorization_asks_for_none(served: Gateways) -> None:
    assert get(served, "/open").status_code == 200


def test_a_request_without_a_token_is_told_to_bring_one(served: Gateways) -> None:
    answer = get(served, "/me")
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})
    assert answer.headers["www-authenticate"] == "Bearer"


def test_scopes_of_a_route_are_asked_for(served: Gateways, issuer: Issuer) -> None:
    for claims in ({"scope": "read write"}, {"scp": ["admin"]}, {"scp": "write"}):
        assert get(served, "/write", token(issuer, **claims)).status_code == 200
    for claims in ({}, {"scope": "read"}, {"scope": "writer"}, {"scope": ["write", 1]} | {"scope": 5}):
        answer = get(served, "/write", token(issuer, **claims))
        assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "never"},
        {"exp": 1e400},
        {"nbf": 2**33},
        {"iat": 2**33},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "somebody else"},
        {"aud": ["x", "y"]},
        {"aud": None},
        {"aud": None, "client_id": "x"},
        {"aud": "x", "client_id": AUDIENCE},
        {"aud": {"shop": 1}},
        {"aud": None, "client_id": [AUDIENCE]},
    ],
    ids=str,
)
def test_what_a_token_claims_is_checked(served: Gateways, issuer: Issuer, claims: dict[str, Any]) -> None:
    answer = get(served, "/me", token(issuer, **claims))
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_audience_may_be_one_of_several_or_a_client_id(served: Gateways, issuer: Issuer) -> None:
    for claims in ({"aud": ["x", "other"]}, {"aud": None, "client_id": AUDIENCE}):
        assert get(served, "/me", token(issuer, **claims)).status_code == 200


def encoded(*parts: Any) -> str:
    return ".".join(
        base64.urlsafe_b64encode(p if isinstance(p, bytes) else json.dumps(p).encode()).rstrip(b"=").decode()
        for p in parts
    )


def forged(issuer: Issuer) -> Iterator[tuple[str, str]]:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "exp": int(time.time()) + 300}
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    import hashlib
    import hmac

    yield "none", encoded({"alg": "none", "kid": "rsa"}, claims, b"")
    yield "None", encoded({"alg": "None", "kid": "rsa"}, claims, b"")
    head = encoded({"alg": "HS256", "kid": "rsa"}, claims)
    yield "the public key as a secret", head + "." + encoded(hmac.digest(pem, head.encode(), hashlib.sha256))
    mine = rsa.generate_private_key(65537, 2048)
    jwk = json.loads(algorithms.RSAAlgorithm.to_jwk(mine.public_key()))
    for extra in ({"jwk": jwk}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example"}, {}):
        yield f"own key {list(extra)}", jwt.encode(claims, mine, "RS256", headers={"kid": "rsa", **extra})
    yield "an RSA key's id with ES256", jwt.encode(claims, P256, "ES256", headers={"kid": "rsa"})
    yield "no such key", jwt.encode(claims, RSA, "RS256", headers={"kid": "nobody"})
    yield "a path as key", jwt.encode(claims, RSA, "RS256", headers={"kid": "../../dev/null"})
    yield "sql as key", jwt.encode(claims, RSA, "RS256", headers={"kid": "' or 1=1 --"})
    yield "a number as key", encoded({"alg": "RS256", "kid": 7}, claims, b"x" * 256)
    yield "critical", jwt.encode(claims, RSA, "RS256", headers={"kid": "rsa", "crit": ["exp"], "exp": 1})
    good = jwt.encode(claims, RSA, "RS256", headers={"kid": "rsa"})
    first, second, third = good.split(".")
    yield "other claims", f"{first}.{encoded({**claims, 'sub': 'root'})}.{third}"
    yield "no signature", f"{first}.{second}."
    yield "a changed signature", f"{first}.{second}.{third[:-8]}AAAAAAAA"
    yield "two parts", f"{first}.{second}"
    yield "five parts", f"{first}.{second}.{third}.{first}.{second}"
    yield "not base64", "é!.%.§".encode().decode("latin-1")
    yield "deep header", encoded(b"[" * 9000) + ".e30.AAAA"
    yield "deep claims", jwt.api_jws.encode(b"[" * 9000, RSA, "RS256", headers={"kid": "rsa"})
    yield "claims that are no object", jwt.api_jws.encode(b"[]", RSA, "RS256", headers={"kid": "rsa"})
    yield "huge", good + "A" * 40_000
    yield "empty parts", ".."


def test_forged_tokens_are_refused(served: Gateways, issuer: Issuer) -> None:
    for what, bad in forged(issuer):
        answer = served.client.get("/me", headers={"authorization": f"Bearer {bad}".encode("latin-1")})
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"}), what
    assert issuer.hits.count("/keys") == 1, "unknown keys do not have the issuer asked for each of them"


def test_two_tokens_in_one_request_are_none(served: Gateways, issuer: Issuer) -> None:
    good = f"Bearer {token(issuer)}"
    answer = served.client.get("/me", headers=[("authorization", good), ("authorization", "Bearer x")])
    assert answer.status_code == 401


def test_a_token_can_come_by_another_header_or_the_query(gateways: Gateways, issuer: Issuer) -> None:
    serve(gateways, issuer, identitySource="$request.header.X-Token")
    assert get(gateways, "/me", **{"x-token": token(issuer)}).status_code == 200
    assert get(gateways, "/me", token(issuer)).status_code == 401
    serve(gateways, issuer, identitySource="$request.querystring.token")
    assert get(gateways, f"/me?token={token(issuer)}").status_code == 200
    assert get(gateways, f"/me?token={token(issuer)}&token=x").status_code == 401


def test_a_token_that_was_good_is_not_taken_after_it_expired(
    served: Gateways, issuer: Issuer, monkeypatch: Any
) -> None:
    good = token(issuer, exp=int(time.time()) + 300)
    assert get(served, "/me", good).status_code == 200
    later = time.time() + 301
    monkeypatch.setattr("owsgit.gateway.tokens.time.time", lambda: later)
    assert get(served, "/me", good).status_code == 401


def test_the_clocks_of_issuer_and_gateway_may_differ_as_much_as_said(gateways: Gateways, issuer: Issuer) -> None:
    serve(gateways, issuer, clockSkew=120)
    now = int(time.time())
    assert get(gateways, "/me", token(issuer, exp=now - 60, nbf=now + 60)).status_code == 200
    assert get(gateways, "/me", token(issuer, exp=now - 180)).status_code == 401


def hurry(monkeypatch: pytest.MonkeyPatch, pause: float = 0.0, fresh: float = 0.0) -> None:
    """Ask issuers without pauses, and again at once."""
    monkeypatch.setattr(issuers, "PAUSE_SECONDS", pause)
    monkeypatch.setattr(issuers, "FRESH_SECONDS_MIN", fresh)
    if not fresh:
        monkeypatch.setattr(issuers, "FRESH_SECONDS_MAX", 0.0)


def test_a_new_key_is_found_and_one_that_was_withdrawn_is_not_taken(
    gateways: Gateways, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    serve(gateways, issuer)
    old = token(issuer, "p256", "ES256")
    assert get(gateways, "/me", old).status_code == 200
    new = ed25519.Ed25519PrivateKey.generate()
    monkeypatch.setitem(KEYS, "new", new)
    issuer.add("new", new)
    del issuer.keys["p256"]
    assert get(gateways, "/me", token(issuer, "new", "EdDSA")).status_code == 200
    assert get(gateways, "/me", old).status_code == 401, "also a token that was taken before"


def test_keys_are_used_while_their_issuer_is_away(
    gateways: Gateways, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    serve(gateways, issuer)
    assert get(gateways, "/me", token(issuer)).status_code == 200
    for answer in ((503, {}, b""), (200, {}, b"no JSON"), (200, {}, b"[]"), (200, {}, b"[" * 100_000)):
        issuer.answers["/keys"] = answer
        assert get(gateways, "/me", token(issuer)).status_code == 200, answer
    monkeypatch.setattr(issuers, "STALE_SECONDS_MAX", -1.0)
    assert get(gateways, "/me", token(issuer)).status_code == 500
    del issuer.answers["/keys"]
    monkeypatch.setattr(issuers, "STALE_SECONDS_MAX", 60.0)
    assert get(gateways, "/me", token(issuer)).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"/.well-known/openid-configuration": (200, {}, b'{"issuer": "https://evil.example", "jwks_uri": "KEYS"}')},
        {"/.well-known/openid-configuration": (200, {}, b'{"issuer": "ME", "jwks_uri": "http://example.com/keys"}')},
        {"/.well-known/openid-configuration": (200, {}, b'{"issuer": "ME", "jwks_uri": "file:///etc/passwd"}')},
        {"/.well-known/openid-configuration": (200, {}, b'{"issuer": "ME"}')},
        {"/keys": (200, {}, b" " * 300_000)},
        {"/keys": (302, {"location": "/keys"}, b"")},
        {"/keys": (302, {"location": "http://example.com/keys"}, b"")},
        {"/keys": (302, {}, b"")},
        {"/keys": (200, {}, json.dumps({"keys": [{"kty": "RSA"}] * 101}).encode())},
        {"/keys": (200, {"content-encoding": "gzip"}, b"\x1f\x8b")},
    ],
    ids=str,
)
def test_an_issuer_that_says_something_wrong_is_not_trusted(
    gateways: Gateways, issuer: Issuer, wrong: dict[str, Any]
) -> None:
    for path, (status, headers, body) in wrong.items():
        told = body.replace(b"ME", issuer.url.encode()).replace(b"KEYS", f"{issuer.url}/keys".encode())
        issuer.answers[path] = status, headers, told
    serve(gateways, issuer)
    answer = get(gateways, "/me", token(issuer))
    assert (answer.status_code, answer.json()) == (500, {"message": "Internal Server Error"})
    hits = len(issuer.hits)
    assert get(gateways, "/me", token(issuer)).status_code == 500
    assert len(issuer.hits) == hits, "it is not asked again for a while"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_keys_that_are_not_for_signatures_are_passed_over(gateways: Gateways, issuer: Issuer) -> None:
    small = rsa.generate_private_key(65537, 1024)
    issuer.keys.clear()
    issuer.add("rsa", small)
    issuer.add("p256", P256, use="enc")
    issuer.add("p384", P384, alg="ES256")
    issuer.keys["oct"] = {"kty": "oct", "kid": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
    issuer.keys["odd"] = {"kty": ["RSA"], "kid": "odd"}
    serve(gateways, issuer)
    bad = [token(issuer, "p256", "ES256"), token(issuer, "p384", "ES384")]
    bad.append(jwt.encode({"iss": issuer.url}, "secret" * 8, "HS256", headers={"kid": "oct"}))
    bad.append(jwt.encode({"iss": issuer.url, "aud": AUDIENCE, "exp": 2**33}, small, "RS256", headers={"kid": "rsa"}))
    assert [get(gateways, "/me", each).status_code for each in bad] == [401] * 4


def test_an_issuer_is_asked_once_by_many_requests(gateways: Gateways, issuer: Issuer) -> None:
    serve(gateways, issuer)
    found: list[int] = []
    workers = [
        threading.Thread(target=lambda: found.append(get(gateways, "/me", token(issuer)).status_code)) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [200] * 8 and issuer.hits.count("/keys") == 1
    serve(gateways, issuer, clockSkew=1)
    assert get(gateways, "/me", token(issuer)).status_code == 200
    assert issuer.hits.count("/keys") == 1, "its keys outlive a deployment"


def test_a_token_without_a_key_id_is_taken_if_one_key_alone_fits(served: Gateways, issuer: Issuer) -> None:
    now = int(time.time())
    claims = {"iss": issuer.url, "aud": AUDIENCE, "exp": now + 60}
    assert get(served, "/me", jwt.encode(claims, RSA, "RS256")).status_code == 200
    assert get(served, "/me", jwt.encode(claims, P256, "ES256")).status_code == 200


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"auth": "logn"}, "did you mean the authorizer 'login'?"),
        ({"authorizers": {"none": {"type": "jwt", "issuer": "https://x", "audience": ["a"]}}}, "choose another name"),
        ({"authorizers": {"login": {"type": "jwt", "issuer": "http://x", "audience": ["a"]}}}, "write an https address"),
        ({"authorizers": {"login": {"type": "jwt", "issuer": "https://x", "audience": []}}}, "nothing is given"),
        ({"authorizers": {"login": {"type": "jwt", "issuer": "https://x", "audience": ["a"], "identitySource": "x"}}},
         "$.authorizers.login.identitySource"),
        ({"routes": {"GET /x": {"function": "f", "scopes": ["a b"]}}}, "$.routes['GET /x'].scopes[0]"),
        ({"routes": {"GET /x": {"function": "f", "auth": "iam", "scopes": ["a"]}}}, "name a jwt authorizer"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(document: dict[str, Any], told: str) -> None:
    login = {"login": {"type": "jwt", "issuer": "https://x", "audience": ["a"]}}
    whole = {"port": 8080, "authorizers": login, "routes": {}, **document}
    with pytest.raises(InvalidError, match=r".") as error:
        Account().resource("gateway", "api", whole)
    assert told in str(error.value)
