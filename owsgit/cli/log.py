"""`owsgit log`: the verified history."""

from collections import deque
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output, review
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.ledger.verify import CommitReport, Review
from owsgit.model.change import Verb
from owsgit.model.errors import InvalidError
from owsgit.peers import notes
from owsgit.services import KINDS


@output.command("log")
@click.argument("revision", default="HEAD")
@click.option("--count", "-c", default=20, show_default=True, type=click.IntRange(1), help="How many commits to show.")
def command(revision: str, count: int) -> Result:
    """Show the verified history up to REVISION, the newest first: who changed what.

    Everything from the genesis commit on is verified, so what is shown is what every node accepts.
    """
    clone = Clone(Path())
    kept: deque[CommitReport] = deque(maxlen=count)
    if clone.head() is None:
        raise InvalidError("this repository has no commit yet", remedy="owsgit init NAME")
    approved = Review(notes.read_reviews(clone.git_folder), everybody=True)
    with review.approvals_wanted():
        verify.walk(clone.objects(), KINDS, None, clone.resolve(revision), kept.append, approved)
    shown = [document(report) for report in reversed(kept)]
    return Result(shown, Table(lines=[line for entry in shown for line in _lines(entry)]))


def document(report: CommitReport) -> dict[str, Any]:
    """One commit, for machines."""
    return {
        "commit": report.commit.id,
        "subject": report.commit.subject,
        "author": report.commit.author,
        "signer": report.signer.user,
        "key": report.signer.fingerprint,
        "approvers": [approver.signer.user for approver in report.approvers],
        "changes": [
            {"verb": str(change.verb), "resource": change.key, "code": bool(change.files)} for change in report.changes
        ],
        "files": list(report.files),
    }


def _lines(entry: dict[str, Any]) -> list[str]:
    approved = f"; approved by {', '.join(entry['approvers'])}" if entry["approvers"] else ""
    lines = [f"{entry['commit'][:10]} {entry['subject']}  (signed by {entry['signer']}{approved})"]
    lines += [
        f"    {Verb(change['verb']).sign} {change['resource']}{' (code)' if change['code'] else ''}"
        for change in entry["changes"]
    ]
    return [*lines, *(f"    ~ {path}" for path in entry["files"])]
