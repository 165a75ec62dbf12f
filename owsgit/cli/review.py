"""What the commands of a review share: fetch what is proposed and what was said, and look at it as a node does."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output, remote, signing
from owsgit.cli.output import Result, Table
from owsgit.ledger import grants, outlook, verdicts, verify
from owsgit.ledger.ledger import Proposed
from owsgit.ledger.proposals import FOLDER, Proposal, Proposals, find
from owsgit.ledger.repository import MAIN, Clone, GitError, run
from owsgit.ledger.reviews import Reviews
from owsgit.ledger.verdicts import APPROVE
from owsgit.ledger.verify import Verified
from owsgit.model import keys, terminal
from owsgit.model.errors import InvalidError, NotAllowedError, OwsgitError, UnavailableError
from owsgit.peers import notes
from owsgit.reconcile import story
from owsgit.services import KINDS

SEEN_MAIN = "refs/owsgit/main"
"""Main as the node had it when the proposals were fetched."""

SHOWN = "refs/owsgit/shown"
"""What `owsgit show` has shown: nobody approves of what they did not see."""

DIFF_LINES_MAX = 2000

argument = click.argument("proposal", metavar="N")


@dataclass(frozen=True)
class Opened:
    """A proposal, looked at from the newest main."""

    proposal: Proposal
    proposed: Proposed | None  # None: it cannot be the next head
    problem: str
    overtaken: bool
    approved: Sequence[str]
    rejected: Sequence[str]

    @property
    def status(self) -> str:
        if self.overtaken:
            return "overtaken by main"
        if self.rejected:
            return f"rejected by {', '.join(self.rejected)}"
        if self.proposed is None:
            return "invalid"
        count = len(self.proposed.missing)
        if count:
            return f"{count} permission{'s' if count > 1 else ''} missing"
        return "needs an approval" if not self.approved else "complete"

    def document(self) -> dict[str, Any]:
        missing = self.proposed.missing if self.proposed else ()
        return {
            "number": self.proposal.number,
            "name": self.proposal.name,
            "user": self.proposal.user,
            "version": self.proposal.version,
            "commit": self.proposal.tip,
            "status": self.status,
            "overtaken": self.overtaken,
            "problem": self.problem,
            "approvedBy": list(self.approved),
            "rejectedBy": list(self.rejected),
            "missing": [
                {"commit": commit.id, "message": each.message, "file": each.file, "remedy": each.remedy}
                for commit, each in missing
            ],
        }


class Desk:
    """Everything that is proposed, in a clone that has just fetched it."""

    def __init__(self, clone: Clone, name: str) -> None:
        self.clone = clone
        self.remote = name or remote.default_remote(clone)
        fetch = [f"+{MAIN}:{SEEN_MAIN}", f"+{FOLDER}/*:{FOLDER}/*", f"+{notes.FOLDER}/*:{notes.FOLDER}/*"]
        command = ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--prune", "--no-write-fetch-head"]
        try:
            run(clone.folder, *command, self.remote, *fetch)
        except GitError as error:
            raise UnavailableError(
                error.problems[0].message, remedy="is the node running? --node NAME asks another one"
            ) from None
        self.proposals = Proposals(clone.git_folder).all()
        main = run(clone.folder, "rev-parse", SEEN_MAIN)
        self.objects = clone.objects()
        self.base: Verified = verify.load(self.objects, KINDS, clone.genesis(main), main)
        self.reviews = Reviews()
        self.reviews.keep(notes.Notes(clone.git_folder).reviews())

    def user_of(self, identity: str) -> str | None:
        """The user who has a key."""
        holder = self.base.state.holder("key", identity)
        return holder.name if holder is not None and holder.kind.name == "user" else None

    def find(self, wanted: str) -> Proposal:
        return find(self.proposals, wanted)

    def open(self, proposal: Proposal) -> Opened:
        """Verify it as a node does."""
        state = self.base.state
        latest = self.reviews.latest(proposal.tip, state)
        approved = sorted(user for user, said in latest.items() if said.kind == APPROVE)
        rejected = grants.rejecting(latest, state, proposal.user)
        found = outlook.look(
            self.objects, KINDS, self.base, proposal.tip, lambda commit: self.reviews.standing(commit, state)
        )
        problem = "\n".join(str(each) for each in found.problems)
        return Opened(proposal, found.proposed, problem, found.overtaken, approved, rejected)

    def lines(self, opened: Opened, *, diff: bool) -> list[str]:
        """The proposal for people: who, what it does, what is missing, what was said, the diff."""
        proposal = opened.proposal
        head = f"proposal {proposal.number} ({proposal.name}, version {proposal.version}): {opened.status}"
        found = [head, f"commit {proposal.tip}"]
        if opened.proposed is not None:
            found += story.proposed(opened.proposed)
        elif opened.overtaken:
            found += self._overtaken(proposal)
        else:
            found.append(opened.problem)
        for verdict in self.reviews.kept(proposal.tip):
            found += self._said(verdict)
        if diff:
            found += ["", *self._diff(proposal)]
        return found

    def _overtaken(self, proposal: Proposal) -> list[str]:
        push = f"git push -o topic={proposal.topic} {self.remote} HEAD:refs/for/main"
        return [
            f"main has moved on to {self.base.commit[:10]}, which this does not follow; {proposal.user} can rebase it:",
            f"  git fetch {self.remote} && git rebase -S {self.remote}/main && {push}",
            "  (it is another commit then, so approvals are asked for again)",
        ]

    def _said(self, verdict: verdicts.Verdict) -> list[str]:
        try:
            user = verdict.signer(self.base.state).user
        except OwsgitError:
            return []
        comment = verdict.comment.split("\n")
        return [
            f"{user} {verdict.kind}s{': ' if verdict.comment else ''}{comment[0]}",
            *(f"  {x}" for x in comment[1:]),
        ]

    def _diff(self, proposal: Proposal) -> list[str]:
        """What git shows between where the proposal left main and its tip; nothing in it reaches the terminal raw."""
        try:
            base = run(self.clone.folder, "merge-base", self.base.commit, proposal.tip)
        except GitError:
            return []
        text = run(
            self.clone.folder, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--stat", "--patch",
            base, proposal.tip, "--",
        )  # fmt: skip
        shown = [terminal.safe(line, 2000) for line in text.split("\n")]
        if len(shown) > DIFF_LINES_MAX:
            more = f"... {len(shown) - DIFF_LINES_MAX:,} more lines: git diff {base[:10]} {proposal.tip[:10]}"
            return [*shown[:DIFF_LINES_MAX], more]
        return shown

    def mark_shown(self, proposal: Proposal) -> None:
        run(self.clone.folder, "update-ref", f"{SHOWN}/{proposal.name}", proposal.tip)

    def was_shown(self, proposal: Proposal) -> bool:
        try:
            shown = run(self.clone.folder, "rev-parse", "--verify", "--quiet", f"{SHOWN}/{proposal.name}")
        except GitError:
            return False
        return shown == proposal.tip


@contextmanager
def approvals_wanted() -> Iterator[None]:
    """Where a history is verified in a clone: approvals that did not come along may be all that is missing."""
    try:
        yield
    except NotAllowedError as error:
        more = f"if it was approved, that did not come along: git fetch <node> '+{notes.FOLDER}/*:{notes.FOLDER}/*'"
        error.problems = tuple(
            replace(each, remedy=f"{more}; else {each.remedy}" if each.remedy else more) for each in error.problems
        )
        raise


def say(wanted: str, kind: str, comment: str, name: str, *, yes: bool) -> Result:
    """Sign a verdict on a proposal, and push it. Raises OwsgitError."""
    desk = Desk(Clone(Path()), name)
    proposal = desk.find(wanted)
    if kind == APPROVE:
        opened = desk.open(proposal)
        if opened.overtaken:
            raise InvalidError(
                f"main has moved on, and {proposal.name} does not follow it: an approval would be for nothing",
                remedy=f"{proposal.user} can rebase it; owsgit show {proposal.number} says how",
            )
        if not desk.was_shown(proposal) and not yes:
            _look_first(desk, proposal)
    oid, done, told = _push(desk, proposal, kind, _next_number(desk, proposal), comment)
    # one's own word of a moment ago may be in no note yet: then the node says which number it had
    newer = re.search(r"said something newer of this commit already \(number ([0-9]+)\)", "\n".join(told))
    if done.returncode != 0 and newer is not None:
        oid, done, told = _push(desk, proposal, kind, int(newer[1]) + 1, comment)
    if done.returncode != 0:
        said = [line.removeprefix("owsgit: REFUSED, nothing was changed").strip() for line in told if not _is_git(line)]
        raise NotAllowedError("\n".join(filter(None, said)) or "git push failed", remedy="nothing was changed")
    data = {"number": proposal.number, "name": proposal.name, "commit": proposal.tip, "verdict": kind, "tag": oid}
    return Result({**data, "told": told}, Table(lines=told))


def _push(
    desk: Desk, proposal: Proposal, kind: str, number: int, comment: str
) -> "tuple[str, subprocess.CompletedProcess[str], list[str]]":
    """Sign a verdict and push it: the tag, how git ended, and what the node said."""
    oid = _tag(desk, proposal, kind, number, comment)
    folder = "approvals" if kind == APPROVE else "rejections"
    push = ["git", "push", "--quiet", desk.remote, f"{oid}:refs/{folder}/{proposal.tip}"]
    done = subprocess.run(push, cwd=desk.clone.folder, stderr=subprocess.PIPE, text=True, check=False)
    told = [terminal.safe(line.removeprefix("remote: ").rstrip(), 2000) for line in done.stderr.splitlines()]
    return oid, done, told


def _is_git(line: str) -> bool:
    """Whether git itself says a line, of a push that the node has explained already."""
    return line.startswith(("To ", " ! [remote rejected]", "error: failed to push"))


def _next_number(desk: Desk, proposal: Proposal) -> int:
    """One more than the user's own last word has: others' numbers are theirs."""
    key = signing.discover(desk.clone.folder, create=False)
    own = next((user for id_ in keys.identities(key.public) if (user := desk.user_of(id_)) is not None), None)
    last = desk.reviews.latest(proposal.tip, desk.base.state).get(own) if own is not None else None
    return last.number + 1 if last is not None else 1


def _look_first(desk: Desk, proposal: Proposal) -> None:
    """Who approves has seen this very version."""
    if not sys.stdin.isatty():
        raise InvalidError(
            f"you have not looked at {proposal.name} as it is now (version {proposal.version})",
            remedy=f"owsgit show {proposal.number}; or approve with --yes",
        )
    for line in desk.lines(desk.open(proposal), diff=True):
        output.note(line)
    if not click.confirm(f"Approve {proposal.tip[:10]}?", err=True):
        raise click.Abort
    desk.mark_shown(proposal)


def _tag(desk: Desk, proposal: Proposal, kind: str, number: int, comment: str) -> str:
    """The signed tag, made by git with the user's own settings for signing; no ref of it stays."""
    name = f"{kind}/{proposal.tip}"
    text = verdicts.message(desk.base.commit, number, comment)
    folder = desk.clone.folder
    try:
        run(folder, "tag", "--force", "--sign", "--cleanup=verbatim", "-m", text, name, proposal.tip)
    except GitError as error:
        raise OwsgitError(
            f"git cannot sign: {error.problems[0].message}",
            remedy="git config user.signingKey, gpg.format; owsgit doctor",
        ) from None
    oid = run(folder, "rev-parse", f"refs/tags/{name}")
    run(folder, "update-ref", "-d", f"refs/tags/{name}")
    return oid
