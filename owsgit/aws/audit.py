"""The audit log: who called what, on what, and what became of it. JSON lines, as CloudTrail has records.

Bounded in size and age as all logs are. What reads and writes data stands in a log of its own, as CloudTrail has data
events apart from management events: it is most of what is called, and must not drive the rest out. What was denied
stands with the rest. One caller's calls that changed nothing, refused or only looking, do so up to a bound, and then
with the data. Written soon after the answer, not before: a crash costs the last milliseconds.
"""

import time
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from owsgit.runtime import log_lines
from owsgit.runtime.allowance import Allowance
from owsgit.runtime.log_lines import Entry, Source
from owsgit.runtime.logs import FunctionLog, LogSettings

RETENTION_DAYS = 90
"""As CloudTrail's event history."""

NAMELESS_PER_SECOND, NAMELESS_BURST = 1 / 30, 100
"""Of calls without good credentials, which anybody can make: they must not drive all others out of the log."""

IDLE_PER_SECOND, IDLE_BURST = 1 / 10, 1000
"""Of calls of one caller that changed nothing; more stand with the data events."""

CALLERS_MAX = 1000
"""Of whom it is known how much they called."""

_LOOKING = ("Describe", "Get", "List")
"""What operations are called that change nothing, but for these:"""
_GIVING = ("GetSessionToken", "GetFederationToken")

DATA = "data"
"""The folder of the log of data events, below the other one's."""

MESSAGE_CHARACTERS_MAX = 1024
SUCCESS = 200
RESOURCES_MAX = 100
"""A call of AWS's has no more, and an ARN no more characters than a message."""


class Record(NamedTuple):
    """One call."""

    request_id: str
    who: str  # an ARN; empty if the signature was not good
    access_key: str
    address: str
    service: str
    operation: str
    actions: list[str]
    resources: list[str]
    status: int
    error: str
    message: str
    reason: str  # of a denial
    milliseconds: float
    is_data: bool = False  # whether the operation reads or writes data

    def document(self) -> dict[str, Any]:
        """In the names that it has on the disk."""
        document: dict[str, Any] = {}
        for name, value in zip(_NAMES, self, strict=False):
            if value:
                short = isinstance(value, str) and len(value) <= MESSAGE_CHARACTERS_MAX
                document[name] = value if short else _bounded(value)
        return document

    def text(self) -> str:
        """In one line, which is what is searched for a text."""
        what = f"{self.service or '?'}:{self.operation or '?'}"
        words = (
            self.who or "nobody",
            what,
            str(self.status),
            self.error,
            *_bounded(self.resources),
            _bounded(self.message),
        )
        return " ".join(filter(None, words))


_NAMES = (
    "requestId", "who", "accessKey", "address", "service", "operation", "actions", "resources", "status", "error",
    "message", "reason", "ms",
)  # fmt: skip
"""What is kept of a record, in its order."""


def _bounded(value: Any) -> Any:
    """What clients say goes into the log as far as it tells something."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= MESSAGE_CHARACTERS_MAX else value[:MESSAGE_CHARACTERS_MAX]
    if kind is list:
        return [each[:MESSAGE_CHARACTERS_MAX] for each in value[:RESOURCES_MAX]]
    return value


def _looks(operation: str) -> bool:
    return operation.startswith(_LOOKING) and operation not in _GIVING


def _caller(who: str) -> str:
    """Whose calls count together: a role's, as whoever takes it on names the session, and may do so often."""
    return who.rpartition("/")[0] if ":assumed-role/" in who else who


def source(node: str) -> Source:
    """Whose log it is."""
    return Source("aws", node, "audit")


def is_plain(record: Record) -> bool:
    """Whether it stands among the data events, whatever else was called."""
    return record.is_data and not record.reason and record.access_key != ""


def line(record: Record, whose: Source) -> bytes:
    """The line for the disk, of now."""
    actions, resources = record.actions, record.resources
    is_usual = record.status == SUCCESS and record.milliseconds and len(actions) == len(resources) == 1
    if is_usual and len(resources[0]) <= MESSAGE_CHARACTERS_MAX:
        id_ = log_lines.quoted(record.request_id)
        before, after = _usual(whose.fields, *record[1:6], actions[0], resources[0])
        text = f'{{"time": "{log_lines.timestamp(time.time())}", "requestId": {id_}{before}{id_}{after}'
        return f"{text}{record.milliseconds}}}}}\n".encode("utf-8", "backslashreplace")
    return log_lines.dump(_entry(record, record.document()), log_lines.timestamp(time.time()), record.request_id, whose)


@lru_cache(1024)
def _usual(
    source: str, who: str, access_key: str, address: str, service: str, operation: str, action: str, resource: str
) -> tuple[str, str]:
    """What lines of calls have in common that succeeded: from the request's id on, and from where that is said again
    to the milliseconds."""
    record = Record(
        "", who, access_key, address, service, operation, [action], [resource], SUCCESS, "", "", "", 0.0, is_data=True
    )
    before = f', "level": "INFO", {source}, "message": {log_lines.quoted(record.text())}, "record": {{"requestId":'
    return before, f',{log_lines.object_of(record.document())[1:-1]},"ms":'


def _entry(record: Record, document: dict[str, Any]) -> Entry:
    return Entry(record.text(), "WARN" if record.error else "INFO", document, platform=True)


class Auditing(Protocol):
    """What is told of each call."""

    def write(self, record: Record) -> None: ...


class Audit:
    """Writes the audit log of a node."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder = folder
        self._log = FunctionLog(folder)
        self._data = FunctionLog(folder / DATA)
        self._source = source(node)
        for log in (self._log, self._data):
            log.configure(LogSettings(self._source, retention_days=RETENTION_DAYS))
        self._idle: OrderedDict[str, Allowance] = OrderedDict()
        self._nameless = Allowance(NAMELESS_PER_SECOND, NAMELESS_BURST)
        self._left_out = 0

    def take(self, lines: bytes) -> None:
        """Lines that another process of the node made with `line`."""
        self._data.take(lines)

    def write(self, record: Record) -> None:
        """A full disk costs the record, never the call."""
        if is_plain(record):
            self._data.take(line(record, self._source))
            return
        document = record.document()
        if not record.access_key:
            if not self._nameless.take(1):
                self._left_out += 1
                return
            if self._left_out:
                document["leftOut"] = self._left_out  # calls like this one, before it
                self._left_out = 0
        log = self._data if self._is_among_data(record) else self._log
        log.append(record.request_id, [_entry(record, document)])

    def _is_among_data(self, record: Record) -> bool:
        if not record.access_key or not (record.error or _looks(record.operation)):
            return False
        caller = _caller(record.who)
        allowance = self._idle.pop(caller, None) or Allowance(IDLE_PER_SECOND, IDLE_BURST)
        self._idle[caller] = allowance  # the last one again
        if len(self._idle) > CALLERS_MAX:
            self._idle.popitem(last=False)
        return not allowance.take(1)

    def sweep(self) -> None:
        """Remove what is older than it is kept."""
        self._log.sweep()
        self._data.sweep()

    def close(self) -> None:
        self._log.close()
        self._data.close()
