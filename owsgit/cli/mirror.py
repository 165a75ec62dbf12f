"""`owsgit mirror`: what was merged on a forge goes to the nodes."""

import subprocess
from pathlib import Path

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import MAIN, Clone, GitError, run
from owsgit.model import terminal
from owsgit.model.errors import NotAllowedError, OwsgitError, UnavailableError

PUSH_SECONDS_MAX = 900
MIRRORED = "refs/owsgit/mirrored"


@output.command("mirror")
@click.argument("forge")
@click.argument("nodes", nargs=-1, required=True)
@click.option("--branch", default="main", show_default=True, help="The forge's branch.")
def command(forge: str, nodes: tuple[str, ...], branch: str) -> Result:
    """Push the merged main of FORGE to the first of NODES that answers; all are git remotes or addresses.

    For a job that runs after each merge, or for cron. The nodes decide as on every push: what a policy does not allow
    is refused, however it was merged. Exit code 3 if no node answers.
    """
    clone = Clone(Path())
    source = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
    try:
        run(clone.folder, "-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
            forge, f"+{source}:{MIRRORED}")  # fmt: skip
    except GitError as error:
        raise UnavailableError(error.problems[0].message, remedy="is the forge a remote of this clone?") from None
    commit = run(clone.folder, "rev-parse", MIRRORED)
    told: list[str] = []
    for node in nodes:
        done = _push(clone, node, commit)
        lines = [terminal.safe(line.removeprefix("remote: ").rstrip(), 2000) for line in done.stderr.splitlines()]
        if done.returncode == 0:
            changed = "\t[up to date]" not in done.stdout
            line = f"main of {node} is {commit[:10]}" + ("" if changed else " already")
            data = {"commit": commit, "node": node, "changed": changed, "told": lines}
            return Result(data, Table(lines=[*lines, line]))
        if MIRRORED not in done.stdout:
            told.append(f"{node}: {_why(lines)}")
            continue  # it was not reached: another one may be
        if "[rejected]" in done.stdout or any("non-fast-forward" in line for line in lines):
            raise NotAllowedError(
                f"the nodes are past {commit[:10]}, the {branch} of {forge}",
                remedy=f"bring what they decided back to the forge first: git fetch {node} && git push {forge} "
                f"FETCH_HEAD:{branch} (or merge it there)",
            )
        raise NotAllowedError("\n".join(lines) or "refused", remedy="nothing was changed on the nodes")
    raise UnavailableError(
        "no node could be reached: " + "; ".join(told),
        remedy="owsgit doctor says more: is the key the right one, is it running?",
    )


def _why(lines: list[str]) -> str:
    """Why git did not reach a node: ssh's own words, and not git's advice below them."""
    telling = [
        line
        for line in lines
        if line and not line.startswith(("fatal:", "Please make sure", "and the repository", "hint:"))
    ]
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal:")]
    return (telling or fatal or ["git push failed"])[-1]


def _push(clone: Clone, node: str, commit: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["git", "push", "--porcelain", node, f"{MIRRORED}:{MAIN}"],
            cwd=clone.folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PUSH_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        raise OwsgitError(f"{node} did not answer within {PUSH_SECONDS_MAX} s", remedy="owsgit status") from None
