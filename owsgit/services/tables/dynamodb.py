"""DynamoDB's API behind the front door: the operations are in neighbours of this file, by topic.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/Welcome.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

from owsgit.aws.api import Need
from owsgit.services.tables import permissions
from owsgit.services.tables.batches import Batches
from owsgit.services.tables.controlling import Controlling
from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.items import Items
from owsgit.services.tables.partiql_operations import Statements
from owsgit.services.tables.searching import Searches
from owsgit.services.tables.transactions import Transactions

DATA_EVENTS = frozenset(
    {
        "BatchExecuteStatement",
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "ExecuteStatement",
        "ExecuteTransaction",
        "GetItem",
        "GetRecords",
        "GetShardIterator",
        "PutItem",
        "Query",
        "Scan",
        "TransactGetItems",
        "TransactWriteItems",
        "UpdateItem",
    }
)
"""https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/logging-using-cloudtrail.html"""


class DynamoDb(Items, Statements, Searches, Batches, Transactions, Controlling):
    """The API."""

    service = "dynamodb"
    data_events = DATA_EVENTS

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        return permissions.needs(self._catalog, operation, parameters)

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        """Of requests about several tables, these have to be on one node."""
        named = parameters.get("TableName")
        if named is not None:
            found = self._catalog.find(named)
            return found.home if found is not None else None
        homes: dict[str | None, str] = {}
        for given in permissions.tables(operation, parameters):
            table = self._catalog.find(given)
            if table is not None:
                homes.setdefault(table.home, table.name)
        if len(homes) > 1:
            (one, first), (other, second) = list(homes.items())[:2]
            raise ValidationError(
                f"the table {first} is on {_node(one)} and the table {second} on {_node(other)}: what is asked for "
                "together has to be on one node"
            )
        return next(iter(homes), None)


def _node(home: str | None) -> str:
    return f"node {home}" if home is not None else "this node"
