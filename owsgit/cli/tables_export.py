"""`owsgit tables export`: the items of a table, as a file."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from owsgit.cli import output, tables
from owsgit.cli.output import Result
from owsgit.cli.tables import Checkpoint, Progress
from owsgit.model.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from owsgit.cli.dynamodb import Table
    from owsgit.cli.item_files import Compression, Writing

SEGMENTS, SEGMENTS_MAX = 4, 64

_DONE = "done"


@output.command("export")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "zstd"]),
    help="Of the file; by default what its name ends with: .gz, .zst, or neither.",
)
@click.option(
    "--segments",
    type=click.IntRange(1, SEGMENTS_MAX),
    default=SEGMENTS,
    show_default=True,
    help="How many parts of the table are read at the same time.",
)
@click.option("--overwrite", is_flag=True, help="Also if the file is there.")
@click.option("--restart", is_flag=True, help="Begin anew, and not where an export to that file was interrupted.")
@tables.place_options
def command(
    name: str,
    file: Path | None,
    compression: "Compression | None",
    segments: int,
    overwrite: bool,
    restart: bool,
    directory: Path,
    node: str | None,
    role: str | None,
    profile: str | None,
) -> Result:
    """Write the items of the table NAME into FILE (NAME.json.gz; - is standard output), as exports of DynamoDB are.

    An item a line, {"Item": {...}}, in no order. Interrupted, it goes on where it was when it is run again. Items that
    are written meanwhile are in it as they were, or as they became; all others are in it once.

    Needs dynamodb:DescribeTable and dynamodb:Scan.
    """
    from owsgit.cli import dynamodb, item_files  # noqa: PLC0415 - slow to import

    file = file or Path(f"{name}.json.gz")
    is_stream = str(file) == item_files.STDIO
    form = compression or ("none" if is_stream else item_files.compression_of(file.name))
    if not is_stream and file.exists() and not overwrite:
        raise InvalidError("the file is there", file=str(file), remedy="name another, or --overwrite")
    table = dynamodb.Table(tables.reached(directory, node, role, profile), name)
    if is_stream:
        export = _Export(table, segments)
        export.run(item_files.Writing(cast(BinaryIO, sys.stdout.buffer), form), lambda: None)
        output.note(f"exported {export.items:,} items of {name}")
        return Result(None)
    return _to_file(table, file, form, segments, restart=restart)


class _Export:
    """Reads a table in segments at the same time. `reached`: the last key of each that was written.

    That, `items` and the file are of one moment while it `is_whole`: an interruption may come within a write.
    """

    def __init__(self, table: "Table", segments: int, reached: list[Any] | None = None, items: int = 0) -> None:
        self._table = table
        self.reached = reached if reached is not None else [None] * segments
        self.items = items
        self.is_whole = True

    def run(self, writing: "Writing", wrote: Callable[[], None]) -> None:
        """`wrote` is called after what was written whenever it may be kept. At most a page of each segment is held."""
        progress = Progress(self._table.name, self._table.items, self.items, bytes_=False)
        threads = ThreadPoolExecutor(len(self.reached))
        try:
            running = {
                threads.submit(self._page, segment, key): segment
                for segment, key in enumerate(self.reached)
                if key != _DONE
            }
            with progress.shown():
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        segment = running.pop(future)
                        self._take(future, segment, running, threads, writing)
                        progress.tell(self.items, self.items)
                        wrote()
        finally:
            threads.shutdown(cancel_futures=True)
        writing.cut()

    def _take(
        self,
        future: "Future[dict[str, Any]]",
        segment: int,
        running: "dict[Future[dict[str, Any]], int]",
        threads: ThreadPoolExecutor,
        writing: "Writing",
    ) -> None:
        page = future.result()
        last = page.get("LastEvaluatedKey")
        if last is not None:  # the next page is read while this one is written
            running[threads.submit(self._page, segment, last)] = segment
        self.is_whole = False
        writing.write(page["Items"])
        self.items += len(page["Items"])
        self.reached[segment] = _DONE if last is None else last
        self.is_whole = True

    def _page(self, segment: int, after: Any) -> dict[str, Any]:
        parameters = {"TableName": self._table.name, "Segment": segment, "TotalSegments": len(self.reached)}
        return self._table.api.call("Scan", parameters if after is None else {**parameters, "ExclusiveStartKey": after})


def _to_file(table: "Table", file: Path, form: "Compression", segments: int, *, restart: bool) -> Result:
    """What is there up to a checkpoint is good; what was written behind it is cut off."""
    from owsgit.cli.item_files import Writing  # noqa: PLC0415

    part = file.with_name(file.name + ".part")
    checkpoint = Checkpoint(file.with_name(file.name + ".part.checkpoint"), {**table.identity, "compression": form})
    with _locked(part) as raw:
        if restart:
            checkpoint.remove()
        found = checkpoint.read() or {"bytes": 0, "items": 0, "segments": [None] * segments}
        if found["items"]:
            output.note(f"goes on behind {found['items']:,} items that were exported before")
        if part.stat().st_size < found["bytes"]:
            raise InvalidError("what was exported before is gone", file=str(part), remedy="--restart begins anew")
        export = _Export(table, segments, found["segments"], found["items"])
        writing, saved = Writing(raw, form), time.monotonic()
        raw.truncate(found["bytes"])
        raw.seek(0, os.SEEK_END)

        def save() -> None:
            writing.cut()
            os.fsync(raw.fileno())
            checkpoint.write({"bytes": raw.tell(), "items": export.items, "segments": export.reached})

        def wrote() -> None:
            nonlocal saved
            if time.monotonic() - saved >= tables.CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()

        try:
            export.run(writing, wrote)
        except OSError as error:
            raise UnavailableError(
                f"it cannot be written: {error.strerror}",
                file=str(part),
                remedy="free some space, and run this again: it goes on where it was",
            ) from None
        except BaseException:
            if export.is_whole:
                save()
            raise
        os.fsync(raw.fileno())
        size = raw.tell()
        part.replace(file)
        checkpoint.remove()
    told = {"table": table.name, "items": export.items, "file": str(file), "bytes": size}
    return Result(
        told, output.Table(lines=[f"exported {export.items:,} items of {table.name} to {file} ({size:,} bytes)"])
    )


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Raises UnavailableError if another export writes it, or nobody can."""
    try:
        raw = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # items are nobody else's business
    except OSError as error:
        raise UnavailableError(f"it cannot be written: {error.strerror}", file=str(part)) from None
    with raw:
        try:
            fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UnavailableError("another export writes this file", file=str(part), remedy="wait for it") from None
        yield raw
