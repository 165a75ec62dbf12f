"""`owsgit up`: local development."""

import asyncio
import logging
import sys
from pathlib import Path

import click

from owsgit.cli import output
from owsgit.cli.output import Result
from owsgit.ledger.repository import Clone

sandbox_option = click.option(
    "--sandbox",
    type=click.Choice(["bubblewrap", "none"]),
    default="bubblewrap",
    show_default=True,
    help="How functions are contained; 'none' runs them as you, with all your rights.",
)
secrets_option = click.option(
    "--secrets",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Values to develop with: a file for each secret, named as it is. Keep it out of the repository.",
)


@output.command("up")
@sandbox_option
@secrets_option
@click.option(
    "--aws-port",
    type=click.IntRange(0, 65535),
    help="Port on which AWS's SDKs are answered, 0 for none; by default 8000, if it is free.",
)
def command(sandbox: str, secrets: Path | None, aws_port: int | None) -> Result:
    """Run the working tree on this machine, applying it at every save, until interrupted.

    A private one-node network: nothing is committed, signed or pushed. Gateways listen on 127.0.0.1, and so does what
    answers AWS's SDKs, as nodes do; but operations such as CreateTable and CreateFunction write files into the working
    tree. What happens and what the functions write is shown on standard error.
    """
    import uvloop  # noqa: PLC0415 - the world, needed only here

    from owsgit.node.local import LocalNode  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    node = LocalNode(Clone(Path()), sandbox, secrets, aws_port, output.note)
    output.note("owsgit: applying the working tree at every save; stop with Ctrl-C")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(node.serve())
    return Result({"stopped": True})
