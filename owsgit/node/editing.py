"""Writes resources into the working tree, for programs that make what they need when they start: `owsgit up`."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from owsgit.model import strictjson
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import NAME
from owsgit.model.resource import Kind, Resource
from owsgit.model.service import Document, NotAppliedError
from owsgit.node.working_tree import WorkingTree
from owsgit.reconcile.inventory import Inventory, Phase
from owsgit.reconcile.loop import Reconciler, Stepped
from owsgit.runtime import code
from owsgit.services import KINDS

APPLIED_SECONDS_MAX = 45.0
"""How long a caller waits for what was written to be applied: AWS's SDKs wait 60 s for an answer."""

SAVES_MAX = 10
"""How often a change begins anew because its file was saved meanwhile."""


class _SavedError(Exception):
    """The user has saved the file that is about to be written."""


class Editor:
    """Changes one resource after the other, each once the one before is applied."""

    def __init__(self, folder: Path, working: WorkingTree, reconciler: Reconciler, inventory: Inventory) -> None:
        self._folder, self._working = folder, working
        self._reconciler, self._inventory = reconciler, inventory
        self._turn = asyncio.Lock()

    async def edit(
        self,
        kind_name: str,
        name: str,
        change: Callable[[Document | None], Document | None],
        files: Path | None = None,
    ) -> None:
        """See Edit in owsgit.model.service."""
        kind = KINDS[kind_name]
        if not NAME.fullmatch(name):
            raise InvalidError(
                f"{name!r:.100} is not the name of a {kind.name}", remedy="use letters, digits and _ . -"
            )
        async with self._turn, self._reconciler.events() as events:
            wanted = await asyncio.to_thread(self._write, kind, name, change, files)
            self._reconciler.wake()
            try:
                async with asyncio.timeout(APPLIED_SECONDS_MAX):
                    while not self._is_applied(kind.key(name), wanted):
                        event = await events.get()
                        if isinstance(event, Stepped) and event.step.key == kind.key(name):
                            _check(event, wanted)
            except TimeoutError:
                raise NotAppliedError(
                    f"{kind.file(name)} is written, but not applied yet", remedy="try again"
                ) from None

    def _write(
        self, kind: Kind, name: str, change: Callable[[Document | None], Document | None], files: Path | None
    ) -> Resource | None:
        """What it is by then. Nothing is written unless the working tree is valid with it."""
        with tempfile.TemporaryDirectory(prefix="owsgit-") as scratch:  # not in the tree: a half would be read there
            staged = Path(scratch, "staged")
            staged.mkdir()
            if files is not None:
                _stage(staged, f"{kind.folder}/{name}", kind.file(name), files)
            for _ in range(SAVES_MAX):
                with contextlib.suppress(_SavedError):
                    return self._write_staged(kind, name, change, staged, whole=files is not None)
        raise UnavailableError(f"{kind.file(name)} is being changed", file=kind.file(name), remedy="try again")

    def _write_staged(
        self,
        kind: Kind,
        name: str,
        change: Callable[[Document | None], Document | None],
        staged: Path,
        *,
        whole: bool,
    ) -> Resource | None:
        """The same, with the files that are staged if it is `whole`. Raises _SavedError."""
        before = self._working.read().get(kind.name, name)
        file = kind.file(name)
        text = self._text(file)
        if before is not None and text is None:
            raise _SavedError
        document: Any = None if before is None or text is None else strictjson.loads(text, file)
        wanted = change(document)
        if wanted == document and not whole:
            return before
        path = f"{kind.folder}/{name}" if kind.has_files and (wanted is None or whole) else file
        if wanted is not None:
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            (staged / file).write_bytes(json.dumps(wanted, indent=2, ensure_ascii=False).encode() + b"\n")
        after = self._working.would_be(staged, path).get(kind.name, name)
        near = self._near()
        if wanted is not None:
            shutil.move(staged / path, near)
        if self._text(file) != text:  # what the user has saved since then would be lost
            if wanted is not None:
                shutil.move(near, staged / path)
            raise _SavedError
        if path == file:
            self._put_file(near, path)
        else:
            self._put_folder(near, path)
        return after

    def _text(self, file: str) -> bytes | None:
        try:
            return (self._folder / file).read_bytes()
        except OSError:
            return None

    def _put_file(self, near: Path, path: str) -> None:
        place = self._folder / path
        if not near.exists():
            place.unlink(missing_ok=True)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        near.replace(place)

    def _put_folder(self, near: Path, path: str) -> None:
        """What .gitignore leaves out is the user's alone: it stays."""
        place = self._folder / path
        for old in self._working.listed(path):
            (self._folder / old).unlink(missing_ok=True)
        _prune(place)
        for folder, _, names in os.walk(near):
            target = place / Path(folder).relative_to(near)
            target.mkdir(parents=True, exist_ok=True)
            for name in names:  # one by one: who watches the tree loses track of folders that are moved
                if (target / name).is_dir():  # with nothing but what is left out
                    code.remove(target / name)
                Path(folder, name).replace(target / name)
        code.remove(near)

    def _near(self) -> Path:
        """Where what is written lies before, on the same disk: if that is full, nothing was removed yet."""
        near = self._working.home / "edited"
        code.remove(near)
        return near

    def _is_applied(self, key: str, wanted: Resource | None) -> bool:
        row = self._inventory.rows.get(key)
        if wanted is None or row is None:
            return wanted is None and row is None
        return row.phase is Phase.READY and row.applied is not None and row.applied.version == wanted.version


def _stage(staged: Path, path: str, file: str, files: Path) -> None:
    (staged / path).parent.mkdir(parents=True)
    shutil.move(files, staged / path)
    if (staged / file).exists():
        raise InvalidError(f"{(staged / file).name} says what it is, and cannot be among its files", file=file)


def _prune(folder: Path) -> None:
    """Remove folders without files."""
    for each, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(each).rmdir()


def _check(event: Stepped, wanted: Resource | None) -> None:
    """Raises NotAppliedError if what was written could not be made real."""
    row = event.row
    if wanted is not None and event.step.resource.version != wanted.version:
        return
    if row is not None and row.phase is Phase.FAILED:
        raise NotAppliedError(row.message)
