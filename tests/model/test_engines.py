"""What keeps the data of resources: what project.json may say, and when it may change."""

from typing import Any

import pytest

from owsgit.model.change import Change
from owsgit.model.core import ProjectSpec
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.services import KINDS
from tests.model.test_state import created, problems, resource
from tests.support import people
from tests.support.people import Person

URL = "postgresql://owsgit@db.example.com/shop?sslmode=verify-full"
TABLE: dict[str, Any] = {
    "attributeDefinitions": [{"attributeName": "id", "attributeType": "S"}],
    "keySchema": [{"attributeName": "id", "keyType": "HASH"}],
}


def project(**engine: str) -> Resource:
    document = {"name": "shop", "roots": ["alice"]}
    return resource("project", "", document | ({"engines": {"tables": engine}} if engine else {}))


@pytest.fixture
def state(alice: Person) -> State:
    return State.empty(KINDS).after(created(project(), resource("user", "alice", {"keys": [alice.public]})))


def refused(**engine: str) -> str:
    with pytest.raises(InvalidError) as caught:
        project(type="postgresql", **engine)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://owsgit:s3cr3t@db/shop",
        "postgresql://owsgit:s3cr3t@db1,db2/shop",
        "postgresql://db/shop?user=owsgit&password=s3cr3t",
        "postgresql://db/shop?PassWord=s3cr3t",
        "postgresql://db/shop?sslpassword=s3cr3t",
    ],
)
def test_a_password_is_refused_and_not_told(url: str) -> None:
    told = refused(url=url)
    assert "a password does not belong into the ledger" in told and "owsgit secret set" in told
    assert "$.engines.tables.url" in told and "s3cr3t" not in told


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({}, "either a url or a secret"),
        ({"url": URL, "secret": "database"}, "either a url or a secret"),
        ({"url": "mysql://db/shop"}, "is such as postgresql://"),
        ({"url": "s3cr3t\0"}, "printable characters"),
        ({"url": "postgresql://owsgit:s3cr3t/x@db:5432/shop"}, "written as %2F"),
        ({"url": "postgresql://owsgit:s3cr3t#x@db/shop"}, "written as %2F"),
        ({"url": "postgresql://owsgit:[s3cr3t@db/shop"}, "written as %2F"),
        ({"url": "postgresql://db:99999/shop"}, "a number up to 65535"),
        ({"url": URL, "schema": 'x"; DROP TABLE y'}, "does not have the form"),
        ({"url": URL, "schema": "pg_mine"}, "PostgreSQL's own"),
        ({"url": URL, "pool": "3"}, "'pool' is not a known field"),
    ],
)
def test_what_is_no_engine_is_refused(engine: dict[str, str], told: str) -> None:
    text = refused(**engine)
    assert told in text and "s3cr3t" not in text


@pytest.mark.parametrize("url", [URL, "postgresql:///shop?host=/run/postgresql", "postgres://a@h1:1,h2:2/x"])
def test_a_database_is_named_by_its_url(url: str) -> None:
    spec = project(type="postgresql", url=url).spec
    assert isinstance(spec, ProjectSpec) and spec.engines.is_shared("table") and not spec.engines.is_shared("function")


def test_a_secret_has_to_be_there(state: State) -> None:
    [told] = problems(state, Change(state.resources["project"], project(type="postgresql", secret="database")))
    assert "database" in told and "$.engines.tables.secret" in told


def test_an_engine_does_not_change_under_tables(state: State) -> None:
    table, server = resource("table", "orders", TABLE), project(type="postgresql", url=URL)
    before = state.resources["project"]
    with_table = state.after(created(table))
    for changes in ([Change(before, server)], [Change(before, server), Change(table, None)]):
        [told] = problems(with_table, *changes)
        assert told.startswith("project.json $.engines.tables: 1 tables are kept by sqlite (orders)")
    shared = state.after([Change(before, server), *created(table)])  # new ones come along with it
    for engine in (project(), project(type="postgresql", url=URL, schema="other")):
        assert "kept by postgresql" in problems(shared, Change(server, engine))[0]
    moved = project(type="postgresql", url=URL.replace("db.", "other."))
    assert shared.after([Change(server, moved)]).project == moved.spec


def test_a_shared_table_is_on_no_node(state: State, keyring: Any) -> None:
    nodes = [
        resource("node", name, {"key": people.make(keyring, f"node-{name}").public, "address": f"10.0.0.{place}"})
        for place, name in enumerate("ab", start=1)
    ]
    table = resource("table", "orders", TABLE)
    several = state.after(created(*nodes))
    assert "nobody says on which of them the table is" in problems(several, *created(table))[0]
    several.after([Change(state.resources["project"], project(type="postgresql", url=URL)), *created(table)])
