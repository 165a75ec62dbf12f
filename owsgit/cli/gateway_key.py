"""`owsgit gateway key`: makes an API key, of which only a hash is kept."""

import hashlib
import json
import secrets
import string
from pathlib import Path

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.names import NAME_RULE, is_name
from owsgit.services import KINDS
from owsgit.services.gateways.usage_plans import KEY_CHARACTERS, UsagePlanSpec

ALPHABET = string.ascii_letters + string.digits


@output.command("key")
@click.argument("plan")
@click.argument("name")
@click.option("--replace", is_flag=True, help="Make it anew: the key that was is good no more.")
def command(plan: str, name: str, replace: bool) -> Result:
    """Make an API key for NAME, in usageplans/PLAN.json of the working tree.

    The key is printed, this once: the file has its hash, and nobody can tell the key from that. Commit the file; then
    clients send the key as x-api-key.
    """
    if not is_name(plan):
        raise InvalidError(f"{plan!r} is not a usage plan's name", remedy=f"use {NAME_RULE}")
    file = KINDS["usageplan"].file(plan)
    path = Clone(Path()).folder / file
    if not path.is_file():
        raise InvalidError(
            f"there is no usage plan {plan!r}: {file} is missing",
            remedy='write it first: {"apis": [{"gateway": "NAME"}]}',
        )
    spec = UsagePlanSpec.parse(path.read_bytes(), file)
    if name in spec.keys and not replace:
        raise InvalidError(
            f"{name!r} has a key already", file=file, remedy="choose another name, or replace the key: --replace"
        )
    key = "".join(secrets.choice(ALPHABET) for _ in range(KEY_CHARACTERS))
    document = dict(spec.document())
    before = document.get("keys", {}).get(name, {})
    about = {**before, "sha256": hashlib.sha256(key.encode()).hexdigest()}
    document["keys"] = {**document.get("keys", {}), name: about}
    written = json.dumps(document, indent=2) + "\n"
    UsagePlanSpec.parse(written.encode(), file)  # a name that is none is told before anything is written
    path.write_text(written)
    lines = [key, f"next: git add {file} && git commit -S && git push"]
    return Result({"plan": plan, "name": name, "key": key, "file": file}, Table(lines=lines))
