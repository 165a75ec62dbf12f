"""`owsgit why`: whether a user may do something, and by which statement."""

from pathlib import Path

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import compile_policies
from owsgit.model.spec import nearest
from owsgit.model.state import State
from owsgit.services import KINDS

ANSWERS = {True: "speaks", False: "does not speak", None: "cannot be told"}


@output.command("why")
@click.argument("user")
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
@click.option("--revision", default="HEAD", show_default=True, help="The commit whose policies decide.")
def command(user: str, action: str, resource: str, given: tuple[str, ...], revision: str) -> Result:
    """Explain whether USER may do ACTION on RESOURCE (an ARN, or a path such as functions/hello).

    The same decision as a push or a call gets. A statement that names the action but does not speak has another
    resource, or a condition that does not hold. Exit code 1 if it is not allowed.
    """
    clone = Clone(Path())
    commit = clone.resolve(revision)
    state = verify.load(clone.objects(), KINDS, clone.genesis(commit), commit).state
    if state.get("user", user) is None:
        raise InvalidError(
            f"there is no user {user!r}", remedy=nearest(user, [u.name for u in state.of_kind("user")], "user", "users")
        )
    arn = _arn(state, resource)
    context = Context.of(_pairs(given))
    decision = state.decide(user, action, arn, context)
    known = context.with_values(state.identity(user))
    policies = compile_policies(state.policies_of("user", user))
    statements = [
        {"statement": str(place), "effect": place.rule.statement.effect, "answer": ANSWERS[answer]}
        for place, answer in policies.explain(action, arn, known)
    ]
    data = {"user": user, "action": action, "resource": arn, "allowed": decision.allowed, "reason": decision.reason}
    lines = [f"{user} {'may' if decision.allowed else 'may not'} {action} on {arn}", f"  {decision.reason}"]
    lines += [f"  {each['effect']:<5} {each['answer']:<15} {each['statement']}" for each in statements]
    return Result({**data, "statements": statements}, Table(lines=lines), 0 if decision.allowed else 1)


def _arn(state: State, resource: str) -> str:
    if resource.startswith("arn:"):
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
