"""What a node sends for `owsgit logs`: lines of a function's log as they stand on the disk, lines of its own between.

A line of a log begins with `{"time"` (owsgit/runtime/log_lines.py), one of the node's with `{"owsgit"`:
`{"owsgit": {"node": NAME, "members": [{"name", "address", "port"}, ...], "hint": TEXT}}` first, and when one of these
changes; the hint says why nothing is written to this log;
`{"owsgit": {"cursor": CURSOR, "live": BOOL}}` after every batch: what came before is whole, and whether it is all.
A client that loses its connection asks for what comes after the last cursor.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from owsgit.model.errors import InvalidError
from owsgit.runtime import log_lines
from owsgit.runtime.log_reader import Cursor, Query, Reader

LOG_LINES_MAX = 100_000
FILTER_CHARACTERS_MAX = 1024
REQUEST_CHARACTERS_MAX = 200
FOLLOW_SECONDS = 0.2
SCANS_MAX = 2
"""Logs that are looked through at once; each reads at most what is kept of one, in a thread."""

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")


@dataclass(frozen=True)
class Wanted:
    """What a client asks for."""

    count: int
    follow: bool
    query: Query
    after: Cursor | None

    @classmethod
    def parse(cls, words: list[str]) -> "Wanted":
        """Words: the number of lines, then 'follow', since=TIME, filter=TEXT, level=LEVEL, request=ID, after=CURSOR as
        wanted. Raises InvalidError.
        """
        count = words[0] if words else "100"
        if not (count.isascii() and count.isdigit()) or len(count) > 9 or int(count) > LOG_LINES_MAX:
            raise InvalidError(f"{count!r} is not a number of lines up to {LOG_LINES_MAX:,}")
        options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        since, text = options.get("since", ""), options.get("filter", "")
        level, request = options.get("level", ""), options.get("request", "")
        if since and not _TIME.fullmatch(since):
            raise InvalidError(f"{since!r} is not a time", remedy="write it as 2026-01-31T10:00:00.000Z")
        if level and level not in log_lines.LEVELS:
            raise InvalidError(f"{level!r} is not a level", remedy=f"use one of {', '.join(log_lines.LEVELS)}")
        if len(text) > FILTER_CHARACTERS_MAX or len(request) > REQUEST_CHARACTERS_MAX:
            raise InvalidError(f"a text to look for has at most {FILTER_CHARACTERS_MAX:,} characters")
        try:
            after = Cursor.parse(options["after"]) if "after" in options else None
        except ValueError:
            raise InvalidError("after= does not name a place in a log") from None
        return cls(int(count), "follow" in words[1:], Query(since, text, level, request), after)


def reader(folder: Path, wanted: Wanted) -> Reader:
    """A reader that stands where the client wants to begin."""
    made = Reader(folder, wanted.query)
    return made.to(wanted.after) if wanted.after is not None else made.to_last(wanted.count)


class LogStreams:
    """Sends logs to clients. `members` gives the node's name and all nodes, for the first line."""

    def __init__(self, members: Callable[[], dict[str, Any]]) -> None:
        self._members = members
        self._scans = asyncio.Semaphore(SCANS_MAX)

    async def send(
        self,
        folder: Path,
        wanted: Wanted,
        process: asyncssh.SSHServerProcess[bytes],
        check: Callable[[], None],
        hint: Callable[[], str],
    ) -> None:
        """Send what is wanted; `check` raises once the client may not read it any more. `hint`: see above."""
        told = self._tell(process, {}, hint())
        async with self._scans:
            found = await asyncio.to_thread(reader, folder, wanted)
        try:
            more = True
            while (more or wanted.follow) and not process.is_closing():
                check()
                if wanted.follow:
                    told = self._tell(process, told, hint())
                more = await self._batch(found, process, wanted.follow and not more)
                if not more and wanted.follow:
                    await asyncio.sleep(FOLLOW_SECONDS)
        finally:
            found.close()

    def _tell(self, process: asyncssh.SSHServerProcess[bytes], told: dict[str, Any], hint: str) -> dict[str, Any]:
        members = {**self._members(), "hint": hint}
        if members != told:
            process.stdout.write(_own(members))
        return members

    async def _batch(self, found: Reader, process: asyncssh.SSHServerProcess[bytes], waiting: bool) -> bool:
        """Send the next block; whether there is more. While `waiting` for more, nothing is said if there is nothing."""
        before = found.cursor
        lines, more = await asyncio.to_thread(found.read)
        if waiting and found.cursor == before:
            return more
        if lines:
            process.stdout.write(b"\n".join(lines) + b"\n")
        process.stdout.write(_own({"cursor": str(found.cursor), "live": not more}))
        await process.stdout.drain()
        return more


def _own(document: dict[str, Any]) -> bytes:
    return json.dumps({"owsgit": document}).encode() + b"\n"
