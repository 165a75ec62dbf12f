"""`owsgit init`: an infra repository with a signed genesis commit."""

import json
import re
import shutil
from getpass import getuser
from pathlib import Path
from typing import Any

import click

from owsgit.cli import connect, output, signing
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone, run
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError, OwsgitError
from owsgit.model.names import NAME_RULE, is_name
from owsgit.node.home import Home
from owsgit.services import KINDS

README = """# {name}

The infrastructure of {name}, applied by owsgit: every change is a signed commit.

    owsgit validate          check what you changed
    owsgit plan              see what it would do
    git commit -S && git push
    owsgit status            see how it runs
"""


@output.command("init")
@click.argument("name")
@click.option("--user", help="Your user name in the project; your login name if not given.")
@click.option(
    "--node",
    "nodes",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A first node: its home, or the file <name>.json that 'owsgit node init' printed. May be given again.",
)
@click.option(
    "--template",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with infra files to start from, such as example-infra-repo.",
)
@click.option("--region", default="us-east-1", show_default=True, help="What stands as region in ARNs.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to make it; ./NAME if not given.")
def command(
    name: str, user: str | None, nodes: tuple[Path, ...], template: Path | None, region: str, directory: Path | None
) -> Result:
    """Make an infra repository with a signed genesis commit.

    You are its root user, by the key that git signs with already (SSH or OpenPGP), else your SSH key, else a new one.
    Only this repository's git settings are changed.
    """
    if not is_name(name):
        raise InvalidError(f"{name!r} is not a project's name", remedy=f"use {NAME_RULE}")
    folder = directory or Path(name)
    if (folder / ".git").exists():
        raise OwsgitError(f"{folder} is a git repository already", remedy="choose another --directory")
    user = user or _login()
    if not is_name(user):
        raise InvalidError(f"{user!r} is not a user's name", remedy=f"use {NAME_RULE}")
    found = dict(_node(path) for path in nodes)
    key = signing.discover(None, create=True)
    done = [f"signing key: {key.found}"]
    folder.mkdir(parents=True, exist_ok=True)
    if template is not None:
        shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        done.append(f"copied {template}")
    run(folder, "init", "--quiet", "--initial-branch=main")
    clone = Clone(folder)
    own = [*signing.settings(key), *signing.author(clone.folder)]
    clone.set_config(own)
    done.append("git settings of this repository: " + ", ".join(f"{option}={value}" for option, value in own))
    _write(clone.folder, name, user, region, [key.public, *_login_keys(key)], found)
    run(clone.folder, "add", "--all")
    run(clone.folder, "commit", "--quiet", "-S", "-m", f"Found {name}")
    genesis = clone.resolve("HEAD")
    state = verify.push(clone.objects(), KINDS, None, genesis).head.state
    done += connect.connect(clone, state, key)
    done.append(f"genesis commit {genesis[:10]}, signed by {user}, who is root")
    data = {"project": name, "id": state.project_id, "directory": str(clone.folder), "user": user, "genesis": genesis}
    following = (
        "git push -u origin main"
        if found
        else "make a node (owsgit node init), commit its file in nodes/, owsgit connect, git push"
    )
    lines = [*done, "", f"project {name}, id {state.project_id}", f"next: cd {folder} && {following}"]
    return Result({**data, "done": done}, Table(lines=lines))


def _login() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", getuser()).strip("-._") or "root"


def _login_keys(key: signing.SigningKey) -> list[str]:
    """Who signs with OpenPGP still logs in with SSH."""
    if key.format != "openpgp":
        return []
    login = signing.login_key()
    if login is None:
        output.note("note: you sign with OpenPGP and have no SSH key to log in with: add one to your users/ file later")
    else:
        output.note("note: your SSH key is added to your user too: nodes are reached by SSH")
    return [login] if login else []


def _node(path: Path) -> tuple[str, NodeSpec]:
    """(name, spec) of a node, from its home or its file."""
    if path.is_dir():
        home = Home(path)
        return home.settings().name, home.node_spec()
    name = path.name.removesuffix(".json")
    if not is_name(name):
        raise InvalidError(f"{name!r} is not a node's name", file=str(path), remedy="name the file <node>.json")
    return name, NodeSpec.parse(path.read_bytes(), str(path))


def _write(folder: Path, name: str, user: str, region: str, keys: list[str], nodes: dict[str, NodeSpec]) -> None:
    documents: dict[str, Any] = {
        "project.json": {"name": name, "region": region, "roots": [user]},
        f"users/{user}.json": {"keys": keys},
        **{f"nodes/{node}.json": spec.document() for node, spec in nodes.items()},
    }
    for path, document in documents.items():
        file = folder / path
        if file.exists():
            raise OwsgitError(f"{file} exists already", remedy="choose an empty --directory")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document, indent=2) + "\n")
    for path, text in (("README.md", README.format(name=name)), (".gitignore", "__pycache__/\n")):
        if not (folder / path).exists():
            (folder / path).write_text(text)
