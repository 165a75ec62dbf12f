"""Finds the Node.js programs of this machine: by their names on PATH, and what they say of their version."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from owsgit.model.errors import UnavailableError

MAJOR_MIN = 18
"""The oldest release that the worker's program runs on."""

ASK_SECONDS_MAX = 30
_NAME = re.compile(r"node(js)?-?([0-9]{2})?")
_VERSION = re.compile(r"v([0-9]{1,3})\.")


def find(runtime: str) -> Path:
    """The program for `runtime` ('nodejs', or 'nodejs20.x'). Raises UnavailableError that names what is there."""
    wanted = re.search(r"[0-9]+", runtime)
    majors = []
    for program in _programs():
        major = major_of(program)
        if major >= MAJOR_MIN and (wanted is None or major == int(wanted[0])):
            return program
        majors.append(major)
    has = ", ".join(f"nodejs{major}.x" for major in sorted(set(majors)) if major) or "none"
    raise UnavailableError(
        f"this node has no {runtime} (Node.js on its PATH: {has})",
        path="$.runtime",
        remedy=f"install Node.js {wanted[0] if wanted else f'{MAJOR_MIN} or newer'} on the node"
        + (", or write 'nodejs' for the node's own version" if wanted else ""),
    )


def _programs() -> Iterator[Path]:
    """Every program that may be Node.js, in the order of PATH, without the links that lead to it."""
    for folder in dict.fromkeys(os.get_exec_path()):
        try:
            names = sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))  # noqa: PTH208 - names only
        except OSError:
            continue
        for name in names:
            program = Path(folder, name).resolve()
            if program.is_file() and os.access(program, os.X_OK):
                yield program


@lru_cache(maxsize=32)
def major_of(program: Path) -> int:
    """Its major version; 0 if it is not Node.js."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=ASK_SECONDS_MAX
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.match(answer.stdout)
    return int(found[1]) if found else 0
