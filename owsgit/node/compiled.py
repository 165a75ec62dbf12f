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


def _modules(digests: dict[str, str]) -> list[Path]:
    """The sources in whose place this Python imports what was compiled. Without a record, they are searched for."""
    sources = [PACKAGE / path for path in digests] if digests else PACKAGE.rglob("*.py")
    return [source for source in sources if binary(source).exists()]


def check() -> int:
    """The number of compiled modules. Raises UnavailableError if one was compiled from another source than lies beside
    it: that one would run, and not what the source says."""
    known = recorded().get("modules")
    digests: dict[str, str] = known if isinstance(known, dict) else {}
    found = _modules(digests)
    for source in found:
        path = source.relative_to(PACKAGE).as_posix()
        if not source.exists() or digests.get(path) != digest(source):
            raise UnavailableError(
                "this is not the source that was compiled, and what was compiled would run",
                file=str(source),
                remedy="make setup compiles it again; make pure takes away what is compiled",
            )
    return len(found)
