"""Tables through the front door: real boto3 against a real node."""

import json
import re
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

from owsgit.model.names import account_id
from tests.support import clusters
from tests.support.nodes import Node, free_port, owsgit, push, until
from tests.support.people import Person
from tests.support.projects import Project
from tests.support.sdk import ONCE, endpoint, node_for_sdks, refused, serving, session

ORDERS = {
    "attributeDefinitions": [
        {"attributeName": "shop", "attributeType": "S"},
        {"attributeName": "number", "attributeType": "N"},
        {"attributeName": "state", "attributeType": "S"},
    ],
    "keySchema": [
        {"attributeName": "shop", "keyType": "HASH"},
        {"attributeName": "number", "keyType": "RANGE"},
    ],
    "globalSecondaryIndexes": [
        {"indexName": "by-state", "keySchema": [{"attributeName": "state", "keyType": "HASH"}]},
    ],
}
BOB = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["dynamodb:*", "lambda:*EventSourceMapping*"], "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "dynamodb:PutItem",
            "Resource": "*",
            "Condition": {"ForAnyValue:StringEquals": {"dynamodb:LeadingKeys": ["theirs"]}},
        },
        {"Effect": "Deny", "Action": "dynamodb:Query", "Resource": "arn:aws:dynamodb:*:*:table/orders/index/secret"},
        {
            "Effect": "Deny",
            "Action": "dynamodb:PartiQLSelect",
            "Resource": "*",
            "Condition": {"Bool": {"dynamodb:FullTableScan": "true"}},
        },
    ],
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[tuple[Project, Node]]:
    folder = tmp_path_factory.mktemp("tables")
    node = node_for_sdks(folder, alice)
    files = {
        "users/bob.json": {"keys": [bob.public], "inlinePolicies": {"tables": BOB}},
        "tables/orders.json": ORDERS,
    }
    with serving(folder, node, files) as project:
        yield project, node


@pytest.fixture
def resource(shop: tuple[Project, Node], bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    project, node = shop
    found = session(tmp_path, project, bob, monkeypatch)
    return found.resource("dynamodb", endpoint_url=endpoint(node), config=ONCE)


def test_items_come_and_go(resource: Any) -> None:
    table = resource.Table("orders")
    item = {"shop": "mine", "number": Decimal(1), "state": "open", "lines": [{"what": "tea", "many": Decimal("2.5")}]}
    item["photo"] = b"\x00\xff"
    table.put_item(Item=item)
    found = table.get_item(Key={"shop": "mine", "number": 1})["Item"]
    assert {**found, "photo": bytes(found["photo"])} == item
    changed = table.update_item(
        Key={"shop": "mine", "number": 1},
        UpdateExpression="SET #s = :s ADD seen :one",
        ConditionExpression=Attr("state").eq("open"),
        ExpressionAttributeNames={"#s": "state"},
        ExpressionAttributeValues={":s": "paid", ":one": 1},
        ReturnValues="UPDATED_NEW",
    )
    assert changed["Attributes"] == {"state": "paid", "seen": 1}
    with table.batch_writer() as batch:
        for number in range(2, 60):
            batch.put_item(Item={"shop": "mine", "number": number, "state": "open"})
    some = table.query(KeyConditionExpression=Key("shop").eq("mine") & Key("number").between(5, 7))
    assert [item["number"] for item in some["Items"]] == [5, 6, 7]
    paid = table.query(IndexName="by-state", KeyConditionExpression=Key("state").eq("paid"))
    assert [item["number"] for item in paid["Items"]] == [1]
    assert table.scan(Select="COUNT")["Count"] == 59
    assert table.delete_item(Key={"shop": "mine", "number": 1}, ReturnValues="ALL_OLD")["Attributes"]["seen"] == 1
    assert table.item_count >= 0 and table.table_status == "ACTIVE"
    client = table.meta.client
    [told] = client.describe_endpoints()["Endpoints"]
    assert client.meta.endpoint_url == f"http://{told['Address']}", "whoever asks stays here"


CONDITIONS: list[tuple[Any, list[int]]] = [
    (Attr("price").eq(3), [3]), (Attr("price").ne(3), [1, 2, 4]), (Attr("price").lt(3), [1, 2]),
    (Attr("price").lte(3), [1, 2, 3]), (Attr("price").gt(3), [4]), (Attr("price").gte(3), [3, 4]),
    (Attr("price").between(2, 3), [2, 3]), (Attr("price").is_in([1, 4]), [1, 4]), (Attr("what").begins_with("te"), [2]),
    (Attr("what").contains("a"), [2, 4]), (Attr("tags").contains("x"), [3]), (Attr("what").size().gt(3), [1]),
    (Attr("tags").attribute_type("SS"), [3]), (Attr("tags").exists(), [3]), (Attr("tags").not_exists(), [1, 2, 4]),
    (~Attr("price").eq(3) & (Attr("price").eq(1) | Attr("price").eq(3)), [1]), (Attr("in.depth").eq(1), []),
    (Attr("inside.depth[0]").eq(1), [4]), (Attr("data").eq(b"\x01"), [1]), (Attr("no").eq(None) | Attr("ok").eq(True), [2]),
]  # fmt: skip


def test_what_boto3_adds_works(resource: Any) -> None:
    """Its conditions, its writer of batches, its pages, its waiters and its errors."""
    table, client = resource.Table("orders"), resource.meta.client
    items = [
        {"number": 1, "price": 1, "what": "coffee", "data": b"\x01"},
        {"number": 2, "price": 2, "what": "tea", "ok": True},
        {"number": 3, "price": Decimal("3.0"), "what": "", "tags": {"x", "y"}},
        {"number": 4, "price": 4, "what": "a", "inside": {"depth": [1, None, {"b"}]}},
    ]
    with table.batch_writer(overwrite_by_pkeys=["shop", "number"]) as batch:
        batch.put_item(Item={"shop": "boto3", "number": 1, "price": 100})
        for item in items:
            batch.put_item(Item={"shop": "boto3", **item})
        batch.delete_item(Key={"shop": "boto3", "number": 5})
    mine = Key("shop").eq("boto3")
    for condition, numbers in CONDITIONS:
        found = table.query(KeyConditionExpression=mine, FilterExpression=condition)["Items"]
        assert [item["number"] for item in found] == numbers, condition.get_expression()
    for condition, numbers in (
        (Key("number").eq(2), [2]), (Key("number").lt(2), [1]), (Key("number").lte(2), [1, 2]), (Key("number").gt(3), [4]),
        (Key("number").gte(3), [3, 4]), (Key("number").between(2, 3), [2, 3]),
    ):  # fmt: skip
        found = table.query(KeyConditionExpression=mine & condition)["Items"]
        assert [item["number"] for item in found] == numbers
    pages = client.get_paginator("query").paginate(
        TableName="orders", KeyConditionExpression=mine, PaginationConfig={"PageSize": 3}
    )
    assert [len(page["Items"]) for page in pages] == [3, 1]
    scanned = client.get_paginator("scan").paginate(
        TableName="orders", FilterExpression=mine, PaginationConfig={"PageSize": 1}
    )
    assert len(list(scanned.search("Items"))) == 4
    assert list(client.get_paginator("list_tables").paginate().search("TableNames")) == ["orders"]
    assert [each.name for each in resource.tables.all()] == ["orders"]
    client.get_waiter("table_exists").wait(TableName="orders")
    client.get_waiter("table_not_exists").wait(TableName="none")
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as caught:
        table.delete_item(
            Key={"shop": "boto3", "number": 3},
            ConditionExpression=Attr("price").gt(3),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert caught.value.response["Item"]["tags"] == {"SS": ["x", "y"]}
    wanted = {
        "orders": {"Keys": [{"shop": "boto3", "number": number} for number in (4, 3)], "ProjectionExpression": "inside"}
    }
    assert resource.batch_get_item(RequestItems=wanted)["Responses"]["orders"] == [
        {"inside": {"depth": [1, None, {"b"}]}}, {}
    ]  # fmt: skip


def test_a_transaction_is_whole_or_nothing(resource: Any) -> None:
    client = resource.meta.client
    items = [
        {"Put": {"TableName": "orders", "Item": {"shop": "t", "number": 1}}},
        {
            "ConditionCheck": {
                "TableName": "orders",
                "Key": {"shop": "t", "number": 2},
                "ConditionExpression": "attribute_exists(shop)",
            }
        },
    ]
    with pytest.raises(ClientError) as caught:
        client.transact_write_items(TransactItems=items)
    reasons = caught.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed"]
    assert "Item" not in client.get_item(TableName="orders", Key={"shop": "t", "number": 1})
    client.transact_write_items(TransactItems=items[:1], ClientRequestToken="once")
    got = client.transact_get_items(TransactItems=[{"Get": {"TableName": "orders", "Key": {"shop": "t", "number": 1}}}])
    assert got["Responses"] == [{"Item": {"shop": "t", "number": 1}}]


def test_statements_are_executed(resource: Any) -> None:
    client = resource.meta.client
    insert = "INSERT INTO \"orders\" VALUE {'shop': ?, 'number': 1, 'photo': ?}"
    assert client.execute_statement(Statement=insert, Parameters=["partiql", b"\x00"])["Items"] == []
    code, _, _ = refused(client.execute_statement, Statement=insert, Parameters=["partiql", b"\x00"])
    assert code == "DuplicateItemException"
    select = "SELECT \"number\", photo FROM orders WHERE shop = 'partiql'"
    page = client.execute_statement(Statement=select, Limit=1)
    assert [(item["number"], bytes(item["photo"])) for item in page["Items"]] == [(1, b"\x00")]
    assert client.execute_statement(Statement=select, NextToken=page["NextToken"])["Items"] == []
    texts = ("SELECT * FROM orders WHERE shop = 'nobody' AND number = 1", "SELECT")
    answers = client.batch_execute_statement(Statements=[{"Statement": text} for text in texts])["Responses"]
    assert [answer.get("Error", {}).get("Code") for answer in answers] == [None, "ValidationError"]
    update = "UPDATE orders SET seen = 1 WHERE shop = 'partiql' AND number = 1"
    assert client.execute_transaction(TransactStatements=[{"Statement": update}])["Responses"] == []
    code, message, _ = refused(client.execute_statement, Statement="SELECT * FROM orders")
    assert code == "AccessDeniedException" and "dynamodb:PartiQLSelect" in message


def test_policies_see_the_keys(resource: Any) -> None:
    code, message, _ = refused(resource.Table("orders").put_item, Item={"shop": "theirs", "number": 1})
    assert code == "AccessDeniedException" and "dynamodb:PutItem on resource: arn:aws:dynamodb:us-east-1:" in message
    assert message.endswith("with an explicit deny in users/bob.json $.inlinePolicies['tables'].Statement[1]")
    code, _, _ = refused(
        resource.Table("orders").query, IndexName="secret", KeyConditionExpression=Key("state").eq("open")
    )
    assert code == "AccessDeniedException"


def test_calls_that_write_data_are_told_apart_but_for_those_that_were_denied(
    shop: tuple[Project, Node], resource: Any
) -> None:
    project, table = shop[0], resource.Table("orders")
    done = table.put_item(Item={"shop": "told", "number": 1})["ResponseMetadata"]["RequestId"]
    with pytest.raises(ClientError) as caught:
        table.put_item(Item={"shop": "theirs", "number": 1})
    denied = caught.value.response["ResponseMetadata"]["RequestId"]

    def told(*options: str) -> str:
        return owsgit("audit", "-o", "json", *options, by=project.owner, cwd=project.folder).text

    data, others = told("--data"), told()
    assert done in data and done not in others
    assert denied in others and denied not in data


def test_a_table_is_made_by_a_commit(resource: Any) -> None:
    code, message, _ = refused(
        resource.meta.client.create_table,
        TableName="more",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert code == "ValidationException" and "commit this as tables/more.json" in message
    told = json.loads(message.partition("\n")[2])
    assert told["keySchema"] == [{"attributeName": "id", "keyType": "HASH"}] and "tableName" not in told
    code, message, _ = refused(
        resource.meta.client.create_table,
        TableName="_more",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "other", "KeyType": "HASH"}],
    )
    assert code == "ValidationException" and "commit this" not in message
    assert "'_more' is not a table's name" in message and "the attribute 'other' is in a key and not defined" in message
    assert refused(resource.Table("none").scan) == ("ResourceNotFoundException", "Requested resource not found", 400)
    assert resource.meta.client.list_tables()["TableNames"] == ["orders"]


def test_indexes_grow_items_are_never_lost_and_a_restart_changes_nothing(
    shop: tuple[Project, Node], resource: Any
) -> None:
    project, node = shop
    account = account_id(project.git("rev-list", "--max-parents=0", "HEAD"))
    table = resource.Table(f"arn:aws:dynamodb:us-east-1:{account}:table/orders")
    table.put_item(Item={"shop": "grown", "number": 1, "colour": "red"})
    indexes = [
        *ORDERS["globalSecondaryIndexes"],
        {"indexName": "by-colour", "keySchema": [{"attributeName": "colour", "keyType": "HASH"}]},
    ]
    definitions = [*ORDERS["attributeDefinitions"], {"attributeName": "colour", "attributeType": "S"}]
    grown = {**ORDERS, "attributeDefinitions": definitions, "globalSecondaryIndexes": indexes}
    project.write("tables/orders.json", grown)
    project.commit("another index")
    pushed = push(project, node)
    assert pushed.status == 0, pushed.text

    def red() -> Any:
        try:
            return table.query(IndexName="by-colour", KeyConditionExpression=Key("colour").eq("red"))["Items"]
        except ClientError:
            return None

    until(lambda: red() == [{"shop": "grown", "number": 1, "colour": "red"}])
    node.stop()
    node.start()
    until(lambda: red() is not None)
    assert table.get_item(Key={"shop": "grown", "number": 1})["Item"]["colour"] == "red"
    project.git("rm", "-q", "tables/orders.json")
    project.commit("gone")
    gone = push(project, node)
    assert gone.status == 1 and "items, and is not deleted with them" in gone.text
    assert "remedy: delete the items first, then the file" in gone.text
    assert table.get_item(Key={"shop": "grown", "number": 1})["Item"]["colour"] == "red"


def test_a_restored_node_has_its_tables(shop: tuple[Project, Node], resource: Any, tmp_path: Path) -> None:
    """The last one of `shop`, whose node is another one after it."""
    node, table, file = shop[1], resource.Table("orders"), tmp_path / "a.backup"
    stop, answered = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            table.put_item(Item={"shop": "kept", "number": answered[0] + 1, "state": "kept"})
            answered[0] += 1

    writing = threading.Thread(target=write)
    writing.start()
    try:
        until(lambda: answered[0] > 5)
        before = answered[0]
        done = owsgit("backup", str(file), "--home", str(node.home), "--output", "json", by=node.owner)
        assert done.status == 0, done.text
        assert json.loads(done.text)["tables"] == 1
        until(lambda: answered[0] > before + 5)
    finally:
        stop.set()
        writing.join()
    node.stop()
    done = owsgit("restore", str(file), "--home", str(tmp_path / "again"), "--only-node", by=node.owner)
    assert done.status == 0, done.text
    again = Node(tmp_path / "again", node.owner, port=node.port, aws_port=node.aws_port).start()
    try:
        until(lambda: again.status()["applied"] == again.main())
        kept = table.query(IndexName="by-state", KeyConditionExpression=Key("state").eq("kept"))["Items"]
        assert {item["number"] for item in kept} == set(range(1, len(kept) + 1))
        assert before <= len(kept) < answered[0], "of the time of the backup"
        assert len(table.query(KeyConditionExpression=Key("shop").eq("kept"))["Items"]) == len(kept)
        table.put_item(Item={"shop": "kept", "number": 0})
    finally:
        again.stop()


def test_any_node_answers_for_a_table_of_another(
    tmp_path: Path, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: Node(tmp_path / name, alice, name, aws_port=free_port()) for name in "ab"}
    more = {
        "users/bob.json": {"keys": [bob.public], "inlinePolicies": {"tables": BOB}},
        "tables/orders.json": {**ORDERS, "node": "a"},
        "tables/others.json": {**ORDERS, "node": "b", "streamSpecification": {"streamEnabled": True}},
        "event-sources/far.json": {
            "function": "hello",
            "source": {"table": "others"},
            "startingPosition": "LATEST",
        },
    }
    cluster = clusters.found(tmp_path, alice, made, more)
    try:
        cluster.project.git("remote", "add", "origin", made["a"].url())
        cluster.all_at(cluster.project.head())
        found = session(tmp_path, cluster.project, bob, monkeypatch)
        here, there = (found.resource("dynamodb", endpoint_url=endpoint(node), config=ONCE) for node in made.values())
        there.Table("orders").put_item(Item={"shop": "far", "number": 1})
        assert here.Table("orders").scan()["Items"] == [{"shop": "far", "number": 1}]
        assert there.Table("orders").item_count == 1
        streams, functions = (
            found.client(service, endpoint_url=endpoint(made["a"]), config=ONCE)
            for service in ("dynamodbstreams", "lambda")
        )
        [stream] = streams.list_streams()["Streams"]  # which node b has
        assert streams.list_streams(TableName="others")["Streams"] == [stream]
        told = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]
        assert told["TableName"] == "others" and told["StreamViewType"] == "NEW_AND_OLD_IMAGES"
        [fed] = functions.list_event_source_mappings()["EventSourceMappings"]
        assert fed["EventSourceArn"] == stream["StreamArn"] and fed["State"] == "Enabled"
        assert functions.get_event_source_mapping(UUID=fed["UUID"])["FunctionArn"].endswith(":function:hello")
        code, _, _ = refused(there.Table("orders").put_item, Item={"shop": "theirs", "number": 1})
        assert code == "AccessDeniedException"
        items = [{"Put": {"TableName": name, "Item": {"shop": "x", "number": 1}}} for name in ("orders", "others")]
        cluster.project.git("rm", "-q", "tables/orders.json")
        cluster.project.commit("gone")
        gone = cluster.push("b")
        assert gone.status == 1 and "the table has 1 items, and is not deleted with them" in gone.text, gone.text
        _, message, _ = refused(here.meta.client.transact_write_items, TransactItems=items)
        assert message.startswith("the table orders is on this node and the table others on node b")
        made["b"].kill()
        serves = made["b"].begin()
        assert here.Table("others").scan()["Count"] == 0, "whoever needs a node that is restarted waits for it"
        serves()
        made["b"].kill()
        until(lambda: not made["a"].status()["nodes"][1]["reachable"])
        shown = owsgit("status", "--node", made["a"].url(), by=alice, cwd=cluster.project.folder).text
        for what in ("tables/others", "event-sources/far"):
            assert re.search(rf"^{what} .*on node b; not there until node b is reachable", shown, re.MULTILINE), shown
    finally:
        clusters.stop(made)
