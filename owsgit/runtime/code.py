"""Code folders: the files of a function, laid out read-only by the id of the tree that they came from.

Since the id names the content, a deployment is a rename and a rollback finds its folder still there. Layers and built
packages lie in stores of their own, each by a key that names what it was made from.
"""

import itertools
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from owsgit.model.errors import InvalidError
from owsgit.model.service import CodeFile

SPARE_MAX = 200
"""Folders kept for rollbacks although nothing uses them now."""

SYNC_EACH_MAX = 64
"""Up to so many files are synced one by one; more are cheaper to sync with the whole file system."""


_numbers = itertools.count(1)
_finishing = threading.Lock()  # two functions may have the same code, and be laid out at once


@dataclass(frozen=True)
class CodeStore:
    """The folder that holds the code folders. `spare_max` (default SPARE_MAX) of them are kept although unused."""

    folder: Path
    spare_max: int | None = None

    def lay_out(self, tree: str, files: Iterable[CodeFile]) -> Path:
        """The folder with the files of `tree`; made if it is not there or was tampered with. Atomic and durable."""

        def fill(scratch: Path) -> None:
            for file in files:
                write(scratch, file)

        return self.make(tree, fill)

    def make(self, key: str, fill: Callable[[Path], None]) -> Path:
        """The folder `key`; if it is not there or was tampered with, it is what `fill` puts into an empty one."""
        if (found := self.find(key)) is not None:
            return found
        scratch = self.begin(key)
        try:
            fill(scratch)
            return self.finish(key, scratch)
        except BaseException:
            remove(scratch)
            raise

    def find(self, key: str) -> Path | None:
        """The folder `key` if it is there, as it was laid out."""
        if self.drift(key) is not None:
            return None
        os.utime(self._manifest(key))
        return self.folder / key

    def begin(self, key: str) -> Path:
        """An empty folder, to be filled and given to `finish`."""
        scratch = self.folder / f".{key}.{os.getpid()}.{next(_numbers)}.new"
        remove(scratch)
        scratch.mkdir(parents=True)
        return scratch

    def finish(self, key: str, scratch: Path) -> Path:
        """Make a filled folder the folder `key`: read-only, atomic and durable. Raises InvalidError for what is neither
        a file, nor a folder, nor a link within."""
        protect(scratch)
        paths = list(_files(scratch))
        for path in paths if len(paths) <= SYNC_EACH_MAX else ():
            sync(path)
        if len(paths) > SYNC_EACH_MAX:
            os.sync()
        target = self.folder / key
        with _finishing:
            if self.drift(key) is None:
                remove(scratch)
                return target
            self.remove(key)
            manifest = json.dumps(_describe(scratch))
            scratch.chmod(0o755)  # only who may write to a folder may give it another place
            scratch.rename(target)
            target.chmod(0o555)
            sync(self.folder)
            temporary = self.folder / f".{key}.{os.getpid()}.manifest.new"
            temporary.write_text(manifest)
            sync(temporary)
            temporary.replace(self._manifest(key))
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
        remove(self.folder / tree)

    def sweep(self, used: set[str]) -> None:
        """Remove what a killed node left half made, and the oldest unused folders beyond SPARE_MAX."""
        if not self.folder.exists():
            return
        for path in self.folder.glob(".*.new"):
            if f".{os.getpid()}." not in path.name:  # what this process is making is not left over
                remove(path)
        spare = [path for path in self.folder.glob("*.manifest") if path.stem not in used]
        spare.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in spare[SPARE_MAX if self.spare_max is None else self.spare_max :]:
            self.remove(path.stem)

    def _manifest(self, tree: str) -> Path:
        return self.folder / f"{tree}.manifest"


def write(root: Path, file: CodeFile) -> Path:
    """Write one file below `root`. Raises InvalidError if there is something in its place."""
    path = root / file.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as opened:
            opened.write(file.content)
    except (FileExistsError, NotADirectoryError):
        raise InvalidError(f"{file.path} would be laid out twice", remedy="rename or remove one of the two") from None
    path.chmod(0o555 if file.executable else 0o444)
    return path


def put(root: Path, path: str, source: Path) -> None:
    """Copy a file of this node to `path` below `root`. Raises InvalidError if there is something in its place."""
    with source.open("rb") as file:
        target = write(root, CodeFile(path, False, b""))
        target.chmod(0o644)
        with target.open("wb") as opened:
            shutil.copyfileobj(file, opened)
    target.chmod(0o444)


def _files(root: Path) -> Iterator[Path]:
    """The regular files below a folder."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                yield path


def sync(path: Path) -> None:
    """Have a file or a folder on the disk for good."""
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


def protect(root: Path) -> None:
    """Make all below a folder read-only. Raises InvalidError for devices and the like, and for links that lead out."""
    for folder, folders, _ in os.walk(root):
        for name in folders:  # before the walk goes on into it
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o755)
    for folder, folders, names in os.walk(root, topdown=False):
        for name in (*folders, *names):
            _protect(root, Path(folder, name))
    root.chmod(0o555)


def _protect(root: Path, path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        _check_link(root, path)
    elif stat.S_ISDIR(mode):
        path.chmod(0o555)
    elif not stat.S_ISREG(mode):
        raise InvalidError(f"{path.relative_to(root)} is neither a file nor a folder")
    elif (wanted := 0o555 if mode & 0o100 else 0o444) != stat.S_IMODE(mode):
        path.chmod(wanted)


def _check_link(root: Path, path: Path) -> None:
    target = str(path.readlink())
    place = os.path.normpath(path.parent.relative_to(root) / target)
    if target.startswith("/") or place.split("/", 1)[0] == "..":
        raise InvalidError(f"the link {path.relative_to(root)} leads out of its folder, to {target!a}")


def remove(root: Path) -> None:
    """Remove a folder or a file, if it is there, whatever its modes."""
    if root.is_dir() and not root.is_symlink():
        root.chmod(stat.S_IRWXU)
        for folder, folders, _ in os.walk(root):
            for name in folders:
                if not Path(folder, name).is_symlink():
                    Path(folder, name).chmod(stat.S_IRWXU)
        shutil.rmtree(root)
    else:
        root.unlink(missing_ok=True)
