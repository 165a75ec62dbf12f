"""What changed between two trees, as changes of resources.

Only what differs is read: a push of one file into a ledger of 10,000 resources parses one file.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from owsgit.ledger import trees
from owsgit.ledger.objects import Objects
from owsgit.ledger.trees import Difference, Entry
from owsgit.model.change import Change
from owsgit.model.errors import InvalidError, OwsgitError, Problem
from owsgit.model.names import NAME_RULE, is_name
from owsgit.model.resource import Kind, Resource
from owsgit.model.spec import nearest
from owsgit.model.state import State
from owsgit.model.strictjson import JSON_BYTES_MAX

CODE_FILE_BYTES_MAX = 50 * 1024 * 1024
"""One file of a function's code: Lambda's limit for an uploaded package."""

CODE_BYTES_MAX = 250 * 1024 * 1024
"""All files of a function: Lambda's limit for an unzipped package."""

CODE_FILES_MAX = 10_000
FOLDER_DEPTH_MAX = 32
ENTRIES_MAX = 200_000
"""Entries that may differ in one commit. Trees that name the same subtree many times could have 10^32."""

JSON_COMMIT_BYTES_MAX = 16 * 1024 * 1024
"""JSON that may change in one commit: thousands of resources. It is parsed before it is known to be allowed."""

PROBLEMS_MAX = 50
"""Enough to work on; a hostile tree could have a million."""

FREE_FOLDERS = frozenset({"docs", "tests", "scripts", ".github", ".forgejo"})
"""Folders that hold no resources; their files are guarded by ows:UpdateFile."""


@dataclass
class TreeChanges:
    """The resources that changed, and the paths of changed files that are no resources."""

    resources: list[Change] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    json_bytes: int = 0


def between(objects: Objects, state: State, old: str | None, new: str, *, trusted: bool = False) -> TreeChanges:
    """The changes from tree `old` (that `state` was read from; None: nothing) to tree `new`.

    `trusted`: the tree was verified before, commit by commit; only its resources are read, however many they are.
    Raises InvalidError with all problems of what changed.
    """
    walk = _Walk(objects, state, trusted)
    walk.root(bytes.fromhex(old) if old else None, bytes.fromhex(new))
    if walk.problems:
        raise InvalidError.of(walk.problems)
    return walk.found


def _folder(entry: Entry | None) -> bytes | None:
    return entry[1] if entry is not None and entry[0] == trees.FOLDER else None


class _Walk:
    def __init__(self, objects: Objects, state: State, trusted: bool) -> None:
        self.objects = objects
        self.trusted = trusted
        self.state = state
        self.kinds = state.kinds
        self.found = TreeChanges()
        self.problems: list[Problem] = []
        self.visited = 0

    def root(self, old: bytes | None, new: bytes) -> None:
        for name, before, after in self._differing(old, new, ""):
            kind = self.kinds.by_folder.get(name)
            if self._bad_entry("", name, after, code=False):
                continue
            if kind is not None:
                if after is not None and after[0] != trees.FOLDER:
                    self._say(Problem("this is the name of a folder of resources", name, remedy="remove the file"))
                else:
                    self._kind_folder(kind, _folder(before), _folder(after))
            elif name == self.kinds["project"].file(""):
                self._document(self.kinds["project"], "", before, after, ())
            elif name in FREE_FOLDERS or _folder(before) or _folder(after):
                self._free_folder(name, before, after)
            else:
                self._file_at_root(name, after)

    def _differing(self, old: bytes | None, new: bytes | None, place: str) -> list[Difference]:
        try:
            found = trees.differences(self.objects, old, new, place)
        except OwsgitError as error:
            self.problems.extend(error.problems)
            return []
        self.visited += len(found)
        if self.visited > ENTRIES_MAX and not self.trusted:
            raise InvalidError(f"more than {ENTRIES_MAX:,} files and folders change in one commit", file=place)
        return found

    def _say(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= PROBLEMS_MAX:
            raise InvalidError.of(
                [*self.problems, Problem(f"more than {PROBLEMS_MAX} problems: the rest is not shown")]
            )

    def _bad_entry(self, place: str, name: str, entry: Entry | None, *, code: bool) -> bool:
        problem = entry and trees.problem_with(place, name, entry[0], code=code)
        if problem:
            self._say(problem)
        return problem is not None

    def _file_at_root(self, name: str, after: Entry | None) -> None:
        if name.endswith(".json") and after is not None:
            self._say(Problem("the only JSON file at the root is project.json", name, remedy="move or rename it"))
        self.found.files.append(name)

    def _free_folder(self, name: str, before: Entry | None, after: Entry | None) -> None:
        if name not in FREE_FOLDERS and after is not None:
            known = [*self.kinds.by_folder, *FREE_FOLDERS]
            self._say(
                Problem("not a folder of the ledger", f"{name}/", remedy=nearest(name, known, "folder", "folders"))
            )
            return
        if after is not None and after[0] != trees.FOLDER:
            self._say(Problem("this is the name of a folder", name, remedy="remove the file, or rename it"))
            return
        if not self.trusted:
            self.found.files.extend(self._files(f"{name}/", _folder(before), _folder(after)))

    def _kind_folder(self, kind: Kind, old: bytes | None, new: bytes | None) -> None:
        place = f"{kind.folder}/"
        for name, before, after in self._differing(old, new, place):
            if self._bad_entry(place, name, after, code=False):
                continue
            if name in (".gitignore", "README.md"):
                if after is not None and after[0] != trees.FILE:
                    self._say(Problem("this is the name of a file", place + name, remedy="remove the folder"))
                self.found.files.append(place + name)
            elif kind.has_files:
                self._resource_folder(kind, name, before, after)
            elif after is not None and (after[0] == trees.FOLDER or not name.endswith(".json")):
                self._say(Problem(f"only <name>.json files lie in {place}", place + name, remedy="move it elsewhere"))
            else:
                self._document(kind, name.removesuffix(".json"), before, after, ())

    def _resource_folder(self, kind: Kind, name: str, before: Entry | None, after: Entry | None) -> None:
        if after is not None and after[0] != trees.FOLDER:
            remedy = f"move it to {kind.file(name.removesuffix('.json'))}"
            self._say(Problem(f"a {kind.name} is a folder", f"{kind.folder}/{name}", remedy=remedy))
            return
        place, document = f"{kind.folder}/{name}/", f"{kind.name}.json"
        old, new = _folder(before), _folder(after)
        files = tuple(file for file in self._files(place, old, new, code=True) if file != place + document)
        if self.problems:
            return
        self._check_size(place, new)
        old_entry = trees.read(self.objects, old, place).get(document)
        new_entry = trees.read(self.objects, new, place).get(document)
        if new is not None and new_entry is None:
            remedy = f"add it; it describes the {kind.name}"
            self._say(Problem(f"{document} is missing", kind.file(name), remedy=remedy))
            return
        self._document(kind, name, old_entry, new_entry, files, new)

    def _code_digest(self, kind: Kind, tree: bytes, place: str) -> str:
        entries = trees.read(self.objects, tree, place).items()
        return hashlib.sha256(
            repr(sorted(item for item in entries if item[0] != f"{kind.name}.json")).encode()
        ).hexdigest()

    def _document(
        self,
        kind: Kind,
        name: str,
        before: Entry | None,
        after: Entry | None,
        files: tuple[str, ...],
        tree: bytes | None = None,
    ) -> None:
        file = kind.file(name)
        if kind.folder and after is not None and not is_name(name):
            self._say(Problem(f"{name!r} is not a {kind.name}'s name", file, remedy=f"use {NAME_RULE}"))
            return
        if after is not None and after[0] != trees.FILE:
            self._say(Problem("a JSON file has mode 100644", file, remedy=f"git update-index --chmod=-x {file}"))
            return
        previous = self.state.resources.get(kind.key(name)) if before is not None else None
        resource = None
        if after is not None:
            try:
                if previous is not None and previous.blob == after[1].hex():
                    spec = previous.spec
                else:
                    data = self.objects.blob(after[1], JSON_BYTES_MAX)
                    self._count_json(len(data), file)
                    spec = kind.spec.parse(data, file)
            except InvalidError as error:
                for problem in error.problems:
                    self._say(problem)
                return
            except OwsgitError as error:
                self._say(Problem(error.problems[0].message, file))
                return
            code = self._code_digest(kind, tree, f"{kind.folder}/{name}/") if tree else None
            resource = Resource(kind, name, spec, after[1].hex(), tree.hex() if tree else None, code)
        if previous is not None or resource is not None:
            self.found.resources.append(Change(previous, resource, files))

    def _count_json(self, size: int, file: str) -> None:
        self.found.json_bytes += size
        if self.found.json_bytes > JSON_COMMIT_BYTES_MAX and not self.trusted:
            raise InvalidError(
                f"more than {JSON_COMMIT_BYTES_MAX:,} bytes of JSON change in one commit",
                file=file,
                remedy="make smaller commits",
            )

    def _files(self, place: str, old: bytes | None, new: bytes | None, *, code: bool = False) -> list[str]:
        """Paths of the files that differ below a folder, each checked."""
        if place.count("/") > FOLDER_DEPTH_MAX:
            self._say(Problem(f"nested deeper than {FOLDER_DEPTH_MAX} folders", place))
            return []
        found: list[str] = []
        for name, before, after in self._differing(old, new, place):
            if self._bad_entry(place, name, after, code=code or place.startswith(".")):
                continue
            if (before is not None and before[0] != trees.FOLDER) or (after is not None and after[0] != trees.FOLDER):
                found.append(place + name)
            if _folder(before) or _folder(after):
                found.extend(self._files(f"{place}{name}/", _folder(before), _folder(after), code=code))
        return found

    def _check_size(self, place: str, tree: bytes | None) -> None:
        total = count = 0
        for path, _, oid in files_of(self.objects, tree, place):
            size = self.objects.blob_size(oid)
            total, count = total + size, count + 1
            if size > CODE_FILE_BYTES_MAX:
                remedy = "leave it out of the ledger and load it at run time, or split it"
                self._say(Problem(f"{size:,} bytes; a file may have {CODE_FILE_BYTES_MAX:,}", path, remedy=remedy))
            if total > CODE_BYTES_MAX or count > CODE_FILES_MAX:
                limits = f"{CODE_BYTES_MAX:,} bytes in {CODE_FILES_MAX:,} files"
                self._say(Problem(f"more code than the {limits} that a function may have", place))
                return


def files_of(
    objects: Objects, tree: bytes | None, place: str = "", depth: int = 0
) -> Iterator[tuple[str, bytes, bytes]]:
    """(path, mode, raw object id) of every file below a tree."""
    if depth > FOLDER_DEPTH_MAX:
        raise InvalidError(f"nested deeper than {FOLDER_DEPTH_MAX} folders", file=place)
    for name, (mode, oid) in trees.read(objects, tree, place).items():
        if mode == trees.FOLDER:
            yield from files_of(objects, oid, f"{place}{name}/", depth + 1)
        elif mode in (trees.FILE, trees.EXECUTABLE):
            yield place + name, mode, oid
