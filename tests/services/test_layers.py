"""Layers: who may use them, and what functions see of them at /opt."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.state import State
from owsgit.reconcile import plan
from owsgit.runtime.config import InitError
from owsgit.services import KINDS
from tests.support import projects
from tests.support.archives import zipped
from tests.support.sites import Services

PYTHON = f"python3.{sys.version_info.minor}"
SHOW = """
import os
def handler(event, context):
    return open(event).read() if event else os.environ["PATH"]
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "home")
    yield made
    made.close()


def test_later_layers_lie_over_earlier_ones_at_opt(services: Services) -> None:
    services.apply(services.resource("layer", "a", {}, **{"x/one": "a", "x/both": "a", "clash": "a", "file": "a"}))
    services.apply(services.resource("layer", "b", {}, **{"x/both": "b", "clash/in": "b"}))
    services.apply(services.resource("function", "f", projects.function(layers=["a", "b"]), **{"app.py": SHOW}))
    assert [services.call("f", f"/opt/{path}") for path in ("x/one", "x/both", "clash/in", "file")] == list("abba")
    services.apply(services.resource("function", "g", projects.function(layers=["b", "a"]), **{"app.py": SHOW}))
    assert services.call("g", "/opt/x/both") == services.call("g", "/opt/clash") == "a"
    assert services.call("g").split(":")[-1] == "/opt/bin"


def test_modules_and_even_the_handler_come_from_a_layer_and_the_code_comes_first(services: Services) -> None:
    layer = {
        "python/shared.py": "def handler(event, context):\n    import own, versioned\n    return own.where, versioned.x\n",
        "python/own.py": "where = 'layer'\n",
        f"python/lib/{PYTHON}/site-packages/versioned.py": "x = 1\n",
        "python/versioned.py": "x = 2\n",
    }
    services.apply(services.resource("layer", "a", {}, **layer))
    document = projects.function("shared.handler", layers=["a"])
    services.apply(services.resource("function", "f", document, **{"own.py": "where = 'code'\n"}))
    assert services.call("f") == ["code", 1]


def test_pythonpath_makes_nothing_the_functions_own(services: Services) -> None:
    document = projects.function("os.getenv", environment={"PYTHONPATH": str(Path(os.__file__).parent)})
    with pytest.raises(InitError, match="not part of the function's code"):
        services.apply(services.resource("function", "f", document, **{"app.py": ""}))


def test_a_zip_in_a_layer_is_unpacked(services: Services) -> None:
    modes = {"bin/tool": 0o100755, "lib/link": 0o120777}
    archive = zipped({"bin/tool": "#!/bin/sh\necho ran\n", "lib/real": "so", "lib/link": "real"}, modes)
    services.apply(services.resource("layer", "a", {}, **{"layer.zip": archive, "plain": "p"}))
    code = "import os, subprocess\ndef handler(event, context):\n    return subprocess.getoutput('tool; cat /opt/lib/link /opt/plain; ls /opt')\n"
    services.apply(services.resource("function", "f", projects.function(layers=["a"]), **{"app.py": code}))
    assert services.call("f") == "ran\nsop" + "bin\nlib\nplain"


def test_shared_libraries_of_a_layer_are_found_by_their_names(services: Services) -> None:
    library = next(path for path in Path("/usr/lib").rglob("libz.so.1*"))
    services.apply(services.resource("layer", "a", {}, **{"lib/libofalayer.so": library.read_bytes()}))
    code = "import ctypes\ndef handler(event, context):\n    return ctypes.CDLL('libofalayer.so').zlibVersion() != 0\n"
    services.apply(services.resource("function", "f", projects.function(layers=["a"]), **{"app.py": code}))
    assert services.call("f") is True


def test_a_layer_that_cannot_be_unpacked_says_why_and_what_was_there_stays(services: Services) -> None:
    services.apply(services.resource("layer", "a", {}, one="1"))
    with pytest.raises(InvalidError, match=r"layer\.zip: the zip has a file with the path '\.\./evil'"):
        services.apply(services.resource("layer", "a", {}, **{"layer.zip": zipped({"../evil": "x"})}))
    services.apply(services.resource("function", "f", projects.function(layers=["a"]), **{"app.py": SHOW}))
    assert services.call("f", "/opt/one") == "1"
    assert not list((services.site.home / "layers").glob(".*"))


def test_a_function_whose_layer_is_not_there_says_so(services: Services) -> None:
    with pytest.raises(UnavailableError, match="the layer a is not laid out on this node"):
        services.apply(services.resource("function", "f", projects.function(layers=["a"]), **{"app.py": SHOW}))


def test_a_function_gets_the_layer_as_it_is_now_and_is_left_alone_if_its_files_are_the_same(services: Services) -> None:
    function = services.resource("function", "f", projects.function(layers=["a"]), **{"app.py": SHOW})
    services.apply(services.resource("layer", "a", {}, one="1"))
    services.apply(function)
    pool = services.handlers["function"]._deployed["f"].pool
    services.apply(services.resource("layer", "a", {"description": "words"}, one="1"))
    services.apply(function)
    assert services.handlers["function"]._deployed["f"].pool is pool
    services.apply(services.resource("layer", "a", {}, one="2"))
    services.apply(function)
    assert services.call("f", "/opt/one") == "2"


def test_what_is_changed_on_the_disk_is_noticed_and_repaired(services: Services) -> None:
    layer = services.resource("layer", "a", {}, one="1")
    function = services.resource("function", "f", projects.function(layers=["a"]), **{"app.py": SHOW})
    services.apply(layer)
    services.apply(function)
    (file,) = (services.site.home / "opt").glob("*/one")
    file.chmod(0o644)
    file.write_text("evil")
    assert "changed on this node" in services.run(services.handlers["layer"].observe(layer))
    assert "changed on this node" in services.run(services.handlers["function"].observe(function))
    services.apply(layer)
    services.apply(function)
    assert services.call("f", "/opt/one") == "1"
    assert services.run(services.handlers["function"].observe(function)) is None


def resource(kind: str, name: str, document: dict[str, Any], tree: str = "t") -> Resource:
    found = KINDS[kind]
    data = json.dumps(document).encode()
    return Resource(found, name, found.spec.parse(data, found.file(name)), f"{hash(data):x}", f"{hash(data)}{tree}")


def state_of(*resources: Resource) -> State:
    made = [
        resource("project", "", {"name": "shop", "roots": ["alice"]}),
        resource("user", "alice", {"keys": [projects.node_key()]}),
        *resources,
    ]
    return State.empty(KINDS).born("ab" * 20).after([Change(None, each) for each in made])


@pytest.mark.parametrize(
    ("compatible", "runtime", "fits"),
    [
        ([], "python3.12", True),
        (["python3.12"], "python3.12", True),
        (["python"], "python3.12", True),
        (["nodejs20.x", "python3.9"], "python", True),
        (["python3.11"], "python3.12", False),
        (["python"], "nodejs", False),
        (["provided.al2023"], "provided.al2", False),
    ],
)
def test_a_layer_is_for_the_runtimes_that_it_names(compatible: list[str], runtime: str, fits: bool) -> None:
    layer = resource("layer", "a", {"compatibleRuntimes": compatible})
    function = resource("function", "f", {"runtime": runtime, "handler": "app.handler", "layers": ["a"]})
    if fits:
        state_of(layer, function)
        return
    with pytest.raises(InvalidError) as refused:
        state_of(layer, function)
    (problem,) = refused.value.problems
    assert problem.file == "functions/f/function.json" and problem.path == "$.layers[0]"
    assert f"(compatibleRuntimes), not for {runtime}" in problem.message and "layers/a/layer.json" in problem.remedy


def test_a_layer_cannot_leave_the_functions_that_use_it() -> None:
    wide, narrow = resource("layer", "a", {}), resource("layer", "a", {"compatibleRuntimes": ["python3.9"]})
    function = resource("function", "f", {"runtime": "python3.12", "handler": "app.handler", "layers": ["a"]})
    state = state_of(wide, function)
    with pytest.raises(InvalidError, match=r"functions/f/function\.json \$\.layers\[0\]: the layer a cannot be used"):
        state.after([Change(wide, narrow)])
    assert state.after([Change(wide, narrow)], trusted=True), "what was accepted once is taken as it is"
    with pytest.raises(InvalidError, match="there is no layer 'a'"):
        state.after([Change(wide, None)])


@pytest.mark.parametrize(("runtime", "handler"), [("wasm", "a.wasm"), ("container", "")])
def test_runtimes_that_have_no_opt_take_no_layers(runtime: str, handler: str) -> None:
    image = {"image": {"uri": "sha256:" + "0" * 64}} if runtime == "container" else {}
    with pytest.raises(InvalidError, match="has no layers"):
        resource("function", "f", {"runtime": runtime, "handler": handler, "layers": ["a"], **image})


def test_layers_are_published_and_used_by_right() -> None:
    layer = resource("layer", "a", {})
    function = resource("function", "f", projects.function(layers=["a"]))
    state = state_of(layer, function)

    def needs(change: Change) -> set[str]:
        return {need.action for need in change.needs(state.scope, KINDS)}

    assert needs(Change(None, layer)) == {"lambda:PublishLayerVersion"}
    assert needs(Change(layer, resource("layer", "a", {}, "u"), ("layers/a/x",))) == {"lambda:PublishLayerVersion"}
    assert needs(Change(layer, None)) == {"lambda:DeleteLayerVersion"}
    assert needs(Change(None, function)) == {"lambda:CreateFunction", "lambda:GetLayerVersion"}


def test_a_changed_layer_has_its_functions_applied_again_after_it() -> None:
    old, new = resource("layer", "a", {}), resource("layer", "a", {}, "u")
    function = resource("function", "f", projects.function(layers=["a"]))
    made = plan.make({old.key: old, function.key: function}, {new.key: new, function.key: function})
    assert [[step.key for step in level] for level in made.levels] == [["layers/a"], ["functions/f"]]
