"""`owsgit why`: whether somebody may do something, and by which statement."""

from pathlib import Path
from typing import Any

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.iam import lint, pattern
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import AttachedPolicy, Session
from owsgit.model.iam.document import PolicySpec
from owsgit.model.names import SESSION_NAME
from owsgit.model.spec import nearest
from owsgit.model.state import State
from owsgit.services import KINDS

ANSWERS = {True: "speaks", False: "does not speak", None: "cannot be told"}
SESSION_DEFAULT = "session"


@output.command("why")
@click.argument("who", metavar="USER")
@click.argument("action")
@click.argument("resource")
@click.option(
    "--context",
    "-c",
    "given",
    multiple=True,
    metavar="KEY=VALUE",
    help="A condition key of the request. May be given again.",
)
@click.option(
    "--session-policy",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A policy that bounds the session of a role further.",
)
@click.option("--revision", default="HEAD", show_default=True, help="The commit whose policies decide.")
def command(
    who: str, action: str, resource: str, given: tuple[str, ...], session_policy: Path | None, revision: str
) -> Result:
    """Explain whether USER may do ACTION on RESOURCE (an ARN, or a path such as functions/hello).

    USER is a user's name, or roles/NAME (or roles/NAME/SESSION) for who has taken on a role. The same decision as a
    push or a call gets. A statement that names the action but does not speak has another resource, or a condition that
    does not hold. Exit code 1 if it is not allowed.
    """
    clone = Clone(Path())
    commit = clone.resolve(revision)
    state = verify.load(clone.objects(), KINDS, clone.genesis(commit), commit).state
    asker = _who(state, who, session_policy)
    arn = _arn(state, resource)
    context = Context.of(_pairs(given))
    _check_request(action, arn, context)
    decision = state.decide(asker, action, arn, context)
    statements: list[dict[str, Any]] = [
        {"statement": str(place), "effect": place.rule.statement.effect, "answer": ANSWERS[answer]}
        for place, answer in state.explain(asker, action, arn, context)
    ]
    data = {"user": who, "action": action, "resource": arn, "allowed": decision.allowed, "reason": decision.reason}
    name = state.caller(asker).name
    lines = [f"{name} {'may' if decision.allowed else 'may not'} {action} on {arn}", f"  {decision.reason}"]
    lines += [f"  {each['effect']:<5} {each['answer']:<15} {each['statement']}" for each in statements]
    note = _unknown(state, arn)
    lines += [f"  note: {note}"] if note else []
    return Result({**data, "statements": statements, "note": note}, Table(lines=lines), 0 if decision.allowed else 1)


def _check_request(action: str, arn: str, context: Context) -> None:
    """Raises InvalidError for a request that nobody could make."""
    if "*" in action or "?" in action:
        raise InvalidError(f"{action!r} is a pattern, and a request is for one action", remedy="name one of them")
    problems = [
        KINDS.vocabulary.action_problem(action),
        *(lint.key_problem(key, KINDS.vocabulary) for key in context.values),
    ]
    for problem in problems:
        if problem is not None:
            raise InvalidError(problem[0], remedy=problem[1])
    try:
        pattern.arn(arn, False)
    except ValueError as error:
        raise InvalidError(
            f"{arn!r}: {error}", remedy="write the whole ARN, or a path such as functions/hello"
        ) from None


def _unknown(state: State, arn: str) -> str | None:
    """A word on a resource that this project does not have."""
    for kind in KINDS:
        name = kind.name_of(arn, state.scope) or kind.called(arn, state.scope)
        if name is not None:
            return None if state.get(kind.name, name) is not None else f"there is no {kind.name} {name!r} (yet)"
    return None if arn == "*" else f"{arn} is no resource of this project (account {state.scope.account})"


def _who(state: State, who: str, session_policy: Path | None) -> str | Session:
    kind, separator, rest = who.partition("/")
    if not separator:
        if session_policy is not None:
            raise InvalidError("only sessions of roles have session policies", remedy="write roles/NAME for USER")
        _check_known(state, "user", who)
        return who
    name, _, session = rest.partition("/")
    if kind not in ("roles", "role"):
        raise InvalidError(f"{who!r} is neither a user nor a role", remedy="write a user's name, or roles/NAME")
    _check_known(state, "role", name)
    session = session or SESSION_DEFAULT
    if SESSION_NAME.fullmatch(session) is None:
        raise InvalidError(f"{session!r} is no name of a session", remedy="2 to 64 of A-Z a-z 0-9 _ + = , . @ -")
    if session_policy is None:
        return Session(name, session)
    spec = PolicySpec.parse(session_policy.read_bytes(), str(session_policy))
    if wrong := list(lint.Lint(KINDS.vocabulary).problems(spec, str(session_policy), "$")):
        raise InvalidError.of(wrong)
    return Session(name, session, (AttachedPolicy(str(session_policy), "$", spec),))


def _check_known(state: State, kind: str, name: str) -> None:
    if state.get(kind, name) is None:
        known = [each.name for each in state.of_kind(kind)]
        raise InvalidError(f"there is no {kind} {name!r}", remedy=nearest(name, known, kind, f"{kind}s"))


def _arn(state: State, resource: str) -> str:
    if resource.startswith("arn:") or resource == "*":
        return resource
    folder, _, rest = resource.partition("/")
    kind = KINDS.by_folder.get(folder)
    if resource in ("project", "project.json"):
        return state.scope.arn(KINDS["project"].arn, "")
    if kind is None or not rest:
        known = [f"{name}/..." for name in KINDS.by_folder]
        raise InvalidError(
            f"{resource!r} is neither an ARN nor a path of a resource", remedy=nearest(resource, known, "path", "paths")
        )
    return state.scope.arn(kind.arn, rest.split("/", 1)[0].removesuffix(".json"))


def _pairs(given: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in given:
        key, separator, value = pair.partition("=")
        if not separator or ":" not in key:
            raise InvalidError(f"{pair!r} is not KEY=VALUE", remedy="for instance: --context aws:SourceIp=10.0.0.1")
        found.setdefault(key, []).append(value)
    return found
