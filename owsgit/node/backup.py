"""A node's home as one file, and back: its ledger with the votes, its state, and its key if wanted.

The file is a compressed tar: `manifest.json` (what it is, and the SHA-256 of every other member), `node.json`, `key`,
`votes.db`, `node.db`, `ledger.bundle` (git bundle(1)), `event-sources.db`, and in `tables/` what the node keeps of
tables. Code and logs are left out: code is in the ledger.
"""

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owsgit import __version__
from owsgit.ledger.repository import MAIN, NODE_ENVIRONMENT, Repository, run
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.node.home import Home, NodeSettings
from owsgit.node.join import building, install
from owsgit.peers.notes import FOLDER
from owsgit.peers.store import RESTORED, STOPPED, Store
from owsgit.peers.transfer import HELD
from owsgit.reconcile.inventory import now
from owsgit.services import tables
from owsgit.services.event_sources.checkpoints import FILE as CHECKPOINTS
from owsgit.services.tables import sqlite_backup
from owsgit.services.tables.sqlite_file import SUFFIX

FORMAT = 1
MEMBER_BYTES_MAX = 64 << 30
MANIFEST_BYTES_MAX = 1 << 20
MANIFEST = "manifest.json"
MEMBERS = ("node.json", "key", "votes.db", "node.db", "ledger.bundle", CHECKPOINTS)
TABLES = "tables"
_TABLES_FILE = re.compile(rf"{TABLES}/[A-Za-z0-9_%~-][A-Za-z0-9._%~-]{{0,250}}")
"""Names that the engine of tables gives."""


@dataclass(frozen=True)
class Backup:
    """What is in a backup."""

    node: str
    project: str
    head: str
    time: str
    key: bool
    tables: int

    def document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "owsgit": __version__,
            "node": self.node,
            "project": self.project,
            "head": self.head,
            "time": self.time,
            "key": self.key,
            "tables": self.tables,
        }


def write(home: Home, file: Path, project_id: str, *, key: bool) -> Backup:
    """Write `file`, whole or not at all; the node may go on meanwhile. Raises OwsgitError.

    The order matters: main is read first and the votes afterwards, as a decision is on the disk before main moves.
    How far event sources are comes before the tables that they read: never beyond the last change that is in it.
    """
    settings = home.settings()
    repository = Repository(home.ledger)
    head = repository.head()
    if head is None:
        raise UnavailableError("this node is still empty: there is nothing to back up", file=str(home.folder))
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as scratch:
        folder = Path(scratch)
        shutil.copyfile(home.settings_file, folder / "node.json")
        if key:
            shutil.copyfile(home.key, folder / "key")
        for database in (home.votes, home.database, home.folder / CHECKPOINTS):
            _copy_database(database, folder / database.name)
        globs = [f"--glob={FOLDER}/*", f"--glob={HELD}/*"]
        run(
            home.ledger,
            "bundle",
            "create",
            "--quiet",
            str(folder / "ledger.bundle"),
            MAIN,
            *globs,
            env=NODE_ENVIRONMENT,
        )
        (folder / TABLES).mkdir()
        kept = sqlite_backup.copy(home.folder / tables.FOLDER, folder / TABLES)
        made = Backup(settings.name, project_id, head, now(), key, sum(name.endswith(SUFFIX) for name in kept))
        _pack(folder, made, [*MEMBERS, *(f"{TABLES}/{name}" for name in kept)], folder / "made")
        (folder / "made").replace(file)
    return made


def _copy_database(source: Path, target: Path) -> None:
    if source.exists():
        with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as database, sqlite3.connect(target) as copy:
            database.backup(copy)
        database.close()
        copy.close()


def _pack(folder: Path, made: Backup, members: Iterable[str], target: Path) -> None:
    sums = {}
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # it may hold the node's key
    with os.fdopen(fd, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name in members:
                if (folder / name).exists():
                    sums[name] = _sum(folder / name)
                    tar.add(folder / name, name)
            text = json.dumps({**made.document(), "sha256": sums}, indent=2).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        file.flush()
        os.fsync(file.fileno())


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restore(file: Path, folder: Path, changes: Mapping[str, Any], *, only: bool = False) -> tuple[Home, Backup]:
    """Make the home of a node again from `file`, in `folder`; `changes` are settings that differ on the new machine.

    The whole history and its votes are verified. The node may have voted after the backup was made, which it does not
    know any more; so it votes again only when it cannot have, or at once if it is the `only` node of its project.
    Without the key in the file it becomes a new node. The home is there when all of it is, or not at all.
    """
    with building(folder) as home, tempfile.TemporaryDirectory(dir=home.folder.parent, prefix=".restore-") as scratch:
        made, files = _unpack(file, Path(scratch))
        _put_in_place(home, made, files, changes, only)
    return Home(folder), made


def _unpack(file: Path, scratch: Path) -> tuple[Backup, Mapping[str, Path]]:
    """The members of a backup, each of which is what the manifest says. Raises InvalidError."""
    try:
        with tarfile.open(file, "r:gz") as tar:
            for entry in tar:
                if not entry.isreg() or not _belongs(entry.name) or entry.size > MEMBER_BYTES_MAX:
                    raise InvalidError(f"{entry.name!r:.100} does not belong in a backup", file=str(file))
                _extract(tar, entry, scratch / entry.name)
        if (scratch / MANIFEST).stat().st_size > MANIFEST_BYTES_MAX:
            raise InvalidError("the manifest is too long", file=str(file))
        text = (scratch / MANIFEST).read_bytes()
        manifest = json.loads(text)
        sums = manifest["sha256"]
        made = Backup(*(manifest[name] for name in ("node", "project", "head", "time", "key", TABLES)))
        known = manifest["format"]
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"this is not a backup of a node: {error}", file=str(file)) from None
    if known != FORMAT:
        raise InvalidError(f"a backup of format {known!r:.20}", file=str(file), remedy="use a newer owsgit")
    for name, wanted in sums.items():
        if name == MANIFEST or not _belongs(name) or not (scratch / name).exists() or _sum(scratch / name) != wanted:
            raise InvalidError(f"{name!r:.50} in the backup is damaged", file=str(file), remedy="use another backup")
    for name in ("node.json", "votes.db", "ledger.bundle"):
        if name not in sums:
            raise InvalidError(f"{name} is missing in the backup", file=str(file), remedy="use another backup")
    return made, {name: scratch / name for name in sums}


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    """The content alone: nothing else that an archive says of a file counts. (tarfile's filters would say the same, and
    are not in Python 3.11.2, which Debian 12 has.)"""
    if path.exists():
        raise tarfile.ReadError(f"{entry.name} is in it twice")
    path.parent.mkdir(exist_ok=True)
    content = tar.extractfile(entry)
    assert content is not None  # it is a regular file
    with content, open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        shutil.copyfileobj(content, file)


def _belongs(name: str) -> bool:
    return name in (*MEMBERS, MANIFEST) or _TABLES_FILE.fullmatch(name) is not None


def _put_in_place(home: Home, made: Backup, files: Mapping[str, Path], changes: Mapping[str, Any], only: bool) -> None:
    settings = NodeSettings.parse(files["node.json"].read_bytes(), "node.json")
    document = {**settings.document(), **changes}
    home.make(NodeSettings.model_validate(document), files["key"].read_bytes() if "key" in files else None)
    shutil.copyfile(files["votes.db"], home.votes)
    if "node.db" in files:
        shutil.copyfile(files["node.db"], home.database)
    if CHECKPOINTS in files:
        shutil.copyfile(files[CHECKPOINTS], home.folder / CHECKPOINTS)
    kept = [path for name, path in files.items() if name.startswith(f"{TABLES}/")]
    if kept:
        (home.folder / tables.FOLDER).mkdir(parents=True)
    for path in kept:
        path.replace(home.folder / tables.FOLDER / path.name)
    install(home, str(files["ledger.bundle"]), {}, made.project, [f"+{HELD}/*:{HELD}/*"])
    store = Store(home.votes)
    try:
        store.drop_fact(STOPPED)
        known = [signed.recovery.id for signed in store.recoveries()]
        if "key" in files:
            restored = {"recoveries": known, "backup": made.time, "head": made.head, "only": only}
            store.put_fact(RESTORED, json.dumps(restored))
        else:
            store.drop_seats()  # they were another node's
            store.drop_fact(RESTORED)
    finally:
        store.close()
