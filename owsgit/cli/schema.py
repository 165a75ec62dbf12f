"""`owsgit schema`: the JSON Schema of a kind of resource."""

import json
from typing import Any

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.services import KINDS


@output.command("schema")
@click.argument("kind", type=click.Choice(sorted(KINDS.by_name)))
def command(kind: str) -> Result:
    """Print the JSON Schema of KIND, for editors and other tools."""
    found = schema(kind)
    return Result(found, Table(lines=[json.dumps(found, indent=2)]))


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind's file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **KINDS[kind].spec.model_json_schema(by_alias=True),
    }
