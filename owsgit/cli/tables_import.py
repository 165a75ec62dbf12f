"""`owsgit tables import`: items of files into a table."""

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from owsgit.cli import output, tables
from owsgit.cli.output import Result
from owsgit.cli.tables import Checkpoint, Progress
from owsgit.model.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from owsgit.cli.dynamodb import Table
    from owsgit.cli.item_files import Change, Part, Reading

BATCH_MAX = 25
"""Of BatchWriteItem."""
BATCH_BYTES_MAX = 1 << 20
"""What is held for one request, unless a single item is larger."""
THREADS = 8
WAITING_MAX = 2 * THREADS
"""Batches that are on their way, or done before one that is. So little is held, and done again after a crash."""
PASSES_MAX = 12
"""How often what was not processed is asked for again."""

_EXACT = Context(prec=50)
"""DynamoDB's numbers have 38 digits."""

Key = tuple[str, ...]


@output.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--restart", is_flag=True, help="Begin anew, and not where an import of that file was interrupted.")
@tables.place_options
def command(
    name: str,
    file: Path,
    restart: bool,
    directory: Path,
    node: str | None,
    role: str | None,
    profile: str | None,
) -> Result:
    """Put the items of FILE (- is standard input) into the table NAME, in place of those with the same keys.

    FILE is what `owsgit tables export` writes, or an export of DynamoDB's to S3 in the format DYNAMODB_JSON: its folder
    (with manifest-files.json and data/), or one file of it; full or incremental. gzip and zstd are seen by themselves.
    Interrupted, it goes on where it was when it is run again.

    Needs dynamodb:DescribeTable and dynamodb:BatchWriteItem.
    """
    from owsgit.cli import dynamodb, item_files  # noqa: PLC0415 - slow to import

    parts = item_files.parts(file)
    table = dynamodb.Table(tables.reached(directory, node, role, profile), name)
    checkpoint = None if item_files.is_stream(file) else _checkpoint(table, file, parts)
    if checkpoint is not None and restart:
        checkpoint.remove()
    reached = (checkpoint.read() if checkpoint is not None else None) or {"part": 0, "line": 0, "items": 0}
    if reached["items"]:
        output.note(f"goes on behind {reached['items']:,} items that were imported before")
    work = _Import(table, item_files.Reading(parts), checkpoint, _Reached(**reached))
    work.run()
    if checkpoint is not None:
        checkpoint.remove()
    told = {"table": name, "items": work.reached.items, "file": str(file)}
    return Result(told, output.Table(lines=[f"imported {work.reached.items:,} items of {file} into {name}"]))


def _checkpoint(table: "Table", file: Path, parts: "list[Part]") -> Checkpoint:
    """Beside the file, for this table and these bytes."""
    stats = [(part.path.name, part.path.stat().st_size, part.path.stat().st_mtime_ns) for part in parts]
    seen = hashlib.sha256(orjson.dumps(stats)).hexdigest()
    absolute = file.absolute()
    return Checkpoint(absolute.with_name(f"{absolute.name}.{table.name}.checkpoint"), {**table.identity, "file": seen})


@dataclass(frozen=True)
class _Reached:
    """Up to which line of which part all is in the table, and how many items that were."""

    part: int
    line: int
    items: int


@dataclass
class _Batch:
    """What is written together: changes of different keys. `part` and its last line are where it ends."""

    part: int
    changes: "dict[Key, Change]" = field(default_factory=dict)
    bytes: int = 0

    def has_room(self, key: Key, size: int) -> bool:
        if not self.changes:
            return True
        return key not in self.changes and len(self.changes) < BATCH_MAX and self.bytes + size <= BATCH_BYTES_MAX

    def end(self) -> int:
        return max(change.line for change in self.changes.values())


class _Import:
    """Writes batches at the same time, but never two of one key: of lines about one item, the last one counts."""

    def __init__(self, table: "Table", reading: "Reading", checkpoint: Checkpoint | None, reached: _Reached) -> None:
        self._table, self._reading, self._checkpoint = table, reading, checkpoint
        self.reached = reached
        self._saved = time.monotonic()
        self._running: deque[tuple[_Batch, Future[None]]] = deque()

    def run(self) -> None:
        """Raises OwsgitError; what was written then is remembered."""
        size = sum(part.path.stat().st_size for part in self._reading.parts) if self._checkpoint is not None else None
        self._progress = Progress(self._table.name, size, 0, bytes_=True)
        threads = ThreadPoolExecutor(THREADS)
        try:
            with self._progress.shown():
                for batch in self._batches():
                    while len(self._running) >= WAITING_MAX or self._is_busy(batch):
                        self._finish_one()
                    self._running.append((batch, threads.submit(self._write, batch)))
                while self._running:
                    self._finish_one()
        finally:
            threads.shutdown(cancel_futures=True)
            while self._running and self._running[0][1].done() and self._succeeded(self._running[0][1]):
                self._finish_one()
            self._save()

    @staticmethod
    def _succeeded(future: "Future[None]") -> bool:
        return not future.cancelled() and future.exception() is None

    def _is_busy(self, batch: _Batch) -> bool:
        return any(not batch.changes.keys().isdisjoint(each.changes) for each, _ in self._running)

    def _finish_one(self) -> None:
        """Wait for the one that was begun first."""
        batch, future = self._running[0]
        future.result()
        self._running.popleft()
        self.reached = _Reached(batch.part, batch.end(), self.reached.items + len(batch.changes))
        self._progress.tell(self._reading.bytes, self.reached.items)
        if time.monotonic() - self._saved >= tables.CHECKPOINT_SECONDS:
            self._save()

    def _save(self) -> None:
        if self._checkpoint is not None and self.reached.items:
            self._checkpoint.write(vars(self.reached))
            self._saved = time.monotonic()

    def _batches(self) -> Iterator[_Batch]:
        begun = self.reached
        for number, part in enumerate(self._reading.parts):
            if number < begun.part:
                continue
            batch = _Batch(number)
            for change in self._reading.changes(part, begun.line if number == begun.part else 0):
                key, size = self._key(change), len(orjson.dumps(change.request()))
                if not batch.has_room(key, size):
                    yield batch
                    batch = _Batch(number)
                batch.changes[key] = change
                batch.bytes += size
            if batch.changes:
                yield batch

    def _key(self, change: "Change") -> Key:
        """Two numbers that are equal are one key, however they are written. Raises InvalidError."""
        source = change.item if change.item is not None else change.key
        assert source is not None
        found = []
        for name, kind in self._table.keys:
            value = source.get(name)
            given = value.get(kind) if isinstance(value, dict) and len(value) == 1 else None
            if not isinstance(given, str):
                raise InvalidError(
                    f"the item has no key attribute {name!r} of type {kind}",
                    file=change.place,
                    remedy=f"the key of the table {self._table.name} is "
                    + ", ".join(f"{each} ({type_})" for each, type_ in self._table.keys),
                )
            found.append(_plain(given) if kind == "N" else given)
        return tuple(found)

    def _write(self, batch: _Batch) -> None:
        from owsgit.cli.dynamodb import ApiError  # noqa: PLC0415

        changes = list(batch.changes.values())
        try:
            self._request(changes)
        except ApiError as error:
            if error.code != "ValidationException":
                raise
            for change in changes:  # which of them is it?
                try:
                    self._request([change])
                except ApiError as told:
                    raise InvalidError(told.message, file=change.place, remedy="correct the line") from None

    def _request(self, changes: "list[Change]") -> None:
        """What is not processed is asked for again, less and less often. Raises OwsgitError."""
        from owsgit.cli import dynamodb  # noqa: PLC0415

        left: Any = {self._table.name: [change.request() for change in changes]}
        for attempt in range(1, PASSES_MAX + 1):
            left = self._table.api.call("BatchWriteItem", {"RequestItems": left}).get("UnprocessedItems")
            if not left:
                return
            dynamodb.pause(attempt)
        raise UnavailableError(
            f"{self._table.api.endpoint} is too busy: items stay unprocessed",
            remedy="run this again later: it goes on where it was",
        )


def _plain(number: str) -> str:
    try:
        return str(_EXACT.normalize(Decimal(number)))
    except InvalidOperation:
        return number
