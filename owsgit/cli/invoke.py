"""`owsgit invoke`: call a function."""

import json
import sys
from pathlib import Path

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError

EXIT_FUNCTION_ERROR = 4


@output.command("invoke")
@click.argument("name")
@click.option(
    "--payload", "-p", default="{}", show_default=True, help="The event as JSON; @FILE reads a file, - standard input."
)
@remote.role_option
@click.option("--async", "asynchronous", is_flag=True, help="Accept the event, answer at once, and invoke later.")
@click.option("--idempotency-key", metavar="KEY", help="With --async: take the event once, however often it is sent.")
@click.option("--log", "show_log", is_flag=True, help="Show the end of the log too, on standard error.")
@remote.node_option
def command(
    name: str,
    payload: str,
    role: str | None,
    asynchronous: bool,
    idempotency_key: str | None,
    show_log: bool,
    remote: str,
) -> Result:
    """Call the function NAME on a node. Its answer goes to standard output; exit code 4 if it failed.

    With --async, the request id is printed at once: the node keeps the event, and invokes the function until it
    succeeds or is given up (owsgit events). Needs lambda:InvokeFunction on the function.
    """
    if asynchronous:
        return _accepted(name, read_payload(payload), role, idempotency_key, remote)
    if idempotency_key is not None:
        raise click.UsageError("--idempotency-key is for --async")
    answer, _, body = remote_call(name, read_payload(payload), role, remote).partition(b"\n")
    told = json.loads(answer)
    value = json.loads(body)
    if show_log or told["error"]:
        output.note(told["logTail"])
    data = {"requestId": told["requestId"], "error": told["error"], "payload": value}
    line = json.dumps(value, ensure_ascii=False)
    return Result(data, Table(lines=[line]), EXIT_FUNCTION_ERROR if told["error"] else 0)


def remote_call(name: str, payload: bytes, role: str | None, node: str, *words: str) -> bytes:
    return remote.find(Clone(Path()), node).call("invoke", name, *words, *remote.role_words(role), data=payload)


def _accepted(name: str, payload: bytes, role: str | None, key: str | None, node: str) -> Result:
    words = ["async"] if key is None else ["async", f"key={key}"]
    told = json.loads(remote_call(name, payload, role, node, *words))
    return Result(told, Table(lines=[told["requestId"]]))


def read_payload(text: str) -> bytes:
    """What --payload means."""
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise InvalidError(f"{text[1:]} cannot be read: {error.strerror}") from None
    return text.encode()
