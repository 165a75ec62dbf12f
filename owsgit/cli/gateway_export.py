"""`owsgit gateway export`: a gateway as an OpenAPI document."""

import json
from pathlib import Path
from typing import Any

import click

from owsgit.cli import configure, gateways, output
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.spec import nearest
from owsgit.services.gateways.spec import GatewaySpec


@output.command("export")
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Of it.")
@click.option("--stage", metavar="STAGE", help="Say where this stage is served; by default the first.")
@click.option("--clients", is_flag=True, help="Only what clients may know: without integrations and extensions.")
@click.option(
    "--node",
    "-n",
    "remote",
    metavar="NODE",
    help="What this node has applied (git remote or ssh:// address), not the working tree.",
)
def command(name: str, form: str, stage: str | None, clients: bool, remote: str | None) -> Result:
    """Print the gateway NAME of the working tree as an OpenAPI document, with API Gateway's extensions.

    `owsgit gateway import` makes the same gateway of it.
    """
    from owsgit.services.gateways.openapi.writing import document  # noqa: PLC0415 - slow to import

    if remote is None:
        state = gateways.working_tree()
        found_here = gateways.of(state)
    else:
        state = configure.state_of(Clone(Path()))
        found_here = gateways.of_node(remote)
    spec = gateways.one(gateways.http(found_here, name), name)
    account, region = state.scope.account, state.scope.region
    found = document(name, spec, _server(spec, stage), extensions=not clients, account=account, region=region)
    return Result(found, Table(lines=[_text(found, form)]))


def _server(spec: GatewaySpec, stage: str | None) -> str:
    """Where a stage is served."""
    places = [place for place in spec.places() if stage is None or place[2] == stage]
    if not places:
        known = nearest(stage or "", {place[2] for place in spec.places()}, "stage", "stages")
        raise InvalidError(f"no stage {stage!r} is served", remedy=known)
    host, base, _ = places[0]
    path = "/" + "/".join(base)
    return f"//{host}{path}" if host and not host.startswith("*") else path


def _text(document: Any, form: str) -> str:
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    import yaml  # noqa: PLC0415 - only where it is asked for

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True)).rstrip("\n")
