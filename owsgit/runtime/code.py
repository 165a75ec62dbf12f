"""Code folders: the files of a function, laid out read-only by the id of the tree that they came from.

Since the id names the content, a deployment is a rename and a rollback finds its folder still there.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from owsgit.model.service import CodeFile

SPARE_MAX = 200
"""Folders kept for rollbacks although nothing uses them now."""

SYNC_EACH_MAX = 64
"""Up to so many files are synced one by one; more are cheaper to sync with the whole file system."""


@dataclass(frozen=True)
class CodeStore:
    """The folder that holds the code folders."""

    folder: Path

    def lay_out(self, tree: str, files: Iterable[CodeFile]) -> Path:
        """The folder with the files of `tree`; made if it is not there or was tampered with. Atomic and durable."""
        target = self.folder / tree
        if self.drift(tree) is None:
            os.utime(self._manifest(tree))
            return target
        self.remove(tree)
        scratch = self.folder / f".{tree}.{os.getpid()}.new"
        _remove(scratch)
        scratch.mkdir(parents=True)
        paths = [_write(scratch, file) for file in files]
        for path in paths if len(paths) <= SYNC_EACH_MAX else ():
            _sync(path)
        if len(paths) > SYNC_EACH_MAX:
            os.sync()
        _protect(scratch)
        manifest = json.dumps(_describe(scratch))
        scratch.rename(target)
        _sync(self.folder)
        temporary = self.folder / f".{tree}.{os.getpid()}.manifest.new"
        temporary.write_text(manifest)
        _sync(temporary)
        temporary.replace(self._manifest(tree))
        return target

    def drift(self, tree: str) -> str | None:
        """What differs from what was laid out, in words; None if nothing does."""
        target = self.folder / tree
        try:
            expected = json.loads(self._manifest(tree).read_text())
        except (FileNotFoundError, ValueError):
            return "the code folder is missing"
        found = _describe(target)
        if found == expected:
            return None
        differing = sorted(path for path in {*found, *expected} if found.get(path) != expected.get(path))
        return f"the code folder was changed on this node: {', '.join(differing[:3])}"

    def remove(self, tree: str) -> None:
        self._manifest(tree).unlink(missing_ok=True)
        _remove(self.folder / tree)

    def sweep(self, used: set[str]) -> None:
        """Remove what a killed node left half made, and the oldest unused folders beyond SPARE_MAX."""
        if not self.folder.exists():
            return
        for path in self.folder.glob(".*.new"):
            if f".{os.getpid()}." not in path.name:  # what this process is making is not left over
                _remove(path)
        spare = [path for path in self.folder.glob("*.manifest") if path.stem not in used]
        spare.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in spare[SPARE_MAX:]:
            self.remove(path.stem)

    def _manifest(self, tree: str) -> Path:
        return self.folder / f"{tree}.manifest"


def _write(root: Path, file: CodeFile) -> Path:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    path.chmod(0o555 if file.executable else 0o444)
    return path


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _describe(root: Path) -> dict[str, list[int]]:
    """Size, modification time, mode and inode of every file: what an edit by hand cannot leave all alone."""
    found: dict[str, list[int]] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            found[str(path.relative_to(root))] = [status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino]
    return found


def _protect(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        Path(folder).chmod(0o555)


def _remove(root: Path) -> None:
    if root.is_dir() and not root.is_symlink():
        for folder, _, _ in os.walk(root):
            Path(folder).chmod(stat.S_IRWXU)
        shutil.rmtree(root)
    else:
        root.unlink(missing_ok=True)
