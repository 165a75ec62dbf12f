"""Secrets from the command line to a function, among three nodes; and what hostile hands try with them."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from owsgit.ledger import sshsig
from owsgit.model import keys
from owsgit.model.service import SecretValue
from owsgit.node.home import Home
from owsgit.services.secrets import sealing
from tests.support import clusters, nodes, projects
from tests.support.clusters import Cluster
from tests.support.nodes import free_port, owsgit
from tests.support.people import Person
from tests.support.projects import Done, allow, function

CODE = """
import os, sys
print("started with", os.environ["DB_PASSWORD"])

def handler(event, context):
    print("the password is", os.environ["DB_PASSWORD"], "and", open(os.environ["TLS_KEY"]).read())
    with open("/proc/self/mounts") as mounts:
        assert any(line.split()[1:3] == ["/", "tmpfs"] for line in mounts), "no disk has the file"
    return {"user": os.environ["DB_USER"], "password": os.environ["DB_PASSWORD"][::-1],
            "key": open(os.environ["TLS_KEY"]).read()[::-1]}
"""
SECRET_USES = {
    "DB_PASSWORD": {"secret": "db", "jsonKey": "password"},
    "DB_USER": {"secret": "db", "jsonKey": "user"},
    "TLS_KEY": {"secret": "tls", "asFile": True},
}
DB = json.dumps({"user": "shop", "password": "correct-horse-7"})


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("secrets")
    made = clusters.on_loopback(folder, alice, 3)
    files = {
        "users/bob.json": {"keys": [bob.public], "policies": ["code"]},
        "policies/code.json": allow(
            "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration", "lambda:InvokeFunction"
        ),
        "functions/f/function.json": function(),
        "functions/f/app.py": projects.HELLO,
    }
    try:
        cluster = clusters.found(folder, alice, made, files)
        cluster.all_at(cluster.project.head())
        cluster.project.git("remote", "add", "origin", made["a"].url())
        for name, node in made.items():
            cluster.project.git("remote", "add", name, node.url())
        yield cluster
    finally:
        clusters.stop(made)


@pytest.fixture(autouse=True)
def at_main(three: Cluster) -> None:
    three.project.git("fetch", "-q", "a")
    three.project.git("reset", "-q", "--hard", "a/main")
    three.project.git("clean", "-qfd")


def run(three: Cluster, *arguments: str, by: Person | None = None, data: str | None = None) -> Done:
    return owsgit(*arguments, by=by or three.project.owner, cwd=three.project.folder, data=data)


def push(three: Cluster, message: str, by: Person | None = None, node: str = "a") -> Done:
    three.project.commit(message, by=by)
    return three.project.try_git("push", node, "HEAD:main", by=by)


def invoke(three: Cluster, node: str) -> Any:
    done = run(three, "invoke", "f", "-n", node)
    assert done.status == 0, done.text
    return json.loads(done.text)


def log_text(three: Cluster, node: str) -> str:
    return (three[node].home / "logs/functions/f/current.jsonl").read_text()


def test_a_secret_can_be_set_after_a_function_names_it(three: Cluster) -> None:
    three.project.write("functions/f/function.json", function(secrets={"TOKEN": {"secret": "late"}}))
    three.project.commit("Names what is still to be made")
    told = run(three, "validate")
    assert told.status == 1 and "owsgit secret set late" in told.text, told.text
    made = run(three, "secret", "set", "late", data="x" * 20)
    assert made.status == 0 and "secrets/late.json: version 1" in made.text, made.text
    assert run(three, "validate").status == 0
    assert "late" in run(three, "secret", "list").text


def test_a_function_gets_its_secrets_on_every_node_and_nobody_else_sees_them(three: Cluster) -> None:
    assert run(three, "secret", "set", "db", data=DB + "\n").status == 0
    made = run(three, "secret", "set", "tls", "--generate", "40", "--description", "for the tests")
    assert made.status == 0 and "secrets/tls.json: version 1, for a, b, c to read" in made.text
    project = three.project
    project.write("functions/f/function.json", function(secrets=SECRET_USES))
    project.write("functions/f/app.py", CODE)
    assert run(three, "validate").status == 0
    done = push(three, "Secrets")
    assert done.status == 0 and "secretsmanager:GetSecretValue" in done.text, done.text
    three.all_at(project.head())
    key = run(three, "secret", "get", "tls", "-n", "b").text.rstrip("\n")
    assert len(key) == 40 and json.loads(run(three, "secret", "get", "db", "-o", "json").text)["string"] == DB
    for name in "abc":
        nodes.until(lambda name=name: (three[name].resource("functions/f") or {}).get("state") == "ready")
        assert invoke(three, name) == {"user": "shop", "password": "correct-horse-7"[::-1], "key": key[::-1]}
        text = log_text(three, name)
        assert "the password is *** and ***" in text and "started with ***" in text
        assert "correct-horse-7" not in text and key not in text
        assert "correct-horse-7" not in three[name].log.read_text() and "correct-horse-7" not in done.text
        for file in three[name].home.rglob("*"):
            if file.is_file():
                data = file.read_bytes()
                assert b"correct-horse-7" not in data and key.encode() not in data, file
        commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert "correct-horse-7" not in commands and key not in commands


def test_a_new_value_reaches_the_function_in_the_push_that_brings_it(three: Cluster) -> None:
    before = invoke(three, "b")["user"]
    changed = DB.replace("shop", "shop2")
    assert run(three, "secret", "rotate", "db", data=changed).status == 0
    planned = run(three, "plan")
    assert planned.status == 2 and "$.version: 1 -> 2" in planned.text and "$.sealed: (changed)" in planned.text
    done = push(three, "Rotate")
    assert done.status == 0 and "~ function f" in done.text and "correct" not in done.text, done.text
    assert "uses secret db, which changes" in done.text and "uses secret db, which changes" in planned.text
    assert before == "shop" and invoke(three, "a")["user"] == "shop2"
    nodes.until(lambda: invoke(three, "c")["user"] == "shop2")


def test_an_error_at_the_start_does_not_tell_a_secret(three: Cluster) -> None:
    code = "import os\nraise ValueError('cannot connect with ' + os.environ['DB_PASSWORD'])\ndef handler(e, c): pass\n"
    three.project.write("functions/f/app.py", code)
    done = push(three, "an error at the start")
    assert "cannot connect with ***" in done.text and "correct-horse" not in done.text, done.text
    shown = three["a"].resource("functions/f")
    assert shown is not None and "cannot connect with ***" in shown["message"]
    three.project.write("functions/f/app.py", CODE)
    three.project.write("functions/f/function.json", function("os.getenv", secrets=SECRET_USES))
    trick = push(three, "a handler that is not the function's")
    assert "is not part of the function's code" in trick.text, trick.text
    three.project.write("functions/f/app.py", "from os import getenv\n" + CODE)
    three.project.write("functions/f/function.json", function("app.getenv", secrets=SECRET_USES))
    imported = push(three, "nor what it imports")
    assert "is not part of the function's code" in imported.text, imported.text
    three.project.write("functions/f/app.py", CODE)
    three.project.write("functions/f/function.json", function(secrets=SECRET_USES))
    assert push(three, "as it was").status == 0


def test_reading_and_referring_need_the_right_to_read(three: Cluster, bob: Person) -> None:
    refused = run(three, "secret", "get", "db", by=bob)
    assert (
        refused.status == 1 and "bob may not secretsmanager:GetSecretValue on arn:aws:secretsmanager:" in refused.text
    )
    three.project.write("functions/f/function.json", function(secrets={**SECRET_USES, "ALSO": {"secret": "db"}}))
    assert push(three, "already referred to", by=bob).status == 0, "what it could read before needs no new right"
    three.project.write("secrets/mine.json", json.loads((three.project.folder / "secrets/db.json").read_text()))
    moved = push(three, "a copy", by=three.project.owner)
    assert moved.status != 0 and "what is sealed here is version 2 of secrets/db.json" in moved.text
    three.project.git("reset", "-q", "--hard", "a/main")
    assert run(three, "secret", "set", "other", data="x" * 20).status == 0
    assert push(three, "another").status == 0
    three.project.write("functions/f/function.json", function(secrets={**SECRET_USES, "OTHER": {"secret": "other"}}))
    new = push(three, "a new one", by=bob)
    assert new.status != 0 and "bob may not secretsmanager:GetSecretValue" in new.text


def node_keys(three: Cluster) -> dict[str, tuple[str, str]]:
    found = {}
    for name, node in three.nodes.items():
        line = Home(node.home).node_spec().key
        found[keys.parse_ssh(line).fingerprint] = (name, line)
    return found


def _word(three: Cluster, name: str, document: dict[str, Any]) -> dict[str, str]:
    """What a node that is in the wrong hands would say of it."""
    home = Home(three[name].home)
    former = json.loads(three.project.git("show", "HEAD:secrets/db.json"))["sealed"]
    statement = sealing.statement("secrets/db.json", document["version"], former, document["sealed"])
    signature = sshsig.sign_bare(home.private_key(), sealing.NAMESPACE, statement)
    return {"by": home.public_key().fingerprint, "signature": base64.b64encode(signature).decode()}


@pytest.mark.parametrize(
    "how",
    [
        "another value",
        "another value, by a node's word",
        "for one node only, by its word",
        "an older version",
        "nobody",
        "garbage",
    ],
)
def test_a_rewrap_that_changes_more_than_ciphertext_is_refused(three: Cluster, how: str) -> None:
    path = three.project.folder / "secrets/db.json"
    document = json.loads(path.read_text())
    value = SecretValue(document["version"], b'{"user": "eve", "password": "evil-horse"}')
    lines = [line for _, line in node_keys(three).values()]
    expected = "no node says that the value is the same"
    if how == "another value":
        document["sealed"] = sealing.seal(value, "secrets/db.json", lines)
    elif how == "another value, by a node's word":
        document["sealed"] = sealing.seal(value, "secrets/db.json", lines)
        document["rewrapped"] = _word(three, "c", document)
        expected = "a new value under an old version"
    elif how == "for one node only, by its word":
        document["sealed"] = sealing.seal(value, "secrets/db.json", [Home(three["c"].home).node_spec().key])
        document["rewrapped"] = _word(three, "c", document)
        expected = "could not any more under the same version"
    elif how == "an older version":
        first = three.project.git("log", "--format=%H", "--", "secrets/db.json").splitlines()[-1]
        old = json.loads(three.project.git("show", f"{first}:secrets/db.json"))
        document |= {"sealed": old["sealed"], "version": old["version"]}
        assert old["version"] < value.version
        expected = "no value comes back"
    elif how == "nobody":
        stranger = projects.node_key()
        document["sealed"] = sealing.seal(value, "secrets/db.json", [stranger])
        expected = "sealed for keys that readers does not name"
    else:
        document["sealed"] = document["sealed"][:200] + "A" + document["sealed"][201:]
        expected = "secrets/db.json"
    path.write_text(json.dumps(document))
    done = push(three, how)
    assert done.status != 0 and expected in done.text and "horse" not in done.text, done.text


@pytest.mark.soak
def test_a_node_that_comes_is_sealed_for_and_one_that_goes_is_remembered(three: Cluster, tmp_path: Path) -> None:
    owner = three.project.owner
    late = nodes.Node(tmp_path / "late", owner, "late", address="127.0.0.9")
    three.project.write("nodes/late.json", late.init())
    assert push(three, "one more node").status == 0
    late.start()
    try:
        nodes.until(lambda: late.main() == three.project.head(), 60)
        nodes.until(lambda: (late.resource("functions/f") or {}).get("state") == "failed")
        row = late.resource("secrets/db")
        assert (
            row is not None
            and "this node cannot open it" in row["message"]
            and "owsgit secret rewrap" in row["message"]
        )
        assert "not sealed for late: owsgit secret rewrap db" in run(three, "secret", "list").text
        again = run(three, "secret", "rewrap")
        assert again.status == 0 and "sealed anew: db" in again.text, again.text
        done = push(three, "Rewrap")
        assert done.status == 0 and "ows:RewrapSecret" in done.text and "PutSecretValue" not in done.text, done.text
        nodes.until(lambda: (late.resource("functions/f") or {}).get("state") == "ready", 60)
        assert run(three, "secret", "rewrap").text.startswith("nothing to do")
        three.project.git("rm", "-q", "nodes/late.json")
        assert push(three, "and away").status == 0
        nodes.until(lambda: late.main() == three.project.head(), 60)
        closed = run(three, "secret", "get", "db", "-n", late.url())
        assert closed.status == 3 and "does not name this node" in closed.text, closed.text
    finally:
        late.stop()
    warnings = three["b"].status()["warnings"]
    assert any("late, which is gone, could read it" in each and "secret rotate tls" in each for each in warnings)
    for name in ("db", "tls", "other"):
        assert run(three, "secret", "rotate", name, "--generate").status == 0
    three.project.write("functions/f/function.json", function())
    assert push(three, "Rotate all").status == 0
    assert not any("could read" in each for each in three["a"].status()["warnings"])


def test_plain_secrets_are_warned_about_and_bad_values_are_refused(three: Cluster) -> None:
    settings = {"DB_PASSWORD": "hunter2secret", "PLAIN": "x"}
    three.project.write("functions/f/function.json", function(environment=settings))
    three.project.write("docs/notes.md", "key AKIAIOSFODNN7EXAMPLA\n")
    done = run(three, "validate")
    assert done.status == 0 and "warning: functions/f/function.json: line" in done.text and "docs/notes.md" in done.text
    assert "hunter2" not in done.text and "AKIA" not in done.text
    for arguments, data, told in (
        (("set", "x"), "", "the value is empty"),
        (("set", "x y"), "v", "is not a secret's name"),
        (("set", "x"), "v" * 70_000, "more than 65,536 bytes"),
        (("set", "x", "--generate", "5"), None, "between 8 and 4096"),
        (("rotate", "nothing"), "v", "there is no secret 'nothing'"),
        (("get", "nothing"), None, "there is no secret 'nothing'"),
        (("rewrap", "nothing"), None, "there is no secret 'nothing'"),
    ):
        failed = run(three, "secret", *arguments, data=data)
        assert failed.status == 1 and told in failed.text and "remedy" in failed.text, failed.text


def test_up_takes_values_to_develop_with(three: Cluster, tmp_path: Path) -> None:
    port = free_port()
    three.project.write("functions/f/function.json", function(secrets={"DB": {"secret": "db"}}))
    three.project.write("functions/f/app.py", "import os\ndef handler(e, c):\n    return os.environ['DB']\n")
    three.project.write("gateways/dev.json", {"port": port, "routes": {"GET /": {"function": "f"}}})
    (tmp_path / "db").write_text("to develop with")
    command = [*nodes.OWSGIT, "up", "--secrets", str(tmp_path)]
    process = subprocess.Popen(command, cwd=three.project.folder, env=three.project.owner.environment,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:

        def answer() -> str:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/").text
            except httpx.TransportError:
                return ""

        assert nodes.until(lambda: "to develop with" in answer())
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.soak
def test_dev_takes_values_to_develop_with(three: Cluster, tmp_path: Path) -> None:
    three.project.write("functions/f/function.json", function(secrets={"DB": {"secret": "db"}}))
    three.project.write("functions/f/app.py", "import os\ndef handler(e, c):\n    return os.environ['DB'][::-1]\n")
    (tmp_path / "db").write_text("to develop with")
    assert run(three, "dev", "f", "--once", "--secrets", str(tmp_path)).text.strip() == '"htiw poleved ot"'
    assert run(three, "dev", "f", "--once", "--env", "DB=mine").text.strip() == '"enim"'
    refused = run(three, "dev", "f", "--once")
    assert refused.status == 3 and "owsgit dev f --secrets FOLDER" in refused.text
