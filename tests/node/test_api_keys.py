"""API keys on a real node: made on the command line, committed as hashes, counted for their quota."""

import json
from pathlib import Path

import httpx

from tests.conftest import gateway_url
from tests.support import nodes, projects
from tests.support.nodes import Node, free_port, owsgit
from tests.support.people import Person


def test_keys_are_made_asked_for_and_counted(tmp_path: Path, alice: Person, bob: Person, node: Node) -> None:
    files = {
        "nodes/a.json": node.init(),
        "users/bob.json": {"keys": [bob.public], "policies": ["usage"]},
        "policies/usage.json": projects.allow("apigateway:PATCH"),
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": projects.HELLO,
        "gateways/api.json": {
            "port": free_port(),
            "apiKeyRequired": True,
            "routes": {
                "GET /hello/{name}": {"function": "hello"},
                "GET /open": {"function": "hello", "apiKeyRequired": False},
            },
        },
        "usageplans/partners.json": {"apis": [{"gateway": "api"}], "quota": {"limit": 3, "period": "MONTH"}},
    }
    project = projects.create(tmp_path / "shop", alice, files=files)
    project.git("remote", "add", "origin", node.url())
    made = owsgit("gateway", "key", "partners", "ann", "-o", "json", by=alice, cwd=project.folder)
    assert made.status == 0, made.text
    key = json.loads(made.text)["key"]
    assert len(key) == 40 and key not in (project.folder / "usageplans/partners.json").read_text()
    again = owsgit("gateway", "key", "partners", "ann", by=alice, cwd=project.folder)
    assert again.status == 1 and "--replace" in again.text
    assert "usageplans/nobody.json" in owsgit("gateway", "key", "nobody", "ann", by=alice, cwd=project.folder).text
    project.commit("A key for ann")
    node.start()
    pushed = nodes.push(project, node)
    assert pushed.status == 0, pushed.text
    url = gateway_url(project)
    with httpx.Client(base_url=url) as client:
        assert client.get("/open").status_code == 200
        for wrong in ({}, {"x-api-key": "x" * 40}, {"x-api-key": ""}):
            refused = client.get("/hello/you", headers=wrong)
            assert (refused.status_code, refused.json()) == (403, {"message": "Forbidden"})
        client.headers["x-api-key"] = key
        assert [client.get("/hello/you").status_code for _ in range(3)] == [200] * 3
        over = client.get("/hello/you")
        assert (over.status_code, over.json()) == (429, {"message": "Limit Exceeded"})
        assert int(over.headers["retry-after"]) > 0
    used = owsgit("gateway", "usage", "partners", "-o", "json", by=alice, cwd=project.folder)
    told = json.loads(used.text)["keys"][0]
    assert (told["key"], told["used"], told["limit"], told["nodes"]) == ("ann", 3, 3, {"a": 3})
    denied = owsgit("gateway", "usage", "partners", by=bob, cwd=project.folder)
    assert denied.status == 1 and "apigateway:GET" in denied.text
    node.stop()
    node.start()

    def is_over() -> bool:
        try:
            return httpx.get(f"{url}/hello/you", headers={"x-api-key": key}).status_code == 429
        except httpx.ConnectError:
            return False

    nodes.until(is_over)

    plan = json.loads((project.folder / "usageplans/partners.json").read_text())
    plan["keys"]["ann"]["enabled"] = False
    project.write("usageplans/partners.json", plan)
    project.commit("Not ann", by=bob)
    assert nodes.push(project, node, by=bob).status == 0
    assert httpx.get(f"{url}/hello/you", headers={"x-api-key": key}).status_code == 403
    plan["apis"] = [{"gateway": "api", "stage": "prod"}]
    project.write("usageplans/partners.json", plan)
    project.commit("No such stage", by=alice)
    refused_push = nodes.push(project, node)
    assert refused_push.status != 0 and "it has no stage 'prod', only $default" in refused_push.text
