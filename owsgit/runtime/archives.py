"""Zip files from hostile hands: deployment packages and layers, unpacked within bounds.

https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from owsgit.model.errors import InvalidError

UNPACKED_BYTES_MAX = 250 * 1024 * 1024
"""Lambda's limit for a function's code with its layers, unzipped."""

ENTRIES_MAX = 50_000
"""More than the largest packages of npm have, and few enough to be walked in a second."""

DIRECTORY_BYTES_MAX = 8 * 1024 * 1024
"""Of the zip's own table, which is read as a whole: 160 bytes for each of ENTRIES_MAX."""

LINK_BYTES_MAX = 1024
_PIECE_BYTES = 1 << 20
_NAME = re.compile(r"[^\0-\x1f\\/:\x7f]{1,255}")
_DEPTH_MAX = 64
_END = b"PK\5\6"
_END_BYTES = 22
_ZIP64_LOCATOR = b"PK\6\7"
_ZIP64_LOCATOR_BYTES = 20


@dataclass
class Room:
    """What may still be unpacked into one folder."""

    bytes: int = UNPACKED_BYTES_MAX
    entries: int = ENTRIES_MAX

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise InvalidError(f"more than {UNPACKED_BYTES_MAX // 1024**2} MiB when unpacked, Lambda's limit")


def unpack(archive: Path, target: Path, room: Room) -> None:
    """Unpack `archive` below `target`. Raises InvalidError for what is damaged, too large, or leads elsewhere."""
    try:
        with archive.open("rb") as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as opened:
                _unpack(opened, target, room)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise InvalidError(f"the zip cannot be unpacked: {error}", remedy="make it anew: zip -r") from None


def _check_directory(file: BinaryIO) -> None:
    """Whether the zip's table is small enough to be read. Looked for as zipfile does it."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(size - _END_BYTES - 65536 - _ZIP64_LOCATOR_BYTES, 0))
    tail = file.read()
    plain = len(tail) - _END_BYTES
    at = plain if tail[plain : plain + 4] == _END and tail.endswith(b"\0\0") else tail.rfind(_END)
    if start + at < 0 or at < 0 or len(tail) - at < _END_BYTES:
        raise InvalidError("it is not a zip file")
    before = tail[max(at - _ZIP64_LOCATOR_BYTES, 0) : at]
    if before.startswith(_ZIP64_LOCATOR) or int.from_bytes(tail[at + 12 : at + 16], "little") > DIRECTORY_BYTES_MAX:
        raise InvalidError(f"the zip has more than the {ENTRIES_MAX:,} files that are taken")


def _unpack(opened: zipfile.ZipFile, target: Path, room: Room) -> None:
    links: list[tuple[Path, str]] = []
    for info, parts in _entries(opened, room):
        path = target.joinpath(*parts)
        mode = info.external_attr >> 16
        if info.is_dir():
            path.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISLNK(mode):
            with opened.open(info) as source:
                links.append((path, source.read(LINK_BYTES_MAX).decode()))
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(opened, info, path, room)
            path.chmod(0o555 if mode & 0o111 else 0o444)
        else:
            raise InvalidError(f"{info.filename!a} is neither a file nor a folder")
    for path, _ in links:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path, to in links:  # last, so that nothing is made through a link; where they lead is checked by CodeStore
        try:
            path.symlink_to(to)
        except FileExistsError:
            raise _twice(str(path.relative_to(target))) from None


def _entries(opened: zipfile.ZipFile, room: Room) -> Iterator[tuple[zipfile.ZipInfo, list[str]]]:
    for info in opened.infolist():
        room.entries -= 1
        if room.entries < 0:
            raise InvalidError(f"the zip has more than the {ENTRIES_MAX:,} files that are taken")
        parts = [part for part in info.filename.rstrip("/").split("/") if part != "."]
        bad = len(parts) > _DEPTH_MAX or any(part == ".." or not _NAME.fullmatch(part) for part in parts)
        if bad:
            raise InvalidError(f"the zip has a file with the path {info.filename[:200]!a}, which is not taken")
        if info.flag_bits & 1:
            raise InvalidError("the zip is encrypted")
        if parts:
            yield info, parts


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, room: Room) -> None:
    """What the zip says of sizes is not believed."""
    try:
        with opened.open(info) as source, path.open("xb") as file:
            while piece := source.read(_PIECE_BYTES):
                room.take(len(piece))
                file.write(piece)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise _twice(info.filename) from None


def _twice(name: str) -> InvalidError:
    return InvalidError(f"{name!a} would be laid out twice")
