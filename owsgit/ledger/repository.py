"""The one place where git itself is run: a node's bare repository and a user's clone.

A node never reads system or user configuration of git, and never follows replace refs.
"""

import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pygit2
from pygit2.enums import Option

from owsgit.ledger.objects import Objects
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError

GIT_VERSION_MIN = (2, 34)
"""The first git that signs commits with SSH keys."""

MAIN = "refs/heads/main"
NONE = "0" * 40
"""What git's hooks and protocol write where there is no commit."""

PROC_RECEIVE_REFS = (MAIN, "refs/for", "refs/approvals", "refs/rejections")
"""Refs of which the node, and not git, says what becomes of a push."""

PACK_BYTES_MAX = 256 * 1024 * 1024
"""One push: a function's largest code, packed. `receive.maxInputSize` refuses the rest while it arrives."""

NODE_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}

pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)  # what libgit2 writes is on the disk when it returns, as with git

_SETTINGS = {
    "core.bare": "true",
    "core.logAllRefUpdates": "true",
    "core.fsync": "all",
    "receive.fsckObjects": "true",
    "receive.denyDeletes": "true",
    "receive.denyNonFastForwards": "true",
    "receive.denyCurrentBranch": "ignore",
    "receive.advertisePushOptions": "true",
    "gpg.ssh.allowedSignersFile": "/dev/null",  # push certificates are checked by the node, not by git
    "receive.maxInputSize": str(PACK_BYTES_MAX),
    "transfer.hideRefs": "refs/owsgit",
    "uploadpack.allowFilter": "true",
}


class GitError(OwsgitError):
    """git answered with an error."""


def run(folder: Path | None, *arguments: str, env: Mapping[str, str] | None = None, data: bytes | None = None) -> str:
    """What `git arguments` prints, without the last newline. Raises GitError with git's own words."""
    return run_bytes(folder, *arguments, env=env, data=data).decode("utf-8", "surrogateescape").rstrip("\n")


def run_bytes(
    folder: Path | None, *arguments: str, env: Mapping[str, str] | None = None, data: bytes | None = None
) -> bytes:
    """As `run`, for output that is not text."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, **(env or {})},
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise UnavailableError("git is not installed", remedy="install git 2.34 or newer") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise GitError(f"git {' '.join(arguments[:2])}: {said or f'exit status {done.returncode}'}")
    return done.stdout


def version() -> tuple[int, ...]:
    """Of the git that is installed. Raises UnavailableError where there is none."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", run(None, "version"))[:3])


def genesis(folder: Path, commit: str, env: Mapping[str, str] | None = None) -> str:
    """The first commit of the history of `commit`, along first parents. Raises GitError."""
    return run(folder, "rev-list", "--first-parent", "--max-parents=0", commit, env=env).split("\n")[-1]


IGNORED = ".gitignore"
_LOCKED = ("config", "HEAD", "packed-refs")
"""Files that git locks beside the refs."""


class Repository:
    """A node's ledger: a bare repository that only this node writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objects = Objects([path / "objects"])

    @classmethod
    def create(cls, path: Path, hooks: Path) -> "Repository":
        """Make the repository, or bring its settings up to date. `hooks` is the folder of hooks that it runs.

        For who alone has it: lock files that are there are of processes that were killed.
        """
        for lock in (*(path / f"{name}.lock" for name in _LOCKED), *(path / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)
        if not (path / "HEAD").exists():
            run(
                None,
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                "--template=",
                str(path),
                env=NODE_ENVIRONMENT,
            )
        for name, value in {**_SETTINGS, "core.hooksPath": str(hooks)}.items():
            run(path, "config", name, value, env=NODE_ENVIRONMENT)
        for index, ref in enumerate(PROC_RECEIVE_REFS):
            how = "--replace-all" if index == 0 else "--add"
            run(path, "config", how, "receive.procReceiveRefs", ref, env=NODE_ENVIRONMENT)
        if "certNonceSeed" not in (path / "config").read_text().replace("certnonceseed", "certNonceSeed"):
            run(path, "config", "receive.certNonceSeed", secrets.token_hex(16), env=NODE_ENVIRONMENT)
        return cls(path)

    def head(self) -> str | None:
        """The commit that main is at, or None in an empty ledger."""
        for file in (self.path / MAIN, self.path / "packed-refs"):
            try:
                text = file.read_text()
            except FileNotFoundError:
                continue
            if file.name == "main":
                return text.strip()
            for line in text.splitlines():
                if line.endswith(f" {MAIN}"):
                    return line.split(" ", 1)[0]
        return None

    def move_main(self, old: str | None, new: str) -> None:
        """Move main by compare-and-set, with a line in its reflog; durable when it returns. Raises GitError.

        In process: a git of its own for this would be a tenth of what a push takes.
        """
        try:
            repository = pygit2.Repository(str(self.path))
            repository.set_ident("owsgit", "owsgit@localhost")
            if old is None:
                repository.references.create(MAIN, new)
                return
            main = repository.lookup_reference(MAIN)
            if str(main.target) != old:
                raise GitError(f"main is at {str(main.target)[:10]}, not at {old[:10]}")
            main.set_target(new, "owsgit: decided")
        except (pygit2.GitError, OSError, KeyError, ValueError) as error:
            raise GitError(f"main cannot be moved to {new[:10]}: {error}") from None

    def count_between(self, old: str, new: str) -> int:
        """Commits of the first-parent chain from `old` to `new`. Raises GitError."""
        return int(run(self.path, "rev-list", "--count", "--first-parent", f"{old}..{new}", env=NODE_ENVIRONMENT))

    def is_on_main(self, commit: str, head: str) -> bool:
        """Whether a commit is on the first-parent chain that ends at `head`."""
        repository = pygit2.Repository(str(self.path))
        walker = repository.walk(head, pygit2.enums.SortMode.TOPOLOGICAL)
        walker.simplify_first_parent()
        return any(str(found.id) == commit for found in walker)

    def quarantined(self, folder: Path) -> Objects:
        """The objects of this repository and those of a push that is not let in yet."""
        return self.objects.over(folder)


class Clone:
    """A user's infra repository with a working tree."""

    def __init__(self, folder: Path) -> None:
        try:
            self.folder = Path(run(folder, "rev-parse", "--show-toplevel"))
        except GitError:
            raise UnavailableError(
                f"{folder} is not in a git repository", remedy="change into your infra repository, or: owsgit init NAME"
            ) from None
        self.git_folder = Path(run(self.folder, "rev-parse", "--path-format=absolute", "--git-common-dir"))

    def objects(self) -> Objects:
        return Objects([self.git_folder / "objects", *self._alternates()])

    def _alternates(self) -> Iterator[Path]:
        listed = self.git_folder / "objects/info/alternates"
        if listed.exists():
            yield from (self.git_folder / "objects" / line for line in listed.read_text().splitlines() if line)

    def resolve(self, revision: str) -> str:
        """The commit id that `revision` names. Raises GitError."""
        try:
            return run(self.folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except GitError:
            raise GitError(
                f"{revision!r} names no commit in {self.folder}", remedy="git log shows the commits"
            ) from None

    def head(self) -> str | None:
        try:
            return self.resolve("HEAD")
        except GitError:
            return None

    def genesis(self, commit: str) -> str:
        """The first commit of the history of `commit`, along first parents."""
        return genesis(self.folder, commit)

    @contextmanager
    def snapshot(self) -> Iterator[tuple[Objects, str]]:
        """The working tree as a git tree, without touching the index or the object store of the clone.

        Yields the objects to read it with, and the tree's id. Ignored files (.gitignore) are left out.
        """
        with tempfile.TemporaryDirectory(prefix="owsgit-") as scratch:
            objects = Path(scratch, "objects")
            objects.mkdir()
            yield Objects([objects, self.git_folder / "objects", *self._alternates()]), self.write_tree(Path(scratch))

    def write_tree(self, scratch: Path, without: Sequence[str] = ()) -> str:
        """Write the working tree as a git tree, its objects into `scratch`/objects, some paths left out. Returns its
        id."""
        env = {
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.git_folder / "objects"),
        }
        index = self.git_folder / "index"
        if index.exists() and not (scratch / "index").exists():
            (scratch / "index").write_bytes(index.read_bytes())
        run(self.folder, "-c", "core.autocrlf=false", "add", "--all", "--", ".", env=env)
        if without:
            run(self.folder, "rm", "-r", "-f", "-q", "--cached", "--ignore-unmatch", "--", *without, env=env)
        return run(self.folder, "write-tree", env=env)

    def write_tree_with(self, scratch: Path, staged: Path, path: str) -> str:
        """As `write_tree` did last, with what lies in the folder `staged` at `path` (nothing: without it) instead of
        what lies there in the working tree. Returns its id. Raises InvalidError for what .gitignore leaves out, and
        for what git does not take."""
        for parent in Path(path).parents:
            if (self.folder / parent / IGNORED).is_file():
                (staged / parent).mkdir(parents=True, exist_ok=True)
                (staged / parent / IGNORED).write_bytes((self.folder / parent / IGNORED).read_bytes())
        index = scratch / "index-with"
        index.write_bytes((scratch / "index").read_bytes())
        env = {
            "GIT_INDEX_FILE": str(index),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.git_folder / "objects"),
            "GIT_DIR": str(self.git_folder),
            "GIT_WORK_TREE": str(staged),
        }
        if ignored := self._ls_files(staged, path, env, "--others", "--ignored", "--exclude-standard"):
            raise InvalidError(
                ".gitignore leaves it out", file=ignored[0], remedy="take it out of .gitignore, or choose another name"
            )
        try:
            run(staged, "-c", "core.autocrlf=false", "add", "--all", "--", f":(literal){path}", env=env)
        except GitError as error:
            raise InvalidError(str(error), file=path) from None
        return run(staged, "write-tree", env=env)

    def listed(self, scratch: Path, path: str) -> list[str]:
        """The files at or below `path` that `write_tree` took last."""
        return self._ls_files(self.folder, path, {"GIT_INDEX_FILE": str(scratch / "index")})

    @staticmethod
    def _ls_files(folder: Path, path: str, env: Mapping[str, str], *options: str) -> list[str]:
        found = run(folder, "ls-files", "-z", *options, "--", f":(literal){path}", env=env)
        return [each for each in found.split("\0") if each]

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether the commit `old` is in the history of `new`."""
        try:
            run(self.folder, "merge-base", "--is-ancestor", old, new)
        except GitError:
            return False
        return True

    def config(self, name: str) -> str | None:
        """A setting of git as the user has it for this repository."""
        try:
            return run(self.folder, "config", "--get", name) or None
        except GitError:
            return None

    def config_all(self, name: str) -> list[str]:
        """All values of a setting that may have several."""
        try:
            return run(self.folder, "config", "--get-all", name).split("\n")
        except GitError:
            return []

    def set_config(self, settings: Sequence[tuple[str, str]]) -> None:
        """Set options for this repository only."""
        for name, value in settings:
            run(self.folder, "config", "--local", name, value)
