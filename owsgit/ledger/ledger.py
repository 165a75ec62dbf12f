"""A node's ledger: its repository, and the last head that this node verified itself.

`main` may be moved by git at any moment; what the node acts on is `advance()`, which verifies whatever is new first.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from owsgit.ledger import changes, trees, verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import MAIN, NODE_ENVIRONMENT, Repository, genesis, run
from owsgit.ledger.verify import Report, Verified
from owsgit.model.errors import OwsgitError, RefusedError, UnavailableError
from owsgit.model.resource import Kinds
from owsgit.model.service import CodeFile

REJECTED = "refs/owsgit/rejected"
"""Where a commit is kept that stood at main and did not verify. Hidden from clients."""

ACCEPTED_MAX = 16
"""Pushes that were verified and whose commit may become main in a moment."""


class Ledger:
    """Not thread-safe: the node calls it from one thread at a time."""

    def __init__(self, repository: Repository, kinds: Kinds, record: Path) -> None:
        """`record` is the file that holds the id of the last verified head. Raises what `advance` raises."""
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
        """Verify that `tip` may follow the head. The result is kept for `advance`. Raises RefusedError and its kin."""
        report = verify.push(objects, self.kinds, self.head, tip)
        self._accepted[self.head.commit if self.head else None, tip] = report.head
        while len(self._accepted) > ACCEPTED_MAX:
            self._accepted.popitem(last=False)
        return report

    def advance(self) -> Verified | None:
        """Follow main, verifying what is new. Raises RefusedError and its kin: the head then stays where it is."""
        main = self.repository.head()
        if main is None:
            if self.head is not None:
                raise RefusedError("main is gone from this node's repository", remedy="restore it: git update-ref")
            return None
        if self.head is not None and self.head.commit == main:
            return self.head
        accepted = self._accepted.get((self.head.commit if self.head else None, main))
        try:
            head = accepted or verify.walk(self.repository.objects, self.kinds, self.head, main, lambda _: None)
        except UnavailableError:
            raise  # nothing is said of the commit: something is missing on this machine
        except OwsgitError as error:
            self._set_back(main)
            raise RefusedError(
                f"main was at {main[:10]}, which was not let in by this node and does not verify: {error.problems[0]}",
                remedy=f"main was set back; the commit is kept as {REJECTED}/{main}",
            ) from error
        self._write(head.commit)
        self.head = head
        self._accepted.clear()
        return head

    def _set_back(self, bad: str) -> None:
        """Move main back to the verified head: nothing could follow a main that does not verify."""
        run(self.repository.path, "update-ref", f"{REJECTED}/{bad}", bad, env=NODE_ENVIRONMENT)
        if self.head is None:
            run(self.repository.path, "update-ref", "-d", MAIN, bad, env=NODE_ENVIRONMENT)
        else:
            run(self.repository.path, "update-ref", MAIN, self.head.commit, bad, env=NODE_ENVIRONMENT)

    def _write(self, commit: str) -> None:
        scratch = self._record.with_suffix(".new")
        with scratch.open("w") as file:
            file.write(commit + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._record)

    def read_files(self, tree: str) -> Iterator[CodeFile]:
        """Every file below a tree, with its content."""
        return read_files(self.repository.objects, tree)


def read_files(objects: Objects, tree: str) -> Iterator[CodeFile]:
    """Every file below a tree, with its content, one after the other."""
    for path, mode, oid in changes.files_of(objects, bytes.fromhex(tree)):
        yield CodeFile(path, mode == trees.EXECUTABLE, objects.blob(oid, changes.CODE_FILE_BYTES_MAX))
