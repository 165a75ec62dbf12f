"""Lambda's API at a node's front door: real boto3, outside of the node and in a function on it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from owsgit.model.names import account_id
from tests.support import projects
from tests.support.nodes import Node, free_port
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import ONCE, endpoint, node_for_sdks, refused, serving, session

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
CHAT_PORT = free_port()
FUNCTIONS = "arn:aws:lambda:*:*:function:"
CODE = """
import boto3
def handler(event, context):
    if "requestContext" in event:
        about = event["requestContext"]
        sent = about["domainName"], about["stage"], event["body"]
        manage = boto3.client("apigatewaymanagementapi")
        manage.post_to_connection(ConnectionId=about["connectionId"], Data=" ".join(sent))
        return {"statusCode": 200}
    if event == "fail":
        raise ValueError("no")
    who = boto3.client("sts").get_caller_identity()["Arn"]
    payload = boto3.client("lambda").invoke(FunctionName="twice", Payload=b"21")["Payload"].read()
    try:
        boto3.client("lambda").list_functions()
        denied = ""
    except Exception as error:
        denied = error.response["Error"]["Code"]
    return [who.split(":", 5)[5], int(payload), denied]
"""
TWICE = """
def handler(event, context):
    return 2 * event
"""


def rights(*statements: tuple[str, str, str]) -> dict[str, Any]:
    found = [{"Effect": effect, "Action": action, "Resource": arn} for effect, action, arn in statements]
    return {"rights": {"Version": "2012-10-17", "Statement": found}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("door")
    node = node_for_sdks(folder, alice)
    bobs = rights(
        ("Allow", "lambda:InvokeFunction", f"{FUNCTIONS}caller"),
        ("Allow", "lambda:InvokeFunction", f"{FUNCTIONS}twice:*"),
        ("Deny", "lambda:InvokeFunction", f"{FUNCTIONS}secret"),
        ("Allow", "lambda:InvokeFunction", f"{FUNCTIONS}secret:*"),
        ("Allow", "lambda:ListFunctions", "*"),
        ("Allow", "lambda:GetFunction*", f"{FUNCTIONS}*"),
    )
    files = {
        "users/bob.json": {"keys": [bob.public], "inlinePolicies": bobs},
        "roles/clerk.json": {
            "trust": TRUST,
            "inlinePolicies": rights(
                ("Allow", "lambda:InvokeFunction", f"{FUNCTIONS}twice"),
                ("Allow", "execute-api:ManageConnections", "arn:aws:execute-api:*:*:chat/prod/POST/@connections/*"),
            ),
        },
        "functions/caller/function.json": projects.function(role="clerk", timeout=20, memorySize=256),
        "functions/twice/function.json": projects.function(),
        "functions/secret/function.json": projects.function(),
        "gateways/chat.json": {
            "protocol": "WEBSOCKET",
            "port": CHAT_PORT,
            "stages": {"prod": {}},
            "routes": {"$default": {"function": "caller"}},
        },
        "functions/caller/app.py": CODE,
        "functions/twice/app.py": TWICE,
        "functions/secret/app.py": TWICE,
    }
    with serving(folder, node, files) as project:
        yield project, node


@pytest.fixture
def client(shop: tuple[Project, Node], bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    project, node = shop
    found = session(tmp_path, project, bob, monkeypatch)
    return found.client("lambda", endpoint_url=endpoint(node), config=ONCE)


def test_a_function_with_a_role_signs_as_it_from_its_sandbox(shop: tuple[Project, Node], client: Any) -> None:
    answer = client.invoke(FunctionName="caller", Payload=b"{}", LogType="Tail")
    payload = json.loads(answer["Payload"].read())
    assert payload == ["assumed-role/clerk/caller", 42, "AccessDeniedException"], payload
    assert answer["ExecutedVersion"] == "$LATEST" and answer["LogResult"]


def test_a_function_sends_to_a_websocket_from_its_sandbox(shop: tuple[Project, Node]) -> None:
    with connect(f"ws://127.0.0.1:{CHAT_PORT}/prod", compression=None, proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=20) == "127.0.0.1 prod hello"


def test_answers_errors_and_streams_are_lambdas(client: Any) -> None:
    failed = client.invoke(FunctionName="caller", Payload=b'"fail"')
    assert failed["FunctionError"] == "Unhandled" and json.loads(failed["Payload"].read())["errorMessage"] == "no"
    accepted = client.invoke(FunctionName="caller", Payload=b'"fail"', InvocationType="Event")
    assert accepted["StatusCode"] == 202 and accepted["Payload"].read() == b""
    assert client.invoke(FunctionName="caller", InvocationType="DryRun")["StatusCode"] == 204
    events = list(client.invoke_with_response_stream(FunctionName="caller", Payload=b'"fail"')["EventStream"])
    assert events[-1]["InvokeComplete"]["ErrorCode"] == "Unhandled"
    wrong = refused(client.invoke, FunctionName="caller", Payload=b"{")
    assert wrong[::2] == ("InvalidRequestContentException", 400)
    large = refused(client.invoke, FunctionName="caller", Payload=b"1" * (6 * 1024 * 1024 + 1))
    assert large[::2] == ("RequestTooLargeException", 413)
    new = {"Runtime": "python3.11", "Handler": "app.handler", "Role": "arn:aws:iam::123456789012:role/clerk"}
    made = refused(client.create_function, FunctionName="new", Code={"ZipFile": b"PK"}, **new)
    assert made.code == "InvalidParameterValueException"
    assert "Commit functions/new/function.json (with the code beside it) and push it." in made.message
    assert refused(client.create_alias, FunctionName="caller", Name="live", FunctionVersion="1").status == 400


def test_versions_need_rights_of_their_own(shop: tuple[Project, Node], client: Any) -> None:
    head = shop[0].git("rev-parse", "HEAD").strip()
    answer = client.invoke(FunctionName="twice", Qualifier=head, Payload=b"4")
    assert answer["Payload"].read() == b"8" and answer["ExecutedVersion"] == head
    assert refused(client.invoke, FunctionName="twice", Payload=b"4")[::2] == ("AccessDeniedException", 403)
    assert refused(client.invoke, FunctionName="secret", Qualifier=head)[::2] == ("AccessDeniedException", 403)
    assert refused(client.invoke, FunctionName="twice", Qualifier="live")[::2] == ("ResourceNotFoundException", 404)


def test_functions_are_listed_and_described(shop: tuple[Project, Node], client: Any) -> None:
    account = account_id(shop[0].git("rev-list", "--max-parents=0", "HEAD"))
    pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    assert [each["FunctionName"] for page in pages for each in page["Functions"]] == ["caller", "secret", "twice"]
    told = client.get_function(FunctionName="caller")["Configuration"]
    assert told["Role"] == f"arn:aws:iam::{account}:role/clerk" and told["State"] == "Active"
    waiter = client.get_waiter("function_active_v2")
    waiter.wait(FunctionName="caller")
    assert refused(client.get_function, FunctionName="none")[::2] == ("ResourceNotFoundException", 404)
