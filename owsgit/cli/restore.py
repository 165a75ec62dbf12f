"""`owsgit restore`: a node again, from a backup."""

from pathlib import Path
from typing import Any

import click

from owsgit.cli import output
from owsgit.cli.node import home_option, shown
from owsgit.cli.output import Result
from owsgit.node import backup


@output.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@home_option
@click.option("--address", help="Where users and other nodes reach it now, if that changed.")
@click.option("--listen", help="Address to listen on, if that changed.")
@click.option("--ssh-port", type=click.IntRange(1, 65535), help="Port for SSH, if that changed.")
@click.option("--only-node", is_flag=True, help="The project has no other node: go on at once.")
def command(
    file: Path, home: Path, address: str | None, listen: str | None, ssh_port: int | None, only_node: bool
) -> Result:
    """Make the home of a node from FILE, verifying all of it. Prints what nodes/NAME.json has to be.

    The node catches up with the others when it runs. As it may have voted after the backup was made, it votes again
    only after two more decisions of the others; a project's only node needs --only-node. Never run both the restored
    node and the one that it was made from.
    """
    given: dict[str, Any] = {"address": address, "listen": listen or address, "sshPort": ssh_port}
    changes = {name: value for name, value in given.items() if value is not None}
    made, found = backup.restore(file, home, changes, only=only_node)
    output.note(f"restored the node {found.node} as of {found.time}, at {found.head[:10]}, in {made.folder}")
    if not found.key:
        output.note(f"it has a new key: commit this as nodes/{found.node}.json before you start it")
    elif not only_node:
        output.note("it votes again when the others have decided two more heads; until then, push to them")
    output.note(f"start it: owsgit node run --home {made.folder}")
    return shown(made)
