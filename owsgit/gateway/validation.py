"""Requests checked against JSON Schemas before anything is invoked.

What API Gateway's request validators do, with its answers, and what they leave out: values of parameters.
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-method-request-validation.html
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import orjson

from owsgit.gateway import payload
from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response

DEFAULT_TYPE = "$default"
"""Stands for every content type without a schema of its own."""

ERRORS_MAX = 20
"""Told of one request."""

ERROR_CHARACTERS_MAX = 300
DEPTH_MAX = 128
"""Of a body: deeper than any real one, and far from where a recursive schema could exhaust a stack."""

LITERALS = {"true": True, "false": False, "null": None}


class Schema(Protocol):
    """A compiled JSON Schema, as jsonschema-rs makes it."""

    def is_valid(self, instance: Any) -> bool: ...

    def iter_errors(self, instance: Any) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Parameter:
    """One parameter of a request: `place` is path, querystring or header."""

    place: str
    name: str
    required: bool
    schema: Schema | None = None
    kind: str = "string"  # what the schema says that the text stands for
    items: str = "string"  # the same of the elements of an array


@dataclass(frozen=True)
class Bodies:
    """What bodies have to be: a schema for each content type."""

    schemas: Mapping[str, Schema]
    required: bool = True
    passes_others: bool = False  # whether content types without a schema go through unchecked

    def of(self, content_type: str) -> Schema | None:
        """Raises RefusedError for a content type that is not taken."""
        found = self.schemas.get(content_type) or self.schemas.get(DEFAULT_TYPE)
        if found is None and not self.passes_others:
            raise RefusedError(415, "Unsupported Media Type", "UNSUPPORTED_MEDIA_TYPE")
        return found


@dataclass(frozen=True)
class RequestCheck:
    """What is asked of the requests of one route. `detailed`: the answer says what is wrong."""

    bodies: Bodies | None = None
    parameters: Sequence[Parameter] = field(default=())
    detailed: bool = False

    @cached_property
    def _places(self) -> frozenset[str]:
        return frozenset(parameter.place for parameter in self.parameters)

    def step(self, handler: Handler) -> Handler:
        """A Step."""
        bodies, parameters = self.bodies, self.parameters

        async def checked(exchange: Exchange) -> Response:
            if parameters:
                self.check_parameters(exchange)
            if bodies is not None:
                self.check_body(exchange, await exchange.read())
            return await handler(exchange)

        return checked

    def check_parameters(self, exchange: Exchange) -> None:
        """Raises RefusedError."""
        found = _given(exchange, self._places)
        missing: list[Parameter] = []
        wrong: list[tuple[Parameter, list[dict[str, str]]]] = []
        for parameter in self.parameters:
            name = parameter.name.lower() if parameter.place == "header" else parameter.name
            values = found[parameter.place].get(name, [])
            if not any(values):
                if parameter.required:
                    missing.append(parameter)
                continue
            if parameter.schema is not None:
                value = _value(parameter, values)
                if not parameter.schema.is_valid(value):
                    wrong.append((parameter, list(_told(parameter.schema, value, _place(parameter)))))
        if missing:
            words = "Missing required request parameters"
            errors = [{"path": _place(each), "message": "a value is required"} for each in missing[:ERRORS_MAX]]
            raise self._refused("BAD_REQUEST_PARAMETERS", f"{words}: [{_names(missing)}]", errors)
        if wrong:
            errors = [error for _, told in wrong for error in told][:ERRORS_MAX]
            names = _names(parameter for parameter, _ in wrong)
            raise self._refused("BAD_REQUEST_PARAMETERS", f"Invalid request parameters: [{names}]", errors)

    def check_body(self, exchange: Exchange, body: bytes) -> None:
        """Raises RefusedError."""
        assert self.bodies is not None
        if not body and not self.bodies.required:
            return
        schema = self.bodies.of(content_type(exchange))
        if schema is None:
            return
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            told = (
                f"not JSON: {error.msg} at line {error.lineno} column {error.colno}" if body else "a body is required"
            )
            raise self._bad_body([{"path": "$", "message": told}]) from None
        if body.count(b"[") + body.count(b"{") > DEPTH_MAX and _is_deep(value):
            raise self._bad_body([{"path": "$", "message": f"nested deeper than {DEPTH_MAX} levels"}])
        if not schema.is_valid(value):
            raise self._bad_body(list(_told(schema, value, "$")))

    def _bad_body(self, errors: list[dict[str, str]]) -> RefusedError:
        return self._refused("BAD_REQUEST_BODY", "Invalid request body", errors)

    def _refused(self, kind: str, message: str, errors: list[dict[str, str]]) -> RefusedError:
        refusal = RefusedError(400, message, kind)
        refusal.validation = errors
        refusal.tells_validation = self.detailed
        return refusal


def content_type(exchange: Exchange) -> str:
    """Without its parameters; a request that does not say has JSON, as for API Gateway."""
    given = exchange.header(b"content-type").decode("latin-1")
    return given.partition(";")[0].strip().lower() or "application/json"


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            below
            for each in level
            for below in (each.values() if isinstance(each, dict) else each)
            if isinstance(below, dict | list)
        ]
        if not level:
            return False
    return True


def _names(parameters: Iterable[Parameter]) -> str:
    return ", ".join(parameter.name for parameter in parameters)


def _place(parameter: Parameter) -> str:
    return f"{parameter.place}.{parameter.name}"


def _told(schema: Schema, value: Any, place: str) -> Iterator[dict[str, str]]:
    """What is wrong with a value, in words, each with its JSON path."""
    for count, error in enumerate(schema.iter_errors(value)):
        if count == ERRORS_MAX:
            return
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        yield {"path": _short(place + path), "message": _short(error.message)}


def _short(text: str) -> str:
    return text if len(text) <= ERROR_CHARACTERS_MAX else text[: ERROR_CHARACTERS_MAX - 3] + "..."


def _given(exchange: Exchange, places: frozenset[str]) -> dict[str, dict[str, list[str]]]:
    """The values of the request's parameters, by place and name."""
    found: dict[str, dict[str, list[str]]] = {place: {} for place in places}
    if "path" in places:
        found["path"] = {name: [value] for name, value in exchange.parameters.items()}
    if "querystring" in places:
        for name, value in payload.query_pairs(exchange):
            found["querystring"].setdefault(name, []).append(value)
    if "header" in places:
        for name, value in payload.text_headers(exchange):
            found["header"].setdefault(name, []).append(value)
    return found


def _value(parameter: Parameter, values: list[str]) -> Any:
    """What a parameter's text stands for: its last value, or all of them for an array, `a=1&a=2` or `a=1,2`."""
    if parameter.kind == "array":
        parts = values if len(values) > 1 else values[0].split(",")
        return [_read(part, parameter.items) for part in parts]
    return _read(values[-1], parameter.kind)


def _read(text: str, kind: str) -> Any:
    """Text as a value of the kind, as far as it is one; else as it is, for the schema to refuse."""
    if kind == "boolean" or (kind == "null" and text == "null"):
        return LITERALS.get(text, text)
    if kind in ("integer", "number"):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return value if isinstance(value, int | float) and not isinstance(value, bool) else text
    return text
