"""Lambda's parameters as a function's file, and deployment packages on their way into the working tree."""

import io
import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from owsgit.aws.api import ServiceError
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.names import Scope
from owsgit.services.functions import changing, controlling
from owsgit.services.functions.spec import FunctionSpec

SCOPE = Scope("eu-central-1", "123456789012")
ROLE = "arn:aws:iam::123456789012:role/clerk"
LAMBDA = "arn:aws:lambda:eu-central-1:123456789012"
URI = f"registry.example.com/f@sha256:{'0' * 64}"


def created(**given: Any) -> dict[str, Any]:
    zipped = {"Runtime": "python3.11", "Handler": "app.handler", "Code": {"ZipFile": b""}}
    found = changing.created({"Role": ROLE, **(zipped if "PackageType" not in given else {}), **given}, SCOPE, "f")
    FunctionSpec.parse(json.dumps(found).encode(), "functions/f/function.json")
    return found


def test_parameters_become_fields() -> None:
    found = created(
        Timeout=9,
        Layers=[f"{LAMBDA}:layer:tools"],
        EphemeralStorage={"Size": 1024},
        DeadLetterConfig={"TargetArn": f"{LAMBDA}:function:failures"},
        LoggingConfig={"ApplicationLogLevel": "WARN", "LogGroup": "/aws/lambda/f"},
        Description="",
    )
    assert found == {
        "runtime": "python3.11",
        "handler": "app.handler",
        "timeout": 9,
        "role": "clerk",
        "ephemeralStorage": 1024,
        "layers": ["tools"],
        "asyncInvoke": {"onFailure": {"function": "failures"}},
        "logging": {"applicationLogLevel": "WARN"},
    }
    image = created(PackageType="Image", Code={"ImageUri": URI}, ImageConfig={"Command": ["a"]})
    assert image == {"runtime": "container", "image": {"uri": URI, "command": ["a"]}, "role": "clerk"}


def test_an_update_leaves_what_it_does_not_name() -> None:
    document = {"runtime": "python", "network": "internet", "asyncInvoke": {"maximumRetryAttempts": 0}, "layers": ["a"]}
    given = {"Layers": [], "DeadLetterConfig": {"TargetArn": ""}, "Environment": {}, "LoggingConfig": {}}
    assert changing.configured(document, given, SCOPE, "f") == {
        "runtime": "python",
        "network": "internet",
        "asyncInvoke": {"maximumRetryAttempts": 0},
    }
    coded = changing.coded({"runtime": "python", "assets": {}, "package": "old.zip"}, package=True)
    assert coded == {"runtime": "python", "package": changing.PACKAGE}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"PackageType": "Tar", "Code": {}}, "PackageType: Tar is neither"),
        ({"PackageType": "Image", "Code": {}}, "the ImageUri is missing"),
        ({"Code": {}}, "the ZipFile is missing"),
        ({"ImageConfig": {}}, "ImageConfig: the function is no image"),
        ({"Layers": [f"{LAMBDA}:layer:tools:7"]}, "which is the one version that it has"),
        (
            {"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:eu-central-1:123456789012:q"}},
            "DeadLetterConfig: arn:aws:sqs",
        ),
        ({"LoggingConfig": {"LogGroup": "mine"}}, "LogGroup is always /aws/lambda/f here"),
    ],
)
def test_what_the_file_cannot_say_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ServiceError) as caught:
        created(**given)
    assert said in caught.value.message and caught.value.code == "InvalidParameterValueException"


def zipped(*files: str, link: str = "") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in files:
            archive.writestr(name, '{"dependencies": {"a": "1"}}')
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return made.getvalue()


def test_a_package_lies_unpacked_where_it_means_the_same(tmp_path: Path) -> None:
    unpacked, kept = tmp_path / "unpacked", tmp_path / "zipped"

    def plain(data: bytes, runtime: str) -> bool:
        for folder in (unpacked, kept):
            shutil.rmtree(folder, ignore_errors=True)
        return controlling._lay_out(data, unpacked, kept, runtime)

    assert plain(zipped("app.py", "pkg/.gitignore"), "python3.11")
    assert (unpacked / "app.py").stat().st_mode & stat.S_IWUSR, "people go on with it"
    assert (kept / changing.PACKAGE).read_bytes() == zipped("app.py", "pkg/.gitignore")
    assert not plain(zipped("app.py", link="passwd"), "python3.11")
    for name in (".git/config", "a/.GIT/HEAD", ".gitattributes"):
        assert not plain(zipped("app.py", name), "python3.11")
    assert not plain(zipped("app.py", "requirements.txt"), "python3.11")
    assert plain(zipped("app.js", "requirements.txt", "package.json", "node_modules/a/index.js"), "nodejs20.x")
    assert not plain(zipped("app.js", "package.json"), "nodejs20.x")
    assert plain(zipped("bootstrap", "package.json", "requirements.txt"), "provided.al2023")


def test_what_git_does_not_take_is_an_error_of_the_files(tmp_path: Path) -> None:
    """Such names never come into the working tree: their package stays a zip."""
    clone, home, staged = tmp_path / "clone", tmp_path / "home", tmp_path / "staged"
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    (staged / "functions/f/git~1").mkdir(parents=True)
    (staged / "functions/f/git~1/config").write_text("")
    (home / "objects").mkdir(parents=True)
    found = Clone(clone)
    found.write_tree(home)
    with pytest.raises(InvalidError, match="git~1"):
        found.write_tree_with(home, staged, "functions/f")
