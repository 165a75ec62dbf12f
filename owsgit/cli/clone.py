"""`owsgit clone`: the first clone of a ledger, trusting nothing but its project id."""

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from owsgit.cli import connect, output, signing
from owsgit.cli.output import Result, Table
from owsgit.cli.verify import belongs
from owsgit.ledger.repository import Clone, GitError, run
from owsgit.ledger.verify import CommitReport, Verified
from owsgit.model.core import NodeSpec
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.state import State
from owsgit.peers import history, notes
from owsgit.peers.history import Decided
from owsgit.services import KINDS

VOTES_SECONDS_MAX = 5.0
"""How long a clone waits for the votes of a head that was decided just now."""

VOTES_PAUSE_SECONDS = 0.5
NOTES = f"+{notes.FOLDER}/*:{notes.FOLDER}/*"
"""The refspec of the nodes' notes."""


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
        with first_contact() as contact:
            try:
                run(None, "clone", "--quiet", "--no-checkout", address, str(folder), env=contact.environment)
                run(folder, "fetch", "--quiet", "origin", NOTES, env=contact.environment)
            except GitError as error:
                raise UnavailableError(
                    error.problems[0].message,
                    remedy=f"check the address, and that the ledger has the key you sign with ({contact.key.found})",
                ) from None
            lines, data = _checked(Clone(folder), project, contact)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Result(data, Table(lines=lines))


@dataclass(frozen=True)
class Contact:
    """The first contact with a server: whatever host key it shows is noted, and checked once the ledger is there."""

    environment: dict[str, str]
    key: signing.SigningKey
    shown: Path

    def check(self, state: State) -> None:
        """Raises RefusedError if the host key that the server showed is no node's."""
        if not self.shown.exists():
            return
        known = {node.spec.key.split()[1] for node in state.of_kind("node") if isinstance(node.spec, NodeSpec)}
        lines = [line.split() for line in self.shown.read_text().splitlines()]
        if not any(words[2] in known for words in lines if len(words) > 2):
            raise RefusedError(
                "the server showed a host key that is no node's of this project: it may be another machine in between",
                remedy="check the address, and the network between you and it",
            )


@contextmanager
def first_contact() -> Iterator[Contact]:
    """How to reach a server that is not known yet, by the user's own key."""
    with tempfile.TemporaryDirectory(prefix="owsgit-") as scratch:
        shown = Path(scratch, "known_hosts")
        key = signing.discover(None, create=False)
        own = os.environ.get("GIT_SSH_COMMAND") or shlex.join(["ssh", *connect.identity_options(key)])
        first = f"-o UserKnownHostsFile={shown} -o StrictHostKeyChecking=accept-new -o HashKnownHosts=no"
        yield Contact({"GIT_SSH_COMMAND": f"{own} {first}"}, key, shown)


def _decided(
    clone: Clone, tip: str, contact: Contact, seen: Callable[[CommitReport], None]
) -> tuple[Verified, Decided]:
    """The verified head, on which the nodes decided: their votes for a new one are there a moment after it.

    Raises RefusedError for a head that nobody decided on: whoever has an old key could have signed it.
    """
    deadline = time.monotonic() + VOTES_SECONDS_MAX
    told: Callable[[CommitReport], None] = seen
    while True:
        votes = notes.read_votes(clone.git_folder) or {}
        known = notes.read_recoveries(clone.git_folder)
        approvals = notes.read_reviews(clone.git_folder)
        head, decided = history.walk(clone.objects(), KINDS, tip, votes, known, told, approvals)
        if decided.fork:
            raise RefusedError(decided.fork, remedy="it is not what the nodes decided: clone from another node")
        if not decided.open:
            return head, decided
        if time.monotonic() > deadline:
            raise RefusedError(
                f"the nodes have not decided on {tip[:10]}, as far as the votes tell that came along: {decided.open:,} "
                "commits are not theirs",
                remedy="clone from another node; of a mirror without the nodes' notes: git clone, then owsgit connect "
                "and owsgit verify --decided",
            )
        time.sleep(VOTES_PAUSE_SECONDS)
        told = _nothing  # counted already
        run(clone.folder, "fetch", "--quiet", "origin", NOTES, env=contact.environment)


def _nothing(_: CommitReport) -> None:
    pass


def _checked(clone: Clone, project: str, contact: Contact) -> tuple[list[str], dict[str, object]]:
    tip = clone.resolve("HEAD")
    belongs(clone, tip, project)
    count = 0

    def seen(_: CommitReport) -> None:
        nonlocal count
        count += 1

    head, decided = _decided(clone, tip, contact, seen)
    state = head.state
    contact.check(state)
    run(clone.folder, "checkout", "--quiet", "main")
    run(clone.folder, "remote", "rename", "origin", "cloned-from")
    clone.set_config([*signing.settings(contact.key), *signing.author(clone.folder)])
    address = run(clone.folder, "remote", "get-url", "cloned-from")
    for node in state.of_kind("node"):  # origin is what was cloned from
        if isinstance(node.spec, NodeSpec) and connect.url(node.spec, state.project.name) == address.rstrip("/"):
            clone.set_config([(connect.ORIGIN, node.name)])
    done = connect.connect(clone, state, contact.key)
    if any(True for _ in state.of_kind("node")):
        run(clone.folder, "remote", "remove", "cloned-from")
        run(clone.folder, "fetch", "--quiet", "origin")
        run(clone.folder, "branch", "--quiet", "--set-upstream-to=origin/main", "main")
    else:
        run(clone.folder, "remote", "rename", "cloned-from", "origin")
    among = f", {decided.heads:,} heads with the votes of their majority" if decided.heads else ""
    lines = [f"verified {count:,} commits of project {state.project.name}{among}", *done, f"cloned into {clone.folder}"]
    return lines, {"project": project, "commits": count, "directory": str(clone.folder), "done": done}
