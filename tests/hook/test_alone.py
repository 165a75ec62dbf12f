"""The hook in a plain bare repository on any git server, without a node."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import people, projects
from tests.support.nodes import owsgit
from tests.support.people import Person
from tests.support.projects import Project

HOOKS = Path(__file__).parents[2] / "hooks"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "plain.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    for hook in ("pre-receive", "proc-receive"):
        shutil.copy(HOOKS / hook, path / "hooks" / hook)
    return path


def push(project: Project, bare: Path, ref: str = "HEAD:main", python: str = sys.executable) -> projects.Done:
    done = subprocess.run(
        ["git", "push", str(bare), ref],
        cwd=project.folder,
        env={**project.owner.environment, "OWSGIT_PYTHON": python},
        capture_output=True,
        text=True,
    )
    return projects.Done(done.returncode, done.stdout + done.stderr)


def test_a_python_without_owsgit_lets_nothing_in_and_says_what_to_set(project: Project, bare: Path) -> None:
    other = bare / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    other.chmod(0o755)
    refused = push(project, bare, python=str(other))
    assert refused.status != 0 and "OWSGIT_PYTHON to one that has it: .venv/bin/python of its" in refused.text


def test_it_lets_in_what_is_signed_and_allowed(project: Project, bare: Path) -> None:
    first = push(project, bare)
    assert first.status == 0 and "signed by alice" in first.text
    project.write("README.md", "x")
    project.commit("second")
    second = push(project, bare)
    assert second.status == 0 and "second" in second.text


def test_it_tells_of_what_is_allowed_and_hardly_meant(project: Project, bare: Path) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/prod/*"}
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    project.write("gateways/shop.json", {"port": 8080, "routes": {}, "policy": policy})
    project.commit("guard it")
    told = push(project, bare)
    assert (
        told.status == 0 and "gateways/shop.json $.policy.Statement[0].Resource: execute-api:/prod/* is no" in told.text
    )
    validated = owsgit("validate", by=project.owner, cwd=project.folder)
    assert validated.status == 0 and "warning: gateways/shop.json $.policy" in validated.text


def test_it_refuses_what_a_node_would_refuse(project: Project, bare: Path, mallory: Person) -> None:
    project.write("README.md", "x")
    project.commit(signed=False)
    assert "it is not signed" in push(project, bare).text
    project.git("reset", "-q", "--hard", "HEAD^")
    assert push(project, bare).status == 0
    project.write("README.md", "y")
    project.commit(by=mallory)
    refused = push(project, bare)
    assert refused.status != 0 and "which is no user's key" in refused.text
    assert push(project, bare, "HEAD:refs/heads/other").status != 0
    assert push(project, bare, ":main").status != 0


def test_it_looks_at_the_clock_for_certificates(tmp_path: Path, bare: Path, alice: Person) -> None:
    authority, dan = people.make(tmp_path, "authority"), people.make(tmp_path, "dan")
    files = {
        "project.json": {"name": "shop", "roots": ["alice"], "certificateAuthorities": [authority.public]},
        "users/dan.json": {"policies": ["files"]},
        "policies/files.json": projects.allow("ows:UpdateFile"),
    }
    project = projects.create(tmp_path / "certified", alice, files=files)
    assert push(project, bare).status == 0
    for validity, taken in (("20200101:20210101", False), ("20200101:20990101", True)):
        subprocess.run(["ssh-keygen", "-q", "-s", authority.private, "-I", "x", "-n", "dan", "-V", validity,
                        dan.private.with_suffix(".pub")], check=True)  # fmt: skip
        signing = Person("dan", dan.private, {"user.signingKey": str(dan.private.with_name("key-cert.pub"))})
        project.write("README.md", validity)
        project.commit(by=signing)
        done = push(project, bare)
        assert (done.status == 0) is taken and ("has expired" in done.text) is not taken, done.text
        project.git("reset", "-q", "--hard", "HEAD^" if not taken else "HEAD")


def test_hooks_are_ten_lines_at_most_and_executable() -> None:
    for hook in HOOKS.iterdir():
        assert len(hook.read_text().splitlines()) <= 10
        assert os.access(hook, os.X_OK)


def test_starting_the_hook_does_not_import_the_world() -> None:
    listed = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", "from owsgit import hook"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    modules = {line.rsplit("|", 1)[1].strip() for line in listed.splitlines()}
    assert "owsgit.hook" in modules
    assert not modules & {"pydantic", "pygit2", "asyncio", "json", "socket", "subprocess", "pathlib", "owsgit.model"}
