"""`owsgit events`: the asynchronous invocations of a function."""

import json
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model import terminal

ERROR_CHARACTERS_MAX = 60


class _Group(click.Group):
    """`owsgit events NAME` is short for `owsgit events list NAME`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("events", cls=_Group)
def command() -> None:
    """List what waits for a function, and try dead letters again.

    `owsgit events NAME` is short for `owsgit events list NAME`. Each node has a queue of its own: the events that were
    sent to it.
    """


@output.command("list")
@click.argument("name")
@remote.role_option
@remote.node_option
def list_(name: str, role: str | None, remote: str) -> Result:
    """List the events of the function NAME on a node: what waits, what runs, and the dead letters, the newest first.

    At most 100 of each are listed; the counts are of all. Needs lambda:GetFunctionEventInvokeConfig on the function.
    """
    told = _call("list", name, (), role, remote)
    return Result(told, Table(("REQUEST ID", "STATE", "SINCE", "NEXT", "INVOCATIONS", "FOUND"), *_drawn(told)))


@output.command("redrive")
@click.argument("name")
@click.argument("request_ids", nargs=-1, metavar="[REQUEST_ID]...")
@remote.role_option
@remote.node_option
def redrive(name: str, request_ids: tuple[str, ...], role: str | None, remote: str) -> Result:
    """Try dead letters of the function NAME again, as if they were new: those named, or all.

    Needs lambda:InvokeFunction on the function.
    """
    told = _call("redrive", name, request_ids, role, remote)
    return Result(told, Table(lines=[f"{len(told['requestIds'])} to be tried again"]))


@output.command("drop")
@click.argument("name")
@click.argument("request_ids", nargs=-1, metavar="[REQUEST_ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@remote.role_option
@remote.node_option
def drop(name: str, request_ids: tuple[str, ...], everything: bool, role: str | None, remote: str) -> Result:
    """Forget dead letters of the function NAME for ever: those named, or with --all all.

    Needs lambda:DeleteFunctionEventInvokeConfig on the function.
    """
    if everything == bool(request_ids):
        raise click.UsageError("name request ids, or give --all")
    told = _call("drop", name, request_ids, role, remote)
    return Result(told, Table(lines=[f"{len(told['requestIds'])} dropped"]))


for each in (list_, redrive, drop):
    command.add_command(each)


def _call(verb: str, name: str, request_ids: tuple[str, ...], role: str | None, node: str) -> Any:
    words = ("events", verb, name, *remote.role_words(role), *request_ids)
    return json.loads(remote.find(Clone(Path()), node).call(*words))


def _drawn(told: dict[str, Any]) -> tuple[list[list[str]], list[str]]:
    """Rows, and the line with the counts."""
    rows = [
        [
            event["requestId"],
            event["state"],
            event["since"],
            event.get("due", "-"),
            str(event["invocations"]),
            terminal.safe(f"{event['reason']} {event['error']}".strip(), ERROR_CHARACTERS_MAX)
            if "reason" in event
            else "",
        ]
        for event in told["events"]
    ]
    line = f"{told['queued']} wait, {told['inFlight']} run, {told['deadLetters']} dead letters"
    return rows, [line if told["oldestAge"] is None else f"{line}; the next one is {told['oldestAge']:.0f} s old"]
