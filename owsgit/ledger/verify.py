"""The one verification: at push, at fetch, at clone and in CI.

Pure, given an object reader and the state of the parent: every new commit on the first-parent chain is strict, carries
one good signature of a key that the *parent's* state knows, and changes only what the *parent's* state allows its
signer; and the new state is valid as a whole.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from owsgit.ledger import changes, commits, grants, signatures, targets, verdicts
from owsgit.ledger.commits import Commit
from owsgit.ledger.grants import Approver, Grant, Signatories
from owsgit.ledger.objects import Objects
from owsgit.ledger.signatures import Signer
from owsgit.ledger.verdicts import Approvals, Covers
from owsgit.model.change import Change, Need, file_need, history_need
from owsgit.model.errors import InvalidError, NotAllowedError, OwsgitError, Problem, RefusedError
from owsgit.model.iam.decision import Decision
from owsgit.model.resource import Kinds
from owsgit.model.state import State

PUSH_COMMITS_MAX = 1000
"""Commits of one push. More than people make between two pushes; a bound on what one push can cost a node."""

HISTORY_COMMITS_MAX = 10_000_000
"""A bound for whole histories: a commit every minute for 19 years."""


class NotFastForwardError(RefusedError):
    """A tip that does not follow main."""


@dataclass(frozen=True)
class Verified:
    """A commit that was verified, and the state that it describes."""

    commit: str
    tree: str
    state: State


Inspect = Callable[[Change], Iterable[Problem]]


@dataclass(frozen=True)
class Review:
    """What is known besides the commits: who approved of them, and what time it is for who takes them in.

    `missing` is told what is not allowed, instead of an error: for proposals, which others may still approve of.
    `inspect` sees each change of a resource, and says what is wrong with it: what only a node can tell, with its key.
    """

    approvals: Approvals = verdicts.none
    now: float | None = None
    missing: Callable[[Commit, Sequence[Problem]], None] | None = None
    inspect: Inspect | None = None
    everybody: bool = False  # name all who approved, also where nothing rests on it


ALONE = Review()
"""Nothing but the commits."""


@dataclass(frozen=True)
class CommitReport:
    """What verification found in one commit."""

    commit: Commit
    signer: Signer
    changes: tuple[Change, ...]
    files: tuple[str, ...]
    grants: tuple[Grant, ...]
    json_bytes: int = 0  # that were parsed
    approvers: tuple[Approver, ...] = ()  # on whose word something rests


@dataclass(frozen=True)
class Report:
    """A verified push: the new head with its state, and each commit in order."""

    head: Verified
    commits: tuple[CommitReport, ...]


PUSH_JSON_BYTES_MAX = 64 * 1024 * 1024
"""JSON that may change in one push, over all of its commits."""


def push(
    objects: Objects,
    kinds: Kinds,
    base: Verified | None,
    tip: str,
    review: Review = ALONE,
    *,
    commits_max: int = PUSH_COMMITS_MAX,
) -> Report:
    """Verify every commit that follows `base` (None: from the genesis) up to `tip`.

    Raises RefusedError, InvalidError and their kin; each names the commit, the file, the place and the remedy.
    """
    reports: list[CommitReport] = []
    json_bytes = 0

    def seen(report: CommitReport) -> None:
        nonlocal json_bytes
        reports.append(report)
        json_bytes += report.json_bytes
        if json_bytes > PUSH_JSON_BYTES_MAX:
            raise RefusedError(
                f"more than {PUSH_JSON_BYTES_MAX:,} bytes of JSON change", remedy="push in smaller steps"
            )

    head = walk(objects, kinds, base, tip, seen, review, commits_max=commits_max)
    return Report(head, tuple(reports))


def walk(
    objects: Objects,
    kinds: Kinds,
    base: Verified | None,
    tip: str,
    seen: Callable[[CommitReport], None],
    review: Review = ALONE,
    *,
    commits_max: int = HISTORY_COMMITS_MAX,
) -> Verified:
    """As `push`, telling `seen` of each commit instead of keeping them: for long histories."""
    head = base
    start = base.commit if base else None
    chain = _chain(objects, start, tip, commits_max)[::-1]
    covers = Covers(
        [commit.id for commit in chain],
        start,
        review.approvals,
        lambda commit: start is not None and _is_older(objects, start, commit),
    )
    for index, commit in enumerate(chain):
        try:
            if head is None:
                head, report = _genesis(objects, kinds, commit)
            else:
                head, report = _successor(objects, head, commit, review, partial(covers.of, index))
        except OwsgitError as error:
            raise _at(commit, error, len(chain) - index - 1, start) from error
        seen(report)
    if head is None:
        raise NotFastForwardError("there is no commit to verify")
    return head


def _at(commit: Commit, error: OwsgitError, later: int, base: str | None) -> OwsgitError:
    """The same error, naming the commit; and if there are `later` ones, that they do not mend it."""
    name = f"commit {commit.short}"
    error.problems = tuple(
        problem
        if problem.message.startswith(name)
        else replace(problem, message=f"{problem.message} [{name}]" if problem.file else f"{name}: {problem.message}")
        for problem in error.problems
    )
    if later and base is not None:
        others = "the commit after it does" if later == 1 else f"the {later} commits after it do"
        message = f"every commit is checked by itself: {others} not mend {name}"
        onto = base[:10]
        remedy = f"make them one (git reset --soft {onto}; git commit -S), or change that one (git rebase -i {onto})"
        error.problems += (Problem(message, remedy=remedy),)
    return error


def _chain(objects: Objects, base: str | None, tip: str, commits_max: int) -> list[Commit]:
    """The first-parent chain from `tip` back to `base`, newest first, without `base`."""
    chain: list[Commit] = []
    oid: str | None = tip
    others: list[Commit] = []
    while oid != base:
        if oid is None:
            raise _not_following(objects, base, chain, others)
        if len(chain) >= commits_max:
            raise RefusedError(
                f"more than {commits_max:,} commits at once",
                remedy=f"push in steps: git push <remote> <commit>:main, at most {commits_max:,} commits each",
            )
        commit = commits.parse(oid, objects.commit(oid))
        chain.append(commit)
        if len(commit.parents) > 1:
            others.append(commit)
        oid = commit.first_parent
    return chain


def _is_older(objects: Objects, base: str, commit: str) -> bool:
    """Whether `commit` is `base`, or among the last commits before it."""
    oid: str | None = base
    for _ in range(PUSH_COMMITS_MAX):
        if oid is None or oid == commit:
            break
        oid = commits.parse(oid, objects.commit(oid)).first_parent
    return oid == commit


def _not_following(
    objects: Objects, base: str | None, chain: list[Commit], merges: list[Commit]
) -> NotFastForwardError:
    assert base is not None
    if _is_older(objects, base, chain[0].id):
        return NotFastForwardError(
            f"main is past commit {chain[0].short} already, and never moves back",
            remedy="to undo what came after it: git revert <commit>, then push",
        )
    for merge in merges:
        if base in merge.parents[1:]:
            return NotFastForwardError(
                f"commit {merge.short}: this merge has main as its second parent; history is read along first parents",
                remedy=f"git reset --hard {base[:10]} && git merge --no-ff -S {merge.parents[0][:10]}; "
                "and use git pull --rebase next time",
            )
    return NotFastForwardError(
        f"this history does not follow main (at {base[:10]}) along first parents",
        remedy="git pull --rebase, then push again; main never moves back",
    )


def _genesis(objects: Objects, kinds: Kinds, commit: Commit) -> tuple[Verified, CommitReport]:
    """The first commit founds the project: its signers are its roots."""
    empty = State.empty(kinds).born(commit.id)
    found = changes.between(objects, empty, None, commit.tree)
    state = empty.after(found.resources)
    problems = [
        *targets.missing_files(objects, state, found.resources),
        *targets.missing_versions(objects, state, None, found.resources),
    ]
    if problems:
        raise InvalidError.of(problems)
    signer = signatures.signer(commit, state)
    if not state.is_root(signer.user):
        raise RefusedError(
            f"the genesis commit is signed by {signer.user}, who is no root",
            file="project.json",
            path="$.roots",
            remedy=f"add {signer.user} to the roots, or have a root sign",
        )
    founding = Decision(True, f"allowed: {signer.user} founds the project")
    given = tuple(
        Grant(need, founding, signer.user) for need in needs(state, found, adds_history=len(commit.parents) > 1)
    )
    report = CommitReport(commit, signer, tuple(found.resources), tuple(found.files), given, found.json_bytes)
    return Verified(commit.id, commit.tree, state), report


def _successor(
    objects: Objects,
    parent: Verified,
    commit: Commit,
    review: Review,
    covering: Callable[[], Iterator[verdicts.Verdict]],
) -> tuple[Verified, CommitReport]:
    signer = signatures.signer(commit, parent.state)
    signer.check_validity(review.now)
    found = changes.between(objects, parent.state, parent.tree, commit.tree)
    signatories = Signatories(parent.state, signer, covering, review.now)
    given, denied = decisions(signatories, needs(parent.state, found, adds_history=len(commit.parents) > 1))
    denied += grants.root_problems(signatories, found.resources)
    if denied and review.missing is None:
        error = NotAllowedError(denied[0].message)
        error.problems = tuple(denied[: changes.PROBLEMS_MAX])
        raise error
    state = parent.state.after(found.resources)
    problems = [
        *targets.missing_files(objects, state, found.resources),
        *targets.missing_versions(objects, state, commit.first_parent, found.resources),
    ]
    if review.inspect is not None:
        problems += [problem for change in found.resources for problem in review.inspect(change)]
    if problems:
        raise InvalidError.of(problems)
    if denied and review.missing is not None:
        review.missing(commit, denied)
    report = CommitReport(
        commit,
        signer,
        tuple(found.resources),
        tuple(found.files),
        tuple(given),
        found.json_bytes,
        signatories.approvers if signatories.used or review.everybody else (),
    )
    return Verified(commit.id, commit.tree, state), report


def needs(state: State, found: changes.TreeChanges, *, adds_history: bool) -> Iterator[Need]:
    """Every permission that a commit needs; `adds_history`: it is a merge."""
    for change in found.resources:
        yield from change.needs(state.scope, state.kinds)
    for path in found.files:
        yield file_need(state.scope, path)
    if adds_history or not (found.resources or found.files):
        yield history_need(state.scope)


def decisions(signatories: Signatories, needed: Iterator[Need]) -> tuple[list[Grant], list[Problem]]:
    """The decision for everything that is needed: what is granted, and what is not."""
    given: list[Grant] = []
    denied: list[Problem] = []
    for need in needed:
        decision, user = signatories.decide(need)
        if decision.allowed:
            given.append(Grant(need, decision, user))
        else:
            remedy = signatories.remedy(need) if len(denied) < changes.PROBLEMS_MAX else ""
            message = f"{user} may not {need.action} on {need.arn}: {decision.reason}"
            denied.append(Problem(message, need.file, remedy=remedy))
    return given, denied


def load(objects: Objects, kinds: Kinds, genesis: str, commit: str) -> Verified:
    """The state at `commit` read from its tree alone, for a commit that was verified before.

    Raises InvalidError if the tree is not valid after all.
    """
    tree = commits.parse(commit, objects.commit(commit)).tree
    return Verified(commit, tree, load_tree(objects, kinds, genesis, tree, trusted=True))


def go_on(objects: Objects, before: Verified, commit: str) -> Verified:
    """The state at `commit`, as `load` would read it, from the one before: only what differs is read."""
    tree = commits.parse(commit, objects.commit(commit)).tree
    found = changes.between(objects, before.state, before.tree, tree, trusted=True).resources
    return Verified(commit, tree, before.state.after(found, trusted=True))


def load_tree(
    objects: Objects, kinds: Kinds, genesis: str, tree: str, *, trusted: bool = False, unfinished: bool = False
) -> State:
    """The state that a tree describes, signed or not: for `owsgit validate` and `owsgit up`. Raises InvalidError.

    `unfinished`: what it refers to need not be there yet.
    """
    empty = State.empty(kinds).born(genesis)
    found = changes.between(objects, empty, None, tree, trusted=trusted).resources
    state = empty.after(found, trusted=trusted, unfinished=unfinished)
    if not trusted and (problems := list(targets.missing_files(objects, state, found))):
        raise InvalidError.of(problems)
    return state
