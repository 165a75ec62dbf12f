"""`owsgit node recover`: going on after a majority of the nodes was lost for good."""

import json
import re
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from owsgit.cli import connect, output, remote, signing
from owsgit.cli.output import Result, Table
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone, GitError, run
from owsgit.model import terminal
from owsgit.model.core import NodeSpec
from owsgit.model.errors import InvalidError, OwsgitError, RefusedError, UnavailableError
from owsgit.model.state import State
from owsgit.peers import members, recovery
from owsgit.peers.recovery import Recovery, SignedRecovery
from owsgit.services import KINDS


@output.command("recover")
@click.option("--lost", "lost", multiple=True, help="Name of a node that is lost. May be given again.")
@click.option(
    "--restored", is_flag=True, help="None is lost, but all were restored from backups: have them vote again."
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A statement that another root has signed (what this command printed for them).",
)
def command(lost: tuple[str, ...], restored: bool, others: tuple[Path, ...]) -> Result:
    """Go on without nodes that are lost for good, when no majority is left. Signed by the roots.

    Needs every other node: each is asked, so that nothing that one of them has voted for is lost. A lost node that
    comes back stops by itself. Afterwards, remove the lost nodes' files by a commit as usual.

    Never name a node as lost that may still be running and be reached by others: there would be two histories.
    """
    clone = Clone(Path())
    head = clone.head()
    if head is None:
        raise InvalidError("this repository has no commit yet", remedy="run this in a clone of the project")
    state = verify.load(clone.objects(), KINDS, clone.genesis(head), head).state
    if restored == bool(lost):
        raise InvalidError("name the lost nodes with --lost, or say --restored", remedy="owsgit status shows the nodes")
    names = [node.name for node in state.of_kind("node")]
    for name in lost:
        if name not in names:
            raise InvalidError(f"the ledger names no node {name!r}", remedy=f"there are: {', '.join(names)}")
    survivors = _survivors(clone, state, lost)
    voting = [name for name, (_, status) in survivors.items() if not status.get("abstains")]
    if len(voting) > len(names) // 2:
        raise RefusedError(
            f"{', '.join(voting)} are more than half of the {len(names)} nodes: they decide without a recovery",
            remedy="remove the lost nodes as usual: git rm nodes/<name>.json, commit, push",
        )
    at = _common_head(clone, survivors, state)
    state = verify.load(clone.objects(), KINDS, clone.genesis(at), at).state
    nodes = {member.name: member for member in members.of(state).values()}
    wanted = {"project": state.project_id, "head": at, "lost": {nodes[name].id: name for name in lost}}
    first = recovery.parse(others[0].read_bytes(), str(others[0])).recovery if others else None
    statement = Recovery.model_validate({**wanted, "nonce": first.nonce if first else secrets.token_hex(16)})
    signed = _signed(clone, statement, others)
    quorum = state.project.root_quorum
    if len(signed.signatures) < quorum:
        output.note(
            f"{len(signed.signatures)} of {quorum} roots have signed; save this as a file, and have another root run: "
            f"owsgit node recover {' '.join(f'--lost {name}' for name in lost) or '--restored'} --with FILE"
        )
        document = recovery.document(signed)
        return Result(document, Table(lines=[json.dumps(document, indent=2)]))
    recovery.check(signed, state)
    data = json.dumps(recovery.document(signed)).encode()
    for name, (node, _) in survivors.items():
        node.call("recover", data=data)
        output.note(f"{name} goes on" + (f" without {', '.join(lost)}" if lost else ""))
    files = " ".join(f"nodes/{name}.json" for name in lost)
    push = f"git push {next(iter(survivors))} main"
    lines = [f"recovered at {at[:10]}: {', '.join(survivors)} decide from now on"]
    if head != at and clone.is_ancestor(at, head):
        lines.append(f"this clone has commits after that, which may have been decided: push them first: {push}")
    if lost:
        lines.append(f"next: git pull --rebase && git rm {files} && git commit -S -m 'Remove what was lost' && {push}")
    return Result({"head": at, "lost": list(lost), "survivors": list(survivors)}, Table(lines=lines))


def _survivors(clone: Clone, state: State, lost: tuple[str, ...]) -> dict[str, tuple[remote.Remote, dict[str, Any]]]:
    """Every node that is not lost, with its status. Raises when one of them does not answer, or a lost one does."""
    found = {}
    for node in state.of_kind("node"):
        assert isinstance(node.spec, NodeSpec)
        reached = remote.parse(connect.url(node.spec, state.project.name), remote.ssh_command(clone))
        try:
            status = json.loads(reached.call("status"))
        except UnavailableError as error:
            if node.name not in lost:
                raise UnavailableError(
                    f"{node.name} does not answer: {error.problems[0].message}",
                    remedy=f"bring it back, or name it as lost as well: --lost {node.name}",
                ) from None
            continue
        if node.name in lost:
            raise RefusedError(
                f"{node.name} answers: it is not lost",
                remedy="stop it for good first, if it has to go; with a majority, removing its file is enough",
            )
        found[node.name] = reached, status
    if not found:
        raise UnavailableError("no node is left", remedy="restore one from a backup: owsgit restore")
    return found


def _common_head(clone: Clone, survivors: dict[str, tuple[remote.Remote, dict[str, Any]]], state: State) -> str:
    """The head that all survivors are at, and that this clone has. Raises OwsgitError."""
    heads = {name: str(status["head"]) for name, (_, status) in survivors.items()}
    if len(set(heads.values())) > 1:
        told = ", ".join(f"{name} at {head[:10]}" for name, head in heads.items())
        raise UnavailableError(
            f"the nodes that are left are at different heads: {told}",
            remedy="they catch up with each other by themselves: try again in a moment",
        )
    head = next(iter(heads.values()))
    if re.fullmatch("[0-9a-f]{40}", head) is None:
        raise OwsgitError(f"a node says that its head is {terminal.safe(head, 60)!r}, which is no commit")
    node = next(iter(survivors.values()))[0]
    try:
        run(clone.folder, "fetch", "--quiet", node.url, head)
    except GitError as error:
        raise OwsgitError(f"the head {head[:10]} cannot be fetched: {error.problems[0].message}") from None
    if clone.genesis(head) != state.genesis:
        raise RefusedError("the nodes have the history of another project")
    return head


def _signed(clone: Clone, statement: Recovery, others: tuple[Path, ...]) -> SignedRecovery:
    """The statement with the signature of the user's own key, and those of others."""
    signatures = []
    for file in others:
        other = recovery.parse(file.read_bytes(), str(file))
        if other.recovery != statement:
            raise InvalidError("this statement is another one", file=str(file), remedy="sign the same head and nodes")
        signatures += other.signatures
    key = signing.discover(clone.folder, create=False)
    if key.format != "ssh":
        raise InvalidError("a recovery is signed with an SSH key", remedy="git config gpg.format ssh")
    with tempfile.TemporaryDirectory(prefix="owsgit-") as scratch:
        public = Path(scratch, "key.pub")
        public.write_text(key.public + "\n")
        done = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-n", recovery.NAMESPACE.decode(), "-f", str(key.private or public)],
            input=statement.text(),
            capture_output=True,
            check=False,
        )
    if done.returncode != 0:
        raise OwsgitError(f"ssh-keygen did not sign: {done.stderr.decode('utf-8', 'replace').strip()}")
    mine = done.stdout.decode()
    return SignedRecovery.model_validate(
        {"recovery": statement.model_dump(mode="json", by_alias=True), "signatures": [*signatures, mine]}
    )
