"""Long signed histories, made fast: objects by dulwich, signatures by `cryptography`."""

import base64
import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dulwich.objects import Blob, Commit, ShaFile, Tree
from dulwich.repo import Repo

from owsgit.node.home import Home
from owsgit.peers import certificates
from owsgit.peers.certificates import Certificate
from owsgit.peers.paxos import Ballot, Instance
from owsgit.peers.store import Store

BATCH = 5_000


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class Signer:
    """A user with an Ed25519 key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._private = Ed25519PrivateKey.generate()
        public = self._private.public_key()
        self._blob = _string(b"ssh-ed25519") + _string(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.public = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def save(self, path: Path) -> Path:
        """Write the private key, for ssh."""
        path.write_bytes(self._private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        path.chmod(0o600)
        return path

    def sign(self, payload: bytes) -> bytes:
        """An armoured SSH signature, as `ssh-keygen -Y sign -n git` makes it."""
        head = _string(b"git") + _string(b"") + _string(b"sha512")
        signature = self._private.sign(b"SSHSIG" + head + _string(hashlib.sha512(payload).digest()))
        body = b"SSHSIG\0\0\0\1" + _string(self._blob) + head + _string(_string(b"ssh-ed25519") + _string(signature))
        text = base64.b64encode(body).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----"]).encode()


def policy(number: int, version: int = 0) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": f"V{version}",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject"],
                "Resource": f"arn:aws:s3:::bucket-{number}/*",
            }
        ],
    }


def make(folder: Path, commits: int, resources: int, nodes: dict[str, Any] | None = None) -> list[Signer]:
    """A repository with `commits` signed commits after its genesis, each changing one of `resources` policies.

    Every second commit is signed by a user whose right to it comes from a group's policy. The signers are returned.
    """
    repo = Repo.init_bare(str(folder), mkdir=True)
    root, editor = Signer("root"), Signer("editor")
    files = {
        "users": {"root.json": {"keys": [root.public]}, "editor.json": {"keys": [editor.public]}},
        "groups": {"editors.json": {"members": ["editor"], "policies": ["p0"]}},
        "policies": {f"p{number}.json": policy(number) for number in range(resources)},
        **({"nodes": {f"{name}.json": spec for name, spec in nodes.items()}} if nodes else {}),
    }
    files["policies"]["p0.json"] = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iam:*Policy*", "Resource": "arn:aws:iam::*:policy/*"},
            {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:iam::*:policy/p0"},
        ],
    }
    tree = Tree()
    pending: list[ShaFile] = [tree]
    folders: dict[str, Tree] = {}
    for name, entries in files.items():
        folders[name] = Tree()
        for file, document in entries.items():
            blob = Blob.from_string(json.dumps(document, indent=2).encode())
            folders[name].add(file.encode(), 0o100644, blob.id)
            pending.append(blob)
        tree.add(name.encode(), 0o40000, folders[name].id)
        pending.append(folders[name])
    project = Blob.from_string(json.dumps({"name": "bench", "roots": ["root"]}).encode())
    tree.add(b"project.json", 0o100644, project.id)
    genesis = _commit(tree.id, None, root, 0)
    pending += [project, genesis]
    _store(repo, pending)
    parent = genesis.id
    batch: list[ShaFile] = []
    for number in range(1, commits + 1):
        parent = _edit(
            batch, tree, folders["policies"], number, 1 + number % (resources - 1), parent, (root, editor)[number % 2]
        )
        if number % BATCH == 0:
            _store(repo, batch)
            batch = []
    _store(repo, batch)
    repo.refs[b"refs/heads/main"] = parent
    return [root, editor]


def decided(home: Home, voters: list[Home], commits: list[str]) -> None:
    """Put a history, whose commits were decided one by one by `voters`, into `home`, which has its objects already."""
    store = Store(home.votes)
    keys = {voter.public_key().fingerprint: voter.private_key() for voter in voters}
    ballot = Ballot(1, min(keys))
    made = []
    for head, value in pairwise(commits):
        instance = Instance(head)
        votes = {id_: certificates.sign(key, instance, ballot, value) for id_, key in keys.items()}
        made.append(Certificate(instance, ballot, value, votes))
    store.put_decisions(made)
    store.close()
    home.verified.write_text(commits[-1] + "\n")


def _edit(
    batch: list[ShaFile], tree: Tree, policies: Tree, number: int, which: int, parent: bytes, signer: Signer
) -> bytes:
    blob = Blob.from_string(json.dumps(policy(which, number), indent=2).encode())
    policies.add(f"p{which}.json".encode(), 0o100644, blob.id)
    tree.add(b"policies", 0o40000, policies.id)
    commit = _commit(tree.id, parent, signer, number)
    batch += [blob, policies.copy(), tree.copy(), commit]
    return bytes(commit.id)


def _commit(tree: bytes, parent: bytes | None, signer: Signer, number: int) -> Commit:
    commit = Commit()
    commit.tree = tree
    commit.parents = [parent] if parent else []
    commit.author = commit.committer = f"{signer.name} <{signer.name}@example.com>".encode()
    commit.author_time = commit.commit_time = 1_700_000_000 + number
    commit.author_timezone = commit.commit_timezone = 0
    commit.message = f"change {number}\n".encode()
    commit.gpgsig = signer.sign(commit.as_raw_string())
    return commit


def _store(repo: Repo, objects: list[ShaFile]) -> None:
    if objects:
        repo.object_store.add_objects([(each, None) for each in objects])
