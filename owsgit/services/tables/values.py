"""AttributeValues and items: what is a valid one, how large it is, what equals what, and the bytes that are stored.

An AttributeValue is a dict of one type to its content, as on the wire; B and BS hold bytes. Errors: ValidationError, in
DynamoDB's words and in its order: attribute by attribute, each from the outside in. Types of Python are the front
door's to check. Sources:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html,
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html (sizes) and
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

import base64
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import orjson

from owsgit.services.tables import numbers
from owsgit.services.tables.errors import INVALID, ValidationError

__all__ = [
    "AttributeValue",
    "Item",
    "ValidationError",
    "check_item",
    "check_size",
    "check_value",
    "compare",
    "dump",
    "equal",
    "load",
    "size",
    "type_of",
    "value_size",
]

AttributeValue = dict[str, Any]
Item = dict[str, AttributeValue]

Element = TypeVar("Element")

ITEM_BYTES_MAX = 400 * 1024
NAME_BYTES_MAX = 65_535
DEPTH_MAX = 32
"""Levels of values in a value, itself among them."""

_EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
_SEVERAL = (
    "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
)
_TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
)
_NOT_UNICODE = f"{INVALID}The string contains characters that have no form in UTF-8"
_TOO_LARGE = "Item size has exceeded the maximum allowed size"
_UPDATE_TOO_LARGE = "Item size to update has exceeded the maximum allowed size"


def type_of(value: AttributeValue) -> str:
    """S, N, B, BOOL, NULL, SS, NS, BS, L or M; of a valid value."""
    return next(iter(value))


def check_item(item: Item) -> Item:
    """The item with numbers in normal form and sets in order, if all is valid. Not its size: see `check_size`."""
    changed: Item = {}
    for name, value in item.items():
        if not name:
            raise ValidationError(f"{INVALID}Empty attribute name")
        if not name.isascii() or len(name) > NAME_BYTES_MAX:
            _check_name(name)
        # Most attributes are strings and numbers: `check_value` says the same of them, in more time.
        if len(value) == 1:
            if "S" in value and value["S"].isascii():
                continue
            if "N" in value:
                number = numbers.normal(value["N"])
                if number is not value["N"]:
                    changed[name] = {"N": number}
                continue
        checked = check_value(value)
        if checked is not value:
            changed[name] = checked
    return {**item, **changed} if changed else item


def check_value(value: AttributeValue, *, depth: int = 1) -> AttributeValue:
    """The value with numbers in normal form and sets in order, if it is valid. `depth` is the level that it is on."""
    kinds = [kind for kind in value if kind in _CHECKS]
    if not kinds:
        raise ValidationError(_EMPTY)
    if depth > DEPTH_MAX:
        raise ValidationError(_TOO_DEEP)
    kind = kinds[0]
    content = value[kind]
    checked = _CHECKS[kind](content, depth)
    if len(kinds) > 1:
        for other in kinds[1:]:
            _CHECKS[other](value[other], depth)
        raise ValidationError(_SEVERAL)
    return value if checked is content and len(value) == 1 else {kind: checked}


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError(_NOT_UNICODE) from None


def _check_name(name: str) -> None:
    _check_unicode(name)
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValidationError(f"{INVALID}Attribute name is too large, must be less than {NAME_BYTES_MAX + 1} bytes")


def _check_string(content: str, _: int) -> str:
    if not content.isascii():
        _check_unicode(content)
    return content


def _check_null(content: bool, _: int) -> bool:
    if content is not True:
        raise ValidationError(f"{INVALID}Null attribute value types must have the value of true")
    return content


def _as_it_is(content: Any, _: int) -> Any:
    return content


def _check_strings(content: list[str], depth: int) -> list[str]:
    if not content:
        raise ValidationError(f"{INVALID}An string set  may not be empty")
    for element in content:
        _check_string(element, depth)
    if len(set(content)) < len(content):
        quoted = ", ".join(f'"{element}"' for element in _to_first_repeat(content))
        raise ValidationError(
            f"{INVALID}Input collection [{quoted}] contains duplicates.",
            older=f"{INVALID}Input collection [{', '.join(content)}] contains duplicates.",
        )
    return _in_order(content, sorted(content))


def _check_numbers(content: list[str], _: int) -> list[str]:
    if not content:
        raise ValidationError(f"{INVALID}An number set  may not be empty")
    found = [numbers.normal(element) for element in content]
    if len(set(found)) < len(found):
        raise ValidationError(
            f"{INVALID}Input collection contains duplicates.", older="Input collection contains duplicates"
        )
    return _in_order(content, sorted(found, key=Decimal))


def _check_binaries(content: list[bytes], _: int) -> list[bytes]:
    if not content:
        raise ValidationError(f"{INVALID}Binary sets should not be empty")
    if len(set(content)) < len(content):
        quoted = ",".join(f'"{base64.b64encode(element).decode()}"' for element in _to_first_repeat(content))
        shown = ", ".join(base64.b64encode(element).decode() for element in content)
        # There is no space in DynamoDB's own words either.
        raise ValidationError(
            f"{INVALID}Input collection [{quoted}]of type BS contains duplicates.",
            older=f"{INVALID}Input collection [{shown}]of type BS contains duplicates.",
        )
    return _in_order(content, sorted(content))


def _in_order(content: list[Element], found: list[Element]) -> list[Element]:
    """A set as DynamoDB gives it back, in the order of its elements; the same object if it is so already."""
    return content if found == content else found


def _to_first_repeat(content: Sequence[Any]) -> list[Any]:
    """As DynamoDB shows a set with duplicates: what it has read in order, up to the first repeat, and the rest."""
    seen: set[Any] = set()
    for number, element in enumerate(content):
        if element in seen:
            return [*sorted(seen), *content[number:]]
        seen.add(element)
    return list(content)


def _check_list(content: list[AttributeValue], depth: int) -> list[AttributeValue]:
    found = [check_value(element, depth=depth + 1) for element in content]
    return content if all(map(_is, found, content)) else found


def _check_map(content: Item, depth: int) -> Item:
    changed: Item = {}
    for name, value in content.items():
        if not name.isascii() or len(name) > NAME_BYTES_MAX:
            _check_name(name)
        checked = check_value(value, depth=depth + 1)
        if checked is not value:
            changed[name] = checked
    return {**content, **changed} if changed else content


def _is(a: object, b: object) -> bool:
    return a is b


_CHECKS: dict[str, Callable[[Any, int], Any]] = {
    "S": _check_string,
    "N": lambda content, _: numbers.normal(content),
    "B": _as_it_is,
    "BOOL": _as_it_is,
    "NULL": _check_null,
    "SS": _check_strings,
    "NS": _check_numbers,
    "BS": _check_binaries,
    "L": _check_list,
    "M": _check_map,
}


def size(item: Item) -> int:
    """Bytes of an item: of its names and its values, as DynamoDB counts them."""
    total = 0
    for name, value in item.items():
        total += len(name) if name.isascii() else len(name.encode())
        if "S" in value:
            text = value["S"]
            total += len(text) if text.isascii() else len(text.encode())
        else:
            total += _bytes_of(value)
    return total


def check_size(item: Item, *, update: bool = False) -> int:
    """The size of an item that is not too large. `update`: it is what an update makes of one."""
    found = size(item)
    if found > ITEM_BYTES_MAX:
        raise ValidationError(_UPDATE_TOO_LARGE if update else _TOO_LARGE)
    return found


def _bytes_of(value: AttributeValue) -> int:
    [(kind, content)] = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return numbers.size(content)
        case "B":
            return len(content)
        case "SS":
            return sum(len(element.encode()) for element in content)
        case "NS":
            return sum(map(numbers.size, content))
        case "BS":
            return sum(map(len, content))
        case "L":
            return 3 + sum(1 + _bytes_of(element) for element in content)
        case "M":
            return 3 + len(content) + size(content)
        case _:  # BOOL and NULL
            return 1


def value_size(value: AttributeValue) -> int | None:
    """What the function size() of expressions gives: characters of UTF-16 (as Java counts), bytes, or elements."""
    [(kind, content)] = value.items()
    if kind == "S":
        return len(content) if content.isascii() else len(content.encode("utf-16-le")) // 2
    return None if kind in ("N", "BOOL", "NULL") else len(content)


def equal(a: AttributeValue, b: AttributeValue) -> bool:
    """Whether two valid values are the same: numbers by value, sets without order."""
    if a == b:
        return True
    [(kind, left)], [(other, right)] = a.items(), b.items()
    if kind != other:
        return False
    match kind:
        case "N":
            return numbers.normal(left) == numbers.normal(right)
        case "NS":
            return _normals(left) == _normals(right)
        case "SS" | "BS":
            return set(left) == set(right)
        case "L":
            return len(left) == len(right) and all(map(equal, left, right))
        case "M":
            return left.keys() == right.keys() and all(equal(value, right[name]) for name, value in left.items())
        case _:
            return False


def _normals(content: Collection[str]) -> set[str]:
    return {numbers.normal(element) for element in content}


def compare(a: AttributeValue, b: AttributeValue) -> int | None:
    """-1, 0 or 1 for two strings (by their UTF-8), numbers or binaries; None for anything else, which has no order."""
    [(kind, left)], [(other, right)] = a.items(), b.items()
    if kind != other:
        return None
    if kind == "N":
        return numbers.compare(left, right)
    if kind in ("S", "B"):  # the order of code points is that of UTF-8
        return int(left > right) - int(left < right)
    return None


def dump(item: Item) -> bytes:
    """The bytes in which a valid item is stored: its JSON on the wire, in an array if there are binaries in it."""
    try:
        return orjson.dumps(item)
    except TypeError:
        return orjson.dumps([item], default=_base64)


def _base64(content: object) -> str:
    if isinstance(content, bytes):
        return base64.b64encode(content).decode()
    raise TypeError(type(content).__name__)


def load(stored: bytes) -> Item:
    """What was dumped, exactly."""
    found = orjson.loads(stored)
    if type(found) is dict:
        return found
    item: Item = found[0]
    for value in item.values():
        _decode(value)
    return item


def _decode(value: AttributeValue) -> None:
    [(kind, content)] = value.items()
    if kind == "B":
        value["B"] = base64.b64decode(content)
    elif kind == "BS":
        value["BS"] = [base64.b64decode(element) for element in content]
    elif kind in ("L", "M"):
        for element in content if kind == "L" else content.values():
            _decode(element)
