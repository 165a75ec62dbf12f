"""`owsgit gateway routes`: what the gateways of the working tree answer, and how."""

from typing import Any

import click

from owsgit.cli import gateways, output
from owsgit.cli.output import Result, Table
from owsgit.services.gateways.explain import RouteFacts, facts

COLUMNS = ("GATEWAY", "METHOD", "PATH", "INTEGRATION", "AUTH", "LIMITS")


@output.command("routes")
@click.argument("name", required=False)
def command(name: str | None) -> Result:
    """List the routes of the gateway NAME of the working tree, or of all gateways."""
    found = gateways.of(gateways.working_tree())
    if name is not None:
        found = {name: gateways.one(found, name)}
    rows = [(gateway, each) for gateway, spec in found.items() for each in facts(spec)]
    count = f"{len(rows)} route{'s' if len(rows) != 1 else ''}"
    table = Table(COLUMNS, [_row(gateway, each) for gateway, each in rows], [count])
    return Result([_data(gateway, each) for gateway, each in rows], table)


def _row(gateway: str, route: RouteFacts) -> tuple[str, ...]:
    return gateway, route.method, route.path, route.integration, route.auth, ", ".join(route.limits)


def _data(gateway: str, route: RouteFacts) -> dict[str, Any]:
    return {
        "gateway": gateway,
        "routeKey": route.key,
        "method": route.method,
        "path": route.path,
        "integration": route.integration,
        "auth": route.auth,
        "limits": list(route.limits),
    }
