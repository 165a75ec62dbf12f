"""Keys of tables and indexes: which attributes they are, whether an item has good ones, and their bytes in order.

The bytes of a key with one attribute are those of `encode`; with several (indexes only, up to four hash and four range
attributes) those of `encode_all`, whose order is that of the tuples. Errors: ValidationError, in DynamoDB's words, and
in its order: key by key, each first for its presence, then its type, emptiness and size. Source:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from owsgit.services.tables import numbers
from owsgit.services.tables.engine import Entry, Key
from owsgit.services.tables.errors import INVALID, NOT_VALID, EmptyKeyError, ValidationError
from owsgit.services.tables.values import AttributeValue, Item, type_of

HASH_BYTES_MAX = 2048
RANGE_BYTES_MAX = 1024

ENCODED_RANGE_BYTES_MAX = 2 * RANGE_BYTES_MAX + 4 * 2
"""Of the range keys of an item: each byte may be escaped, and each of four attributes is terminated."""

_NO_MATCH = "The provided key element does not match the schema"
_HASH_TOO_LARGE = f"{INVALID}Size of hashkey has exceeded the maximum size limit of{HASH_BYTES_MAX} bytes"
_RANGE_TOO_LARGE = f"{INVALID}Aggregated size of all range keys has exceeded the size limit of {RANGE_BYTES_MAX} bytes"
_UPDATED = "The update expression attempted to update "
_UPDATED_TYPE = f"{_UPDATED}the secondary index key to unsupported type"
_UPDATED_SIZE = f"{_UPDATED}the secondary index key beyond allowed size limits"
_UPDATED_EMPTY = f"{NOT_VALID}{_UPDATED}a secondary index key to a value that is not supported. "
_EMPTY_KEY = "The AttributeValue for a key attribute cannot contain an empty {} value."
_EMPTY_INDEX_KEY = f"{NOT_VALID}A value specified for a secondary index key is not supported. {_EMPTY_KEY}"


class Attribute(NamedTuple):
    """A key attribute: its name and its type, S, N or B."""

    name: str
    type: str


@dataclass(frozen=True)
class KeySchema:
    """The key attributes of a table (one hash, at most one range attribute) or an index, in their order."""

    hash: tuple[Attribute, ...]
    range: tuple[Attribute, ...] = ()

    @cached_property
    def attributes(self) -> tuple[Attribute, ...]:
        return (*self.hash, *self.range)

    def names(self) -> list[str]:
        return [attribute.name for attribute in self.attributes]


def encode(value: AttributeValue) -> bytes:
    """The bytes of one value of a key, in the order of the values of its type: UTF-8, numbers, bytes."""
    if "S" in value:
        return value["S"].encode()  # type: ignore[no-any-return] # the content of S is a string
    return numbers.encode(value["N"]) if "N" in value else value["B"]


def encode_all(values: Sequence[AttributeValue]) -> bytes:
    """The bytes of several values, in the order of the tuples of them; those of the first ones are a prefix.

    A zero byte is escaped by 255; a value is ended by zero and one, which is below whatever a longer one goes on with.
    """
    return b"".join(encode(value).replace(b"\x00", b"\x00\xff") + b"\x00\x01" for value in values)


def encode_key(attributes: Sequence[Attribute], values: Sequence[AttributeValue]) -> bytes:
    """The bytes of the hash or the range part of a key, of all its values."""
    return encode(values[0]) if len(attributes) == 1 else encode_all(values)


def after(key: bytes) -> bytes:
    """The lowest bytes above these: the inclusive bound for what is greater."""
    return key + b"\x00"


def before(key: bytes) -> bytes | None:
    """The highest bytes of a range key below these: the inclusive bound for what is less. None if nothing is."""
    if not key:
        return None
    if key[-1] == 0:
        return key[:-1]
    return last(key[:-1] + bytes((key[-1] - 1,)))


def last(prefix: bytes) -> bytes:
    """The highest bytes of a range key that begin so: the inclusive bound for begins_with."""
    return prefix + b"\xff" * (ENCODED_RANGE_BYTES_MAX - len(prefix))


def key_of(schema: KeySchema, item: Item) -> Key:
    """The key of a valid item that is to be written into a table."""
    key = _table_key(schema.hash[0], item, HASH_BYTES_MAX, _HASH_TOO_LARGE)
    if not schema.range:
        return Key(key)
    return Key(key, _table_key(schema.range[0], item, RANGE_BYTES_MAX, _RANGE_TOO_LARGE))


def key_from(schema: KeySchema, key: Item) -> Key:
    """The key that a parameter Key names: it has the attributes of the table's key and no others."""
    attributes = schema.attributes
    if len(key) != len(attributes):
        raise ValidationError(_NO_MATCH)
    for name, kind in attributes:
        if name not in key or kind not in key[name]:
            raise ValidationError(_NO_MATCH)
    return key_of(schema, key)


def check_fits(schema: KeySchema, item: Item) -> None:
    """That an item has the attributes of the table's key, as BatchWriteItem says it."""
    if not all(kind in item.get(name, ()) for name, kind in (*schema.hash, *schema.range)):
        raise ValidationError(_NO_MATCH)


def _table_key(attribute: Attribute, item: Item, most: int, too_large: str) -> bytes:
    name, kind = attribute
    value = item.get(name)
    if value is None:
        raise ValidationError(f"{INVALID}Missing the key {name} in the item")
    if kind not in value:
        raise ValidationError(f"{INVALID}Type mismatch for key {name} expected: {kind} actual: {type_of(value)}")
    if not value[kind]:
        raise EmptyKeyError(f"{NOT_VALID}{_EMPTY_KEY.format(_WORDS[kind])} Key: {name}")
    encoded = encode(value)
    if len(encoded) > most:
        raise ValidationError(too_large)
    return encoded


_WORDS = {"S": "string", "B": "binary"}


def entry_of(index: str, schema: KeySchema, item: Item, *, update: bool = False) -> Entry | None:
    """Where a valid item stands in an index; None if it lacks one of the index's keys.

    What it has of them has to be good in any case. `update`: an update made it; DynamoDB has other words for that.
    """
    found = _index_key(index, schema.hash, item, HASH_BYTES_MAX, _UPDATED_SIZE if update else _HASH_TOO_LARGE, update)
    ranges = _index_key(
        index, schema.range, item, RANGE_BYTES_MAX, _UPDATED_SIZE if update else _RANGE_TOO_LARGE, update
    )
    return None if found is None or ranges is None else Entry(index, found, ranges)


def _index_key(
    index: str, attributes: Sequence[Attribute], item: Item, most: int, too_large: str, update: bool
) -> bytes | None:
    values = []
    total = 0
    for attribute in attributes:
        value = item.get(attribute.name)
        if value is None:
            continue
        _check_index_key(index, attribute, value, update)
        values.append(value)
        total += len(encode(value))
    if total > most:
        raise ValidationError(too_large)
    if len(values) < len(attributes):
        return None
    return encode_key(attributes, values) if values else b""


def _check_index_key(index: str, attribute: Attribute, value: AttributeValue, update: bool) -> None:
    name, kind = attribute
    if kind not in value:
        if update:
            raise ValidationError(_UPDATED_TYPE)
        mismatch = f"Type mismatch for Index Key {name} Expected: {kind} Actual: {type_of(value)}"
        raise ValidationError(f"{INVALID}{mismatch} IndexName: {index}")
    if not value[kind]:
        word = _WORDS[kind]
        if update:
            raise ValidationError(f"{_UPDATED_EMPTY}{_EMPTY_KEY.format(word)}")
        raise ValidationError(f"{_EMPTY_INDEX_KEY.format(word)} IndexName: {index}, IndexKey: {name}")
