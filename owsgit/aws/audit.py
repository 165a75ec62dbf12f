"""The audit log: who called what, on what, and what became of it. JSON lines, as CloudTrail has records.

Bounded in size and age as all logs are. Written soon after the answer, not before: a crash costs the last milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owsgit.runtime.log_lines import Entry, Source
from owsgit.runtime.logs import FunctionLog, LogSettings

RETENTION_DAYS = 90
"""As CloudTrail's event history."""


@dataclass(frozen=True)
class Record:
    """One call."""

    request_id: str
    who: str  # an ARN; empty if the signature was not good
    access_key: str
    address: str
    service: str
    operation: str
    actions: Sequence[str]
    resources: Sequence[str]
    status: int
    error: str
    message: str
    reason: str  # of a denial
    milliseconds: float

    def document(self) -> dict[str, Any]:
        """In the names that it has on the disk."""
        named = {
            "requestId": self.request_id,
            "who": self.who,
            "accessKey": self.access_key,
            "address": self.address,
            "service": self.service,
            "operation": self.operation,
            "actions": self.actions,
            "resources": self.resources,
            "status": self.status,
            "error": self.error,
            "message": self.message,
            "reason": self.reason,
            "ms": self.milliseconds,
        }
        return {name: value for name, value in named.items() if value}

    def text(self) -> str:
        """In one line, which is what is searched for a text."""
        what = f"{self.service or '?'}:{self.operation or '?'}"
        words = (self.who or "nobody", what, str(self.status), self.error, *self.resources, self.message)
        return " ".join(filter(None, words))


class Audit:
    """Writes the audit log of a node."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder = folder
        self._log = FunctionLog(folder)
        self._log.configure(LogSettings(Source("aws", node, "audit"), retention_days=RETENTION_DAYS))

    def write(self, record: Record) -> None:
        level = "WARN" if record.error else "INFO"
        self._log.append(record.request_id, [Entry(record.text(), level, record.document(), platform=True)])

    def sweep(self) -> None:
        """Remove what is older than it is kept."""
        self._log.sweep()

    def close(self) -> None:
        self._log.close()
