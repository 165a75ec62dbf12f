"""Git notes that nodes write: the votes for each head, and which node runs which commit.

refs/notes/owsgit/votes    on each head, its certificate as one line of JSON (see `certificates`)
refs/notes/owsgit/recovery on a head, the statements by which the roots had it followed without lost nodes
refs/notes/owsgit/reviews  on a commit, the signed tags that approve or reject it, each as one line of JSON
refs/notes/owsgit/<node>   on the commit that the node runs, its signed status

Each ref is one commit without parents: notes do not grow with the times they are written.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from owsgit.ledger import verdicts
from owsgit.ledger.verdicts import APPROVE, Verdict
from owsgit.model.errors import InvalidError, OwsgitError
from owsgit.peers import certificates, recovery
from owsgit.peers.certificates import Certificate
from owsgit.peers.recovery import SignedRecovery
from owsgit.peers.statuses import SignedStatus

FOLDER = "refs/notes/owsgit"
VOTES = f"{FOLDER}/votes"
RECOVERIES = f"{FOLDER}/recovery"
REVIEWS = f"{FOLDER}/reviews"
_AUTHOR = ("owsgit", "owsgit@localhost")


class Notes:
    """The notes of a repository, written in process: a thousand at once cost little more than one."""

    def __init__(self, path: Path) -> None:
        self._repository = pygit2.Repository(str(path))

    def write_votes(self, decided: Iterable[Certificate]) -> None:
        """Add the certificates of heads."""
        repository = self._repository
        added: dict[str, list[Certificate]] = defaultdict(list)
        for certificate in decided:
            added[certificate.value[:2]].append(certificate)
        root = self._builder(VOTES)
        for first, members in added.items():
            present = root.get(first)
            folder = repository.TreeBuilder(present.id) if present is not None else repository.TreeBuilder()
            for each in members:
                folder.insert(each.value[2:], repository.create_blob(each.text().encode() + b"\n"), FileMode.BLOB)
            root.insert(first, folder.write(), FileMode.TREE)
        self._commit(VOTES, root.write(), "Votes of the nodes for each head")

    def write_recoveries(self, all_of_them: Iterable[SignedRecovery]) -> None:
        """Have the note on each head say which recoveries there were."""
        by_head: dict[str, list[str]] = defaultdict(list)
        for signed in all_of_them:
            by_head[signed.recovery.head].append(json.dumps(recovery.document(signed)))
        if not by_head:
            return
        root = self._repository.TreeBuilder()
        for head, lines in by_head.items():
            root.insert(head, self._repository.create_blob(("\n".join(lines) + "\n").encode()), FileMode.BLOB)
        self._commit(RECOVERIES, root.write(), "Recoveries by the roots")

    def write_reviews(self, said: Mapping[str, Sequence[Verdict]]) -> None:
        """Have the notes on these commits say what was said of them."""
        repository = self._repository
        root = self._builder(REVIEWS)
        written = False
        for commit, spoken in said.items():
            if not spoken:
                continue
            present = root.get(commit[:2])
            folder = repository.TreeBuilder(present.id) if present is not None else repository.TreeBuilder()
            lines = "".join(json.dumps(each.data.decode("latin-1")) + "\n" for each in spoken)
            folder.insert(commit[2:], repository.create_blob(lines.encode()), FileMode.BLOB)
            root.insert(commit[:2], folder.write(), FileMode.TREE)
            written = True
        if written:
            self._commit(REVIEWS, root.write(), "Approvals and rejections")

    def reviewed(self) -> set[str]:
        """The commits of which something is noted that was said."""
        return {commit for commit, _ in _entries(self._repository, REVIEWS)}

    def reviews(self) -> Iterator[Verdict]:
        """What was said of commits, of which nothing is proven; what cannot be read is left out."""
        for _, text in _entries(self._repository, REVIEWS):
            for line in text.splitlines() if len(text) <= REVIEWS_BYTES_MAX else ():
                with contextlib.suppress(OwsgitError, ValueError, AttributeError):
                    yield verdicts.parse(json.loads(line).encode("latin-1"))

    def write_status(self, signed: SignedStatus) -> None:
        """Say which commit a node runs."""
        status = signed.status
        if status.applied is None:
            return
        repository = self._repository
        root = repository.TreeBuilder()
        lines = [f"runs here since {status.time}: node {status.node}, owsgit {status.version}"]
        lines += [f"failed: {name}" for name in status.failed]
        text = "\n".join([*lines, json.dumps(signed.document()), ""])
        root.insert(status.applied, repository.create_blob(text.encode()), FileMode.BLOB)
        self._commit(f"{FOLDER}/{status.node}", root.write(), f"What {status.node} runs")

    def drop_damaged(self) -> None:
        """Forget notes that cannot be read, as after a power cut: they are made again."""
        for name in list(self._repository.references):
            if not name.startswith(f"{FOLDER}/"):
                continue
            try:
                for _ in _entries(self._repository, name):
                    pass
            except (pygit2.GitError, KeyError, ValueError):
                with contextlib.suppress(pygit2.GitError, KeyError):
                    self._repository.references.delete(name)

    def keep_only(self, nodes: Iterable[str]) -> None:
        """Remove the notes of nodes that are no more."""
        wanted = {VOTES, RECOVERIES, REVIEWS, *(f"{FOLDER}/{node}" for node in nodes)}
        for name in list(self._repository.references):
            if name.startswith(f"{FOLDER}/") and name not in wanted:
                self._repository.references.delete(name)

    def votes(self) -> Mapping[str, bytes]:
        """All certificates' texts, by head."""
        return dict(_entries(self._repository, VOTES))

    def recoveries(self) -> Iterator[SignedRecovery]:
        """All recoveries, of which nothing is proven yet. Raises InvalidError."""
        for _, text in _entries(self._repository, RECOVERIES):
            for line in text.splitlines():
                yield recovery.parse(line)

    def has_votes(self) -> bool:
        return VOTES in self._repository.references

    def _builder(self, ref: str) -> "pygit2.TreeBuilder":
        found = self._repository.references.get(ref)
        if found is None:
            return self._repository.TreeBuilder()
        return self._repository.TreeBuilder(found.peel(pygit2.Commit).tree)

    def _commit(self, ref: str, tree: pygit2.Oid, message: str) -> None:
        repository = self._repository
        author = pygit2.Signature(*_AUTHOR)
        commit = repository.create_commit(None, author, author, message, tree, [])
        repository.references.create(ref, commit, force=True)


NOTE_BYTES_MAX = 1 << 20
REVIEWS_BYTES_MAX = 8 << 20


def _entries(repository: pygit2.Repository, ref: str) -> Iterator[tuple[str, bytes]]:
    """Every note, whatever its fan-out: git's own is deeper in larger trees."""
    found = repository.references.get(ref)
    waiting = [("", found.peel(pygit2.Commit).tree)] if found is not None else []
    while waiting:
        prefix, tree = waiting.pop()
        for entry in tree:
            name = prefix + (entry.name or "")
            if isinstance(entry, pygit2.Tree) and len(name) < 40:
                waiting.append((name, entry))
            elif isinstance(entry, pygit2.Blob) and len(name) == 40:
                yield name, entry.read_raw()


def read_reviews(path: Path) -> Callable[[str], Sequence[Verdict]]:
    """The approvals in a clone, by commit, of which nothing is proven yet."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in Notes(path).reviews():
        if verdict.kind == APPROVE:
            found[verdict.commit].append(verdict)
    return lambda commit: found.get(commit, ())


def read_recoveries(path: Path) -> dict[str, SignedRecovery]:
    """The recoveries in a clone, by id, of which nothing is proven yet. Raises InvalidError."""
    return {signed.recovery.id: signed for signed in Notes(path).recoveries()}


def read_votes(path: Path) -> dict[str, Certificate] | None:
    """The certificates in a clone by the head that they are for; None where they were not fetched.

    Raises InvalidError for one that is damaged.
    """
    notes = Notes(path)
    if not notes.has_votes():
        return None
    found = {}
    for value, text in notes.votes().items():
        if len(text) > NOTE_BYTES_MAX:
            raise InvalidError(f"the note on {value[:10]} in {VOTES} is too long")
        found[value] = certificates.parse(text)
        if found[value].value != value:
            raise InvalidError(f"the note on {value[:10]} in {VOTES} is for another commit")
    return found
