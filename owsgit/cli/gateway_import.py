"""`owsgit gateway import`: an OpenAPI document as a gateway of the working tree."""

import difflib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output
from owsgit.cli.output import Result, Table
from owsgit.cli.validate import document
from owsgit.ledger.repository import Clone
from owsgit.model import strictjson
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import NAME, unqualified
from owsgit.services.gateways import KIND
from owsgit.services.gateways.spec import GatewaySpec

KEPT = ("$schema", "port", "tls", "domains", "stages", "suspend", "docs")
"""What OpenAPI does not say: a file that is imported anew keeps it."""

FIRST = ("$schema", "description", "port")


@output.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--name", metavar="NAME", help="Of the gateway; by default the document's title.")
@click.option("--port", type=click.IntRange(1, 65535), help="TCP port of a gateway that is new.")
@click.option("--function", metavar="NAME", help="The function for operations that do not say what answers them.")
@click.option(
    "--variable", "variables", metavar="NAME=VALUE", multiple=True, help="A stage variable, where a stage lacks it."
)
@click.option("--without-security", is_flag=True, help="Leave security out that has no counterpart: routes are open.")
@click.option("--force", is_flag=True, help="Write over a file that differs.")
def command(
    file: Path,
    name: str | None,
    port: int | None,
    function: str | None,
    variables: tuple[str, ...],
    without_security: bool,
    force: bool,
) -> Result:
    """Write gateways/NAME.json from the OpenAPI document FILE.

    OpenAPI 3.0, 3.1 or Swagger 2.0, JSON or YAML; - is standard input. API Gateway's extensions are understood. What is
    not kept is told, by its place in the document. A file that is there already is not written over: its differences
    are shown (exit code 1) until --force. Nothing is fetched.
    """
    from owsgit.services.gateways.openapi.reading import Options, read  # noqa: PLC0415 - slow to import

    clone = Clone(Path())
    data = _read(file)
    imported = read(data, str(file), Options(function, without_security))
    title = str(imported.gateway.get("info", {}).get("title", ""))
    name = name or _slug(title)
    if not re.fullmatch(NAME.pattern, name):
        raise InvalidError(f"{name!r:.100} is no name of a gateway", remedy="name it by --name")
    path = KIND.file(name)
    target = clone.folder / path
    before = target.read_text(encoding="utf-8") if target.exists() else None
    content = _content(imported.gateway, name, port, _staged(_kept(before, path), variables))
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    spec = GatewaySpec.parse(text.encode(), path)
    same = before is not None and _means_the_same(before, spec, path)
    writes = before is None or force
    if writes and not same:
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    changes = _diff(before or "", text, path) if before is not None and not same else []
    missing = _missing(spec, clone.folder)
    state = "is as it was" if same else "is written" if writes else "differs: --force writes over it"
    lines = [
        *(f"warning: {line}" for warning in imported.warnings for line in warning.lines()),
        *changes,
        *(f"there is no function {each!r}: make functions/{each}" for each in missing),
        f"{path} {state}: {len(spec.routes)} route{'s' if len(spec.routes) != 1 else ''}",
    ]
    found: dict[str, Any] = {
        "file": path,
        "written": writes and not same,
        "same": same,
        "routes": list(spec.routes),
        "missingFunctions": missing,
        "warnings": [document(each) for each in imported.warnings],
        "diff": changes,
    }
    return Result(found, Table(lines=lines), 0 if writes or same else 1)


def _read(file: Path) -> bytes:
    from owsgit.services.gateways.openapi.loading import BYTES_MAX  # noqa: PLC0415

    if str(file) == "-":
        return sys.stdin.buffer.read(BYTES_MAX + 1)
    try:
        with file.open("rb") as stream:
            return stream.read(BYTES_MAX + 1)
    except OSError as error:
        raise UnavailableError(f"{file} cannot be read: {error.strerror}") from None


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:64] or "api"


def _kept(before: str | None, path: str) -> dict[str, Any]:
    """What the present file says, and the document cannot."""
    if before is None:
        return {}
    found = strictjson.loads(before.encode(), path)
    return {field: found[field] for field in KEPT if field in found} if isinstance(found, dict) else {}


def _staged(kept: dict[str, Any], variables: Iterable[str]) -> dict[str, Any]:
    """What is kept, with variables ("name=value") for the stages that do not have them."""
    given: dict[str, str] = {}
    for text in variables:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidError(f"{text!r:.100} is no NAME=VALUE", remedy="write --variable alias=live")
        given[name] = value
    if not given:
        return kept
    stages = kept.get("stages", {"$default": {}})
    return kept | {
        "stages": {name: {**about, "variables": given | about.get("variables", {})} for name, about in stages.items()}
    }


def _content(gateway: dict[str, Any], name: str, port: int | None, kept: dict[str, Any]) -> dict[str, Any]:
    content = {**kept, **gateway}
    if port is not None:
        content["port"] = port
    if "port" not in content:
        raise InvalidError("the document does not say on which port the gateway listens", remedy="say it by --port")
    info = {
        field: value
        for field, value in content.get("info", {}).items()
        if value and (field, value) not in (("title", name), ("version", "1.0"))
    }
    content["info"] = info
    if not info:
        content.pop("info")
    return {field: content[field] for field in (*FIRST, *content) if field in content}


def _diff(before: str, after: str, path: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), path, f"{path} (imported)", lineterm="")
    return list(lines)


def _means_the_same(before: str, spec: GatewaySpec, path: str) -> bool:
    try:
        return GatewaySpec.parse(before.encode(), path).model_dump() == spec.model_dump()
    except InvalidError:
        return False


def _missing(spec: GatewaySpec, folder: Path) -> list[str]:
    """Functions that routes name and that the working tree does not have."""
    names = {unqualified(each.name) for each in spec.references() if each.kind == "function"}
    return sorted(name for name in names if not (folder / "functions" / name).is_dir())
