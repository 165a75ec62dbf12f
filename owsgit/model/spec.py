"""The base of every spec: one pydantic model per kind of resource is its only schema.

JSON Schema, reference pages and forms derive from it. Values are taken as written (no coercion), unknown fields are
refused with the nearest known one, and specs are immutable.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, StringConstraints, Tag, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from owsgit.model import strictjson
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.names import NAME

PROBLEMS_MAX = 50
"""Told of one file: a hostile one could have a million."""

Item = TypeVar("Item")

OneOrMany = Annotated[
    Annotated[Item, Tag("one")] | Annotated[list[Item], Tag("many")],
    Discriminator(lambda value: "many" if isinstance(value, list) else "one"),
]
"""A value, or a list of them, as AWS's policies allow it. Told apart before it is checked, so that an error speaks of
what was written and not of both forms."""

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]


class PlacedError(ValueError):
    """What a validator of a whole object says of a field in it, `at` that path below the object."""

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True)
class Reference:
    """A field that names another resource: `kind` and `name` of the target, `path` of the field.

    `passes`: it hands on what the target can do; not so where a policy only names who may do something. `orders`: the
    target has to be there first; not so where it is only called later, as then two may name each other, or one itself.
    `need`: what the target has to be able to do for the one that names it (see Spec.lacks), such as a runtime.
    `commit`: it is meant as it was at that commit of main. `files`: one of them has to be beside the target's JSON; a
    path that ends in a slash is a folder. `otherwise`: what else is a remedy if there is no target.
    """

    kind: str
    name: str
    path: str
    passes: bool = True
    orders: bool = True
    need: str = ""
    commit: str = ""
    files: tuple[str, ...] = ()
    otherwise: str = ""


@dataclass(frozen=True)
class Claim:
    """Something that only one resource of a project may have, such as a port or a public key.

    One that is `shared` may be had by several resources that say the same there, such as "with TLS".
    """

    what: str  # how an error calls it: "port", "key"
    value: str
    path: str
    shared: str = ""


class Document(BaseModel):
    """A JSON object with known fields, in lower camel case unless a field says otherwise."""

    model_config = ConfigDict(
        defer_build=True,  # most processes, the hook's above all, meet few kinds of documents
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class Spec(Document):
    """The content of a resource's JSON file."""

    json_schema: str | None = Field(
        None, alias="$schema", description="Address of the JSON Schema, for editors; nothing is fetched."
    )
    tells_values: ClassVar[bool] = True
    """Whether an error may tell what was written: not where it could be a secret."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Fields that AWS has and the file has not, as they are written here: the remedy for those who bring them."""

    _written: dict[str, Any] | None = PrivateAttr(None)

    @classmethod
    def parse(cls, data: bytes, file: str) -> Self:
        """The spec in `data`. Raises InvalidError with every problem found, each with its JSON path."""
        value = strictjson.loads(data, file)
        if not isinstance(value, dict):
            raise InvalidError("a JSON object is needed", file=file, path="$", remedy="start the file with '{'")
        try:
            spec = cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidError.of(_problems(cls, value, file, error)) from None
        spec._written = value
        return spec

    def references(self) -> Iterator[Reference]:
        """The other resources that this one needs."""
        yield from ()

    def claims(self) -> Iterator[Claim]:
        """What no other resource may have as well."""
        yield from ()

    def lacks(self, need: str) -> str | None:
        """Why this is not for what names it with `need`; None if it is."""
        return None

    def problems_after(
        self, before: "Spec | None", file: str, holder: Callable[[str, str], "Spec | None"]
    ) -> Iterator[Problem]:
        """What is wrong with this as what follows `before` (None: it is new).

        `holder` finds the spec that claims something, such as the node that has a key.
        """
        yield from ()

    def warnings(self, file: str) -> Iterator[Problem]:
        """What is allowed, and hardly what was meant."""
        yield from ()

    def problems_of_removal(self, file: str) -> Iterator[Problem]:
        """Why the resource cannot be deleted, for which this was the last that was said."""
        yield from ()

    def document(self) -> dict[str, Any]:
        """The fields that are set, as JSON values, under their JSON names. Not to be changed."""
        if self._written is not None:
            return self._written
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Suspendable(Spec):
    """A spec whose resource the reconciler makes real, and can be told to leave alone."""

    suspend: bool = Field(
        False, description="Leave the resource as it is now: later changes of it wait until this is false again."
    )


def _problems(spec: type[Spec], value: Any, file: str, error: ValidationError) -> Iterator[Problem]:
    details = error.errors(include_url=False)[:PROBLEMS_MAX]
    said = {tuple(_real(value, detail["loc"])) for detail in details if detail["type"] == "value_error"}
    for detail in details:
        if not (detail["type"] in _WORDS and tuple(_real(value, detail["loc"])) in said):
            yield _problem(spec, value, file, detail)


def _problem(spec: type[Spec], value: Any, file: str, detail: ErrorDetails) -> Problem:
    raised = detail.get("ctx", {}).get("error")
    location = (*_real(value, detail["loc"]), *(raised.at if isinstance(raised, PlacedError) else ()))
    path = strictjson.problem_path(location)
    if detail["type"] == "extra_forbidden":
        name = str(location[-1])
        remedy = spec.elsewhere.get(f"{name[:1].lower()}{name[1:]}") if len(location) == 1 else None
        known = sorted(_fields_at(spec, value, location[:-1]))
        return Problem(
            f"{location[-1]!r} is not a known field", file, path, remedy or nearest(name, known, "field", "fields")
        )
    if detail["type"] == "missing":
        return Problem("this field is missing", file, path, "add it")
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return _tag_problem(detail, file, path)
    given = _given(detail["input"]) if spec.tells_values else ""
    if detail["type"] == "too_long":
        counts = detail["ctx"]
        return Problem(f"at most {counts['max_length']} are taken, not {counts['actual_length']}", file, path)
    if detail["type"] in _WORDS:
        message, remedy = _WORDS[detail["type"]]
        if isinstance(detail["input"], dict | list) and remedy in (_QUOTE, _UNQUOTE):
            remedy = "write the value itself, not an object or a list"
        return Problem(message + given, file, path, remedy)
    if detail["type"] in _BOUNDS:
        remedy = f"write {_BOUNDS[detail['type']].format(**detail['ctx'])}"
        return Problem(f"{detail['msg'].replace('Input should', 'it has to')}{given}", file, path, remedy)
    if detail["type"] == "string_pattern_mismatch":
        pattern = detail["ctx"]["pattern"]
        return Problem(f"it does not have the form {pattern}{given}", file, path, _described(spec, value, location))
    return Problem(detail["msg"].removeprefix("Value error, ") + given, file, path)


def _tag_problem(detail: ErrorDetails, file: str, path: str) -> Problem:
    field = detail["ctx"]["discriminator"].strip("'")
    if detail["type"] == "union_tag_not_found":
        return Problem(f"the field {field!r} is missing", file, path, "add it: it says what the others mean")
    given, known = detail["ctx"]["tag"], detail["ctx"]["expected_tags"]
    return Problem(f"{given!r:.80} is none of {known}", file, f"{path}.{field}", "write one of them")


_BOUNDS = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
}

_QUOTE = "put it in quotes"
_UNQUOTE = "write it without quotes and without a fraction"
_WORDS = {
    "int_type": ("a whole number is needed", _UNQUOTE),
    "int_parsing": ("a whole number is needed", "write it without quotes and without a fraction"),
    "int_from_float": ("a whole number is needed", "write it without a fraction"),
    "float_type": ("a number is needed", "write it without quotes"),
    "bool_type": ("true or false is needed", "write it without quotes"),
    "string_type": ("a text is needed", _QUOTE),
    "list_type": ("a list is needed", "put it in brackets: [ ... ]"),
    "dict_type": ("an object is needed", "write { ... }"),
    "model_type": ("an object is needed", "write { ... }"),
    "model_attributes_type": ("an object is needed", "write { ... }"),
    "too_short": ("something is needed here, and nothing is given", "add an element"),
}
"""pydantic's types of errors that users meet, in other words, with what to do."""


def _given(value: Any) -> str:
    """What was written, in short."""
    if not isinstance(value, str | int | float | bool | None):
        return ""
    shown = repr(value)
    return f" (given: {shown if len(shown) <= 80 else shown[:76] + '...' + shown[-1]})"


def _real(value: Any, location: Iterable[str | int]) -> Iterator[str | int]:
    """The parts of pydantic's location that are in the document: tags of unions and validators are not."""
    parts = list(location)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if isinstance(value, dict) and (part in value or (last and isinstance(part, str) and not _is_tag(part, value))):
            value = value.get(part) if isinstance(part, str) else None
            yield part
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
            yield part


def _is_tag(part: str, value: dict[str, Any]) -> bool:
    return part in {"[key]", "one", "many"} or part.startswith("function-") or part == value.get("type")


def _fields_at(spec: type[BaseModel], value: Any, location: tuple[str | int, ...]) -> Iterable[str]:
    """The JSON names of the fields of the object at `location` of `value`, found in the JSON Schema of `spec`."""
    return {name for option in _options_at(spec, value, location) for name in option.get("properties", {})}


def _described(spec: type[BaseModel], value: Any, location: tuple[str | int, ...]) -> str:
    """What the field at `location` is, or what holds it, in the words of the reference; "" if nothing says it."""
    if not location:
        return ""
    options = _options_at(spec, value, location[:-1])
    told = [node["description"] for node in _below(options, location[-1]) if "description" in node]
    return f"what belongs here: {told[0]}" if told else ""


def _options_at(spec: type[BaseModel], value: Any, location: tuple[str | int, ...]) -> list[dict[str, Any]]:
    """The schemas that what is at `location` may have."""
    schema = _schema(spec)
    definitions = schema.get("$defs", {})
    options = _resolved(schema, definitions, value)
    for part in location:
        if isinstance(value, dict) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value.get(part) if isinstance(value, dict) else value[int(part)]
        options = [found for node in _below(options, part) for found in _resolved(node, definitions, value)]
    return options


@lru_cache(maxsize=64)
def _schema(spec: type[BaseModel]) -> dict[str, Any]:
    return spec.model_json_schema(by_alias=True)


def _resolved(node: dict[str, Any], definitions: dict[str, Any], value: Any) -> list[dict[str, Any]]:
    """The schemas that `node` stands for; of those that a field of `value` tells apart, the one that it says."""
    if "$ref" in node:
        return _resolved(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions, value)
    by = node.get("discriminator", {})
    said = value.get(by.get("propertyName")) if isinstance(value, dict) else None
    if isinstance(said, str) and said in by.get("mapping", {}):
        return _resolved({"$ref": by["mapping"][said]}, definitions, value)
    options = node.get("anyOf") or node.get("oneOf")
    return [found for option in options for found in _resolved(option, definitions, value)] if options else [node]


def _below(options: list[dict[str, Any]], part: str | int) -> Iterator[dict[str, Any]]:
    for option in options:
        if isinstance(part, int) and "items" in option:
            yield option["items"]
        elif part in option.get("properties", {}):
            yield option["properties"][part]
        elif isinstance(option.get("additionalProperties"), dict):
            yield option["additionalProperties"]
        else:
            yield from option.get("patternProperties", {}).values()


def nearest(given: str, known: Iterable[str], one: str, many: str) -> str:
    """The remedy for a mistyped name: the nearest known one, or all of them."""
    options = sorted(known)
    close = difflib.get_close_matches(given.lower(), [option.lower() for option in options], n=1, cutoff=0.5)
    if close:
        return f"did you mean the {one} {next(option for option in options if option.lower() == close[0])!r}?"
    return f"known {many}: {', '.join(options)}" if options else f"there are no {many} here"
