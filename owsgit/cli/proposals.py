"""`owsgit proposals`: what waits for approvals."""

from pathlib import Path

from owsgit.cli import output, remote, review
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone, run


@output.command("proposals")
@remote.node_option
def command(remote: str) -> Result:
    """List the open proposals: what waits for somebody's approval.

    To open one: git push origin HEAD:refs/for/main. A push with the same topic (the first commit's subject, or -o
    topic=NAME) changes it, and its approvals are asked for again.
    """
    desk = review.Desk(Clone(Path()), remote)
    opened = [desk.open(proposal) for proposal in desk.proposals]
    rows = [
        [
            str(each.proposal.number),
            each.proposal.name,
            f"v{each.proposal.version}",
            each.proposal.tip[:10],
            each.status,
            ", ".join(each.approved) or "-",
            run(desk.clone.folder, "log", "-1", "--format=%s", each.proposal.tip)[:60],
        ]
        for each in opened
    ]
    header = ["NUMBER", "PROPOSAL", "VERSION", "COMMIT", "STATUS", "APPROVED BY", "SUBJECT"]
    lines = [] if rows else ["no proposal is open; git push <remote> HEAD:refs/for/main opens one"]
    return Result([each.document() for each in opened], Table(header if rows else [], rows, lines=lines))
