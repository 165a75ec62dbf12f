"""A push as git's hooks see it: which refs it may touch, and what the pusher is told."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from owsgit.ledger.repository import MAIN, NONE
from owsgit.ledger.verify import CommitReport, Report
from owsgit.model import terminal
from owsgit.model.errors import OwsgitError, RefusedError

_UPDATE = re.compile(r"([0-9a-f]{40}) ([0-9a-f]{40}) (.+)", re.DOTALL)
COMMITS_SHOWN_MAX = 20
GRANTS_SHOWN_MAX = 50
"""Of one commit; a thousand lines tell a pusher nothing."""


@dataclass(frozen=True)
class RefUpdate:
    """A move of main: from `old` (None: there was none) to `new`."""

    old: str | None
    new: str


def main_update(commands: str) -> RefUpdate:
    """The update of main that a push consists of. Raises RefusedError for any other ref, and for a deletion."""
    updates = [line for line in commands.split("\n") if line]
    matches = [_UPDATE.fullmatch(line) for line in updates]
    for line, match in zip(updates, matches, strict=True):
        ref = match[3] if match else line
        if match is None or ref != MAIN:
            shown = terminal.safe(ref, 200)
            raise RefusedError(
                f"{shown} is not a ref of the ledger: it has only {MAIN}", remedy="git push <remote> HEAD:main"
            )
        if match[2] == NONE:
            raise RefusedError("main is never deleted", remedy="to undo a change: git revert <commit>, then push")
    if (
        len(matches) != 1 or matches[0] is None
    ):  # git itself would carry out two updates of one ref, one after the other
        raise RefusedError(f"a push moves main once, and this one {len(matches)} times")
    old, new = matches[0][1], matches[0][2]
    return RefUpdate(None if old == NONE else old, new)


def welcome(report: Report) -> Iterator[str]:
    """The lines for an accepted push: who signed, and each change with its action and the decision."""
    if len(report.commits) > COMMITS_SHOWN_MAX:
        yield f"owsgit: {len(report.commits) - COMMITS_SHOWN_MAX} earlier commits were verified too"
    for commit in report.commits[-COMMITS_SHOWN_MAX:]:
        yield from _commit(commit)


def _commit(report: CommitReport) -> Iterator[str]:
    signer = report.signer
    yield f"owsgit: {report.commit.short} {report.commit.subject}"
    yield f"  signed by {signer.user} ({signer.algorithm} {signer.fingerprint})"
    if not report.grants:
        yield "  changes nothing"
    signs = {change.resource.file: change.verb.sign for change in report.changes}
    for grant in report.grants[:GRANTS_SHOWN_MAX]:
        sign = signs.get(grant.need.file, "~")
        yield f"  {sign} {grant.need.file}  {grant.need.action}  {grant.decision.reason}"
    if len(report.grants) > GRANTS_SHOWN_MAX:
        yield f"  and {len(report.grants) - GRANTS_SHOWN_MAX} more, all allowed"


def refusal(error: OwsgitError) -> Iterator[str]:
    """The lines for a refused push."""
    yield "owsgit: REFUSED, nothing was changed"
    for problem in error.problems:
        for line in problem.lines():
            yield f"  {line}"
