"""`owsgit reject`: a signed rejection."""

import click

from owsgit.cli import output, remote, review
from owsgit.cli.output import Result
from owsgit.ledger.verdicts import REJECT


@output.command("reject")
@review.argument
@click.option("--message", "-m", default="", help="Why; it is signed too.")
@remote.node_option
def command(proposal: str, message: str, remote: str) -> Result:
    """Reject proposal N, or take your approval back: it is not applied until you approve, or it was changed.

    For your own proposal, this withdraws it.
    """
    return review.say(proposal, REJECT, message, remote, yes=True)
