"""Tables in PostgreSQL, served by two nodes at once: real boto3 against both, and the database's password in a secret."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import clusters, sdk
from tests.support.clusters import Cluster
from tests.support.nodes import free_port, owsgit, until
from tests.support.people import Person
from tests.support.postgresql import Server
from tests.support.projects import Done

ORDERS = {
    "attributeDefinitions": [{"attributeName": "id", "attributeType": "S"}],
    "keySchema": [{"attributeName": "id", "keyType": "HASH"}],
    "streamSpecification": {},
}
KEY = {"id": {"S": "n"}}
PASSWORD = "hunter2-of-the-database"


@dataclass
class Shop:
    cluster: Cluster
    server: Server
    url: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, alice: Person) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shared-tables")
    server = Server()
    made = clusters.on_loopback(folder, alice, 2)
    for node in made.values():
        node.aws_port = free_port()
    try:
        server.start()
        cluster = clusters.found(folder, alice, made)
        cluster.project.git("remote", "add", "origin", made["a"].url())
        yield Shop(cluster, server, server.address.replace("owsgit@", f"owsgit:{PASSWORD}@"))
    finally:
        clusters.stop(made)
        server.end()


def push(shop: Shop, message: str) -> Done:
    shop.cluster.project.commit(message)
    done = shop.cluster.push("a")
    if done.status:
        shop.cluster.project.git("reset", "-q", "--hard", "HEAD^")
    return done


def engines(shop: Shop, **engine: str) -> None:
    project = shop.cluster.project
    document = json.loads(project.git("show", "HEAD:project.json"))
    project.write("project.json", {**document, "engines": {"tables": engine}})


def test_two_nodes_serve_one_table(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, project = shop.cluster, shop.cluster.project
    engines(shop, type="postgresql", url=shop.url)
    refused = push(shop, "A password in the ledger")
    assert refused.status == 1 and "a password does not belong into the ledger" in refused.text, refused.text
    assert "owsgit secret set" in refused.text and PASSWORD not in refused.text

    sealed = owsgit("secret", "set", "database", by=project.owner, cwd=project.folder, data=shop.url)
    assert sealed.status == 0, sealed.text
    engines(shop, type="postgresql", secret="database")
    project.write("tables/orders.json", ORDERS)
    pushed = push(shop, "A table in PostgreSQL")
    assert pushed.status == 0, pushed.text
    cluster.all_at(project.head())

    found = sdk.session(tmp_path, project, project.owner, monkeypatch)
    here, there = (
        found.client("dynamodb", endpoint_url=f"http://{node.address}:{node.aws_port}")
        for node in cluster.nodes.values()
    )

    def add(client: Any) -> int:
        done = client.update_item(
            TableName="orders",
            Key=KEY,
            UpdateExpression="ADD seen :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
            ReturnValues="ALL_NEW",
        )
        return int(done["Attributes"]["seen"]["N"])

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(add, [here, there] * 15)) == list(range(1, 31))
    described = [client.describe_table(TableName="orders")["Table"] for client in (here, there)]
    assert described[0] == described[1] and described[0]["ItemCount"] == 1

    cluster["a"].kill()
    assert add(there) == 31  # nobody has to be asked
    cluster["a"].start()
    until(lambda: cluster["a"].status()["applied"] == project.head())
    assert here.get_item(TableName="orders", Key=KEY)["Item"]["seen"] == {"N": "31"}

    once = found.client(
        "dynamodb", endpoint_url=f"http://{cluster['b'].address}:{cluster['b'].aws_port}", config=sdk.ONCE
    )
    shop.server.stop()
    code, _, status = sdk.refused(once.get_item, TableName="orders", Key=KEY)
    assert status in (500, 503), code
    shop.server.start()
    assert add(there) == 32

    engines(shop, type="sqlite")
    refused = push(shop, "Another engine")
    assert refused.status == 1 and "1 tables are kept by postgresql (orders)" in refused.text, refused.text
    project.git("rm", "-q", "tables/orders.json")
    refused = push(shop, "No table")
    assert refused.status == 1 and "the table has 1 items" in refused.text, refused.text
    for node in cluster.nodes.values():
        assert PASSWORD not in node.log.read_text()
