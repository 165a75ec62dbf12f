"""Other programs that serve functions on one's own machine, installed on demand for bench.gateway."""

from pathlib import Path


def serverless_offline(folder: Path, port: int) -> list[str] | None:
    return None


def chalice_local(folder: Path, port: int) -> list[str] | None:
    return None
