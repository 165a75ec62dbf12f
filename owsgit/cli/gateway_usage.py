"""`owsgit gateway usage`: what the API keys of a usage plan have used, on all nodes."""

import json
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.cli.remote import Remote
from owsgit.ledger.repository import Clone
from owsgit.model.core import Address, Port
from owsgit.model.errors import OwsgitError

MEMBERS_MAX = 100
"""Nodes of one project that are asked."""

_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)
_PORT: TypeAdapter[int] = TypeAdapter(Port)


@output.command("usage")
@click.argument("plan")
@remote.role_option
@click.option("--node", "-n", "node", default="", help="Only of this node: a git remote or ssh:// address.")
def command(plan: str, role: str | None, node: str) -> Result:
    """Show what the keys of the usage plan PLAN have used of their quota in this period.

    Each node counts the requests that it answers: shown is the sum over all nodes. Needs apigateway:GET on the plan.
    """
    words = ("usage", plan, *remote.role_words(role))
    first = remote.find(Clone(Path()), node)
    told = {(answer := json.loads(first.call(*words)))["node"]: answer["keys"]}
    if not node:
        told |= _of_others(first, answer, words)
    keys = _summed(told)
    rows = [[key["key"], str(key.get("used", "-")), str(key.get("limit", "-")), *_span(key)] for key in keys]
    lines = [] if keys else ["no keys"]
    return Result({"plan": plan, "nodes": sorted(told), "keys": keys}, Table(_HEAD, rows, lines))


_HEAD = ("KEY", "USED", "LIMIT PER NODE", "BEGIN", "END", "STATE")


def _span(key: dict[str, Any]) -> list[str]:
    return [key.get("begin", "-"), key.get("end", "-"), "enabled" if key["enabled"] else "disabled"]


def _of_others(first: Remote, answer: dict[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
    """What the other nodes say; who does not answer is told on standard error. A node may be hostile."""
    told: dict[str, Any] = {}
    user = first.host.rpartition("@")[0]
    for member in answer["members"][:MEMBERS_MAX]:
        name = str(member["name"])
        if name == answer["node"]:
            continue
        try:
            other = first.at(_ADDRESS.validate_python(member["address"]), _PORT.validate_python(member["port"]), user)
            told[name] = json.loads(other.call(*words))["keys"]
        except (OwsgitError, ValidationError) as error:
            click.echo(f"owsgit: {name}: {error}", err=True)
    return told


def _summed(told: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The keys, with what all nodes counted."""
    found: dict[str, dict[str, Any]] = {}
    for node, keys in sorted(told.items()):
        for key in keys:
            whole = found.setdefault(key["key"], {**key, "used": 0, "nodes": {}} if "used" in key else dict(key))
            if "used" in key and "used" in whole:
                whole["used"] += key["used"]
                whole["nodes"][node] = key["used"]
    return [found[name] for name in sorted(found)]
