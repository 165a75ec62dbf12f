"""The log of a function on disk: JSON lines (log_lines.py), bounded in size, rate and age. Read by log_reader.py."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from owsgit.runtime import log_lines
from owsgit.runtime.allowance import Allowance
from owsgit.runtime.log_lines import Entry, Run, Source

LOG_FILE_BYTES_MAX = 8 * 1024 * 1024
LOG_FILES_MAX = 4
"""32 MiB of log a function: days of a quiet one, the last minutes of a noisy one."""

LINE_CHARACTERS_MAX = LINE_BYTES_MAX = 256 * 1024
"""CloudWatch's limit for one event."""

LOG_BYTES_PER_SECOND_MAX = 1024 * 1024
LOG_BURST_BYTES_MAX = 16 * 1024 * 1024
"""Of one function, all its workers together: no function keeps the disk busy. Half of its log may come at once."""

PLATFORM_BYTES: Final = 600
"""What the lines of a request take, about."""

WRITE_SECONDS = 0.005
WRITE_BYTES: Final = 64 * 1024
"""Lines wait so long, or until they are so many, for others to be written with. Who reads the log has them written."""

RETENTION_DAYS = 14
DAY_SECONDS = 24 * 3600.0

CURRENT = "current.jsonl"
RETENTION = "retention"
"""The file beside the log with the days for which it is kept: they hold when the function is gone."""


def names() -> list[str]:
    """The files of a log, the newest first."""
    return [CURRENT, *(f"{number}.jsonl" for number in range(1, LOG_FILES_MAX))]


@dataclass(frozen=True)
class LogSettings:
    """How a function's log is written. Lines of its code below `level` are dropped; None drops none."""

    source: Source = field(default_factory=Source)
    level: str | None = None
    retention_days: int = RETENTION_DAYS


class Report:
    """What a REPORT line tells of one request."""

    __slots__ = ("duration_seconds", "init_seconds", "memory_bytes")

    def __init__(self, duration_seconds: float, init_seconds: float | None, memory_bytes: int) -> None:
        """`init_seconds` with the first request of a worker."""
        self.duration_seconds, self.init_seconds, self.memory_bytes = duration_seconds, init_seconds, memory_bytes


_Platform = tuple[str, Iterable[log_lines.Dated]]
"""START, END and REPORT lines with their request id. They become text when they are written, not while it is awaited
that their request is answered."""


def _ignore(report: Report) -> None:
    pass


class FunctionLog:
    """Appends lines; rotates `current.jsonl` to `1.jsonl`, `2.jsonl`, ... as it grows, and as it ages.

    `on_report` is told of every request that ended.
    """

    def __init__(
        self, folder: Path, settings: LogSettings | None = None, on_report: Callable[[Report], None] = _ignore
    ) -> None:
        self.folder = folder
        self.settings = settings or LogSettings()
        self._fields = self.settings.source.fields
        self.report = on_report
        self._allowance = Allowance(LOG_BYTES_PER_SECOND_MAX, LOG_BURST_BYTES_MAX)
        self._dropped = 0
        self._fd = -1
        self._size = 0
        self._born = 0.0  # when the first line of the file was written
        self._torn = False  # whether the file ends within a line
        self._waiting: list[bytes | Run | _Platform] = []
        self._waiting_bytes = 0
        self._lock = threading.RLock()  # who reads may be in another thread

    def configure(self, settings: LogSettings) -> None:
        """Write as `settings` say from now on."""
        self.settings, self._fields = settings, settings.source.fields
        text = f"{settings.retention_days}\n"
        file = self.folder / RETENTION
        with contextlib.suppress(OSError):
            if not file.exists() or file.read_text() != text:
                self.folder.mkdir(parents=True, exist_ok=True)
                scratch = file.with_suffix(".new")
                scratch.write_text(text)
                scratch.replace(file)

    def write(self, request_id: str, lines: list[str], level: str = log_lines.DEFAULT_LEVEL) -> None:
        """Append plain lines of the node's own."""
        self.append(request_id, [Entry(line, level, platform=True) for line in lines])

    def append(self, request_id: str, entries: Iterable[Entry]) -> None:
        """Append lines of one request. A full disk costs the lines, never the request."""
        now = log_lines.timestamp(time.time())
        self.extend((now, request_id, entry) for entry in entries)

    def extend(self, dated: Iterable[tuple[str, str, Entry]]) -> None:
        """Append lines of several requests, each with its time and its request id."""
        least = log_lines.rank(self.settings.level) if self.settings.level else -1
        pieces = []
        for now, request_id, entry in dated:
            if not entry.platform and log_lines.rank(entry.level) < least:
                continue
            if len(entry.message) > LINE_CHARACTERS_MAX:
                entry = replace(entry, message=entry.message[:LINE_CHARACTERS_MAX])  # noqa: PLW2901
            piece = log_lines.dump(entry, now, request_id, self.settings.source)
            if not self._allowance.take(len(piece), always=entry.platform):
                self._dropped += 1
                continue
            if self._dropped and not entry.platform:
                pieces.append(log_lines.dump(self._drops(), now, request_id, self.settings.source))
            pieces.append(piece)
        if pieces:
            data = b"".join(pieces)
            self._wait(data, len(data))

    def take(self, lines: bytes) -> None:
        """Append whole lines, as `log_lines.dump` has them, of the node's own."""
        self._allowance.take(len(lines), always=True)
        self._wait(lines, len(lines))

    def platform(self, request_id: str, lines: Iterable[log_lines.Dated]) -> None:
        """Append START, END and REPORT lines."""
        self._wait((request_id, lines), PLATFORM_BYTES)

    def ran(self, run: Run) -> None:
        """Append all three of a request."""
        self._wait(run, PLATFORM_BYTES)

    def _wait(self, data: "bytes | Run | _Platform", size: int) -> None:
        """Have it written with what comes next, but soon; at once where there is no event loop."""
        with self._lock:
            self._waiting.append(data)
            self._waiting_bytes += size
            count, size = len(self._waiting), self._waiting_bytes
        if size > WRITE_BYTES:
            self.write_out()
        elif count == 1:
            _unwritten[self.folder] = self
            try:
                asyncio.get_running_loop().call_later(WRITE_SECONDS, self.write_out)
            except RuntimeError:
                self.write_out()

    def write_out(self) -> None:
        """Write what waits to be written."""
        with self._lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            _unwritten.pop(self.folder, None)
            if waiting:
                taken = sum([len(each) for each in waiting if type(each) is bytes])  # has its allowance already
                data = b"".join([each if type(each) is bytes else self._dump(each) for each in waiting])
                self._allowance.take(len(data) - taken, always=True)
                with contextlib.suppress(OSError):
                    self._put(data)

    def _dump(self, waiting: "bytes | Run | _Platform") -> bytes:
        if isinstance(waiting, bytes):
            return waiting
        if isinstance(waiting, Run):
            return log_lines.dump_run(waiting, self._fields)
        request_id, lines = waiting
        return log_lines.dump_platform(lines, request_id, self.settings.source)

    def _drops(self) -> Entry:
        count, self._dropped = self._dropped, 0
        what = self.settings.source.kind
        text = f"[owsgit] {count:,} lines are dropped: this {what} wrote more than 1 MiB of log a second"
        return Entry(text, "WARN", platform=True)

    def _put(self, data: bytes) -> None:
        if self._fd < 0:
            self._open()
        written = os.write(self._fd, b"\n" + data if self._torn else data)
        self._torn = written < len(data)
        self._size += written
        if self._size > LOG_FILE_BYTES_MAX or self._is_old():
            self._rotate()

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.folder / CURRENT, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        first = log_lines.HEAD.match(os.pread(self._fd, 4096, 0))
        self._born = time.time()
        if first is not None:
            with contextlib.suppress(ValueError):
                self._born = datetime.fromisoformat(first[1].decode()).timestamp()

    def _is_old(self) -> bool:
        """Whether the file spans so long that its first lines would outstay by far while its last is young."""
        return time.time() - self._born > self.settings.retention_days * DAY_SECONDS / (LOG_FILES_MAX - 1)

    def _rotate(self) -> None:
        self._close()
        files = names()
        for newer, older in reversed(list(itertools.pairwise(files))):
            if (self.folder / newer).exists():
                (self.folder / newer).replace(self.folder / older)
        self.sweep()

    def sweep(self) -> None:
        """Remove what is older than it is to be kept."""
        with self._lock:
            if remove_old(self.folder, self.settings.retention_days):
                self._close()

    def close(self) -> None:
        with self._lock:
            self.write_out()
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def remove_old(folder: Path, days: int) -> bool:
    """Remove the files whose last line is older than `days`; whether `current.jsonl` was one of them."""
    removed = set()
    for name in names():
        with contextlib.suppress(OSError):
            if time.time() - (folder / name).stat().st_mtime > days * DAY_SECONDS:
                (folder / name).unlink()
                removed.add(name)
    return CURRENT in removed


def sweep_forgotten(folder: Path) -> None:
    """Remove what is too old of the log of a function that is not here (any more), and at last its folder."""
    try:
        days = int((folder / RETENTION).read_text())
    except (OSError, ValueError):
        days = RETENTION_DAYS
    remove_old(folder, days)
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {RETENTION}:
            (folder / RETENTION).unlink(missing_ok=True)
            folder.rmdir()


async def sweep_daily(folder: Path, used: Callable[[], Mapping[str, "Swept"]]) -> None:
    """Once a day, remove what is older than it is to be kept: of the logs that are used, by name, and of those below
    `folder` that are not (any more).
    """
    while True:
        known = dict(used())
        for log in known.values():
            log.sweep()
        for path in [path for path in folder.glob("*") if path.name not in known]:
            await asyncio.to_thread(sweep_forgotten, path)
        await asyncio.sleep(DAY_SECONDS)


class Swept(Protocol):
    """A log that removes what is too old of itself."""

    def sweep(self) -> None: ...


_unwritten: dict[Path, FunctionLog] = {}


def write_out(folder: Path) -> None:
    """Have what waits to be written to the log in `folder` written, before it is read."""
    log = _unwritten.get(folder)
    if log is not None:
        log.write_out()
