"""`owsgit node`: make and run a node."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import uvloop
from pydantic import ValidationError

from owsgit.cli import output, recover, signing
from owsgit.cli.output import Result, Table
from owsgit.model import keys
from owsgit.model.errors import InvalidError
from owsgit.model.names import NAME_RULE, is_name
from owsgit.model.spec import Document
from owsgit.model.state import State
from owsgit.node.home import Home, NodeSettings

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: Path(os.environ.get("OWSGIT_HOME") or Path.home() / ".owsgit"),
    show_default="$OWSGIT_HOME or ~/.owsgit",
    help="The folder with all that is the node's.",
)


AWS_PORT_STEP = 1000


@click.group("node")
def command() -> None:
    """Make and run a node."""


def settings_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """The options with which a node is made."""
    for option in reversed(
        (
            home_option,
            click.option(
                "--address", "at", default="127.0.0.1", show_default=True, help="Where users and other nodes reach it."
            ),
            click.option("--listen", help="Address to listen on; --address if that is an IP address, else all."),
            click.option(
                "--ssh-port", default=7022, show_default=True, type=click.IntRange(1, 65535), help="Port for SSH."
            ),
            click.option(
                "--aws-port",
                type=click.IntRange(0, 65535),
                help="Port for AWS's SDKs, over HTTP; 0 for none.  [default: --ssh-port plus 1000]",
            ),
            click.option(
                "--sandbox",
                type=click.Choice(["bubblewrap", "none"]),
                default="bubblewrap",
                show_default=True,
                help="How functions are contained. 'none' runs them as the node's own user: for machines that you "
                "trust them with.",
            ),
            click.option(
                "--metrics",
                metavar="ADDRESS:PORT",
                help="Serve metrics for Prometheus there, to whoever asks: 127.0.0.1:9100. Not served by default.",
            ),
        )
    ):
        command = option(command)
    return command


@output.command("init")
@click.argument("name", required=False)
@settings_options
@click.option(
    "--owner",
    "owners",
    multiple=True,
    help="SSH public key (or its file) that may bring the first commit. May be given again.",
)
def init(
    name: str | None,
    home: Path,
    at: str,
    listen: str | None,
    ssh_port: int,
    aws_port: int | None,
    owners: tuple[str, ...],
    sandbox: Any,
    metrics: str | None,
) -> Result:
    """Make a node: its home, its key. Prints what to commit as nodes/NAME.json.

    Only an owner can bring the node its project: your own signing key (SSH) if no --owner is given.
    """
    made = Home.create(home, _settings(name, at, listen, ssh_port, aws_port, owners, sandbox, metrics))
    told = made.settings().name
    output.note(f"made the node {told} in {made.folder}; commit this as nodes/{told}.json:")
    return shown(made)


def _check_free(settings: NodeSettings, state: State) -> None:
    """Raises InvalidError where another node has the name or the address."""
    if state.get("node", settings.name) is not None:
        raise InvalidError(
            f"the project has a node {settings.name!r} already",
            remedy=f"choose another name; or, to replace it, remove nodes/{settings.name}.json first",
        )
    taken = state.holder("node address", f"{settings.address}:{settings.ssh_port}")
    if taken is not None:
        raise InvalidError(
            f"{settings.address}:{settings.ssh_port} is the address of {taken.name} already",
            remedy="give this node's own with --address and --ssh-port",
        )


def _settings(
    name: str | None,
    at: str,
    listen: str | None,
    ssh_port: int,
    aws_port: int | None,
    owners: tuple[str, ...],
    sandbox: Any,
    metrics: str | None,
) -> NodeSettings:
    name = name or socket.gethostname().split(".")[0]
    if not is_name(name):
        raise InvalidError(f"{name!r} is not a node's name", remedy=f"use {NAME_RULE}")
    if sandbox == "bubblewrap":
        from owsgit.runtime.bubblewrap import probe  # noqa: PLC0415 - only where it is needed

        probe()
    if at.replace(".", "").isdigit() and not _is_ip(at):
        raise InvalidError(f"{at!r} is not an IP address", remedy="correct --address")
    document = {
        "name": name,
        "address": at,
        "listen": listen or (at if _is_ip(at) else "0.0.0.0"),  # noqa: S104 - a name may have any address
        "sshPort": ssh_port,
        "awsPort": (aws_port or None) if aws_port is not None else _beside(ssh_port),
        "sandbox": sandbox,
        "metrics": metrics,
        "owners": [_owner(owner) for owner in owners] or [_own_key()],
    }
    try:
        return NodeSettings.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise InvalidError(f"{field}: {document.get(field)!r}: {first['msg']}", remedy="correct the option") from None


def _beside(ssh_port: int) -> int | None:
    """The port for AWS's SDKs of who chose none."""
    return ssh_port + AWS_PORT_STEP if ssh_port + AWS_PORT_STEP < 65536 else None


@output.command("join")
@click.argument("address")
@click.argument("name", required=False)
@click.option("--project", required=True, help="The project's id, as owsgit status shows it.")
@settings_options
def join(
    address: str,
    name: str | None,
    project: str,
    home: Path,
    at: str,
    listen: str | None,
    ssh_port: int,
    aws_port: int | None,
    sandbox: Any,
    metrics: str | None,
) -> Result:
    """Make a node that joins the project at ADDRESS (ssh://host:port/project, any of its nodes).

    Everything is verified from the genesis commit: signatures, permissions, and the nodes' votes. Prints what to commit
    as nodes/NAME.json; once that is decided, the node takes part.
    """
    from owsgit.cli.clone import first_contact  # noqa: PLC0415 - the world, needed only here
    from owsgit.node.join import building, install  # noqa: PLC0415

    seen = 0

    def count(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen % 1000 == 0:
            output.note(f"{seen:,} commits verified")

    settings = _settings(name, at, listen, ssh_port, aws_port, (), sandbox, metrics)
    with building(home) as made, first_contact() as contact:
        made.make(settings, None)
        state = install(made, address, contact.environment, project, seen=count).state
        contact.check(state)
        _check_free(settings, state)
    made = Home(home)
    told = settings.name
    output.note(f"verified {seen:,} commits; made the node {told} in {made.folder}")
    output.note(f"commit this as nodes/{told}.json, push it, and start the node: owsgit node run --home {made.folder}")
    return shown(made)


@output.command("show")
@home_option
def show(home: Path) -> Result:
    """Print what to commit as nodes/NAME.json."""
    return shown(Home(home))


@output.command("run")
@home_option
@click.option("--verbose", "-v", is_flag=True, help="Log more.")
def run(home: Path, verbose: bool) -> Result:
    """Run the node until it is interrupted. It logs to standard error."""
    from owsgit.node.node import Node  # noqa: PLC0415 - the world, needed only here

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("asyncssh", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.WARNING)
    node = Node(Home(home))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(node.serve())
    return Result({"stopped": node.settings.name})


def shown(home: Home) -> Result:
    document = home.node_spec().document()
    return Result(document, Table(lines=[_json(home.node_spec())]))


def _json(document: Document) -> str:
    return document.model_dump_json(by_alias=True, exclude_unset=True, indent=2)


def _is_ip(address: str) -> bool:
    import ipaddress  # noqa: PLC0415

    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _owner(text: str) -> str:
    path = Path(text).expanduser()
    if not text.startswith(keys.ALGORITHMS) and not path.exists():
        raise InvalidError(f"--owner: there is no file {text!r}", remedy="give an SSH public key, or its .pub file")
    if not text.startswith(keys.ALGORITHMS) and path.exists():
        text = path.read_text()
    try:
        return keys.parse_ssh(text).line
    except keys.KeyFormatError as error:
        raise InvalidError(f"--owner: {error}", remedy="give an SSH public key, or the path of its .pub file") from None


def _own_key() -> str:
    found = signing.discover(None, create=True)
    if found.format == "ssh":
        output.note(f"the owner is {found.found}")
        return found.public
    line = signing.login_key()
    if line is None:
        raise InvalidError(
            "you sign with OpenPGP and have no SSH key to own the node with",
            remedy="make one with ssh-keygen -t ed25519, or give one with --owner KEY.pub",
        )
    output.note(f"the owner is your SSH key {keys.parse_ssh(line).fingerprint}: nodes are reached by SSH")
    return line


command.add_command(init)
command.add_command(join)
command.add_command(recover.command)
command.add_command(show)
command.add_command(run)
