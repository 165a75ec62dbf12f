"""Operations that tell what tables there are: DescribeTable, ListTables and their kin.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DescribeTable.html and its neighbours
"""

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from owsgit.aws.api import Caller, ServiceError
from owsgit.services.tables.catalog import Index, Table, TableNotFoundError
from owsgit.services.tables.engine import Facts
from owsgit.services.tables.parameters import Operations
from owsgit.services.tables.spec import KeyElement

TABLES_MAX = 100
"""In one answer of ListTables."""

CAPACITY = {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0}
LIMITS = {
    "AccountMaxReadCapacityUnits": 80000,
    "AccountMaxWriteCapacityUnits": 80000,
    "TableMaxReadCapacityUnits": 40000,
    "TableMaxWriteCapacityUnits": 40000,
}
"""AWS's own, for programs that ask. Nothing is limited by them here."""

Output = dict[str, Any]


class Describing(Operations):
    async def describe_table(self, caller: Caller, *, table_name: str) -> Output:
        table = self._table(table_name)
        facts = await self._catalog.engine.facts(table.name)
        return {"Table": self._described(table, facts)}

    async def list_tables(
        self, caller: Caller, *, exclusive_start_table_name: str | None = None, limit: int = TABLES_MAX
    ) -> Output:
        names = [name for name in sorted(self._catalog.tables) if name > (exclusive_start_table_name or "")]
        shown = names[:limit]
        return {"TableNames": shown, **({"LastEvaluatedTableName": shown[-1]} if len(names) > limit else {})}

    async def describe_time_to_live(self, caller: Caller, *, table_name: str) -> Output:
        ends = self._table(table_name).ends
        if ends is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": ends}}

    async def describe_continuous_backups(self, caller: Caller, *, table_name: str) -> Output:
        """That there are none: Terraform asks for each table, and takes no other answer."""
        try:
            self._catalog.table(table_name)
        except TableNotFoundError:
            name = self._catalog.name_of(table_name)
            raise ServiceError("TableNotFoundException", f"Table not found: {name}") from None
        return {
            "ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "DISABLED",
                "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
            }
        }

    async def describe_endpoints(self, caller: Caller) -> Output:
        """This one: a client that asks would send all else to what it is told."""
        return {"Endpoints": [{"Address": caller.host, "CachePeriodInMinutes": 1440}]}

    async def describe_limits(self, caller: Caller) -> Output:
        return dict(LIMITS)

    async def list_tags_of_resource(
        self, caller: Caller, *, resource_arn: str, next_token: str | None = None
    ) -> Output:
        table = self._table(resource_arn)
        return {"Tags": [{"Key": tag.key, "Value": tag.value} for tag in table.spec.tags]}

    def _table(self, given: str) -> Table:
        """As operations that are not on items say it."""
        try:
            return self._catalog.table(given)
        except TableNotFoundError:
            name = self._catalog.name_of(given)
            raise TableNotFoundError(f"Requested resource not found: Table: {name} not found") from None

    def _described(self, table: Table, facts: Facts) -> Output:
        spec, arn = table.spec, self._catalog.arn(table.name)
        found: Output = {
            "TableName": table.name,
            "TableArn": arn,
            "TableId": str(uuid.UUID(bytes=hashlib.sha256(f"{arn}\n{table.created}".encode()).digest()[:16])),
            "TableStatus": "ACTIVE",
            "CreationDateTime": datetime.fromtimestamp(table.created, UTC),
            "AttributeDefinitions": [
                {"AttributeName": each.attribute_name, "AttributeType": each.attribute_type}
                for each in spec.attribute_definitions
            ],
            "KeySchema": key_schema(spec.key_schema),
            "ItemCount": facts.items,
            "TableSizeBytes": facts.bytes,
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "ProvisionedThroughput": CAPACITY,
            "DeletionProtectionEnabled": spec.deletion_protection_enabled,
        }
        for field, is_global in (("GlobalSecondaryIndexes", True), ("LocalSecondaryIndexes", False)):
            indexes = [
                self._index_of(table, index, facts) for index in table.indexes.values() if index.is_global == is_global
            ]
            if indexes:
                found[field] = indexes
        if table.stream is not None:
            found["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": table.stream.view}
        if table.streams:  # of the last one is told even when it has ended
            label = table.streams[-1].label
            found["LatestStreamLabel"], found["LatestStreamArn"] = label, self._catalog.stream_arn(table.name, label)
        return found

    def _index_of(self, table: Table, index: Index, facts: Facts) -> Output:
        projection: Output = {"ProjectionType": index.spec.projection.projection_type}
        if index.spec.projection.non_key_attributes:
            projection["NonKeyAttributes"] = list(index.spec.projection.non_key_attributes)
        items = facts.entries.get(index.name, 0)
        found: Output = {
            "IndexName": index.name,
            "IndexArn": f"{self._catalog.arn(table.name)}/index/{index.name}",
            "KeySchema": key_schema(index.spec.key_schema),
            "Projection": projection,
            "ItemCount": items,
            "IndexSizeBytes": facts.bytes * items // facts.items if facts.items else 0,
        }
        if index.is_global:
            building = (table.name, index.name) in self._catalog.building
            found["IndexStatus"] = "CREATING" if building else "ACTIVE"
            found["ProvisionedThroughput"] = CAPACITY
            if building:
                found["Backfilling"] = True
        return found


def key_schema(elements: list[KeyElement]) -> list[Output]:
    return [{"AttributeName": each.attribute_name, "KeyType": each.key_type} for each in elements]
