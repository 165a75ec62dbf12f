"""`owsgit status`: all nodes of the project as one of them sees them, and what runs on that one."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model import terminal
from owsgit.model.errors import UnavailableError

WATCH_SECONDS = 1.0


@output.command("status")
@click.option("--watch", "-w", is_flag=True, help="Show it again every second, until interrupted.")
@remote.node_option
def command(watch: bool, remote: str) -> Result:
    """Show all nodes as one of them sees them, what runs on that one, and how it is.

    Exit code 1 if a resource failed, a node cannot be reached, or a node does not follow main.
    """
    clone = Clone(Path())
    if watch:
        _watch(clone, remote)
    return _result(clone, remote)


def _result(clone: Clone, name: str) -> Result:
    data = json.loads(remote.find(clone, name).call("status"))
    failed = (
        bool(data["problem"])
        or any(resource["state"] == "failed" for resource in data["resources"])
        or any(node["failed"] or not node["reachable"] or node["problem"] for node in data["nodes"])
    )
    return Result(data, _table(data), int(failed))


def _table(data: dict[str, Any]) -> Table:
    node, project = data["node"], data["project"]
    lines = [
        *([""] if data["resources"] else ["no resources"]),
        *_nodes(data["nodes"]),
        f"project  {project['name']} ({project['id']})" if project else "project  none yet: push a genesis commit",
        f"node     {node['name']} at {node['address']}:{node['sshPort']}, owsgit {node['version']}",
        f"head     {(data['head'] or 'none')[:10]}, applied {(data['applied'] or 'none')[:10]}",
    ]
    if node["sandbox"] == "none":
        lines.append("sandbox  NONE: functions are not contained on this node")
    lines += [f"warning  {warning}" for warning in data["warnings"]]
    if data["problem"]:
        lines.append(f"problem  main is not followed: {data['problem']}")
    away = {each["node"] for each in data["nodes"] if not each["reachable"]}
    rows = [
        [
            resource["resource"],
            resource["state"],
            " ".join(resource["urls"]),
            resource["since"],
            resource["commit"][:10],
            _message(resource, away),
        ]
        for resource in data["resources"]
    ]
    if not sys.stdout.isatty():
        rows = [["; ".join(map(str.strip, cell.split("\n"))) for cell in row] for row in rows]
    return Table(("RESOURCE", "STATE", "URL", "SINCE", "COMMIT", "MESSAGE"), rows, lines)


def _message(resource: dict[str, Any], away: set[str]) -> str:
    """What there is to say of a resource, in lines."""
    live = resource["live"]
    home = live.get("home")
    told = [
        resource["message"],
        f"not there until node {home} is reachable again" if home in away else "",
        f"last drift: {resource['drift']}" if resource["drift"] else "",
        *_counts(live),
        *_canaries(live),
        *_certificates(live),
        *_fed(live),
        *_kept(live),
    ]
    return "\n".join(line for line in told if line)


def _counts(live: dict[str, Any]) -> list[str]:
    """What a function, or a gateway, did since it was first applied on this node, in one line."""
    if "requests" in live:
        return [_requests(live)]
    if "invocations" not in live:
        return []
    told = [f"{live[name]} {name}" for name in ("invocations", "errors", "throttles") if live[name]]
    told += [f"{name} {value:g} ms" for name, value in live.get("durationMs", {}).items()]
    return [", ".join([*told, f"{live['workers']} workers ({live['busy']} busy)"])]


def _fed(live: dict[str, Any]) -> list[str]:
    """How an event source does: what became of the last batch, how old is what waits, and what became of records."""
    if "iteratorAge" not in live:
        return []
    told = [f"{count} {what}" for what, count in live["records"].items() if count]
    return [", ".join([live["lastResult"], f"iterator age {live['iteratorAge']:g} s", *told])]


def _kept(live: dict[str, Any]) -> list[str]:
    """How a table's indexes come on that are being built, and why its database cannot be used, a line each."""
    told = [f"index {index}: {how}" for index, how in live.get("indexes", {}).items()]
    return [*told, *([live["problem"]] if "problem" in live else [])]


def _certificates(live: dict[str, Any]) -> list[str]:
    """When the first certificate of a gateway ends; and those for which something has to be done, a line each."""
    found = live.get("certificates", [])
    ends = min((each["ends"] for each in found if "ends" in each), default="")
    told = [f"{len(found)} certificate{'s' if len(found) > 1 else ''}, good until {ends[:10]}"] if ends else []
    for each in found:
        if said := [text for name in ("warning", "problem") if (text := each.get(name))]:
            told.append(f"certificate for {each['host']}: {', '.join(said)}")
    return told


def _canaries(live: dict[str, Any]) -> list[str]:
    """How both sides of each canary release of a gateway do on this node, a line each."""
    return [
        f"{route}: {side} {_side(found[side])}"
        for route, found in live.get("canaries", {}).items()
        for side in ("main", "canary")
    ]


def _side(found: dict[str, Any]) -> str:
    told = [f"{found['requests']} requests, {found['errors']} failed"]
    recent = found["recent"]
    if recent["requests"]:
        latency = recent["latencyMs"]
        told.append(
            f"of late {recent['errorRate'] * 100:g} % failed, p50 {latency['p50']:g} ms, p99 {latency['p99']:g} ms"
        )
    return "; ".join(told)


def _requests(live: dict[str, Any]) -> str:
    told = [f"{live['requests']} requests", *(f"{live[name]} {name}" for name in ("4xx", "5xx") if live[name])]
    recent = live["recent"]
    if recent["requests"]:
        latency = ", ".join(f"{name} {value:g} ms" for name, value in recent["latencyMs"].items())
        rate = f", {recent['errorRate']:.1%} of them 5xx" if recent["errorRate"] else ""
        told.append(f"{recent['requests']} in the last {recent['minutes']} minutes ({latency}{rate})")
    return ", ".join(told)


def _nodes(nodes: list[dict[str, Any]]) -> list[str]:
    """A line for each node, in columns."""
    if len(nodes) < 2:
        return []
    rows = [("NODE", "REACHABLE", "HEAD", "BEHIND", "APPLIED", "FAILED", "LAST CONTACT", "VERSION", "PROBLEM")]
    for node in nodes:
        behind = "?" if node["behind"] is None else str(node["behind"])
        rows.append(
            (
                node["node"],
                "yes" if node["reachable"] else "NO",
                (node["head"] or "?")[:10],
                behind,
                (node["applied"] or "?")[:10],
                ", ".join(node["failed"]) or "-",
                node["lastContact"] or "never",
                node["version"] or "?",
                terminal.safe(node["problem"], 200),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows] + [
        ""
    ]


def _watch(clone: Clone, name: str) -> None:
    form = click.get_current_context().params["output"]
    if form != "table" or not sys.stdout.isatty():
        while True:
            output.emit(_result(clone, name), form)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS)
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(auto_refresh=False, screen=False) as live:
        while True:
            try:
                table = _result(clone, name).table
                live.update(Group(output.rich_table(table), Text("\n".join(table.lines))), refresh=True)
            except UnavailableError as error:  # it may come back: go on watching
                live.update(Text(str(error), style="red"), refresh=True)
            time.sleep(WATCH_SECONDS)
