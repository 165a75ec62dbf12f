"""A node's metrics over HTTP."""

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from owsgit.node.home import address_of
from tests.conftest import gateway_url
from tests.support import nodes, projects
from tests.support.nodes import Node, free_port, owsgit
from tests.support.people import Person


def test_metrics_are_served_where_the_settings_say(tmp_path: Path, alice: Person, node: Node) -> None:
    port = free_port()
    files = {
        "nodes/a.json": node.init("--metrics", f"127.0.0.1:{port}"),
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": projects.HELLO,
        "gateways/api.json": {"port": free_port(), "routes": {"GET /hello/{name}": {"function": "hello"}}},
    }
    project = projects.create(tmp_path / "shop", alice, files=files)
    node.start()
    assert nodes.push(project, node).status == 0
    for _ in range(3):
        assert httpx.get(f"{gateway_url(project)}/hello/you").status_code == 200
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(answer.text) for sample in family.samples
    }
    assert samples["owsgit_function_invocations_total"] == 3 == samples["owsgit_function_duration_seconds_count"]
    assert samples["owsgit_function_init_duration_seconds_count"] == 1
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
    project.git("rm", "-q", "-r", "functions", "gateways")
    project.commit("Nothing is left")
    assert nodes.push(project, node).status == 0
    nodes.until(lambda: 'function="hello"' not in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    other = Node(tmp_path / "other", alice, "b")
    other.init("--metrics", f"127.0.0.1:{port}")
    taken = owsgit("node", "run", "--home", str(other.home), by=alice)
    assert taken.status == 3 and "$.metrics" in taken.text and str(port) in taken.text


@pytest.mark.parametrize("text", ["", "9100", "localhost:9100", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x"])
def test_an_address_for_metrics_is_an_ip_address_and_a_port(tmp_path: Path, alice: Person, text: str) -> None:
    assert address_of("[::1]:9100") == ("::1", 9100)
    with pytest.raises(ValueError):
        address_of(text)


def test_a_wrong_address_is_told_by_node_init(tmp_path: Path, alice: Person) -> None:
    done = owsgit(
        "node", "init", "x", "--home", str(tmp_path / "x"), "--owner", alice.public, "--metrics", "x", by=alice
    )
    assert done.status == 1 and "127.0.0.1:9100" in done.text
