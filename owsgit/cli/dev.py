"""`owsgit dev`: one function, run locally."""

import asyncio
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output
from owsgit.cli.invoke import EXIT_FUNCTION_ERROR, read_payload
from owsgit.cli.output import Result
from owsgit.cli.up import sandbox_option, secrets_option
from owsgit.ledger.repository import Clone
from owsgit.model import terminal
from owsgit.model.errors import InvalidError

DEBUG_HOST = "127.0.0.1"
DEBUG_PORT = "5678"
_ADDRESS = re.compile(r"(?:(?P<host>[^:\s]+|\[[0-9A-Fa-f:]+\]):)?(?P<port>[0-9]{1,5})")


@output.command("dev")
@click.argument("name")
@click.option(
    "--event",
    metavar="FILE",
    help="The event, a JSON file; - is standard input. By default event.json or events/*.json beside the code.",
)
@click.option("--payload", "-p", metavar="JSON", help="The event itself; @FILE reads a file, - standard input.")
@click.option("--once", is_flag=True, help="Answer the event (by default {}) and end; exit code 4 if it failed.")
@click.option(
    "--debug",
    metavar="[HOST:]PORT",
    is_flag=False,
    flag_value=DEBUG_PORT,
    help=f"Listen there for a debugger (by default {DEBUG_HOST}:{DEBUG_PORT}): DAP for Python, the inspector for "
    "Node.js. Without a timeout.",
)
@click.option("--wait", is_flag=True, help="With --debug: wait for a debugger before the code is loaded.")
@click.option(
    "--env", "-e", "environment", metavar="NAME=VALUE", multiple=True, help="A variable to set, or to set otherwise."
)
@secrets_option
@sandbox_option
def command(
    name: str,
    event: str | None,
    payload: str | None,
    once: bool,
    debug: str | None,
    wait: bool,
    environment: tuple[str, ...],
    secrets: Path | None,
    sandbox: str,
) -> Result:
    """Run the function NAME of the working tree on this machine, again after every save, until interrupted.

    Nothing is committed or pushed. Its answers go to standard output, everything else to standard error. Lines of JSON
    on standard input are events too.
    """
    import uvloop  # noqa: PLC0415 - the world, needed only here

    from owsgit.node.dev import LocalFunction  # noqa: PLC0415
    from owsgit.node.dev_wishes import Options  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if wait and debug is None:
        raise click.UsageError("--wait needs --debug")
    options = Options(
        name, sandbox, secrets, _variables(environment), once, not once and "-" not in (event, payload),
        _address(debug) if debug is not None else None, wait,
    )  # fmt: skip
    function = LocalFunction(Clone(Path()), options, _events(event, payload, once), Terminal())
    if not once:
        output.note("owsgit: the function is run again at every save; stop with Ctrl-C")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(function.serve())
    if once and not function.finished:
        raise click.Abort
    return Result(None, status=EXIT_FUNCTION_ERROR if once and function.failed else 0)


def _events(event: str | None, payload: str | None, once: bool) -> Any:
    from owsgit.node.dev_events import Event, Events  # noqa: PLC0415

    if event is not None and payload is not None:
        raise click.UsageError("--event and --payload are the same event: leave one out")
    if payload is not None:
        return Events(Event("--payload", read_payload(payload)))
    if event == "-":
        return Events(Event("standard input", sys.stdin.buffer.read()))
    return Events(file=Path(event) if event is not None else None, otherwise=Event("{}", b"{}") if once else None)


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    for each in given:
        if "=" not in each:
            raise click.UsageError(f"--env {each}: NAME=VALUE is needed")
    return {name: value for name, _, value in (each.partition("=") for each in given)}


def _address(text: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise InvalidError(f"--debug {text}: not a port", remedy="write PORT or HOST:PORT, such as 5678")
    return (found["host"] or DEBUG_HOST).strip("[]"), int(found["port"])


class Terminal:
    """Shows a person, or a program with -o json or yaml, what happens."""

    def __init__(self) -> None:
        self._form = click.get_current_context().params["output"]
        self._coloured = not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        output.note(text)

    def log(self, message: str, is_platform: bool) -> None:
        text = terminal.safe_lines(message)
        click.echo(click.style(text, dim=True) if is_platform and self._coloured else text, err=True)

    def outcome(self, outcome: Any) -> None:
        """An Outcome, for machines one object a line."""
        report = outcome.report
        data = {
            "event": outcome.event,
            "requestId": outcome.request_id,
            "error": outcome.error,
            "payload": outcome.payload,
            "durationMs": report.duration_ms,
            "initDurationMs": report.init_ms,
            "maxMemoryUsedMb": report.memory_mb or None,
        }
        if self._form == "json":
            click.echo(json.dumps(data, ensure_ascii=False))
        elif self._form == "yaml":
            click.echo("---")
            output.emit(Result(data), self._form)
        else:
            self._draw(outcome)
        sys.stdout.flush()

    def _draw(self, outcome: Any) -> None:
        payload, stack = outcome.payload, []
        if outcome.error is not None and isinstance(payload, dict):
            payload = dict(payload)
            found = payload.pop("stackTrace", None)
            stack = [str(each) for each in found] if isinstance(found, list) else []
        click.echo(json.dumps(payload, indent=2, ensure_ascii=False))
        for entry in stack:
            click.secho(terminal.safe_lines(entry.rstrip("\n")), fg="red" if self._coloured else None, err=True)
        report = outcome.report
        if report.duration_ms is not None:
            facts = [f"{report.duration_ms:.2f} ms"]
            facts += [f"init {report.init_ms:.2f} ms"] if report.init_ms is not None else []
            facts += [f"{report.memory_mb} MB"] if report.memory_mb else []
            mark = "failed" if outcome.error else "answered"
            colour = "red" if outcome.error else "green"
            click.secho(f"{mark}: {', '.join(facts)}", fg=colour if self._coloured else None, err=True)
