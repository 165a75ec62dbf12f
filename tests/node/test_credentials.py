"""AWS credentials from a node, by the SDKs' credential_process; requests that boto3 signs with them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from owsgit.model.names import account_id
from tests.conftest import gateway_url
from tests.support import projects
from tests.support.nodes import Node, free_port, owsgit, push
from tests.support.people import Person
from tests.support.projects import Project, function
from tests.support.sdk import session

WHO = """
def handler(event, context):
    return {"who": event["requestContext"]["authorizer"]["iam"]["userArn"].partition(":user/")[2]}
"""
INVOKE = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Action": "execute-api:Invoke",
        "Resource": "arn:aws:execute-api:us-east-1:*:api/$default/GET/who",
        "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}},
    },
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("credentials")
    node = Node(folder / "node", alice)
    files = {
        "nodes/a.json": node.init(),
        "users/bob.json": {"keys": [bob.public], "inlinePolicies": {"call": INVOKE}},
        "functions/who/function.json": function(),
        "functions/who/app.py": WHO,
        "gateways/api.json": {
            "port": free_port(), "auth": "iam",
            "routes": {"GET /who": {"function": "who"}, "GET /else": {"function": "who"}},
        },
    }  # fmt: skip
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    pushed = push(project, node)
    assert pushed.status == 0, pushed.text
    project.git("remote", "add", "origin", node.url())
    yield project, node
    node.stop()


def get(project: Project, path: str, credentials: Any, region: str = "us-east-1") -> httpx.Response:
    request = AWSRequest("GET", gateway_url(project) + path)
    SigV4Auth(credentials, "execute-api", region).add_auth(request)
    prepared = request.prepare()
    return httpx.get(prepared.url, headers=dict(prepared.headers.items()))


def test_boto3_signs_with_what_a_node_gives_until_its_user_is_gone(
    shop: tuple[Project, Node], bob: Person, mallory: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, node = shop
    found = session(tmp_path, project, bob, monkeypatch)
    credentials = found.get_credentials().get_frozen_credentials()
    answer = get(project, "/who", credentials, found.region_name)
    assert (answer.status_code, answer.json()) == (200, {"who": "bob"})
    assert get(project, "/else", credentials).json() == {"message": "Forbidden"}
    account = account_id(project.git("rev-list", "--max-parents=0", "HEAD"))
    why = owsgit(
        "why",
        "bob",
        "execute-api:Invoke",
        f"arn:aws:execute-api:us-east-1:{account}:api/$default/GET/else",
        by=project.owner,
        cwd=project.folder,
    )
    assert "no policy of bob allows it" in why.text and "note:" not in why.text
    refused = owsgit("credentials", by=mallory, cwd=project.folder)
    assert refused.status == 3 and "is your key in the ledger?" in refused.text

    project.write("users/bob.json", {"keys": []})
    project.commit("bob is gone")
    pushed = push(project, node)
    assert pushed.status == 0, pushed.text
    assert "security token included in the request is invalid" in get(project, "/who", credentials).text
    assert owsgit("credentials", by=bob, cwd=project.folder).status == 3


def test_a_role_has_to_trust_who_takes_it_on(shop: tuple[Project, Node], alice: Person, tmp_path: Path) -> None:
    project, _ = shop
    refused = owsgit("credentials", "--role", "nobody", by=alice, cwd=project.folder)
    assert refused.status == 1 and "there is no role 'nobody'" in refused.text
    given = json.loads(owsgit("credentials", "-C", str(project.folder), by=alice, cwd=tmp_path).text)
    assert sorted(given) == ["AccessKeyId", "Expiration", "SecretAccessKey", "SessionToken", "Version"]
    assert given["Version"] == 1 and len(given["SessionToken"]) < 4096
