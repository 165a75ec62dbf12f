"""The streams of tables as sources of records, for whatever feeds functions from them."""

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from owsgit.model.errors import UnavailableError
from owsgit.model.service import SourcePage, SourceRecord
from owsgit.services.tables.catalog import Catalog, Table, TableNotFoundError
from owsgit.services.tables.engine import Logged
from owsgit.services.tables.keys import key_of
from owsgit.services.tables.streams import RETENTION_SECONDS, Stream, event, sequence
from owsgit.services.tables.values import load


class TableSource:
    """Records go on from one stream of a table to the next: whoever reads them misses none as the view changes."""

    retention_seconds = RETENTION_SECONDS

    def __init__(self, catalog: Catalog, reader: Callable[[Table], str | None]) -> None:
        """`reader`: the node that reads the records of a table; None for this one."""
        self._catalog = catalog
        self._reader = reader

    def home(self, name: str) -> str | None:
        return self._reader(self._table(name))

    def arn(self, name: str) -> str:
        return self._stream_arn(self._table(name), None)

    def horizon(self, name: str) -> int:
        stream = self._table(name).stream
        return stream.begins - 1 if stream is not None else 0

    async def newest(self, name: str) -> int:
        return await self._catalog.engine.last_logged(self._table(name).name)

    async def read(
        self, name: str, after: int, most: int, bytes_max: int, wanted: Callable[[bytes], bool]
    ) -> SourcePage:
        table, region = self._table(name), self._catalog.scope().region
        found = await self._catalog.engine.logged(name, after, most, bytes_max)
        records = (self._record(table, region, each, wanted) for each in found)
        return SourcePage([each for each in records if each is not None], found[-1].number if found else after)

    def batch(self, name: str, records: Sequence[SourceRecord]) -> Mapping[str, Any]:
        """https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html"""
        table, first, last = self._table(name), records[0], records[-1]
        stream = _of(table, first.number)
        return {
            "DDBStreamBatchInfo": {
                "shardId": stream.shard(self._catalog.arn(name)) if stream is not None else "",
                "startSequenceNumber": sequence(first.number),
                "endSequenceNumber": sequence(last.number),
                "approximateArrivalOfFirstRecord": _written(first.at),
                "approximateArrivalOfLastRecord": _written(last.at),
                "batchSize": len(records),
                "streamArn": self._stream_arn(table, stream),
            }
        }

    def _table(self, name: str) -> Table:
        try:
            return self._catalog.table(name)
        except TableNotFoundError:
            raise UnavailableError(
                f"the table {name} is not served", remedy="owsgit status says why, or wait until it is"
            ) from None

    def _stream_arn(self, table: Table, stream: Stream | None) -> str:
        """Of a stream, or the last one. Other nodes than the table's do not know labels."""
        stream = stream or (table.streams[-1] if table.streams else None)
        return self._catalog.stream_arn(table.name, stream.label if stream is not None else "*")

    def _record(
        self, table: Table, region: str, logged: Logged, wanted: Callable[[bytes], bool]
    ) -> SourceRecord | None:
        record = load(logged.record)
        key = key_of(table.schema, record["Keys"]["M"])
        if not wanted(len(key.hash).to_bytes(4) + key.hash + key.range):
            return None
        arn = self._stream_arn(table, _of(table, logged.number))
        told = {**event(logged, record, arn, region), "eventSourceARN": arn}
        payload = orjson.dumps(told, default=_base64)
        return SourceRecord(logged.number, logged.at, sequence(logged.number), payload)


def _of(table: Table, number: int) -> Stream | None:
    return next((stream for stream in table.streams if stream.has(number)), None)


def _base64(content: object) -> str:
    if isinstance(content, bytes):
        return base64.b64encode(content).decode()
    raise TypeError(type(content).__name__)


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
