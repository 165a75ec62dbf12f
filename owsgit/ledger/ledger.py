"""A node's ledger: its repository, and the last head that this node verified itself.

What the node acts on is `head`. `main` follows it, by `follow` alone; whatever else moves it is undone by `settle`.
"""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from owsgit.ledger import changes, trees, verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import MAIN, NODE_ENVIRONMENT, GitError, Repository, genesis, run
from owsgit.ledger.verify import CommitReport, Report, Verified
from owsgit.model import core
from owsgit.model.errors import RefusedError
from owsgit.model.resource import Kinds
from owsgit.model.service import CodeFile

REJECTED = "refs/owsgit/rejected"
"""Where a commit is kept that stood at main and was not decided on. Hidden from clients."""

ACCEPTED_MAX = 16
"""Pushes that were verified and whose commit may become main in a moment."""


class Ledger:
    """Not thread-safe: the node calls it from one thread at a time."""

    def __init__(self, repository: Repository, kinds: Kinds, record: Path) -> None:
        """`record` is the file that holds the id of the last verified head. Raises OwsgitError if it cannot be read."""
        self.repository = repository
        self.kinds = kinds
        self._record = record
        self._accepted: OrderedDict[tuple[str | None, str], Verified] = OrderedDict()
        self.head: Verified | None = self._load()

    def _load(self) -> Verified | None:
        """The recorded head: it was verified before, so only its state is read."""
        try:
            commit = self._record.read_text().strip()
        except FileNotFoundError:
            return None
        founding = genesis(self.repository.path, commit, NODE_ENVIRONMENT)
        return verify.load(self.repository.objects, self.kinds, founding, commit)

    def check(self, tip: str, objects: Objects) -> Report:
        """Verify that `tip` may follow the head. The result is kept for `follow`. Raises RefusedError and its kin."""
        report = verify.push(objects, self.kinds, self.head, tip)
        self._accepted[self.head.commit if self.head else None, tip] = report.head
        while len(self._accepted) > ACCEPTED_MAX:
            self._accepted.popitem(last=False)
        return report

    def has_checked(self, tip: str) -> bool:
        """Whether `check` found that `tip` may follow the head as it is now."""
        return (self.head.commit if self.head else None, tip) in self._accepted

    def head_is_not(self, commit: str) -> bool:
        """Whether the head is another one than `commit`."""
        return self.head is None or self.head.commit != commit

    def follow(self, tip: str) -> Verified:
        """Move main and the head to `tip`, which was decided. Durable when it returns; verifies what is new.

        Raises RefusedError and its kin; nothing has moved then.
        """
        if self.head is not None and self.head.commit == tip:
            return self.head
        old = self.head.commit if self.head else None
        head = self._accepted.get((old, tip)) or verify.walk(
            self.repository.objects, self.kinds, self.head, tip, lambda _: None
        )
        self.adopt(head)
        return head

    def adopt(self, head: Verified) -> None:
        """Move main and the head to what was verified to follow them."""
        self._move(head.commit)
        self._write(head.commit)
        self.head = head
        self._accepted.clear()

    def _move(self, commit: str) -> None:
        main = self.repository.head()
        if main == commit:
            return
        self.settle()
        self.repository.move_main(self.head.commit if self.head else None, commit)

    def settle(self) -> str:
        """Have main stand at the head. What was wrong in words, '' if nothing was."""
        main = self.repository.head()
        head = self.head.commit if self.head else None
        if main == head:
            return ""
        if main is not None:
            with contextlib.suppress(GitError):  # it may not even be there
                run(self.repository.path, "update-ref", f"{REJECTED}/{main}", main, env=NODE_ENVIRONMENT)
        if head is not None:
            run(self.repository.path, "update-ref", MAIN, head, env=NODE_ENVIRONMENT)
        else:
            run(self.repository.path, "update-ref", "-d", MAIN, env=NODE_ENVIRONMENT)
        at = f"at {main[:10]}, which the nodes have not decided on" if main else "gone"
        return f"main was {at}; it was set back" + (f", and the commit is kept as {REJECTED}/{main}" if main else "")

    def founding(self, tip: str, objects: Objects, told: Callable[[CommitReport], None] = lambda _: None) -> Verified:
        """The first head of the history of `tip` that names nodes: from there on, nodes decide.

        `told` is given every commit up to `tip`. Raises RefusedError if there is none.
        """
        first: list[str] = []

        def seen(report: CommitReport) -> None:
            told(report)
            if not first and any(change.resource.kind is core.NODE and change.after for change in report.changes):
                first.append(report.commit.id)

        head = verify.walk(objects, self.kinds, None, tip, seen)
        if not first:
            raise RefusedError(
                "the project names no node",
                file="nodes/",
                remedy="commit what owsgit node init prints as nodes/<name>.json",
            )
        return head if head.commit == first[0] else verify.walk(objects, self.kinds, None, first[0], lambda _: None)

    def _write(self, commit: str) -> None:
        scratch = self._record.with_suffix(".new")
        with scratch.open("w") as file:
            file.write(commit + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._record)
        fd = os.open(self._record.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read_files(self, tree: str) -> Iterator[CodeFile]:
        """Every file below a tree, with its content."""
        return read_files(self.repository.objects, tree)


def read_files(objects: Objects, tree: str) -> Iterator[CodeFile]:
    """Every file below a tree, with its content, one after the other."""
    for path, mode, oid in changes.files_of(objects, bytes.fromhex(tree)):
        yield CodeFile(path, mode == trees.EXECUTABLE, objects.blob(oid, changes.CODE_FILE_BYTES_MAX))
