"""Programs that make their tables and functions when they start: with `owsgit up` they just work, and leave files to
commit."""

import io
import json
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from owsgit.ledger.repository import Clone
from owsgit.node.editing import Editor
from owsgit.node.working_tree import WorkingTree
from owsgit.services import KINDS
from tests.support import nodes, projects
from tests.support.nodes import OWSGIT, free_port
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import ONCE, refused

KEYS = {
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
}


TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
PYTHON = f"python3.{sys.version_info.minor}"
NODE = f"nodejs{subprocess.check_output(['node', '--version'], text=True)[1:].partition('.')[0]}.x"
COUNTS = """
import boto3
table = boto3.resource("dynamodb").Table("counts")
def handler(event, context):
    table.update_item(Key={"pk": event}, UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": 1})
    return int(table.get_item(Key={"pk": event})["Item"]["n"])
"""
WHO = """
import boto3, os
def handler(event, context):
    try:
        boto3.client("lambda").list_functions()
        denied = ""
    except Exception as error:
        denied = error.response["Error"]["Code"]
    return [boto3.client("sts").get_caller_identity()["Arn"].split(":", 5)[5], denied, os.environ.get("STAGE")]
"""


def zipped(**files: str) -> bytes:
    """A deployment package; __ is a dot."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return made.getvalue()


class Up:
    """A project that `owsgit up` runs, and boto3 as it says how."""

    def __init__(self, project: Project, log: Path) -> None:
        self.project, self._log = project, log
        nodes.until(lambda: "AWS_SECRET_ACCESS_KEY" in log.read_text())
        found = dict(re.findall(r"export (\w+)=(\S+)", log.read_text()))
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("AWS_DEFAULT_REGION", raising=False)
            for name, value in found.items():
                patch.setenv(name, value)
            region = boto3.Session().region_name
        self.session = boto3.Session(found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"], region_name=region)
        self.endpoint = found["AWS_ENDPOINT_URL"]

    def client(self, service: str = "dynamodb") -> Any:
        return self.session.client(service, endpoint_url=self.endpoint, config=ONCE)

    def file(self, name: str) -> Any:
        return json.loads((self.project.folder / f"tables/{name}.json").read_text())

    def role(self, name: str = "clerk") -> str:
        account = self.client("sts").get_caller_identity()["Account"]
        return f"arn:aws:iam::{account}:role/{name}"

    def folder(self, function: str) -> dict[str, str]:
        """The files of a function in the working tree."""
        folder = self.project.folder / "functions" / function
        return {
            str(path.relative_to(folder)): "" if path.suffix == ".zip" else path.read_text()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    rights = projects.allow("dynamodb:*Item", resource="arn:aws:dynamodb:*:*:table/counts")
    role = {"trust": TRUST, "inlinePolicies": {"counts": rights}}
    project = projects.create(folder / "shop", alice, files={"roles/clerk.json": role})
    project.write(".gitignore", "node_modules/\n*.local\n")
    log = folder / "up.log"
    with log.open("wb") as file:
        words = [*OWSGIT, "up", "--aws-port", str(free_port())]
        running = subprocess.Popen(words, cwd=project.folder, env=alice.environment, stderr=file, stdout=file)
    try:
        yield Up(project, log)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0, log.read_text()
    assert "Traceback" not in log.read_text() and "Warning" not in log.read_text()


def test_a_program_makes_its_table_and_uses_it(up: Up) -> None:
    client = up.client()
    made = client.create_table(
        TableName="orders", BillingMode="PAY_PER_REQUEST", Tags=[{"Key": "a", "Value": "b"}], **KEYS
    )
    assert made["TableDescription"]["TableStatus"] == "CREATING"
    client.get_waiter("table_exists").wait(TableName="orders", WaiterConfig={"Delay": 1, "MaxAttempts": 1})
    table = up.session.resource("dynamodb", endpoint_url=up.endpoint).Table("orders")
    table.put_item(Item={"pk": "p", "sk": "1", "state": "open"})
    assert table.get_item(Key={"pk": "p", "sk": "1"})["Item"]["state"] == "open"
    assert up.file("orders") == {
        "attributeDefinitions": [{"attributeName": name, "attributeType": "S"} for name in ("pk", "sk")],
        "keySchema": [{"attributeName": "pk", "keyType": "HASH"}, {"attributeName": "sk", "keyType": "RANGE"}],
        "billingMode": "PAY_PER_REQUEST",
        "tags": [{"key": "a", "value": "b"}],
    }
    assert refused(client.create_table, TableName="orders", **KEYS).code == "ResourceInUseException"

    update = {
        "IndexName": "by-state",
        "KeySchema": [{"AttributeName": "state", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    client.update_table(
        TableName="orders",
        AttributeDefinitions=[{"AttributeName": "state", "AttributeType": "S"}],
        GlobalSecondaryIndexUpdates=[{"Create": update}],
        DeletionProtectionEnabled=True,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )
    nodes.until(
        lambda: (
            client.describe_table(TableName="orders")["Table"]["GlobalSecondaryIndexes"][0]["IndexStatus"] == "ACTIVE"
        )
    )
    twice = refused(client.update_table, TableName="orders", GlobalSecondaryIndexUpdates=[{"Create": update}])
    assert twice.message == "Attempting to create an index which already exists: by-state"
    gone = [{"Delete": {"IndexName": "none"}}]
    told = refused(client.update_table, TableName="orders", GlobalSecondaryIndexUpdates=gone)
    assert told.code == "ResourceNotFoundException"
    query = {"IndexName": "by-state", "KeyConditionExpression": "#s = :s", "ExpressionAttributeNames": {"#s": "state"}}
    assert client.query(TableName="orders", ExpressionAttributeValues={":s": {"S": "open"}}, **query)["Count"] == 1
    assert "protected against deletion" in refused(client.delete_table, TableName="orders").message
    client.update_table(
        TableName="orders",
        DeletionProtectionEnabled=False,
        GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": "by-state"}}],
    )
    assert [each["attributeName"] for each in up.file("orders")["attributeDefinitions"]] == ["pk", "sk"]

    ends = {"AttributeName": "ends", "Enabled": True}
    assert (
        client.update_time_to_live(TableName="orders", TimeToLiveSpecification=ends)["TimeToLiveSpecification"] == ends
    )
    told = refused(client.update_time_to_live, TableName="orders", TimeToLiveSpecification=ends)
    assert told.message == "TimeToLive is already enabled"
    assert client.describe_time_to_live(TableName="orders")["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"

    arn = client.describe_table(TableName="orders")["Table"]["TableArn"]
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "c", "Value": "d"}])
    client.untag_resource(ResourceArn=arn, TagKeys=["a"])
    assert client.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "c", "Value": "d"}]

    assert client.delete_table(TableName="orders")["TableDescription"]["TableStatus"] == "DELETING"
    client.get_waiter("table_not_exists").wait(TableName="orders", WaiterConfig={"Delay": 1, "MaxAttempts": 1})
    assert not (up.project.folder / "tables/orders.json").exists()
    assert refused(client.delete_table, TableName="orders").code == "ResourceNotFoundException"
    client.create_table(TableName="orders", **KEYS)
    assert client.scan(TableName="orders")["Count"] == 0, "the items went with the table"


def test_what_a_file_cannot_say_is_not_written(up: Up) -> None:
    client = up.client()
    unused = [*KEYS["AttributeDefinitions"], {"AttributeName": "other", "AttributeType": "S"}]
    told = refused(client.create_table, TableName="wrong", **{**KEYS, "AttributeDefinitions": unused})
    assert told.code == "ValidationException" and "the attribute 'other' is in no key" in told.message
    assert "is not the name of a table" in refused(client.create_table, TableName="_odd", **KEYS).message
    assert refused(client.update_table, TableName="none", BillingMode="PROVISIONED").code == "ResourceNotFoundException"
    assert not list((up.project.folder / "tables").glob("wrong*"))
    broken = up.project.folder / "users/alice.json"
    text = broken.read_text()
    broken.write_text("{")
    try:
        assert "users/alice.json: not JSON" in refused(client.create_table, TableName="fine", **KEYS).message
    finally:
        broken.write_text(text)
    client.create_table(TableName="fine", **KEYS)


def test_roles_are_taken_on_and_routes_with_iam_answer(up: Up) -> None:
    sts = up.client("sts")
    given = sts.assume_role(RoleArn=up.role(), RoleSessionName="me")["Credentials"]
    clerk = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], up.session.region_name)
    client = clerk.client("dynamodb", endpoint_url=up.endpoint, config=ONCE)
    assert refused(client.list_tables).code == "AccessDeniedException"
    port = free_port()
    up.project.write(
        "gateways/api.json", {"port": port, "routes": {"GET /": {"response": {"body": "fine"}, "auth": "iam"}}}
    )
    request = AWSRequest("GET", f"http://127.0.0.1:{port}/")
    SigV4Auth(up.session.get_credentials(), "execute-api", up.session.region_name).add_auth(request)

    def answer(headers: dict[str, str]) -> str:
        try:
            return httpx.get(request.url, headers=headers).text
        except httpx.ConnectError:
            return ""

    nodes.until(lambda: answer(dict(request.headers)) == "fine")
    assert "Missing Authentication Token" in answer({})


def test_only_whoever_runs_it_gets_in(up: Up) -> None:
    assert up.client("sts").get_caller_identity()["Arn"].endswith(":user/alice")
    other = boto3.Session("AKIAIOSFODNN7EXAMPLE", "nobody knows", region_name="us-east-1").client(
        "dynamodb", endpoint_url=up.endpoint, config=ONCE
    )
    assert refused(other.list_tables).code == "UnrecognizedClientException"
    kept = up.project.folder / ".git/owsgit/up/credentials.json"
    assert kept.stat().st_mode & 0o077 == 0


def test_a_program_makes_its_function_which_uses_its_table_as_its_role(up: Up) -> None:
    """The code is as it is on Lambda: it has credentials, region and endpoint of the SDK's own finding."""
    up.client().create_table(
        TableName="counts", KeySchema=KEYS["KeySchema"][:1], AttributeDefinitions=KEYS["AttributeDefinitions"][:1]
    )
    client = up.client("lambda")
    made = client.create_function(
        FunctionName="counter", Runtime=PYTHON, Handler="app.handler", Role=up.role(), Timeout=20, MemorySize=256,
        Code={"ZipFile": zipped(app__py=COUNTS)}, Environment={"Variables": {"STAGE": "test"}}, Publish=False,
        Description="Counts", VpcConfig={}, TracingConfig={"Mode": "PassThrough"},
    )  # fmt: skip
    assert made["Runtime"] == PYTHON and made["Role"] == up.role()
    client.get_waiter("function_active_v2").wait(FunctionName="counter", WaiterConfig={"Delay": 1, "MaxAttempts": 3})
    assert [client.invoke(FunctionName="counter", Payload=b'"a"')["Payload"].read() for _ in range(2)] == [b"1", b"2"]
    assert up.folder("counter")["app.py"] == COUNTS
    assert json.loads(up.folder("counter")["function.json"]) == {
        "runtime": PYTHON, "handler": "app.handler", "description": "Counts", "timeout": 20, "memorySize": 256,
        "role": "clerk", "environment": {"STAGE": "test"},
    }  # fmt: skip
    again = {"FunctionName": "counter", "Runtime": PYTHON, "Handler": "app.handler", "Role": up.role()}
    twice = refused(client.create_function, **again, Code={"ZipFile": zipped(app__py=COUNTS)})
    assert twice[::2] == ("ResourceConflictException", 409)

    (up.project.folder / "functions/counter/notes.local").write_text("mine")
    assert refused(client.update_function_code, FunctionName="counter", ZipFile=zipped(who__py=WHO), RevisionId="1")[
        ::2
    ] == ("PreconditionFailedException", 412)
    changes = {"Handler": "who.handler", "Environment": {}, "Description": ""}
    told = client.update_function_configuration(FunctionName="counter", **changes, RevisionId=made["RevisionId"])
    assert told["LastUpdateStatus"] == "Failed" and "who" in told["LastUpdateStatusReason"], "there is no who.py yet"
    client.update_function_code(FunctionName="counter", ZipFile=zipped(who__py=WHO))
    client.get_waiter("function_updated_v2").wait(FunctionName="counter", WaiterConfig={"Delay": 1, "MaxAttempts": 3})
    answer = client.invoke(FunctionName="counter")["Payload"].read()
    assert json.loads(answer) == ["assumed-role/clerk/counter", "AccessDeniedException", None]
    assert set(up.folder("counter")) == {"function.json", "notes.local", "who.py"}, "what is ignored is the user's"

    assert client.delete_function(FunctionName="counter")["ResponseMetadata"]["HTTPStatusCode"] in (200, 204)
    assert refused(client.get_function, FunctionName="counter")[::2] == ("ResourceNotFoundException", 404)
    assert set(up.folder("counter")) == {"notes.local"}
    assert refused(client.delete_function, FunctionName="counter").code == "ResourceNotFoundException"


def test_a_program_feeds_its_function_from_its_table(up: Up) -> None:
    functions, tables = up.client("lambda"), up.client()
    code = {"ZipFile": zipped(app__py="def handler(event, context):\n    assert len(event['Records']) == 1\n")}
    functions.create_function(FunctionName="eats", Runtime=PYTHON, Handler="app.handler", Role=up.role(), Code=code)
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    made = tables.create_table(TableName="feed", BillingMode="PAY_PER_REQUEST", StreamSpecification=stream, **KEYS)
    wanted = {
        "FunctionName": "eats", "EventSourceArn": made["TableDescription"]["LatestStreamArn"], "BatchSize": 1,
        "StartingPosition": "TRIM_HORIZON", "TumblingWindowInSeconds": 0,
        "FilterCriteria": {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]},
    }  # fmt: skip
    mapping = functions.create_event_source_mapping(**wanted)
    file = up.project.folder / "event-sources/eats.json"
    assert mapping["State"] == "Creating" and json.loads(file.read_text()) == {
        "function": "eats", "source": {"table": "feed"}, "startingPosition": "TRIM_HORIZON", "batchSize": 1,
        "filters": [{"eventName": ["INSERT"]}],
    }  # fmt: skip
    tables.put_item(TableName="feed", Item={"pk": {"S": "p"}, "sk": {"S": "s"}})
    uuid = mapping["UUID"]
    nodes.until(lambda: functions.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK")
    code, message, _ = refused(functions.create_event_source_mapping, **wanted)
    assert code == "ResourceConflictException" and uuid in message
    message = refused(functions.create_event_source_mapping, **wanted | {"TumblingWindowInSeconds": 5}).message
    assert message.startswith("TumblingWindowInSeconds is not built")
    assert "function 'none'" in refused(functions.update_event_source_mapping, UUID=uuid, FunctionName="none").message
    told = functions.update_event_source_mapping(UUID=uuid, Enabled=False, FilterCriteria={})
    assert told["State"] == "Updating" and "FilterCriteria" not in told
    assert functions.get_event_source_mapping(UUID=uuid)["State"] == "Disabled"
    arns = [_stream(up, name) for name in ("second", "third")]
    (up.project.folder / "event-sources/eats-second.json").write_text(
        file.read_text()
    )  # of the same function and table
    with ThreadPoolExecutor(2) as threads:
        others = list(
            threads.map(lambda arn: functions.create_event_source_mapping(**wanted | {"EventSourceArn": arn}), arns)
        )
    names = {each["EventSourceMappingArn"].rpartition(":")[2] for each in others}
    assert names == {"eats-2", "eats-third"}, "a file that is there is never written over"
    (up.project.folder / "event-sources/eats-second.json").unlink()
    for each in (uuid, *(other["UUID"] for other in others)):
        assert functions.delete_event_source_mapping(UUID=each)["State"] == "Deleting"
    assert refused(functions.get_event_source_mapping, UUID=uuid).status == 404 and not file.exists()


def _stream(up: Up, table: str) -> str:
    """That of another table."""
    stream = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    made = up.client().create_table(TableName=table, BillingMode="PAY_PER_REQUEST", StreamSpecification=stream, **KEYS)
    return str(made["TableDescription"]["LatestStreamArn"])


def test_a_package_that_the_ledger_would_not_run_as_it_is_stays_a_zip(up: Up) -> None:
    client = up.client("lambda")
    files = {
        "app__js": "exports.handler = async () => require('one')",
        "node_modules/one/index__js": "module.exports = 1",
    }
    client.create_function(
        FunctionName="packed",
        Runtime=NODE,
        Handler="app.handler",
        Role=up.role(),
        Code={"ZipFile": zipped(**files)},
    )
    assert client.invoke(FunctionName="packed")["Payload"].read() == b"1"
    assert set(up.folder("packed")) == {"function.json", "code.zip"}
    assert json.loads(up.folder("packed")["function.json"])["package"] == "code.zip"
    told = refused(client.publish_version, FunctionName="packed")
    assert "edit functions/packed/function.json (every commit is a version already" in told.message
    assert [each["Version"] for each in client.list_versions_by_function(FunctionName="packed")["Versions"]] == [
        "$LATEST"
    ]
    assert not client.get_function_code_signing_config(FunctionName="packed")["CodeSigningConfigArn"]
    lists = zipped(app__py="def handler(event, context): return 2", requirements__txt="none-such==1")
    client.update_function_configuration(FunctionName="packed", Runtime=PYTHON)
    client.update_function_code(FunctionName="packed", ZipFile=lists)
    assert client.invoke(FunctionName="packed")["Payload"].read() == b"2", "it has all that it needs"
    client.update_function_code(FunctionName="packed", ZipFile=zipped(app__py="def handler(event, context): return 3"))
    assert client.invoke(FunctionName="packed")["Payload"].read() == b"3"
    assert set(up.folder("packed")) == {"function.json", "app.py"}
    assert "package" not in up.folder("packed")["function.json"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"Tags": {"a": "b"}}, "Tags: functions have no tags"),
    ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "VpcConfig: there is no VPC"),
    ({"Publish": True}, "Publish: every commit is a version here"),
    ({"DurableConfig": {"ExecutionTimeout": 10}}, "DurableConfig is not built in owsgit"),
    ({"Timeout": 901}, "Timeout: "),
    ({"Runtime": "java21"}, "Runtime: runtimes are"),
    ({"Role": "arn:aws:iam::123456789012:role/clerk"}, "Role: arn:aws:iam::123456789012:role/clerk is none of"),
    ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Environment: this variable is set by the runtime"),
    ({"Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:a:1"]}, "Layers: arn:aws:lambda:us-east-1:"),
    ({"LoggingConfig": {"LogFormat": "JSON"}}, "LoggingConfig: LogFormat is always Text here"),
    ({"Code": {"S3Bucket": "bucket", "S3Key": "k"}}, "S3Bucket: code is given as ZipFile"),
    ({"Code": {"ZipFile": b"PK"}}, "Could not unzip uploaded file."),
    ({"Code": {"ZipFile": zipped(**{"../out__py": ""})}}, "Could not unzip uploaded file."),
    ({"PackageType": "Image"}, "Handler: a function that is an image"),
]


def test_parameters_without_a_field_are_refused_by_name(up: Up) -> None:
    client = up.client("lambda")
    fine = {"FunctionName": "f", "Runtime": PYTHON, "Handler": "app.handler", "Role": up.role()}
    for given, said in [*REFUSED, ({"Role": up.role("none")}, "Role: there is no role 'none'")]:
        told = refused(client.create_function, **{**fine, "Code": {"ZipFile": zipped(app__py="")}, **given})
        assert told.code == "InvalidParameterValueException" and said in told.message, told
    assert not (up.project.folder / "functions/f").exists()


def test_what_the_user_saves_meanwhile_is_not_lost(up: Up, tmp_path: Path) -> None:
    working = WorkingTree(Clone(up.project.folder), tmp_path, None, "owsgit up")
    editor = Editor(up.project.folder, working, None, None)  # type: ignore[arg-type]  # it only writes
    file = up.project.folder / "roles/clerk.json"
    seen: list[Any] = []

    def change(before: Any) -> Any:
        seen.append(before)
        if len(seen) == 1:
            file.write_text(json.dumps({**before, "inlinePolicies": {}}))
        return {**before, "policies": []}

    before = json.loads(file.read_text())
    editor._write(KINDS["role"], "clerk", change, None)
    after = {**before, "inlinePolicies": {}, "policies": []}
    assert len(seen) == 2 and json.loads(file.read_text()) == after
    file.write_text(json.dumps(before))
