"""What runs below a process."""

import contextlib
import os
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """All that a process started, as far as it is still there; parents before their children."""
    found = []
    with contextlib.suppress(OSError):  # ended meanwhile
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def freeze(pid: int) -> None:
    """Stop a process and all that it started: killed after that, they end one after the other, but none does anything
    meanwhile."""
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGSTOP)
