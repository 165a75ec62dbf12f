"""What Lambda's REPORT line tells of a request."""

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"REPORT RequestId: (\S+)\tDuration: ([0-9.]+) ms\tBilled Duration: [0-9]+ ms\tMemory Size: [0-9]+ MB"
    r"\tMax Memory Used: ([0-9]+) MB(?:\tInit Duration: ([0-9.]+) ms)?(?:\tFuel Used: [0-9]+)?"
)


@dataclass(frozen=True)
class Report:
    """Times in milliseconds, memory in MB; `init_ms` of a worker's first request. None, or 0, is not known."""

    request_id: str = ""
    duration_ms: float | None = None
    init_ms: float | None = None
    memory_mb: int = 0


def parse(message: str) -> Report | None:
    """The report in a line of a log, if it is one."""
    found = _LINE.fullmatch(message)
    if found is None:
        return None
    return Report(found[1], float(found[2]), float(found[4]) if found[4] else None, int(found[3]))
