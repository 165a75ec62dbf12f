"""Where the events come from that a function is run with locally: a file, the command line, what is typed."""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from owsgit.model.errors import InvalidError

EVENT_BYTES_MAX = 6 * 1024 * 1024
"""Lambda's limit for a synchronous invocation."""

DEFAULT_FILE = "event.json"
DEFAULT_FOLDER = "events"
STDIN = 0


@dataclass(frozen=True)
class Event:
    """An event as JSON text, and what to call it."""

    name: str
    payload: bytes


class Events:
    """The events that are wanted: `given` as it is, else of `file`, else of the files beside the code, else
    `otherwise`."""

    def __init__(self, given: Event | None = None, file: Path | None = None, otherwise: Event | None = None) -> None:
        self._otherwise = otherwise
        self._given = _checked(given) if given is not None else None
        self._file = file
        self._typed: asyncio.Queue[Event] = asyncio.Queue()

    @property
    def folders(self) -> list[Path]:
        """Where files of events lie that may be outside of the clone."""
        return [self._file.absolute().parent] if self._file is not None else []

    def read(self, folder: Path) -> tuple[Event, ...]:
        """The events as they are now; `folder` is the function's. Raises InvalidError."""
        if self._given is not None:
            return (self._given,)
        if self._file is not None:
            return (_read(self._file),)
        if (folder / DEFAULT_FILE).is_file():
            return (_read(folder / DEFAULT_FILE),)
        found = tuple(_read(file) for file in sorted((folder / DEFAULT_FOLDER).glob("*.json")))
        return found or ((self._otherwise,) if self._otherwise is not None else ())

    async def typed(self) -> Event:
        """The next line of standard input that is an event."""
        return await self._typed.get()

    def follow_input(self, complain: Callable[[InvalidError], None]) -> None:
        """Take each line of standard input as an event."""
        loop = asyncio.get_running_loop()

        def take(line: bytes) -> None:
            try:
                self._typed.put_nowait(_checked(Event("standard input", line)))
            except InvalidError as error:
                complain(error)

        def read() -> None:
            rest = b""
            while data := _some_input():
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > EVENT_BYTES_MAX:
                    return
                for line in filter(bytes.strip, lines):
                    loop.call_soon_threadsafe(take, line)

        # A thread that nobody waits for: a terminal cannot be read in another way that leaves it as it is.
        threading.Thread(target=read, daemon=True).start()


def _some_input() -> bytes:
    try:
        return os.read(STDIN, 65536)
    except OSError:
        return b""


def _read(file: Path) -> Event:
    try:
        return _checked(Event(file.name, file.read_bytes()))
    except OSError as error:
        raise InvalidError(f"the event cannot be read: {error.strerror}", file=str(file)) from None


def _checked(event: Event) -> Event:
    if len(event.payload) > EVENT_BYTES_MAX:
        raise InvalidError(f"an event has at most {EVENT_BYTES_MAX} bytes", file=event.name)
    try:
        json.loads(event.payload)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"the event is not JSON: {error}", file=event.name) from None
    return event
