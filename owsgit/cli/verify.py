"""`owsgit verify`: a whole history."""

from pathlib import Path

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.ledger.verify import CommitReport
from owsgit.model.errors import InvalidError, RefusedError
from owsgit.model.names import genesis_of
from owsgit.services import KINDS

PROGRESS_COMMITS = 1000


@output.command("verify")
@click.argument("clone", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--revision", default="HEAD", show_default=True, help="The commit up to which to verify.")
@click.option("--project", help="The project id that the history must belong to.")
def command(clone: Path, revision: str, project: str | None) -> Result:
    """Check the whole history of CLONE from its genesis commit: signatures, permissions, and every rule.

    The same check as a node's. Exit code 1 if anything is wrong.
    """
    repository = Clone(clone)
    tip = repository.resolve(revision)
    if project is not None:
        belongs(repository, tip, project)
    seen = 0

    def count(report: CommitReport) -> None:
        nonlocal seen
        seen += 1
        if seen % PROGRESS_COMMITS == 0:
            output.note(f"{seen:,} commits verified")

    head = verify.walk(repository.objects(), KINDS, None, tip, count)
    data = {"verified": True, "commits": seen, "head": head.commit, "project": head.state.project_id}
    commits = f"{seen:,} commit{'s' if seen != 1 else ''}"
    name = f"{head.state.project.name} ({head.state.project_id})"
    line = f"verified: {commits} of project {name}, up to {tip[:10]}"
    return Result(data, Table(lines=[line]))


def belongs(repository: Clone, tip: str, project: str) -> None:
    """Raises InvalidError for a mistyped id, RefusedError for the history of another project."""
    genesis = genesis_of(project)
    if genesis is None:
        raise InvalidError(
            f"{project!r} is not a project id", remedy="owsgit status shows it; check for a typing error"
        )
    found = repository.genesis(tip)
    if found != genesis:
        raise RefusedError(
            f"this is the history of another project: it begins with {found[:10]}, not {genesis[:10]}",
            remedy="check the address, and the project id with whoever gave it to you",
        )
