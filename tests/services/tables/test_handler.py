"""What becomes of a table on its node: files, indexes, what ends, and that items are never lost."""

import asyncio
import itertools
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owsgit.aws.api import ServiceError
from owsgit.cli.status import _message
from owsgit.model.change import Change
from owsgit.model.engines import Engines
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.services import KINDS
from owsgit.services.tables.handler import TableHandler
from owsgit.services.tables.values import load
from tests.services.tables.api import CALLER, PLAIN, document, keys, value
from tests.services.tables.conftest import ENGINES
from tests.support.postgresql import Server
from tests.support.sites import Services

_schemas = itertools.count()
COMMIT = "0" * 40


@pytest.fixture(params=ENGINES)
def services(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Services]:
    engine: dict[str, Any] = {"type": request.param}
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        engine |= {"url": server.address, "schema": f"handler_{next(_schemas)}"}
    said = Said()
    made = Services(
        tmp_path / "home", {"head": lambda: said.state, "resource_at": said.resource_at, "shared": {"said": said}}
    )
    project = {"name": "shop", "roots": ["alice"], "engines": {"tables": engine}}
    said.now(made.resource("project", "shop", project))
    yield made
    made.close()


class Said:
    """The ledger, as the resources that are applied."""

    def __init__(self) -> None:
        self.state = State.empty(KINDS)

    def now(self, resource: Resource) -> None:
        change = Change(self.state.resources.get(resource.key), resource)
        self.state = self.state.after([change], trusted=True, unfinished=True)

    def resource_at(self, kind: str, name: str, commit: str) -> Resource:
        if commit != COMMIT:
            raise InvalidError(f"{commit} is no commit of main")
        return self.state.resources[KINDS[kind].key(name)]


def apply(services: Services, given: dict[str, Any], name: str = "orders") -> str:
    resource = services.resource("table", name, given)
    services.site.shared["said"].now(resource)
    return services.apply(resource).message


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
    assert apply(services, grown) == "", "what is done later does not stay in the status"
    assert [text.partition(" in the")[0] for _, text in services.told] == ["builds by-g"]
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
    live = handler(services).details("orders")
    assert live == {"indexes": {"by-g": "building, 0 items done"}}
    assert _message({"message": "", "drift": "", "live": live}, set()) == "index by-g: building, 0 items done"
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
    assert list((services.site.home / "data" / "tables").glob("[!j]*")) == []
    assert apply(services, PLAIN) == ""
    with pytest.raises(ServiceError, match="delete its items, then the file"):
        call(services, "delete_table", table_name="orders")
    apply(services, PLAIN | {"deletionProtectionEnabled": True})
    with pytest.raises(ServiceError, match='push "deletionProtectionEnabled": false first'):
        call(services, "delete_table", table_name="orders")


def test_a_write_that_is_under_way_is_no_less_an_item(services: Services) -> None:
    apply(services, PLAIN)
    api = handler(services).apis[0]

    async def both() -> list[Any]:
        writing = api.put_item(CALLER, table_name="orders", item={"id": value(1)})
        return await asyncio.gather(writing, handler(services).delete("orders"), return_exceptions=True)

    written, deleted = services.run(both())
    assert "has 1 items" in str(deleted) if written == {} else isinstance(written, UnavailableError), (written, deleted)


def test_items_end_and_the_stream_says_who_removed_them(services: Services) -> None:
    apply(services, document(timeToLive={"attributeName": "ends"}, streamSpecification={"streamEnabled": True}))
    expiry, catalog = handler(services)._expiry, handler(services)._catalog
    services.run(expiry.stop())  # or it would remove them itself, now and then
    now = int(time.time())
    put(services, pk="p", sk="over", ends=now - 10)
    put(services, pk="p", sk="later", ends=now + 1000)
    put(services, pk="p", sk="mistake", ends=5)
    put(services, pk="p", sk="words", ends="soon")
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
    backups = call(services, "describe_continuous_backups", table_name="orders")["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"] == {"PointInTimeRecoveryStatus": "DISABLED"}
    with pytest.raises(ServiceError, match="Table not found: none") as caught:
        call(services, "describe_continuous_backups", table_name="none")
    assert caught.value.code == "TableNotFoundException"


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


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
def test_the_project_says_how_durable_tables_are_and_may_change_that(services: Services) -> None:
    apply(services, document())
    engine, table = handler(services)._catalog.engine, services.resource("table", "orders", document())
    assert not engine.relaxed
    relaxed = Engines.model_validate({"tables": {"durability": "relaxed"}})
    handler(services)._keeping._site = replace(services.site, engines=lambda: relaxed)
    assert services.run(handler(services).observe(table)) is None
    assert engine.relaxed


@pytest.mark.parametrize("services", ["sqlite"], indirect=True)
def test_no_process_reads_files_once_the_project_has_its_tables_elsewhere(services: Services) -> None:
    def read() -> dict[str, bool]:
        return {name: pickle.loads(told).is_file for name, told in handler(services)._facts.all().items()}

    for name in ("orders", "others"):
        apply(services, document(), name)
    assert read() == {"orders": True, "others": True}
    server = {"type": "postgresql", "url": "postgresql://nobody@127.0.0.1:1/x"}
    project = {"name": "shop", "roots": ["alice"], "engines": {"tables": server}}
    services.site.shared["said"].now(services.resource("project", "shop", project))
    with pytest.raises(UnavailableError):
        apply(services, document())
    assert read() == {"orders": False, "others": False}, "others is yet to be applied; its writes go to the server"


@pytest.mark.parametrize("services", ["postgresql"], indirect=True)
def test_the_project_says_how_durable_tables_of_a_server_are(services: Services) -> None:
    apply(services, document())
    table, said = services.resource("table", "orders", document()), services.site.shared["said"]
    before = said.state.project.engines.tables.model_dump(by_alias=True, exclude_none=True)
    for durability in ("relaxed", "full"):
        project = {"name": "shop", "roots": ["alice"], "engines": {"tables": {**before, "durability": durability}}}
        said.now(services.resource("project", "shop", project))
        assert services.run(handler(services).observe(table)) is None
        assert handler(services)._catalog.engine.relaxed is (durability == "relaxed")
        put(services, pk="p", sk=durability)


@pytest.mark.parametrize("services", ["postgresql"], indirect=True)
def test_a_node_that_is_behind_leaves_a_table_as_it_is(services: Services) -> None:
    """It would drop an index that the others have made, and all that is in it."""
    grown = document(types={"g": "N"}, globalSecondaryIndexes=[{"indexName": "by-g", "keySchema": keys("g")}])
    apply(services, grown)
    put(services, pk="p", sk="s", g=1)
    former = services.resource("table", "orders", document())
    with pytest.raises(UnavailableError, match="the ledger says something newer"):  # as after a start
        services.apply(former)
    services.site.shared["said"].now(former)
    services.run(handler(services)._catalog.engine.create("orders", [], commit=COMMIT))
    services.run(handler(services)._catalog.engine.create("orders", ["by-g"], commit="1" * 40))
    with pytest.raises(UnavailableError, match="as commit 1111111111 says, which this node does not have yet"):
        services.apply(former)
    assert services.run(handler(services)._catalog.engine.shape("orders")).indexes.keys() == {"by-g"}


@pytest.mark.parametrize("services", ["postgresql"], indirect=True)
def test_another_database_than_before_is_refused(services: Services, postgresql: Server) -> None:
    apply(services, document())
    put(services, pk="p", sk="s")
    engine = {"type": "postgresql", "url": postgresql.address, "schema": f"handler_{next(_schemas)}"}
    project = services.resource("project", "shop", {"name": "shop", "roots": ["alice"], "engines": {"tables": engine}})
    services.site.shared["said"].now(project)
    with pytest.raises(UnavailableError, match="is not the one that this node used before"):
        apply(services, document())


@pytest.mark.parametrize("services", ["postgresql"], indirect=True)
def test_another_address_counts_at_once(services: Services, postgresql: Server) -> None:
    apply(services, PLAIN)
    table = services.resource("table", "orders", PLAIN)
    schema = handler(services)._keeping.chosen().schema_name

    def get(**where: str) -> Any:
        engine = {"type": "postgresql", "schema": schema, **where}
        project = {"name": "shop", "roots": ["alice"], "engines": {"tables": engine}}
        services.site.shared["said"].now(services.resource("project", "shop", project))
        assert services.run(handler(services).observe(table)) is None
        return call(services, "get_item", table_name="orders", key={"id": value(1)})

    with pytest.raises(UnavailableError, match="there is no secret database"):
        get(secret="database")
    with pytest.raises(UnavailableError, match="cannot be used"):
        get(url="postgresql://127.0.0.1:1/x")
    assert get(url=postgresql.address) == {}
