"""The node's endpoint for AWS's SDKs: real boto3 against a real node, over HTTPS."""

import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from owsgit.cli.configure import check_own, name_of, overriding, with_profile
from owsgit.cli.dynamodb import ApiError, of_profile
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import account_id
from tests.support.authorities import Authority
from tests.support.nodes import Node, owsgit, until
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import ONCE, certify, node_for_sdks, refused, serving, session

TRUST = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::*:user/bob"}, "Action": "sts:AssumeRole"},
}
CAREFUL = {
    "Version": "2012-10-17",
    "Statement": {**TRUST["Statement"], "Condition": {"Bool": {"aws:SecureTransport": "true"}}},  # type: ignore[dict-item]
}
CARELESS = {
    "Version": "2012-10-17",
    "Statement": {**TRUST["Statement"], "Condition": {"Bool": {"aws:SecureTransport": "false"}}},  # type: ignore[dict-item]
}


def https(node: Node) -> str:
    return f"https://127.0.0.1:{node.aws_port}"


def authorities(node: Node) -> str:
    return str(node.home.parent / "ca.pem")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("door")
    node = node_for_sdks(folder, alice)
    certify(node, folder)
    files = {
        "users/bob.json": {"keys": [bob.public]},
        "roles/clerk.json": {"trust": TRUST},
        "roles/careful.json": {"trust": CAREFUL},
        "roles/careless.json": {"trust": CARELESS},
    }
    outlived = node.home / "logs/aws/audit/1.jsonl"
    outlived.parent.mkdir(parents=True)
    outlived.write_text("{}\n")
    os.utime(outlived, (0, 0))
    with serving(folder, node, files) as project:
        yield project, node


@pytest.fixture
def client(shop: tuple[Project, Node], bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    project, node = shop
    found = session(tmp_path, project, bob, monkeypatch)

    def make(service: str, **options: Any) -> Any:
        given = {"endpoint_url": https(node), "verify": authorities(node), "config": ONCE, **options}
        return found.client(service, **given)

    return make


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
        urllib.request.urlopen(
            f"{https(node)}/?Action=GetCallerIdentity&Version=2011-06-15",
            context=ssl.create_default_context(cafile=authorities(node)),
        )
    assert caught.value.code == 403 and b"MissingAuthenticationToken" in caught.value.read()


FORM = "application/x-www-form-urlencoded; charset=utf-8"
WHO = b"Action=GetCallerIdentity&Version=2011-06-15"
Pairs = list[tuple[str, str]]


class Wire:
    """Requests as they are on the wire, signed by botocore and then sent as the attacker likes."""

    def __init__(self, node: Node, keys: Any) -> None:
        self.port, self.keys = node.aws_port, keys
        self.tls = ssl.create_default_context(cafile=authorities(node))

    def signed(
        self, body: bytes = WHO, path: str = "/", method: str = "POST", service: str = "sts", **more: str
    ) -> Pairs:
        headers = {"Host": f"127.0.0.1:{self.port}", "Content-Type": FORM, **more}
        request = AWSRequest(method, f"https://127.0.0.1:{self.port}{path}", headers, body)
        SigV4Auth(self.keys, service, "us-east-1").add_auth(request)
        return [(name, value) for name, value in request.headers.items() if name.lower() != "content-length"]

    def send(
        self, headers: Pairs, body: bytes = WHO, path: str = "/", method: str = "POST"
    ) -> tuple[int, bytes, Pairs]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.tls)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.getheaders()
        connection.close()
        return found


@pytest.fixture
def wire(shop: tuple[Project, Node], client: Any) -> Wire:
    keys = client("sts").get_session_token()["Credentials"]
    return Wire(shop[1], Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]))


def changed(headers: Pairs, name: str, *values: str) -> Pairs:
    """The headers with other values of one."""
    kept = [pair for pair in headers if pair[0].lower() != name.lower()]
    return kept + [(name, value) for value in values]


def test_a_request_that_was_changed_on_its_way_is_refused(wire: Wire) -> None:
    headers = wire.signed()
    host, date = dict(headers)["Host"], dict(headers)["X-Amz-Date"]
    assert wire.send(headers)[0] == 200
    names: list[Callable[[], tuple[int, bytes, Pairs]]] = [
        lambda: wire.send(headers, method="PUT"),
        lambda: wire.send(headers, path="/x"),
        lambda: wire.send(headers, path="/?" + WHO.decode()),
        lambda: wire.send(headers, body=WHO.replace(b"GetCallerIdentity", b"GetSessionToken")),
        lambda: wire.send(changed(headers, "Host", "example.com")),
        lambda: wire.send(changed(headers, "Content-Type", "text/plain")),
        lambda: wire.send(changed(headers, "X-Amz-Date", f"{date[:-2]}{(int(date[-2]) + 1) % 10}Z")),
        lambda: wire.send(changed(headers, "X-Amz-Security-Token")),
        lambda: wire.send([*headers, ("X-Amz-Target", "DynamoDB_20120810.ListTables")]),
        lambda: wire.send([*headers, ("Host", host)]),
        lambda: wire.send([*headers, ("Authorization", dict(headers)["Authorization"])]),
        lambda: wire.send([*headers, ("Content-Type", FORM)]),
        lambda: wire.send(
            changed(headers, "Authorization", dict(headers)["Authorization"].replace("/sts/", "/lambda/"))
        ),
        lambda: wire.send(changed(headers, "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")),
        lambda: wire.send(changed(headers, "X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
    ]
    answers = [each() for each in names]
    assert [status for status, _, _ in answers if status not in (400, 403, 421)] == []
    assert all(b"GetCallerIdentityResult" not in body and b"Credentials>" not in body for _, body, _ in answers)


def test_two_headers_are_not_taken_for_the_one_that_was_signed(wire: Wire) -> None:
    both = wire.signed(**{"X-Amz-Target": "DynamoDB_20120810.ListTables,DynamoDB_20120810.GetItem"})
    apart = changed(both, "X-Amz-Target", "DynamoDB_20120810.ListTables", "DynamoDB_20120810.GetItem")
    status, body, _ = wire.send(apart)
    assert status == 400 and b"x-amz-target is there more than once" in body


def test_what_is_signed_for_one_service_asks_no_other(wire: Wire) -> None:
    for service in ("dynamodb", "lambda", "events"):
        status, body, _ = wire.send(wire.signed(service=service))
        assert status in (400, 404) and b"Result" not in body
    target = wire.signed(
        b"{}", **{"X-Amz-Target": "DynamoDB_20120810.ListTables", "Content-Type": "application/x-amz-json-1.0"}
    )
    assert b"InvalidAction" in wire.send(target, b"{}")[1]


def test_a_body_that_is_too_large_is_told_so_and_is_not_read_without_credentials(wire: Wire) -> None:
    large = [*wire.signed(), ("Content-Length", str(17 << 20))]
    status, body, _ = wire.send(large, b"x" * (1 << 20))
    assert status == 413 and b"RequestEntityTooLarge" in body
    began = time.monotonic()
    nobody = [("Host", dict(large)["Host"]), ("Content-Length", str(16 << 20))]
    assert wire.send(nobody, b"")[0] == 403  # at once, though nothing of it came
    assert time.monotonic() - began < 5


def test_an_answer_has_one_request_id(wire: Wire) -> None:
    headers = [value for name, value in wire.send(wire.signed())[2] if name.lower() == "x-amzn-requestid"]
    assert len(headers) == 1


def test_a_client_whose_clock_is_wrong_is_told_the_time(wire: Wire) -> None:
    early = changed(wire.signed(), "X-Amz-Date", "20200101T000000Z")
    status, body, headers = wire.send(early)
    (date,) = [value for name, value in headers if name.lower() == "date"]
    assert status == 400 and abs(parsedate_to_datetime(date).timestamp() - time.time()) < 5, body


def test_credentials_for_credentials_are_good_for_no_longer(
    wire: Wire, client: Any, shop: tuple[Project, Node]
) -> None:
    def own(keys: Any) -> Any:
        return client(
            "sts",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )

    short = client("sts").get_session_token(DurationSeconds=900)["Credentials"]
    assert (short["Expiration"].timestamp() - time.time()) < 910
    account = account_id(shop[0].git("rev-list", "--max-parents=0", "HEAD"))
    arn = f"arn:aws:iam::{account}:role/clerk"
    again = own(short).assume_role(RoleArn=arn, RoleSessionName="desk")["Credentials"]
    assert again["Expiration"] <= short["Expiration"]
    assert own(short).get_session_token()["Credentials"]["Expiration"] <= short["Expiration"]


def test_a_trust_policy_sees_whether_there_is_tls(client: Any, shop: tuple[Project, Node]) -> None:
    account = account_id(shop[0].git("rev-list", "--max-parents=0", "HEAD"))
    arn = f"arn:aws:iam::{account}:role/care"
    assert client("sts").assume_role(RoleArn=f"{arn}ful", RoleSessionName="desk")["Credentials"]
    assert refused(client("sts").assume_role, RoleArn=f"{arn}less", RoleSessionName="desk")[0] == "AccessDenied"


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


def test_records_of_calls_are_not_kept_for_ever(shop: tuple[Project, Node]) -> None:
    until(lambda: not (shop[1].home / "logs/aws/audit/1.jsonl").exists())


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
    assert f"endpoint_url = {https(shop[1])}\nca_bundle = {tmp_path}/owsgit-shop.pem\n" in text
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    found = boto3.Session(profile_name="shop").client("sts").get_caller_identity()
    assert found["Arn"].endswith(":user/bob")
    with pytest.raises(ApiError, match="user/bob is not authorized to perform: dynamodb:ListTables"):
        of_profile("shop").call("ListTables", {})
    (tmp_path / "other.pem").write_text(Authority().pem)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "other.pem"))
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        of_profile("shop").call("ListTables", {}, attempts=1)
    assert "AWS_CA_BUNDLE" in caught.value.problems[0].remedy


def test_what_a_project_is_called_does_not_take_over_a_profile(tmp_path: Path) -> None:
    own = with_profile("[profile other]\nregion = x\n", "p", {"credential_process": "/bin/owsgit credentials -C /x"})
    check_own(own, "p", tmp_path)
    check_own(own, "new", tmp_path)
    for name in ("other", "default"):
        with pytest.raises(InvalidError, match="for something else"):
            check_own(own, name, tmp_path)


@pytest.mark.parametrize("value", ["x\n[default]", "x\r[default]", "x\x85y", "\u2028"])
def test_no_setting_begins_another_line(value: str) -> None:
    with pytest.raises(InvalidError, match="cannot stand in a profile"):
        with_profile("", "p", {"credential_process": value})


def test_lines_that_go_on_with_a_setting_go_with_it() -> None:
    text = "[profile p]\nRegion: a\ncredential_process = old\n  more\ns3 =\n  addressing_style = path\n"
    told = with_profile(text, "p", {"region": "b", "credential_process": "new"})
    assert told == "[profile p]\nregion = b\ncredential_process = new\ns3 =\n  addressing_style = path\n"


def test_a_profile_for_a_node_that_is_not_there(shop: tuple[Project, Node], bob: Person) -> None:
    done = owsgit("configure", "aws", "--node", "z", by=bob, cwd=shop[0].folder)
    assert done.status == 1 and "there is no node 'z' that answers SDKs" in done.text and "these do: a" in done.text


def test_a_role_has_a_profile_of_its_own() -> None:
    assert name_of("shop", None, []) == "shop"
    assert name_of("shop", "clerk", ["clerk"]) == "shop-clerk"
    with pytest.raises(InvalidError, match="did you mean the role 'clerk'"):
        name_of("shop", "clark", ["clerk"])


def test_variables_that_go_before_a_profile_are_told() -> None:
    settings = {"region": "us-east-1", "endpoint_url": "https://127.0.0.1:8022", "ca_bundle": "/x.pem"}
    same = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "https://127.0.0.1:8022", "AWS_CA_BUNDLE": ""}
    assert overriding(same, settings) == []
    others = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_CA_BUNDLE": "/y.pem", "AWS_PROFILE": "z"}
    assert overriding(others, settings) == ["AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"]
