"""`owsgit gateway`: routes, test, import and export, in a working tree."""

import base64
import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from owsgit.cli.gateway import command
from owsgit.model.errors import InvalidError
from tests.support import projects
from tests.support.nodes import owsgit
from tests.support.people import Person
from tests.support.projects import Project

SHOP: dict[str, Any] = {
    "port": 8080,
    "stages": {"live": {"variables": {"fn": "hello"}}, "test": {"variables": {"fn": "hello:next"}}},
    "models": {"Order": {"type": "object", "required": ["id"]}},
    "routes": {
        "GET /orders/{id}": {"function": "${stageVariables.fn}", "timeout": 3},
        "POST /orders/{id}": {
            "function": "hello",
            "payloadFormatVersion": "1.0",
            "request": {"body": {"application/json": "Order"}},
        },
        "GET /orders/latest": {"function": "hello"},
        "ANY /{proxy+}": {"function": "hello"},
    },
}
OTHER: dict[str, Any] = {
    "port": 8080,
    "domains": [{"name": "*.example.com", "basePath": "/in"}],
    "routes": {"$default": {"function": "hello"}},
}

ISSUER = "https://login.example.com"
GUARDED: dict[str, Any] = {
    "port": 8082,
    "domains": [{"name": "guarded.example.com"}],
    "docs": {"path": "/docs", "auth": "asking"},
    "authorizers": {
        "people": {"type": "jwt", "issuer": ISSUER, "audience": ["shop"]},
        "asking": {"type": "request", "function": "hello", "identitySource": ["$request.header.X-Who"]},
        "token": {"type": "token", "function": "hello", "identityValidationExpression": "t-[0-9]+"},
    },
    "policy": {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "*"},
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "execute-api:Invoke",
                "Resource": "*",
                "Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
            },
        ],
    },
    "routes": {
        "GET /people": {"function": "hello", "auth": "people", "scopes": ["read"]},
        "GET /asking": {"function": "hello", "auth": "asking"},
        "GET /token": {"function": "hello", "auth": "token"},
        "GET /signed": {"function": "hello", "auth": "iam"},
        "GET /keyed": {"function": "hello", "apiKeyRequired": True},
        "GET /open": {"function": "hello"},
    },
}
GOLD: dict[str, Any] = {
    "apis": [{"gateway": "guarded"}],
    "keys": {
        "ann": {"sha256": hashlib.sha256(b"ann's").hexdigest()},
        "bob": {"sha256": hashlib.sha256(b"bob's").hexdigest(), "enabled": False},
    },
}
CHAT: dict[str, Any] = {"protocol": "WEBSOCKET", "port": 8081, "routes": {"$connect": {"function": "hello"}}}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Project:
    files = {
        "functions/hello/function.json": projects.function(aliases={"next": {"commit": "5" * 40}}),
        "functions/hello/app.py": projects.HELLO,
        "gateways/shop.json": SHOP,
        "gateways/other.json": OTHER,
        "gateways/chat.json": CHAT,
        "gateways/guarded.json": GUARDED,
        "usageplans/gold.json": GOLD,
    }
    return projects.create(tmp_path_factory.mktemp("tree") / "shop", alice, files=files)


@pytest.fixture
def run(tree: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tree.folder)

    def run(*arguments: str, data: str | None = None) -> Result:
        return CliRunner().invoke(command, arguments, input=data, standalone_mode=False)

    return run


def told(result: Result) -> Any:
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def test_routes(run: Any) -> None:
    rows = told(run("routes", "shop", "-o", "json"))
    assert rows[1] == {
        "gateway": "shop",
        "routeKey": "POST /orders/{id}",
        "method": "POST",
        "path": "/orders/{id}",
        "integration": "function hello",
        "auth": "none",
        "limits": ["29 s", "validates body and parameters"],
    }
    table = run("routes").stdout
    assert "GATEWAY" in table and "$default" in table and table.endswith("12 routes\n")
    assert isinstance(run("routes", "shp").exception, InvalidError)
    assert "did you mean the gateway 'shop'" in str(run("routes", "shp").exception)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["GET", "/live/orders/5"],
            {
                "gateway": "shop",
                "stage": "live",
                "basePath": "/live",
                "path": "/orders/5",
                "routeKey": "GET /orders/{id}",
                "pathParameters": {"id": "5"},
                "integration": "function hello",
                "alsoMatching": ["ANY /{proxy+}"],
                "near": ["POST /orders/{id}"],
                "refusal": None,
                "limits": ["3 s"],
            },
        ),
        (["GET", "/orders/5", "--stage", "test"], {"stage": "test", "integration": "function hello:next"}),
        (["GET", "/live/orders/latest"], {"routeKey": "GET /orders/latest", "why": "the path matches literally; the method matches"}),
        (["PUT", "/live/a%2Fb/c"], {"routeKey": "ANY /{proxy+}", "pathParameters": {"proxy": "a/b/c"}}),
        (["GET", "/in/x", "--host", "a.example.com"], {"gateway": "other", "routeKey": "$default", "path": "/x"}),
        (["GET", "/in/x", "--gateway", "other"], {"gateway": "other", "host": "any.example.com"}),
        (["POST", "/live/orders/5", "--body", '{"id": 1}', "-H", "content-type: application/json"], {"refusal": None}),
        (
            ["POST", "/live/orders/5", "--body", "{}"],
            {
                "routeKey": "POST /orders/{id}",
                "refusal": {
                    "status": 400,
                    "message": "Invalid request body",
                    "reason": None,
                    "errors": [{"path": "$", "message": '"id" is a required property'}],
                },
            },
        ),
        (["GET", "/nowhere"], {"gateway": None, "refusal": {"status": 404, "message": "Not Found", "reason": None, "errors": []}}),
        (["GET", "/live/%2e%2e/x"], {"refusal": {"status": 400, "message": "Bad Request", "reason": None, "errors": []}}),
    ],
)  # fmt: skip
def test_a_request_is_explained(run: Any, arguments: list[str], expected: dict[str, Any]) -> None:
    done = run("test", *arguments, "-o", "json")
    found = told(done)
    assert {name: found[name] for name in expected} == expected
    assert done.return_value == (1 if found["refusal"] else 0)
    lines = run("test", *arguments).stdout
    assert f"route:       {found['routeKey'] or 'none'}" in lines


def token(**claims: Any) -> str:
    good = {"iss": ISSUER, "aud": "shop", "exp": int(time.time()) + 3600, "scope": "read write"}
    parts = {"alg": "RS256", "kid": "k"}, {**good, **claims}
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, "c2ln"))


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLEEXAMPLE00/{day}/{region}/execute-api/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
)


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"),
    [
        ("/people", (), 401, "there is no token"),
        ("/people", ("authorization: Bearer nonsense",), 401, "DecodeError: Not enough segments"),
        ("/people", (f"authorization: Bearer {token(exp=1)}",), 401, "the token has expired"),
        ("/people", (f"authorization: Bearer {token(nbf=2e10)}",), 401, "ImmatureSignatureError"),
        ("/people", (f"authorization: Bearer {token(iss='https://b.example')}",), 401, "InvalidIssuerError"),
        ("/people", (f"authorization: Bearer {token(aud='b')}",), 401, "the token is for another audience"),
        ("/people", (f"authorization: Bearer {token(scope='write')}",), 403, "none of the scopes"),
        ("/people", (f"authorization: Bearer {token()}",), 200, "signature is not verified here"),
        ("/asking", (), 401, "what identitySource names is missing"),
        ("/asking", ("x-who: me",), 200, "the authorizer asking asks the function hello: on the node, not here"),
        ("/docs", (), 401, "what identitySource names is missing"),
        ("/docs", ("x-who: me",), 200, "the authorizer asking"),
        ("/token", ("authorization: x",), 401, "or is not valid"),
        ("/token", ("authorization: t-1",), 200, "the authorizer token asks"),
        ("/signed", (), 403, "Missing Authentication Token"),
        ("/signed", ("authorization: AWS4-HMAC-SHA256 Credential=x",), 403, "Authorization"),
        ("/keyed", (), 403, "there is no API key (x-api-key)"),
        ("/keyed", ("x-api-key: eve's",), 403, "no usage plan has this API key"),
        ("/keyed", ("x-api-key: bob's",), 403, "the API key bob of the usage plan gold is not enabled"),
        ("/keyed", ("x-api-key: ann's",), 200, ""),
    ],
)
def test_who_may_call_is_told_as_far_as_it_can_be(
    run: Any, path: str, headers: tuple[str, ...], status: int, reason: str
) -> None:
    arguments = ["GET", path, "-g", "guarded", *(part for header in headers for part in ("-H", header))]
    done = run("test", *arguments, "-o", "json")
    found = told(done)
    refusal = found["refusal"]
    assert (refusal["status"] if refusal else 200) == status
    assert reason in (refusal["reason"] if refusal else "\n".join(found["notDecided"]))
    assert done.return_value == (1 if refusal else 0)
    assert found["routeKey"] == f"GET {path}"
    assert reason in run("test", *arguments).stdout


def test_a_good_date_and_scope_of_a_signature_leave_the_rest_to_the_node(run: Any) -> None:
    now = datetime.now(UTC)
    signed = SIGNED.format(day=f"{now:%Y%m%d}", region="us-east-1")
    headers = ("-H", f"authorization: {signed}", "-H", f"x-amz-date: {now:%Y%m%dT%H%M%SZ}")
    found = told(run("test", "GET", "/signed", "-g", "guarded", *headers, "-o", "json"))
    assert found["refusal"] is None
    assert found["notDecided"] == ["who signed, and whether policies let them, is not decided here: the node does"]


def test_the_event_of_format_1_has_names_of_headers_as_they_are_given(run: Any) -> None:
    event = told(
        run(
            "test",
            "POST",
            "/orders/7",
            "-g",
            "shop",
            "--stage",
            "live",
            "--event",
            "-H",
            "X-Who: me",
            "-d",
            '{"id": 1}',
        )
    )
    assert event["headers"]["X-Who"] == "me" and event["headers"]["Host"]


def test_a_policy_is_asked_about_the_address_that_is_given(run: Any, tree: Project) -> None:
    denied = run("test", "GET", "/open", "-g", "guarded", "--source-ip", "203.0.113.7", "-o", "json")
    refusal = told(denied)["refusal"]
    assert refusal["status"] == 403 and "explicit deny" in refusal["message"] and denied.return_value == 1
    walled = tree.folder / "gateways/walled.json"  # no route of it asks who signs: the policy comes before all routes
    walled.write_text(
        json.dumps({"port": 8083, "policy": GUARDED["policy"], "routes": {"GET /open": {"function": "hello"}}})
    )
    refused = run("test", "GET", "/open", "-g", "walled", "--source-ip", "203.0.113.7").stdout
    walled.unlink()
    assert "route:       none (refused before a route is looked for)" in refused and "also matches" not in refused
    assert run("test", "GET", "/open", "-g", "guarded", "--source-ip", "198.51.100.7").return_value == 0
    assert "is no IP address" in str(run("test", "GET", "/open", "--source-ip", "here").exception)


def test_claims_are_in_the_event(run: Any) -> None:
    event = told(run("test", "GET", "/people", "-g", "guarded", "--event", "-H", f"authorization: Bearer {token()}"))
    assert event["requestContext"]["authorizer"]["jwt"]["claims"]["aud"] == "shop"


def test_the_event_is_the_gateways(run: Any) -> None:
    done = run(
        "test", "POST", "/live/orders/5?q=1", "--event", "-d", '{"id": 1}', "-H", "Content-Type: application/json"
    )
    event = told(done)
    assert (event["version"], event["resource"], event["path"]) == ("1.0", "/orders/{id}", "/orders/5")
    assert event["queryStringParameters"] == {"q": "1"} and event["body"] == '{"id": 1}'
    assert event["stageVariables"] == {"fn": "hello"}


def test_what_is_exported_is_imported_as_it_was(run: Any, tree: Project) -> None:
    exported = run("export", "shop").stdout
    assert "openapi: 3.0.3" in exported and ":function:${stageVariables.fn}/invocations" in exported
    done = run("import", "-", "--name", "shop", "-o", "json", data=exported)
    assert told(done)["same"] is True and done.return_value == 0
    assert json.loads((tree.folder / "gateways/shop.json").read_text()) == SHOP
    clients = json.loads(run("export", "shop", "--format", "json", "--clients", "--stage", "test").stdout)
    assert clients["servers"] == [{"url": "/test"}] and "x-owsgit-gateway" not in clients
    assert "no stage 'x'" in str(run("export", "shop", "--stage", "x").exception)


PETS = """
openapi: 3.0.3
info: {title: Pet Store!, version: "3", license: {name: MIT}}
paths:
  /pets: {get: {responses: {"200": {description: ok}}}}
"""


def test_import_writes_once_and_shows_what_it_would_change(run: Any, tree: Project) -> None:
    file = tree.folder / "gateways/pet-store.json"
    source = tree.folder.parent / "pets.yaml"
    source.write_text(PETS)
    assert "--port" in str(run("import", str(source), "--function", "hello").exception.problems[0].remedy)
    first = told(run("import", str(source), "--function", "pets", "--port", "9000", "-o", "json"))
    assert first["file"] == "gateways/pet-store.json" and first["written"] and first["missingFunctions"] == ["pets"]
    assert [warning["path"] for warning in first["warnings"]] == ["$.info.license"]
    content = json.loads(file.read_text())
    assert content["port"] == 9000 and content["info"] == {"title": "Pet Store!", "version": "3"}
    file.write_text(json.dumps({**content, "port": 9001, "stages": {"v1": {}}, "routes": {}}))
    shown = run("import", str(source), "--function", "hello")
    assert (
        shown.return_value == 1 and '+    "GET /pets": {' in shown.stdout and "--force writes over it" in shown.stdout
    )
    assert json.loads(file.read_text())["routes"] == {}
    forced = run("import", str(source), "--function", "hello", "--force")
    assert forced.return_value == 0 and "is written: 1 route" in forced.stdout
    after = json.loads(file.read_text())
    assert (after["port"], after["stages"], list(after["routes"])) == (9001, {"v1": {}}, ["GET /pets"])
    file.unlink()


def test_import_gives_stages_the_variables_that_they_lack(run: Any, tree: Project) -> None:
    called = "hello:${stageVariables.alias}"
    arguments = ("import", "-", "--function", called, "--port", "9000")
    with_path = str(run(*arguments, data=PETS).exception.problems[0])
    assert "gateways/pet-store.json $.routes['GET /pets'].function" in with_path and "add it to the stage" in with_path
    assert "no NAME=VALUE" in str(run(*arguments, "--variable", "alias", data=PETS).exception)
    file = tree.folder / "gateways/pet-store.json"
    assert run(*arguments, "--variable", "alias=live", data=PETS).return_value == 0
    assert json.loads(file.read_text())["stages"] == {"$default": {"variables": {"alias": "live"}}}
    again = run(*arguments, "--variable", "alias=other", data=PETS)
    assert again.return_value == 0 and "is as it was" in again.stdout, "what the file says stays"
    file.unlink()


def test_import_refuses_what_would_make_no_valid_file(run: Any, tree: Project) -> None:
    bad = PETS.replace("/pets:", "'/pets{x}':")
    failed = run("import", "-", "--function", "hello", "--port", "9000", data=bad)
    assert failed.exception.problems[0].path == "$.paths['/pets{x}'].get"
    assert "cannot be read" in str(run("import", "/nowhere").exception)
    assert not Path(tree.folder / "gateways/pet-store.json").exists()


def test_errors_of_the_program_have_no_traceback(tree: Project) -> None:
    done = owsgit("gateway", "import", "-", by=tree.owner, cwd=tree.folder, data="[")
    assert done.status == 1 and "neither JSON nor YAML" in done.text and "Traceback" not in done.text
    unknown = owsgit("gateway", "tset", by=tree.owner, cwd=tree.folder)
    assert unknown.status == 64


def test_a_websocket_api_is_listed_and_not_taken_for_http(run: Any) -> None:
    assert [row["path"] for row in told(run("routes", "chat", "-o", "json"))] == ["$connect"]
    for arguments in (("export", "chat"), ("test", "GET", "/", "-g", "chat")):
        problem = run(*arguments).exception
        assert isinstance(problem, InvalidError)
        assert "WebSocket API" in str(problem)
