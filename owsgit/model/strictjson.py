"""JSON as the ledger takes it: RFC 8259 with what it leaves open closed.

No duplicate keys (the standard library silently takes the last one: a `Deny` merged with an `Allow` would vanish), no
NaN and no Infinity, no lone surrogates, no byte-order mark, bounded size and depth.
"""

import json
import math
from typing import Any

from owsgit.model.errors import InvalidError

JSON_BYTES_MAX = 1024 * 1024
"""An infra file is written and reviewed by people; DynamoDB's and IAM's largest documents are far below 1 MiB."""

JSON_DEPTH_MAX = 64
"""Deeper than any AWS document; keeps every later recursive walk within Python's stack."""


class _Duplicate:
    """Stands in for an object with a key twice, until the walk that finds its JSON path."""

    def __init__(self, key: str) -> None:
        self.key = key


class _NotANumberError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    return _Duplicate(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]


def _constant(name: str) -> Any:
    raise _NotANumberError(name)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NotANumberError(digits[:40])
    return value


def loads(data: bytes, file: str) -> Any:
    """Parse one document. Raises InvalidError that names `file`, the JSON path or the line, and the remedy."""
    if len(data) > JSON_BYTES_MAX:
        raise InvalidError(
            f"{len(data):,} bytes are more than the {JSON_BYTES_MAX:,} that a JSON file may have", file=file
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidError(f"not UTF-8 at byte {error.start}", file=file, remedy="save the file as UTF-8") from None
    if text.startswith("\ufeff"):
        raise InvalidError("starts with a byte-order mark", file=file, remedy="save the file as UTF-8 without BOM")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except _NotANumberError as error:
        raise InvalidError(f"{error} is not a JSON number", file=file, remedy="write a finite number") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise InvalidError(
            f"not JSON: {what} at line {error.lineno} column {error.colno}", file=file, remedy="correct the syntax"
        ) from None
    except RecursionError:
        raise InvalidError(f"nested deeper than {JSON_DEPTH_MAX} levels", file=file) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise InvalidError(str(error), file=file) from None
    _check(value, data, file)
    return value


def _check(value: Any, data: bytes, file: str) -> None:
    """Refuse what only a walk can see. The walk is skipped for the common document that cannot have any of it."""
    shallow = data.count(b"{") + data.count(b"[") <= JSON_DEPTH_MAX
    plain = b"\\u" not in data
    if shallow and plain and not _has_duplicate(value):
        return
    waiting: list[tuple[Any, str, int]] = [(value, "$", 1)]
    while waiting:
        node, path, depth = waiting.pop()
        if depth > JSON_DEPTH_MAX and isinstance(node, dict | list):
            raise InvalidError(f"nested deeper than {JSON_DEPTH_MAX} levels", file=file)
        if isinstance(node, _Duplicate):
            raise InvalidError(
                f"the key {node.key!r} appears twice in one object",
                file=file,
                path=path,
                remedy="keep one of them; after a merge, check which one is meant",
            )
        if isinstance(node, str):
            _check_text(node, file, path)
        elif isinstance(node, dict):
            for key, member in node.items():
                _check_text(key, file, path)
                waiting.append((member, join(path, key), depth + 1))
        elif isinstance(node, list):
            waiting.extend((member, f"{path}[{index}]", depth + 1) for index, member in enumerate(node))


def _has_duplicate(value: Any) -> bool:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, _Duplicate):
            return True
    return False


def _check_text(text: str, file: str, path: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidError("a lone surrogate is not text", file=file, path=path) from None


def join(path: str, key: str) -> str:
    """The JSON path of member `key` of the object at `path` (RFC 9535, brackets where a name needs them)."""
    return f"{path}.{key}" if key.isidentifier() else f"{path}['{key}']"


def problem_path(parts: tuple[str | int, ...]) -> str:
    """The JSON path of a location given as keys and indices."""
    path = "$"
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else join(path, part)
    return path
