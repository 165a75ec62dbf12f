"""`--output table|json|yaml`: a command returns data, this prints it; the table is drawn from the same data."""

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

WIDE = ("MESSAGE", "FOUND")
"""Columns that give way in a narrow terminal."""

FORMATS = ("table", "json", "yaml")
MARKDOWN = "markdown"
"""For comments on a forge; only where a command says so."""


@dataclass(frozen=True)
class Table:
    """How people see the data: a table, or plain lines."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """What a command found: `data` for machines, `table` for people, `status` for the shell.

    Without data, what there is to print was printed as it came.
    """

    data: Any
    table: Table = field(default_factory=Table)
    status: int = 0
    markdown: str = ""


def command(
    name: str, *, formats: Sequence[str] = FORMATS, **options: Any
) -> Callable[[Callable[..., Result]], click.Command]:
    """A click command with `--output` that prints the Result its function returns."""

    def decorate(function: Callable[..., Result]) -> click.Command:
        @functools.wraps(function)
        def run(output: str, **arguments: Any) -> int:
            result = function(**arguments)
            emit(result, output)
            return result.status

        flag = click.option(
            "-o", "--output", type=click.Choice(formats), default="table", show_default=True, help="Form of the output."
        )
        made: click.Command = click.command(name, cls=click.Command, **options)(flag(run))
        return made

    return decorate


def emit(result: Result, output: str) -> None:
    """Print `result` on standard output."""
    if result.data is None:
        return
    if output == "json":
        click.echo(json.dumps(result.data, indent=2, ensure_ascii=False))
    elif output == "yaml":
        import yaml  # noqa: PLC0415 - only where it is asked for

        click.echo(yaml.safe_dump(result.data, sort_keys=False, allow_unicode=True), nl=False)
    elif output == MARKDOWN:
        click.echo(result.markdown, nl=False)
    else:
        _draw(result.table)


def _draw(table: Table) -> None:
    if table.rows:
        if sys.stdout.isatty():
            from rich.console import Console  # noqa: PLC0415 - only where a person looks

            Console().print(rich_table(table))
        else:
            widths = [
                max(len(row[index]) for row in (table.columns, *table.rows)) for index in range(len(table.columns))
            ]
            for row in (table.columns, *table.rows):
                click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in table.lines:
        click.echo(line)


def rich_table(table: Table) -> Any:
    """The table for a terminal."""
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        drawn.add_column(column, overflow="fold", no_wrap=column not in WIDE)
    styles = {
        "ready": "green",
        "ok": "green",
        "failed": "red",
        "FAIL": "red",
        "warning": "yellow",
        "suspended": "yellow",
    }
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    return drawn


def note(text: str) -> None:
    """Progress, for people: on standard error."""
    click.echo(text, err=True)
