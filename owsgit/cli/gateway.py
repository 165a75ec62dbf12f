"""`owsgit gateway`: each command has a module of its own."""

import click

from owsgit.cli.groups import ModuleGroup

COMMANDS = {
    "export": "owsgit.cli.gateway_export",
    "import": "owsgit.cli.gateway_import",
    "key": "owsgit.cli.gateway_key",
    "routes": "owsgit.cli.gateway_routes",
    "test": "owsgit.cli.gateway_test",
    "usage": "owsgit.cli.gateway_usage",
}


@click.group("gateway", cls=ModuleGroup, modules=COMMANDS)
def command() -> None:
    """Look at gateways, try a request against them, make API keys, import and export OpenAPI documents."""
