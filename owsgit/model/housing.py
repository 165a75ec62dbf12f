"""Resources that live on one node of the project, with what they keep."""

from collections.abc import Callable, Iterable, Iterator

from pydantic import Field

from owsgit.model.errors import Problem
from owsgit.model.spec import Name, Reference, Spec

_GOING = (
    "; if the node is to go, what it keeps goes first: copy that elsewhere, and delete this file in the same commit"
)
"""For a node that is taken out of the ledger."""


class Housed(Spec):
    """A spec whose resource is on one node, as its data is."""

    node: Name | None = Field(
        None,
        description="The node that it is on, and stays on. It may be left out in a project of one node. Where a server "
        "has what is kept (engines in project.json), it only says which node feeds functions from it.",
    )

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.node is not None:
            yield Reference("node", self.node, "$.node", passes=False, orders=False, otherwise=_GOING)


def home_of(spec: Housed, nodes: Iterable[str]) -> str | None:
    """The node that something is on, of the nodes of a project; None if nobody says."""
    named = sorted(nodes)
    return spec.node or (named[0] if len(named) == 1 else None)


def homeless(spec: Housed, file: str, what: str, nodes: Callable[[], list[str]]) -> Iterator[Problem]:
    """What is wrong if it may be on several nodes."""
    if spec.node is None and len(nodes()) > 1:
        yield Problem(
            f"there are nodes {', '.join(sorted(nodes()))}, and nobody says on which of them the {what} is",
            file,
            "$.node",
            f'add "node": "{min(nodes())}", or another of them; that of a {what} that is there stays what it was',
        )


def moved(before: str | None, spec: Housed, file: str, what: str, nodes: Callable[[], list[str]]) -> Iterator[Problem]:
    """What is wrong if it was on the node `before`, and is said to be on another."""
    after = home_of(spec, nodes())
    if before is not None and after is not None and before != after:
        yield Problem(
            f"the {what} is on node {before} with what it keeps, and cannot move to {after}",
            file,
            "$.node",
            f'write "node": "{before}"; to move it, add a {what} under another name there, and copy',
        )
