"""Functions with a role: an AWS SDK in a sandbox signs as the role, at the front door of the node."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from owsgit.aws import credentials
from owsgit.aws.credentials import Holder
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.iam.decision import Session
from owsgit.model.service import CredentialError
from owsgit.services.functions import role_access
from owsgit.services.functions.spec import FunctionSpec
from tests.support import projects
from tests.support.gateways import Account
from tests.support.sites import Services

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
COMMIT = "c" * 40

SDK = """
import os, urllib.error, urllib.request
import boto3
def handler(event, context):
    if event == "own":
        try:
            urllib.request.urlopen("http://chat.invalid:443/")
        except urllib.error.HTTPError as error:
            return error.code
    if event == "log":
        print("token is", os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    client = boto3.client("dynamodb")
    return {"tables": client.list_tables()["TableNames"], "region": client.meta.region_name}
"""
CURL = """
exports.handler = async (event) => {
  const address = event.path ? "http://127.0.0.1:4565" + event.path : process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI;
  const token = event.token ?? process.env.AWS_CONTAINER_AUTHORIZATION_TOKEN;
  const answer = await fetch(address, { headers: { Authorization: token }, method: event.method || "GET" });
  return { status: answer.status, body: await answer.json(), address, endpoint: process.env.AWS_ENDPOINT_URL };
};
"""


class Door(BaseHTTPRequestHandler):
    """Stands where the front door is: answers ListTables with who signed, as a node of the project sees it."""

    account: Account
    heads: list[dict[str, str]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.heads.append(dict(self.headers))
        found = self.account.desk_of("b").check(self.headers["X-Amz-Security-Token"])
        assert found.access_key in self.headers["Authorization"]
        body = json.dumps({"TableNames": [found.arn]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in http.server
        pass


def give(account: Account, function: str, commit: str, role: str) -> dict[str, str]:
    """As a node does it."""
    key = account.nodes["a"]
    holder = Holder.of_function(function, commit, role)
    given = credentials.give(holder, key.private, key.public, account.state, time.time())
    account.desk_of("a").check(given.token)
    return given.document("Token")


@pytest.fixture
def account() -> Account:
    made = Account()
    made.change(
        {
            ("role", "reader"): {"trust": TRUST},
            ("role", "writer"): {"trust": TRUST},
            ("function", "sdk"): projects.function(role="reader"),
            ("function", "curl"): {"runtime": "nodejs", "handler": "app.handler", "role": "reader"},
        }
    )
    return made


@pytest.fixture
def services(account: Account, tmp_path: Path) -> Iterator[Services]:
    Door.account, Door.heads = account, []
    server = HTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = {
        "door": lambda: ("127.0.0.1", server.server_port),
        "role_credentials": lambda *names: give(account, *names),
    }
    made = Services(tmp_path / "home", given)
    yield made
    made.close()
    server.shutdown()
    server.server_close()


def serve_node(services: Services) -> None:
    document = {"runtime": "nodejs", "handler": "app.handler", "role": "reader", "timeout": 10}
    services.apply(services.resource("function", "curl", document, **{"app.js": CURL}))


def test_an_sdk_in_a_sandbox_signs_as_the_functions_role(services: Services, account: Account) -> None:
    document = projects.function(role="reader", timeout=20, memorySize=256, network=["chat.invalid:443"])
    resource = services.resource("function", "sdk", document, **{"app.py": SDK})
    services.apply(resource)
    arn = f"arn:aws:sts::{account.state.scope.account}:assumed-role/reader/sdk"
    assert services.call("sdk") == {"tables": [arn], "region": "us-east-1"}
    assert services.call("sdk", "log")["tables"] == [arn]
    services.site.hosts["chat"] = {"chat.invalid": services.site.door()}  # type: ignore[dict-item]
    assert services.call("sdk", "own") == 501, "a name that a gateway of the node has leads to it"
    assert {head["Host"] for head in Door.heads} == {"127.2.0.1:4566"}
    log = "".join(path.read_text() for path in services.handlers["function"].logs("sdk").glob("*.jsonl"))
    assert "token is ***" in log, "the token is masked as secrets are"
    deployed = services.handlers["function"]._deployed["sdk"]
    services.apply(resource)
    assert services.handlers["function"]._deployed["sdk"] is deployed, "nothing changed: the same workers go on"


def test_credentials_are_for_who_has_the_token(services: Services, account: Account) -> None:
    serve_node(services)
    found = services.call("curl", {})
    assert found["status"] == 200 and set(found["body"]) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert found["endpoint"] == "http://127.2.0.1:4566"
    assert found["address"].startswith("http://127.0.0.1:"), "older SDKs ask nothing else of loopback"
    credential = account.desk_of("b").check(found["body"]["Token"])
    assert credential.who == Session("reader", "curl") and credential.secret == found["body"]["SecretAccessKey"]
    assert services.call("curl", {"token": "x"})["status"] == 401
    assert services.call("curl", {"path": "/other"})["status"] == 404
    assert services.call("curl", {"method": "POST"})["status"] == 404
    assert services.call("curl", {})["body"] == found["body"], "one set of credentials does for a while"


def test_new_credentials_are_made_in_time(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role_access, "FRESH_SECONDS", 0.0)
    serve_node(services)
    assert services.call("curl", {})["body"]["AccessKeyId"] != services.call("curl", {})["body"]["AccessKeyId"]


def test_a_function_that_lost_its_role_is_told(services: Services, account: Account) -> None:
    serve_node(services)
    account.change({("function", "curl"): {"runtime": "nodejs", "handler": "app.handler"}})
    found = services.call("curl", {})
    assert found["status"] == 403 and "does not have the role reader any more" in found["body"]["errorMessage"]


def test_functions_without_a_role_get_nothing(services: Services) -> None:
    def access(**fields: Any) -> role_access.RoleAccess:
        resource = services.resource("function", "f", {"runtime": "python", "handler": "app.handler", **fields})
        return role_access.RoleAccess.of(services.site, resource, "$LATEST")

    assert access() == role_access.RoleAccess()
    assert access(runtime="wasm", handler="app.wasm", role="reader") == role_access.RoleAccess()
    assert access(role="reader").inner and "AWS_CONTAINER_AUTHORIZATION_TOKEN" not in repr(access(role="reader"))


def test_a_site_without_a_door_gives_nothing(tmp_path: Path) -> None:
    services = Services(tmp_path / "home")
    try:
        resource = services.resource("function", "f", projects.function(role="reader"))
        assert role_access.RoleAccess.of(services.site, resource, "$LATEST") == role_access.RoleAccess()
        with pytest.raises(UnavailableError):
            services.site.role_credentials("f", "", "reader")
    finally:
        services.close()


def check(account: Account, commit: str = "", role: str = "reader") -> None:
    give(account, "sdk", commit, role)


def test_the_head_says_which_role_a_function_has(account: Account) -> None:
    check(account)
    check(account, COMMIT)
    for gone in ({("function", "sdk"): None}, {("function", "sdk"): projects.function(role="writer")}):
        account.change(gone)
        for commit in ("", COMMIT):
            with pytest.raises(CredentialError):
                check(account, commit)


def test_an_older_version_has_its_role_while_an_alias_names_it(account: Account) -> None:
    aliases = {"live": {"commit": "d" * 40, "weights": {COMMIT: 0.5}}}
    account.change({("function", "sdk"): projects.function(role="reader", aliases=aliases)})
    check(account, COMMIT, "writer")
    check(account, "d" * 40, "writer")
    with pytest.raises(CredentialError, match="does not have the role writer"):
        check(account, "e" * 40, "writer")
    with pytest.raises(CredentialError, match="does not have the role writer"):
        check(account, "", "writer")
    account.change({("role", "writer"): None})
    with pytest.raises(CredentialError, match="role writer is not there"):
        check(account, COMMIT, "writer")


def test_a_function_is_no_user(account: Account) -> None:
    """What a node says of a function speaks for the function's role alone."""
    key = account.nodes["a"]
    for session in (None, Session("reader", "owsgit-bob"), Session("reader", "other")):
        holder = Holder("bob", account.users["bob"].public.fingerprint, session, "sdk")
        token = credentials.give(holder, key.private, key.public, account.state, time.time()).token
        with pytest.raises(CredentialError):
            account.desk.check(token)


def test_no_functions_session_has_the_name_of_a_users() -> None:
    assert credentials.function_session("cart") == "cart"
    names = {credentials.function_session(name) for name in ("owsgit-bob", "owsgit", "owsgit-" + "x" * 57)}
    assert len(names) == 3 and all(name.startswith("lambda+") and len(name) <= 64 for name in names)


@pytest.mark.parametrize("name", ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"])
def test_nobody_chooses_the_variables_of_credentials(name: str) -> None:
    document = {"runtime": "python", "handler": "app.handler", "environment": {name: "x"}}
    with pytest.raises(InvalidError, match="set by the runtime"):
        FunctionSpec.parse(json.dumps(document).encode(), "functions/f/function.json")
