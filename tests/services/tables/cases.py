"""Requests that are written down as data: `validation.yaml`, which says what they are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.services.tables.api import PLAIN, WHOLE, keys

VALIDATION = Path(__file__).with_name("validation.yaml")
BYTES = {"attributeDefinitions": [{"attributeName": "id", "attributeType": "B"}], "keySchema": keys("id")}
TABLES = {"whole": WHOLE, "plain": PLAIN, "bytes": BYTES}


@dataclass(frozen=True)
class Case:
    """A request, and what is said of it."""

    operation: str
    name: str
    ask: dict[str, Any]
    says: str
    source: str
    code: str = "ValidationException"
    reasons: list[str | None] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.operation}: {self.name}"


def validation() -> Iterator[Case]:
    for operation, cases in _loaded().items():
        if operation == "sources":
            continue
        for case in cases:
            yield Case(operation, case.pop("case"), expanded(case.pop("ask")), **case)


def sources() -> dict[str, str]:
    """Where the words were seen."""
    found: dict[str, str] = _loaded()["sources"]
    return found


def _loaded() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(VALIDATION.read_text(), yaml.CSafeLoader)
    return found


def expanded(given: Any) -> Any:
    """What the file says in short, at length."""
    if isinstance(given, list):
        return [expanded(each) for each in given]
    if not isinstance(given, dict):
        return given
    match given:
        case {"$times": [count, each]}:
            return [_numbered(expanded(each), str(number)) for number in range(count)]
        case {"$text": [text, count]}:
            return text * count
        case {"$deep": levels}:
            value: dict[str, Any] = {"S": "leaf"}
            for _ in range(levels):
                value = {"M": {"n": value}}
            return value
    return {name: expanded(each) for name, each in given.items()}


def _numbered(given: Any, number: str) -> Any:
    if isinstance(given, dict):
        return {name: _numbered(each, number) for name, each in given.items()}
    return given.replace("#", number) if isinstance(given, str) else given
