"""A gateway's file as an OpenAPI document."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from owsgit.gateway.table import ANY, DEFAULT, RouteKey, parse_key
from owsgit.services.gateways.openapi import integrations, security, words
from owsgit.services.gateways.schemas import DRAFT_4, MODELS_POINTER, mapped, walk
from owsgit.services.gateways.spec import GatewaySpec

OPENAPI_3_0 = "3.0.3"
OPENAPI_3_1 = "3.1.0"
SCHEMA_WORDS_3_0 = frozenset(
    {"$ref", "title", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
     "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties", "required",
     "enum", "type", "not", "allOf", "oneOf", "anyOf", "items", "properties", "additionalProperties", "description",
     "format", "default", "nullable", "discriminator", "readOnly", "writeOnly", "example", "externalDocs", "deprecated",
     "xml"}
)  # fmt: skip
"""What a Schema Object of OpenAPI 3.0 can say; a document with more is one of 3.1."""


def document(
    name: str, spec: GatewaySpec, server: str = "/", *, extensions: bool = False, account: str = "000000000000",
    region: str = "us-east-1",
) -> dict[str, Any]:  # fmt: skip
    """The OpenAPI document of the gateway `name`.

    With `extensions` it holds all of the file, as API Gateway exports it; without, what clients may know.
    """
    return _Writer(name, spec, extensions, integrations.Place(account, region)).document(server)


class _Writer:
    def __init__(self, name: str, spec: GatewaySpec, extensions: bool, place: integrations.Place) -> None:
        self._name, self._spec, self._extensions, self._place = name, spec, extensions, place
        self._file = copy.deepcopy(spec.document())
        self._routes: dict[str, Any] = self._file.pop("routes", {})
        self._models: dict[str, Any] = self._file.pop("models", {})
        self._file.pop("$schema", None)
        schemas = [*self._models.values(), *(s for route in spec.routes.values() for s in _inline(route))]
        self._modern = extensions and not all(_is_3_0(schema) for schema in schemas)

    def document(self, server: str) -> dict[str, Any]:
        about = self._file.pop("info", {})
        info = {"title": about.get("title", self._name), "version": about.get("version", "1.0")}
        if "description" in self._file:
            info["description"] = self._file.pop("description")
        made: dict[str, Any] = {
            "openapi": OPENAPI_3_1 if self._modern else OPENAPI_3_0,
            "info": info,
            "servers": [{"url": server}],
            "paths": self._paths(),
            "components": {"schemas": {name: self._schema(model) for name, model in self._models.items()}},
        }
        made["components"].update(security.schemes(self._file, self._routes, self._place, self._extensions))
        default = security.requirement(self._file, {})
        self._file.pop("auth", None)
        if self._file.get("apiKeyRequired"):
            self._file.pop("apiKeyRequired")
        if default:
            made["security"] = default
        if self._extensions:
            made.update(self._gateway())
        return made

    def _gateway(self) -> dict[str, Any]:
        """What is said of the whole gateway; what API Gateway has no words for last."""
        made: dict[str, Any] = {words.VALIDATORS: _validators(self._routes)} if _validators(self._routes) else {}
        file = self._file
        for field, word in (("cors", words.CORS), ("binaryMediaTypes", words.BINARY), ("policy", words.POLICY)):
            if field in file:
                made[word] = file.pop(field)
        if isinstance(file.get("compression"), dict) and "minimumSize" in file["compression"]:
            made[words.COMPRESSION] = file["compression"].pop("minimumSize")
        if "responses" in file:
            made[words.RESPONSES] = {kind: _gateway_response(each) for kind, each in file.pop("responses").items()}
        if "apiKeySource" in file:
            made[words.KEY_SOURCE] = file.pop("apiKeySource")
        made[words.GATEWAY] = file
        return made

    def _paths(self) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        for text, route in self._routes.items():
            key = parse_key(text)
            if self._extensions:
                path = words.DEFAULT_PATH if text == DEFAULT else key.path
                method = words.ANY_METHOD if key.method == ANY else key.method.lower()
                paths.setdefault(path, {})[method] = self._operation(key, copy.deepcopy(route))
            elif text != DEFAULT:
                below = paths.setdefault(key.path.replace("+}", "}"), {})
                for method in self._methods(key):
                    below[method] = self._operation(key, copy.deepcopy(route), method)
        return paths

    def _methods(self, key: RouteKey) -> Iterator[str]:
        """The methods of a route as clients see it; ANY is those that no other route has."""
        if key.method != ANY:
            yield key.method.lower()
            return
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if f"{method} {key.path}" not in self._routes:
                yield method.lower()

    def _operation(self, key: RouteKey, route: dict[str, Any], method: str = "") -> dict[str, Any]:
        made = self._documentation(route)
        if method and key.method == ANY:
            made.pop("operationId", None)  # of several operations, only one could have it
        has_body = bool(route.get("request", {}).get("body"))
        made.update(self._request(key, route))
        asked = security.requirement(route, self._file)
        if asked is not None:
            made["security"] = asked
        for field in ("auth", "scopes", "apiKeyRequired") if asked is not None else ():
            if route.get(field) is not False:  # that no key is asked for is said in words of our own
                route.pop(field, None)
        if self._extensions:
            integration = integrations.written(route, self._place)
            if integration:
                if has_body:
                    behaviour = route.get("request", {}).pop("passthroughBehavior", "NEVER")
                    integration["passthroughBehavior"] = behaviour.lower()
                made[words.INTEGRATION] = integration
                if key.text == DEFAULT:
                    made["isDefaultRoute"] = True
            if route.get("request") == {} and (has_body or words.VALIDATOR in made):
                route.pop("request")
            if route:
                made[words.ROUTE] = route
        return made

    def _documentation(self, route: dict[str, Any]) -> dict[str, Any]:
        about = route.pop("documentation", {})
        made = {name: value for name, value in about.items() if name != "responses"}
        responses = {
            status: {
                "description": each.get("description", ""),
                **({"content": self._content(each["body"])} if each.get("body") else {}),
            }
            for status, each in about.get("responses", {}).items()
        }
        made["responses"] = responses or copy.deepcopy(words.ANY_ANSWER)
        return made

    def _request(self, key: RouteKey, route: dict[str, Any]) -> dict[str, Any]:
        request = route.get("request", {})
        made: dict[str, Any] = {}
        says = bool(request.get("body") or request.get("parameters"))
        parameters = list(self._parameters(key, request.pop("parameters", {}) if says else {}))
        if parameters:
            made["parameters"] = parameters
        body = request.pop("body", {}) if says else {}
        if body:
            required = request.pop("bodyRequired", True)
            made["requestBody"] = {"required": required, "content": self._content(body)}
            odd = {kind: schema for kind, schema in body.items() if _refers_to_itself(schema)}
            if odd:
                request["body"] = odd
        if says and self._extensions:
            made[words.VALIDATOR] = _validator(request.pop("validate", None))
        return made

    def _content(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            words.ANY_TYPE if kind == DEFAULT else kind: {
                "schema": {"$ref": words.SCHEMAS + schema} if isinstance(schema, str) else self._schema(schema)
            }
            for kind, schema in body.items()
        }

    def _parameters(self, key: RouteKey, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for name in key.names:
            about = given.get(f"path.{name}", {"schema": {"type": "string"}})
            yield self._parameter("path", name, {**about, "required": True})
        for text, about in given.items():
            place, _, name = text.partition(".")
            if place != "path":
                yield self._parameter(place, name, about)

    def _parameter(self, place: str, name: str, about: Mapping[str, Any]) -> dict[str, Any]:
        made = {"name": name, "in": words.PLACES[place], **about}
        made["schema"] = self._schema(about.get("schema", {}))
        return made

    def _schema(self, schema: Any) -> Any:
        if _refers_to_itself(schema) and schema not in self._models.values():
            return {}
        own = next((name for name, model in self._models.items() if model is schema), "")

        def change(each: dict[str, Any]) -> dict[str, Any]:
            reference = each.get("$ref")
            if isinstance(reference, str):
                moved = reference.startswith(MODELS_POINTER)
                target = reference.removeprefix(MODELS_POINTER) if moved else own + reference[1:]
                each["$ref"] = words.SCHEMAS + target
            return each if self._extensions else _shown(each)

        made = mapped(schema, change)
        if not isinstance(made, dict):
            return made
        if self._modern:
            return {"$schema": f"{DRAFT_4}#", **made} if made else made
        made.pop("$schema", None)
        return made


def _inline(route: Any) -> Iterator[Any]:
    if route.request is not None:
        yield from (schema for _, schema in route.request.schemas() if not isinstance(schema, str))
    if route.documentation is not None:
        for each in route.documentation.responses.values():
            yield from (schema for schema in each.body.values() if not isinstance(schema, str))


def _is_3_0(schema: Mapping[str, Any]) -> bool:
    if schema.get("$schema", DRAFT_4).rstrip("#") != DRAFT_4:
        return False
    return all(
        each.keys() - {"$schema"} <= SCHEMA_WORDS_3_0
        and isinstance(each.get("type", ""), str)
        and each.get("type") != "null"
        and isinstance(each.get("items", {}), dict)
        and ("$ref" not in each or len(each) == 1)
        and "nullable" not in each
        for _, each in walk(schema)
    )


def _shown(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema in the words of OpenAPI 3.0, for pages that know no others: what it cannot say is left out."""
    made = {word: value for word, value in schema.items() if word in SCHEMA_WORDS_3_0}
    kinds = made.get("type")
    if isinstance(kinds, list):
        known = [kind for kind in kinds if kind != "null"]
        made.pop("type")
        if len(known) == 1:
            made["type"] = known[0]
        if "null" in kinds:
            made["nullable"] = True
    if made.get("type") == "null":
        made = {"nullable": True}
    for word, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if word in made and not isinstance(made[word], bool):
            made[bound], made[word] = made[word], True
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if isinstance(made.get("items"), bool | list) or (made.get("type") == "array" and "items" not in made):
        made["items"] = {}
    return made


def _refers_to_itself(schema: Any) -> bool:
    return isinstance(schema, dict) and any(
        isinstance(each.get("$ref"), str) and not each["$ref"].startswith(MODELS_POINTER) for _, each in walk(schema)
    )


def _validator(validate: list[str] | None) -> str:
    if validate is None:
        return "all"
    return next(name for name, what in words.VALIDATES.items() if set(what) == set(validate))


def _validators(routes: Mapping[str, Any]) -> dict[str, Any]:
    used = {_validator(route["request"].get("validate")) for route in routes.values() if "request" in route}
    return {
        name: {"validateRequestBody": "body" in what, "validateRequestParameters": "parameters" in what}
        for name, what in words.VALIDATES.items()
        if name in used
    }


def _gateway_response(given: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "statusCode" in given:
        made["statusCode"] = str(given["statusCode"])
    headers = dict(given.get("headers", {}))
    kind = next((headers.pop(name) for name in list(headers) if name.lower() == "content-type"), "application/json")
    if headers:
        made["responseParameters"] = {
            f"gatewayresponse.header.{name}": integrations.quoted(text) for name, text in headers.items()
        }
    if "body" in given:
        made["responseTemplates"] = {kind: given["body"]}
    return made
