"""An OpenAPI document as a gateway's file. What is not kept of it is told, by JSON path."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from owsgit.gateway.table import ANY, DEFAULT, RouteKeyError, parse_key
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.strictjson import join, problem_path
from owsgit.services.gateways.openapi import integrations, loading, refusing, security, swagger, words
from owsgit.services.gateways.schemas import DRAFT_4, DRAFT_2020, DRAFTS, mapped
from owsgit.services.gateways.spec import INTEGRATIONS, GatewaySpec, RouteSpec

AWS_MODEL = re.compile(r"https?://apigateway\.amazonaws\.com/restapis/[^/]+/models/([A-Za-z0-9]+)$")
DOCUMENTATION = ("operationId", "summary", "description", "tags", "deprecated")
GATEWAY_WORDS = frozenset(
    {words.CORS, words.VALIDATOR, words.VALIDATORS, words.RESPONSES, words.BINARY, words.COMPRESSION, words.POLICY,
     words.KEY_SOURCE, words.EXPORT_VERSION, words.GATEWAY}
)  # fmt: skip
OPERATION_WORDS = frozenset(
    {*DOCUMENTATION, "parameters", "requestBody", "responses", "security", "isDefaultRoute", words.INTEGRATION,
     words.VALIDATOR, words.ROUTE}
)  # fmt: skip
COMPONENTS = frozenset({"schemas", "securitySchemes", "parameters", "requestBodies", "responses", words.INTEGRATIONS})
REFERENCES_MAX = 20
PRUNED_MAX = 1000
GUARDS = frozenset({"auth", "scopes", "apiKeyRequired", "authorizers", "policy"})
"""Fields without which a route would be open to more than the document says."""


Placed = tuple[str, Any]
"""A value with the JSON path where it was written."""


INHERITED = {"auth": "auth", "apiKeyRequired": "api_key_required"}
"""What routes have of their gateway, as fields of both."""


@dataclass(frozen=True)
class Options:
    """How a document is taken. `function` answers operations that do not say what does."""

    function: str | None = None
    without_security: bool = False


@dataclass
class Imported:
    """What a document comes to: the content of a gateway's file, without what only the file says, such as its port."""

    gateway: dict[str, Any]
    warnings: list[Problem] = field(default_factory=list)


def read(data: bytes, file: str, options: Options = Options()) -> Imported:
    """Raises InvalidError for what is no OpenAPI document, and for what would leave open what it protects."""
    document = loading.load(data, file)
    document = _local_references(document)
    loading.validate(document, file)
    reader = _Reader(document, file, options)
    gateway = _Pruner(reader.gateway(), reader, options).pruned()
    if reader.problems:
        raise InvalidError.of(reader.problems)
    return Imported(gateway, reader.warnings)


def _local_references(value: Any) -> Any:
    """API Gateway's addresses of models, as references within the document."""
    if isinstance(value, dict):
        made = {name: _local_references(each) for name, each in value.items()}
        reference = made.get("$ref")
        found = AWS_MODEL.match(reference) if isinstance(reference, str) else None
        if found:
            made["$ref"] = words.SCHEMAS + found[1]
        return made
    return [_local_references(each) for each in value] if isinstance(value, list) else value


class _Reader:
    def __init__(self, document: dict[str, Any], file: str, options: Options) -> None:
        self.warnings: list[Problem] = []
        self.problems: list[Problem] = []
        self._file, self._options = file, options
        self._is_swagger = "swagger" in document
        self._is_modern = str(document.get("openapi", "")).startswith("3.1")
        self._is_amazons = _has_amazon(document)
        self._is_own = words.GATEWAY in document
        if self._is_swagger:
            document = swagger.modern(document, self.warn)
        self._document = document
        components = document.get("components")
        self._components: dict[str, Any] = components if isinstance(components, dict) else {}
        self._schemes: dict[str, Any] = self._components.get("securitySchemes", {})
        self._authorizers = self._read_authorizers()
        self._default = security.asked(document.get("security", []), self._schemes, self._authorizers)
        self._own: dict[str, Any] = document.get(words.GATEWAY, {})

    def warn(self, path: str, message: str) -> None:
        self.warnings.append(Problem(f"not kept: {message}", self._file, path))

    def gateway(self) -> dict[str, Any]:
        document = self._document
        for word in sorted(document):
            if word.startswith(words.AMAZON) and word not in GATEWAY_WORDS:
                self.warn(join("$", word), "has no counterpart")
        self._servers()
        made: dict[str, Any] = {}
        self._about(made)
        if self._authorizers:
            made["authorizers"] = self._authorizers
        if "security" in document and not self._default.problems:
            known = [name for name, field in INHERITED.items() if field in GatewaySpec.model_fields]
            made.update({name: value for name, value in self._default.fields().items() if name in known})
        self._settings(made)
        schemas = self._components.get("schemas", {})
        if schemas:
            made["models"] = {
                _model_name(name): self._schema(each, join("$.components.schemas", name))
                for name, each in schemas.items()
            }
        for word in sorted(self._components.keys() - COMPONENTS):
            if self._components[word]:
                self.warn(join("$.components", word), "is documentation that is not kept")
        made["routes"] = dict(self._routes())
        return dict(words.merged(made, self._own))

    def _about(self, made: dict[str, Any]) -> None:
        info = self._document.get("info", {})
        if info.get("description"):
            made["description"] = str(info["description"])[:1024]
        made["info"] = {"title": str(info.get("title", "")), "version": str(info.get("version", "1.0"))}
        for word in sorted(info.keys() - {"title", "version", "description"}):
            self.warn(join("$.info", word), "is documentation that is not kept")

    def _servers(self) -> None:
        for index, server in enumerate(self._document.get("servers", ())):
            written = str(server.get("url", "/"))
            for name, about in server.get("variables", {}).items():
                written = written.replace(f"{{{name}}}", str(about.get("default", "x")))
            written = re.sub(r"\{[^}]*\}", "x", written)
            path = re.sub("/{2,}", "/", urlsplit(written).path)
            if not self._is_own and path not in ("", "/"):
                self.warn(
                    f"$.servers[{index}].url",
                    f"routes are served without {path}: a domain's basePath, or a stage, puts something before them",
                )

    def _settings(self, made: dict[str, Any]) -> None:
        document = self._document
        for word, name in ((words.CORS, "cors"), (words.BINARY, "binaryMediaTypes")):
            if word in document:
                made[name] = document[word]
        if words.POLICY in document:
            policy = document[words.POLICY]
            made["policy"] = policy if self._is_own else refusing.policy(policy, self.warn)
        if isinstance(document.get(words.COMPRESSION), int):
            made["compression"] = {"minimumSize": document[words.COMPRESSION]}
        if document.get(words.KEY_SOURCE):
            made["apiKeySource"] = str(document[words.KEY_SOURCE]).upper()
        responses = document.get(words.RESPONSES)
        if isinstance(responses, dict) and responses:
            made["responses"] = refusing.responses(responses, self.warn, is_own=self._is_own)

    def _read_authorizers(self) -> dict[str, Any]:
        place = "$.securityDefinitions" if self._is_swagger else "$.components.securitySchemes"
        found = {
            name: security.authorizer(scheme, join(place, name), self.warn) for name, scheme in self._schemes.items()
        }
        return {name: each for name, each in found.items() if each is not None}

    def _routes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, written in self._document.get("paths", {}).items():
            place, item = join("$.paths", path), self._resolved(written)
            shared = _placed(item, place)
            for word, operation in item.items():
                below = join(place, word)
                if word in words.OPENAPI_METHODS or word == words.ANY_METHOD:
                    method = ANY if word == words.ANY_METHOD else word.upper()
                    key = self._key(path, method, below)
                    if key:
                        yield key, self._route(key, self._resolved(operation), shared, below)
                elif word == "trace" or word.startswith(words.AMAZON):
                    self.warn(below, "has no counterpart")

    def _key(self, path: str, method: str, place: str) -> str:
        if path == words.DEFAULT_PATH:
            return DEFAULT
        if len(path) > 1 and path.endswith("/"):
            self.warn(place, "a slash at the end does not make another route")
            path = path.rstrip("/")
        try:
            return parse_key(f"{method} {path}").text
        except RouteKeyError as error:
            self.problems.append(Problem(f"{path!r:.100} is no path of a route: {error}", self._file, place))
            return ""

    def _route(self, key: str, operation: dict[str, Any], shared: list[Placed], place: str) -> dict[str, Any]:
        for word in sorted(operation.keys() - OPERATION_WORDS):
            if word in ("callbacks", "servers", "externalDocs") or word.startswith(words.AMAZON):
                self.warn(join(place, word), "has no counterpart")
        own = operation.get(words.ROUTE, {})
        own = own if isinstance(own, dict) else {}
        made: dict[str, Any] = {}
        integration = self._integration(operation)
        if integration:
            made = integrations.read(integration, join(place, words.INTEGRATION), self.warn)
        if "response" in made and not self._is_own:
            _typed(made["response"])
        if not any(name in made or name in own for name in INTEGRATIONS) and self._options.function is not None:
            made = {"function": self._options.function}
        made.update(self._security(operation, place))
        request = self._request(key, operation, shared, place)
        if request:
            made["request"] = request
        about = self._documentation(operation, place)
        if about:
            made["documentation"] = about
        return dict(words.merged(made, own))

    def _integration(self, operation: dict[str, Any]) -> dict[str, Any]:
        """That of an operation, which several may share by a reference."""
        return self._resolved(operation.get(words.INTEGRATION, {}))

    def _security(self, operation: dict[str, Any], place: str) -> dict[str, Any]:
        if "security" in operation:
            found = security.asked(operation["security"], self._schemes, self._authorizers)
            place = join(place, "security")
        elif "security" in self._document:
            found, place = self._default, "$.security"
        else:
            return {}
        if found.problems:
            self.guarded(place, "; ".join(found.problems))
            return {}
        made = found.fields()
        if "security" not in operation:
            for name, field in INHERITED.items():
                if field in GatewaySpec.model_fields:
                    made.pop(name, None)  # it is the gateway's own
        elif self._default.key and not found.key:
            made["apiKeyRequired"] = False
        return made

    def guarded(self, place: str, what: str) -> None:
        """That something would be open which the document protects."""
        if self._options.without_security:
            self.warn(place, what)
        elif not any(problem.path == place for problem in self.problems):
            remedy = "describe it by API Gateway's extensions, or leave security out by --without-security"
            self.problems.append(Problem(f"{what}: the route would be open", self._file, place, remedy))

    def _request(self, key: str, operation: dict[str, Any], shared: list[Placed], place: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        parameters = self._parameters(key, [*shared, *_placed(operation, place)])
        if parameters:
            made["parameters"] = parameters
        body = self._resolved(operation.get("requestBody", {}))
        content = self._content(body.get("content", {}), join(join(place, "requestBody"), "content"))
        if content:
            made["body"] = content
            if not body.get("required", False):
                made["bodyRequired"] = False
        if not made:
            return {}
        validate = self._validate(operation, place)
        if validate is not None:
            made["validate"] = validate
        integration = self._integration(operation)
        if content and integration:
            behaviour = str(integration.get("passthroughBehavior", "when_no_match")).upper()
            if behaviour != "NEVER":
                made["passthroughBehavior"] = "WHEN_NO_MATCH"
        return made

    def _validate(self, operation: dict[str, Any], place: str) -> list[str] | None:
        """What is checked: what a validator says; without one nothing in API Gateway, and all in plain OpenAPI."""
        name = operation.get(words.VALIDATOR, self._document.get(words.VALIDATOR))
        validators = self._document.get(words.VALIDATORS, {})
        if name is None:
            return [] if self._is_amazons else None
        about = validators.get(name)
        if not isinstance(about, dict):
            self.warn(join(place, words.VALIDATOR), f"there is no validator {name!r:.60}")
            return []
        checked = [
            what
            for what, word in (("body", "validateRequestBody"), ("parameters", "validateRequestParameters"))
            if about.get(word)
        ]
        return checked if len(checked) < 2 else None

    def _parameters(self, key: str, given: list[Placed]) -> dict[str, Any]:
        places = {name: kind for kind, name in words.PLACES.items()}
        names = parse_key(key).names
        made: dict[str, Any] = {}
        for path, each in given:
            about = self._resolved(each)
            kind, name = places.get(str(about.get("in"))), str(about.get("name"))
            if kind is None:
                self.warn(path, f"parameters of {str(about.get('in'))!r:.20} are not checked")
                continue
            name = name.rstrip("+") if kind == "path" else name
            if kind == "path" and name not in names:
                self.warn(path, f"the path has no {{{name}}}")
                continue
            parameter = self._parameter(about, kind, path)
            if kind != "path" or parameter:
                made[f"{kind}.{name}"] = parameter
        return made

    def _parameter(self, about: dict[str, Any], kind: str, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if about.get("required") and kind != "path":
            made["required"] = True
        schema = about.get("schema") or {}
        if schema and (kind != "path" or schema != {"type": "string"}):
            made["schema"] = self._schema(schema, join(path, "schema"))
        if about.get("description"):
            made["description"] = str(about["description"])[:4096]
        for word in ("style", "content", "examples", "allowReserved"):
            if word in about:
                self.warn(join(path, word), "has no counterpart")
        return made

    def _content(self, content: Mapping[str, Any], place: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for kind, media in content.items():
            plain = kind.partition(";")[0].strip().lower()
            if "*" in plain and plain != words.ANY_TYPE:
                self.warn(join(place, kind), "content types are given one by one")
                continue
            schema = media.get("schema") if isinstance(media, dict) else None
            if not isinstance(schema, dict) or not _is_json(plain):
                if isinstance(schema, dict):
                    self.warn(join(place, kind), "only JSON is checked")
                continue
            reference = schema.get("$ref")
            name = DEFAULT if plain == words.ANY_TYPE else plain
            if isinstance(reference, str) and re.fullmatch(f"{words.SCHEMAS}[^/]+", reference):
                made[name] = _model_name(reference.removeprefix(words.SCHEMAS))
            else:
                made[name] = self._schema(schema, join(join(place, kind), "schema"))
        return made

    def _documentation(self, operation: dict[str, Any], place: str) -> dict[str, Any]:
        made = {name: operation[name] for name in DOCUMENTATION if operation.get(name)}
        responses = operation.get("responses", {})
        if responses and responses != words.ANY_ANSWER:
            made["responses"] = {
                str(status).replace("x", "X"): self._response(each, join(join(place, "responses"), str(status)))
                for status, each in responses.items()
                if isinstance(each, dict)
            }
        return made

    def _response(self, given: Any, place: str) -> dict[str, Any]:
        about = self._resolved(given)
        made: dict[str, Any] = {}
        if about.get("description"):
            made["description"] = str(about["description"])[:8192]
        body = self._content(about.get("content", {}), join(place, "content"))
        if body:
            made["body"] = body
        for word in ("headers", "links"):
            if about.get(word):
                self.warn(join(place, word), "is documentation that is not kept")
        return made

    def _schema(self, schema: Any, place: str) -> Any:
        """A schema as a model: draft 4, or 2020-12 of OpenAPI 3.1."""

        def change(each: dict[str, Any]) -> dict[str, Any]:
            reference = each.get("$ref")
            if isinstance(reference, str) and reference.startswith(words.SCHEMAS):
                name, slash, rest = reference.removeprefix(words.SCHEMAS).partition("/")
                each["$ref"] = words.MODELS + _model_name(name) + slash + rest
            if not self._is_modern and each.pop("nullable", None) is True:
                _make_nullable(each)
            return each

        made = mapped(schema, change)
        if not isinstance(made, dict):
            return {} if made is True else {"not": {}}
        for word in ("$id", "id") if isinstance(made.get("id"), str) else ("$id",):
            if made.pop(word, None) is not None:
                self.warn(join(place, word), "models are known by their names")
        if self._is_modern:
            dialect = str(self._document.get("jsonSchemaDialect", DRAFT_2020)).rstrip("#")
            given = str(made.get("$schema", dialect if dialect in DRAFTS else DRAFT_2020)).rstrip("#")
            made.pop("$schema", None)
            return made if given == DRAFT_4 else {"$schema": given, **made}
        if str(made.get("$schema", "")).rstrip("#") == DRAFT_4:
            made.pop("$schema")
        return made

    def _resolved(self, value: Any) -> dict[str, Any]:
        """What a reference of OpenAPI refers to."""
        for _ in range(REFERENCES_MAX):
            reference = value.get("$ref") if isinstance(value, dict) else None
            if not isinstance(reference, str):
                break
            value = self._document
            for part in reference.removeprefix("#/").split("/"):
                name = part.replace("~1", "/").replace("~0", "~")
                value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, dict) and "$ref" not in value else {}


class _Pruner:
    """Takes off what this version's schema of a gateway does not know, and tells it."""

    def __init__(self, gateway: dict[str, Any], reader: _Reader, options: Options) -> None:
        self._gateway, self._reader, self._options = gateway, reader, options

    def pruned(self) -> dict[str, Any]:
        for key in list(self._gateway["routes"]):
            route = self._gateway["routes"][key]
            if not any(name in route and name in RouteSpec.model_fields for name in INTEGRATIONS):
                self._gateway["routes"].pop(key)
                self._reader.warn(
                    problem_path(("routes", key)),
                    "nothing that is known answers this route; --function NAME names what answers such routes",
                )
        for _ in range(PRUNED_MAX):
            unknown = self._unknown()
            if not unknown:
                break
            for path in unknown:
                self._take_off(path)
        return self._gateway

    def _unknown(self) -> list[tuple[str | int, ...]]:
        """Where fields are that this version does not know."""
        try:
            GatewaySpec.model_validate_json(_json({"port": 1, **self._gateway}))
        except ValidationError as error:
            return [detail["loc"] for detail in error.errors(include_url=False) if detail["type"] == "extra_forbidden"]
        return []

    def _take_off(self, location: tuple[str | int, ...]) -> None:
        value: Any = self._gateway
        path: list[str | int] = []
        for part in location[:-1]:
            if isinstance(value, dict | list) and (part in value if isinstance(value, dict) else isinstance(part, int)):
                value = value[part]  # type: ignore[index]
                path.append(part)
        name = location[-1]
        if isinstance(value, dict) and value.pop(str(name), None) is not None:
            place = problem_path((*path, name))
            message = f"{name!r:.60} is not supported by this version"
            if name in GUARDS:
                self._reader.guarded(place, message)
            else:
                self._reader.warn(place, message)


def _json(value: Any) -> bytes:
    import orjson  # noqa: PLC0415

    return orjson.dumps(value)


def _placed(holder: Mapping[str, Any], place: str) -> list[Placed]:
    """The parameters of a path, or of an operation."""
    return [(f"{place}.parameters[{index}]", each) for index, each in enumerate(holder.get("parameters", ()))]


def _model_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("~1", "/").replace("~0", "~"))[:128] or "_"


def _typed(response: dict[str, Any]) -> None:
    """A mock integration's body is JSON for the client if the document does not say what it is."""
    headers = response.get("headers", {})
    if "body" in response and not any(name.lower() == "content-type" for name in headers):
        response["headers"] = {**headers, "Content-Type": "application/json"}


def _is_json(kind: str) -> bool:
    return kind in (words.ANY_TYPE, "application/json") or kind.endswith("+json")


def _make_nullable(schema: dict[str, Any]) -> None:
    """OpenAPI 3.0's nullable, in the words of JSON Schema."""
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]


def _has_amazon(value: Any) -> bool:
    if isinstance(value, dict):
        return any(name.startswith(words.AMAZON) or _has_amazon(each) for name, each in value.items())
    return isinstance(value, list) and any(_has_amazon(each) for each in value)
