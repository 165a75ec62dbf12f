"""Where a function's code comes from: the folder, a deployment package, assets."""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, OwsgitError
from owsgit.model.names import Scope
from owsgit.services import KINDS
from owsgit.services.functions.spec import FunctionSpec
from tests.support import projects
from tests.support.archives import wheel, zipped
from tests.support.sites import Services

CODE = "def handler(event, context):\n    import where\n    return where.word\n"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "home", privateAssets=True)
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    folder = tmp_path / "files"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def asset(files: tuple[Path, str], name: str, content: bytes) -> dict[str, str]:
    (files[0] / name).write_bytes(content)
    return {"url": f"{files[1]}/{name}", "sha256": hashlib.sha256(content).hexdigest()}


def test_a_deployment_package_is_the_code_and_complete(services: Services) -> None:
    archive = zipped({"app.py": CODE, "where/__init__.py": "word = 'zip'\n", "requirements.txt": "not-looked-at\n"})
    function = services.resource("function", "f", projects.function(package="dist.zip"), **{"dist.zip": archive})
    services.apply(function)
    assert services.call("f") == "zip"
    (folder,) = (path for path in (services.site.home / "code").iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["app.py", "requirements.txt", "where"]
    (folder / "app.py").chmod(0o644)
    assert "app.py" in services.run(services.handlers["function"].observe(function))
    services.apply(function)
    assert services.run(services.handlers["function"].observe(function)) is None


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({}, "there is no such file"),
        ({"dist.zip": b"no zip"}, "not a zip file"),
        ({"dist.zip": zipped({"app.py": ""}), "app.py": ""}, "laid out twice"),
        ({"dist.zip": zipped({"../app.py": ""})}, "not taken"),
    ],
)
def test_a_package_that_cannot_be_unpacked_is_told(services: Services, beside: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message) as error:
        services.apply(services.resource("function", "f", projects.function(package="dist.zip"), **beside))
    assert error.value.problems[0].path == "$.package"
    assert not list((services.site.home / "code").iterdir())


def test_assets_lie_beside_the_code(services: Services, files: tuple[Path, str]) -> None:
    own = wheel("where", where="word = 'wheel'\n")
    document = projects.function(
        assets={f"wheels/{own[0]}": asset(files, own[0], own[1]), "data/x": asset(files, "x", b"x")}
    )
    code = CODE + "assert open('data/x').read() == 'x'\n"
    beside = {"app.py": code, "requirements.txt": f"./wheels/{own[0]}\n"}
    services.apply(services.resource("function", "f", document, **beside))
    assert services.call("f") == "wheel"
    assert services.told[0] == ("functions/f", "installing 1 package of requirements.txt")


def test_an_asset_can_be_the_package(services: Services, files: tuple[Path, str]) -> None:
    archive = zipped({"app.py": CODE, "where.py": "word = 'asset'\n"})
    document = projects.function(package="dist.zip", assets={"dist.zip": asset(files, "dist.zip", archive)})
    services.apply(services.resource("function", "f", document))
    assert services.call("f") == "asset"


def test_an_asset_in_the_place_of_a_file_and_one_that_is_not_there_are_told(
    services: Services, files: tuple[Path, str]
) -> None:
    twice = projects.function(assets={"app.py": asset(files, "x", b"x")})
    with pytest.raises(InvalidError, match=r"app\.py would be laid out twice"):
        services.apply(services.resource("function", "f", twice, **{"app.py": CODE}))
    gone = projects.function(assets={"x": {**asset(files, "y", b"y"), "url": f"{files[1]}/gone"}})
    with pytest.raises(OwsgitError, match="404") as error:
        services.apply(services.resource("function", "f", gone, **{"app.py": CODE}))
    assert error.value.problems[0].path == "$.assets['x']"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "function.json", "a//b", "-x", "a/./b", "", "a\nb"])
def test_an_asset_lies_below_the_functions_folder(path: str) -> None:
    document = projects.function(assets={path: {"url": "https://example.com/x", "sha256": "0" * 64}})
    with pytest.raises(InvalidError):
        FunctionSpec.parse(json.dumps(document).encode(), "functions/f/function.json")


def test_whoever_may_not_change_code_may_not_change_where_it_comes_from(tmp_path: Path) -> None:
    services = Services(tmp_path / "home")
    plain = services.resource("function", "f", projects.function())
    for field, value in (
        ("package", "dist.zip"),
        ("assets", {"x": {"url": "https://example.com/x", "sha256": "0" * 64}}),
    ):
        other = services.resource("function", "f", projects.function(**{field: value}))
        needs = {need.action for need in Change(plain, other).needs(Scope("us-east-1", "1" * 12), KINDS)}
        assert needs == {"lambda:UpdateFunctionCode"}
    services.close()


def test_packages_of_npm_are_found_by_import_and_require(services: Services) -> None:
    document = {"runtime": "nodejs", "handler": "app.handler"}
    beside = {
        "package.json": '{"type": "module", "dependencies": {"ours": "file:./ours"}}',
        "ours/package.json": '{"name": "ours", "version": "1.0.0", "main": "index.js"}',
        "ours/index.js": "exports.word = 'ours';",
        "app.js": "import { createRequire } from 'node:module';\nimport ours from 'ours';\n"
        "const again = createRequire(import.meta.url)('ours');\n"
        "export const handler = async () => [ours.word, again.word];\n",
    }
    services.apply(services.resource("function", "f", document, **beside))
    assert services.call("f") == ["ours", "ours"]


def test_without_a_sandbox_packages_and_layers_are_found_as_well(tmp_path: Path) -> None:
    services = Services(tmp_path / "home", sandbox="none")
    own = wheel("where", where="import shared\nword = shared.word\n")
    services.apply(services.resource("layer", "a", {}, **{"python/shared.py": "word = 'layer'\n"}))
    beside = {"app.py": CODE, "requirements.txt": f"./{own[0]}\n", own[0]: own[1]}
    services.apply(services.resource("function", "f", projects.function(layers=["a"]), **beside))
    assert services.call("f") == "layer"
    services.close()
