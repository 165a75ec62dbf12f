"""`owsgit validate`: the working tree against all rules."""

from pathlib import Path
from typing import Any

from owsgit.cli import output, plain
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError, OwsgitError, Problem, UnavailableError
from owsgit.model.state import GENESIS_UNKNOWN
from owsgit.services import KINDS


@output.command("validate")
def command() -> Result:
    """Check the working tree against all rules; no node is needed.

    What a node would refuse is refused here: names, JSON, fields, references, ports. Signatures and permissions belong
    to commits: owsgit verify checks those. Exit code 1 if anything is wrong. What looks like a secret in a file that
    everybody can read is a warning.
    """
    clone = Clone(Path())
    if not (clone.folder / "project.json").exists():
        raise InvalidError(
            f"{clone.folder} is no infra repository: it has no project.json", remedy="owsgit init NAME makes one"
        )
    head = clone.head()
    genesis = clone.genesis(head) if head else GENESIS_UNKNOWN
    try:
        with clone.snapshot() as (objects, tree):
            state = verify.load_tree(objects, KINDS, genesis, tree)
            warnings = [*plain.warnings(objects, tree, state), *state.warnings()]
    except UnavailableError:
        raise
    except OwsgitError as error:
        lines = [line for problem in error.problems for line in problem.lines()]
        summary = f"{len(error.problems)} problem{'s' if len(error.problems) != 1 else ''}"
        data = {"valid": False, "problems": [document(problem) for problem in error.problems]}
        return Result(data, Table(lines=[*lines, summary]), 1)
    counts = {kind.name: sum(1 for _ in state.of_kind(kind.name)) for kind in KINDS}
    shown = ", ".join(
        f"{count} {name if count == 1 else KINDS[name].folder}" for name, count in counts.items() if count
    )
    lines = [line for warning in warnings for line in _warned(warning)]
    data = {"valid": True, "problems": [], "warnings": [document(each) for each in warnings], "resources": counts}
    return Result(data, Table(lines=[*lines, f"valid: {shown}"]))


def _warned(warning: Problem) -> list[str]:
    first, *more = warning.lines()
    return [f"warning: {first}", *more]


def document(problem: Problem) -> dict[str, Any]:
    return {"message": problem.message, "file": problem.file, "path": problem.path, "remedy": problem.remedy}
