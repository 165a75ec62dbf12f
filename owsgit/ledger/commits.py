"""Commits as the ledger takes them: `tree parent* author committer [encoding] gpgsig` and no other header.

git itself drops every header that begins with `gpgsig` from what it verifies, so that another commit id could be minted
from a signed commit; hence the strictness. Dates are never trusted, only their form is checked.
"""

import re
from dataclasses import dataclass

from owsgit.model import terminal
from owsgit.model.errors import RefusedError

_COMMIT = re.compile(
    rb"(tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)"
    rb"author ([^\n\0]*)\ncommitter ([^\n\0]*)\n(?:encoding [A-Za-z0-9._-]{1,40}\n)?)"
    rb"(?:gpgsig ([^\n\0]*\n(?: [^\n\0]*\n)*))?"
    rb"\n([^\0]*)",
)
_IDENTITY = re.compile(rb"[^<>\n\0]*<[^<>\n\0]*> [0-9]{1,15} [+-][0-9]{4}")
_KNOWN = (b"tree", b"parent", b"author", b"committer", b"encoding", b"gpgsig")


class BadCommitError(RefusedError):
    """A commit that is not of the strict form."""


@dataclass(frozen=True)
class Commit:
    """A parsed commit. `payload` is what was signed; `signature` is its armoured text, or None if unsigned."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    message: str
    payload: bytes
    signature: bytes | None

    @property
    def first_parent(self) -> str | None:
        return self.parents[0] if self.parents else None

    @property
    def short(self) -> str:
        return self.id[:10]

    @property
    def subject(self) -> str:
        """The first line of the message, safe for a terminal."""
        line = self.message.strip().split("\n", 1)[0]
        return terminal.safe(line, 72)


def parse(oid: str, data: bytes) -> Commit:
    """The commit `oid` with the raw content `data`. Raises BadCommitError."""
    match = _COMMIT.fullmatch(data)
    if match is None:
        raise BadCommitError(
            f"commit {oid[:10]}: {_what_is_wrong(data)}", remedy="make the commit again with plain git"
        )
    head, tree, parents, author, committer, signature, message = match.groups()
    for name, identity in (("author", author), ("committer", committer)):
        if not _IDENTITY.fullmatch(identity):
            raise BadCommitError(f"commit {oid[:10]}: the {name} line is not 'Name <email> seconds zone'")
    ids = tuple(line[7:].decode() for line in parents.splitlines())
    if len(set(ids)) != len(ids):
        raise BadCommitError(f"commit {oid[:10]}: a parent is named twice")
    return Commit(
        id=oid,
        tree=tree.decode(),
        parents=ids,
        author=author.rsplit(b" ", 2)[0].decode("utf-8", "replace"),
        message=message.decode("utf-8", "replace"),
        payload=head + b"\n" + message,
        signature=signature.replace(b"\n ", b"\n") if signature is not None else None,
    )


def _what_is_wrong(data: bytes) -> str:
    if b"\0" in data:
        return "it has a NUL byte"
    header, _, _ = data.partition(b"\n\n")
    names = [line.split(b" ", 1)[0] for line in header.split(b"\n") if line and not line.startswith(b" ")]
    for name in names:
        if name not in _KNOWN:
            shown = name.decode("ascii", "replace")[:40]
            return f"the header {shown!r} is not taken (only {', '.join(known.decode() for known in _KNOWN)})"
    for name in _KNOWN:
        if name != b"parent" and names.count(name) > 1:
            return f"the header {name.decode()!r} appears {names.count(name)} times"
    return "its headers are not 'tree, parent..., author, committer, [encoding], gpgsig' in this order"
