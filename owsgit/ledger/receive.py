"""A push as git's hooks see it: which refs it may touch, and what the pusher is told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from owsgit.ledger.repository import MAIN, NONE
from owsgit.ledger.verify import CommitReport, Report
from owsgit.model import terminal
from owsgit.model.errors import OwsgitError, RefusedError

_UPDATE = re.compile(r"([0-9a-f]{40}) ([0-9a-f]{40}) (.+)", re.DOTALL)
FOR_MAIN = "refs/for/main"
"""Where proposals are pushed to, as with Gerrit and AGit; a topic may follow. Nothing is ever stored there."""

VERDICTS = ("refs/approvals/", "refs/rejections/")
"""Where approvals and rejections are pushed to; what they are, and of what, is in the tag."""

TOPIC_OPTION = "topic="
COMMITS_SHOWN_MAX = 20
GRANTS_SHOWN_MAX = 50
"""Of one commit; a thousand lines tell a pusher nothing."""


@dataclass(frozen=True)
class RefUpdate:
    """A move of main: from `old` (None: there was none) to `new`."""

    ref: str
    old: str | None
    new: str


@dataclass(frozen=True)
class ProposalPush:
    """A commit that is proposed as main, for others to approve of."""

    ref: str
    new: str
    topic: str | None


@dataclass(frozen=True)
class VerdictPush:
    """A signed tag that approves or rejects a commit."""

    ref: str
    new: str


Update = RefUpdate | ProposalPush | VerdictPush


def update(commands: str, options: Sequence[str] = ()) -> Update:
    """What a push consists of: one ref. Raises RefusedError for any other ref, and for a deletion."""
    lines = [line for line in commands.split("\n") if line]
    matches = [_UPDATE.fullmatch(line) for line in lines]
    for line, match in zip(lines, matches, strict=True):
        ref = match[3] if match else line
        if match is None or not _is_taken(ref):
            raise RefusedError(
                f"{terminal.safe(ref, 200)} is not a ref of the ledger: it has only {MAIN}",
                remedy="git push <remote> HEAD:main; to have it reviewed first: git push <remote> HEAD:refs/for/main",
            )
        if match[2] == NONE:
            raise RefusedError(
                "main is never deleted" if ref == MAIN else "what was said stays said",
                remedy="to undo a change: git revert <commit>, then push"
                if ref == MAIN
                else "to take an approval back: owsgit reject",
            )
    if (
        len(matches) != 1 or matches[0] is None
    ):  # git itself would carry out two updates of one ref, one after the other
        raise RefusedError(f"a push moves one ref, and this one {len(matches)}", remedy="push one after the other")
    old, new, ref = matches[0].groups()
    if ref == MAIN:
        return RefUpdate(ref, None if old == NONE else old, new)
    if ref.startswith(VERDICTS):
        return VerdictPush(ref, new)
    named = [option.removeprefix(TOPIC_OPTION) for option in options if option.startswith(TOPIC_OPTION)]
    return ProposalPush(ref, new, ref.removeprefix(FOR_MAIN).lstrip("/") or (named[-1] if named else None))


def _is_taken(ref: str) -> bool:
    return ref in (MAIN, FOR_MAIN) or ref.startswith((f"{FOR_MAIN}/", *VERDICTS))


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
    if not report.grants and not report.changes and not report.files:
        yield "  changes nothing"
    for approver in report.approvers:
        said = approver.verdict.comment.partition("\n")[0]
        yield f"  approved by {approver.signer.user}" + (f": {said}" if said else "")
    signs = {change.resource.file: change.verb.sign for change in report.changes}
    for grant in report.grants[:GRANTS_SHOWN_MAX]:
        sign = signs.get(grant.need.file, "~")
        by = f" (of {grant.by})" if grant.by != signer.user else ""
        yield f"  {sign} {grant.need.file}  {grant.need.action}  {grant.decision.reason}{by}"
    if len(report.grants) > GRANTS_SHOWN_MAX:
        yield f"  and {len(report.grants) - GRANTS_SHOWN_MAX} more, all allowed"
    for changed in (change.after for change in report.changes[:GRANTS_SHOWN_MAX]):
        for warning in changed.spec.warnings(changed.file) if changed is not None else ():
            first, *more = warning.lines()
            yield f"  warning: {first}"
            yield from (f"  {line}" for line in more)


def refusal(error: OwsgitError) -> Iterator[str]:
    """The lines for a refused push."""
    yield "owsgit: REFUSED, nothing was changed"
    for problem in error.problems:
        for line in problem.lines():
            yield f"  {line}"
