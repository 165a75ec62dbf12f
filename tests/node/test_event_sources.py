"""A table's stream on a real node: read by boto3, and fed to real functions, whatever happens to the node."""

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from owsgit.node import backup
from owsgit.node.home import Home
from owsgit.services.event_sources.checkpoints import FILE
from tests.support import projects
from tests.support.nodes import Node, owsgit, push, until
from tests.support.people import Person
from tests.support.projects import Project, function
from tests.support.sdk import ONCE, endpoint, node_for_sdks, refused, serving, session

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
KILLS = 8 if os.environ.get("OWSGIT_SOAK") else 1
STREAM = {"streamEnabled": True, "streamViewType": "NEW_AND_OLD_IMAGES"}

COPY = """
import time
import boto3

seen = boto3.resource("dynamodb").Table("seen")

def handler(event, context):
    for record in event["Records"]:
        number = record["dynamodb"]["NewImage"]["n"]["N"]
        item = {"id": str(time.time_ns()), "key": record["dynamodb"]["Keys"]["id"]["S"], "number": int(number)}
        seen.put_item(Item=item)
"""
PICKY = """
def handler(event, context):
    names = [record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"]]
    if "bad" in names:
        raise ValueError("bad")
    print("got", *names)
"""
PARTIAL = """
tries = {}

def handler(event, context):
    failed = []
    for record in event["Records"]:
        name = record["dynamodb"]["Keys"]["id"]["S"]
        tries[name] = tries.get(name, 0) + 1
        if name in ("3", "5") and tries[name] < 3:
            failed.append({"itemIdentifier": record["dynamodb"]["SequenceNumber"]})
        else:
            print("got", name)
    return {"batchItemFailures": failed}
"""
SHOW = """
import json

def handler(event, context):
    print("got", json.dumps(event))
"""


def table(**fields: Any) -> dict[str, Any]:
    definitions = [{"attributeName": "id", "attributeType": "S"}]
    return {"attributeDefinitions": definitions, "keySchema": [{"attributeName": "id", "keyType": "HASH"}], **fields}


def mapping(name: str, of: str, **fields: Any) -> dict[str, Any]:
    return {"function": name, "source": {"table": of}, "startingPosition": "TRIM_HORIZON", **fields}


FILES: dict[str, Any] = {
    "roles/copier.json": {
        "trust": TRUST,
        "inlinePolicies": {"seen": projects.allow("dynamodb:PutItem", resource="arn:aws:dynamodb:*:*:table/seen")},
    },
    "tables/orders.json": table(streamSpecification=STREAM),
    "tables/lines.json": table(streamSpecification=STREAM),
    "tables/seen.json": table(),
    "functions/copy/function.json": function(role="copier", memorySize=256, timeout=20),
    "functions/picky/function.json": function(),
    "functions/partial/function.json": function(maxConcurrency=1),
    "functions/show/function.json": function(),
    "functions/copy/app.py": COPY,
    "functions/picky/app.py": PICKY,
    "functions/partial/app.py": PARTIAL,
    "functions/show/app.py": SHOW,
    "event-sources/picky.json": mapping(
        "picky", "lines", maximumRetryAttempts=1, bisectBatchOnFunctionError=True, onFailure={"function": "show"}
    ),
    "event-sources/partial.json": mapping("partial", "lines", functionResponseTypes=["ReportBatchItemFailures"]),
    "event-sources/removals.json": mapping(
        "show", "lines", startingPosition="LATEST", filters=[{"eventName": ["REMOVE"], "dynamodb": {"Keys": {"id": {"S": [{"prefix": "x"}]}}}}]
    ),
}  # fmt: skip


class Shop:
    """A project, its node, and bob's boto3, who may do all with tables and read what event sources there are."""

    def __init__(self, project: Project, node: Node) -> None:
        self.project, self.node = project, node
        self.boto: boto3.Session

    def client(self, service: str) -> Any:
        return self.boto.client(service, endpoint_url=endpoint(self.node), config=ONCE)

    def table(self, name: str) -> Any:
        return self.boto.resource("dynamodb", endpoint_url=endpoint(self.node)).Table(name)

    def commit(self, path: str, document: Any) -> None:
        self.project.write(path, document)
        self.project.commit()

    def push(self) -> None:
        done = push(self.project, self.node)
        assert done.status == 0, done.text

    def refused(self, path: str, document: Any) -> str:
        """What a push of this file is refused with; it is taken back."""
        before = self.project.head()
        self.commit(path, document)
        done = push(self.project, self.node)
        self.project.git("reset", "-q", "--hard", before)
        assert done.status != 0, done.text
        return done.text

    def live(self, name: str) -> dict[str, Any]:
        return dict((self.node.resource(f"event-sources/{name}") or {"live": {}})["live"])

    def told(self, name: str) -> list[str]:
        """What a function printed after "got"."""
        path = self.node.home / f"logs/functions/{name}/current.jsonl"
        lines = [json.loads(line)["message"] for line in path.read_text().splitlines()] if path.exists() else []
        return [line.removeprefix("got ").strip() for line in lines if line.startswith("got ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("streams")
    node = node_for_sdks(folder, alice)
    policy = projects.allow("dynamodb:*", "lambda:GetEventSourceMapping", "lambda:ListEventSourceMappings")
    policy["Statement"].append(
        {"Effect": "Deny", "Action": "dynamodb:GetRecords", "Resource": "arn:aws:dynamodb:*:*:table/lines/stream/*"}
    )
    user = {"users/bob.json": {"keys": [bob.public], "inlinePolicies": {"tables": policy}}}
    with serving(folder, node, {**FILES, **user}) as project:
        yield Shop(project, node)


@pytest.fixture
def shop(place: Shop, bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    place.boto = session(tmp_path, place.project, bob, monkeypatch)
    return place


def test_a_batch_that_fails_is_halved_until_the_bad_record_stands_alone(shop: Shop) -> None:
    """And with the same records: a function that tells which of them failed, and a filter that lets one through."""
    lines = shop.table("lines")
    with lines.batch_writer() as batch:
        for name in ("0", "1", "2", "bad", "3", "4", "5", "x"):
            batch.put_item(Item={"id": name})
    lines.delete_item(Key={"id": "x"})
    lines.delete_item(Key={"id": "4"})

    def shown(what: str) -> list[Any]:
        return [event for event in map(json.loads, shop.told("show")) if what in event]

    [told] = until(lambda: shown("requestContext"))
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["requestContext"]["approximateInvokeCount"] == 2
    assert told["requestContext"]["functionArn"].endswith(":function:picky")
    assert told["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    info, arn = (
        told["DDBStreamBatchInfo"],
        lines.meta.client.describe_table(TableName="lines")["Table"]["LatestStreamArn"],
    )
    assert (info["batchSize"], info["streamArn"]) == (1, arn)
    assert info["startSequenceNumber"] == info["endSequenceNumber"]
    until(lambda: " ".join(shop.told("picky")).split() == ["0", "1", "2", "3", "4", "5", "x", "x", "4"])
    until(lambda: "5" in shop.told("partial") and len(set(shop.told("partial"))) == 8)
    seen = shop.told("partial")
    assert seen.index("3") < seen.index("5")
    [event] = until(lambda: shown("Records"))
    [removed] = event["Records"]
    assert removed["eventName"] == "REMOVE" and removed["dynamodb"]["OldImage"] == {"id": {"S": "x"}}
    assert removed["eventSourceARN"] == arn and removed["eventSource"] == "aws:dynamodb"


def _positions(file: Path) -> list[Any]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT mapping, lane, position FROM checkpoints ORDER BY 1, 2").fetchall()


def test_a_node_that_is_killed_loses_no_record_and_keeps_their_order(shop: Shop, tmp_path: Path) -> None:
    orders, seen = shop.table("orders"), shop.table("seen")
    keys, last = "abcdef", 200 if KILLS > 1 else 14
    for number in range(last + 1):
        with orders.batch_writer() as batch:
            for key in keys:
                batch.put_item(Item={"id": key, "n": number})
    written = [{"eventName": ["INSERT", "MODIFY"]}]
    fields = mapping("copy", "orders", batchSize=5, parallelizationFactor=2, filters=written)
    shop.commit("event-sources/copy.json", fields)
    shop.push()

    def copied() -> list[dict[str, Any]]:
        pages = seen.meta.client.get_paginator("scan").paginate(TableName="seen")
        items = [item for page in pages for item in page["Items"]]
        return sorted(items, key=lambda item: int(item["id"]))

    for turn in range(1, KILLS + 1):
        until(lambda turn=turn: len(copied()) >= 20 * turn, 60)
        shop.node.kill()
        shop.node.start()
        until(lambda: shop.node.status()["applied"] == shop.project.head())

    everything = {(key, number) for key in keys for number in range(last + 1)}
    until(lambda: {(item["key"], int(item["number"])) for item in copied()} == everything, 60)
    for key in keys:
        numbers = [int(item["number"]) for item in copied() if item["key"] == key]
        assert list(dict.fromkeys(numbers)) == list(range(last + 1))  # a batch may have come again
    orders.put_item(Item={"id": "late", "n": 0})  # all others may have been copied before the node was killed
    until(lambda: shop.live("copy")["lastResult"] == "OK" and shop.live("copy")["iteratorAge"] == 0)
    assert shop.live("copy")["state"] == "Enabled"
    status = owsgit("status", by=shop.project.owner, cwd=shop.project.folder).text
    assert "OK, iterator age 0 s" in status
    project_id = shop.node.status()["project"]["id"]
    backup.write(Home(shop.node.home), tmp_path / "a.backup", project_id, key=True)
    backup.restore(tmp_path / "a.backup", tmp_path / "again", {})
    far = [_positions(home / FILE) for home in (shop.node.home, tmp_path / "again")]
    assert far[0] and far[0] == far[1]
    metrics = owsgit("metrics", by=shop.project.owner, cwd=shop.project.folder).text
    assert 'owsgit_event_source_iterator_age_seconds{event_source="copy",function="copy"} 0' in metrics
    assert 'owsgit_event_source_records_total{event_source="copy",function="copy",result="delivered"}' in metrics


def test_a_mapping_that_was_off_goes_on_where_it_was(shop: Shop) -> None:
    fields = mapping("show", "orders", startingPosition="LATEST", filters=[{"eventName": ["REMOVE"]}])
    shop.commit("event-sources/off.json", fields)
    shop.push()
    shop.commit("event-sources/off.json", {**fields, "enabled": False})
    shop.push()
    orders = shop.table("orders")
    orders.put_item(Item={"id": "z", "n": 1})
    orders.delete_item(Key={"id": "z"})
    assert shop.live("off")["state"] == "Disabled"
    assert not any('"z"' in line for line in shop.told("show"))
    shop.commit("event-sources/off.json", fields)
    shop.push()
    until(lambda: any('"z"' in line for line in shop.told("show")))


def test_lambdas_api_tells_of_mappings_and_names_the_file_to_commit(shop: Shop) -> None:
    client = shop.client("lambda")
    [listed] = client.list_event_source_mappings(FunctionName="picky")["EventSourceMappings"]
    found = client.get_event_source_mapping(UUID=listed["UUID"])
    assert {**found, "ResponseMetadata": 0} == {**listed, "ResponseMetadata": 0}
    arn = shop.client("dynamodb").describe_table(TableName="lines")["Table"]["LatestStreamArn"]
    assert (found["EventSourceArn"], found["State"], found["BatchSize"]) == (arn, "Enabled", 100)
    assert found["FunctionArn"].endswith(":function:picky") and found["BisectBatchOnFunctionError"] is True
    assert found["DestinationConfig"]["OnFailure"]["Destination"].endswith(":function:show")
    assert found["EventSourceMappingArn"].endswith(":event-source-mapping:picky") and found["LastModified"].year > 2000
    page = client.list_event_source_mappings(EventSourceArn=arn, MaxItems=1)
    assert [_name(each) for each in page["EventSourceMappings"]] == ["partial"]
    pages = client.get_paginator("list_event_source_mappings").paginate(
        EventSourceArn=arn, PaginationConfig={"PageSize": 1}
    )
    names = [_name(each) for page in pages for each in page["EventSourceMappings"]]
    assert names == ["partial", "picky", "removals"]
    [one] = client.list_event_source_mappings(FunctionName="partial")["EventSourceMappings"]
    assert one["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    code, _, status = refused(client.get_event_source_mapping, UUID=str(uuid.uuid4()))
    assert (code, status) == ("ResourceNotFoundException", 404)
    code, message, _ = refused(
        client.create_event_source_mapping,
        FunctionName="show",
        EventSourceArn=arn,
        StartingPosition="LATEST",
        MaximumBatchingWindowInSeconds=5,
        FilterCriteria={"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]},
    )
    assert code == "InvalidParameterValueException" and "event-sources/show.json" in message
    assert json.loads(message.partition(":\n")[2]) == {
        "function": "show",
        "source": {"table": "lines"},
        "startingPosition": "LATEST",
        "maximumBatchingWindow": 5,
        "filters": [{"eventName": ["INSERT"]}],
    }
    queue = {"FunctionName": "show", "EventSourceArn": "arn:aws:sqs:us-east-1:111111111111:jobs"}
    assert "Unrecognized event source: arn:aws:sqs" in refused(client.create_event_source_mapping, **queue).message
    pattern = {"Filters": [{"Pattern": "{"}]}
    bad = {"FunctionName": "show", "EventSourceArn": arn, "FilterCriteria": pattern}
    assert refused(client.create_event_source_mapping, **bad).message == "Invalid filter pattern definition."
    for operation in (client.update_event_source_mapping, client.delete_event_source_mapping):
        assert "event-sources/picky.json" in refused(operation, UUID=listed["UUID"]).message
    assert refused(client.list_event_source_mappings, Marker="!").code == "InvalidParameterValueException"


def _name(mapping: dict[str, Any]) -> str:
    return str(mapping["EventSourceMappingArn"]).rpartition(":")[2]


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("new", mapping("nobody", "orders"), "nobody"),
        ("new", mapping("show", "none"), "none"),
        ("new", mapping("show", "seen"), "the table seen cannot be used: it has no stream"),
        ("new", mapping("show:live", "orders"), "it has no alias 'live'"),
        ("new", mapping("show", "orders", maximumRecordAge=5), "60 seconds and more"),
        ("new", mapping("show", "orders", filters=[{"a": "x"}]), "$.filters[0].a"),
        ("picky", mapping("picky", "orders"), "the source of a mapping that is there cannot change"),
        ("picky", mapping("picky", "lines", startingPosition="LATEST"), "the startingPosition of a mapping"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(shop: Shop, path: str, fields: dict[str, Any], words: str) -> None:
    assert words in shop.refused(f"event-sources/{path}.json", fields)


def test_a_table_that_feeds_a_function_keeps_its_stream(shop: Shop) -> None:
    assert "it has no stream" in shop.refused("tables/orders.json", table())


def test_boto3_reads_a_stream_as_far_as_it_may(shop: Shop) -> None:
    client = shop.client("dynamodbstreams")
    arns = {each["TableName"]: each["StreamArn"] for each in client.list_streams()["Streams"]}
    assert set(arns) == {"orders", "lines"}
    shop.table("orders").put_item(Item={"id": "read", "n": 1, "photo": b"\xff"})
    [shard] = client.describe_stream(StreamArn=arns["orders"])["StreamDescription"]["Shards"]
    asked = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = client.get_shard_iterator(StreamArn=arns["orders"], **asked)["ShardIterator"]
    records: list[dict[str, Any]] = []
    while page := client.get_records(ShardIterator=iterator, Limit=50):
        if not page["Records"]:
            break
        records += page["Records"]
        iterator = page["NextShardIterator"]
    last = records[-1]
    assert last["eventName"] == "INSERT" and last["dynamodb"]["NewImage"]["photo"] == {"B": b"\xff"}
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))
    [shard] = client.describe_stream(StreamArn=arns["lines"])["StreamDescription"]["Shards"]
    asked["ShardId"] = shard["ShardId"]
    iterator = client.get_shard_iterator(StreamArn=arns["lines"], **asked)["ShardIterator"]
    code, message, _ = refused(client.get_records, ShardIterator=iterator)
    assert code == "AccessDeniedException" and f"dynamodb:GetRecords on resource: {arns['lines']}" in message
    code, message, _ = refused(client.describe_stream, StreamArn=arns["orders"][:-1] + "x")
    assert code == "ResourceNotFoundException" and message.startswith("Requested resource not found: Stream: arn:")
