"""DynamoDB's API with a real engine and no node: what its tests call."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from owsgit.aws.api import Caller, ServiceError
from owsgit.model.names import Scope
from owsgit.services.tables import FOLDER, KIND
from owsgit.services.tables.beside import BesideDynamoDb
from owsgit.services.tables.catalog import Catalog, table_of
from owsgit.services.tables.dynamodb import DynamoDb
from owsgit.services.tables.engine import Engine
from owsgit.services.tables.facts import OPERATIONS, Facts
from owsgit.services.tables.spec import TableSpec
from owsgit.services.tables.sqlite import SqliteEngine

CALLER = Caller("bob", "arn:aws:iam::111111111111:user/bob", "b", "1" * 12, "us-east-1", "r")
MODEL = ServiceModel(Loader().load_service_model("dynamodb", "service-2"))
ARN = "arn:aws:dynamodb:us-east-1:111111111111:table/"


def keys(hash_: str, range_: str | None = None) -> list[dict[str, str]]:
    found = [{"attributeName": hash_, "keyType": "HASH"}]
    return found if range_ is None else [*found, {"attributeName": range_, "keyType": "RANGE"}]


def document(**fields: Any) -> dict[str, Any]:
    """A table with a key of two strings, `pk` and `sk`."""
    named = {"pk": "S", "sk": "S", **fields.pop("types", {})}
    definitions = [{"attributeName": name, "attributeType": kind} for name, kind in named.items()]
    return {"attributeDefinitions": definitions, "keySchema": keys("pk", "sk"), **fields}


SHOWN_KEYS = {"projectionType": "KEYS_ONLY"}

WHOLE = document(
    types={"g": "S", "n": "N"},
    globalSecondaryIndexes=[
        {"indexName": "global", "keySchema": keys("g", "n")},
        {"indexName": "narrow", "keySchema": keys("g"), "projection": SHOWN_KEYS},
    ],
    localSecondaryIndexes=[{"indexName": "local", "keySchema": keys("pk", "n"), "projection": SHOWN_KEYS}],
)
PLAIN = {"attributeDefinitions": [{"attributeName": "id", "attributeType": "N"}], "keySchema": keys("id")}


class Tables:
    """The API in an event loop of its own. Operations and parameters are called as AWS does."""

    def __init__(self, folder: Path, engine: Callable[[], Engine] | None = None) -> None:
        """With SQLite files in a folder, if there is no other engine."""
        self.loop = asyncio.new_event_loop()
        self.catalog = Catalog(lambda: Scope("us-east-1", "1" * 12), KIND.arn)
        self.catalog.opened = engine() if engine is not None else SqliteEngine(folder, relaxed=True)
        self.api = DynamoDb(self.catalog)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def add(self, name: str, given: dict[str, Any]) -> None:
        spec = TableSpec.model_validate(given)
        assert list(spec.problems_after(None, f"tables/{name}.json", lambda _, __: None)) == []
        table = table_of(name, spec, None, 0.0)
        self.run(self.catalog.engine.create(name, list(table.indexes)))
        for index in table.indexes:
            self.run(self.catalog.engine.refill(name, index, table.entry(index), lambda _: None))
        self.catalog.tables[name] = table

    def call(self, operation: str, **parameters: Any) -> Any:
        """Its output, as it is on the wire but for what is empty."""
        from botocore import xform_name

        api = self.answering(operation, parameters)
        list(api.needs(operation, parameters))
        assert api.home(operation, parameters) is None
        named = {xform_name(name): value for name, value in parameters.items()}
        return self.run(getattr(api, xform_name(operation))(CALLER, **named))

    def answering(self, operation: str, parameters: dict[str, Any]) -> DynamoDb:
        return self.api

    def tell(self, name: str) -> None:
        """That a table was changed."""

    def refused(self, operation: str, **parameters: Any) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            self.call(operation, **parameters)
        return caught.value.code, caught.value.message

    def invalid(self, operation: str, **parameters: Any) -> str:
        code, message = self.refused(operation, **parameters)
        assert code == "ValidationException"
        return message

    def put(self, table: str = "whole", **attributes: Any) -> dict[str, Any]:
        item = {name: value(attribute) for name, attribute in attributes.items()}
        self.call("PutItem", TableName=table, Item=item)
        return item

    def close(self) -> None:
        self.run(self.catalog.engine.close())
        self.loop.close()


class TablesBeside(Tables):
    """The same as a further process of a node has it, with the node's own beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lambda: SqliteEngine(folder / FOLDER, relaxed=True))
        self.facts = Facts(self.catalog, lambda name: True)
        self.beside = BesideDynamoDb(folder, self.catalog.scope, self.facts.answer)

    def add(self, name: str, given: dict[str, Any]) -> None:
        super().add(name, given)
        self.tell(name)

    def tell(self, name: str) -> None:
        self.beside.learn(name, self.facts.of(name))
        self.facts.settle(name, self.facts.serial)

    def answering(self, operation: str, parameters: dict[str, Any]) -> DynamoDb:
        here = f"DynamoDB_20120810.{operation}".encode() in OPERATIONS
        return self.beside if here and self.beside.home(operation, parameters) is None else self.api

    def close(self) -> None:
        self.run(self.beside.close())
        super().close()


def value(given: Any) -> dict[str, Any]:
    """The AttributeValue of a string, a number or bytes; others as they are."""
    if isinstance(given, str):
        return {"S": given}
    if isinstance(given, int):
        return {"N": str(given)}
    return {"B": given} if isinstance(given, bytes) else dict(given)
