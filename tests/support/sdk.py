"""boto3 as its users set it up."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support import projects
from tests.support.authorities import Authority
from tests.support.nodes import Node, free_port, push
from tests.support.people import Person
from tests.support.projects import Project


def session(
    folder: Path, project: Project, by: Person, monkeypatch: pytest.MonkeyPatch, *options: str
) -> boto3.Session:
    """boto3 as somebody has it who wrote the profile of the how-to page."""
    for name, value in by.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    config = folder / "config"
    command = f"{sys.executable} -m owsgit credentials -C {project.folder} {' '.join(options)}"
    config.write_text(f"[profile shop]\nregion = us-east-1\ncredential_process = {command}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
    return boto3.Session(profile_name="shop")


ONCE = Config(retries={"total_max_attempts": 1})
"""An error is told at once."""


def node_for_sdks(folder: Path, owner: Person) -> Node:
    return Node(folder / "node", owner, aws_port=free_port())


def certify(node: Node, folder: Path) -> Authority:
    """Have the node answer SDKs over HTTPS, with a certificate of an authority that only the ledger knows;
    that authority. The certificate is in aws.pem of the folder, the authority in ca.pem."""
    authority = Authority()
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "aws.pem").write_bytes(authority.issue("127.0.0.1"))
    if not (node.home / "node.json").exists():
        node.init()
    file = node.home / "node.json"
    pair = {"chain": str(folder / "aws.pem"), "key": str(folder / "aws.pem"), "authority": str(folder / "ca.pem")}
    file.write_text(json.dumps({**json.loads(file.read_text()), "awsTls": pair}))
    return authority


@contextmanager
def serving(folder: Path, node: Node, files: Mapping[str, Any]) -> Iterator[Project]:
    """A project whose only node answers SDKs, and runs meanwhile; texts among `files` are committed as they are."""
    documents = {path: content for path, content in files.items() if not isinstance(content, str)}
    project = projects.create(folder / "shop", node.owner, files={"nodes/a.json": node.spec(), **documents})
    texts = {path: content for path, content in files.items() if isinstance(content, str)}
    for path, text in texts.items():
        project.write(path, text)
    if texts:
        project.commit("Code")
    node.start()
    try:
        pushed = push(project, node)
        assert pushed.status == 0, pushed.text
        project.git("remote", "add", "origin", node.url())
        yield project
    finally:
        node.stop()


def endpoint(node: Node) -> str:
    return f"http://127.0.0.1:{node.aws_port}"


class Refusal(NamedTuple):
    code: str
    message: str
    status: int


def refused(call: Callable[..., Any], **parameters: Any) -> Refusal:
    """What a call is refused with."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    error = response["Error"]
    return Refusal(error["Code"], error["Message"], response["ResponseMetadata"]["HTTPStatusCode"])
