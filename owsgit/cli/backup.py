"""`owsgit backup`: a node's whole home as one file."""

import resource
from pathlib import Path

import click

from owsgit.cli import output
from owsgit.cli.node import home_option
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import NODE_ENVIRONMENT, Repository, genesis
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import project_id
from owsgit.node import backup
from owsgit.node.home import Home


@output.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@click.option("--key/--no-key", default=True, show_default=True, help="Whether the node's private key goes into it.")
def command(file: Path, home: Path, key: bool) -> Result:
    """Write the node's ledger, votes, state, tables and key into FILE. The node may be running.

    Tables are in it as they were at one moment. Beside FILE there has to be room for all of them, for a while.

    Keep FILE as safe as the key in it. With --no-key, a restore makes a new node, with a new key to be committed.
    """
    node = Home(home)
    if not file.absolute().parent.is_dir():
        raise InvalidError(f"there is no folder {file.absolute().parent}", remedy="make it first")
    head = Repository(node.ledger).head() if node.settings() else None
    if head is None:
        raise UnavailableError("this node is still empty: there is nothing to back up", file=str(node.folder))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # each table takes three
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    made = backup.write(node, file, project_id(genesis(node.ledger, head, NODE_ENVIRONMENT)), key=key)
    size = file.stat().st_size
    line = f"backed up the node {made.node} at {made.head[:10]} into {file} ({size:,} bytes)"
    line += f", with {made.tables} tables" if made.tables else ""
    line += "" if key else ", without its key"
    return Result({**made.document(), "file": str(file), "bytes": size}, Table(lines=[line]))
