"""Every command of the command line, in every form of output, against a real node."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml

from owsgit.cli import COMMANDS, EXIT_USAGE
from owsgit.cli import owsgit as group
from owsgit.model.names import project_id
from tests.conftest import gateway_url, serve
from tests.services.tables.api import document
from tests.support import nodes, people, projects
from tests.support.nodes import Node, owsgit, push
from tests.support.people import Person
from tests.support.projects import Project


class Place:
    """A clone, its node, and whoever types."""

    def __init__(self, project: Project, node: Node) -> None:
        self.project, self.node = project, node
        project.git("remote", "add", "origin", node.url())
        project.git("config", "user.signingKey", str(project.owner.private.with_suffix(".pub")))
        self.project_id = project_id(project.head())

    def __call__(self, *arguments: str, by: Person | None = None, data: str | None = None) -> projects.Done:
        return owsgit(*arguments, by=by or self.project.owner, cwd=self.project.folder, data=data)

    @cached_property
    def kept(self) -> Path:
        """A backup of the node, to restore from."""
        file = self.node.home.with_suffix(".kept")
        done = self("backup", str(file), "--home", str(self.node.home))
        assert done.status == 0, done.text
        return file


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, alice: Person, bob: Person) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    node = Node(folder / "node", alice, aws_port=nodes.free_port())
    yield Place(serve(folder / "shop", alice, bob, node, {"tables/notes.json": document()}), node)
    node.stop()


def calls(place: Place, tmp_path: Path) -> dict[str, list[str]]:
    """How each command is called in this test; `up` and `node run` do not end by themselves and have tests of their own."""
    return {
        "backup": [str(tmp_path / "node.backup"), "--home", str(place.node.home)],
        "restore": [str(place.kept), "--home", str(tmp_path / "restored")],
        "clone": [place.node.url(), str(tmp_path / "cloned"), "--project", place.project_id],
        "completion": ["bash"],
        "connect": [],
        "audit": [],
        "configure": ["aws", "--profile", "shop"],
        "credentials": [],
        "dev": ["hello", "--once", "--payload", '{"pathParameters": {"name": "you"}}'],
        "doctor": ["--home", str(place.node.home)],
        "events": ["hello"],
        "gateway": ["routes"],
        "init": ["new", "--directory", str(tmp_path / "new")],
        "hooks": ["uninstall"],
        "invoke": ["hello", "--payload", '{"pathParameters": {"name": "you"}}'],
        "log": [],
        "logs": ["hello"],
        "metrics": [],
        "mirror": [".", "origin"],
        "node": ["show", "--home", str(place.node.home)],
        "plan": ["--against", ""],
        "proposals": [],
        "schema": ["function"],
        "secret": ["list"],
        "status": [],
        "tables": ["export", "notes", str(tmp_path / "notes.json.gz")],
        "validate": [],
        "verify": [],
        "why": ["bob", "lambda:UpdateFunctionCode", "functions/hello"],
    }


OF_A_PROPOSAL = {"approve", "reject", "show"}
"""These need one: tests/node/test_review.py."""


EVERY = sorted(set(COMMANDS) - {"up"} - OF_A_PROPOSAL)
IN_YAML = ("audit", "plan", "status", "validate")  # what is written as JSON is written as YAML in the same place


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name in EVERY for form in ("table", "json")] + [(each, "yaml") for each in IN_YAML],
)
def test_every_command_speaks_every_form(place: Place, tmp_path: Path, name: str, form: str) -> None:
    before = place.project.git("config", "--local", "--list")
    done = place(name, *calls(place, tmp_path)[name], "--output", form)
    assert done.status in ((0, 2) if name == "plan" else (0,)), done.text
    assert done.text.strip(), "it prints something"
    assert "Traceback" not in done.text and "\x1b" not in done.text
    if form != "table":
        data: Any = json.loads(done.text) if form == "json" else yaml.safe_load(done.text)
        assert isinstance(data, dict | list)
    if name == "connect":
        for line in place.project.git("config", "--local", "--list").splitlines():
            key, _, value = line.partition("=")
            if line not in before and key == "core.sshcommand":
                place.project.git("config", "--unset", "core.sshCommand")
                assert "StrictHostKeyChecking=yes" in value


def test_every_command_has_help_and_an_output_option() -> None:
    def walk(command: click.Command, name: str) -> None:
        assert command.help, name
        if isinstance(command, click.Group):
            for below in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), below)
                assert found is not None
                walk(found, f"{name} {below}")
            return
        assert "output" in {parameter.name for parameter in command.params}, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"

    walk(group, "owsgit")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["statsu"], EXIT_USAGE, "Did you mean 'status'?"),
        (["status", "--nope"], EXIT_USAGE, "--nope"),
        (["plan", "nowhere", "--against", "HEAD"], 1, "'nowhere' names no commit"),
        (["status", "--node", "nowhere"], 3, "this clone has no remote 'nowhere'"),
        (["status", "--node", "ssh://127.0.0.1:1/shop"], 3, "cannot be reached"),
        (["invoke", "helo"], 1, "there is no function 'helo'"),
        (["invoke", "hello", "-p", "{a: 1}"], 1, "the payload is not JSON"),
        (["invoke", "hello", "-p", "@nowhere"], 1, "nowhere cannot be read"),
        (["invoke", "hello", "--async", "--stream"], EXIT_USAGE, "leave one out"),
        (["logs", "helo"], 1, "there is no function 'helo'"),
        (["verify", "--project", "ows1qqqq"], 1, "is not a project id"),
        (["init", "a b"], 1, "is not a project's name"),
        (["node", "show", "--home", "/nowhere"], 3, "make one there: owsgit node init NAME --home /nowhere"),
        (["node", "init", "x", "--owner", "ssh-ed25519 AAAA"], 1, "--owner:"),
    ],
)
def test_errors_name_the_value_and_the_remedy(place: Place, arguments: list[str], status: int, told: str) -> None:
    done = place(*arguments)
    assert done.status == status, done.text
    assert told in done.text and "Traceback" not in done.text


def test_outside_of_a_repository_it_says_so(tmp_path: Path, alice: Person) -> None:
    done = owsgit("status", by=alice, cwd=tmp_path)
    assert done.status == 3 and "is not in a git repository" in done.text


def test_plan_compares_like_terraform(place: Place) -> None:
    assert place("plan").status == 0 and "nothing to do" in place("plan").text
    file = place.project.folder / "functions/hello/function.json"
    before = file.read_text()
    try:
        place.project.write("functions/hello/function.json", projects.function(timeout=7, environment={"AB": "c"}))
        changed = place("plan")
        assert changed.status == 2
        assert "~ function hello" in changed.text and "$.timeout: (absent) -> 7" in changed.text
        assert json.loads(place("plan", "-o", "json", "--against", "HEAD").text)["steps"][0]["changes"][0]["path"]
        file.write_text("{")
        assert place("plan").status == 1
        assert place("plan", "HEAD").status == 0
    finally:
        file.write_text(before)


def test_validate_finds_everything_in_the_working_tree(place: Place) -> None:
    bad = place.project.folder / "users/zoe.json"
    bad.write_text('{"polices": [], "keys": ["x"]}')
    try:
        done = place("validate", "-o", "json")
        assert done.status == 1
        problems = json.loads(done.text.split("\nerror")[0])["problems"]
        assert {problem["path"] for problem in problems} == {"$.polices", "$.keys[0]"}
        assert place.project.git("status", "--porcelain") == "?? users/zoe.json", "the index is as it was"
    finally:
        bad.unlink()


def test_invoke_needs_the_right_and_shows_errors(place: Place, bob: Person, mallory: Person) -> None:
    assert json.loads(place("invoke", "hello").text)["body"] == "hello world"
    assert (
        json.loads(place("invoke", "hello", "-p", "-", data='{"pathParameters": {"name": "x"}}').text)["body"]
        == "hello x"
    )
    assert place("invoke", "hello", by=bob).status == 0
    denied = place("logs", "hello", by=bob)
    assert denied.status == 1 and "bob may not logs:GetLogEvents" in denied.text
    here = {
        "Effect": "Allow",
        "Action": "logs:*",
        "Resource": "*",
        "Condition": {
            "IpAddress": {"aws:SourceIp": "127.0.0.0/8"},
            "DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"},
        },
    }
    place.project.write(
        "users/bob.json",
        {
            "keys": [bob.public],
            "policies": ["code"],
            "inlinePolicies": {"logs": {"Version": "2012-10-17", "Statement": here}},
        },
    )
    place.project.commit()
    assert push(place.project, place.node).status == 0
    assert place("logs", "hello", by=bob).status == 0
    unknown = place("invoke", "hello", by=mallory)
    assert unknown.status == 3 and "Permission denied" in unknown.text
    failed = place("invoke", "hello", "-p", "[]", "-o", "json")
    assert failed.status == 4 and "AttributeError" in failed.text


def test_an_answer_that_is_no_json_is_shown_as_text(place: Place) -> None:
    place.project.write("functions/text/function.json", projects.function("index.handler", runtime="nodejs"))
    place.project.write(
        "functions/text/index.js",
        "exports.handler = awslambda.streamifyResponse(async (event, stream) => { stream.write('a b'); stream.end() })",
    )
    place.project.commit()
    assert push(place.project, place.node).status == 0
    done = place("invoke", "text")
    assert done.status == 0 and done.text == '"a b"\n'
    assert place("invoke", "text", "--stream").text == "a b"


def test_a_gateway_goes_through_the_ledger_as_openapi(place: Place, tmp_path: Path) -> None:
    exported = tmp_path / "api.json"
    exported.write_text(place("gateway", "export", "api", "--node", "origin", "--format", "json").text)
    document = json.loads(exported.read_text())
    assert document == json.loads(place("gateway", "export", "api", "--format", "json").text)
    operation = document["paths"]["/hello/{name}"]["get"]
    operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"pattern": "^[a-z]+$"}}]
    operation["x-amazon-apigateway-request-validator"] = "all"
    document["x-amazon-apigateway-request-validators"] = {
        "all": {"validateRequestBody": True, "validateRequestParameters": True}
    }
    exported.write_text(json.dumps(document))
    assert "differs" in place("gateway", "import", str(exported), "--name", "api").text
    assert place("gateway", "import", str(exported), "--name", "api", "--force").status == 0
    tested = place("gateway", "test", "GET", "/hello/5")
    assert tested.status == 1 and "Invalid request parameters: [name]" in tested.text
    place.project.commit()
    assert push(place.project, place.node).status == 0
    url = gateway_url(place.project)
    assert httpx.get(f"{url}/hello/you").text == "hello you"
    assert httpx.get(f"{url}/hello/5").json() == {"message": "Invalid request parameters: [name]"}
    file = place.project.folder / "gateways/api.json"
    before = file.read_text()
    file.write_text(before.replace("^[a-z]+$", "^(?=a)$"))
    try:
        place.project.commit()
        refused = push(place.project, place.node)
        path = "$.routes['GET /hello/{name}'].request.parameters['path.name'].schema.pattern"
        assert refused.status != 0 and path in refused.text and "unbounded time" in refused.text
    finally:
        place.project.git("reset", "--hard", "HEAD~1")


def test_why_names_the_statement(place: Place) -> None:
    assert (
        "allowed by policies/code.json $.Statement[0]"
        in place("why", "bob", "lambda:UpdateFunctionCode", "functions/hello").text
    )
    denied = place("why", "bob", "lambda:DeleteFunction", "arn:aws:lambda:us-east-1:1:function:x", "-o", "json")
    assert denied.status == 1 and json.loads(denied.text)["reason"] == "no policy of bob allows it"
    assert place("why", "alice", "iam:CreateUser", "users/zoe").status == 0
    for arguments in (
        ["bo", "a:b", "functions/x"],
        ["bob", "a:b", "function/x"],
        ["bob", "a:b", "functions/x", "--context", "y"],
    ):
        done = place("why", *arguments)
        assert done.status == 1 and "remedy" in done.text


def test_logs_follow_goes_on_with_new_lines(place: Place) -> None:
    def starts() -> str:
        assert follower.stdout is not None
        line = json.loads(follower.stdout.readline())
        assert line["message"].startswith("START RequestId")
        return str(line["requestId"])

    assert httpx.get(f"{gateway_url(place.project)}/hello/you").status_code == 200
    follower = subprocess.Popen(
        [*nodes.OWSGIT, "logs", "hello", "--follow", "--lines", "1", "--filter", "START RequestId", "-o", "json"],
        cwd=place.project.folder, env=place.project.owner.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        before = starts()
        assert httpx.get(f"{gateway_url(place.project)}/hello/you").status_code == 200
        assert starts() != before
    finally:
        follower.kill()
        follower.wait()


def test_clone_trusts_the_project_id_alone(place: Place, tmp_path: Path, alice: Person, mallory: Person) -> None:
    project = json.loads(place("status", "-o", "json").text)["project"]["id"]
    wrong = project[:-1] + ("q" if project[-1] != "q" else "p")
    assert "is not a project id" in place("clone", place.node.url(), str(tmp_path / "a"), "--project", wrong).text
    other = projects.create(tmp_path / "other", alice)
    refused = place("clone", place.node.url(), str(tmp_path / "b"), "--project", project_id(other.head()))
    assert refused.status == 1 and "the history of another project" in refused.text
    assert not (tmp_path / "b").exists()


def test_init_uses_the_key_that_git_signs_with_and_makes_one_where_there_is_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    bare = Person("zed", home / "none")
    environment = {**people.CLEAN, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(
        [*nodes.OWSGIT, "init", "shop", "--user", "zed", "-o", "json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (home / ".ssh/id_ed25519").stat().st_mode & 0o777 == 0o600
    data = json.loads(done.stdout)
    verified = subprocess.run(
        [*nodes.OWSGIT, "verify", "shop", "--project", data["id"]], cwd=tmp_path, env=environment, capture_output=True
    )
    assert verified.returncode == 0
    shown = subprocess.run(
        ["git", "log", "--show-signature"], cwd=tmp_path / "shop", env=environment, capture_output=True, text=True
    )
    assert 'Good "git" signature for zed' in shown.stdout
    again = subprocess.run(
        [*nodes.OWSGIT, "init", "shop"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 1 and "is a git repository already" in again.stderr
    assert bare.name == "zed"


def test_the_example_is_valid_and_serves(tmp_path: Path, alice: Person) -> None:
    example = Path(__file__).parents[2] / "example-infra-repo"
    node = Node(tmp_path / "node", alice)
    (tmp_path / "a.json").write_text(json.dumps(node.init()))
    done = owsgit(
        "init", "shop", "--user", "alice", "--node", "a.json", "--template", str(example), by=alice, cwd=tmp_path
    )
    assert done.status == 0, done.text
    project = Project(tmp_path / "shop", alice)
    document = json.loads((project.folder / "gateways/api.json").read_text())
    project.write("gateways/api.json", {**document, "port": nodes.free_port()})
    project.commit("a free port")
    node.start()
    try:
        pushed = push(project, node)
        assert pushed.status == 0, pushed.text
        url = gateway_url(project)
        assert httpx.get(f"{url}/products", params={"tag": "coffee", "limit": 1}).json()["count"] == 2
        assert httpx.get(f"{url}/products/none").status_code == 404
        assert httpx.post(f"{url}/price", json={"cents": 100, "country": "DE"}).json()["gross"] == 119
        assert httpx.post(f"{url}/price", json={"cents": 100, "country": "XX"}).status_code == 400
        unchecked = httpx.post(f"{url}/price", content='{"cents": "1", "country": "DE"}').json()
        assert unchecked["message"] == "Invalid request body" and unchecked["errors"][0]["path"] == "$.cents"
        assert "/price" in httpx.get(f"{url}/docs/openapi.json").json()["paths"]
    finally:
        node.stop()


def test_starting_the_command_line_imports_click_and_little_else() -> None:
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import sys; sys.argv = ['owsgit', '--version']; from owsgit.cli import main; main()"],
        capture_output=True, text=True,
    ).stderr  # fmt: skip
    modules = {line.rsplit("|", 1)[1].strip() for line in listed.splitlines() if "|" in line}
    assert "click" in modules
    assert not modules & {"pydantic", "pygit2", "asyncssh", "rich", "yaml", "uvloop", "starlette", "owsgit.model.spec"}


def test_a_clone_follows_its_node_to_another_port_and_the_project_to_another_name(
    tmp_path: Path, alice: Person, bob: Person
) -> None:
    node = Node(tmp_path / "node", alice)
    project = serve(tmp_path / "shop", alice, bob, node)
    try:
        connected = owsgit("connect", by=alice, cwd=project.folder)
        assert connected.status == 0 and f"remote origin: {node.url()}" in connected.text
        node.stop()
        spec = json.loads((project.folder / "nodes/a.json").read_text())
        node.port = nodes.free_port()
        settings = json.loads((node.home / "node.json").read_text())
        (node.home / "node.json").write_text(json.dumps({**settings, "sshPort": node.port}))
        project.write("nodes/a.json", {**spec, "ports": {"ssh": node.port}})
        project.write("project.json", {"name": "store", "roots": ["alice"]})
        project.commit()
        node.start()
        assert push(project, node).status == 0
        lost = push(project, node)
        assert "there is no repository '/shop' here; the project is 'store'" in lost.text
        assert owsgit("connect", by=alice, cwd=project.folder).status == 0
        assert project.git("remote", "get-url", "origin") == node.url("store")
    finally:
        node.stop()


def test_a_weak_key_is_told_before_anything_is_made(tmp_path: Path, alice: Person) -> None:
    (tmp_path / "weak.pub").write_text("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7" + "A" * 168 + "== weak\n")
    person = Person("weak", alice.private, {"user.signingKey": str(tmp_path / "weak.pub")})
    done = owsgit("init", "shop", by=person, cwd=tmp_path)
    assert done.status == 1 and "ssh-keygen -t ed25519" in done.text and "fault of owsgit" not in done.text
    assert not (tmp_path / "shop").exists()


def test_a_repository_that_is_none_of_ours_is_told_so(tmp_path: Path, alice: Person) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    done = owsgit("validate", by=alice, cwd=tmp_path / "other")
    assert done.status == 1 and "is no infra repository" in done.text


def test_a_role_is_taken_on_for_a_call_and_gives_its_rights_alone(place: Place, bob: Person) -> None:
    project = place.project
    named = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::*:user/bob"}, "Action": "sts:AssumeRole"}
    project.write("users/bob.json", {"keys": [bob.public], "policies": ["code"]})
    project.write("roles/reader.json", {"trust": {"Statement": [named]}, "policies": ["read-logs"]})
    project.write("policies/read-logs.json", projects.allow("logs:GetLogEvents"))
    project.commit("A role for bob")
    assert project.try_git("push", "origin", "HEAD:main").status == 0
    refused = place("logs", "hello", by=bob)
    assert refused.status == 1 and "bob may not logs:GetLogEvents" in refused.text
    assert place("logs", "hello", "--role", "reader", by=bob).status == 0
    lost = place("invoke", "hello", "--role", "reader", by=bob)
    assert lost.status == 1 and "role reader (session owsgit-bob) may not lambda:InvokeFunction" in lost.text
    nobody = place("logs", "hello", "--role", "writer", by=bob)
    assert nobody.status == 1 and "there is no role 'writer'" in nobody.text
    told = place("why", "roles/reader", "logs:GetLogEvents", "functions/hello")
    assert told.status == 0 and "allowed by policies/read-logs.json $.Statement[0]" in told.text
    trusted = place("why", "bob", "sts:AssumeRole", "roles/reader")
    assert trusted.status == 0 and "allowed by roles/reader.json $.trust.Statement[0]" in trusted.text
    assert "there is no service 'lgs'" in place("why", "bob", "lgs:GetLogEvents", "functions/hello").text
    (project.folder / "narrow.json").write_text(json.dumps(projects.allow("s3:GetObject")))
    bounded = place(
        "why", "roles/reader/one", "logs:GetLogEvents", "functions/hello", "--session-policy", "narrow.json"
    )
    (project.folder / "narrow.json").unlink()
    assert bounded.status == 1 and "but not by the session policy narrow.json" in bounded.text
