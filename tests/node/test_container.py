"""A container image, from a push to an answer, while the engine and the node come and go."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import gateway_url
from tests.support import projects
from tests.support.docker import PYTHON, DockerEngine, python_files
from tests.support.nodes import Node, push, until
from tests.support.projects import Project

SOURCE = Path(__file__).parents[1] / "runtime/image/server.py"


@pytest.fixture
def engine() -> Iterator[DockerEngine]:
    made = DockerEngine()
    yield made
    made.close()


def test_a_pushed_image_is_served_as_soon_as_its_engine_runs(served: Project, node: Node, engine: DockerEngine) -> None:
    image = engine.image({**python_files(), "/server.py": SOURCE}, [PYTHON, "-S", "/server.py"])
    engine.stop()
    node.stop()
    node.prefix = ["env", f"DOCKER_HOST={engine.host}"]
    node.start()

    api = json.loads((served.folder / "gateways/api.json").read_text())
    route = next(iter(api["routes"].values()))
    document = {**projects.function("", runtime="container"), "image": {"uri": image, "port": 80}, "timeout": 20}
    served.write("functions/boxed/function.json", document)
    served.write(
        "gateways/api.json", {**api, "routes": {**api["routes"], "GET /boxed": {**route, "function": "boxed"}}}
    )
    served.commit("An image")
    assert "does not answer" in push(served, node).text
    hello = "/hello/Ada"
    assert httpx.get(f"{gateway_url(served)}{hello}").status_code == 200  # nothing else is harmed

    engine.start()
    until(lambda: (node.resource("functions/boxed") or {}).get("state") == "ready", 40)
    assert httpx.get(f"{gateway_url(served)}/boxed", timeout=30).json()["rawPath"] == "/boxed"

    node.kill()
    left = {each["Id"] for each in engine.api.containers()}
    assert left
    node.start()
    until(lambda: not left & {each["Id"] for each in engine.api.containers(all=True)})
    until(lambda: _answers(f"{gateway_url(served)}/boxed"))
    node.stop()
    assert engine.api.containers(all=True) == []


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).status_code == 200
    except httpx.TransportError:
        return False
