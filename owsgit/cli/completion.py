"""`owsgit completion`: the completion script for a shell."""

import click
from click.shell_completion import get_completion_class

from owsgit.cli import output
from owsgit.cli.output import Result, Table

SHELLS = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/owsgit.fish"}


@output.command("completion")
@click.argument("shell", type=click.Choice(sorted(SHELLS)))
def command(shell: str) -> Result:
    """Print the completion script for SHELL; append it to the shell's start-up file."""
    from owsgit.cli import owsgit  # noqa: PLC0415 - the group imports this module

    found = get_completion_class(shell)
    assert found is not None
    script = found(owsgit, {}, "owsgit", "_OWSGIT_COMPLETE").source()
    return Result({"shell": shell, "file": SHELLS[shell], "script": script}, Table(lines=[script]))
