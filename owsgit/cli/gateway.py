"""`owsgit gateway`: each command has a module of its own."""

import importlib

import click

COMMANDS = {
    "export": "owsgit.cli.gateway_export",
    "import": "owsgit.cli.gateway_import",
    "key": "owsgit.cli.gateway_key",
    "routes": "owsgit.cli.gateway_routes",
    "test": "owsgit.cli.gateway_test",
    "usage": "owsgit.cli.gateway_usage",
}
"""Command → its module, imported when it is called."""


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.group("gateway", cls=_Group)
def command() -> None:
    """Look at gateways, try a request against them, make API keys, import and export OpenAPI documents."""
