"""`owsgit logs`: what a function wrote, or who asked a gateway for what, on all nodes."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from owsgit.cli import connect, output, remote
from owsgit.cli.log_streams import Logs, Question
from owsgit.cli.output import Result, Table
from owsgit.cli.remote import Remote
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model import terminal
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError
from owsgit.services import KINDS

LINES = 100
LINES_MAX = 100_000
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@output.command("logs")
@click.argument("name")
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with new lines until interrupted (one JSON object a line with -o json)."
)
@click.option(
    "--lines",
    "-l",
    type=click.IntRange(0, LINES_MAX),
    help=f"How many lines; {LINES}, or with --since all, by default.",
)
@click.option("--since", metavar="TIME", help="Only lines since then: 10m (or s, h, d), or 2026-01-31T10:00:00Z.")
@click.option("--filter", "text", metavar="TEXT", help="Only lines that contain TEXT.")
@click.option("--level", type=click.Choice(LEVELS, case_sensitive=False), help="Only lines of this level, or graver.")
@click.option("--gateway", is_flag=True, help="NAME is a gateway: show its access log.")
@click.option("--request", metavar="ID", help="Only lines of one request.")
@remote.role_option
@click.option("--node", "-n", "node", default="", help="Only of this node: a git remote or ssh:// address.")
def command(name: str, follow: bool, node: str, **wanted: Any) -> Result:
    """Show what the function NAME wrote on all nodes, merged by time, or with --gateway the access log of a gateway.

    Needs logs:GetLogEvents on the function or the gateway.
    """
    clone = Clone(Path())
    lines = wanted["lines"]
    if lines is None:
        lines = LINES_MAX if wanted["since"] else LINES
    found = Logs(Question(name, lines, follow, _options(**wanted)), not node, output.note, lambda: others(clone))
    entries: list[dict[str, Any]] = []
    for number, batch in enumerate(found.batches(remote.find(clone, node))):
        if not number and not batch and found.hint:
            output.note(f"owsgit: {terminal.safe(found.hint)}")
        if follow:
            _show(batch)
        else:
            entries += batch
    return Result(entries, Table(lines=[shown(entry) for entry in entries]))


def _options(
    *,
    since: str | None,
    text: str | None,
    level: str | None,
    request: str | None,
    role: str | None,
    gateway: bool,
    lines: int | None,
) -> tuple[str, ...]:
    given = {"since": moment(since) if since else None, "filter": text, "level": level, "request": request}
    given["kind"] = "gateway" if gateway else None
    return (*(f"{key}={value}" for key, value in given.items() if value), *remote.role_words(role))


def moment(text: str) -> str:
    """The time that is meant, as lines of a log write it. Raises InvalidError."""
    ago = _AGO.fullmatch(text)
    try:
        found = (
            datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidError(
            f"--since: {text!r} is not a time", remedy="write 10m, 2h, 3d, or a time such as 2026-01-31T10:00:00Z"
        ) from None
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def others(clone: Clone) -> list[Remote]:
    """The nodes that this clone's ledger names, to be asked when the default remote is not there."""
    head = clone.head()
    if head is None:
        return []
    state = verify.load(clone.objects(), KINDS, clone.genesis(head), head).state
    ssh, project = remote.ssh_command(clone), state.project.name
    specs = [node.spec for node in state.of_kind("node") if isinstance(node.spec, NodeSpec)]
    return [remote.parse(connect.url(spec, project), ssh) for spec in specs]


def _show(entries: list[dict[str, Any]]) -> None:
    machine = click.get_current_context().params["output"] != "table"
    for entry in entries:
        click.echo(json.dumps(entry, ensure_ascii=False) if machine else shown(entry))


def shown(entry: dict[str, Any]) -> str:
    """A line of a log, for people. Functions write what they like: nothing of it moves the cursor or draws."""
    told = [terminal.safe(str(entry.get(field, ""))) for field in ("time", "node", "requestId")]
    return f"{told[0]} {told[1]} {told[2][:8]:<8} {terminal.safe_lines(str(entry.get('message', '')))}"
