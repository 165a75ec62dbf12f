"""`owsgit verify`: a whole history."""

from collections.abc import Mapping
from pathlib import Path

import click

from owsgit.cli import output, pull_request, review
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.ledger.verify import CommitReport
from owsgit.model.errors import InvalidError, RefusedError
from owsgit.model.names import genesis_of
from owsgit.peers import history, notes
from owsgit.peers.certificates import Certificate
from owsgit.services import KINDS

PROGRESS_COMMITS = 1000


@output.command("verify", formats=(*output.FORMATS, output.MARKDOWN))
@click.argument("clone", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--revision", default="HEAD", show_default=True, help="The commit up to which to verify.")
@click.option("--project", help="The project id that the history must belong to.")
@click.option("--decided", "decided_only", is_flag=True, help="Fail unless every head up to REVISION was decided.")
@click.option("--range", "between", metavar="A..B", help="Only the commits after A, which is trusted, up to B.")
@click.option(
    "--merged-by", metavar="USER", help="With --range: whether USER, as whom a forge signs merges, may merge B into A."
)
def command(
    clone: Path, revision: str, project: str | None, decided_only: bool, between: str | None, merged_by: str | None
) -> Result:
    """Check the whole history of CLONE from its genesis commit: signatures, permissions, every rule, and the votes.

    The same check as a node's. The votes of the nodes for each head are git notes, which come along with git fetch once
    owsgit connect has set the clone up. Exit code 1 if anything is wrong.

    With --range, the check of a pull request: what a node would refuse is refused, with the plan of what it would do
    (--output markdown for a comment on a forge).
    """
    repository = Clone(clone)
    if between is not None:
        return pull_request.check(repository, between, merged_by)
    if merged_by is not None:
        raise InvalidError("--merged-by is about a pull request", remedy="add --range A..B")
    tip = repository.resolve(revision)
    if project is not None:
        belongs(repository, tip, project)
    seen = 0

    def count(report: CommitReport) -> None:
        nonlocal seen
        seen += 1
        if seen % PROGRESS_COMMITS == 0:
            output.note(f"{seen:,} commits verified")

    votes = notes.read_votes(repository.git_folder)
    known = notes.read_recoveries(repository.git_folder)
    approvals = notes.read_reviews(repository.git_folder)
    with review.approvals_wanted():
        head, decided = history.walk(repository.objects(), KINDS, tip, votes or {}, known, count, approvals)
    if decided_only and decided.fork:
        raise RefusedError(decided.fork, remedy="git rebase -S, if it is your own; else fetch from another node")
    if decided_only and (decided.open or decided.head is None):
        raise RefusedError(
            f"not decided: {_votes(votes, decided)}",
            remedy="git fetch, also from another node: the votes for a new head are there a moment after it",
        )
    commits = f"{seen:,} commit{'s' if seen != 1 else ''}"
    name = f"{head.state.project.name} ({head.state.project_id})"
    lines = [f"verified: {commits} of project {name}, up to {tip[:10]}", _votes(votes, decided)]
    data = {
        "verified": True,
        "commits": seen,
        "head": head.commit,
        "project": head.state.project_id,
        "votes": None if votes is None else {"heads": decided.heads, "decided": decided.head, "open": decided.open},
    }
    return Result(data, Table(lines=lines))


def _votes(votes: Mapping[str, Certificate] | None, decided: history.Decided) -> str:
    if votes is None and decided.open:
        return f"votes: not checked, as {notes.VOTES} was not fetched (owsgit connect, then git fetch)"
    if decided.head is None:
        return "votes: no node is named, so nobody decides yet"
    more = f"; {_count(decided.open, 'commit')} after it not decided (yet), as far as was fetched"
    rest = more if decided.open else ""
    rest += f"; {decided.fork}" if decided.fork else ""
    if not decided.heads:
        return f"votes: none are needed up to {decided.head[:10]}, which founds the project{rest}"
    return f"votes: {_count(decided.heads, 'head')} with the votes of their majority, up to {decided.head[:10]}{rest}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


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
