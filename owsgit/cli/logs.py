"""`owsgit logs`: what a function wrote."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone


@output.command("logs")
@click.argument("name")
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with new lines until interrupted (one JSON object a line with -o json)."
)
@click.option("--lines", "-l", default=100, show_default=True, type=click.IntRange(0, 100_000), help="How many lines.")
@remote.role_option
@remote.node_option
def command(name: str, follow: bool, lines: int, role: str | None, remote: str) -> Result:
    """Show what the function NAME wrote on a node, the newest last. Needs logs:GetLogEvents on the function."""
    found = remote_lines(name, lines, follow, role, remote)
    entries = []
    for line in found:
        entry = json.loads(line)
        if follow:
            machine = click.get_current_context().params["output"] != "table"
            click.echo(line.decode() if machine else shown(entry), nl=not machine)
        else:
            entries.append(entry)
    return Result(entries, Table(lines=[shown(entry) for entry in entries]))


def remote_lines(name: str, lines: int, follow: bool, role: str | None, node: str) -> Iterator[bytes]:
    words = ["logs", name, str(lines), *(["follow"] if follow else []), *remote.role_words(role)]
    return remote.find(Clone(Path()), node).stream(*words)


def shown(entry: dict[str, str]) -> str:
    """A line of a log, for people."""
    return f"{entry['time']} {entry['requestId'][:8]:<8} {entry['message']}"
