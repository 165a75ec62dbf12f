"""Programs that make their tables when they start: with `owsgit up` they just work, and leave files to commit."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support import nodes, projects
from tests.support.nodes import OWSGIT, free_port
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import ONCE, refused

KEYS = {
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
}


class Up:
    """A project that `owsgit up` runs, and boto3 as it says how."""

    def __init__(self, project: Project, log: Path) -> None:
        self.project, self._log = project, log
        nodes.until(lambda: "AWS_SECRET_ACCESS_KEY" in log.read_text())
        found = dict(re.findall(r"export (\w+)=(\S+)", log.read_text()))
        self.session = boto3.Session(
            found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"], region_name=found["AWS_REGION"]
        )
        self.endpoint = found["AWS_ENDPOINT_URL"]

    def client(self, service: str = "dynamodb") -> Any:
        return self.session.client(service, endpoint_url=self.endpoint, config=ONCE)

    def file(self, name: str) -> Any:
        return json.loads((self.project.folder / f"tables/{name}.json").read_text())


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    project, log = projects.create(folder / "shop", alice), folder / "up.log"
    with log.open("wb") as file:
        words = [*OWSGIT, "up", "--aws-port", str(free_port())]
        running = subprocess.Popen(words, cwd=project.folder, env=alice.environment, stderr=file, stdout=file)
    try:
        yield Up(project, log)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


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


def test_only_whoever_runs_it_gets_in(up: Up) -> None:
    assert up.client("sts").get_caller_identity()["Arn"].endswith(":user/alice")
    other = boto3.Session("AKIAIOSFODNN7EXAMPLE", "nobody knows", region_name="us-east-1").client(
        "dynamodb", endpoint_url=up.endpoint, config=ONCE
    )
    assert refused(other.list_tables).code == "UnrecognizedClientException"
    kept = up.project.folder / ".git/owsgit/up/credentials.json"
    assert kept.stat().st_mode & 0o077 == 0
