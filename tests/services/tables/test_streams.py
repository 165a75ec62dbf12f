"""DynamoDB Streams' API: shards, iterators, pages, and what is refused."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from owsgit.aws.api import ServiceError
from owsgit.model.errors import UnavailableError
from owsgit.services.tables import stream_api
from owsgit.services.tables.streams import CLOSED_MAX, RETENTION_SECONDS, Stream, following, number_of, sequence
from tests.services.tables.api import CALLER, document, value
from tests.support.sites import Services

TABLE = "arn:aws:dynamodb:us-east-1:111111111111:table/orders"


class Streamed:
    """A table `orders`, and the API of its streams on a clock of its own."""

    def __init__(self, home: Path) -> None:
        self.services = Services(home)
        self.handler: Any = self.services.handlers["table"]
        self.items, self.streams = self.handler.apis
        self.late = 0.0
        self.streams._now = lambda: time.time() + self.late
        self.show("NEW_AND_OLD_IMAGES")

    def show(self, view: str | None) -> None:
        """Apply the table with a stream of that view, or without one."""
        fields = {} if view is None else {"streamSpecification": {"streamEnabled": True, "streamViewType": view}}
        self.services.apply(self.services.resource("table", "orders", document(**fields)))

    def call(self, operation: str, api: Any = None, **parameters: Any) -> Any:
        api = api or self.streams
        list(api.needs(operation, parameters))
        named = {xform_name(name): given for name, given in parameters.items()}
        return self.services.run(getattr(api, xform_name(operation))(CALLER, **named))

    def refused(self, operation: str, **parameters: Any) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            self.call(operation, **parameters)
        return caught.value.code, caught.value.message

    def put(self, sk: str, **more: Any) -> None:
        item = {name: value(each) for name, each in {"pk": "p", "sk": sk, **more}.items()}
        self.call("PutItem", self.items, TableName="orders", Item=item)

    def delete(self, sk: str) -> None:
        self.call("DeleteItem", self.items, TableName="orders", Key={"pk": value("p"), "sk": value(sk)})

    @property
    def arn(self) -> str:
        arn: str = self.call("DescribeTable", self.items, TableName="orders")["Table"]["LatestStreamArn"]
        return arn

    def described(self, arn: str = "", **more: Any) -> Any:
        return self.call("DescribeStream", StreamArn=arn or self.arn, **more)["StreamDescription"]

    def iterator(self, kind: str = "TRIM_HORIZON", arn: str = "", **more: Any) -> str:
        shard = self.described(arn)["Shards"][0]["ShardId"]
        found = self.call("GetShardIterator", StreamArn=arn or self.arn, ShardId=shard, ShardIteratorType=kind, **more)
        return str(found["ShardIterator"])

    def read(self, iterator: str = "", **more: Any) -> Any:
        return self.call("GetRecords", ShardIterator=iterator or self.iterator(), **more)

    def sorts(self, iterator: str, **more: Any) -> list[str]:
        return [record["dynamodb"]["Keys"]["sk"]["S"] for record in self.read(iterator, **more)["Records"]]


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Streamed]:
    made = Streamed(tmp_path / "home")
    yield made
    made.services.close()


def test_a_record_has_what_dynamodb_streams_says_of_a_change(orders: Streamed) -> None:
    orders.put("a", photo=b"\x00\xff")
    orders.put("a", photo=b"\x00\xff")  # changes nothing, and has no record
    orders.put("a", n=101)
    orders.delete("a")
    orders.delete("a")  # nor has this
    records = orders.read()["Records"]
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    first, second, third = (record["dynamodb"] for record in records)
    key = {"pk": {"S": "p"}, "sk": {"S": "a"}}
    assert first["NewImage"] == {**key, "photo": {"B": b"\x00\xff"}} and "OldImage" not in first
    assert second["OldImage"] == first["NewImage"] and second["NewImage"] == {**key, "n": {"N": "101"}}
    assert third["Keys"] == key and third["OldImage"] == second["NewImage"] and "NewImage" not in third
    assert [each["SizeBytes"] for each in (first, second, third)] == [6 + 13, 6 + 13 + 10, 6 + 10]
    assert first["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert abs((datetime.now(UTC) - first["ApproximateCreationDateTime"]).total_seconds()) < 60
    record = records[0]
    assert (record["eventVersion"], record["eventSource"], record["awsRegion"]) == ("1.1", "aws:dynamodb", "us-east-1")
    assert len({each["eventID"] for each in records}) == 3 and len(record["eventID"]) == 32
    assert [each["dynamodb"]["SequenceNumber"] for each in records] == [sequence(n) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("view", "shown", "size"),
    [("KEYS_ONLY", set(), 6), ("NEW_IMAGE", {"NewImage"}, 6 + 9), ("OLD_IMAGE", {"OldImage"}, 6 + 6)],
)
def test_a_view_shows_no_more(orders: Streamed, view: str, shown: set[str], size: int) -> None:
    orders.put("a", n=1)
    orders.show(view)
    orders.put("a")
    orders.put("a", n=2)
    orders.delete("a")
    record = orders.read()["Records"][1]["dynamodb"]
    assert record["StreamViewType"] == view and {"NewImage", "OldImage"} & set(record) == shown
    assert record["SizeBytes"] == size


def test_who_ended_an_item_is_told_to_readers_and_to_functions(orders: Streamed) -> None:
    fields = {"streamSpecification": {"streamEnabled": True}, "timeToLive": {"attributeName": "ends"}}
    orders.services.apply(orders.services.resource("table", "orders", document(**fields)))
    orders.put("over", ends=int(time.time()) - 10, photo=b"\xff")
    handler = orders.handler
    orders.services.run(handler._expiry.sweep(handler._catalog.table("orders"), "ends"))
    put, removed = orders.read()["Records"]
    assert "userIdentity" not in put
    assert removed["userIdentity"] == {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    source = orders.services.site.sources["table"]
    keys: list[bytes] = []
    page = orders.services.run(source.read("orders", 0, 10, 1 << 20, lambda key: not keys.append(key)))
    records = page.records
    event = json.loads(records[1].payload)
    assert event["userIdentity"] == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    assert event["eventSourceARN"] == orders.arn and event["eventID"] == removed["eventID"]
    assert event["dynamodb"]["OldImage"]["photo"] == {"B": "/w=="}
    assert event["dynamodb"]["ApproximateCreationDateTime"] == int(records[1].at)
    assert len(keys) == 2 and keys[0] == keys[1] and page.last == 2
    page = orders.services.run(source.read("orders", 0, 1, 1 << 20, lambda key: False))
    assert (list(page.records), page.last) == ([], 1)
    page = orders.services.run(source.read("orders", 2, 1, 1 << 20, lambda key: True))
    assert (list(page.records), page.last) == ([], 2)
    assert orders.services.run(source.newest("orders")) == 2


def test_a_source_goes_on_from_one_stream_to_the_next(orders: Streamed) -> None:
    first = orders.arn
    orders.put("a")
    orders.show("KEYS_ONLY")
    orders.put("b")
    source = orders.services.site.sources["table"]
    assert source.horizon("orders") == 1
    records = orders.services.run(source.read("orders", 0, 10, 1 << 20, lambda _: True)).records
    assert [json.loads(record.payload)["eventSourceARN"] for record in records] == [first, orders.arn]
    info = source.batch("orders", records[:1])["DDBStreamBatchInfo"]
    assert info["streamArn"] == first and info["shardId"] == orders.described(first)["Shards"][0]["ShardId"]
    with pytest.raises(UnavailableError, match="the table other is not served"):
        source.home("other")


def test_an_iterator_begins_where_it_says(orders: Streamed) -> None:
    latest = orders.iterator("LATEST")
    for name in "abcde":
        orders.put(name)
    third = orders.read()["Records"][2]["dynamodb"]["SequenceNumber"]
    assert orders.sorts(orders.iterator()) == list("abcde") == orders.sorts(latest)
    assert orders.sorts(orders.iterator("LATEST")) == []
    assert orders.sorts(orders.iterator("AT_SEQUENCE_NUMBER", SequenceNumber=third)) == list("cde")
    assert orders.sorts(orders.iterator("AFTER_SEQUENCE_NUMBER", SequenceNumber=third)) == list("de")
    began = datetime.fromtimestamp(time.time() - 60, UTC)
    assert orders.sorts(orders.iterator("AT_TIMESTAMP", Timestamp=began)) == list("abcde")
    assert orders.sorts(orders.iterator("AT_TIMESTAMP", Timestamp=datetime.now(UTC))) == []
    [at] = [each.at for each in orders.services.run(orders.handler._catalog.engine.logged("orders", 3, 1))]
    since = datetime.fromtimestamp(at - 0.00001, UTC)
    assert orders.sorts(orders.iterator("AT_TIMESTAMP", Timestamp=since))[-2:] == ["d", "e"]


def test_pages_follow_each_other(orders: Streamed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcde":
        orders.put(name)
    page = orders.read(Limit=2)
    assert len(page["Records"]) == 2
    monkeypatch.setattr(stream_api, "RECORDS_BYTES_MAX", 1)
    following_page = orders.read(page["NextShardIterator"])
    assert len(following_page["Records"]) == 1
    monkeypatch.undo()
    last = orders.read(following_page["NextShardIterator"])
    assert [each["dynamodb"]["Keys"]["sk"]["S"] for each in last["Records"]] == ["d", "e"]
    assert orders.read(last["NextShardIterator"])["Records"] == []
    orders.put("f")
    assert orders.sorts(last["NextShardIterator"]) == ["f"]


def test_a_stream_that_ends_is_read_to_its_end(orders: Streamed) -> None:
    orders.put("a")
    orders.put("b")
    first = orders.arn
    orders.show(None)
    orders.put("unseen")
    table = orders.call("DescribeTable", orders.items, TableName="orders")["Table"]
    assert "StreamSpecification" not in table and table["LatestStreamArn"] == first
    orders.show("KEYS_ONLY")
    orders.put("c")
    second = orders.arn
    assert second > first and orders.arn == f"{TABLE}/stream/{second.rpartition('/')[2]}"
    told = orders.described(first)
    assert told["StreamStatus"] == "DISABLED" and told["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert told["Shards"][0]["SequenceNumberRange"] == {
        "StartingSequenceNumber": sequence(1),
        "EndingSequenceNumber": sequence(2),
    }
    page = orders.read(orders.iterator(arn=first), Limit=1)
    page = orders.read(page["NextShardIterator"])
    assert [each["dynamodb"]["Keys"]["sk"]["S"] for each in page["Records"]] == ["b"]
    assert "NextShardIterator" not in page
    assert orders.sorts(orders.iterator()) == ["c"] and orders.described()["StreamStatus"] == "ENABLED"
    listed = orders.call("ListStreams", TableName="orders")
    assert [each["StreamArn"] for each in listed["Streams"]] == [first, second]
    page = orders.call("ListStreams", Limit=1)
    assert page["LastEvaluatedStreamArn"] == first
    page = orders.call("ListStreams", Limit=1, ExclusiveStartStreamArn=first)
    assert page == {"Streams": [{"StreamArn": second, "TableName": "orders", "StreamLabel": second.rpartition("/")[2]}]}
    assert orders.call("ListStreams", TableName="other") == {"Streams": []}
    orders.late = RETENTION_SECONDS + 60
    assert [each["StreamArn"] for each in orders.call("ListStreams")["Streams"]] == [second]
    assert orders.refused("DescribeStream", StreamArn=first)[0] == "ResourceNotFoundException"


def test_a_stream_is_the_same_after_a_restart(orders: Streamed) -> None:
    orders.show("KEYS_ONLY")
    orders.put("a")
    before, iterator, listed = orders.described(), orders.iterator(), orders.call("ListStreams")
    assert len(listed["Streams"]) == 2

    async def again() -> Any:
        await orders.handler.close()
        return type(orders.handler)(orders.services.site)

    orders.handler = orders.services.handlers["table"] = orders.services.run(again())
    orders.items, orders.streams = orders.handler.apis
    orders.show("KEYS_ONLY")
    assert orders.call("ListStreams") == listed
    assert orders.described() == before and orders.sorts(iterator) == ["a"]


def test_what_a_stream_is_told(shared: Streamed) -> None:
    orders = shared
    told = orders.described()
    [shard] = told["Shards"]
    assert 28 <= len(shard["ShardId"]) <= 65
    assert told["KeySchema"] == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]
    assert shard["SequenceNumberRange"] == {"StartingSequenceNumber": sequence(1)}
    assert abs((datetime.now(UTC) - told["CreationRequestDateTime"]).total_seconds()) < 60
    assert orders.described(ExclusiveStartShardId=shard["ShardId"])["Shards"] == []
    children = {"Type": "CHILD_SHARDS", "ShardId": shard["ShardId"]}
    assert orders.described(ShardFilter=children)["Shards"] == []


def test_what_is_gone_is_told(orders: Streamed) -> None:
    for name in "abc":
        orders.put(name)
    old = orders.read(Limit=1)
    first = old["Records"][0]["dynamodb"]["SequenceNumber"]
    horizon = orders.iterator()
    engine = orders.handler._catalog.engine
    orders.services.run(engine.trim("orders", time.time() + 60))
    orders.put("d")
    assert orders.sorts(horizon) == ["d"]
    trimmed = ("TrimmedDataAccessException", "The data you are trying to access has been trimmed.")
    assert orders.refused("GetRecords", ShardIterator=old["NextShardIterator"]) == trimmed
    shard = orders.described()["Shards"][0]["ShardId"]
    asked = {"StreamArn": orders.arn, "ShardId": shard, "ShardIteratorType": "AT_SEQUENCE_NUMBER"}
    assert orders.refused("GetShardIterator", SequenceNumber=first, **asked) == trimmed
    orders.late = 15 * 60 + 1
    expired = orders.refused("GetRecords", ShardIterator=horizon)
    assert expired[0] == "ExpiredIteratorException"
    orders.late = 15 * 60 - 60
    assert orders.sorts(horizon) == ["d"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streamed]:
    """With one record; for tests that change nothing."""
    made = Streamed(tmp_path_factory.mktemp("shared") / "home")
    made.put("a")
    yield made
    made.services.close()


NONE = f"{TABLE}/stream/2015-05-20T20:51:10.252"


@pytest.mark.parametrize(
    ("operation", "parameters", "code", "message"),
    [
        ("DescribeStream", {"StreamArn": NONE}, "ResourceNotFoundException", f"Stream: {NONE} not found"),
        ("DescribeStream", {"StreamArn": TABLE + "/index/x"}, "ValidationException", "Invalid StreamArn"),
        ("DescribeStream", {"StreamArn": NONE.replace("1" * 12, "2" * 12)}, "ValidationException", "Invalid StreamArn"),
        ("DescribeStream", {"Limit": 101}, "ValidationException", "less than or equal to 100"),
        ("DescribeStream", {"ExclusiveStartShardId": "shardId-" + "0" * 30}, "ResourceNotFoundException", "Shard does"),
        ("DescribeStream", {"ShardFilter": {"Type": "ALL"}}, "ValidationException", "CHILD_SHARDS"),
        ("ListStreams", {"Limit": 101}, "ValidationException", "Value '101' at 'limit'"),
        ("GetRecords", {"Limit": 1001}, "ValidationException", "less than or equal to 1000"),
        ("GetRecords", {"ShardIterator": "x"}, "ValidationException", "Invalid ShardIterator"),
        ("GetRecords", {"ShardIterator": f"{NONE}|1|AAAA"}, "ValidationException", "Invalid ShardIterator"),
        ("GetRecords", {"ShardIterator": f"{NONE}|1|{'/' * 20}8="}, "ValidationException", "Invalid ShardIterator"),
        ("GetRecords", {"ShardIterator": f"{NONE}|1|{'A' * 22}=="}, "ResourceNotFoundException", "not found: Stream"),
        ("GetShardIterator", {"ShardIteratorType": "AT_SEQUENCE_NUMBER"}, "ValidationException", "is required"),
        ("GetShardIterator", {"SequenceNumber": sequence(1)}, "ValidationException", "is not allowed"),
        ("GetShardIterator", {"ShardId": "shardId-" + "0" * 30}, "ResourceNotFoundException", "Shard does not exist"),
        ("GetShardIterator", {"ShardIteratorType": "AT_TIMESTAMP"}, "ValidationException", "Timestamp goes with"),
        *(
            (
                "GetShardIterator",
                {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": given},
                "ValidationException",
                "Invalid SequenceNumber",
            )
            for given in (sequence(9), "0" * 21, "x" * 21, "9" * 40)
        ),
    ],
)
def test_what_is_wrong_is_told(
    shared: Streamed, operation: str, parameters: dict[str, Any], code: str, message: str
) -> None:
    orders = shared
    given: dict[str, Any] = dict(parameters)
    if operation in ("DescribeStream", "GetShardIterator"):
        given.setdefault("StreamArn", orders.arn)
    if operation == "GetShardIterator":
        given.setdefault("ShardId", orders.described()["Shards"][0]["ShardId"])
        given.setdefault("ShardIteratorType", "TRIM_HORIZON")
    if operation == "GetRecords":
        given.setdefault("ShardIterator", orders.iterator())
    found = orders.refused(operation, **given)
    assert found[0] == code and message in found[1]


def test_streams_need_rights_of_their_own(shared: Streamed) -> None:
    orders = shared

    def needed(operation: str, **given: str) -> tuple[str, str]:
        [need] = orders.streams.needs(operation, given)
        return need.action, need.arn

    iterator = orders.iterator()
    assert needed("GetRecords", ShardIterator=iterator) == ("dynamodb:GetRecords", orders.arn)
    assert needed("DescribeStream", StreamArn=NONE) == ("dynamodb:DescribeStream", NONE)
    assert needed("GetShardIterator", StreamArn=NONE) == ("dynamodb:GetShardIterator", NONE)
    assert needed("ListStreams", TableName="orders") == ("dynamodb:ListStreams", f"{TABLE}/stream/*")
    assert needed("ListStreams") == ("dynamodb:ListStreams", TABLE.replace("orders", "*/stream/*"))


def test_a_file_of_streams_that_cannot_be_read_is_told(orders: Streamed) -> None:
    path = orders.services.site.home / "data/tables/orders.key.json"
    known = json.loads(path.read_text())
    for broken in ({"streams": [{"label": "x"}]}, {"streams": 7}):
        path.write_text(json.dumps({**known, **broken}))
        with pytest.raises(UnavailableError, match="cannot be read"):
            orders.show("KEYS_ONLY")


def test_streams_follow_each_other() -> None:
    now = 1.7e9
    [first] = following((), "KEYS_ONLY", 7, now)
    assert first == Stream("2023-11-14T22:13:20.000", "KEYS_ONLY", 8)
    assert following((first,), "KEYS_ONLY", 9, now + 1) == (first,)
    ended, second = following((first,), "NEW_IMAGE", 9, now)  # in the same moment: another label all the same
    assert (ended.ends, ended.is_open) == (9, False) and second == Stream("2023-11-14T22:13:20.001", "NEW_IMAGE", 10)
    assert following((ended,), None, 9, now + 1) == (ended,)
    assert following((ended, second), "NEW_IMAGE", 9, now + RETENTION_SECONDS) == (second,)
    streams: tuple[Stream, ...] = ()
    for turn in range(3 * CLOSED_MAX):
        streams = following(streams, ("KEYS_ONLY", None)[turn % 2], 0, now + turn)
    assert len(streams) <= CLOSED_MAX + 1


def test_sequence_numbers_are_read_strictly() -> None:
    assert number_of(sequence(12345)) == 12345
    assert [number_of(text) for text in ("x", "", "²" * 21, "1" + "0" * 20, "9" * 40)] == [None] * 5
