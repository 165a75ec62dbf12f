"""What is asked of the targets of references that no JSON file says: that they were there at a commit, and their files.

Told from objects alone, so that every node, every clone and CI finds the same.
"""

from collections.abc import Iterable, Iterator, Sequence

from owsgit.ledger import commits, trees
from owsgit.ledger.objects import Objects
from owsgit.model.change import Change
from owsgit.model.errors import Problem
from owsgit.model.resource import Kind, Resource
from owsgit.model.spec import Reference
from owsgit.model.state import State

HISTORY_COMMITS_MAX = 100_000
"""How far back a version may lie: some seconds to look through, where one is named that there is not."""


def missing_files(objects: Objects, state: State, changes: Sequence[Change]) -> Iterator[Problem]:
    """References of what changed, and references to it, that name files which the target does not have."""
    changed = {change.key for change in changes if change.after is not None}
    touching = {key for change in changes if change.files for key in state.referrers.get(change.key, ())}
    for key in sorted(changed | touching):
        resource = state.resources.get(key)
        for ref in resource.references if resource is not None else ():
            target = state.get(ref.kind, ref.name) if ref.files and ref.kind in state.kinds.by_name else None
            if resource is not None and target is not None and not _has_one(objects, target, ref.files):
                folder = target.file.rpartition("/")[0]
                yield Problem(
                    f"the {ref.kind} {ref.name} has no {' and no '.join(map(repr, ref.files))}",
                    resource.file,
                    ref.path,
                    f"correct the path, or add the file to {folder}/",
                )


def _has_one(objects: Objects, target: Resource, paths: Iterable[str]) -> bool:
    assert target.tree is not None
    for path in paths:
        found = _at(objects, target.tree, path.rstrip("/").split("/"))
        is_folder = found is not None and found[0] == trees.FOLDER
        if found is not None and is_folder == path.endswith("/"):
            return True
    return False


def _at(objects: Objects, tree: str, names: Sequence[str]) -> trees.Entry | None:
    """The entry at a path below a tree."""
    entry: trees.Entry | None = (trees.FOLDER, bytes.fromhex(tree))
    for name in names:
        if entry is None or entry[0] != trees.FOLDER:
            return None
        entry = trees.read(objects, entry[1], "").get(name)
    return entry


def missing_versions(
    objects: Objects, state: State, parent: str | None, changes: Iterable[Change]
) -> Iterator[Problem]:
    """References that are new, and name a commit that is not on main up to `parent`, or has no such resource."""
    asked = [(change.after, ref) for change in changes if change.after is not None for ref in _new_versions(change)]
    known = _on_main(objects, parent, {ref.commit for _, ref in asked}) if asked else set()
    for resource, ref in asked:
        kind = state.kinds.by_name.get(ref.kind)
        if ref.commit not in known:
            yield Problem(
                f"{ref.commit} is no commit of main before this one",
                resource.file,
                ref.path,
                "git log --first-parent main shows them; a commit that was rebased has another id",
            )
        elif kind is not None and not _was_there(objects, kind, ref):
            file = kind.file(ref.name)
            yield Problem(
                f"there was no {ref.kind} {ref.name} at {ref.commit[:10]}",
                resource.file,
                ref.path,
                f"git log --first-parent -- {file} shows its changes",
            )


def _new_versions(change: Change) -> Iterator[Reference]:
    former = {(ref.kind, ref.name, ref.commit) for ref in change.before.references} if change.before else set()
    for ref in change.after.references if change.after is not None else ():
        if ref.commit and (ref.kind, ref.name, ref.commit) not in former:
            yield ref


def _on_main(objects: Objects, parent: str | None, wanted: set[str]) -> set[str]:
    """Those of the commits that are on the first-parent chain that ends at `parent`."""
    left, oid = set(wanted), parent
    for _ in range(HISTORY_COMMITS_MAX):
        if oid is None or not left:
            break
        left.discard(oid)
        oid = commits.parse(oid, objects.commit(oid)).first_parent
    return wanted - left


def _was_there(objects: Objects, kind: Kind, ref: Reference) -> bool:
    tree = commits.parse(ref.commit, objects.commit(ref.commit)).tree
    return _at(objects, tree, kind.file(ref.name).split("/")) is not None
