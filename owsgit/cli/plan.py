"""`owsgit plan`: what a change would do."""

from collections.abc import Mapping
from pathlib import Path

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.state import GENESIS_UNKNOWN, State
from owsgit.reconcile import inventory, plan
from owsgit.services import KINDS, SERVICES

EXIT_CHANGES = 2
WORKING_TREE = "the working tree"


@output.command("plan")
@click.argument("revision", required=False)
@click.option(
    "--against",
    metavar="REVISION",
    help="Compare with this commit instead of with what the node has applied. '' is the empty project.",
)
@remote.node_option
def command(revision: str | None, against: str | None, remote: str) -> Result:
    """Show what REVISION (the working tree if not given) would change.

    Compared with what the node has applied, or with another commit by --against, which needs no node. Exit code 0: no
    change; 1: error; 2: changes.
    """
    clone = Clone(Path())
    after = _state(clone, revision).resources
    before, base = _before(clone, against, remote)
    made = plan.make(before, after if against is not None else _applicable(after))
    shown = [*made.lines(), f"{revision or WORKING_TREE} against {base}: {made.summary()}"]
    data = {"against": base, "steps": [step.document() for step in made.steps], "summary": made.summary()}
    return Result(data, Table(lines=shown), EXIT_CHANGES if made.steps else 0)


def _state(clone: Clone, revision: str | None) -> State:
    head = clone.head()
    genesis = clone.genesis(head) if head else GENESIS_UNKNOWN
    if revision is None:
        with clone.snapshot() as (objects, tree):
            return verify.load_tree(objects, KINDS, genesis, tree)
    commit = clone.resolve(revision)
    return verify.load(clone.objects(), KINDS, clone.genesis(commit), commit).state


def _before(clone: Clone, against: str | None, name: str) -> tuple[dict[str, Resource], str]:
    if against == "":
        return {}, "the empty project"
    if against is not None:
        return dict(_state(clone, against).resources), against
    node = remote.find(clone, name)
    resources = [inventory.restore(KINDS, line.decode()) for line in node.call("applied").splitlines()]
    if None in resources:
        raise InvalidError(
            "the node has applied a kind of resource that this owsgit does not know", remedy="update owsgit"
        )
    return {resource.key: resource for resource in resources if resource is not None}, node.url


def _applicable(resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """A node applies the resources of services; users and policies take effect by being in the ledger."""
    kinds = {service.kind.name for service in SERVICES}
    return plan.of_kinds(resources.values(), kinds.__contains__)
