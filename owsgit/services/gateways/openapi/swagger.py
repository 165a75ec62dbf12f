"""Swagger 2.0 in the terms of OpenAPI 3.0. https://swagger.io/specification/v2/"""

from collections.abc import Iterable
from typing import Any

from owsgit.model.strictjson import join
from owsgit.services.gateways.openapi import words
from owsgit.services.gateways.openapi.integrations import Warn

MOVED = {
    "#/definitions/": words.SCHEMAS,
    "#/parameters/": "#/components/parameters/",
    "#/responses/": "#/components/responses/",
}
SCHEMA_WORDS = (
    "type", "format", "items", "default", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "enum", "multipleOf",
)  # fmt: skip
"""What a parameter of Swagger 2.0 says of its value itself."""

JSON = "application/json"


def modern(document: dict[str, Any], warn: Warn) -> dict[str, Any]:
    """The document, as one of OpenAPI 3.0. What has a JSON path keeps it."""
    document = _moved(document)
    consumes, produces = document.get("consumes") or [JSON], document.get("produces") or [JSON]
    parameters = document.get("parameters", {})
    made = {name: value for name, value in document.items() if name == "info" or name.startswith("x-")}
    made.update({name: document[name] for name in ("security", "tags") if name in document})
    made["openapi"] = "3.0.0"
    made["components"] = {
        "schemas": document.get("definitions", {}),
        "securitySchemes": document.get("securityDefinitions", {}),
        "parameters": {
            name: _parameter(each) for name, each in parameters.items() if each.get("in") not in ("body", "formData")
        },
        "responses": {name: _response(each, produces) for name, each in document.get("responses", {}).items()},
    }
    if document.get("basePath", "/") != "/":
        warn("$.basePath", "routes are served without it: a domain's basePath, or a stage, puts something before them")
    made["paths"] = {}
    for path, item in document.get("paths", {}).items():
        for method, each in item.items() if isinstance(item, dict) else ():
            if isinstance(each, dict):
                place, shared = join(join("$.paths", path), method), item.get("parameters", [])
                operation = _operation(each, shared, parameters, (consumes, produces), place, warn)
                made["paths"].setdefault(path, {})[method] = operation
    return made


def _is_body(parameter: dict[str, Any]) -> bool:
    return parameter.get("in") in ("body", "formData")


def _moved(value: Any) -> Any:
    if isinstance(value, dict):
        made = {name: _moved(each) for name, each in value.items()}
        reference = made.get("$ref")
        for old, new in MOVED.items():
            if isinstance(reference, str) and reference.startswith(old):
                made["$ref"] = new + reference.removeprefix(old)
        return made
    return [_moved(each) for each in value] if isinstance(value, list) else value


def _operation(
    operation: dict[str, Any], shared: list[Any], known: dict[str, Any], types: tuple[list[str], list[str]], path: str,
    warn: Warn,
) -> dict[str, Any]:  # fmt: skip
    made = {name: value for name, value in operation.items() if name not in ("parameters", "consumes", "produces")}
    consumes, produces = operation.get("consumes", types[0]), operation.get("produces", types[1])
    parameters = []
    for each in (*shared, *operation.get("parameters", [])):
        full = known.get(str(each.get("$ref", "")).rpartition("/")[2], each)
        if full.get("in") == "body":
            content = {kind: {"schema": full.get("schema", {})} for kind in consumes}
            made["requestBody"] = {"required": bool(full.get("required")), "content": content}
        elif full.get("in") == "formData":
            warn(join(path, "parameters"), f"forms are not checked: {full.get('name')!r:.60}")
        else:
            parameters.append(_parameter(full))
    made["parameters"] = parameters
    made["responses"] = {
        status: each if "$ref" in each else _response(each, produces)
        for status, each in operation.get("responses", {}).items()
        if isinstance(each, dict)
    }
    return made


def _parameter(given: dict[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in given.items() if name not in (*SCHEMA_WORDS, "collectionFormat")}
    made["schema"] = {name: given[name] for name in SCHEMA_WORDS if name in given}
    return made


def _response(given: dict[str, Any], produces: Iterable[str]) -> dict[str, Any]:
    made = {name: value for name, value in given.items() if name in ("description", "headers")}
    if "schema" in given:
        made["content"] = {kind: {"schema": given["schema"]} for kind in produces}
    return made
