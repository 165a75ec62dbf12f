"""A function with packages and a layer, from the push to the answer."""

import json
from pathlib import Path

import httpx
import pytest

from owsgit.model.errors import InvalidError
from owsgit.node.home import NodeSettings
from tests.conftest import gateway_url
from tests.support import nodes, projects
from tests.support.archives import wheel
from tests.support.indexes import serving
from tests.support.nodes import Node, push, until
from tests.support.people import Person
from tests.support.projects import Project

CODE = """
import greeting, names

def handler(event, context):
    return {"statusCode": 200, "body": f"{greeting.word} {names.of(event)}"}
"""


def names(suffix: str = "") -> str:
    return f"def of(event):\n    return event['pathParameters']['name'] + {suffix!r}\n"


def test_a_committed_wheel_and_a_layer_are_pushed_told_of_and_served(served: Project, node: Node) -> None:
    own = wheel("greeting", greeting="word = 'salut'\n")
    served.write("layers/shared/layer.json", {"compatibleRuntimes": ["python"]})
    served.write("layers/shared/python/names.py", names())
    served.write("functions/hello/function.json", projects.function(layers=["shared"]))
    served.write("functions/hello/app.py", CODE)
    served.write("functions/hello/requirements.txt", f"./wheels/{own[0]}\n")
    served.write(f"functions/hello/wheels/{own[0]}", own[1])
    served.commit()
    done = push(served, node)
    assert done.status == 0
    for line in (
        "lambda:PublishLayerVersion",
        "lambda:GetLayerVersion",
        "functions/hello: installing 1 package of requirements.txt",
        "functions/hello: installed 1 package of requirements.txt in ",
        "ready     layer shared",
        "ready     function hello",
    ):
        assert line in done.text, done.text
    url = f"{gateway_url(served)}/hello/you"
    assert httpx.get(url).text == "salut you"

    served.write("layers/shared/python/names.py", names("!"))
    served.commit()
    done = push(served, node)
    assert "uses layer shared, which changes" in done.text and "install" not in done.text
    assert httpx.get(url).text == "salut you!"

    node.kill()
    node.start()
    nodes.until(lambda: node.status()["applied"] == served.head())
    assert httpx.get(url).text == "salut you!"


def test_a_failed_build_is_told_in_the_push_and_what_served_goes_on_serving(served: Project, node: Node) -> None:
    served.write("functions/hello/requirements.txt", "./wheels/none-1.0-py3-none-any.whl\n")
    served.commit()
    done = push(served, node)
    for line in (
        "FAILED    function hello",
        "a file that is named is not there",
        "remedy: commit it",
        "goes on serving",
    ):
        assert line in done.text, done.text
    assert httpx.get(f"{gateway_url(served)}/hello/you").text == "hello you"

    def is_failed() -> bool:  # it is tried again in between
        row = node.resource("functions/hello")
        return row is not None and row["state"] == "failed" and "| ERROR:" in row["message"]

    until(is_failed)


def test_packages_come_from_the_index_of_the_nodes_settings(node: Node, alice: Person, tmp_path: Path) -> None:
    spec = node.init()
    with serving(dict([wheel("greeting", greeting="word = 'hi'\n")])) as index:
        settings = node.home / "node.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "packageIndexes": {"python": index.url}}))
        files = {
            "nodes/a.json": spec,
            "functions/hello/function.json": projects.function(),
            "functions/hello/app.py": "import greeting\ndef handler(event, context):\n    return greeting.word\n",
            "functions/hello/requirements.txt": "greeting==1.0\n",
        }
        project = projects.create(tmp_path / "shop", alice, files=files)
        node.start()
        done = push(project, node)
        assert "ready     function hello" in done.text, done.text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://user:word@packages.example.com/simple", "would tell it to every package"),
        ("file:///srv/packages", "an index is an address"),
        ("https://", "an index is an address"),
    ],
)
def test_an_index_is_an_address_without_a_password(url: str, message: str) -> None:
    document = {"name": "a", "address": "127.0.0.1", "listen": "127.0.0.1", "sshPort": 1, "owners": []}
    with pytest.raises(InvalidError, match=message) as error:
        NodeSettings.parse(json.dumps({**document, "packageIndexes": {"npm": url}}).encode(), "node.json")
    assert error.value.problems[0].path == "$.packageIndexes.npm"
