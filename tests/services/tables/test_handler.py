"""What becomes of a table on its node: files, indexes, what ends, and that items are never lost."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.engines import Engines
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.services.tables.handler import TableHandler
from owsgit.services.tables.values import load
from tests.services.tables.api import CALLER, PLAIN, document, keys, value
from tests.support.sites import Services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "home")
    yield made
    made.close()


def apply(services: Services, given: dict[str, Any], name: str = "orders") -> str:
    return services.apply(services.resource("table", name, given)).message


def handler(services: Services) -> Any:
    return services.handlers["table"]


def call(services: Services, operation: str, **parameters: Any) -> Any:
    api = handler(services).apis[0]
    return services.run(getattr(api, operation)(CALLER, **parameters))


def restarted(services: Services) -> None:
    """A new handler on what the former one left."""
    services.run(handler(services).close())

    async def make() -> TableHandler:
        return TableHandler(services.site)

    services.handlers["table"] = services.run(make())


def put(services: Services, **attributes: Any) -> None:
    call(services, "put_item", table_name="orders", item={name: value(each) for name, each in attributes.items()})


def test_a_node_without_tables_has_no_files(services: Services) -> None:
    assert not (services.site.home / "data").exists()
    services.run(handler(services).delete("orders"))
    assert not (services.site.home / "data").exists()


def test_a_new_index_is_built_from_what_is_there(services: Services) -> None:
    apply(services, document())
    for number in range(300):
        put(services, pk="p", sk=f"s{number:03}", g=number % 3)
    grown = document(types={"g": "N"}, globalSecondaryIndexes=[{"indexName": "by-g", "keySchema": keys("g")}])
    assert apply(services, grown) == "builds by-g"
    services.run(handler(services)._builds["orders"])
    assert handler(services).details("orders") == {}
    found = call(
        services,
        "query",
        table_name="orders",
        index_name="by-g",
        select="COUNT",
        key_condition_expression="g = :g",
        expression_attribute_values={":g": value(1)},
    )
    assert found["Count"] == 100
    assert services.run(handler(services).observe(services.resource("table", "orders", grown))) is None


def test_a_build_that_fails_is_drift_and_begun_again(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(services, document())
    put(services, pk="p", sk="s", g=1)
    grown = document(types={"g": "N"}, globalSecondaryIndexes=[{"indexName": "by-g", "keySchema": keys("g")}])
    engine = handler(services)._catalog.engine

    async def fails(*_: Any) -> None:
        raise UnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "refill", fails)
        apply(services, grown)
        services.run(handler(services)._builds["orders"])
    resource = services.resource("table", "orders", grown)
    assert services.run(handler(services).observe(resource)) == "the index by-g is not built"
    assert handler(services).details("orders") == {"indexes": {"by-g": "building, 0 items done"}}
    services.apply(resource)
    services.run(handler(services)._builds["orders"])
    assert services.run(handler(services).observe(resource)) is None
    assert call(services, "scan", table_name="orders", index_name="by-g")["Count"] == 1


def test_a_table_with_items_is_not_deleted(services: Services) -> None:
    grown = document(types={"g": "N"}, globalSecondaryIndexes=[{"indexName": "by-g", "keySchema": keys("g")}])
    apply(services, grown)
    put(services, pk="p", sk="s", g=1)
    for again in (False, True):
        if again:
            restarted(services)
        with pytest.raises(InvalidError, match=r"has 1 items, and is not deleted") as caught:
            services.run(handler(services).delete("orders"))
        assert "put tables/orders.json back" in caught.value.problems[0].remedy
        assert call(services, "list_tables") == {"TableNames": []}
    with pytest.raises(
        InvalidError, match=r"a former table of that name, with the key pk \(HASH, S\), sk \(RANGE, S\)"
    ):
        apply(services, PLAIN)
    assert apply(services, grown) == ""
    assert call(services, "scan", table_name="orders", index_name="by-g")["Count"] == 1
    call(services, "delete_item", table_name="orders", key={"pk": value("p"), "sk": value("s")})
    services.run(handler(services).delete("orders"))
    assert list((services.site.home / "data" / "tables").glob("orders*")) == []
    assert apply(services, PLAIN) == ""


def test_items_end_and_the_stream_says_who_removed_them(services: Services) -> None:
    apply(services, document(timeToLive={"attributeName": "ends"}, streamSpecification={"streamEnabled": True}))
    now = int(time.time())
    put(services, pk="p", sk="over", ends=now - 10)
    put(services, pk="p", sk="later", ends=now + 1000)
    put(services, pk="p", sk="mistake", ends=5)
    put(services, pk="p", sk="words", ends="soon")
    expiry, catalog = handler(services)._expiry, handler(services)._catalog
    assert services.run(expiry.sweep(catalog.table("orders"), "ends")) == 1
    left = call(services, "scan", table_name="orders")["Items"]
    assert {item["sk"]["S"] for item in left} == {"later", "mistake", "words"}
    logged = services.run(catalog.engine.logged("orders", 0, 100))
    records = [load(each.record) for each in logged]
    assert [record["eventName"]["S"] for record in records] == ["INSERT"] * 4 + ["REMOVE"]
    assert records[-1]["userIdentity"]["M"]["principalId"] == {"S": "dynamodb.amazonaws.com"}
    assert records[-1]["OldImage"]["M"]["sk"] == {"S": "over"} and "NewImage" not in records[-1]
    assert call(services, "describe_time_to_live", table_name="orders")["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "ends",
    }


def test_many_writes_at_once_are_all_there(services: Services) -> None:
    apply(services, PLAIN)
    api = handler(services).apis[0]

    async def add() -> None:
        await api.update_item(
            CALLER,
            table_name="orders",
            key={"id": value(1)},
            update_expression="ADD seen :one",
            expression_attribute_values={":one": value(1)},
        )

    async def all_of_them() -> None:
        await asyncio.gather(*(add() for _ in range(100)))

    services.run(all_of_them())
    assert call(services, "get_item", table_name="orders", key={"id": value(1)})["Item"]["seen"] == value(100)


def test_the_project_says_how_durable_tables_are_and_may_change_that(services: Services) -> None:
    apply(services, document())
    engine, table = handler(services)._catalog.engine, services.resource("table", "orders", document())
    assert not engine.relaxed
    relaxed = Engines.model_validate({"tables": {"durability": "relaxed"}})
    handler(services)._site = replace(services.site, engines=lambda: relaxed)
    assert services.run(handler(services).observe(table)) is None
    assert engine.relaxed
