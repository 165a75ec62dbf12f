"""Reads the log of a function forwards, across rotations, in bounded memory: from its last lines on, or from a cursor.

A cursor names a place between two lines, and stays good while the line before it exists, even if the node was restarted
meanwhile: with it, a reader that lost its connection goes on without losing a line or seeing one twice.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from owsgit.runtime import log_lines, logs

BLOCK_BYTES = 256 * 1024
"""What is read at once."""

FIRST_BYTES = 4096
"""So much of the first line of a file tells it from all others."""

STORED_LINE_BYTES_MAX = 2 * 1024 * 1024
"""256 Ki characters, escaped in JSON, and a record; what is longer is damage, and skipped."""


@dataclass(frozen=True)
class Query:
    """Which lines are wanted: from `since` on (as lines write their time), with `text` in the message, of `level` or
    graver, of the one `request`.
    """

    since: str = ""
    text: str = ""
    level: str = ""
    request: str = ""

    @cached_property
    def _needle(self) -> bytes:
        return json.dumps(self.text, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")

    @cached_property
    def _request(self) -> bytes:
        return json.dumps(self.request, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")

    def matches(self, line: bytes) -> bool:
        """False for damaged lines, too."""
        head = log_lines.HEAD.match(line)
        if head is None or not line.endswith(b"}"):
            return False
        time, request, level = head.groups()
        if self.since and time.decode() < self.since:
            return False
        if self.request and request != self._request:
            return False
        if self.level and log_lines.rank((level or b"INFO").decode()) < log_lines.rank(self.level):
            return False
        if self.text:  # what is found in the escaped form may be a part of an escape
            if self._needle not in line:
                return False
            with suppress(ValueError):
                return self.text in log_lines.message(line)
            return False
        return True


ALL = Query()


@dataclass(frozen=True)
class Cursor:
    """A place: the file by its number and a checksum of its first line (numbers come again), and an offset."""

    inode: int
    first: int
    offset: int

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.first:x}-{self.offset:x}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError."""
        inode, first, offset = (int(part, 16) for part in text[:80].split("-"))
        if min(inode, first, offset) < 0:
            raise ValueError(text)
        return cls(inode, first, offset)


class Reader:
    """Gives the lines of a log that a query wants, oldest first, from where it stands. Not for concurrent use."""

    def __init__(self, folder: Path, query: Query = ALL) -> None:
        """Stands before the oldest line."""
        self._folder, self._query = folder, query
        self._fd, self._offset = -1, 0

    def to_end(self) -> "Reader":
        """Stand after the newest line."""
        logs.write_out(self._folder)
        self._stand(_open(self._folder / logs.CURRENT))
        if self._fd >= 0:
            self._offset = os.fstat(self._fd).st_size
        return self

    def to_last(self, count: int) -> "Reader":
        """Stand before the last `count` lines that are wanted."""
        if count <= 0:
            return self.to_end()
        logs.write_out(self._folder)
        self._stand(-1)
        seen: set[int] = set()  # a file may be rotated between two looks
        for name in logs.names():
            fd = _open(self._folder / name)
            if fd < 0:
                continue
            status = os.fstat(fd)
            if status.st_ino in seen:
                os.close(fd)
                continue
            seen.add(status.st_ino)
            found, offset = _last(fd, status.st_size, count, self._query.matches)
            self._stand(fd, offset)
            count -= found
            if count <= 0:
                break
        return self

    def to(self, cursor: Cursor) -> "Reader":
        """Stand at a place; before the oldest line if that is gone."""
        logs.write_out(self._folder)
        self._stand(-1)
        for name in logs.names():
            fd = _open(self._folder / name)
            if fd < 0:
                continue
            status = os.fstat(fd)
            if status.st_ino == cursor.inode and (
                cursor.offset == 0 or (cursor.offset <= status.st_size and _first(fd) == cursor.first)
            ):
                self._stand(fd, cursor.offset)
                break
            os.close(fd)
        return self

    @property
    def cursor(self) -> Cursor:
        """Where it stands."""
        return Cursor(os.fstat(self._fd).st_ino, _first(self._fd), self._offset) if self._fd >= 0 else Cursor(0, 0, 0)

    def read(self) -> tuple[list[bytes], bool]:
        """The wanted lines of the next block, and whether there is more to read at once."""
        logs.write_out(self._folder)
        if self._fd < 0:
            self._stand(self._oldest())
            if self._fd < 0:
                return [], False
        newer = self._newer()  # asked first: nothing is written to a file that has a newer one
        size = os.fstat(self._fd).st_size
        if size < self._offset:  # somebody cut it
            self._offset = 0
        data = os.pread(self._fd, BLOCK_BYTES, self._offset)
        if b"\n" not in data and len(data) == BLOCK_BYTES:
            data = os.pread(self._fd, STORED_LINE_BYTES_MAX, self._offset)
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) == STORED_LINE_BYTES_MAX else 0)
        self._offset += end
        if end == 0 and newer is not None:
            self._go_on(*newer)
            return [], True
        lines = [line for line in data[:end].split(b"\n") if line and self._query.matches(line)]
        return lines, (end > 0 and self._offset < size) or newer is not None

    def __iter__(self) -> Iterator[bytes]:
        """The lines up to the end of the log."""
        more = True
        while more:
            lines, more = self.read()
            yield from lines

    def close(self) -> None:
        self._stand(-1)

    def _stand(self, fd: int, offset: int = 0) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._offset = fd, offset

    def _oldest(self) -> int:
        return next((fd for name in reversed(logs.names()) if (fd := _open(self._folder / name)) >= 0), -1)

    def _newer(self) -> tuple[Path, int] | None:
        """The file that comes after the one that is read, and its number; None if that is the current one."""
        own = os.fstat(self._fd).st_ino
        newer: tuple[Path, int] | None = None
        for name in logs.names():
            with suppress(FileNotFoundError):
                inode = (self._folder / name).stat().st_ino
                if inode == own:
                    return newer
                newer = self._folder / name, inode
        return newer  # ours is gone: the oldest that is left is the next

    def _go_on(self, path: Path, inode: int) -> None:
        """Stand before the next file, unless it has just got another name: then it is looked for again."""
        fd = _open(path)
        if fd >= 0 and os.fstat(fd).st_ino == inode:
            self._stand(fd)
        elif fd >= 0:
            os.close(fd)


def last_lines(folder: Path, count: int, query: Query = ALL) -> list[bytes]:
    """The last `count` lines of the log that are wanted, oldest first."""
    reader = Reader(folder, query).to_last(count)
    try:
        return list(reader)[:count] if count > 0 else []
    finally:
        reader.close()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _first(fd: int) -> int:
    """A checksum of the first line; 0 as long as there is none."""
    line, end, _ = os.pread(fd, FIRST_BYTES, 0).partition(b"\n")
    return zlib.crc32(line) if end or len(line) == FIRST_BYTES else 0


def _last(fd: int, size: int, count: int, wanted: Callable[[bytes], bool]) -> tuple[int, int]:
    """How many of the last `count` wanted lines are in a file, and where the first of them begins (else 0)."""
    found = 0
    begin, rest = size, b""  # rest: the end of a line that begins before `begin`
    while begin > 0:
        end, begin = begin, max(0, begin - BLOCK_BYTES)
        data = os.pread(fd, end - begin, begin) + rest
        first, *lines = data.split(b"\n")
        at = begin + len(data)
        for line in reversed(lines):
            at -= len(line)
            if line and wanted(line):
                found += 1
                if found == count:
                    return found, at
            at -= 1
        rest = first if len(first) <= STORED_LINE_BYTES_MAX else b""
    if rest and wanted(rest):
        found += 1
    return found, 0
