"""Trees as the ledger takes them: no symlinks, no submodules, no names that are a trap on some system.

`receive.fsckObjects` lets all of those through; here they are refused, on the raw bytes of the tree.
"""

import re
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from itertools import accumulate
from threading import Lock

from owsgit.ledger.objects import Objects
from owsgit.model.errors import InvalidError, Problem

FILE, EXECUTABLE, FOLDER = b"100644", b"100755", b"40000"
_MODES = {b"120000": "a symlink", b"160000": "a submodule"}
_ENTRY = re.compile(rb"([0-7]{5,6}) ([^/\0]+)\0(.{20})", re.DOTALL)

PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
CODE_NAME = re.compile(r"(?!-)[!#-&(-9;-\[\]-_a-~ ]{1,255}")
"""Any printable ASCII without quotes, backquote, backslash and colon: vendored packages need `@` and `+`."""

_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
"""Names that Windows takes for devices, whatever their ending."""

_GIT_LIKE = re.compile(r"(?i)\.?git(~[0-9]+)?[. ]*|\.git.*")
"""Names that git, or a file system that folds or shortens names, takes for its own folder or its own files."""

FORGE_NAMES = frozenset({".github", ".forgejo", ".gitlab-ci.yml"})
"""Dot names that forges read, allowed at the root only."""


Entry = tuple[bytes, bytes]
"""Mode as git writes it, and the raw 20 bytes of the object id. A plain tuple: a folder may have 10,000 entries."""

Tree = dict[str, Entry]
Difference = tuple[str, Entry | None, Entry | None]
"""A name, and its entry before and after."""

CACHE_BYTES_MAX = 32 * 1024 * 1024
"""Of raw trees whose form was checked, so that the next commit's trees are compared with them."""

_Found = list[tuple[bytes, bytes, bytes]]


class _Checked:
    """A raw tree of good form, and where its entries start; the last of `starts` is the end of the data."""

    __slots__ = ("data", "starts")

    def __init__(self, data: bytes, starts: list[int]) -> None:
        self.data, self.starts = data, starts

    def entries(self, first: int, last: int) -> _Found:
        """The entries from index `first` to before `last`."""
        return _ENTRY.findall(self.data, self.starts[first], self.starts[last])


class _Cache:
    """Checked trees by id, the least recently used ones dropped first."""

    def __init__(self) -> None:
        self._trees: OrderedDict[bytes, _Checked] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # code is laid out in another thread than pushes are verified in

    def get(self, oid: bytes) -> _Checked | None:
        with self._lock:
            found = self._trees.get(oid)
            if found is not None:
                self._trees.move_to_end(oid)
            return found

    def put(self, oid: bytes, checked: _Checked) -> None:
        with self._lock:
            if oid not in self._trees:
                self._bytes += len(checked.data)
            self._trees[oid] = checked
            while self._bytes > CACHE_BYTES_MAX and len(self._trees) > 1:
                self._bytes -= len(self._trees.popitem(last=False)[1].data)


_cache = _Cache()


def read(objects: Objects, oid: bytes | None, place: str) -> Tree:
    """The tree `oid`, with its form checked (order, modes, unique names). Raises InvalidError."""
    if oid is None:
        return {}
    checked = _checked(objects, oid, place)
    return {_name(name): (mode, entry) for mode, name, entry in checked.entries(0, len(checked.starts) - 1)}


def differences(objects: Objects, old: bytes | None, new: bytes | None, place: str) -> list[Difference]:
    """Every entry that differs between two trees (None: no tree), by name. The form of the new one is checked.

    Only the span between the first and the last difference is parsed: in a folder of 10,000 entries of which one
    changed, that is one entry.
    """
    if old is None or new is None:
        before, after = read(objects, old, place), read(objects, new, place)
        return [(name, before.get(name), after.get(name)) for name in (before or after)]
    if old == new:
        return []
    before_found, after_found = _span(_checked(objects, old, place), objects.tree(new), new, place)
    before = {_name(name): (mode, oid) for mode, name, oid in before_found}
    after = {_name(name): (mode, oid) for mode, name, oid in after_found}
    return [
        (name, before.get(name), after.get(name))
        for name in sorted({name for name, _ in before.items() ^ after.items()})
    ]


def _name(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _checked(objects: Objects, oid: bytes, place: str) -> _Checked:
    found = _cache.get(oid)
    if found is None:
        found = _check(objects.tree(oid), place)
        _cache.put(oid, found)
    return found


def _check(data: bytes, place: str) -> _Checked:
    """Check a whole tree. Raises InvalidError."""
    if not data:
        raise InvalidError("an empty folder is not allowed", file=place or "/", remedy="git itself never commits one")
    found = _parse(data, place)
    _check_order(found, place)
    if len({name.lower() for _, name, _ in found}) != len(found):
        raise _case_collision(found, place)
    return _Checked(data, list(accumulate((_size(entry) for entry in found), initial=0)))


def _parse(data: bytes, place: str) -> _Found:
    found: _Found = _ENTRY.findall(data)
    if sum(map(_size, found)) != len(data):
        raise InvalidError("this folder is not a well-formed git tree", file=place or "/")
    return found


def _size(entry: tuple[bytes, bytes, bytes]) -> int:
    return len(entry[0]) + len(entry[1]) + 22


def _check_order(found: _Found, place: str) -> None:
    """git sorts a folder as if its name ended with '/'; a name stands once."""
    keys = [name + b"/" if mode == FOLDER else name for mode, name, _ in found]
    names = {name for _, name, _ in found}
    if len(names) != len(found) or keys != sorted(keys):
        raise InvalidError("this folder has an entry twice or out of order", file=place or "/")


def _span(old: _Checked, data: bytes, oid: bytes, place: str) -> tuple[_Found, _Found]:
    """The entries of both trees in the span in which they differ. The new tree `oid` is checked and cached."""
    if not data:
        _check(data, place)
    prefix = _common(old.data, data)
    first = min(bisect_right(old.starts, prefix) - 1, len(old.starts) - 1)
    start = old.starts[first]
    suffix = _common_end(old.data, data, min(len(old.data), len(data)) - start)
    last = bisect_left(old.starts, len(old.data) - suffix)
    grown = len(data) - len(old.data)
    before = old.entries(first, last)
    after = _parse(data[start : old.starts[last] + grown], place)
    around = [*old.entries(max(first - 1, 0), first), *after, *old.entries(last, min(last + 1, len(old.starts) - 1))]
    _check_order(around, place)
    known = {name for _, name, _ in before}
    _check_case(data, [name for _, name, _ in after if name not in known], place)
    middle = list(accumulate((_size(entry) for entry in after), initial=start))
    tail = old.starts[last + 1 :] if not grown else [each + grown for each in old.starts[last + 1 :]]
    _cache.put(oid, _Checked(data, [*old.starts[:first], *middle, *tail]))
    return before, after


def _common(one: bytes, other: bytes) -> int:
    """The length of the common prefix, by halving: comparing bytes is far faster than looping over them."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _common_end(one: bytes, other: bytes, most: int) -> int:
    """The length of the common suffix, `most` at the most."""
    low, high = 0, most
    if one[len(one) - high :] == other[len(other) - high :]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle
    return low


def _check_case(data: bytes, added: list[bytes], place: str) -> None:
    """Whether an added name differs from another one only in case; a rare match in a binary id is looked at again."""
    if added:
        folded = data.lower()
        if any(folded.count(b" " + name.lower() + b"\0") > 1 for name in added):
            _check(data, place)


def _case_collision(found: _Found, place: str) -> InvalidError:
    seen: dict[bytes, bytes] = {}
    for _, name, _ in found:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return InvalidError(
                f"{place}{_name(other)} and {place}{_name(name)} differ only in case",
                file=place + _name(name),
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
    if name.endswith((" ", ".")) or _DEVICE.fullmatch(name):
        return Problem(f"the name {name!r} cannot be checked out on every system", shown, remedy="rename it")
    return None


def _forge(place: str, name: str) -> bool:
    return not place and name in FORGE_NAMES
