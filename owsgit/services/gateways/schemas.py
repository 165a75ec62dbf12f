"""JSON Schemas of a gateway: what is taken, and how they are compiled.

A schema is draft 4, as API Gateway's models are, or what its `$schema` says. It refers to models of its own file
alone (`#/models/Name`); nothing is fetched. Patterns run in an engine of linear time, so that no text can stall it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

DRAFTS = {
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
}
DRAFT_4 = "http://json-schema.org/draft-04/schema"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"

COST_MAX = 20_000
"""Schemas that one schema stands for, each reference counted as what it refers to: bounds compiling and checking."""

REGEX_BYTES_MAX = 1024 * 1024
"""Of one compiled pattern."""

MODELS_POINTER = "#/models/"
ONE = (
    "not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "additionalItems", "items",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
MAPS = ("properties", "patternProperties", "definitions", "$defs", "dependentSchemas", "dependencies")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
"""Keywords that hold a schema, schemas by name, schemas in a list."""

FORBIDDEN = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary")

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class SchemaError(Exception):
    """A schema that is not taken; `path` within it."""

    message: str
    path: Path = ()


def refused(title: str, errors: list[tuple[Path, str]]) -> ValidationError:
    """For a pydantic validator to raise: errors at places below what it validates."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(type=PydanticCustomError("schema", "{why}", {"why": why}), loc=path, input=None)
            for path, why in errors
        ],
    )


def below(schema: Any) -> Iterator[tuple[Path, Any]]:
    """The schemas directly in a schema, each with where it is."""
    if not isinstance(schema, dict):
        return
    for word in ONE:
        if isinstance(schema.get(word), dict | bool):
            yield (word,), schema[word]
    for word in MAPS:
        if isinstance(schema.get(word), dict):
            for name, each in schema[word].items():
                if isinstance(each, dict | bool):  # `dependencies` may also list names
                    yield (word, name), each
    for word in LISTS:
        if isinstance(schema.get(word), list):
            for index, each in enumerate(schema[word]):
                yield (word, index), each


def walk(schema: Any, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A schema and all in it, each with where it is."""
    if isinstance(schema, dict):
        yield path, schema
        for more, each in below(schema):
            yield from walk(each, path + more)


def mapped(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy in which `change` was asked about every schema, the inner ones first."""
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for path, each in below(schema):
        if len(path) == 1:
            made[str(path[0])] = mapped(each, change)
            continue
        word, key = str(path[0]), path[1]
        if made[word] is schema[word]:
            made[word] = schema[word].copy()
        made[word][key] = mapped(each, change)
    return change(made)


def draft_of(schema: Mapping[str, Any]) -> str:
    """Raises SchemaError."""
    given = schema.get("$schema", DRAFT_4)
    if not isinstance(given, str) or given.rstrip("#") not in DRAFTS:
        raise SchemaError(f"{given!r:.100} is no draft that is known: {', '.join(DRAFTS)}", ("$schema",))
    return given.rstrip("#")


class Schemas:
    """The models of one gateway, and what is made of them."""

    def __init__(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        self._models = models
        self._compiled: dict[str, Any] = {}
        self._costs: dict[str, int] = {}

    def compiled(self, what: str | Mapping[str, Any]) -> Any:
        """A validator of a model, by name, or of a schema. Raises SchemaError."""
        if isinstance(what, str):
            if what not in self._compiled:
                self._compiled[what] = self._compile(self._models[what], MODELS_POINTER + _escaped(what))
            return self._compiled[what]
        return self._compile(what, "#/schema")

    def check(self, schema: Mapping[str, Any]) -> None:
        """Raises SchemaError for what is wrong with one schema, wherever it stands."""
        import jsonschema_rs  # noqa: PLC0415 - only where there are schemas

        draft = draft_of(schema)
        for path, each in walk(schema):
            for word in FORBIDDEN:
                if word in each:
                    raise SchemaError(f"{word} is not taken: refer to models by {MODELS_POINTER}NAME", (*path, word))
            if isinstance(each.get("$ref"), str):
                self._check_reference(schema, each["$ref"], (*path, "$ref"))
        try:
            jsonschema_rs.meta.validate({**schema, "$schema": draft})
        except jsonschema_rs.ValidationError as error:
            raise SchemaError(error.message, tuple(error.instance_path)) from None
        for path, each in walk(schema):
            self._check_pattern(each.get("pattern"), (*path, "pattern"))
            for pattern in each.get("patternProperties", ()):
                self._check_pattern(pattern, (*path, "patternProperties", pattern))
        if (cost := self._cost(schema, schema)) > COST_MAX:
            raise SchemaError(f"it stands for {cost:,} schemas, with what it refers to; at most {COST_MAX:,} are taken")

    def _check_pattern(self, pattern: Any, path: Path) -> None:
        if pattern is None:
            return
        import jsonschema_rs  # noqa: PLC0415

        try:
            jsonschema_rs.Draft7Validator({"pattern": pattern}, pattern_options=_patterns())
        except jsonschema_rs.ValidationError:
            raise SchemaError(
                f"the pattern {pattern!r:.100} is not taken: it is no regular expression, is too large, or looks "
                "around or back, which takes unbounded time",
                path,
            ) from None

    def _check_reference(self, root: Mapping[str, Any], reference: str, path: Path) -> None:
        if not reference.startswith("#"):
            raise SchemaError(
                f"{reference!r:.100} is outside of this file: nothing is fetched; write {MODELS_POINTER}NAME", path
            )
        if reference.startswith(MODELS_POINTER):
            name = _unescaped(reference.removeprefix(MODELS_POINTER).partition("/")[0])
            if name not in self._models:
                raise SchemaError(f"{reference!r:.100}: there is no model {name!r:.60}", path)
            if draft_of(self._models[name]) != draft_of(root):
                raise SchemaError(f"the model {name!r:.60} is of another draft: give both the same $schema", path)
        if _target(self._document(root), reference) is None:
            raise SchemaError(f"{reference!r:.100} is not there", path)

    def _document(self, root: Mapping[str, Any]) -> dict[str, Any]:
        return {**root, "models": self._models}

    def _cost(self, schema: Any, root: Mapping[str, Any]) -> int:
        """How many schemas a schema stands for. One that refers to itself costs as much as is written."""
        total = 1
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if isinstance(reference, str):
            total += self._cost_of(reference, root)
        for _, each in below(schema):
            total += self._cost(each, root)
        return min(total, COST_MAX * 10)

    def _cost_of(self, reference: str, root: Mapping[str, Any]) -> int:
        inside = not reference.startswith(MODELS_POINTER)
        key = f"{id(root)} {reference}" if inside else reference
        if key not in self._costs:
            self._costs[key] = 1  # while it is counted: a schema may refer to itself
            target = _target(self._document(root), reference)
            if not inside:
                root = self._models[_unescaped(reference.removeprefix(MODELS_POINTER).partition("/")[0])]
            self._costs[key] = self._cost(target, root)
        return self._costs[key]

    def _compile(self, schema: Mapping[str, Any], pointer: str) -> Any:
        import jsonschema_rs  # noqa: PLC0415 - only where there are schemas

        document: dict[str, Any] = {"$ref": pointer, "models": self._needed(schema)}
        document["models"] = {name: _rooted(each, name) for name, each in document["models"].items()}
        if pointer == "#/schema":
            document["schema"] = _bare(_moved(schema, "#/schema"))
        kind = getattr(jsonschema_rs, DRAFTS[draft_of(schema)])
        try:
            return kind(document, validate_formats=True, offline=True, pattern_options=_patterns())
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise SchemaError(str(getattr(error, "message", error))) from None

    def _needed(self, schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The models that a schema refers to, and theirs; itself, if it is one."""
        found = {name: each for name, each in self._models.items() if each is schema}
        waiting = [schema]
        while waiting:
            for _, each in walk(waiting.pop()):
                reference = each.get("$ref")
                if isinstance(reference, str) and reference.startswith(MODELS_POINTER):
                    name = _unescaped(reference.removeprefix(MODELS_POINTER).partition("/")[0])
                    if name not in found:
                        found[name] = self._models[name]
                        waiting.append(self._models[name])
        return found


def _patterns() -> Any:
    import jsonschema_rs  # noqa: PLC0415

    return jsonschema_rs.RegexOptions(size_limit=REGEX_BYTES_MAX, dfa_size_limit=REGEX_BYTES_MAX)


def _rooted(model: Mapping[str, Any], name: str) -> Any:
    return _bare(_moved(model, MODELS_POINTER + _escaped(name)))


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in schema.items() if word != "$schema"}


def _moved(schema: Mapping[str, Any], pointer: str) -> Any:
    """A schema whose references to itself are as they have to be where it is put, at `pointer`."""

    def change(each: dict[str, Any]) -> dict[str, Any]:
        reference = each.get("$ref")
        if isinstance(reference, str) and not reference.startswith(MODELS_POINTER):
            each["$ref"] = pointer + reference[1:]
        return each

    return mapped(schema, change)


def _target(document: Any, reference: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to; None if nothing."""
    for part in re.findall(r"/([^/]*)", reference[1:]):
        name = _unescaped(part)
        if isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, Mapping) and name in document:
            document = document[name]
        else:
            return None
    return document


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescaped(part: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415

    return unquote(part).replace("~1", "/").replace("~0", "~")
