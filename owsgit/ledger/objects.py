"""Reads git objects as raw bytes, on libgit2's object database.

Everything that is verified is verified on these bytes: no checkout, no filters, no replace refs, no configuration.
"""

from collections.abc import Iterable
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from owsgit.model.errors import RefusedError

TREE_BYTES_MAX = 8 * 1024 * 1024
"""A folder of about 150,000 resources: far more than a project has, and still parsed in a second."""

COMMIT_BYTES_MAX = 64 * 1024
"""Room for a signature by an RSA key with a long certificate, and for a message that nobody reads to the end."""

NAMES = {ObjectType.COMMIT: "commit", ObjectType.TREE: "tree", ObjectType.BLOB: "blob", ObjectType.TAG: "tag"}


class MissingObjectError(RefusedError):
    """An object that another one names is not there."""


class Objects:
    """The objects of one or more object folders, searched in order (quarantine first, then the repository)."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._databases = [pygit2.Odb(str(folder)) for folder in folders]

    def over(self, folder: Path) -> "Objects":
        """These objects and those of `folder`, which are looked at first; for a push in quarantine."""
        both = Objects([folder])
        both._databases.extend(self._databases)
        return both

    def commit(self, oid: str) -> bytes:
        return self._read(pygit2.Oid(hex=oid), ObjectType.COMMIT, COMMIT_BYTES_MAX)

    def tag(self, oid: str) -> bytes:
        return self._read(pygit2.Oid(hex=oid), ObjectType.TAG, COMMIT_BYTES_MAX)

    def tree(self, oid: bytes) -> bytes:
        return self._read(pygit2.Oid(raw=oid), ObjectType.TREE, TREE_BYTES_MAX)

    def blob(self, oid: bytes, bytes_max: int) -> bytes:
        return self._read(pygit2.Oid(raw=oid), ObjectType.BLOB, bytes_max)

    def blob_size(self, oid: bytes) -> int:
        """Size in bytes of a blob, without inflating it."""
        return self._find(pygit2.Oid(raw=oid), ObjectType.BLOB)[1]

    def _find(self, oid: pygit2.Oid, wanted: ObjectType) -> tuple[pygit2.Odb, int]:
        """The database that has the object, and its size."""
        for database in self._databases:
            try:
                found, size = database.read_header(oid)
            except KeyError:
                continue
            if found != wanted:
                raise RefusedError(f"object {oid} is a {NAMES.get(found, found)} where a {NAMES[wanted]} is needed")
            return database, size
        raise MissingObjectError(f"object {oid} is missing", remedy="push or fetch again; the transfer was not whole")

    def _read(self, oid: pygit2.Oid, wanted: ObjectType, bytes_max: int) -> bytes:
        database, size = self._find(oid, wanted)
        if size > bytes_max:
            raise RefusedError(f"{NAMES[wanted]} {oid} has {size:,} bytes; at most {bytes_max:,} are taken")
        return database.read(oid)[1]
