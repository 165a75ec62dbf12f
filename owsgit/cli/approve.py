"""`owsgit approve`: a signed approval."""

import click

from owsgit.cli import output, remote, review
from owsgit.cli.output import Result
from owsgit.ledger.verdicts import APPROVE


@output.command("approve")
@review.argument
@click.option("--message", "-m", default="", help="A comment, which is signed too.")
@click.option("--yes", "-y", is_flag=True, help="Approve of the newest version without having looked at it.")
@remote.node_option
def command(proposal: str, message: str, yes: bool, remote: str) -> Result:
    """Approve proposal N, by a signed tag of its exact commit.

    With the last approval that was missing, it becomes the next head of main. owsgit reject takes an approval back.
    """
    return review.say(proposal, APPROVE, message, remote, yes=yes)
