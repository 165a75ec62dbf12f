"""How the command line tells an error."""

import os
import sys
import tempfile
import traceback

import click

from owsgit import __version__
from owsgit.model.errors import OwsgitError


def _heading() -> None:
    """'error: ', in red where a person looks who did not turn colours off (https://no-color.org)."""
    coloured = not os.environ.get("NO_COLOR")
    click.secho("error: ", fg="red" if coloured else None, bold=coloured, nl=False, err=True)


def tell(error: Exception) -> int:
    """Print `error` for a person on standard error; the exit status."""
    if isinstance(error, OwsgitError):
        for problem in error.problems:
            first, *more = problem.lines()
            _heading()
            click.echo("\n".join([first, *more]), err=True)
        return error.exit_code
    with tempfile.NamedTemporaryFile("w", prefix="owsgit-", suffix=".log", delete=False) as file:
        file.write(f"owsgit {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n")
        traceback.print_exception(error, file=file)
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(
        f"{type(error).__name__}: {error}\n  remedy: this is a fault of owsgit: report it with {file.name}", err=True
    )
    return 1
