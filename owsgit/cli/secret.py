"""`owsgit secret`: values that lie in the ledger, sealed for the nodes."""

import base64
import json
import secrets as random_values
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger import commits, verify
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.names import NAME_RULE, is_name
from owsgit.model.service import SecretValue
from owsgit.model.spec import nearest
from owsgit.model.state import GENESIS_UNKNOWN, State
from owsgit.services import KINDS
from owsgit.services.secrets import sealing, watch
from owsgit.services.secrets.spec import SecretSpec

GENERATED_CHARACTERS = 32
"""About 190 bits of a URL-safe alphabet."""


@click.group("secret")
def command() -> None:
    """Set, read and seal anew the secrets of the project."""


def _value_options(function: Callable[..., Result]) -> Callable[..., Result]:
    for option in reversed(
        (
            click.option(
                "--file",
                "-f",
                "source",
                type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
                help="Read the value from a file, as it is; - for standard input.",
            ),
            click.option(
                "--generate",
                metavar="N",
                is_flag=False,
                flag_value=str(GENERATED_CHARACTERS),
                default=None,
                help=f"Make a random value of N characters ({GENERATED_CHARACTERS} if not said).",
            ),
        )
    ):
        function = option(function)
    return function


@output.command("set")
@click.argument("name")
@_value_options
@click.option("--description", help="What the secret is for.")
def set_(name: str, source: Path | None, generate: str | None, description: str | None) -> Result:
    """Seal a value for the project's nodes, into secrets/NAME.json.

    The value is asked for, without showing it; or it comes from standard input or a file. It never stands on the
    command line, where other users of the machine could see it. Nothing but the nodes can read what is written: commit
    it.
    """
    return _write(name, source, generate, description, must_exist=False)


@output.command("rotate")
@click.argument("name")
@_value_options
def rotate(name: str, source: Path | None, generate: str | None) -> Result:
    """Replace the value of the secret NAME by a new one, as when a node that could read it was removed.

    As `set`, for a secret that is there. Change the value where it is used, too: at the database, the provider.
    """
    return _write(name, source, generate, None, must_exist=True)


@output.command("get")
@click.argument("name")
@remote.role_option
@remote.node_option
def get(name: str, role: str | None, remote: str) -> Result:
    """Have a node open the secret NAME, and print its value. Needs secretsmanager:GetSecretValue on it.

    What is read is what is applied: a value that is only committed here, nobody can read.
    """
    told = json.loads(_call(remote, "secret", name, role=role))
    if "binary" in told and click.get_current_context().params["output"] == "table":
        sys.stdout.buffer.write(base64.b64decode(told["binary"]))
        return Result(told)
    return Result(told, Table(lines=[told.get("string", "")]))


@output.command("list")
@click.option("--revision", help="A commit, instead of the working tree.")
def list_(revision: str | None) -> Result:
    """List the secrets: versions, who can read them, and what has to be done. Values are never shown."""
    clone = Clone(Path())
    state = _state(clone) if revision is None else _committed(clone, revision)
    found = list(watch.standings(state)) if state is not None else []
    data = [
        {
            "name": each.resource.name,
            "version": each.spec.version,
            "readers": sorted(set(each.spec.readers.values())),
            "notSealedFor": list(each.unsealed_for),
            "exposedTo": list(each.exposed_to),
            "description": each.spec.description,
        }
        for each in found
    ]
    rows = [
        [
            each.resource.name,
            str(each.spec.version),
            ", ".join(sorted(set(each.spec.readers.values()))),
            each.problem or "ok",
            each.spec.description or "",
        ]
        for each in found
    ]
    lines = [] if rows else ["no secret yet; owsgit secret set NAME makes one"]
    return Result(data, Table(("NAME", "VERSION", "READERS", "STATUS", "DESCRIPTION") if rows else (), rows, lines))


@output.command("rewrap")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Also those that every node can read, and nobody else.")
@remote.node_option
def rewrap(names: tuple[str, ...], every: bool, remote: str) -> Result:
    """Have a node seal secrets anew for the nodes that there are now: all that need it, or those that are NAMED.

    After a node was added it cannot read the secrets until this is committed and pushed. Needs ows:RewrapSecret; the
    other nodes check that nothing but the ciphertext changed. It does not replace values: owsgit secret rotate does.
    """
    clone = Clone(Path())
    state = _state(clone)
    known = {each.resource.name: each for each in watch.standings(state)}
    for name in names:
        _check_known(name, known)
    nodes = watch.nodes_of(state)
    wanted = names or tuple(
        name for name, each in known.items() if every or each.unsealed_for or not _is_tight(each.spec, set(nodes))
    )
    answers = [json.loads(line) for line in _call(remote, "rewrap", *wanted).splitlines()] if wanted else []
    written = []
    for answer in answers:
        path = clone.folder / KINDS["secret"].file(answer["name"])
        document = json.loads(path.read_text())
        if document["version"] != answer["version"]:
            output.note(f"{answer['name']}: version {document['version']} is not applied yet; left alone")
            continue
        document |= {name: answer[name] for name in ("readers", "sealed", "rewrapped")}
        path.write_text(json.dumps(document, indent=2) + "\n")
        written.append(answer["name"])
    lines = [f"sealed anew: {name}" for name in written] or ["nothing to do: every node can read every secret"]
    if written:
        lines.append("next: git commit -S -am 'Rewrap' && git push")
    return Result({"rewrapped": written}, Table(lines=lines))


for each in (set_, get, list_, rotate, rewrap):
    command.add_command(each)


def _is_tight(spec: SecretSpec, nodes: set[str]) -> bool:
    """Whether it is sealed for nobody but these keys."""
    return sealing.readers(spec.sealed) <= {sealing.tag(fingerprint) for fingerprint in nodes}


def _call(node: str, *words: str, role: str | None = None) -> bytes:
    return remote.find(Clone(Path()), node).call(*words, *remote.role_words(role))


def _state(clone: Clone) -> State:
    """Of the working tree. A function may name a secret that is only now to be made."""
    head = clone.head()
    genesis = clone.genesis(head) if head else GENESIS_UNKNOWN
    with clone.snapshot() as (objects, tree):
        return verify.load_tree(objects, KINDS, genesis, tree, unfinished=True)


def _committed(clone: Clone, revision: str = "HEAD") -> State | None:
    if clone.head() is None:
        return None
    commit = clone.resolve(revision)
    objects = clone.objects()
    tree = commits.parse(commit, objects.commit(commit)).tree
    return verify.load_tree(objects, KINDS, clone.genesis(commit), tree, trusted=True, unfinished=True)


def _check_known(name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise InvalidError(f"there is no secret {name!r}", remedy=nearest(name, known, "secret", "secrets"))


def _write(
    name: str, source: Path | None, generate: str | None, description: str | None, *, must_exist: bool
) -> Result:
    clone = Clone(Path())
    if not is_name(name):
        raise InvalidError(f"{name!r} is not a secret's name", remedy=f"use {NAME_RULE}")
    state = _state(clone)
    before = state.get("secret", name)
    if must_exist and before is None:
        _check_known(name, {each.name: each for each in state.of_kind("secret")})
    nodes = watch.nodes_of(state)
    if not nodes:
        raise InvalidError(
            "the project names no node, so there is nobody to seal for", remedy="add nodes/<name>.json first"
        )
    committed = _committed(clone)
    decided = committed.get("secret", name) if committed is not None else None
    version = decided.spec.version + 1 if decided is not None and isinstance(decided.spec, SecretSpec) else 1
    value = replace(_value(name, source, generate), version=version)
    file = KINDS["secret"].file(name)
    document = dict(before.document()) if before is not None else {}
    if description is not None:
        document["description"] = description
    document.pop("rewrapped", None)
    document |= {
        "version": version,
        "readers": {fingerprint: node for fingerprint, (node, _) in nodes.items()},
        "sealed": sealing.seal(value, file, [key for _, key in nodes.values()]),
    }
    path = clone.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    readers = ", ".join(sorted(node for node, _ in nodes.values()))
    lines = [
        f"{file}: version {version}, for {readers} to read",
        f"next: git add {file} && git commit -S && git push",
    ]
    data = {"name": name, "file": file, "version": version, "readers": sorted(node for node, _ in nodes.values())}
    return Result(data, Table(lines=lines))


def _value(name: str, source: Path | None, generate: str | None) -> SecretValue:
    if generate is not None:
        if source is not None:
            raise InvalidError("--file and --generate say two different things", remedy="use one of them")
        return SecretValue(0, _generated(generate).encode())
    if source is not None and str(source) != "-":
        content = source.read_bytes()
    elif sys.stdin.isatty() and source is None:
        typed: str = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
        content = typed.encode()
    else:
        content = sys.stdin.buffer.read(sealing.VALUE_BYTES_MAX + 2)
        if source is None:  # as typed or echoed: the line's end is not the value's
            content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not content:
        raise InvalidError("the value is empty", remedy="type it, or give --file or --generate")
    if len(content) > sealing.VALUE_BYTES_MAX:
        raise InvalidError(
            f"the value has more than {sealing.VALUE_BYTES_MAX:,} bytes",
            remedy="keep a key for it here, and what it opens in a bucket or a table",
        )
    try:
        content.decode()
    except UnicodeDecodeError:
        return SecretValue(0, content, binary=True)
    return SecretValue(0, content)


def _generated(given: str) -> str:
    count = int(given) if given.isascii() and given.isdigit() and len(given) <= 5 else 0
    if not 8 <= count <= 4096:
        raise InvalidError(f"{given!r} is not a number of characters", remedy="between 8 and 4096")
    return random_values.token_urlsafe(count)[:count]
