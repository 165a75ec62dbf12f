"""`owsgit clone`: the first clone of a ledger, trusting nothing but its project id."""

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import click

from owsgit.cli import connect, output, signing
from owsgit.cli.output import Result, Table
from owsgit.cli.verify import belongs
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone, GitError, run
from owsgit.model.core import NodeSpec
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.services import KINDS


@output.command("clone")
@click.argument("address")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--project", required=True, help="The project's id, as a colleague gave it to you.")
def command(address: str, directory: Path | None, project: str) -> Result:
    """Clone the ledger at ADDRESS (ssh://host:port/project) into DIRECTORY and verify all of it.

    The host key that the server showed must be that of a node in the ledger: so even the first contact is not blind.
    """
    folder = directory or Path(address.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    if folder.exists() and any(folder.iterdir()):
        raise OwsgitError(f"{folder} exists and is not empty", remedy="give another directory")
    try:
        with tempfile.TemporaryDirectory(prefix="owsgit-") as scratch:
            shown = Path(scratch, "known_hosts")
            key = signing.discover(None, create=False)
            own = os.environ.get("GIT_SSH_COMMAND") or shlex.join(["ssh", *connect.identity_options(key)])
            first = f"-o UserKnownHostsFile={shown} -o StrictHostKeyChecking=accept-new -o HashKnownHosts=no"
            environment = {"GIT_SSH_COMMAND": f"{own} {first}"}
            try:
                run(None, "clone", "--quiet", "--no-checkout", address, str(folder), env=environment)
            except GitError as error:
                raise UnavailableError(
                    error.problems[0].message,
                    remedy=f"check the address, and that the ledger has the key you sign with ({key.found})",
                ) from None
            lines, data = _checked(Clone(folder), project, shown.read_text() if shown.exists() else None, key)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Result(data, Table(lines=lines))


def _checked(
    clone: Clone, project: str, shown: str | None, key: signing.SigningKey
) -> tuple[list[str], dict[str, object]]:
    tip = clone.resolve("HEAD")
    belongs(clone, tip, project)
    count = 0

    def seen(_: object) -> None:
        nonlocal count
        count += 1

    state = verify.walk(clone.objects(), KINDS, None, tip, seen).state
    known = {node.spec.key.split()[1] for node in state.of_kind("node") if isinstance(node.spec, NodeSpec)}
    if shown is not None and not any(line.split()[2] in known for line in shown.splitlines() if len(line.split()) > 2):
        raise RefusedError(
            "the server showed a host key that is no node's of this project: it may be another machine in between",
            remedy="check the address, and the network between you and it",
        )
    run(clone.folder, "checkout", "--quiet", "main")
    run(clone.folder, "remote", "rename", "origin", "cloned-from")
    clone.set_config([*signing.settings(key), *signing.author(clone.folder)])
    done = connect.connect(clone, state, key)
    if any(True for _ in state.of_kind("node")):
        run(clone.folder, "remote", "remove", "cloned-from")
        run(clone.folder, "fetch", "--quiet", "origin")
        run(clone.folder, "branch", "--quiet", "--set-upstream-to=origin/main", "main")
    else:
        run(clone.folder, "remote", "rename", "cloned-from", "origin")
    lines = [f"verified {count:,} commits of project {state.project.name}", *done, f"cloned into {clone.folder}"]
    return lines, {"project": project, "commits": count, "directory": str(clone.folder), "done": done}
