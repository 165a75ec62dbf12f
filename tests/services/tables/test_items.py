"""PutItem, GetItem, UpdateItem, DeleteItem: what they do, and what they say in which order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from owsgit.services.tables.writing import ConditionFailedError
from tests.services.tables.api import ARN, PLAIN, WHOLE, Tables, TablesBeside, value

KEY = {"pk": {"S": "a"}, "sk": {"S": "b"}}


@pytest.fixture(params=[Tables, TablesBeside])
def tables(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tables]:
    made = request.param(tmp_path)
    made.add("whole", WHOLE)
    made.add("plain", PLAIN)
    yield made
    made.close()


def test_an_item_is_as_it_was_put(tables: Tables) -> None:
    item = {**KEY, "n": {"N": "1.50"}, "m": {"M": {"l": {"L": [{"NULL": True}, {"B": b"\x00"}]}}}}
    assert tables.call("PutItem", TableName="whole", Item=item) == {}
    shown = {**item, "n": {"N": "1.5"}}
    assert tables.call("GetItem", TableName=f"{ARN}whole", Key=KEY, ConsistentRead=True) == {"Item": shown}
    part = tables.call("GetItem", TableName="whole", Key=KEY, ProjectionExpression="m.l[1], n")
    assert part == {"Item": {"n": {"N": "1.5"}, "m": {"M": {"l": {"L": [{"B": b"\x00"}]}}}}}
    old = tables.call("PutItem", TableName="whole", Item=KEY, ReturnValues="ALL_OLD")
    assert old == {"Attributes": shown}
    assert tables.call("GetItem", TableName="whole", Key={**KEY, "sk": {"S": "c"}}) == {}


def test_an_update_returns_what_was_asked_for(tables: Tables) -> None:
    def update(kind: str, **more: Any) -> Any:
        return tables.call("UpdateItem", TableName="plain", Key={"id": value(1)}, ReturnValues=kind, **more)

    add = {"UpdateExpression": "ADD seen :one", "ExpressionAttributeValues": {":one": value(1)}}
    assert update("ALL_NEW", **add) == {"Attributes": {"id": value(1), "seen": value(1)}}
    assert update("UPDATED_OLD", **add) == {"Attributes": {"seen": value(1)}}
    assert update("UPDATED_NEW", **add) == {"Attributes": {"seen": value(3)}}
    assert update("ALL_OLD", **add) == {"Attributes": {"id": value(1), "seen": value(3)}}
    assert update("NONE", AttributeUpdates={"seen": {"Action": "DELETE"}}) == {}
    assert tables.call("GetItem", TableName="plain", Key={"id": value(1)}) == {"Item": {"id": value(1)}}
    assert tables.call("UpdateItem", TableName="plain", Key={"id": value(2)}) == {}
    assert tables.call("GetItem", TableName="plain", Key={"id": value(2)}) == {"Item": {"id": value(2)}}


def test_what_fails_a_condition_is_told_to_who_asks(tables: Tables) -> None:
    item = tables.put(pk="a", sk="b", colour="red")
    absent = {"ConditionExpression": "attribute_not_exists(pk)"}
    assert tables.refused("PutItem", TableName="whole", Item=KEY, **absent) == (
        "ConditionalCheckFailedException",
        "The conditional request failed",
    )
    with pytest.raises(ConditionFailedError) as caught:
        tables.call("DeleteItem", TableName="whole", Key=KEY, ReturnValuesOnConditionCheckFailure="ALL_OLD", **absent)
    assert caught.value.fields == {"Item": item}
    gone = {"Expected": {"colour": {"Value": value("blue")}}}
    assert tables.refused("DeleteItem", TableName="whole", Key=KEY, **gone)[0] == "ConditionalCheckFailedException"
    tables.call("DeleteItem", TableName="whole", Key=KEY, Expected={"colour": {"Value": value("red")}})
    assert tables.call("GetItem", TableName="whole", Key=KEY) == {}
    assert tables.call("DeleteItem", TableName="whole", Key=KEY, ReturnValues="ALL_OLD") == {}


BOTH = (
    "Can not use both expression and non-expression parameters in the same request: "
    "Non-expression parameters: {Expected} Expression parameters: {ConditionExpression}"
)
INVALID = "One or more parameter values were invalid: "
BIG = {**KEY, "x": {"S": "x" * 409_600}}
DETECTED = "1 validation error detected: "
SCALARS = "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
CONDITION = {"ConditionExpression": "attribute_exists(pk)"}


@pytest.mark.parametrize(
    ("operation", "parameters", "message"),
    [
        ("PutItem", {"Item": BIG, "Expected": {}, "ReturnValues": "UPDATED_NEW", **CONDITION}, f"{DETECTED}{BOTH}"),
        ("PutItem", {"Item": {**BIG, "s": {"SS": []}}, "ReturnValues": "ALL_NEW"}, f"{DETECTED}{INVALID}An string set  may not be empty"),
        ("PutItem", {"Item": BIG, "ReturnValues": "ALL_NEW"}, f"{DETECTED}ReturnValues can only be ALL_OLD or NONE"),
        ("PutItem", {"Item": BIG, "ConditionExpression": ""}, f"{DETECTED}Item size has exceeded the maximum allowed size"),
        ("PutItem", {"Item": {}, "ConditionExpression": ""}, f"{DETECTED}Invalid ConditionExpression: The expression can not be empty;"),
        (
            "PutItem",
            {"Item": {}, "ExpressionAttributeNames": {"#a": "b"}},
            f"{DETECTED}ExpressionAttributeNames can only be specified when using expressions",
        ),
        (
            "PutItem",
            {"Item": {}, "ExpressionAttributeNames": {"#a": "b"}, **CONDITION},
            f"{DETECTED}Value provided in ExpressionAttributeNames unused in expressions: keys: {{#a}}",
        ),
        ("PutItem", {"Item": {"pk": value("a")}}, f"{INVALID}Missing the key sk in the item"),
        ("PutItem", {"Item": {**KEY, "sk": value(1)}}, f"{INVALID}Type mismatch for key sk expected: S actual: N"),
        (
            "PutItem",
            {"Item": {**KEY, "n": value("x")}},
            f"{INVALID}Type mismatch for Index Key n Expected: N Actual: S IndexName: global",
        ),
        ("GetItem", {"Key": {"pk": value("a")}}, "The provided key element does not match the schema"),
        ("GetItem", {"Key": KEY, "AttributesToGet": ["a"], "ProjectionExpression": "a"}, BOTH.replace("Expected", "AttributesToGet").replace("Condition", "Projection")),
        ("DeleteItem", {"Key": KEY, "ReturnValues": "ALL_NEW"}, f"{DETECTED}ReturnValues can only be ALL_OLD or NONE"),
        (
            "UpdateItem",
            {"Key": KEY, "UpdateExpression": "SET pk = :x", "ExpressionAttributeValues": {":x": value("y")}},
            f"{INVALID}Cannot update attribute pk. This attribute is part of the key",
        ),
        (
            "UpdateItem",
            {"Key": KEY, "UpdateExpression": "SET n = :x", "ExpressionAttributeValues": {":x": value("y")}},
            f"{INVALID}Type mismatch for Index Key n Expected: N Actual: S IndexName: global",
        ),
        (
            "UpdateItem",
            {"Key": KEY, "UpdateExpression": "SET x = :x, n = if_not_exists(y, :x)", "ExpressionAttributeValues": {":x": value("y")}},
            "The update expression attempted to update the secondary index key to unsupported type",
        ),
        ("UpdateItem", {"Key": KEY, "UpdateExpression": "REMOVE pk.x, n"}, f"{INVALID}Cannot update attribute pk. This attribute is part of the key"),
        ("UpdateItem", {"Key": KEY, "UpdateExpression": "REMOVE n.x"}, f"{SCALARS}IndexKey: n"),
        ("PutItem", {"Item": KEY, "ConditionExpression": "attribute_exists(sk[1])"}, f"{SCALARS}Key: sk"),
        ("DeleteItem", {"Key": KEY, "ConditionExpression": "attribute_exists(g.x)"}, f"{SCALARS}IndexKey: g"),
        ("GetItem", {"Key": KEY, "ProjectionExpression": "a, pk.b"}, f"{SCALARS}Key: pk"),
        (
            "UpdateItem",
            {"Key": KEY, "UpdateExpression": "SET x = :x", "ExpressionAttributeValues": {":x": BIG["x"]}},
            "Item size to update has exceeded the maximum allowed size",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_order(
    tables: Tables, operation: str, parameters: dict[str, Any], message: str
) -> None:
    assert tables.invalid(operation, TableName="whole", **parameters) == message


def test_what_is_wrong_with_a_request_comes_before_whether_the_table_is_there(tables: Tables) -> None:
    assert "ReturnValues" in tables.invalid("PutItem", TableName="none", Item=KEY, ReturnValues="ALL_NEW")
    assert tables.refused("PutItem", TableName="none", Item={}) == (
        "ResourceNotFoundException",
        "Requested resource not found",
    )
    code, message = tables.refused("GetItem", TableName=ARN.replace("1" * 12, "2" * 12) + "whole", Key=KEY)
    assert code == "AccessDeniedException" and "another project" in message


def test_capacity_is_told_as_aws_counts_it(tables: Tables) -> None:
    item = {**KEY, "g": value("x"), "n": value(1), "x": value("x" * 2000)}
    told = tables.call("PutItem", TableName="whole", Item=item, ReturnConsumedCapacity="INDEXES")["ConsumedCapacity"]
    assert told["Table"] == {"CapacityUnits": 2.0} and told["CapacityUnits"] == 6.0
    assert told["GlobalSecondaryIndexes"] == {"global": {"CapacityUnits": 2.0}, "narrow": {"CapacityUnits": 1.0}}
    assert told["LocalSecondaryIndexes"] == {"local": {"CapacityUnits": 1.0}}
    for consistent, units in ((True, 1.0), (False, 0.5)):
        got = tables.call(
            "GetItem", TableName="whole", Key=KEY, ConsistentRead=consistent, ReturnConsumedCapacity="TOTAL"
        )
        assert got["ConsumedCapacity"] == {"TableName": "whole", "CapacityUnits": units}
    metrics = tables.call("DeleteItem", TableName="whole", Key=KEY, ReturnItemCollectionMetrics="SIZE")
    assert metrics["ItemCollectionMetrics"] == {
        "ItemCollectionKey": {"pk": value("a")},
        "SizeEstimateRangeGB": [0.0, 1.0],
    }
