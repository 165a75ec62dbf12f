"""The node's endpoint for AWS's SDKs: real boto3 against a real node."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from owsgit.model.names import account_id
from tests.support import projects
from tests.support.nodes import Node, free_port, owsgit, push
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import session

TRUST = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::*:user/bob"}, "Action": "sts:AssumeRole"},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("door")
    node = Node(folder / "node", alice, aws_port=free_port())
    files = {
        "nodes/a.json": node.init(),
        "users/bob.json": {"keys": [bob.public]},
        "roles/clerk.json": {"trust": TRUST},
    }
    project = projects.create(folder / "shop", alice, files=files)
    node.start()
    pushed = push(project, node)
    assert pushed.status == 0, pushed.text
    project.git("remote", "add", "origin", node.url())
    yield project, node
    node.stop()


@pytest.fixture
def client(shop: tuple[Project, Node], bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    project, node = shop
    found = session(tmp_path, project, bob, monkeypatch)

    def make(service: str, **options: Any) -> Any:
        once = Config(retries={"total_max_attempts": 1})
        return found.client(service, endpoint_url=f"http://127.0.0.1:{node.aws_port}", config=once, **options)

    return make


def refused(call: Any, **parameters: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_who_am_i(shop: tuple[Project, Node], client: Any) -> None:
    account = account_id(shop[0].git("rev-list", "--max-parents=0", "HEAD"))
    answer = client("sts").get_caller_identity()
    assert answer["Arn"] == f"arn:aws:iam::{account}:user/bob" and answer["Account"] == account
    assert answer["ResponseMetadata"]["RequestId"]


def test_a_role_is_taken_on_that_trusts_the_user_and_no_other(shop: tuple[Project, Node], client: Any) -> None:
    account = account_id(shop[0].git("rev-list", "--max-parents=0", "HEAD"))
    arn = f"arn:aws:iam::{account}:role/clerk"
    given = client("sts").assume_role(RoleArn=arn, RoleSessionName="desk")
    assert given["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{account}:assumed-role/clerk/desk"
    keys = given["Credentials"]
    names = {"aws_access_key_id": "AccessKeyId", "aws_secret_access_key": "SecretAccessKey"}
    taken = client("sts", **{to: keys[name] for to, name in names.items()}, aws_session_token=keys["SessionToken"])
    assert taken.get_caller_identity()["Arn"] == given["AssumedRoleUser"]["Arn"]
    code, message, _ = refused(client("sts").assume_role, RoleArn=f"{arn}s", RoleSessionName="desk")
    assert code == "AccessDenied" and "is not authorized to perform: sts:AssumeRole" in message


def test_what_breaks_the_model_is_told_all_at_once(client: Any) -> None:
    code, message, _ = refused(client("sts").assume_role, RoleArn="a" * 20, RoleSessionName="x y")
    assert code == "ValidationError"
    assert message.startswith("1 validation error detected: Value 'x y' at 'roleSessionName' failed to satisfy")


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"),
    [
        ("sts", "decode_authorization_message", {"EncodedMessage": "x"}, "NotImplemented"),
        ("sqs", "list_queues", {}, "UnknownOperationException"),
        ("kinesis", "list_streams", {}, "UnknownOperationException"),
    ],
)
def test_what_is_not_built_says_so(client: Any, service: str, operation: str, parameters: Any, code: str) -> None:
    found, message, _ = refused(getattr(client(service), operation), **parameters)
    assert found == code and "is not built in owsgit yet" in message


def test_a_wrong_secret_another_region_and_no_signature_are_refused(shop: tuple[Project, Node], client: Any) -> None:
    _, node = shop
    assert refused(
        client("sts", aws_secret_access_key="x", aws_access_key_id="ASIAXXXXXXXXXXXXXXXX").get_caller_identity
    )[0] in ("InvalidClientTokenId", "SignatureDoesNotMatch")
    assert refused(client("sts", region_name="eu-west-1").get_caller_identity)[0] == "SignatureDoesNotMatch"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{node.aws_port}/?Action=GetCallerIdentity&Version=2011-06-15")
    assert caught.value.code == 403 and b"MissingAuthenticationToken" in caught.value.read()


def test_every_call_is_in_the_audit_log(shop: tuple[Project, Node], client: Any) -> None:
    project = shop[0]
    wanted = client("sts").get_caller_identity()["ResponseMetadata"]["RequestId"]
    bad = refused(client("sqs").list_queues)
    (line,) = json.loads(owsgit("audit", "--request", wanted, "-o", "json", by=project.owner, cwd=project.folder).text)
    record = line["record"]
    assert (
        record["operation"] == "GetCallerIdentity" and record["who"].endswith(":user/bob") and record["status"] == 200
    )
    told = owsgit("audit", "--failed", "--filter", "sqs", by=project.owner, cwd=project.folder).text
    assert "user/bob" in told and bad[0] in told and wanted not in told


def test_the_audit_log_is_for_who_may_read_it(shop: tuple[Project, Node], bob: Person) -> None:
    answer = owsgit("audit", by=bob, cwd=shop[0].folder)
    assert answer.status == 1 and "cloudtrail:LookupEvents" in answer.text


def test_a_profile_is_written_beside_others_and_works_at_once(
    shop: tuple[Project, Node], bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shop[0]
    session(tmp_path, project, bob, monkeypatch)
    config = tmp_path / "config"
    mine = "# mine\n[default]\nregion = eu-west-1\n\n[profile shop]\ncli_pager =\nregion=old\n\n[profile other]\nregion = x\n"
    config.write_text(mine)
    config.chmod(0o640)
    for _ in range(2):
        done = owsgit("configure", "aws", "--profile", "shop", by=bob, cwd=project.folder, AWS_CONFIG_FILE=str(config))
        assert done.status == 0, done.text
    text = config.read_text()
    assert text.startswith(
        "# mine\n[default]\nregion = eu-west-1\n\n[profile shop]\nregion = us-east-1\nendpoint_url = "
    )
    assert text.endswith("cli_pager =\n\n[profile other]\nregion = x\n") and text.count("credential_process") == 1
    assert config.stat().st_mode & 0o777 == 0o640
    found = boto3.Session(profile_name="shop").client("sts").get_caller_identity()
    assert found["Arn"].endswith(":user/bob")


def test_a_profile_for_a_node_that_is_not_there(shop: tuple[Project, Node], bob: Person) -> None:
    done = owsgit("configure", "aws", "--node", "z", by=bob, cwd=shop[0].folder)
    assert done.status == 1 and "there is no node 'z' that answers SDKs" in done.text and "these do: a" in done.text
