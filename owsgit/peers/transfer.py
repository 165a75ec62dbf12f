"""Objects on their way from node to node: as git's packs, by git itself, and into a quarantine first.

`pre-receive` guards pushes only, so what is fetched from a neighbour waits in a folder of its own, over the
repository's objects, until it is verified. Then it is moved in, and is on the disk before anybody votes for it.
"""

import asyncio
import contextlib
import os
import re
import resource
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from owsgit.ledger.repository import NODE_ENVIRONMENT, PACK_BYTES_MAX, GitError, Repository, run
from owsgit.model.errors import RefusedError
from owsgit.peers.links import Link, LinkError

HELD = "refs/owsgit/held"
"""Refs that keep what was voted for from being collected as garbage. Hidden from clients."""

UNPACK_OBJECTS_MAX = 100
"""As git's receive.unpackLimit: fewer objects become files of their own, more stay a pack."""

GIT_SECONDS_MAX = 60.0
FETCH_SECONDS_MAX = 900.0
STALL_SECONDS_MAX = 20.0
"""A neighbour that sends nothing for so long, in the middle of a fetch, is given up."""

_COMMIT = re.compile("[0-9a-f]{40}")
GIT_MEMORY_BYTES_MAX = 4 << 30
CHUNK_BYTES = 1 << 16


class _Source(Protocol):
    async def read(self, n: int, /) -> bytes: ...


class _Target(Protocol):
    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...


class TooLargeError(RefusedError):
    """More bytes than one step may bring."""


async def pack(
    repository: Repository, want: str, have: str | None, bytes_max: int, folder: Path | None = None
) -> bytes | None:
    """The objects of `want` that are not in `have`, as a thin pack; None if it has more than `bytes_max`.

    `folder` is a quarantine in which some of them may be.
    """
    _check_id(want)
    if have is not None:
        _check_id(have)
    revisions = f"{want}\n" + (f"^{have}\n" if have else "")
    options = ["--quiet", "--revs", "--thin", "--delta-base-offset", "--stdout"]
    git = await _git(repository, "pack-objects", *options, folder=folder)
    assert git.stdin is not None and git.stdout is not None
    try:
        async with asyncio.timeout(GIT_SECONDS_MAX):
            git.stdin.write(revisions.encode())
            git.stdin.close()
            data = bytearray()
            while piece := await git.stdout.read(CHUNK_BYTES):
                data += piece
                if len(data) > bytes_max:
                    return None
            if await git.wait() != 0:
                raise GitError(f"git cannot pack {want[:10]}: {await _said(git)}")
            return bytes(data)
    finally:
        await _end(git)


def _check_id(commit: str) -> None:
    """Nothing but a commit's id gets on git's command line or standard input."""
    if _COMMIT.fullmatch(commit) is None:
        raise RefusedError(f"{commit!r:.60} is not the id of a commit")


async def collect(repository: Repository) -> None:
    """`git gc --auto`: objects that came from other nodes are packed now and then, as git does after a push."""
    git = await _git(repository, "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")
    try:
        async with asyncio.timeout(FETCH_SECONDS_MAX):
            await git.communicate()
    finally:
        await _end(git)


@asynccontextmanager
async def quarantine(home: Path) -> AsyncIterator[Path]:
    """A folder for objects that are not verified; it is gone afterwards."""
    incoming = home / "incoming"
    incoming.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=incoming))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


def sweep(home: Path) -> None:
    """Forget what a node that was killed left in quarantine."""
    shutil.rmtree(home / "incoming", ignore_errors=True)


async def unpack(repository: Repository, data: bytes, folder: Path) -> None:
    """Write a pack's objects into the quarantine `folder`. Raises RefusedError for what git does not take."""
    if len(data) < 12 or data[:4] != b"PACK":
        raise RefusedError("the neighbour sent no pack")
    count = int.from_bytes(data[8:12], "big")
    if count == 0:
        return
    limit = f"--max-input-size={PACK_BYTES_MAX}"
    command = (
        ["unpack-objects", "-q", "--strict", limit]
        if count <= UNPACK_OBJECTS_MAX
        else ["index-pack", "--stdin", "--fix-thin", "--strict", limit]
    )
    git = await _git(repository, *command, folder=folder)
    try:
        async with asyncio.timeout(GIT_SECONDS_MAX):
            _, said = await git.communicate(data)
    finally:
        await _end(git)
    if git.returncode != 0:
        raise RefusedError(
            f"git does not take the neighbour's objects: {said.decode('utf-8', 'replace').strip()!r:.300}"
        )


async def fetch(repository: Repository, link: Link, want: str, folder: Path) -> None:
    """`git fetch` of one commit from a neighbour into the quarantine `folder`.

    git speaks its own protocol over a socket (git-remote-fd); its other end is a session of the link's connection.
    Raises LinkError, TooLargeError or RefusedError.
    """
    _check_id(want)
    ours, theirs = socket.socketpair()
    with theirs:
        git = await _git(
            repository,
            "-c", "protocol.fd.allow=always", "-c", "protocol.version=2", "-c", "fetch.fsckObjects=true",
            "-c", f"fetch.unpackLimit={UNPACK_OBJECTS_MAX}", "-c", "gc.auto=0",
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
            f"fd::{theirs.fileno()}", want,
            folder=folder, pass_fds=(theirs.fileno(),),
        )  # fmt: skip
    ours.setblocking(False)
    said = asyncio.ensure_future(_said(git))  # all of it is read: a neighbour's messages must not fill the pipe
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        remote = await link.upload_pack()
        pumps = [
            asyncio.ensure_future(_pump(remote.stdout, writer, link, PACK_BYTES_MAX)),
            asyncio.ensure_future(_pump(reader, remote.stdin, link, PACK_BYTES_MAX, stalls=False)),
        ]
        try:
            async with asyncio.timeout(FETCH_SECONDS_MAX):
                ended = asyncio.ensure_future(git.wait())
                await asyncio.wait([ended, pumps[0]], return_when=asyncio.FIRST_COMPLETED)
                if pumps[0].done():
                    pumps[0].result()
                await ended
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            remote.close()
    except TimeoutError:
        raise LinkError(f"{link.member.name} did not send {want[:10]} in time") from None
    finally:
        writer.close()
        await _end(git)
        await asyncio.wait([said])
    if git.returncode != 0:
        raise RefusedError(f"{link.member.name} did not give {want[:10]}: {(await said)!r:.300}")


async def _pump(source: "_Source", target: "_Target", link: Link, bytes_max: int, stalls: bool = True) -> None:
    """Carry bytes until the source ends, and close the target then."""
    count = 0
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        while True:
            try:
                async with asyncio.timeout(STALL_SECONDS_MAX if stalls else None):
                    piece = await source.read(CHUNK_BYTES)
            except TimeoutError:
                raise LinkError(f"{link.member.name} stopped in the middle of a fetch") from None
            if not piece:
                break
            count += len(piece)
            if count > bytes_max:
                raise TooLargeError(f"{link.member.name} sends more than {bytes_max:,} bytes")
            target.write(piece)
            await target.drain()
        target.write_eof()


async def check_connected(repository: Repository, want: str, have: str) -> None:
    """Check that every object of `want` that is not in `have` is there, files and all. Raises GitError.

    For what is found in the repository, as after a crash in the middle of `migrate`: packs are checked by `unpack`.
    """
    git = await _git(repository, "rev-list", "--objects", "--quiet", "--stdin")
    try:
        async with asyncio.timeout(GIT_SECONDS_MAX):
            _, said = await git.communicate(f"{want}\n^{have}\n".encode())
    finally:
        await _end(git)
    if git.returncode != 0:
        raise GitError(f"objects of {want[:10]} are missing: {said.decode('utf-8', 'replace').strip()!r:.200}")


class Folders:
    """The folders of a repository's objects: git syncs the files that it moves in, not the folders that name them."""

    def __init__(self, repository: Repository) -> None:
        self._objects = repository.path / "objects"
        self._synced: dict[str, int] = {}  # path → when it had changed last, in ns

    def sync(self) -> None:
        """Have on the disk what git has moved in since the last call."""
        for folder in (self._objects, *self._objects.iterdir()):
            if folder.name.startswith("tmp_"):
                continue  # another push's quarantine, which comes and goes
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                changed = folder.stat().st_mtime_ns
                if folder.is_dir() and self._synced.get(folder.name) != changed:
                    _sync(folder)
                    self._synced[folder.name] = changed


def migrate(repository: Repository, folder: Path) -> None:
    """Move verified objects into the repository, and have them on the disk when this returns."""
    objects = repository.path / "objects"
    changed: set[Path] = set()
    # what names other objects comes last: a pack's index after the pack
    for file in sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.suffix == ".idx", path)
    ):
        target = objects / file.relative_to(folder)
        if target.parent not in changed:
            target.parent.mkdir(exist_ok=True)
            changed.add(target.parent)
        if target.exists():
            continue
        _sync(file)
        file.rename(target)
    for parent in (*changed, objects):
        _sync(parent)


def hold(repository: Repository, commit: str) -> None:
    """Keep `commit` from being collected, whatever becomes of it. Durable when this returns."""
    folder = repository.path / HELD
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / commit).open("w") as file:
        file.write(commit + "\n")
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def release(repository: Repository, but: Collection[str]) -> None:
    """Once a head is decided, main keeps what is worth keeping, and these refs keep what may be voted for next."""
    with contextlib.suppress(FileNotFoundError):
        for ref in (repository.path / HELD).iterdir():
            if ref.name not in but:
                ref.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if f" {HELD}/" in (repository.path / "packed-refs").read_text():
            held = run(repository.path, "for-each-ref", "--format=%(refname)", HELD, env=NODE_ENVIRONMENT).split()
            lines = "".join(f"delete {ref}\n" for ref in held if ref.rsplit("/", 1)[-1] not in but)
            run(repository.path, "update-ref", "--stdin", env=NODE_ENVIRONMENT, data=lines.encode())


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def _git(
    repository: Repository, *arguments: str, folder: Path | None = None, pass_fds: tuple[int, ...] = ()
) -> asyncio.subprocess.Process:
    environment = {**NODE_ENVIRONMENT, "PATH": os.environ.get("PATH", "/usr/bin:/bin")}
    if folder is not None:
        environment |= {
            "GIT_OBJECT_DIRECTORY": str(folder),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repository.path / "objects"),
        }
    git = await asyncio.create_subprocess_exec(
        "git", f"--git-dir={repository.path}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment, pass_fds=pass_fds, start_new_session=True,
    )  # fmt: skip
    with contextlib.suppress(ProcessLookupError, PermissionError):
        resource.prlimit(git.pid, resource.RLIMIT_AS, (GIT_MEMORY_BYTES_MAX, GIT_MEMORY_BYTES_MAX))
        resource.prlimit(git.pid, resource.RLIMIT_FSIZE, (4 * PACK_BYTES_MAX, 4 * PACK_BYTES_MAX))
    return git


async def _said(git: asyncio.subprocess.Process) -> str:
    assert git.stderr is not None
    kept = b""
    while piece := await git.stderr.read(CHUNK_BYTES):
        kept = (kept + piece)[:4096]
    return kept.decode("utf-8", "replace").strip()


async def _end(git: asyncio.subprocess.Process) -> None:
    if git.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(git.pid, 9)
        await git.wait()
