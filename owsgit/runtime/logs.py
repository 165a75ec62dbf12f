"""The log of a function: JSON lines on disk, limited in size.

Each line is {"time", "requestId", "message"}; times are UTC with milliseconds (RFC 3339).
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

LOG_FILE_BYTES_MAX = 8 * 1024 * 1024
LOG_FILES_MAX = 4
"""32 MiB of log a function: days of a quiet one, the last minutes of a noisy one."""

LINE_BYTES_MAX = 256 * 1024
"""CloudWatch's limit for one event."""

CURRENT = "current.jsonl"


class FunctionLog:
    """Appends lines; rotates `current.jsonl` to `1.jsonl`, `2.jsonl`, ... as it grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fd = -1
        self._size = 0

    def write(self, request_id: str, lines: list[str]) -> None:
        """Append lines of one request. A full disk costs the lines, never the request."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = "".join(
            json.dumps({"time": now, "requestId": request_id, "message": line}, ensure_ascii=False) + "\n"
            for line in lines
        ).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            if self._fd < 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(self.folder / CURRENT, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._size = os.fstat(self._fd).st_size
            os.write(self._fd, data)
            self._size += len(data)
            if self._size > LOG_FILE_BYTES_MAX:
                self._rotate()

    def _rotate(self) -> None:
        self.close()
        for number in range(LOG_FILES_MAX - 1, 0, -1):
            source = self.folder / (f"{number - 1}.jsonl" if number > 1 else CURRENT)
            if source.exists():
                source.replace(self.folder / f"{number}.jsonl")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def last_lines(folder: Path, count: int) -> list[bytes]:
    """The last `count` lines of the log, oldest first; at most what one file holds is read."""
    lines: list[bytes] = []
    for name in (CURRENT, "1.jsonl"):
        if len(lines) < count and (folder / name).exists():
            lines = (folder / name).read_bytes().splitlines()[-(count - len(lines)) :] + lines
    return lines[-count:] if count else []


def follow(folder: Path) -> Iterator[list[bytes]]:
    """Batches of lines as they are written, from now on; an empty batch when there is nothing new. Never ends."""
    path = folder / CURRENT
    position = path.stat().st_size if path.exists() else 0
    inode = path.stat().st_ino if path.exists() else 0
    rest = b""
    while True:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != inode or status.st_size < position:
                    inode, position, rest = status.st_ino, 0, b""
                file.seek(position)
                data = file.read(1 << 20)
        except FileNotFoundError:
            data = b""
        position += len(data)
        *lines, rest = (rest + data).split(b"\n")
        yield lines


def timestamp() -> str:
    """Now, as Lambda's own log lines write it."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def message(line: bytes) -> str:
    """The message of a line of the log. Raises ValueError for a damaged line."""
    return str(json.loads(line)["message"])
