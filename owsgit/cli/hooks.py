"""`owsgit hooks`: checks in a clone, before anything leaves the machine."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from owsgit.cli import output, plain
from owsgit.cli.output import Result, Table
from owsgit.ledger import outlook, verify
from owsgit.ledger.outlook import Outlook
from owsgit.ledger.receive import FOR_MAIN
from owsgit.ledger.repository import MAIN, NONE, Clone, GitError, run
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.state import GENESIS_UNKNOWN
from owsgit.peers import notes
from owsgit.reconcile import story
from owsgit.services import KINDS

NAMES = ("pre-commit", "pre-push")
_MARK = "# installed by owsgit hooks install"


@click.group("hooks")
def command() -> None:
    """Check commits and pushes in this clone before they leave the machine."""


@output.command("install")
@click.option("--force", is_flag=True, help="Replace hooks that are there already.")
def install(force: bool) -> Result:
    """Install git hooks: pre-commit validates what is to be committed, pre-push says what a node would.

    git commit --no-verify and git push --no-verify go past them; a node checks everything again.
    """
    folder = _folder(Clone(Path()))
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        file = folder / name
        if file.exists() and _MARK not in file.read_text(errors="replace") and not force:
            raise InvalidError(
                f"{file} is there already",
                remedy=f"call this from it: {_call(name)}; or replace it: owsgit hooks install --force",
            )
    done = []
    for name in NAMES:
        file = folder / name
        file.write_text(f'#!/bin/sh\n{_MARK}\nexec {_call(name)} "$@"\n')
        file.chmod(0o755)
        done.append(f"installed {file}")
    return Result({"done": done}, Table(lines=done))


@output.command("uninstall")
def uninstall() -> Result:
    """Remove the hooks that owsgit hooks install has made."""
    folder = _folder(Clone(Path()))
    done = []
    for name in NAMES:
        file = folder / name
        if file.exists() and _MARK in file.read_text(errors="replace"):
            file.unlink()
            done.append(f"removed {file}")
    return Result({"done": done}, Table(lines=done or ["there are no hooks of owsgit"]))


@output.command("run")
@click.argument("name", type=click.Choice(NAMES))
@click.argument("remote", required=False)
@click.argument("url", required=False)
def run_hook(name: str, remote: str | None, url: str | None) -> Result:
    """What the hooks call: as git runs them (githooks(5))."""
    clone = Clone(Path())
    if name == "pre-commit":
        return _pre_commit(clone)
    return _pre_push(clone, remote or "origin", sys.stdin.read(1 << 20))


def _call(name: str) -> str:
    return f"{shlex.quote(sys.executable)} -m owsgit hooks run {name}"


def _folder(clone: Clone) -> Path:
    return Path(run(clone.folder, "rev-parse", "--path-format=absolute", "--git-path", "hooks"))


def _pre_commit(clone: Clone) -> Result:
    """The index against all rules: what is to be committed, and not what lies beside it."""
    head = clone.head()
    tree = run(clone.folder, "write-tree")
    try:
        state = verify.load_tree(clone.objects(), KINDS, clone.genesis(head) if head else GENESIS_UNKNOWN, tree)
    except UnavailableError:
        raise
    except OwsgitError as error:
        for line in (line for problem in error.problems for line in problem.lines()):
            output.note(line)
        output.note("owsgit: not committed; git commit --no-verify goes past this check, and a node will refuse it")
        return Result({"valid": False}, status=1)
    for warning in (*plain.warnings(clone.objects(), tree, state), *state.warnings()):
        output.note(f"owsgit: warning: {warning}")
    return Result({"valid": True})


def _pre_push(clone: Clone, remote: str, updates: str) -> Result:
    """Every update of main, and every proposal, as a node would see it."""
    os.environ.pop("GIT_DIR", None)
    status = 0
    for local, ref, there in _updates(updates):
        proposes = ref.startswith(FOR_MAIN)
        found = _look(clone, local, there if not proposes and there != NONE else _tracked(clone, remote))
        if found is None:
            continue
        lines = story.proposed(found.proposed, "a node would take it") if found.proposed is not None else []
        lines += [line for problem in found.problems for line in problem.lines()]
        for line in lines:
            output.note(line)
        if not (found.accepted or (proposes and found.proposed is not None)):
            more = (
                "; to have others approve: git push <remote> HEAD:refs/for/main" if found.proposed is not None else ""
            )
            output.note(f"owsgit: not pushed{more}")
            status = 1
    return Result({"accepted": status == 0}, status=status)


def _updates(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        _, local, ref, there = line.split(" ")
        if local != NONE and (ref in (MAIN, FOR_MAIN) or ref.startswith(f"{FOR_MAIN}/")):
            yield local, ref, there


def _tracked(clone: Clone, remote: str) -> str | None:
    try:
        return clone.resolve(f"refs/remotes/{remote}/main")
    except GitError:
        return None


def _look(clone: Clone, tip: str, base: str | None) -> Outlook | None:
    """None where it cannot be told: main was never fetched, or is not here."""
    if base is None:
        return None
    try:
        start = verify.load(clone.objects(), KINDS, clone.genesis(base), clone.resolve(base))
    except GitError:
        output.note(f"owsgit: {base[:10]} is not in this clone, so nothing was checked: git fetch")
        return None
    return outlook.look(clone.objects(), KINDS, start, tip, notes.read_reviews(clone.git_folder))


command.add_command(install)
command.add_command(uninstall)
command.add_command(run_hook)
