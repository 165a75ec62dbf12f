"""What a gateway's file says of its access log, and the files that it becomes on a node."""

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from owsgit.gateway import access_log
from owsgit.gateway.access_log import AccessLog, Line
from owsgit.model.spec import Document
from owsgit.runtime import log_lines
from owsgit.runtime.log_lines import Entry, Source
from owsgit.runtime.logs import RETENTION_DAYS, FunctionLog, LogSettings

FORMAT_CHARACTERS_MAX = 4096
FIELDS_MAX = 60
RETENTION_DAYS_MAX = 3653
"""Ten years: CloudWatch's longest retention that ends."""

_VARIABLE_LIKE = re.compile(r"\$[A-Za-z]")


def _known(text: str) -> str:
    access_log.check(text)
    return text


def _says_something(text: str) -> str:
    if not _VARIABLE_LIKE.search(text):
        raise ValueError('a format names variables, such as "$context.requestId $context.status"')
    return text


FormatText = Annotated[str, StringConstraints(max_length=FORMAT_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f]*$")]


class AccessLogSpec(Document):
    """A line for each request, on the node that answered it; `owsgit logs --gateway NAME` shows them."""

    format: (
        Annotated[FormatText, AfterValidator(_known), AfterValidator(_says_something)]
        | dict[Annotated[str, StringConstraints(max_length=64)], Annotated[FormatText, AfterValidator(_known)]]
    ) = Field(
        default_factory=lambda: dict(access_log.DEFAULT_FORMAT),
        max_length=FORMAT_CHARACTERS_MAX,
        description="A text with $context variables, or an object of such texts; by default a useful object.",
    )
    retention_days: int = Field(
        RETENTION_DAYS, ge=1, le=RETENTION_DAYS_MAX, description="Days after which lines are removed."
    )
    sample_rate: float = Field(
        1.0, ge=0, le=1, description="The share of requests that is logged; answers of 5xx always are."
    )


class GatewayLog:
    """The access log of one gateway, over all its deployments."""

    def __init__(self, folder: Path, gateway: str, node: str) -> None:
        self._source = Source(gateway, node, "gateway")
        self._log = FunctionLog(folder)
        self._one = threading.Lock()  # lines are written in threads
        self.watcher = AccessLog(self._write)

    def configure(self, spec: AccessLogSpec) -> None:
        with self._one:
            self._log.configure(LogSettings(self._source, None, spec.retention_days))
        self.watcher.configure(spec.format, spec.sample_rate)

    def _write(self, lines: Sequence[Line], dropped: int) -> None:
        dated = [(_moment(line.moment), line.request_id, _entry(line)) for line in lines]
        if dropped and dated:
            note = f"[owsgit] {dropped:,} lines are dropped: more requests came than could be written"
            dated.insert(0, (dated[0][0], "", Entry(note, "WARN", platform=True)))
        with self._one:
            self._log.extend(dated)

    def sweep(self) -> None:
        with self._one:
            self._log.sweep()

    async def close(self) -> None:
        await self.watcher.close()
        self._log.close()


def _entry(line: Line) -> Entry:
    level = "ERROR" if line.status >= 500 else "WARN" if line.status >= 400 else "INFO"
    record = line.record if line.record is not None else log_lines.classify(line.text).record
    return Entry(line.text, level, record)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
