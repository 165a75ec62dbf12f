"""`owsgit tables`: each command has a module of its own."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from owsgit.cli import remote
from owsgit.cli.groups import ModuleGroup
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from owsgit.cli.dynamodb import DynamoDb

COMMANDS = {"export": "owsgit.cli.tables_export", "import": "owsgit.cli.tables_import"}

CHECKPOINT_SECONDS = 2.0
"""So much is done again after a crash. Writing a checkpoint waits for the disk."""

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group("tables", cls=ModuleGroup, modules=COMMANDS)
def command() -> None:
    """Move the items of tables: to files, from files, from DynamoDB."""


def place_options(function: Function) -> Function:
    """Where the table is."""
    for option in (
        click.option(
            "--directory",
            "-C",
            default=".",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="The clone, where it is not the current folder.",
        ),
        click.option("--node", "-n", "node", metavar="NAME", help="The node to talk to; any of them has all tables."),
        remote.role_option,
        click.option(
            "--profile",
            metavar="NAME",
            help="Not of this project: of what this profile of the AWS CLI names, as of AWS.",
        ),
    ):
        function = option(function)
    return function


def reached(directory: Path, node: str | None, role: str | None, profile: str | None) -> "DynamoDb":
    """Raises OwsgitError."""
    from owsgit.cli import dynamodb  # noqa: PLC0415 - botocore is slow to import

    if profile is not None and (node or role):
        raise InvalidError("a profile says itself which node, and as whom", remedy="leave out --profile, or the others")
    return dynamodb.of_profile(profile) if profile else dynamodb.of_node(Clone(directory), node, role)


class Checkpoint:
    """How far something got, in a file: whole or as it was before."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """`identity`: what it is about, as JSON."""
        self.path, self._identity = path, identity

    def read(self) -> dict[str, Any] | None:
        """None if nothing has begun. Raises InvalidError if it is about something else."""
        try:
            found = orjson.loads(self.path.read_bytes())
            identity, reached = found["of"], dict(found["reached"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidError(f"it cannot be read: {error}", file=str(self.path), remedy="--restart") from None
        if identity != self._identity:
            differing = [name for name in self._identity if identity.get(name) != self._identity[name]]
            raise InvalidError(
                f"what was begun is another thing: {', '.join(differing)} differs",
                file=str(self.path),
                remedy="--restart begins anew; or finish that one with what it was called with",
            )
        return reached

    def write(self, reached: dict[str, Any]) -> None:
        """Raises UnavailableError."""
        scratch = self.path.with_name(self.path.name + ".new")
        try:
            with scratch.open("wb") as file:
                file.write(orjson.dumps({"of": self._identity, "reached": reached}))
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path)
        except OSError as error:
            raise UnavailableError(
                f"how far it got cannot be written: {error.strerror}", file=str(self.path), remedy="free some space"
            ) from None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Progress:
    """A bar on a terminal, nothing elsewhere. `unit`: what `total` counts."""

    def __init__(self, what: str, total: int | None, done: int, *, bytes_: bool) -> None:
        self._bar, self._task = self._made(bytes_), None
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=total or None, completed=done, items=0)

    @staticmethod
    def _made(bytes_: bool) -> Any:
        if not sys.stderr.isatty():
            return None
        from rich import progress  # noqa: PLC0415 - only where a person looks
        from rich.console import Console  # noqa: PLC0415

        amount = progress.DownloadColumn() if bytes_ else progress.TaskProgressColumn()
        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            amount,
            progress.TextColumn("{task.fields[items]:,} items"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def shown(self) -> AbstractContextManager[Any]:
        return self._bar if self._bar is not None else nullcontext()

    def tell(self, done: int, items: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, items=items)
