"""`owsgit invoke`: call a function."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.service import answered

EXIT_FUNCTION_ERROR = 4


@output.command("invoke")
@click.argument("name")
@click.option(
    "--payload", "-p", default="{}", show_default=True, help="The event as JSON; @FILE reads a file, - standard input."
)
@remote.role_option
@click.option("--async", "asynchronous", is_flag=True, help="Accept the event, answer at once, and invoke later.")
@click.option("--stream", "streamed", is_flag=True, help="Write a streamed response as it comes, and nothing else.")
@click.option("--idempotency-key", metavar="KEY", help="With --async: take the event once, however often it is sent.")
@click.option("--log", "show_log", is_flag=True, help="Show the end of the log too, on standard error.")
@remote.node_option
def command(
    name: str,
    payload: str,
    role: str | None,
    asynchronous: bool,
    streamed: bool,
    idempotency_key: str | None,
    show_log: bool,
    remote: str,
) -> Result:
    """Call the function NAME on a node. Its answer goes to standard output; exit code 4 if it failed.

    NAME is the version at the head; NAME:ALIAS one that an alias of its file names; NAME@COMMIT that of a commit, in
    any form that git takes. These need the right to that version: lambda:InvokeFunction on ...:function:NAME:ALIAS.

    With --async, the request id is printed at once: the node keeps the event, and invokes the function until it
    succeeds or is given up (owsgit events). Needs lambda:InvokeFunction on the function.
    """
    if asynchronous and streamed:
        raise click.UsageError("--stream shows a response, and with --async there is none: leave one out")
    name = _with_commit(name)
    if asynchronous:
        return _accepted(name, read_payload(payload), role, idempotency_key, remote)
    if idempotency_key is not None:
        raise click.UsageError("--idempotency-key is for --async")
    if streamed:
        return _streamed(name, read_payload(payload), role, remote, show_log)
    answer, _, body = remote_call(name, read_payload(payload), role, remote).partition(b"\n")
    told = json.loads(answer)
    value = answered(body.removesuffix(b"\n"))
    if show_log or told["error"]:
        output.note(told["logTail"])
    data = {"requestId": told["requestId"], "error": told["error"], "payload": value}
    line = json.dumps(value, ensure_ascii=False)
    return Result(data, Table(lines=[line]), EXIT_FUNCTION_ERROR if told["error"] else 0)


def remote_call(name: str, payload: bytes, role: str | None, node: str, *words: str) -> bytes:
    return remote.find(Clone(Path()), node).call("invoke", name, *words, *remote.role_words(role), data=payload)


def _with_commit(name: str) -> str:
    """The name with all digits of the commit in it, if there is one."""
    function, at, revision = name.partition("@")
    return f"{function}@{Clone(Path()).resolve(revision)}" if at else name


def _streamed(name: str, payload: bytes, role: str | None, node: str, show_log: bool) -> Result:
    """Write the pieces of the response as they come; at the end nothing is left to print but an error."""
    found = remote.find(Clone(Path()), node)
    lines = found.stream("invoke", name, "stream", *remote.role_words(role), data=payload)
    told: dict[str, Any] = {}
    for line in lines:
        told = json.loads(line)
        if "piece" not in told:
            break
        sys.stdout.buffer.write(base64.b64decode(told["piece"]))
        sys.stdout.buffer.flush()
    rest = b"".join(lines).removesuffix(b"\n")
    if show_log or told["error"]:
        output.note(told["logTail"])
    if told["error"]:
        output.note(rest.decode("utf-8", "replace"))
        return Result({**told, "payload": answered(rest)}, Table(lines=[]), EXIT_FUNCTION_ERROR)
    sys.stdout.buffer.write(rest)
    sys.stdout.buffer.flush()
    return Result(None, Table(lines=[]))


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
