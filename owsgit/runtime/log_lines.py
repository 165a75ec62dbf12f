"""A line of a function's log: its level, the object that it is if it is one, and how it stands on the disk.

On the disk it is one JSON object: {"time", "requestId", "level", "function", "node", "message"} ("gateway" in place of
"function" for an access log) and, if what was written is itself a JSON object, that as "record". The first fields are
the node's alone, whatever a function writes: readers find them by their place (see `HEAD`), without parsing what comes
after. Times are UTC with milliseconds (RFC 3339).

Levels are Lambda's (https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html). START, END
and REPORT have the level PLATFORM; what the node says of a function's fault is ERROR, of lines that it dropped WARN.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import orjson

from owsgit.model import strictjson
from owsgit.model.errors import InvalidError

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
PLATFORM: Final = "PLATFORM"
DEFAULT_LEVEL = "INFO"
"""What Lambda takes a line for that has no level."""

RECORD_BYTES_MAX = 32 * 1024
"""Objects of more are kept as text alone: a record stands on the disk twice."""

_WORDS = {**{level: level for level in LEVELS}, "WARNING": "WARN", "CRITICAL": "FATAL", "ERR": "ERROR"}
_NUMBERS = dict(zip((10, 20, 30, 40, 50, 60), LEVELS, strict=True))  # pino's and bunyan's

_PYTHON = re.compile(r"\[([A-Z]{3,8})\][\t ]")
_NODE = re.compile(r"[0-9:.TZ-]{20,30}\t[^\t\n]{0,100}\t([A-Z]{3,8})\t")

HEAD = re.compile(rb'\{"time": "([0-9TZ:.-]{24})", "requestId": "((?:[^"\\]|\\.)*)"(?:, "level": "([A-Z]+)")?')
"""How every line on the disk begins: time, request id and level (which lines of older nodes lack)."""


_encode = json.JSONEncoder(ensure_ascii=False).encode
quoted: Callable[[str], str] = json.encoder.encode_basestring
"""A text as JSON, as all of them stand in the lines."""


Dated = tuple[float, str]
"""A line of the node's own, and when it was written: seconds since 1970."""


@dataclass(frozen=True)
class Entry:
    """What was written. `platform`: by the node, not by the function's code, so that it is never dropped."""

    message: str
    level: str = DEFAULT_LEVEL
    record: dict[str, Any] | None = None
    platform: bool = False


@dataclass(frozen=True)
class Source:
    """Whose log it is."""

    name: str = ""
    node: str = ""
    kind: str = "function"

    @cached_property
    def fields(self) -> str:
        """As they stand in a line."""
        return f'"{self.kind}": {_encode(self.name)}, "node": {_encode(self.node)}'


def rank(level: str) -> int:
    """How grave a level is; -1 for PLATFORM."""
    return LEVELS.index(level) if level in LEVELS else -1


def classify(text: str) -> Entry:
    """A line that a function wrote, with the level that Lambda's runtimes, or loggers of JSON, put in it."""
    record = _record(text)
    if record is not None:
        return Entry(text, _level(record.get("level")), record)
    found = _PYTHON.match(text) or _NODE.match(text)
    return Entry(text, _level(found[1]) if found else DEFAULT_LEVEL)


def _level(given: object) -> str:
    if isinstance(given, str):
        return _WORDS.get(given[:16].upper(), DEFAULT_LEVEL)
    return _NUMBERS.get(given, DEFAULT_LEVEL) if isinstance(given, int) else DEFAULT_LEVEL


def _record(text: str) -> dict[str, Any] | None:
    if not text.startswith("{") or not text.endswith("}") or len(text) > RECORD_BYTES_MAX:
        return None
    try:
        found = strictjson.loads(text.encode(), "")
    except (InvalidError, UnicodeEncodeError):
        return None
    return found if isinstance(found, dict) else None


def dump(entry: Entry, now: str, request_id: str, source: Source) -> bytes:
    """The line for the disk, with its line end."""
    text = (
        f'{{"time": "{now}", "requestId": {quoted(request_id)}, "level": "{entry.level}", {source.fields}, '
        f'"message": {quoted(entry.message)}'
    )
    if entry.record is not None:
        text += f', "record": {object_of(entry.record)}'
    return f"{text}}}\n".encode("utf-8", "backslashreplace")


def object_of(record: dict[str, Any]) -> str:
    """A JSON object as it stands in a line."""
    try:
        return orjson.dumps(record).decode()
    except orjson.JSONEncodeError:  # halves of surrogate pairs, or integers that only JSON has no bound for
        return _encode(record)


class Run:
    """A request that a worker has run, as START, END and REPORT tell of it."""

    __slots__ = ("began", "ended", "memory_bytes", "memory_size", "milliseconds", "request_id", "version")

    def __init__(
        self,
        request_id: str,
        version: str,
        began: float,
        ended: float,
        milliseconds: float,
        memory_size: int,
        memory_bytes: int,
    ) -> None:
        """`began` and `ended` in seconds since 1970; `memory_size`: MB that it may use; `memory_bytes` that it used, at
        the most."""
        self.request_id, self.version = request_id, version
        self.began, self.ended, self.milliseconds = began, ended, milliseconds
        self.memory_size, self.memory_bytes = memory_size, memory_bytes


START: Final = "START RequestId: %s Version: %s"
END: Final = "END RequestId: %s"
REPORT: Final = (
    "REPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB"
)


def start(run: Run) -> Dated:
    return run.began, START % (run.request_id, run.version)


def end(run: Run, more: str = "") -> list[Dated]:
    """END and REPORT, which says `more` at its end."""
    took = run.milliseconds
    report = REPORT % (run.request_id, took, int(took) + 1, run.memory_size, run.memory_bytes >> 20)
    return [(run.ended, END % run.request_id), (run.ended, report + more)]


def dump_run(run: Run, fields: str) -> bytes:
    """All three lines for the disk, as `dump_platform` has them; `fields` are the source's."""
    began, ended, took = timestamp(run.began), timestamp(run.ended), run.milliseconds
    id_ = quoted(run.request_id)[1:-1]
    text = _of_run(fields, run.version) % (
        began, id_, id_, ended, id_, id_, ended, id_, id_, took, int(took) + 1, run.memory_size,
        run.memory_bytes >> 20,
    )  # fmt: skip
    return text.encode("utf-8", "backslashreplace")


@lru_cache(1024)
def _of_run(fields: str, version: str) -> str:
    """The lines with room for what differs from one request to the other: there are three for each, and they cost less
    as one text."""
    before = f'{{"time": "%s", "requestId": "%s", "level": "{PLATFORM}", {fields.replace("%", "%%")}, "message": '
    start = START % ("%s", version.replace("%", "%%"))
    return "".join([f"{before}{quoted(message)}}}\n" for message in (start, END, REPORT)])


def dump_platform(lines: Iterable[Dated], request_id: str, source: Source) -> bytes:
    """The lines of level PLATFORM for the disk, with their line ends: as `dump` has them."""
    head = f'", "requestId": {quoted(request_id)}, "level": "{PLATFORM}", {source.fields}, "message": '
    text = "".join([f'{{"time": "{timestamp(at)}{head}{quoted(message)}}}\n' for at, message in lines])
    return text.encode("utf-8", "backslashreplace")


_last = (0, "")


def timestamp(at: float) -> str:
    """A time (seconds since 1970), as Lambda's own log lines write it."""
    global _last  # noqa: PLW0603 - many lines are of one millisecond
    milliseconds = int(at * 1000)
    last, text = _last
    if last != milliseconds:
        if last // 1000 == milliseconds // 1000:
            text = f"{text[:20]}{milliseconds % 1000:03d}Z"
        else:
            text = time.strftime(f"%Y-%m-%dT%H:%M:%S.{milliseconds % 1000:03d}Z", time.gmtime(milliseconds // 1000))
        _last = milliseconds, text
    return text


def message(line: bytes) -> str:
    """The message of a line of the log. Raises ValueError for a damaged line."""
    return str(json.loads(line)["message"])
