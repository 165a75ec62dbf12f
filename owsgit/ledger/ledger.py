"""A node's ledger: its repository, and the last head that this node verified itself.

What the node acts on is `head`. `main` follows it, by `follow` alone; whatever else moves it is undone by `settle`.
"""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from owsgit.ledger import changes, commits, grants, signatures, trees, verify
from owsgit.ledger.commits import Commit
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import MAIN, NODE_ENVIRONMENT, GitError, Repository, genesis, run
from owsgit.ledger.reviews import Reviews
from owsgit.ledger.verdicts import APPROVE, Verdict
from owsgit.ledger.verify import CommitReport, Inspect, Report, Review, Verified
from owsgit.model import core
from owsgit.model.errors import InvalidError, NotAllowedError, Problem, RefusedError
from owsgit.model.resource import Kinds, Resource
from owsgit.model.service import CodeFile

REJECTED = "refs/owsgit/rejected"
"""Where a commit is kept that stood at main and was not decided on. Hidden from clients."""

ACCEPTED_MAX = 16
"""Pushes that were verified and whose commit may become main in a moment."""


BEFORE_UPGRADE = "start the version of owsgit that this node ran before, and push a correction"


@dataclass(frozen=True)
class Proposed:
    """A proposal as it was verified: what it follows, what it does, and what is not allowed yet."""

    base: Verified
    report: Report
    missing: tuple[tuple[Commit, Problem], ...]

    @property
    def author(self) -> str:
        return self.report.commits[-1].signer.user


class Ledger:
    """Not thread-safe: the node calls it from one thread at a time."""

    def __init__(
        self, repository: Repository, kinds: Kinds, record: Path, reviews: Reviews, inspect: Inspect | None = None
    ) -> None:
        """`record` is the file that holds the id of the last verified head; `inspect` sees what this node would let in.

        Raises OwsgitError if the record cannot be read.
        """
        self.repository = repository
        self.kinds = kinds
        self.reviews = reviews
        self._inspect = inspect
        self._record = record
        self._accepted: OrderedDict[tuple[str | None, str], Verified] = OrderedDict()
        self.head: Verified | None = self._load()

    def _load(self) -> Verified | None:
        """The recorded head: it was verified before, so only its state is read.

        Raises InvalidError if this version does not take what another one took.
        """
        try:
            commit = self._record.read_text().strip()
        except FileNotFoundError:
            return None
        founding = genesis(self.repository.path, commit, NODE_ENVIRONMENT)
        try:
            return verify.load(self.repository.objects, self.kinds, founding, commit)
        except InvalidError as error:
            error.problems = tuple(_of_another_version(each) for each in error.problems)
            raise

    def check(self, tip: str, objects: Objects, *, now: float | None = None) -> Report:
        """Verify that `tip` may follow the head. The result is kept for `follow`. Raises RefusedError and its kin.

        `now`, in seconds since 1970, is for who brings it in: certificates of keys have to be valid then, and approvals
        count unless they were taken back. What others voted for is verified with every approval that there is.
        """
        rejected: dict[str, list[str]] = {}
        approvals = self.reviews.approvals if now is None else partial(self._standing, objects, rejected)
        review = Review(approvals, now, inspect=self._inspect)
        try:
            report = verify.push(objects, self.kinds, self.head, tip, review)
        except NotAllowedError as error:
            raise _with_rejections(error, rejected) from error
        self.verified(report)
        self._accepted[self.head.commit if self.head else None, tip] = report.head
        while len(self._accepted) > ACCEPTED_MAX:
            self._accepted.popitem(last=False)
        return report

    def _standing(self, objects: Objects, rejected: dict[str, list[str]], commit: str) -> Sequence[Verdict]:
        """The approvals of `commit` that count for who brings it in: none while somebody rejects it who may approve, or
        its author has withdrawn it. Who that is, is noted in `rejected`.

        What a majority has decided stays decided, whatever is said later: then all approvals count.
        """
        if not self.reviews or self.head is None:
            return ()
        latest = self.reviews.latest(commit, self.head.state)
        if not latest:
            return ()
        rejecting = grants.rejecting(latest, self.head.state, self._author(objects, commit))
        if rejecting:
            rejected[commit] = rejecting
            return ()
        return [each for each in latest.values() if each.kind == APPROVE]

    def _author(self, objects: Objects, commit: str) -> str:
        """Who signed a commit, by the keys of the head's state; '' if nobody whom it knows."""
        assert self.head is not None
        try:
            return signatures.signer(commits.parse(commit, objects.commit(commit)), self.head.state).user
        except RefusedError:
            return ""

    def verified(self, report: Report) -> Report:
        """Keep the approvals on which `report` rests. Durable when it returns."""
        for commit in report.commits:
            self._keep(commit)
        return report

    def _keep(self, report: CommitReport) -> None:
        if report.approvers:
            self.reviews.keep(each.verdict for each in report.approvers)

    def extend(self, head: Verified, tip: str, objects: Objects) -> Verified:
        """What `tip`, which was decided, makes of `head`, which may not be this node's yet. Raises as `check`."""
        review = Review(self.reviews.approvals)
        return self.verified(verify.push(objects, self.kinds, head, tip, review)).head

    def walk(
        self, base: Verified | None, tip: str, objects: Objects, told: Callable[[CommitReport], None] = lambda _: None
    ) -> Verified:
        """Verify a history with every approval that is known, and keep those on which it rests."""

        def seen(report: CommitReport) -> None:
            self._keep(report)
            told(report)

        return verify.walk(objects, self.kinds, base, tip, seen, Review(self.reviews.approvals))

    def propose(self, tip: str, objects: Objects, now: float) -> "Proposed":
        """Verify that `tip` may follow the head but for permissions that others can give by approving.

        Raises RefusedError and its kin for everything else.
        """
        if self.head is None:
            raise RefusedError("there is nothing to propose to yet", remedy="git push <remote> HEAD:main")
        missing: list[tuple[Commit, Problem]] = []

        def note(commit: Commit, problems: Sequence[Problem]) -> None:
            missing.extend((commit, problem) for problem in problems)

        report = verify.push(
            objects, self.kinds, self.head, tip, Review(partial(self._standing, objects, {}), now, note, self._inspect)
        )
        if not report.commits:
            raise RefusedError(
                f"main is at {tip[:10]} already: there is nothing to propose", remedy="git commit -S first"
            )
        return Proposed(self.head, report, tuple(missing))

    def has_checked(self, tip: str) -> bool:
        """Whether `check` found that `tip` may follow the head as it is now."""
        return (self.head.commit if self.head else None, tip) in self._accepted

    def head_is_not(self, commit: str) -> bool:
        """Whether the head is another one than `commit`."""
        return self.head is None or self.head.commit != commit

    def follow(self, tip: str) -> Verified:
        """Move main and the head to `tip`, which was decided. Durable when it returns; verifies what is new.

        Raises RefusedError and its kin; nothing has moved then.
        """
        if self.head is not None and self.head.commit == tip:
            return self.head
        old = self.head.commit if self.head else None
        head = self._accepted.get((old, tip)) or self.walk(self.head, tip, self.repository.objects)
        self.adopt(head)
        return head

    def adopt(self, head: Verified) -> None:
        """Move main and the head to what was verified to follow them."""
        self._move(head.commit)
        self._write(head.commit)
        self.head = head
        self._accepted.clear()

    def _move(self, commit: str) -> None:
        main = self.repository.head()
        if main == commit:
            return
        self.settle()
        self.repository.move_main(self.head.commit if self.head else None, commit)

    def settle(self) -> str:
        """Have main stand at the head. What was wrong in words, '' if nothing was."""
        main = self.repository.head()
        head = self.head.commit if self.head else None
        if main == head:
            return ""
        if main is not None:
            with contextlib.suppress(GitError):  # it may not even be there
                run(self.repository.path, "update-ref", f"{REJECTED}/{main}", main, env=NODE_ENVIRONMENT)
        if head is not None:
            run(self.repository.path, "update-ref", MAIN, head, env=NODE_ENVIRONMENT)
        else:
            run(self.repository.path, "update-ref", "-d", MAIN, env=NODE_ENVIRONMENT)
        at = f"at {main[:10]}, which the nodes have not decided on" if main else "gone"
        return f"main was {at}; it was set back" + (f", and the commit is kept as {REJECTED}/{main}" if main else "")

    def founding(self, tip: str, objects: Objects, told: Callable[[CommitReport], None] = lambda _: None) -> Verified:
        """The first head of the history of `tip` that names nodes: from there on, nodes decide.

        `told` is given every commit up to `tip`. Raises RefusedError if there is none.
        """
        first: list[str] = []

        def seen(report: CommitReport) -> None:
            told(report)
            if not first and any(change.resource.kind is core.NODE and change.after for change in report.changes):
                first.append(report.commit.id)

        head = self.walk(None, tip, objects, seen)
        if not first:
            raise RefusedError(
                "the project names no node",
                file="nodes/",
                remedy="commit what owsgit node init prints as nodes/<name>.json",
            )
        return head if head.commit == first[0] else self.walk(None, first[0], objects)

    def _write(self, commit: str) -> None:
        scratch = self._record.with_suffix(".new")
        with scratch.open("w") as file:
            file.write(commit + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._record)
        fd = os.open(self._record.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def resource_at(self, kind: str, name: str, commit: str) -> Resource:
        """A resource as it was at a commit that main was at once. Raises InvalidError. Safe from any thread."""
        head = self.head
        if head is None or not self.repository.is_on_main(commit, head.commit):
            raise InvalidError(f"{commit} is no commit of main", remedy="git log --first-parent main shows them")
        founding = genesis(self.repository.path, commit, NODE_ENVIRONMENT)
        found = verify.load(self.repository.objects, self.kinds, founding, commit).state.get(kind, name)
        if found is None:
            raise InvalidError(
                f"there was no {kind} {name} at {commit[:10]}",
                remedy=f"git log --first-parent -- {self.kinds.by_name[kind].file(name)} shows its changes",
            )
        return found

    def read_files(self, tree: str) -> Iterator[CodeFile]:
        """Every file below a tree, with its content."""
        return read_files(self.repository.objects, tree)


def _with_rejections(error: NotAllowedError, rejected: Mapping[str, Sequence[str]]) -> NotAllowedError:
    """The same error, saying first whose rejections keep approvals from counting."""
    more = [
        Problem(
            f"commit {commit[:10]} is rejected by {', '.join(users)}, so no approval of it counts",
            remedy="talk to them: whoever rejects can approve; or change it, and propose it again",
        )
        for commit, users in sorted(rejected.items())
    ]
    error.problems = (*more, *error.problems)
    return error


def read_files(objects: Objects, tree: str) -> Iterator[CodeFile]:
    """Every file below a tree, with its content, one after the other."""
    for path, mode, oid in changes.files_of(objects, bytes.fromhex(tree)):
        yield CodeFile(path, mode == trees.EXECUTABLE, objects.blob(oid, changes.CODE_FILE_BYTES_MAX))


def _of_another_version(problem: Problem) -> Problem:
    """What is wrong with a head that was accepted: nobody can push to a node that does not start."""
    remedy = f"{BEFORE_UPGRADE}: {problem.remedy}" if problem.remedy else BEFORE_UPGRADE
    return replace(
        problem, message=f"this version of owsgit does not take what is in the ledger: {problem.message}", remedy=remedy
    )
