"""DynamoDB Streams' API behind the front door.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB_Streams.html
"""

import base64
import binascii
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from owsgit.aws.api import Caller, Need, ServiceError
from owsgit.services.tables.catalog import Catalog, Table, TableNotFoundError
from owsgit.services.tables.describing import key_schema
from owsgit.services.tables.engine import Logged
from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.parameters import Operations
from owsgit.services.tables.streams import Stream, event, kept, number_of, output, sequence
from owsgit.services.tables.values import load

STREAMS_MAX = 100
"""In one answer of ListStreams, and shards in one of DescribeStream."""

RECORDS_MAX = 1000
RECORDS_BYTES_MAX = 1 << 20
"""Of one answer of GetRecords."""

ITERATOR_SECONDS = 15 * 60

_HORIZON = 0
"""The place of an iterator from the oldest record that is there when it is used."""

_PLACE = struct.Struct(">QQ")
"""Of an iterator: the number of the record that it follows, and when it was given, in milliseconds since 1970."""

Output = dict[str, Any]


@dataclass(frozen=True)
class Iterator:
    """A place in a stream. It is no secret, nor a proof.

    Who asks with one is held against the stream that it names: one that is made up reads nothing that could not be
    asked for anyway.
    """

    arn: str
    after: int
    given: float  # seconds since 1970

    def text(self) -> str:
        place = _PLACE.pack(self.after, int(self.given * 1000))
        return f"{self.arn}|1|{base64.b64encode(place).decode()}"

    @classmethod
    def parse(cls, text: str) -> "Iterator":
        """Raises ValidationError."""
        arn, _, place = text.rpartition("|1|")
        try:
            after, given = _PLACE.unpack(base64.b64decode(place, validate=True))
        except (binascii.Error, struct.error, ValueError):
            raise ValidationError("Invalid ShardIterator") from None
        if after >= 1 << 63:
            raise ValidationError("Invalid ShardIterator")
        return cls(arn, after, given / 1000)


class DynamoDbStreams(Operations):
    """The API. A table's node answers; ListStreams of all tables asks the other nodes."""

    service = "dynamodbstreams"

    def __init__(
        self,
        catalog: Catalog,
        elsewhere: Callable[[], Awaitable[list[tuple[str, str]]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`elsewhere` gives tables and labels of the streams that other nodes have."""
        super().__init__(catalog)
        self._elsewhere, self._now = elsewhere, now

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        if operation == "ListStreams":
            return (Need("dynamodb:ListStreams", self._catalog.stream_arn(parameters.get("TableName", "*"), "*")),)
        table, label = self._named(_arn_of(parameters))
        return (Need(f"dynamodb:{operation}", self._catalog.stream_arn(table, label)),)

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        name = parameters.get("TableName") if operation == "ListStreams" else self._named(_arn_of(parameters))[0]
        table = self._catalog.tables.get(name) if name is not None else None
        return table.home if table is not None else None

    async def list_streams(
        self,
        caller: Caller,
        *,
        table_name: str | None = None,
        limit: int = STREAMS_MAX,
        exclusive_start_stream_arn: str | None = None,
    ) -> Output:
        """Those of one table, or of all, in the order of tables and labels."""
        _check_limit(limit, STREAMS_MAX)
        after = self._named(exclusive_start_stream_arn) if exclusive_start_stream_arn is not None else ("", "")
        if table_name is None:
            tables = list(self._catalog.here())
            elsewhere = await self._elsewhere()
        else:
            table = self._catalog.tables.get(table_name)
            tables, elsewhere = [table] if table is not None else [], []
        here = [(table.name, stream.label) for table in tables for stream in kept(table.streams, self._now())]
        left = sorted(each for each in (*here, *elsewhere) if each > after)
        found: Output = {
            "Streams": [
                {"StreamArn": self._catalog.stream_arn(name, label), "TableName": name, "StreamLabel": label}
                for name, label in left[:limit]
            ]
        }
        if len(left) > limit:
            found["LastEvaluatedStreamArn"] = self._catalog.stream_arn(*left[limit - 1])
        return found

    async def describe_stream(
        self,
        caller: Caller,
        *,
        stream_arn: str,
        limit: int = STREAMS_MAX,
        exclusive_start_shard_id: str | None = None,
        shard_filter: Mapping[str, str] | None = None,
    ) -> Output:
        """A stream has one shard, without children: after it, or as its children, none is told."""
        _check_limit(limit, STREAMS_MAX)
        table, stream = self._stream(stream_arn)
        shard = stream.shard(self._catalog.arn(table.name))
        if shard_filter is not None and shard_filter.get("Type") != "CHILD_SHARDS":
            raise ValidationError("Invalid ShardFilter: the Type has to be CHILD_SHARDS")
        for given in (exclusive_start_shard_id, (shard_filter or {}).get("ShardId")):
            if given is not None and given != shard:
                raise _no_shard()
        range_ = {"StartingSequenceNumber": sequence(stream.begins)}
        if stream.ends is not None:
            range_["EndingSequenceNumber"] = sequence(max(stream.ends, stream.begins))
        shown = [] if exclusive_start_shard_id or shard_filter else [{"ShardId": shard, "SequenceNumberRange": range_}]
        return {
            "StreamDescription": {
                "StreamArn": stream_arn,
                "StreamLabel": stream.label,
                "StreamStatus": "ENABLED" if stream.is_open else "DISABLED",
                "StreamViewType": stream.view,
                "CreationRequestDateTime": stream.created,
                "TableName": table.name,
                "KeySchema": key_schema(table.spec.key_schema),
                "Shards": shown,
            }
        }

    async def get_shard_iterator(
        self,
        caller: Caller,
        *,
        stream_arn: str,
        shard_id: str,
        shard_iterator_type: str,
        sequence_number: str | None = None,
        timestamp: datetime | None = None,
    ) -> Output:
        table, stream = self._stream(stream_arn)
        if shard_id != stream.shard(self._catalog.arn(table.name)):
            raise _no_shard()
        named = shard_iterator_type.endswith("_SEQUENCE_NUMBER")
        if named != (sequence_number is not None):
            raise ValidationError(
                f"SequenceNumber is {'required' if named else 'not allowed'} for ShardIteratorType "
                f"{shard_iterator_type}"
            )
        if (shard_iterator_type == "AT_TIMESTAMP") != (timestamp is not None):
            raise ValidationError("Timestamp goes with the ShardIteratorType AT_TIMESTAMP, and it with Timestamp")
        if sequence_number is not None:
            after = await self._after(table, stream, sequence_number)
            after -= shard_iterator_type == "AT_SEQUENCE_NUMBER"
        elif timestamp is not None:
            after = await self._before(table, stream, timestamp.timestamp())
        elif shard_iterator_type == "LATEST":
            after = await self._last(table, stream)
        else:
            after = _HORIZON
        return {"ShardIterator": Iterator(stream_arn, after, self._now()).text()}

    async def get_records(self, caller: Caller, *, shard_iterator: str, limit: int = RECORDS_MAX) -> Output:
        _check_limit(limit, RECORDS_MAX)
        iterator = Iterator.parse(shard_iterator)
        table, stream = self._stream(iterator.arn)
        now = self._now()
        if now - iterator.given > ITERATOR_SECONDS:
            raise ServiceError("ExpiredIteratorException", "The provided iterator exceeds the maximum age allowed.")
        if iterator.after:
            await self._check_kept(table, iterator.after)
        after = max(iterator.after, stream.begins - 1)
        found = await self._catalog.engine.logged(table.name, after, limit, RECORDS_BYTES_MAX)
        records = [each for each in found if stream.has(each.number)]
        output_: Output = {"Records": [self._shown(each, iterator.arn, caller.region) for each in records]}
        after = records[-1].number if records else iterator.after
        if stream.ends is None or (max(after, stream.begins - 1) < stream.ends and len(records) == len(found) > 0):
            output_["NextShardIterator"] = Iterator(iterator.arn, after, now).text()
        return output_

    @staticmethod
    def _shown(logged: Logged, arn: str, region: str) -> Output:
        return output(event(logged, load(logged.record), arn, region))

    async def _after(self, table: Table, stream: Stream, given: str) -> int:
        """The number of a record that is named. Raises ServiceError."""
        number = number_of(given)
        last = await self._last(table, stream)
        if number is None or not stream.begins <= number <= max(last, stream.begins):
            raise ValidationError(f"Invalid SequenceNumber: {given} is not in the shard")
        await self._check_kept(table, number - 1)
        return number

    async def _before(self, table: Table, stream: Stream, at: float) -> int:
        """The number before that of the first record since a time: it is searched for in halves, as times rise too."""
        low, high = stream.begins - 1, await self._last(table, stream)
        while low < high:
            middle = (low + high) // 2
            found = await self._catalog.engine.logged(table.name, middle, 1)
            if not found or found[0].at >= at:
                high = middle
            else:
                low = found[0].number
        return low

    async def _last(self, table: Table, stream: Stream) -> int:
        return stream.ends if stream.ends is not None else await self._catalog.engine.last_logged(table.name)

    async def _check_kept(self, table: Table, after: int) -> None:
        """Whether what follows a record is all there. Raises ServiceError if it was trimmed."""
        oldest = await self._catalog.engine.logged(table.name, 0, 1)
        first = oldest[0].number if oldest else await self._catalog.engine.last_logged(table.name) + 1
        if after + 1 < first:
            raise ServiceError("TrimmedDataAccessException", "The data you are trying to access has been trimmed.")

    def _stream(self, arn: str) -> tuple[Table, Stream]:
        name, label = self._named(arn)
        table = self._catalog.tables.get(name)
        if table is not None:
            for stream in kept(table.streams, self._now()):
                if stream.label == label:
                    return table, stream
        raise TableNotFoundError(f"Requested resource not found: Stream: {arn} not found")

    def _named(self, arn: str) -> tuple[str, str]:
        """Table and label. Raises ValidationError."""
        before = self._catalog.arn("")
        name, between, label = arn.removeprefix(before).partition("/stream/")
        if not arn.startswith(before) or not name or not between or not label or "/" in name + label:
            raise ValidationError(f"Invalid StreamArn: {arn} is none of a stream here; they begin with {before}")
        return name, label


def _arn_of(given: Mapping[str, Any]) -> str:
    return str(given["StreamArn"] if "StreamArn" in given else Iterator.parse(given["ShardIterator"]).arn)


def _no_shard() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "Requested resource not found: Shard does not exist")


def _check_limit(limit: int, most: int) -> None:
    if limit > most:
        raise ValidationError(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: Member must have "
            f"value less than or equal to {most}"
        )
