"""Trees as the ledger takes them: no symlinks, no submodules, no names that are a trap on some system.

`receive.fsckObjects` lets all of those through; here they are refused, on the raw bytes of the tree.
"""

import re
from functools import lru_cache

from owsgit.ledger.objects import Objects
from owsgit.model.errors import InvalidError, Problem

FILE, EXECUTABLE, FOLDER = b"100644", b"100755", b"40000"
_MODES = {b"120000": "a symlink", b"160000": "a submodule"}
_ENTRY = re.compile(rb"([0-7]{5,6}) ([^/\0]+)\0(.{20})", re.DOTALL)

PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
CODE_NAME = re.compile(r"(?!-)[!#-&(-9;-\[\]-_a-~ ]{1,255}")
"""Any printable ASCII without quotes, backquote, backslash and colon: vendored packages need `@` and `+`."""

_GIT_LIKE = re.compile(r"(?i)\.?git(~[0-9]+)?[. ]*|\.git.*")
"""Names that git, or a file system that folds or shortens names, takes for its own folder or its own files."""

FORGE_NAMES = frozenset({".github", ".forgejo", ".gitlab-ci.yml"})
"""Dot names that forges read, allowed at the root only."""


Entry = tuple[bytes, bytes]
"""Mode as git writes it, and the raw 20 bytes of the object id. A plain tuple: a folder may have 10,000 entries."""

Tree = dict[str, Entry]

EMPTY: Tree = {}


def read(objects: Objects, oid: bytes | None, place: str) -> Tree:
    """The tree `oid`, with its form checked (order, modes, unique names). Raises InvalidError."""
    if oid is None:
        return EMPTY
    return _parsed(objects.tree(oid), place)


@lru_cache(maxsize=256)
def _parsed(data: bytes, place: str) -> Tree:
    found = _ENTRY.findall(data)
    if sum(len(mode) + len(name) + 22 for mode, name, _ in found) != len(data):
        raise InvalidError("this folder is not a well-formed git tree", file=place or "/")
    tree: Tree = {}
    ordered = []
    for mode, name, oid in found:
        tree[name.decode("utf-8", "backslashreplace")] = (mode, oid)
        ordered.append(name + b"/" if mode == FOLDER else name)
    if not tree and place:
        raise InvalidError("an empty folder is not allowed", file=place, remedy="git itself never commits one")
    if len(tree) != len(found) or ordered != sorted(ordered):
        raise InvalidError("this folder has an entry twice or out of order", file=place or "/")
    if len({name.lower() for name in tree}) != len(tree):
        raise _case_collision(tree, place)
    return tree


def _case_collision(tree: Tree, place: str) -> InvalidError:
    seen: dict[str, str] = {}
    for name in tree:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return InvalidError(
                f"{place}{other} and {place}{name} differ only in case",
                file=place + name,
                remedy="rename one: many file systems cannot hold both",
            )
    raise AssertionError("no collision")


def problem_with(place: str, name: str, mode: bytes, *, code: bool) -> Problem | None:
    """What is wrong with an entry, if anything. `code`: inside a function's folder, where more is allowed."""
    path = place + name
    shown = path if path.isprintable() else ascii(path)[1:-1]
    if mode in _MODES:
        return Problem(f"{_MODES[mode]} is not allowed", shown, remedy="commit the file itself")
    if mode == EXECUTABLE and not code:
        return Problem("an infra file may not be executable", shown, remedy=f"git update-index --chmod=-x {shown}")
    if mode not in (FILE, EXECUTABLE, FOLDER):
        return Problem(f"the mode {mode.decode()} is not allowed", shown, remedy="use 100644 (or 100755 for code)")
    if name in (".", "..") or (_GIT_LIKE.fullmatch(name) and name != ".gitignore" and not _forge(place, name)):
        return Problem(f"the name {name!r} is not allowed", shown, remedy="rename or remove it")
    if name.startswith(".") and not code and name != ".gitignore" and not _forge(place, name):
        return Problem(f"the dot name {name!r} is not allowed here", shown, remedy="rename or remove it")
    if not (CODE_NAME if code else PLAIN_NAME).fullmatch(name):
        allowed = "printable ASCII without quotes, backslash, colon, leading '-'" if code else "A-Z a-z 0-9 . _ -"
        return Problem(f"the name {name!a} is not allowed", shown, remedy=f"use {allowed}")
    if code and name.endswith((" ", ".")):
        return Problem(f"the name {name!r} ends with a space or a dot", shown, remedy="rename it")
    return None


def _forge(place: str, name: str) -> bool:
    return not place and name in FORGE_NAMES
