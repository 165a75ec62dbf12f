"""What a gateway asks of requests: `models` (JSON Schemas), and `request` of a route.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-method-request-validation.html
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from owsgit.gateway.table import DEFAULT as DEFAULT_TYPE
from owsgit.model.spec import Document, nearest
from owsgit.services.gateways.schemas import Path, SchemaError, Schemas, refused

if TYPE_CHECKING:
    from owsgit.gateway.validation import Parameter, RequestCheck

MODELS_MAX = 1000
PARAMETERS_MAX = 100
TYPES_MAX = 20

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
JsonSchema = dict[str, Any]
Checked = Literal["body", "parameters"]
CHECKED: tuple[Checked, ...] = ("body", "parameters")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+*-]{1,127}")
_PARAMETER = re.compile(r"(path|querystring|header)\.([\x21-\x7e]{1,256})")


def _content_type(text: str) -> str:
    if text != DEFAULT_TYPE and (not _TYPE.fullmatch(text) or text != text.lower() or "*" in text):
        raise ValueError(
            f"{text!r:.100} is no content type in lower case such as application/json, and not {DEFAULT_TYPE}"
        )
    return text


def _parameter(text: str) -> str:
    if not _PARAMETER.fullmatch(text):
        raise ValueError(f"{text!r:.100} is not path.NAME, querystring.NAME or header.NAME")
    return text


ContentType = Annotated[str, AfterValidator(_content_type)]
ParameterName = Annotated[str, AfterValidator(_parameter)]


class ParameterSpec(Document):
    """One parameter of a request."""

    required: bool = Field(False, description="Whether a request without it, or with an empty one, is refused.")
    json_schema: JsonSchema | None = Field(
        None,
        alias="schema",
        description="JSON Schema of its value: a text, or what the text stands for where type is integer, number, "
        "boolean or array (a=1&a=2, or a=1,2).",
    )
    description: str | None = Field(None, max_length=4096, description="What it is for; shown in OpenAPI documents.")


class RequestSpec(Document):
    """What the requests of a route have to be."""

    body: dict[ContentType, ModelName | JsonSchema] = Field(
        default_factory=dict,
        max_length=TYPES_MAX,
        description="By content type (or $default for all others): the name of a model, or a JSON Schema.",
    )
    body_required: bool = Field(True, description="Whether a request without a body is refused.")
    passthrough_behavior: Literal["NEVER", "WHEN_NO_MATCH"] = Field(
        "NEVER",
        description="Bodies of a content type that is not in body: NEVER refuses them (415), WHEN_NO_MATCH lets them "
        "through unchecked.",
    )
    parameters: dict[ParameterName, ParameterSpec] = Field(
        default_factory=dict,
        max_length=PARAMETERS_MAX,
        description="By place: path.NAME, querystring.NAME or header.NAME.",
    )
    validate_: list[Checked] = Field(
        default_factory=lambda: list(CHECKED),
        alias="validate",
        max_length=2,
        description="What is checked; what is not is documentation.",
    )
    detailed_errors: bool = Field(False, description="Whether the client is told what is wrong, and where.")

    def check(self, schemas: Schemas) -> "RequestCheck":
        """What checks requests."""
        from owsgit.gateway.validation import Bodies, RequestCheck  # noqa: PLC0415 - not where specs are only read

        bodies = None
        if self.body and "body" in self.validate_:
            compiled = {kind: schemas.compiled(schema) for kind, schema in self.body.items()}
            bodies = Bodies(compiled, self.body_required, self.passthrough_behavior == "WHEN_NO_MATCH")
        parameters: list[Parameter] = []
        if "parameters" in self.validate_:
            parameters = [_made(name, spec, schemas) for name, spec in self.parameters.items()]
        return RequestCheck(bodies, parameters, self.detailed_errors)

    def schemas(self) -> Iterator[tuple[Path, str | JsonSchema]]:
        """The schemas in it, and names of models, each with where it is."""
        for kind, schema in self.body.items():
            yield ("body", kind), schema
        for name, spec in self.parameters.items():
            if spec.json_schema is not None:
                yield ("parameters", name, "schema"), spec.json_schema


def _made(name: str, spec: ParameterSpec, schemas: Schemas) -> "Parameter":
    from owsgit.gateway.validation import Parameter  # noqa: PLC0415

    place, _, own = name.partition(".")
    if spec.json_schema is None:
        return Parameter(place, own, spec.required)
    items = spec.json_schema.get("items")
    return Parameter(
        place, own, spec.required, schemas.compiled(spec.json_schema), _kind(spec.json_schema), _kind(items)
    )


def _kind(schema: Any) -> str:
    """The type that a schema asks for: of several, the first that is not null."""
    found = schema.get("type", "string") if isinstance(schema, dict) else "string"
    kinds = [kind for kind in found if kind != "null"] if isinstance(found, list) else [found]
    return str(kinds[0]) if kinds else "null"


def check(
    models: Mapping[str, JsonSchema], requests: Mapping[str, RequestSpec | None], names: Mapping[str, tuple[str, ...]]
) -> Schemas | None:
    """Raises pydantic's ValidationError that names each place; `names` are the path parameters by route."""
    errors: list[tuple[Path, str]] = []
    schemas = Schemas(models)

    def look(path: Path, what: str | JsonSchema) -> None:
        try:
            if isinstance(what, str) and what not in models:
                known = nearest(what, models, "model", "models")
                raise SchemaError(f"there is no model {what!r:.60}: {known}")
            if not isinstance(what, str):
                schemas.check(what)
        except SchemaError as error:
            errors.append(((*path, *error.path), error.message))

    for name, model in models.items():
        look(("models", name), model)
    for key, request in requests.items():
        if request is None:
            continue
        place = ("routes", key, "request")
        for more, what in request.schemas():
            look((*place, *more), what)
        for name in request.parameters:
            kind, _, own = name.partition(".")
            if kind == "path" and own not in names[key]:
                errors.append(((*place, "parameters", name), f"the path of {key!r} has no {{{own}}}"))
    if not errors:
        _compile_all(schemas, models, requests, errors)
    if errors:
        raise refused("GatewaySpec", errors)
    return schemas


def _compile_all(
    schemas: Schemas,
    models: Mapping[str, JsonSchema],
    requests: Mapping[str, RequestSpec | None],
    errors: list[tuple[Path, str]],
) -> None:
    """What only shows when all of it is compiled."""
    each: list[tuple[Path, str | JsonSchema]] = [(("models", name), name) for name in models]
    for key, request in requests.items():
        each += [(("routes", key, "request", *path), what) for path, what in (request.schemas() if request else ())]
    for path, what in each:
        try:
            schemas.compiled(what)
        except SchemaError as error:
            errors.append((path, error.message))
