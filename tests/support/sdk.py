"""boto3 as its users set it up."""

import sys
from pathlib import Path

import boto3
import pytest

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
