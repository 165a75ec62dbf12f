"""What callers of DynamoDB's operations need to be allowed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.tables.api import ARN, WHOLE, Tables, value

KEY = {"pk": value("p"), "sk": value("s")}


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    made = Tables(tmp_path)
    made.add("whole", WHOLE)
    yield made
    made.close()


def needs(tables: Tables, operation: str, **given: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [(need.action, need.arn, dict(need.context or {})) for need in tables.api.needs(operation, given)]


def test_an_item_is_needed_with_its_keys_and_attributes(tables: Tables) -> None:
    [(action, arn, context)] = needs(
        tables,
        "UpdateItem",
        TableName="whole",
        Key=KEY,
        UpdateExpression="SET #a.b = c, d = if_not_exists(e, :v)",
        ConditionExpression="attribute_exists(f)",
        ExpressionAttributeNames={"#a": "a"},
        ExpressionAttributeValues={":v": value(1)},
    )
    assert (action, arn) == ("dynamodb:UpdateItem", f"{ARN}whole")
    assert context["dynamodb:LeadingKeys"] == ("p",) == context["dynamodb:FirstPartitionKeyValues"]
    assert context["dynamodb:Attributes"] == ("a", "c", "d", "e", "f", "pk", "sk")
    assert context["dynamodb:ReturnValues"] == "NONE"


def test_a_query_of_an_index_is_of_the_index(tables: Tables) -> None:
    given = {"TableName": f"{ARN}whole", "IndexName": "global", "Select": "COUNT"}
    expression = {"KeyConditionExpression": "g = :g", "ExpressionAttributeValues": {":g": value("x")}}
    [(action, arn, context)] = needs(tables, "Query", **given, **expression)
    assert (action, arn) == ("dynamodb:Query", f"{ARN}whole/index/global")
    assert context["dynamodb:LeadingKeys"] == ("x",) and context["dynamodb:Select"] == "COUNT"
    old = {"g": {"ComparisonOperator": "EQ", "AttributeValueList": [value("y")]}}
    [(_, _, context)] = needs(tables, "Query", **given, KeyConditions=old)
    assert context["dynamodb:LeadingKeys"] == ("y",)
    [(_, arn, context)] = needs(tables, "Scan", **given)
    assert arn.endswith("/index/global") and context["dynamodb:FullTableScan"] == "true"


def test_batches_and_transactions_need_what_their_parts_do(tables: Tables) -> None:
    keys = [KEY, {**KEY, "pk": value("q")}]
    [(action, _, context)] = needs(tables, "BatchGetItem", RequestItems={"whole": {"Keys": keys}})
    assert action == "dynamodb:BatchGetItem" and context["dynamodb:LeadingKeys"] == ("p", "q")
    requests = [{"PutRequest": {"Item": keys[0]}}, {"DeleteRequest": {"Key": keys[1]}}]
    [(action, _, context)] = needs(tables, "BatchWriteItem", RequestItems={"whole": requests})
    assert action == "dynamodb:BatchWriteItem" and context["dynamodb:LeadingKeys"] == ("p", "q")
    items = [
        {"Put": {"TableName": "whole", "Item": KEY}},
        {"ConditionCheck": {"TableName": "whole", "Key": KEY, "ConditionExpression": "attribute_exists(x)"}},
    ]
    found = needs(tables, "TransactWriteItems", TransactItems=items)
    assert [action for action, _, _ in found] == ["dynamodb:PutItem", "dynamodb:ConditionCheckItem"]
    assert all(context["dynamodb:EnclosingOperation"] == "TransactWriteItems" for _, _, context in found)
    assert "x" in found[1][2]["dynamodb:Attributes"]


@pytest.mark.parametrize(
    ("given", "select"),
    [
        ({"Key": KEY}, "ALL_ATTRIBUTES"),
        ({"Key": KEY, "ProjectionExpression": "a"}, "SPECIFIC_ATTRIBUTES"),
        ({"Key": KEY, "AttributesToGet": ["a"]}, "SPECIFIC_ATTRIBUTES"),
    ],
)
def test_who_may_read_some_attributes_does_not_read_all_by_saying_nothing(
    tables: Tables, given: dict[str, Any], select: str
) -> None:
    [(_, _, context)] = needs(tables, "GetItem", TableName="whole", **given)
    assert context["dynamodb:Select"] == select
    batch = {"Keys": [given["Key"]], **{name: each for name, each in given.items() if name != "Key"}}
    [(_, _, context)] = needs(tables, "BatchGetItem", RequestItems={"whole": batch})
    assert context["dynamodb:Select"] == select
    [(_, _, context)] = needs(tables, "TransactGetItems", TransactItems=[{"Get": {"TableName": "whole", **given}}])
    assert context["dynamodb:Select"] == select
    [(_, _, context)] = needs(tables, "Scan", TableName="whole", IndexName="global")
    assert context["dynamodb:Select"] == "ALL_PROJECTED_ATTRIBUTES"


def test_what_names_no_table_needs_its_action_alone(tables: Tables) -> None:
    assert needs(tables, "ListTables") == [("dynamodb:ListTables", "*", {})]
    assert needs(tables, "ListTagsOfResource", ResourceArn=f"{ARN}whole")[0][1] == f"{ARN}whole"
    assert needs(tables, "DescribeTable", TableName="none")[0][1] == f"{ARN}none"
