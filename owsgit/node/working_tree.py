"""The uncommitted working tree of a clone as a state, for `owsgit up` and `owsgit dev`."""

import asyncio
import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from owsgit.ledger import ledger, verify
from owsgit.ledger.objects import Objects
from owsgit.ledger.repository import Clone
from owsgit.model.engines import Engines
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Decision, ResourcePolicy, Session
from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import CodeFile, Edit, SecretValue, Site
from owsgit.model.state import GENESIS_UNKNOWN, State
from owsgit.services import KINDS

LISTEN = "127.0.0.1"
NAME = "local"
SETTLE_SECONDS = 0.15
"""Editors write a file in several steps; what is saved within this time is applied at once."""

LEFT_OUT_MAX = 100
"""Resources that are not valid and left out: each round of them is another reading of the tree."""

IDENTITIES = frozenset({"users", "nodes"})
_READS = frozenset({"opened", "closed_no_write"})


class WorkingTree:
    """Reads the working tree; what it writes lies in `home`. `command` is what a user runs, for remedies."""

    def __init__(self, clone: Clone, home: Path, secrets: Path | None, command: str) -> None:
        """`secrets` is a folder with a file for each secret, named as it is: nobody but the nodes can open the real."""
        self.home = home
        self.state: State | None = None
        self.tree = ""
        self.left_out: tuple[str, ...] = ()
        self._clone = clone
        self._secrets = secrets
        self._command = command
        self._reading = threading.Lock()
        (home / "objects").mkdir(parents=True, exist_ok=True)
        self._objects = Objects([home / "objects", clone.git_folder / "objects"])

    def read(self) -> State:
        """The state as it is now. Raises OwsgitError; `state` and `tree` are then what was valid before."""
        return self._load(())

    def read_for(self, own: str) -> State:
        """The state as it is now, for the resource at `own` alone: others that are not valid are left out, and named
        in `left_out`. Raises OwsgitError."""
        left_out: set[str] = set()
        while True:
            try:
                state = self._load(tuple(sorted(left_out)))
            except InvalidError as error:
                faulty = {_unit(problem.file) for problem in error.problems}
                if own in faulty or None in faulty or faulty <= left_out or len(left_out) > LEFT_OUT_MAX:
                    raise
                left_out |= {each for each in faulty if each is not None}
            else:
                self.left_out = tuple(sorted(left_out))
                return state

    def _load(self, without: tuple[str, ...]) -> State:
        with self._reading:
            tree = self._clone.write_tree(self.home, without)
            if tree != self.tree or self.state is None:
                self.state = self._state_of(tree)
                self.tree = tree
            return self.state

    def _state_of(self, tree: str) -> State:
        head = self._clone.head()
        genesis = self._clone.genesis(head) if head else GENESIS_UNKNOWN
        return verify.load_tree(self._objects, KINDS, genesis, tree)

    def would_be(self, staged: Path, path: str) -> State:
        """What was read last, with what lies in the folder `staged` at `path` instead. Raises OwsgitError."""
        with self._reading:
            tree = self._clone.write_tree_with(self.home, staged, path)
        return self._state_of(tree)

    def listed(self, path: str) -> list[str]:
        """The files at or below `path` that were read last: others are none of the state, as .gitignore says."""
        with self._reading:
            return self._clone.listed(self.home, path)

    def site(
        self, targets: dict[str, Any], report: Callable[[str, str], None], edit: Edit | None = None, **settings: Any
    ) -> Site:
        """What handlers get instead of a node's."""
        instance = hashlib.sha256(str(self.home).encode()).hexdigest()[:12]
        return Site(
            home=self.home,
            listen=LISTEN,
            scope=self._scope,
            read_files=self._read_files,
            targets=targets,
            settings={"instance": instance, "node": NAME, "certificateFolders": ["/"], **settings},
            unseal=self._unseal,
            decide=self._decide,
            report=report,
            engines=self._engines,
            edit=edit,
        )

    def _engines(self) -> Engines:
        assert self.state is not None
        return self.state.project.engines

    def _decide(
        self, who: str | Session | None, action: str, arn: str, context: Context, policy: ResourcePolicy | None
    ) -> Decision:
        assert self.state is not None
        return self.state.decide_call(who, action, arn, context, policy)

    def _scope(self) -> Scope:
        if self.state is None:
            raise UnavailableError("the working tree is not valid yet", remedy="see what owsgit up says of it")
        return self.state.scope

    def _unseal(self, resource: Resource) -> SecretValue:
        remedy = f"{self._command} --secrets FOLDER, with a value to develop with in FOLDER/{resource.name}"
        if self._secrets is None:
            raise UnavailableError("only the project's nodes can open secrets", file=resource.file, remedy=remedy)
        try:
            return SecretValue(0, (self._secrets / resource.name).read_bytes())
        except OSError as error:
            raise UnavailableError(f"{self._secrets / resource.name}: {error.strerror}", remedy=remedy) from None

    def _read_files(self, tree: str) -> Iterator[CodeFile]:
        return ledger.read_files(self._objects, tree)

    def watching(self, wake: Callable[[], None], *others: Path) -> contextlib.AbstractContextManager[None]:
        """Call `wake` in the loop after every save, also of what lies in the folders `others`."""
        return watching(self._clone.folder, wake, others)


def _unit(file: str) -> str | None:
    """The file or the folder of the resource that a file belongs to; None if a project is nothing without it."""
    folder, _, rest = file.partition("/")
    kind = KINDS.by_folder.get(folder)
    if kind is None or folder in IDENTITIES:
        return None
    return f"{folder}/{rest.partition('/')[0]}" if kind.has_files else file


@contextlib.contextmanager
def watching(folder: Path, wake: Callable[[], None], others: Iterable[Path]) -> Iterator[None]:
    # of what lies in .git, where folders come and go faster than they are watched; nobody can do anything about it
    warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning, module=r"watchdog\.")
    observer = Observer()
    saves = _Saves(folder, wake)
    observer.schedule(saves, str(folder), recursive=True)
    for other in {each.resolve() for each in others}:
        if not other.is_relative_to(folder.resolve()):
            observer.schedule(saves, str(other))
    observer.start()
    try:
        yield
    finally:
        observer.stop()
        observer.join()


class _Saves(FileSystemEventHandler):
    """Wakes a moment after the last of a burst of changes."""

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        self._git = str(folder / ".git")
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = str(event.src_path)
        if event.event_type not in _READS and path != self._git and not path.startswith(self._git + "/"):
            self._loop.call_soon_threadsafe(self._soon)

    def _soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(SETTLE_SECONDS, self._wake)
