"""The documentation is true: generated pages are up to date, commands run, links lead somewhere, everything is listed."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from docs import generate
from owsgit.cli import COMMANDS
from owsgit.services import KINDS
from tests.support import nodes, people

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", ".demo", "node_modules"} & set(path.relative_to(ROOT).parts) and "site-packages" not in str(path)
]


@pytest.mark.parametrize("path", sorted(generate.pages()))
def test_generated_pages_are_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == generate.pages()[path], "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs/how-to").glob("*.md")), ids=lambda page: page.name)
def test_files_that_a_page_shows_are_valid(page: Path) -> None:
    for file, body in re.findall(r"^`([\w-]+/[\w./-]+\.json)`\n+```json\n(.*?)^```", page.read_text(), re.M | re.S):
        kind = KINDS.by_folder[file.split("/")[0]]
        kind.spec.parse(body.encode(), f"{page.name}: {file}")
    for body in re.findall(r'^```json\n(\{\n  "port".*?)^```', page.read_text(), re.M | re.S):
        KINDS["gateway"].spec.parse(body.encode(), page.name)


def test_every_attack_of_the_threat_model_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/explanation/threat-model.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_[a-z0-9_]+)`", text)
    assert len(named) > 10
    for name in named:
        assert f"def {name}(" in tests, name
    for path in re.findall(r"`(tests/[a-z_/]+\.py)`", text):
        assert (ROOT / path).exists(), path


def test_the_readme_and_the_changelog_know_every_command() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert all(f"`{name}`" in text for name in COMMANDS)


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path.parent.name for path in (ROOT / "owsgit").glob("*/__init__.py")]
    assert all(f"`{room}" in text for room in rooms), rooms


def test_every_package_says_what_lives_in_it() -> None:
    for path in (ROOT / "owsgit").rglob("*.py"):
        assert path.read_text().startswith('"""'), path


class Shell:
    """Runs the commands of a page, in one folder after the other as `cd` says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[subprocess.Popen[bytes]] = []
        home = folder / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519"], check=True)
        self.environment = {
            **people.CLEAN,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def run(self, command: str, expected: list[str]) -> None:
        if command.endswith(" &"):
            log = (self.folder / "server.log").open("wb")
            self.servers.append(
                subprocess.Popen(command[:-2].split(), cwd=self.folder, env=self.environment, stderr=log, stdout=log)
            )
            nodes.until(lambda: b"serves on" in (self.folder / "server.log").read_bytes())
            return
        if command.startswith("cd "):
            self.folder /= command[3:]
            return
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        for line in expected:
            assert re.sub(r"\s+", " ", line) in re.sub(r"\s+", " ", done.stdout), (
                f"$ {command}\n{done.stdout}\nlacks: {line}"
            )

    def close(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait(30)


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs/tutorial/first-service.md").read_text()
    text = text.replace("7022", str(nodes.free_port())).replace("8080", str(nodes.free_port()))
    shell = Shell(tmp_path)
    began = time.monotonic()
    ran = 0
    try:
        for file, language, body in re.findall(r"(?:^`([^`\n]+)`\n)?^```(\w+)\n(.*?)^```", text, re.M | re.S):
            if language == "console":
                for block in re.split(r"^\$ ", body, flags=re.M)[1:]:
                    command, *expected = block.rstrip("\n").split("\n")
                    shell.run(command, expected)
                    ran += 1
            elif file:
                path = shell.folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body)
    finally:
        shell.close()
    assert ran >= 30 and time.monotonic() - began < 120
