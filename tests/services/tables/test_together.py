"""Batches and transactions: limits, what is told of each part, and that all or nothing is done."""

from dataclasses import replace
from typing import Any

import pytest

from owsgit.services.tables.transactions import CanceledError
from tests.services.tables.api import ARN, CALLER, Tables, value


@pytest.fixture
def tables(everywhere: Tables) -> Tables:
    return everywhere


def put(number: int, **more: Any) -> dict[str, Any]:
    return {"Put": {"TableName": "plain", "Item": {"id": value(number), **more}}}


def number(wanted: int) -> dict[str, Any]:
    return {"id": value(wanted)}


def canceled(tables: Tables, *items: dict[str, Any], operation: str = "TransactWriteItems") -> list[dict[str, Any]]:
    with pytest.raises(CanceledError) as caught:
        tables.call(operation, TransactItems=list(items))
    reasons: list[dict[str, Any]] = caught.value.fields["CancellationReasons"]
    return reasons


def test_a_batch_writes_and_gets(tables: Tables) -> None:
    tables.put("plain", id=9)
    writes = [{"PutRequest": {"Item": number(1)}}, {"DeleteRequest": {"Key": number(9)}}]
    more = [{"PutRequest": {"Item": {"pk": value("a"), "sk": value("b")}}}]
    done = tables.call(
        "BatchWriteItem",
        RequestItems={"plain": writes, f"{ARN}whole": more},
        ReturnItemCollectionMetrics="SIZE",
        ReturnConsumedCapacity="TOTAL",
    )
    assert done["UnprocessedItems"] == {} and list(done["ItemCollectionMetrics"]) == [f"{ARN}whole"]
    assert [each["CapacityUnits"] for each in done["ConsumedCapacity"]] == [2.0, 1.0]
    wanted = {"plain": {"Keys": [number(1), number(9)]}, f"{ARN}whole": {"Keys": [more[0]["PutRequest"]["Item"]]}}
    got = tables.call("BatchGetItem", RequestItems=wanted)
    assert got["UnprocessedKeys"] == {}
    assert got["Responses"] == {"plain": [number(1)], f"{ARN}whole": [more[0]["PutRequest"]["Item"]]}


def test_a_batch_of_large_items_says_what_is_left(tables: Tables) -> None:
    for each in range(50):
        tables.put("plain", id=each, x="x" * 400_000)
    keys = [number(each) for each in range(50)]
    got = tables.call("BatchGetItem", RequestItems={"plain": {"Keys": keys, "ProjectionExpression": "id"}})
    left = got["UnprocessedKeys"]["plain"]
    assert got["Responses"]["plain"] + left["Keys"] == keys and 0 < len(left["Keys"]) < 10
    assert left["ProjectionExpression"] == "id"


def test_what_a_batch_says(tables: Tables) -> None:
    writes = [{"PutRequest": {"Item": number(each)}} for each in range(26)]
    assert "Too many items" in tables.invalid("BatchWriteItem", RequestItems={"plain": writes})
    twice = [{"PutRequest": {"Item": number(1)}}, {"DeleteRequest": {"Key": {"id": {"N": "1.0"}}}}]
    duplicates = "Provided list of item keys contains duplicates"
    assert tables.invalid("BatchWriteItem", RequestItems={"plain": twice}) == duplicates
    both = {"plain": [writes[0]], f"{ARN}plain": [writes[1]]}
    assert tables.invalid("BatchWriteItem", RequestItems=both) == duplicates
    keys = {"plain": {"Keys": [number(1), number(1)]}}
    assert tables.invalid("BatchGetItem", RequestItems=keys) == duplicates
    many = {"plain": {"Keys": [number(each) for each in range(101)]}}
    assert tables.invalid("BatchGetItem", RequestItems=many) == "Too many items requested for the BatchGetItem call"
    assert "more than one datatypes" in tables.invalid("BatchWriteItem", RequestItems={"plain": [{}]})
    assert tables.refused("BatchGetItem", RequestItems={"none": {"Keys": [number(1)]}})[0] == (
        "ResourceNotFoundException"
    )


def test_a_transaction_does_all_or_nothing(tables: Tables) -> None:
    stays = tables.put("plain", id=1, colour="red")
    check = {
        "ConditionCheck": {
            "TableName": "plain",
            "Key": number(1),
            "ConditionExpression": "attribute_not_exists(id)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }
    update = {
        "Update": {
            "TableName": "whole",
            "Key": {"pk": value("a"), "sk": value("b")},
            "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": {":n": value("no number")},
        }
    }
    reasons = canceled(tables, put(2), check, update)
    assert reasons[0] == {"Code": "None"}
    assert reasons[1] == {
        "Code": "ConditionalCheckFailed",
        "Message": "The conditional request failed",
        "Item": stays,
    }
    assert reasons[2]["Code"] == "ValidationError" and "unsupported type" in reasons[2]["Message"]
    assert tables.call("Scan", TableName="plain")["Items"] == [stays]
    update["Update"]["ExpressionAttributeValues"] = {":n": value(1)}
    gone = {"Delete": {"TableName": "plain", "Key": number(1)}}
    done = tables.call("TransactWriteItems", TransactItems=[put(2), gone, update], ReturnConsumedCapacity="TOTAL")
    assert [each["WriteCapacityUnits"] for each in done["ConsumedCapacity"]] == [4.0, 4.0]
    assert tables.call("Scan", TableName="plain")["Items"] == [number(2)]


def test_a_token_makes_a_request_once(tables: Tables) -> None:
    add = {
        "Update": {
            "TableName": "plain",
            "Key": number(1),
            "UpdateExpression": "ADD seen :one",
            "ExpressionAttributeValues": {":one": value(1)},
        }
    }
    for _ in range(3):
        tables.call("TransactWriteItems", TransactItems=[add], ClientRequestToken="t")
    assert tables.call("GetItem", TableName="plain", Key=number(1))["Item"]["seen"] == value(1)
    code, _ = tables.refused("TransactWriteItems", TransactItems=[add, put(2)], ClientRequestToken="t")
    assert code == "IdempotentParameterMismatchException"
    tables.call("TransactWriteItems", TransactItems=[add], ClientRequestToken="u")
    assert tables.call("GetItem", TableName="plain", Key=number(1))["Item"]["seen"] == value(2)


def test_a_token_is_its_callers(tables: Tables) -> None:
    tables.call("TransactWriteItems", TransactItems=[put(1)], ClientRequestToken="t")
    other = replace(CALLER, arn="arn:aws:iam::111111111111:user/carol")
    tables.run(tables.api.transact_write_items(other, transact_items=[put(2)], client_request_token="t"))
    assert tables.call("Scan", TableName="plain", Select="COUNT")["Count"] == 2


def test_what_was_canceled_may_be_tried_again_under_its_token(tables: Tables) -> None:
    check = {"ConditionCheck": {"TableName": "plain", "Key": number(1), "ConditionExpression": "attribute_exists(id)"}}
    for _ in range(2):
        code, message = tables.refused("TransactWriteItems", TransactItems=[check, put(2)], ClientRequestToken="t")
        assert code == "TransactionCanceledException" and message.endswith("[ConditionalCheckFailed, None]")
    tables.put("plain", id=1)
    tables.call("TransactWriteItems", TransactItems=[check, put(2)], ClientRequestToken="t")
    assert tables.call("Scan", TableName="plain", Select="COUNT")["Count"] == 2


def test_what_a_transaction_says(tables: Tables) -> None:
    twice = tables.invalid("TransactWriteItems", TransactItems=[put(1), put(1)])
    assert twice == "Transaction request cannot include multiple operations on one item"
    assert "only contain one of" in tables.invalid("TransactWriteItems", TransactItems=[{}])
    wrong = {"Put": {"TableName": "plain", "Item": {"id": value("x")}}}
    assert [reason["Code"] for reason in canceled(tables, put(1), wrong)] == ["None", "ValidationError"]
    large = [put(each, x=value("x" * 400_000)) for each in range(11)]
    assert "at most 4 MB" in tables.invalid("TransactWriteItems", TransactItems=large)


def test_items_are_got_at_one_moment(tables: Tables) -> None:
    tables.put("plain", id=1, x="y")
    gets = [
        {"Get": {"TableName": "plain", "Key": number(1), "ProjectionExpression": "x"}},
        {"Get": {"TableName": "plain", "Key": number(2)}},
    ]
    got = tables.call("TransactGetItems", TransactItems=gets, ReturnConsumedCapacity="TOTAL")
    assert got["Responses"] == [{"Item": {"x": value("y")}}, {}]
    assert got["ConsumedCapacity"] == [{"TableName": "plain", "CapacityUnits": 4.0, "ReadCapacityUnits": 4.0}]
    wrong = {"Get": {"TableName": "plain", "Key": {"other": value(1)}}}
    assert [each["Code"] for each in canceled(tables, gets[0], wrong, operation="TransactGetItems")] == [
        "None",
        "ValidationError",
    ]
