"""What of this installation is compiled (hatch_build.py), and whether it is what its sources say."""

import hashlib
import json
import sysconfig
from pathlib import Path

from owsgit.model.errors import UnavailableError

PACKAGE = Path(__file__).parents[1]
RECORD = PACKAGE / "compiled.json"
"""Written by whoever compiles, when all is done: {"modules": {path in the package: SHA-256 of the source}, ...}."""

SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")
"""How the name of a compiled module ends, for this Python and this kind of machine alone."""


def digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()


def binary(source: Path) -> Path:
    """What is imported in the place of a module that is compiled."""
    return source.with_suffix(SUFFIX)


def recorded() -> dict[str, object]:
    """The record; empty if nothing was compiled, or not to its end."""
    try:
        record = json.loads(RECORD.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def modules() -> list[Path]:
    """The sources in whose place this Python imports what was compiled."""
    return [source for source in PACKAGE.rglob("*.py") if binary(source).exists()]


def check() -> int:
    """The number of compiled modules. Raises UnavailableError if one was compiled from another source than lies beside
    it: that one would run, and not what the source says."""
    known = recorded().get("modules")
    digests = known if isinstance(known, dict) else {}
    found = modules()
    for source in found:
        path = source.relative_to(PACKAGE).as_posix()
        if digests.get(path) != digest(source):
            raise UnavailableError(
                f"{path} is not what was compiled",
                file=str(source),
                remedy="make setup compiles it again, make pure has all interpreted",
            )
    return len(found)
