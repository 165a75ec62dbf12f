"""The entries that an item has in indexes, as engines keep them beside it."""

import struct
from collections.abc import Collection

_HEAD = struct.Struct(">III")  # an entry: the index, lengths of its keys

Packed = tuple[int, bytes, bytes]
"""An entry: the number of its index, its hash and its range key."""


def pack(entries: Collection[Packed]) -> bytes:
    return b"".join(_HEAD.pack(id_, len(hash_), len(range_)) + hash_ + range_ for id_, hash_, range_ in entries)


def unpack(packed: bytes) -> list[Packed]:
    found, at = [], 0
    while at < len(packed):
        id_, hash_, range_ = _HEAD.unpack_from(packed, at)
        at += _HEAD.size
        found.append((id_, packed[at : at + hash_], packed[at + hash_ : at + hash_ + range_]))
        at += hash_ + range_
    return found
