"""`owsgit show`: one proposal."""

from pathlib import Path

import click

from owsgit.cli import output, remote, review
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone


@output.command("show")
@review.argument
@click.option("--no-diff", is_flag=True, help="Leave the diff out.")
@remote.node_option
def command(proposal: str, no_diff: bool, remote: str) -> Result:
    """Show proposal N: who signed it, its plan, what is missing and who can give it, what was said, the diff.

    N is the proposal's number, its name or its commit.
    """
    desk = review.Desk(Clone(Path()), remote)
    found = desk.find(proposal)
    opened = desk.open(found)
    lines = desk.lines(opened, diff=not no_diff)
    desk.mark_shown(found)
    return Result(opened.document(), Table(lines=lines))
