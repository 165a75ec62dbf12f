"""Query and Scan: order, pages, indexes, and what they say of what is wrong."""

from typing import Any

import pytest

from owsgit.services.tables import searching
from owsgit.services.tables.errors import ValidationError
from tests.services.tables.api import Tables, keys, value

VALUES = {":p": value("p")}
OWN: dict[str, Any] = {
    "TableName": "whole",
    "KeyConditionExpression": "pk = :p",
    "ExpressionAttributeValues": VALUES,
}
BY_G: dict[str, Any] = {"TableName": "whole", "KeyConditionExpression": "g = :p", "ExpressionAttributeValues": VALUES}


@pytest.fixture
def tables(everywhere: Tables) -> Tables:
    made = everywhere
    for place in range(5):
        made.put(pk="p", sk=f"s{place}", g="p", n=10 - place, more="x")
    made.put(pk="other", sk="s", more="y")
    return made


def sorts(answer: Any) -> list[str]:
    return [item["sk"]["S"] for item in answer["Items"]]


def pages(tables: Tables, operation: str, **parameters: Any) -> list[list[dict[str, Any]]]:
    """All pages of a search."""
    found = []
    start: dict[str, Any] = {}
    while True:
        answer = tables.call(operation, **parameters, **start)
        found.append(answer["Items"])
        if "LastEvaluatedKey" not in answer:
            return found
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def test_items_are_in_order_either_way(tables: Tables) -> None:
    assert sorts(tables.call("Query", **OWN)) == ["s0", "s1", "s2", "s3", "s4"]
    assert sorts(tables.call("Query", **OWN, ScanIndexForward=False)) == ["s4", "s3", "s2", "s1", "s0"]
    for index in ("global", "local"):
        wanted = BY_G if index == "global" else OWN
        assert sorts(tables.call("Query", **wanted, IndexName=index)) == ["s4", "s3", "s2", "s1", "s0"]
    old = {"pk": {"ComparisonOperator": "EQ", "AttributeValueList": [value("p")]}}
    assert len(tables.call("Query", TableName="whole", KeyConditions=old)["Items"]) == 5


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("index", [None, "global", "narrow", "local"])
def test_pages_are_all_of_it(tables: Tables, index: str | None, forward: bool) -> None:
    wanted = {**(OWN if index in (None, "local") else BY_G), **({"IndexName": index} if index else {})}
    whole = tables.call("Query", **wanted, ScanIndexForward=forward)["Items"]
    found = pages(tables, "Query", **wanted, ScanIndexForward=forward, Limit=2)
    assert [len(page) for page in found] == [2, 2, 1] and [item for page in found for item in page] == whole


def test_segments_are_all_of_it(tables: Tables) -> None:
    for number in range(50):
        tables.put("plain", id=number)
    found = [
        item["id"]["N"]
        for segment in range(4)
        for page in pages(tables, "Scan", TableName="plain", Segment=segment, TotalSegments=4, Limit=3)
        for item in page
    ]
    assert sorted(map(int, found)) == list(range(50))
    assert tables.call("Scan", TableName="plain", Select="COUNT") == {"Count": 50, "ScannedCount": 50}


def test_a_page_has_a_megabyte(tables: Tables) -> None:
    for number in range(4):
        tables.put("plain", id=number, x="x" * 390_000)
    first, second = pages(tables, "Scan", TableName="plain")
    assert (len(first), len(second)) == (3, 1)


def test_a_page_of_an_index_that_shows_little_of_much_ends_early(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PAGE_BYTES_READ_MAX", 300)
    found = pages(tables, "Query", **BY_G, IndexName="narrow")
    assert len(found) > 1 and sum(map(len, found)) == 5


def test_a_filter_counts_what_it_looked_at(tables: Tables) -> None:
    values = {**VALUES, ":n": value(8)}
    wanted = {**OWN, "ExpressionAttributeValues": values, "FilterExpression": "n > :n"}
    answer = tables.call("Query", **wanted, Limit=3)
    assert (answer["Count"], answer["ScannedCount"]) == (2, 3)
    assert answer["LastEvaluatedKey"] == {"pk": value("p"), "sk": value("s2")}
    old = {"n": {"ComparisonOperator": "GT", "AttributeValueList": [value(8)]}}
    assert sorts(tables.call("Query", **OWN, QueryFilter=None, FilterExpression=None)) == ["s0", "s1", "s2", "s3", "s4"]
    assert tables.call("Scan", TableName="whole", ScanFilter=old)["Count"] == 2


def test_indexes_show_what_they_project(tables: Tables) -> None:
    [item, *_] = tables.call("Query", **BY_G, IndexName="narrow")["Items"]
    assert item.keys() == {"pk", "sk", "g"}
    [item, *_] = tables.call("Query", **OWN, IndexName="local")["Items"]
    assert item.keys() == {"pk", "sk", "n"}
    [item, *_] = tables.call("Query", **OWN, IndexName="local", Select="ALL_ATTRIBUTES")["Items"]
    assert item.keys() == {"pk", "sk", "n", "g", "more"}
    [item, *_] = tables.call("Query", **OWN, IndexName="local", ProjectionExpression="more")["Items"]
    assert item == {"more": value("x")}
    assert tables.call("Scan", TableName="whole", IndexName="global")["Count"] == 5


START = {"pk": value("p"), "sk": value("s1")}
INVALID = "One or more parameter values were invalid: "


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"TableName": "whole"}, "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."),
        ({**OWN, "IndexName": "none"}, "The table does not have the specified index: none"),
        ({**BY_G, "IndexName": "global", "ConsistentRead": True}, "Consistent reads are not supported on global secondary indexes"),
        ({**BY_G, "IndexName": "narrow", "Select": "ALL_ATTRIBUTES"}, f"{INVALID}Select type ALL_ATTRIBUTES is not supported for global secondary index narrow because its projection type is not ALL"),
        ({**BY_G, "IndexName": "narrow", "ProjectionExpression": "more"}, f"{INVALID}Global secondary index narrow does not project [more]"),
        ({**OWN, "Select": "ALL_PROJECTED_ATTRIBUTES"}, "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"),
        ({**OWN, "Select": "SPECIFIC_ATTRIBUTES"}, "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"),
        ({**OWN, "Select": "COUNT", "ProjectionExpression": "more"}, "Cannot specify the ProjectionExpression when choosing to get only the Count"),
        ({**OWN, "FilterExpression": "sk = :p"}, "Filter Expression can only contain non-primary key attributes: Primary key attribute: sk"),
        ({**OWN, "ExclusiveStartKey": {"pk": value("p")}}, "The provided starting key is invalid"),
        ({**OWN, "ExclusiveStartKey": {**START, "sk": value(1)}}, "The provided starting key is invalid: The provided key element does not match the schema"),
        ({**OWN, "ExclusiveStartKey": {**START, "pk": value("q")}}, "The provided starting key is outside query boundaries based on provided conditions"),
        ({**BY_G, "IndexName": "global", "ExclusiveStartKey": START}, "The provided starting key is invalid"),
        ({**OWN, "ExclusiveStartKey": {"pk": {}}}, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
    ],
)  # fmt: skip
def test_what_a_query_says(tables: Tables, wanted: dict[str, Any], message: str) -> None:
    assert tables.invalid("Query", **wanted) == message


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"Segment": 1}, "The TotalSegments parameter is required but was not present in the request when Segment parameter is present"),
        ({"TotalSegments": 1}, "The Segment parameter is required but was not present in the request when parameter TotalSegments is present"),
        ({"ExclusiveStartKey": {"pk": value("p")}}, "The provided starting key is invalid: The provided key element does not match the schema"),
        ({"ExclusiveStartKey": {"pk": {}}}, "The provided starting key is invalid: Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"),
        ({"Segment": 2, "TotalSegments": 2}, "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: 2 is not less than TotalSegments: 2"),
    ],
)  # fmt: skip
def test_what_a_scan_says(tables: Tables, wanted: dict[str, Any], message: str) -> None:
    assert tables.invalid("Scan", TableName="whole", **wanted) == message


def test_a_scan_goes_on_in_its_own_segment(tables: Tables) -> None:
    start = {"pk": value("p"), "sk": value("1")}
    fits = []
    for segment in range(4):
        wanted = {"TableName": "whole", "Segment": segment, "TotalSegments": 4, "ExclusiveStartKey": start}
        try:
            tables.call("Scan", **wanted)
            fits.append(segment)
        except ValidationError as error:
            assert error.message == (
                "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with "
                f"correct Segment. TotalSegments: 4 Segment: {segment}"
            )
    assert len(fits) == 1


def test_an_index_that_is_being_built_is_not_read(tables: Tables) -> None:
    tables.catalog.building["whole", "global"] = 1
    tables.tell("whole")
    message = tables.invalid("Query", **BY_G, IndexName="global")
    assert message == "Cannot read from backfilling global secondary index: global"
    described = tables.call("DescribeTable", TableName="whole")["Table"]["GlobalSecondaryIndexes"][0]
    assert described["IndexStatus"] == "CREATING" and described["Backfilling"] is True


def test_an_index_may_have_several_keys(tables: Tables) -> None:
    tables.add(
        "several",
        {
            "attributeDefinitions": [
                {"attributeName": name, "attributeType": kind} for name, kind in (("id", "N"), ("a", "S"), ("b", "S"), ("c", "N"))
            ],
            "keySchema": keys("id"),
            "globalSecondaryIndexes": [{"indexName": "all", "keySchema": [*keys("a"), *keys("b", "c")]}],
        },
    )  # fmt: skip
    for number in range(4):
        tables.put("several", id=number, a="a", b=f"b{number % 2}", c=number)
    answer = tables.call(
        "Query",
        TableName="several",
        IndexName="all",
        KeyConditionExpression="a = :a AND b = :b AND c > :c",
        ExpressionAttributeValues={":a": value("a"), ":b": value("b1"), ":c": value(1)},
    )
    assert [item["id"] for item in answer["Items"]] == [value(3)]
