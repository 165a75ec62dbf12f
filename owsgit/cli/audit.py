"""`owsgit audit`: who called which API of AWS's on the nodes, on what, and what became of it."""

import json
from pathlib import Path
from typing import Any

import click

from owsgit.cli import logs, output, remote
from owsgit.cli.log_streams import Logs, Question
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model import terminal

LINES = 100


@output.command("audit")
@click.option("--follow", "-f", is_flag=True, help="Go on with new calls until interrupted.")
@click.option("--lines", "-l", type=click.IntRange(0, logs.LINES_MAX), help="How many calls; 100 by default.")
@click.option("--since", metavar="TIME", help="Only calls since then: 10m (or s, h, d), or 2026-01-31T10:00:00Z.")
@click.option("--filter", "text", metavar="TEXT", help="Only calls that contain TEXT: a user, an operation, an ARN.")
@click.option(
    "--data", is_flag=True, help="Calls that read and write data, such as GetItem and Invoke, not the others."
)
@click.option("--failed", is_flag=True, help="Only calls that were refused or failed.")
@click.option("--request", metavar="ID", help="Only the call with this request id.")
@remote.role_option
@click.option("--node", "-n", "node", default="", help="Only of this node: a git remote or ssh:// address.")
def command(
    follow: bool,
    lines: int | None,
    since: str | None,
    text: str | None,
    data: bool,
    failed: bool,
    request: str | None,
    role: str | None,
    node: str,
) -> Result:
    """Show the calls of AWS's APIs on all nodes, merged by time: who, what, on what, what became of it.

    Calls that read and write data are kept apart, as CloudTrail does, and shown with --data; those of them that were
    denied are among the others.

    Needs cloudtrail:LookupEvents on the project.
    """
    clone = Clone(Path())
    given = {
        "kind": "audit-data" if data else "audit",
        "since": logs.moment(since) if since else None,
        "filter": text,
        "level": "WARN" if failed else None,
        "request": request,
    }
    options = (*(f"{key}={value}" for key, value in given.items() if value), *remote.role_words(role))
    count = lines if lines is not None else (logs.LINES_MAX if since else LINES)
    found = Logs(Question("audit", count, follow, options), not node, output.note, lambda: logs.others(clone))
    entries: list[dict[str, Any]] = []
    for batch in found.batches(remote.find(clone, node)):
        if follow:
            for entry in batch:
                machine = click.get_current_context().params["output"] != "table"
                click.echo(json.dumps(entry) if machine else shown(entry))
        else:
            entries += batch
    told = [shown(entry) for entry in entries]
    return Result(entries, Table(lines=told if told or follow else ["no such calls are on record"]))


def shown(entry: dict[str, Any]) -> str:
    """A call, for people."""
    record = entry.get("record")
    if not isinstance(record, dict):
        return logs.shown(entry)
    who = str(record.get("who", "nobody")).rpartition(":")[2]
    what = f"{record.get('service') or '?'}:{record.get('operation') or '?'}"
    became = record.get("error") or record.get("status", "")
    resources = record.get("resources")
    on = " ".join(map(str, resources)) if isinstance(resources, list) else ""
    if record.get("leftOut"):
        on = f"{on} and {record['leftOut']} more without good credentials before it".strip()
    words = (entry.get("time"), entry.get("node"), who, what, became, f"{record.get('ms', '')} ms", on)
    told = " ".join(terminal.safe(str(word)) for word in words if word not in ("", None))
    why = [terminal.safe(str(record[name])) for name in ("message", "reason") if record.get(name)]
    return "  ".join([told, *why])
