"""The check of a pull request, for people, machines and forges: `owsgit verify --range`."""

import html
import re
from typing import Any

from owsgit.cli.output import Result, Table
from owsgit.ledger import outlook, verify
from owsgit.ledger.ledger import Proposed
from owsgit.ledger.outlook import Outlook
from owsgit.ledger.repository import Clone, GitError, run, version
from owsgit.model import terminal
from owsgit.model.errors import InvalidError, OwsgitError, Problem, UnavailableError
from owsgit.peers import notes
from owsgit.reconcile import plan, story
from owsgit.services import KINDS

MARKDOWN_CHARACTERS_MAX = 60_000
"""Forges take comments of 65,536 characters."""
MERGING_GIT_VERSION_MIN = (2, 38)
"""Merges without a working tree: git merge-tree --write-tree."""


def check(clone: Clone, between: str, merged_by: str | None) -> Result:
    """Whether a node would take the commits `A..B`, and what they would do. Raises OwsgitError."""
    start, separator, end = between.partition("..")
    if not separator or not start or not end or end.startswith("."):
        raise InvalidError(f"{between!r} is not a range", remedy="for instance: --range origin/main..HEAD")
    main, tip = clone.resolve(start), clone.resolve(end)
    behind = _is_behind(clone, main, tip)
    fork = _fork(clone, main, tip) if behind else main
    base = verify.load(clone.objects(), KINDS, clone.genesis(fork), fork)
    found = outlook.look(clone.objects(), KINDS, base, tip, notes.read_reviews(clone.git_folder))
    problems = list(found.problems)
    told = ""
    if merged_by is not None:
        if found.proposed is not None:
            found = Outlook(Proposed(base, found.proposed.report, ()))  # the merge's signer answers for all of it
        problems += _merge(clone, main, tip, merged_by)
    elif behind:
        told = f"it is behind {start} ({main[:10]}): a node takes it after git rebase -S {start}"
    accepted = found.accepted and not problems
    return Result(
        _data(found, problems, base.commit, tip, accepted, behind),
        Table(lines=_lines(found, problems, told, accepted)),
        0 if accepted else 1,
        _markdown(found, problems, told, tip, accepted, merged_by),
    )


def _is_behind(clone: Clone, main: str, tip: str) -> bool:
    return main != tip and main not in run(
        clone.folder, "rev-list", "--first-parent", f"--max-count={verify.PUSH_COMMITS_MAX + 1}", tip
    ).split("\n")


def _fork(clone: Clone, main: str, tip: str) -> str:
    """Where `tip` left main. Both are followed along first parents: what merges brought is history that nobody
    verified, and nothing to start from."""
    decided = set(run(clone.folder, "rev-list", "--first-parent", main).split("\n"))
    count = f"--max-count={verify.PUSH_COMMITS_MAX + 1}"
    for commit in run(clone.folder, "rev-list", "--first-parent", count, tip).split("\n"):
        if commit in decided:
            return commit
    raise InvalidError(
        f"{tip[:10]} does not start from a commit of {main[:10]} along first parents, as far as it is here",
        remedy="git rebase; or fetch the whole history: git fetch --unshallow, or fetch-depth: 0 in CI",
    )


def _merge(clone: Clone, main: str, tip: str, user: str) -> list[Problem]:
    """What keeps `user` from merging `tip` into `main`."""
    base = verify.load(clone.objects(), KINDS, clone.genesis(main), main)
    if base.state.get("user", user) is None:
        raise InvalidError(
            f"there is no user {user!r}", remedy="the forge's key is a user of the ledger, users/<name>.json"
        )
    if version() < MERGING_GIT_VERSION_MIN:
        raise UnavailableError(
            f"git {'.'.join(map(str, version()))} cannot try a merge, which --merged-by needs",
            remedy="install git 2.38 or newer",
        )
    try:
        tree = run(clone.folder, "merge-tree", "--write-tree", main, tip).split("\n")[0]
    except GitError:
        return [Problem(f"{tip[:10]} does not merge into {main[:10]} without conflicts", remedy="rebase it")]
    try:
        return outlook.merged_by(clone.objects(), base, tree, user)
    except OwsgitError as error:
        return list(error.problems)


def _lines(found: Outlook, problems: list[Problem], told: str, accepted: bool) -> list[str]:
    lines = story.proposed(found.proposed, "a node would take it") if found.proposed is not None else []
    if problems:
        lines += ["owsgit: REFUSED", *(f"  {line}" for problem in problems for line in problem.lines())]
    return [*lines, *([f"owsgit: {told}"] if told else []), f"{'accepted' if accepted else 'refused'}"]


def _missing(found: Outlook) -> list[Problem]:
    return [problem for _, problem in found.proposed.missing] if found.proposed is not None else []


def _data(found: Outlook, problems: list[Problem], base: str, tip: str, accepted: bool, behind: bool) -> dict[str, Any]:
    commits = found.proposed.report.commits if found.proposed is not None else ()
    steps = _plan(found.proposed).steps if found.proposed is not None else []
    return {
        "accepted": accepted,
        "base": base,
        "commit": tip,
        "behind": behind,
        "commits": [
            {"commit": each.commit.id, "subject": each.commit.subject, "signer": each.signer.user} for each in commits
        ],
        "steps": [step.document() for step in steps],
        "problems": [
            {"message": each.message, "file": each.file, "path": each.path, "remedy": each.remedy}
            for each in (*_missing(found), *problems)
        ],
    }


def _plan(proposed: Proposed) -> plan.Plan:
    return plan.make(proposed.base.state.resources, proposed.report.head.state.resources)


def _markdown(
    found: Outlook, problems: list[Problem], told: str, tip: str, accepted: bool, merged_by: str | None
) -> str:
    """A comment. Whatever comes from the commits stands in code blocks or is escaped: it can say nothing of its own."""
    who = f" when {_escaped(merged_by)} merges it" if merged_by else ""
    sign, word = (
        ("❌", "refuse") if not accepted else ("⚠️", "accept, once it is rebased,") if told else ("✅", "accept")
    )
    lines = [
        f"### {sign} owsgit: a node would {word} {tip[:10]}{who}",
        "",
    ]
    if told:
        lines += [f"> {_escaped(told)}", ""]
    if wrong := [*_missing(found), *problems]:
        lines += ["**Not allowed, or not valid**", "", *_block([line for each in wrong for line in each.lines()]), ""]
    if found.proposed is not None:
        made = _plan(found.proposed)
        lines += [f"**Plan: {made.summary()}**", ""]
        if made.steps:
            lines += [*_block(list(made.lines()), "diff"), ""]
        lines += ["| commit | signed by | subject |", "|---|---|---|"]
        lines += [
            f"| {each.commit.short} | {_escaped(each.signer.user)} | {_escaped(each.commit.subject)} |"
            for each in found.proposed.report.commits[-20:]
        ]
    text = "\n".join(lines) + "\n"
    if len(text) > MARKDOWN_CHARACTERS_MAX:
        cut = text[:MARKDOWN_CHARACTERS_MAX].rsplit("\n", 1)[0]
        fence = re.findall(r"^(`{3,})", cut, re.MULTILINE)
        text = cut + ("\n" + fence[-1] if len(fence) % 2 else "") + "\n\n(cut: owsgit verify --range shows all)\n"
    return text


def _block(lines: list[str], language: str = "") -> list[str]:
    """A code block with a fence that is longer than any run of backticks in it."""
    safe = [terminal.safe(line, 2000) for line in lines]
    longest = max((len(ticks) for line in safe for ticks in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *safe, fence]


def _escaped(text: str) -> str:
    """Text that means nothing to Markdown, HTML or a forge's mentions."""
    safe = html.escape(terminal.safe(text, 200), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+.!|~-])", r"\\\1", safe).replace("@", "@\u2060")
