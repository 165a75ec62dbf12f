"""`owsgit configure aws`: the profile with which the AWS CLI and the SDKs talk to a node."""

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from owsgit.cli import output, remote
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.spec import nearest
from owsgit.model.state import State
from owsgit.services import KINDS

PROFILE = re.compile(r"[A-Za-z0-9_.@+-]{1,100}")
_VARIABLES = {
    "AWS_ENDPOINT_URL": "endpoint_url",
    "AWS_REGION": "region",
    "AWS_DEFAULT_REGION": "region",
    "AWS_CA_BUNDLE": "ca_bundle",
}
"""That have the value of a setting for all profiles."""
_SECTION = re.compile(r"\s*\[\s*(?P<name>[^\]]*?)\s*\]")
_SETTING = re.compile(r"(?P<name>[A-Za-z_]+)\s*[=:]")
_OWN = re.compile(r"^credential_process\s*=.*\bowsgit\b.* credentials -C ", re.MULTILINE)


@click.group("configure")
def command() -> None:
    """Set other programs up for this project."""


@output.command("aws")
@click.option("--profile", metavar="NAME", help="What it is called; by default PROJECT, or PROJECT-ROLE.")
@click.option("--role", metavar="ROLE", help="Work as a role, which your credentials are for then.")
@click.option("--node", "-n", "wanted", metavar="NAME", help="The node to talk to; by default the one of your remote.")
def aws(profile: str | None, role: str | None, wanted: str | None) -> Result:
    """Write a profile for the AWS CLI and the SDKs: endpoint, region, and how they get your credentials.

    Where the node answers over HTTPS with a certificate of the project's own authority, that is written beside it.

    Then `aws --profile shop sts get-caller-identity` works, and boto3.Session(profile_name="shop"). Other profiles, and
    other settings of this one, stay as they are. The file is ~/.aws/config, or what AWS_CONFIG_FILE names.
    """
    clone = Clone(Path().absolute())
    state = state_of(clone)
    default = name_of(state.project.name, role, [each.name for each in state.of_kind("role")])
    name = profile or default
    if PROFILE.fullmatch(name) is None:
        raise InvalidError(f"{name!r} is no name of a profile", remedy="use letters, digits and _ . @ + - in --profile")
    node, spec = node_of(clone, state, wanted)
    file = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    authorities = spec.aws_tls.authorities if spec.aws_tls is not None else None
    bundle = file.absolute().with_name(f"owsgit-{name}.pem")
    settings = {
        "region": state.scope.region,
        "endpoint_url": endpoint(spec),
        **({"ca_bundle": str(bundle)} if authorities is not None else {}),
        "credential_process": _process(clone.folder, role),
    }
    try:
        text = file.read_text() if file.exists() else ""
        if profile is None:
            check_own(text, name, file)
        if authorities is not None:
            _write(bundle, authorities)
        else:  # one that this command wrote before
            text = text.replace(f"ca_bundle = {bundle}\n", "")
        _write(file, with_profile(text, name, settings))
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"{file} cannot be written: {error}", remedy="correct its rights, or its content"
        ) from None
    told = {"profile": name, "file": str(file), "node": node, **settings}
    for variable in overriding(os.environ, settings):
        output.note(f"the environment has another {variable}, which goes before the profile: unset {variable}")
    output.note(f"try: aws --profile {name} sts get-caller-identity")
    return Result(told, Table(lines=[f"{key}: {value}" for key, value in told.items()]))


def name_of(project: str, role: str | None, roles: list[str]) -> str:
    """What a profile is called if nobody says it. Raises InvalidError if there is no such role."""
    if role is None:
        return project
    if role not in roles:
        raise InvalidError(f"there is no role {role!r}", remedy=nearest(role, roles, "role", "roles"))
    return f"{project}-{role}"


def overriding(environment: Mapping[str, str], settings: dict[str, str]) -> list[str]:
    """Variables by which SDKs do otherwise than these settings of a profile say."""
    return [
        name for name, setting in _VARIABLES.items() if environment.get(name, "") not in ("", settings.get(setting))
    ]


def check_own(text: str, name: str, file: Path) -> None:
    """Raises InvalidError if a profile is there that is not one of this command: what the project is called is up to
    others, and must not lead the calls of another profile to their node."""
    start, end = _place(text.splitlines(), name)
    others = start is not None and not _OWN.search("\n".join(text.splitlines()[start:end]))
    if others or name == "default":
        raise InvalidError(
            f"{file} may have a profile {name!r} for something else",
            remedy=f"name one: --profile {name} to change that one, or another name",
        )


def state_of(clone: Clone) -> State:
    """The ledger as this clone has it."""
    head = clone.head()
    if head is None:
        raise InvalidError("this folder has no commits", remedy="run it in a clone of the ledger")
    return verify.load(clone.objects(), KINDS, clone.genesis(head), head).state


def node_of(clone: Clone, state: State, wanted: str | None) -> tuple[str, NodeSpec]:
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


def endpoint(spec: NodeSpec) -> str:
    """Where a node answers SDKs."""
    name = spec.address if spec.aws_tls is None else spec.aws_tls.host or spec.address
    host = f"[{name}]" if ":" in name else name
    return f"http{'s' if spec.aws_tls is not None else ''}://{host}:{spec.ports.aws}"


def _process(folder: Path, role: str | None) -> str:
    """The command that gives credentials, as it is found whatever the PATH and the folder."""
    program = shutil.which("owsgit")
    words = [program] if program else [sys.executable, "-m", "owsgit"]
    words += ["credentials", "-C", str(folder), *(["--role", role] if role else [])]
    return shlex.join(words)


def with_profile(text: str, name: str, settings: dict[str, str]) -> str:
    """The text of a config file with these settings in a profile; all else in it stays."""
    lines = text.splitlines()
    start, end = _place(lines, name)
    if start is None:
        before = [*lines, ""] if lines and lines[-1].strip() else lines
        return "\n".join([*before, f"[{_section(name)}]", *_lines(settings)]) + "\n"
    kept = list(_kept(lines[start + 1 : end], settings))
    return "\n".join([*lines[: start + 1], *_lines(settings), *kept, *lines[end:]]) + "\n"


def _section(name: str) -> str:
    return "default" if name == "default" else f"profile {name}"


def _place(lines: list[str], name: str) -> tuple[int | None, int]:
    """The line in which a profile begins, None without one; and the one after its last."""
    start = next((i for i, line in enumerate(lines) if _is_section(line, _section(name))), None)
    if start is None:
        return None, len(lines)
    return start, next((i for i in range(start + 1, len(lines)) if _SECTION.match(lines[i])), len(lines))


def _kept(lines: list[str], settings: dict[str, str]) -> Iterator[str]:
    """The lines that set something else. Indented ones go on with the one before."""
    dropping = False
    for line in lines:
        if line.strip() and not line[:1].isspace():
            dropping = _sets(line, settings)
        if not dropping or not line.strip():
            yield line


def _is_section(line: str, section: str) -> bool:
    found = _SECTION.match(line)
    return found is not None and " ".join(found["name"].replace('"', "").split()) == section


def _sets(line: str, settings: dict[str, str]) -> bool:
    found = _SETTING.match(line)
    return found is not None and found["name"].lower() in settings


def _lines(settings: dict[str, str]) -> list[str]:
    for name, value in settings.items():
        if not value.isprintable():
            raise InvalidError(
                f"{value!r} cannot stand in a profile", remedy=f"what {name} is made of has odd characters"
            )
    return [f"{name} = {value}" for name, value in settings.items()]


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = file.resolve()  # it may be a link
    descriptor, scratch = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "w") as stream:
            stream.write(text)
        if target.exists():
            Path(scratch).chmod(target.stat().st_mode & 0o777)
        Path(scratch).replace(target)
    finally:
        Path(scratch).unlink(missing_ok=True)


command.add_command(aws)
