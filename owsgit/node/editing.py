"""Writes resources into the working tree, for programs that make what they need when they start: `owsgit up`."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from owsgit.model import strictjson
from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.names import NAME
from owsgit.model.resource import Kind, Resource
from owsgit.model.service import Document
from owsgit.model.spec import Spec
from owsgit.node.working_tree import WorkingTree
from owsgit.reconcile.inventory import Inventory, Phase, Row
from owsgit.reconcile.loop import Reconciler, Stepped
from owsgit.services import KINDS

APPLIED_SECONDS_MAX = 60.0
"""How long a caller waits for what was written to be applied."""

UNWRITTEN = "0" * 40
"""The blob of what is not a file yet."""


class Editor:
    """Changes one file after the other, each once the one before is applied."""

    def __init__(self, folder: Path, working: WorkingTree, reconciler: Reconciler, inventory: Inventory) -> None:
        self._folder, self._working = folder, working
        self._reconciler, self._inventory = reconciler, inventory
        self._turn = asyncio.Lock()

    async def edit(self, kind_name: str, name: str, change: Callable[[Document | None], Document | None]) -> None:
        """See Edit in owsgit.model.service."""
        kind = KINDS[kind_name]
        if not NAME.fullmatch(name):
            raise InvalidError(
                f"{name!r:.100} is not the name of a {kind.name}", remedy="use letters, digits and _ . -"
            )
        async with self._turn, self._reconciler.events() as events:
            wanted = await asyncio.to_thread(self._write, kind, name, change)
            self._reconciler.wake()
            try:
                async with asyncio.timeout(APPLIED_SECONDS_MAX):
                    while not self._is_applied(kind.key(name), wanted):
                        event = await events.get()
                        if isinstance(event, Stepped) and event.step.key == kind.key(name):
                            _check(event.row)
            except TimeoutError:
                raise UnavailableError(
                    f"{kind.file(name)} is written, but not applied yet", remedy="try again"
                ) from None

    def _write(self, kind: Kind, name: str, change: Callable[[Document | None], Document | None]) -> Spec | None:
        """What the file says by then. Nothing is written unless the working tree is valid with it."""
        state = self._working.read()
        path = self._folder / kind.file(name)
        before = state.get(kind.name, name)
        document: Any = None if before is None else strictjson.loads(path.read_bytes(), kind.file(name))
        wanted = change(document)
        if wanted is None:
            state.after([Change(before, None)] if before is not None else [])
            path.unlink(missing_ok=True)
            return None
        text = json.dumps(wanted, indent=2, ensure_ascii=False).encode() + b"\n"
        spec = kind.spec.parse(text, kind.file(name))
        state.after([Change(before, Resource(kind, name, spec, UNWRITTEN))])
        if wanted != document:
            path.parent.mkdir(exist_ok=True)
            scratch = self._working.home / "edited"  # not in the tree: half a file would be read there
            scratch.write_bytes(text)
            scratch.replace(path)
        return spec

    def _is_applied(self, key: str, wanted: Spec | None) -> bool:
        row = self._inventory.rows.get(key)
        if wanted is None or row is None:
            return wanted is None and row is None
        return row.phase is Phase.READY and row.applied is not None and row.applied.spec == wanted


def _check(row: Row | None) -> None:
    """Raises UnavailableError if what was written could not be made real."""
    if row is not None and row.phase is Phase.FAILED:
        raise UnavailableError(row.message)
