"""Infra repositories: files, commits (also such as no git would make), pushes."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from owsgit.ledger import verdicts
from owsgit.ledger.objects import Objects
from tests.support import people
from tests.support.people import Person

HELLO = """
import os

def handler(event, context):
    name = (event.get("pathParameters") or {}).get("name", "world")
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"hello {name}"}
"""


@dataclass
class Done:
    """What a command came to."""

    status: int
    text: str


@dataclass
class Project:
    """An infra repository of `owner`, in `folder`."""

    folder: Path
    owner: Person

    def git(self, *arguments: str, by: Person | None = None, check: bool = True, data: bytes | None = None) -> str:
        done = self.try_git(*arguments, by=by, data=data)
        assert not check or done.status == 0, f"git {' '.join(arguments)}: {done.text}"
        return done.text.strip()

    def try_git(self, *arguments: str, by: Person | None = None, data: bytes | None = None) -> Done:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=(by or self.owner).environment,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=170,
        )
        return Done(done.returncode, done.stdout.decode("utf-8", "replace"))

    def write(self, path: str, content: Any) -> None:
        """A text as it is, anything else as JSON."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))

    def commit(self, message: str = "change", *, by: Person | None = None, signed: bool = True) -> str:
        self.git("add", "--all", by=by)
        sign = ["-S"] if signed else ["--no-gpg-sign"]
        self.git("commit", "-q", "--allow-empty", *sign, "-m", message, by=by)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def objects(self) -> Objects:
        return Objects([self.folder / ".git/objects"])

    def raw(self, kind: str, content: bytes) -> str:
        """Store any bytes as an object of `kind`; its id."""
        return self.git("hash-object", "-t", kind, "-w", "--literally", "--stdin", data=content)

    def raw_tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree of (mode, name, id) in the order given, however wrong."""
        return self.raw(
            "tree", b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        )

    def entries(self, revision: str = "HEAD") -> list[tuple[str, bytes, str]]:
        """The root tree's entries, to make another one of."""
        lines = self.git("ls-tree", revision).splitlines()
        parts = [line.replace("\t", " ", 1).split(" ", 3) for line in lines]
        return [(mode.lstrip("0"), name.encode(), oid) for mode, _, oid, name in parts]

    def raw_commit(
        self,
        tree: str,
        *parents: str,
        by: Person | None = None,
        extra: bytes = b"",
        before_signature: bytes = b"",
        message: str = "crafted",
        **how: Any,
    ) -> str:
        """A commit made by hand and signed by ssh-keygen. `extra` is header text that comes after the signature."""
        person = by or self.owner
        who = f"{person.name} <{person.name}@example.com> 1700000000 +0000"
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
        head = "\n".join(lines).encode() + b"\n" + before_signature
        body = b"\n" + message.encode() + b"\n"
        signature = people.sign(person, how.pop("payload", head + body), **how).strip().replace(b"\n", b"\n ")
        return self.raw("commit", head + b"gpgsig " + signature + b"\n" + extra + body)

    def verdict(
        self, commit: str, base: str, by: Person, kind: str = "approve", number: int = 1, comment: str = ""
    ) -> str:
        """The id of a signed tag that approves or rejects `commit`, made by plain git."""
        name = f"{kind}/{commit}"
        self.git("tag", "-f", "-s", "-m", verdicts.message(base, number, comment), name, commit, by=by)
        return self.git("rev-parse", f"refs/tags/{name}")

    def tree(self, revision: str = "HEAD") -> str:
        return self.git("rev-parse", f"{revision}^{{tree}}")


def create(folder: Path, owner: Person, *, name: str = "shop", files: dict[str, Any] | None = None) -> Project:
    """A project with a genesis commit signed by `owner`, its root."""
    folder.mkdir(parents=True)
    project = Project(folder, owner)
    project.git("init", "-q", "-b", "main")
    documents = {
        "project.json": {"name": name, "roots": [owner.name]},
        f"users/{owner.name}.json": {"keys": [owner.public]},
        **(files or {}),
    }
    for path, content in documents.items():
        project.write(path, content)
    project.commit("genesis")
    return project


def node_key() -> str:
    """A new Ed25519 public key, as an OpenSSH line."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def function(handler: str = "app.handler", **fields: Any) -> dict[str, Any]:
    return {"runtime": "python", "handler": handler, **fields}


def allow(*actions: str, resource: str = "*") -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": resource}]}


TWO_OF_OPS = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Action": "iam:*",
        "Resource": "*",
        "Condition": {"NumericGreaterThanEquals": {"ows:ApprovalCount/ops": 1}},
    },
}
"""A policy for the group ops: any two of them together may change who may what."""


def reviewers(bob: Person, carol: Person, mallory: Person) -> dict[str, Any]:
    """Bob and carol are ops; mallory may only propose; dave is whom changes are about."""
    return {
        "users/bob.json": {"keys": [bob.public]},
        "users/carol.json": {"keys": [carol.public]},
        "users/mallory.json": {"keys": [mallory.public], "policies": ["propose"]},
        "users/dave.json": {},
        "groups/ops.json": {"members": ["bob", "carol"], "policies": ["two-of-ops", "propose", "review"]},
        "policies/two-of-ops.json": TWO_OF_OPS,
        "policies/propose.json": allow("ows:Propose"),
        "policies/review.json": allow("ows:Approve"),
    }
