"""An OpenAPI document as it is written, JSON or YAML: read within bounds, refused where it is not one."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from owsgit.model.errors import InvalidError, Problem
from owsgit.model.strictjson import join, problem_path
from owsgit.services.gateways.openapi import words

BYTES_MAX = 8 * 1024 * 1024
NODES_MAX = 500_000
"""Values in a document, each alias of YAML counted as all that it stands for."""

DEPTH_MAX = 100
PROBLEMS_MAX = 20


class _Loader(yaml.SafeLoader):
    """YAML's core schema, as OpenAPI asks for: dates and `on` are texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _intrinsic(loader: yaml.SafeLoader, word: str, node: yaml.Node) -> dict[str, Any]:
    """CloudFormation's short form of its functions, as the long one: `!Sub x` is `{"Fn::Sub": "x"}`."""
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {word if word == "Ref" else f"Fn::{word}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def _told(value: Any) -> Any:
    """The functions of a CloudFormation template as texts: what they would fill in stays `${Name}`."""
    if isinstance(value, list):
        return [_told(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {name: _told(each) for name, each in value.items()}
    text = _text(*next(iter(made.items()))) if len(made) == 1 else None
    return made if text is None else text


def _text(function: str, given: Any) -> str | None:
    """What a function of CloudFormation makes; None if it is none of those that make texts."""
    match function, given:
        case "Ref", str():
            return f"${{{given}}}"
        case "Fn::GetAtt", str():
            return f"${{{given}}}"
        case "Fn::GetAtt", [str(name), str(attribute)]:
            return f"${{{name}.{attribute}}}"
        case "Fn::Sub", str():
            return given
        case "Fn::Sub", [str(text), dict(variables)]:
            return re.sub(r"\$\{(\w+)\}", lambda found: str(variables.get(found[1], found[0])), text)
        case "Fn::Join", [str(between), list(parts)] if all(isinstance(part, str) for part in parts):
            return between.join(parts)
    return None


def load(data: bytes, file: str) -> dict[str, Any]:
    """The document, checked against the specification of its version. Raises InvalidError."""
    if len(data) > BYTES_MAX:
        raise InvalidError(f"{len(data):,} bytes are more than the {BYTES_MAX:,} that are read", file=file)
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise InvalidError(f"not UTF-8 at byte {error.start}", file=file, remedy="save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())[:300]
        raise InvalidError(f"neither JSON nor YAML: {told}", file=file, remedy="correct the syntax") from None
    document = _plain(found, file)
    if isinstance(document, dict) and words.GATEWAY not in document:  # what is exported here is no template
        document = _told(document)
    if not isinstance(document, dict) or not ("openapi" in document or "swagger" in document):
        raise InvalidError("no OpenAPI document: it says neither openapi nor swagger", file=file, path="$")
    return document


def _plain(found: Any, file: str) -> Any:
    """A copy in which nothing is shared, with texts as keys."""
    count = 0

    def copied(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > NODES_MAX or depth > DEPTH_MAX:
            what = f"{NODES_MAX:,} values" if count > NODES_MAX else f"{DEPTH_MAX} levels"
            raise InvalidError(f"more than {what}, with its aliases written out", file=file)
        if isinstance(value, dict):
            return {str(name): copied(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [copied(each, depth + 1) for each in value]
        return value if isinstance(value, str | int | float | bool | None) else str(value)

    return copied(found, 0)


def validate(document: dict[str, Any], file: str) -> None:
    """Raises InvalidError with what is not as the specification has it. It may name nothing outside of itself."""
    problems = list(_outside(document, file))
    if problems:
        raise InvalidError.of(problems[:PROBLEMS_MAX])
    from openapi_spec_validator import (  # noqa: PLC0415 - slow to import
        OpenAPIV2SpecValidator,
        OpenAPIV30SpecValidator,
        OpenAPIV31SpecValidator,
    )
    from openapi_spec_validator.validation.exceptions import UnresolvableParameterError  # noqa: PLC0415

    version = str(document.get("openapi", document.get("swagger")))
    kinds = {"2.0": OpenAPIV2SpecValidator, "3.0": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}
    kind = kinds.get(version[:3])
    if kind is None:
        raise InvalidError(f"the version {version!r:.20} is not read", file=file, remedy="2.0, 3.0 and 3.1 are")
    for error in kind(_completed(document)).iter_errors():
        if isinstance(error, UnresolvableParameterError):
            continue  # the path says what its parameters are, as for API Gateway
        message = str(getattr(error, "message", error)).partition("\n")[0]
        path = problem_path(tuple(getattr(error, "absolute_path", ())))
        problems.append(Problem(message[:300], file, path, "write it as the OpenAPI specification has it"))
        if len(problems) == PROBLEMS_MAX:
            break
    if problems:
        raise InvalidError.of(problems)


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what API Gateway leaves out, in its own exports too, though the specification asks for it.

    These are the responses of an operation, and the flows of an OAuth 2 scheme that an authorizer stands for.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions-authorizer.html
    """
    made = dict(document)
    if isinstance(paths := made.get("paths"), dict):
        made["paths"] = {path: _each(item, _answered) for path, item in paths.items()}
    if isinstance(components := made.get("components"), dict) and "securitySchemes" in components:
        made["components"] = components | {"securitySchemes": _each(components["securitySchemes"], _flowing)}
    return made


def _each(value: Any, change: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: change(name, each) if isinstance(each, dict) else each for name, each in value.items()}


def _answered(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    if method not in words.OPENAPI_METHODS or operation.get("responses", {}) != {}:
        return operation
    return operation | {"responses": words.ANY_ANSWER}


def _flowing(_: str, scheme: dict[str, Any]) -> dict[str, Any]:
    if scheme.get("type") != "oauth2" or "flows" in scheme or words.AUTHORIZER not in scheme:
        return scheme
    return scheme | {"flows": {}}


def _outside(value: Any, file: str, path: str = "$") -> Iterator[Problem]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            remedy = "bundle the document into one file first"
            yield Problem(
                f"{reference!r:.100} is outside of the document: nothing is fetched", file, join(path, "$ref"), remedy
            )
        for name, each in value.items():
            yield from _outside(each, file, join(path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _outside(each, file, f"{path}[{index}]")
