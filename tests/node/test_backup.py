"""What comes as a backup is somebody else's until it is looked at."""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from owsgit.model.errors import InvalidError
from owsgit.node import backup

Members = list[tuple[str, bytes, bytes]]


def written(path: Path, members: Members) -> Path:
    """An archive of names, types and contents (of links: where they lead)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, content in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            entry.linkname = content.decode() if kind == tarfile.SYMTYPE else ""
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(content))
    return path


def of(name: str, content: bytes = b"{}", kind: bytes = tarfile.REGTYPE) -> tuple[str, bytes, bytes]:
    return name, kind, content


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([of("../node.json")], "'../node.json' does not belong in a backup"),
        ([of("/etc/cron.d/x")], "'/etc/cron.d/x' does not belong"),
        ([of("tables/../../x.table")], "does not belong"),
        ([of("node.json", b"/etc/passwd", tarfile.SYMTYPE)], "'node.json' does not belong"),
        ([of("node.json"), of("node.json")], "node.json is in it twice"),
        ([of("node.json")], "this is not a backup of a node"),  # without a manifest
    ],
)
def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path: Path, members: Members, problem: str) -> None:
    file, scratch = written(tmp_path / "a.backup", members), tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(InvalidError, match=re.escape(problem)):
        backup._unpack(file, scratch)
    assert {path.name for path in tmp_path.iterdir()} == {"a.backup", "scratch"}
    assert {path.name for path in scratch.iterdir()} <= {"node.json"}


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: b"no archive", lambda data: b""])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = written(tmp_path / "a.backup", [of("node.json", b"x" * 5000)])
    file.write_bytes(damage(file.read_bytes()))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(InvalidError, match="this is not a backup of a node"):
        backup._unpack(file, tmp_path / "scratch")
