"""Trees compared by the span that differs give what reading both whole would give, and accept no bad form."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from owsgit.ledger import trees
from owsgit.model.errors import InvalidError

Raw = tuple[bytes, bytes, bytes]
NAMES = st.sampled_from(
    [b"a", b"b", b"ab", b"a.", b"a-b", b"A", b"aa", b"b.json", b"B.json", b"z", b"m1", b"m2", b"m3", b"a0"]
)
IDS = st.sampled_from(
    [bytes([n]) * 20 for n in (0, 1, 32, 47, 49, 97)] + [b"40000 a\0" + b"x" * 12, b" a\0 b\0 A\0 z\0" + b"y" * 8]
)
ENTRIES = st.lists(st.tuples(st.sampled_from([b"100644", b"40000", b"100755", b"120000"]), NAMES, IDS), max_size=10)


MODES = (b"100644", b"100755", b"40000", b"120000")


class Store:
    """Objects as the tree reader needs them."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def add(self, data: bytes) -> bytes:
        oid = hashlib.sha1(data).digest()
        self.data[oid] = data
        return oid

    def tree(self, oid: bytes) -> bytes:
        return self.data[oid]


def raw(entries: list[Raw]) -> bytes:
    return b"".join(mode + b" " + name + b"\0" + oid for mode, name, oid in entries)


def well_formed(entries: list[Raw]) -> list[Raw]:
    """Sorted, each name once, also when folded."""
    seen: dict[bytes, Raw] = {}
    for entry in entries:
        seen.setdefault(entry[1].lower(), entry)
    return sorted(seen.values(), key=lambda entry: entry[1] + (b"/" if entry[0] == b"40000" else b""))


def whole(data: bytes) -> dict[str, tuple[bytes, bytes]] | None:
    """The tree read whole; None if its form is bad."""
    try:
        checked = trees._check(data, "x/")
    except InvalidError:
        return None
    return {trees._name(name): (mode, oid) for mode, name, oid in checked.entries(0, len(checked.starts) - 1)}


def compare(before: bytes, after: bytes) -> None:
    store = Store()
    old, new = store.add(before), store.add(after)
    trees._cache.__init__()  # type: ignore[misc]
    expected_old, expected_new = whole(before), whole(after)
    assert expected_old is not None
    try:
        found = trees.differences(store, old, new, "x/")  # type: ignore[arg-type]
    except InvalidError:
        odd = expected_new is not None and any(
            mode not in MODES or not name.isprintable() or " " in name for name, (mode, _) in expected_new.items()
        )
        assert expected_new is None or odd, "what reading it whole accepts is accepted, but for what is refused anyway"
        return
    assert expected_new is not None, "what reading it whole refuses is refused"
    names = {name for name, _ in expected_old.items() ^ expected_new.items()}
    assert found == [(name, expected_old.get(name), expected_new.get(name)) for name in sorted(names)]
    again = trees._cache.get(new)
    assert old == new or (again is not None and again.starts == trees._check(after, "x/").starts)


@settings(max_examples=1000, deadline=None)
@given(ENTRIES, ENTRIES)
def test_two_well_formed_trees(one: list[Raw], other: list[Raw]) -> None:
    before, after = well_formed(one), well_formed(other)
    if before and after:
        compare(raw(before), raw(after))


@settings(max_examples=1000, deadline=None)
@given(ENTRIES, st.data())
def test_edits_good_and_bad(entries: list[Raw], data: st.DataObject) -> None:
    before = well_formed(entries)
    if not before:
        return
    after = list(before)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(after)))
        edit = data.draw(st.sampled_from(["insert", "replace", "delete", "swap", "repeat"]))
        if edit == "insert" or not after or at == len(after):
            after.insert(at, (b"100644", data.draw(NAMES), data.draw(IDS)))
        elif edit == "replace":
            after[at] = (data.draw(st.sampled_from([b"100644", b"40000"])), data.draw(NAMES), data.draw(IDS))
        elif edit == "delete":
            del after[at]
        elif edit == "swap":
            after[at], after[at - 1] = after[at - 1], after[at]
        else:
            after.insert(at, after[at])
    compare(raw(before), raw(after))


@settings(max_examples=1000, deadline=None)
@given(ENTRIES, st.data())
def test_damaged_bytes(entries: list[Raw], data: st.DataObject) -> None:
    before = raw(well_formed(entries))
    if not before:
        return
    after = bytearray(before)
    at = data.draw(st.integers(0, len(after) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "add"]))
    if kind == "flip":
        after[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del after[at : at + data.draw(st.integers(1, 40))]
    else:
        after[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    compare(before, bytes(after))
