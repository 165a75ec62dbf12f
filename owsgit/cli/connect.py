"""`owsgit connect`: host keys, remotes and allowed signers of this clone, from the ledger itself."""

import contextlib
import os
import pwd
import shlex
from pathlib import Path

from owsgit.cli import output, signing
from owsgit.cli.output import Result, Table
from owsgit.cli.signing import SigningKey
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone, run
from owsgit.model import keys
from owsgit.model.core import NodeSpec, UserSpec
from owsgit.model.errors import InvalidError, OwsgitError
from owsgit.model.state import State
from owsgit.peers import notes
from owsgit.services import KINDS

ORIGIN = "owsgit.origin"


@output.command("connect")
def command() -> Result:
    """Set this clone up for the project's nodes.

    Pins the nodes' host keys (there is no blind first trust), adds a git remote for every node, and lists the project's
    users as allowed signers, so that git log --show-signature knows them. Everything is for this clone only.
    """
    clone = Clone(Path())
    head = clone.head()
    if head is None:
        raise InvalidError("this repository has no commit yet", remedy="owsgit init NAME")
    state = verify.load(clone.objects(), KINDS, clone.genesis(head), head).state
    key: SigningKey | None = None
    with contextlib.suppress(OwsgitError):  # ssh may know better; owsgit doctor tells
        key = signing.discover(clone.folder, create=False)
    done = connect(clone, state, key)
    if not any(True for _ in state.of_kind("node")):
        done.append("the ledger names no node yet: commit what owsgit node init prints as nodes/<name>.json first")
    return Result({"done": done}, Table(lines=done or ["everything is set up already"]))


def connect(clone: Clone, state: State, key: SigningKey | None) -> list[str]:
    """Write the files and settings; what was done, in words."""
    folder = clone.git_folder / "owsgit"
    folder.mkdir(exist_ok=True)
    nodes = {node.name: node.spec for node in state.of_kind("node") if isinstance(node.spec, NodeSpec)}
    known_hosts = folder / "known_hosts"
    known_hosts.write_text("".join(f"{known_host(spec)}\n" for spec in nodes.values()))
    signers = folder / "allowed_signers"
    signers.write_text("".join(_signers(state)))
    ssh = ["ssh", "-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    if key is not None and (login := identity_options(key)):
        ssh += login
    elif (present := clone.config("core.sshCommand")) and " -i " in present:
        words = shlex.split(present)
        ssh += ["-i", words[words.index("-i") + 1], "-o", "IdentitiesOnly=yes"]
    clone.set_config([("core.sshCommand", shlex.join(ssh)), ("gpg.ssh.allowedSignersFile", str(signers))])
    done = [f"pinned the host keys of {', '.join(nodes)} in {known_hosts}"] if nodes else []
    return [*done, *_remotes(clone, state.project.name, nodes)]


def identity_options(key: SigningKey) -> list[str]:
    """ssh's options to log in with the key that signs, where ssh would not find it: it looks in the password file's
    home, whatever HOME says.
    """
    found = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
    if key.private is None:
        return []
    own = ["-i", str(key.private), "-o", "IdentitiesOnly=yes"]
    if key.certificate is not None:  # who logs in with one says as whom
        return [*own, "-o", f"CertificateFile={key.certificate}", "-l", key.user]
    return own if key.private.parent != found else []


def known_host(spec: NodeSpec) -> str:
    """The known_hosts line of a node (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    name = spec.address if spec.ports.ssh == 22 else f"[{spec.address}]:{spec.ports.ssh}"
    return f"{name} {keys.parse_ssh(spec.key).line}"


def url(spec: NodeSpec, project: str) -> str:
    """The git address of a project on a node."""
    host = f"[{spec.address}]" if ":" in spec.address else spec.address
    return f"ssh://{host}:{spec.ports.ssh}/{project}"


def _remotes(clone: Clone, project: str, nodes: dict[str, NodeSpec]) -> list[str]:
    done = []
    present = run(clone.folder, "remote").split()
    ours = clone.config(ORIGIN)  # the node that we made origin stand for; an origin of the user's own is left alone
    if nodes and (ours is not None or "origin" not in present):
        ours = ours if ours in nodes else next(iter(nodes))
        clone.set_config([(ORIGIN, ours)])
    for name, spec in nodes.items():
        for remote in [name, "origin"] if name == ours else [name]:
            address = url(spec, project)
            verb = "set-url" if remote in present else "add"
            if verb == "add" or run(clone.folder, "remote", "get-url", remote) != address:
                run(clone.folder, "remote", verb, remote, address)
                done.append(f"remote {remote}: {address}")
    for remote in [*nodes, *(["origin"] if nodes and ours is not None else [])]:
        _fetch_notes(clone, remote)
    return [*done, *_former(clone, project, nodes)]


def _former(clone: Clone, project: str, nodes: dict[str, NodeSpec]) -> list[str]:
    """Remotes of nodes that are gone: the user may want them still, as for what was only there."""
    known = {url(spec, project) for spec in nodes.values()}
    found = []
    for remote in run(clone.folder, "remote").split():
        address = run(clone.folder, "remote", "get-url", remote)
        if address.startswith("ssh://") and address.endswith(f"/{project}") and address not in known:
            found.append(f"remote {remote} ({address}) is no node of the project: git remote remove {remote}")
    return found


def _fetch_notes(clone: Clone, remote: str) -> None:
    """The nodes' notes come along with every git fetch: who decided each head, who approved, which node runs what."""
    wanted = f"+{notes.FOLDER}/*:{notes.FOLDER}/*"
    if wanted not in clone.config_all(f"remote.{remote}.fetch"):
        run(clone.folder, "config", "--local", "--add", f"remote.{remote}.fetch", wanted)


def _signers(state: State) -> list[str]:
    lines = []
    for user in state.of_kind("user"):
        assert isinstance(user.spec, UserSpec)
        for key in user.spec.keys:
            if not keys.is_openpgp(key):
                lines.append(f'{user.name} namespaces="git" {keys.parse_ssh(key).line}\n')
        for authority in state.project.certificate_authorities if not state.is_root(user.name) else ():
            lines.append(f'{user.name} cert-authority,namespaces="git" {keys.parse_ssh(authority).line}\n')
    return lines
