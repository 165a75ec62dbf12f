"""`owsgit credentials`: what the AWS SDKs and the AWS CLI sign their requests with."""

import json
from pathlib import Path

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone


@output.command("credentials")
@remote.role_option
@remote.node_option
@click.option(
    "--directory",
    "-C",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The clone, where it is not the current folder.",
)
def command(role: str | None, remote: str, directory: Path) -> Result:
    """Print AWS credentials that are yours for an hour, as the SDKs' credential_process has them.

    Your SSH key proves to a node who you are. In ~/.aws/config:

    \b
        [profile shop]
        region = us-east-1
        credential_process = owsgit credentials -C /home/you/shop

    Every node takes them, until they expire or your key is taken out of the ledger.
    """
    answer = json.loads(fetch(directory, remote, role))
    return Result(answer, Table(lines=[json.dumps(answer)]))


def fetch(folder: Path, node: str, role: str | None) -> bytes:
    """What the node prints."""
    return remote.find(Clone(folder), node).call("credentials", *remote.role_words(role))
