"""`owsgit configure aws`: the profile with which the AWS CLI and the SDKs talk to a node."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.state import State
from owsgit.services import KINDS

PROFILE = re.compile(r"[A-Za-z0-9_.@+-]{1,100}")
_SECTION = re.compile(r"\s*\[\s*(?P<name>[^\]]*?)\s*\]")
_SETTING = re.compile(r"(?P<name>[A-Za-z_]+)\s*=")


@click.group("configure")
def command() -> None:
    """Set other programs up for this project."""


@output.command("aws")
@click.option("--profile", metavar="NAME", help="What the profile is called; by default as the project.")
@click.option("--role", metavar="ROLE", help="Work as a role, which your credentials are for then.")
@click.option("--node", "-n", "wanted", metavar="NAME", help="The node to talk to; by default the one of your remote.")
def aws(profile: str | None, role: str | None, wanted: str | None) -> Result:
    """Write a profile for the AWS CLI and the SDKs: endpoint, region, and how they get your credentials.

    Then `aws --profile shop sts get-caller-identity` works, and boto3.Session(profile_name="shop"). Other profiles, and
    other settings of this one, stay as they are. The file is ~/.aws/config, or what AWS_CONFIG_FILE names.
    """
    clone = Clone(Path().absolute())
    state = _state(clone)
    name = profile or state.project.name
    if PROFILE.fullmatch(name) is None:
        raise InvalidError(f"{name!r} is no name of a profile", remedy="use letters, digits and _ . @ + - in --profile")
    node, spec = _node(clone, state, wanted)
    settings = {
        "region": state.scope.region,
        "endpoint_url": f"http://{_host(spec.address)}:{spec.ports.aws}",
        "credential_process": _process(clone.folder, role),
    }
    file = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    try:
        _write(file, with_profile(file.read_text() if file.exists() else "", name, settings))
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"{file} cannot be written: {error}", remedy="correct its rights, or its content"
        ) from None
    told = {"profile": name, "file": str(file), "node": node, **settings}
    output.note(f"try: aws --profile {name} sts get-caller-identity")
    return Result(told, Table(lines=[f"{key}: {value}" for key, value in told.items()]))


def _state(clone: Clone) -> State:
    head = clone.head()
    if head is None:
        raise InvalidError("this folder has no commits", remedy="run it in a clone of the ledger")
    return verify.load(clone.objects(), KINDS, clone.genesis(head), head).state


def _node(clone: Clone, state: State, wanted: str | None) -> tuple[str, NodeSpec]:
    """The node to talk to. Raises InvalidError if it answers no SDKs."""
    nodes = {node.name: node.spec for node in state.of_kind("node") if isinstance(node.spec, NodeSpec)}
    able = {name: spec for name, spec in nodes.items() if spec.ports.aws is not None}
    if wanted is not None and wanted not in able:
        raise InvalidError(
            f"there is no node {wanted!r} that answers SDKs", remedy=f"these do: {', '.join(sorted(able)) or 'none'}"
        )
    if wanted is not None:
        return wanted, able[wanted]
    if not able:
        raise InvalidError(
            "no node of the ledger answers SDKs",
            remedy="give one a port: ports.aws in nodes/NAME.json, and awsPort in its node.json",
        )
    try:
        own = remote.find(clone, "")
        for name, spec in able.items():
            if own.host.rpartition("@")[2] == spec.address and own.port in (spec.ports.ssh, None):
                return name, spec
    except OwsgitError:
        pass  # there is no remote yet
    return next(iter(sorted(able.items())))


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _process(folder: Path, role: str | None) -> str:
    """The command that gives credentials, as it is found whatever the PATH and the folder."""
    program = shutil.which("owsgit")
    words = [program] if program else [sys.executable, "-m", "owsgit"]
    words += ["credentials", "-C", str(folder), *(["--role", role] if role else [])]
    return shlex.join(words)


def with_profile(text: str, name: str, settings: dict[str, str]) -> str:
    """The text of a config file with these settings in a profile; all else in it stays."""
    section = "default" if name == "default" else f"profile {name}"
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if _is_section(line, section)), None)
    if start is None:
        before = [*lines, ""] if lines and lines[-1].strip() else lines
        return "\n".join([*before, f"[{section}]", *_lines(settings)]) + "\n"
    end = next((i for i in range(start + 1, len(lines)) if _SECTION.match(lines[i])), len(lines))
    kept = [line for line in lines[start + 1 : end] if not _sets(line, settings)]
    return "\n".join([*lines[: start + 1], *_lines(settings), *kept, *lines[end:]]) + "\n"


def _is_section(line: str, section: str) -> bool:
    found = _SECTION.match(line)
    return found is not None and " ".join(found["name"].replace('"', "").split()) == section


def _sets(line: str, settings: dict[str, str]) -> bool:
    found = _SETTING.match(line)
    return found is not None and found["name"] in settings


def _lines(settings: dict[str, str]) -> list[str]:
    return [f"{name} = {value}" for name, value in settings.items()]


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = file.resolve()  # it may be a link
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    scratch.touch(mode=0o600)
    scratch.write_text(text)
    if target.exists():
        scratch.chmod(target.stat().st_mode & 0o777)
    scratch.replace(target)


command.add_command(aws)
