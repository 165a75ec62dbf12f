"""The spec of an API gateway: `gateways/<name>.json`."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel

from owsgit.gateway.table import CONNECT, DEFAULT, parse_key
from owsgit.model.core import Port
from owsgit.model.errors import Problem
from owsgit.model.iam.document import Guarded
from owsgit.model.spec import Claim, Document, PlacedError, Reference, Suspendable
from owsgit.model.strictjson import join, problem_path
from owsgit.services.gateways import requests
from owsgit.services.gateways.access_logs import AccessLogSpec
from owsgit.services.gateways.authorizers import (
    AUTHORIZERS_MAX,
    NONE,
    RESERVED,
    SCOPES_MAX,
    Auth,
    AuthorizerName,
    AuthorizerSpec,
    Scope,
    check_auth,
)
from owsgit.services.gateways.caching import CacheSpec
from owsgit.services.gateways.canary import CanarySpec, check_canary
from owsgit.services.gateways.compressing import CompressionSpec
from owsgit.services.gateways.cors import CorsSpec
from owsgit.services.gateways.documentation import DocsSpec, DocumentationSpec, InfoSpec
from owsgit.services.gateways.function_authorizers import RequestAuthorizer, TokenAuthorizer
from owsgit.services.gateways.integrations import (
    FilesSpec,
    HttpSpec,
    InvokeSpec,
    Mapped,
    Path,
    RedirectSpec,
    ResponseSpec,
    check,
    mapped,
    mapped_responses,
    missing_variable,
)
from owsgit.services.gateways.policy import GatewayPolicy, unmatched
from owsgit.services.gateways.protection import InFlightMax, LimitsSpec, ThrottleSpec
from owsgit.services.gateways.requests import MODELS_MAX, JsonSchema, ModelName, RequestSpec
from owsgit.services.gateways.responses import GatewayResponse, ResponseKind
from owsgit.services.gateways.sockets import HTTP, SELECTION, SelectionExpression, WebSocketSpec, check_key, check_route
from owsgit.services.gateways.stages import (
    FunctionName,
    StageName,
    StageSpec,
    check_version,
    resolved,
    version_reference,
)
from owsgit.services.gateways.tls import AcmeSpec, CertificateSpec, PortTlsSpec, certificate_references
from owsgit.services.gateways.usage_plans import ROUTE_NEED, STAGE_NEED

ROUTES_MAX = 10_000
DOMAINS_MAX = 100
STAGES_MAX = 20
MEDIA_TYPES_MAX = 100

HostName = Annotated[
    str,
    StringConstraints(pattern=r"^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"),
]
BasePath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)*$", max_length=300)]

MediaType = Annotated[
    str, StringConstraints(pattern=r"^(\*/\*|[a-z0-9!#$&^_.+-]+/(\*|[a-z0-9!#$&^_.+-]+))$", max_length=200)
]

INTEGRATIONS = ("function", "http", "response", "redirect", "files", "invoke")
"""The fields of a route that say what answers; a route has exactly one of them."""


def _route_key(text: str, info: ValidationInfo) -> str:
    check_key(text, info.data.get("protocol", HTTP))
    return text


class RouteSpec(Document):
    """Where the requests of a route go, and what is asked of them."""

    function: FunctionName | None = Field(
        None, description="The function that answers: f, f:alias or f@commit; ${stageVariables.name} is replaced."
    )
    payload_format_version: Literal["1.0", "2.0"] = Field(
        "2.0", description="Format of event and answer: 1.0 as of REST APIs, 2.0 as of HTTP APIs."
    )
    invocation_type: Literal["RequestResponse", "Event"] = Field(
        "RequestResponse",
        description="Event: the function is invoked later, and the client has its answer (202) once that is durable.",
    )
    http: HttpSpec | None = Field(None, description="Another HTTP service that answers.")
    response: ResponseSpec | None = Field(None, description="A fixed response.")
    redirect: RedirectSpec | None = Field(None, description="Where clients are sent.")
    files: FilesSpec | None = Field(None, description="Static files.")
    invoke: InvokeSpec | None = Field(None, description="Anything that can be invoked.")
    rewrite: Path | None = Field(
        None,
        description="The path that a function sees, or that is added to the uri of http, in place of the request's: "
        "/internal/{id}.",
    )
    request_parameters: Annotated[Mapped, AfterValidator(mapped)] = Field(
        default_factory=dict,
        max_length=100,
        description="What the integration is shown: 'append:header.x', 'overwrite:querystring.y', 'remove:header.z' to "
        "values such as $request.header.a, $request.path.id, $context.requestId, ${stageVariables.b}-text.",
    )
    response_parameters: Annotated[
        dict[Annotated[str, StringConstraints(pattern="^[2-5][0-9]{2}$")], Mapped], AfterValidator(mapped_responses)
    ] = Field(
        default_factory=dict,
        max_length=20,
        description="By status of the integration's response, changes of it: 'overwrite:header.x', 'remove:header.y', "
        "'overwrite:statuscode'.",
    )
    response_transfer_mode: Literal["BUFFERED", "STREAM"] = Field(
        "BUFFERED",
        description="STREAM: the response goes to the client as the function writes it, up to 200 MB.",
    )
    route_response: bool = Field(
        False, description="Of a WebSocket API: the client gets what the function answers, as a message."
    )
    timeout: int = Field(
        29,
        ge=1,
        le=900,
        description="Seconds within which the response comes, or the first byte of a streamed one; for http, of "
        "silence before and within a response.",
    )
    request: RequestSpec | None = Field(None, description="What requests have to be; others are refused with 400.")
    documentation: DocumentationSpec | None = Field(None, description="What OpenAPI documents say of the route.")

    cache: CacheSpec | None = Field(None, description="Keep responses, and answer from them; absent: keep none.")
    etag: bool = Field(
        False, description="Whether buffered responses get an ETag; who has them already is answered 304."
    )

    auth: Auth | None = Field(
        None,
        description="Who may call it: none (everybody), iam (AWS signatures), or an authorizer's name; without it, "
        "what the gateway says.",
    )
    scopes: list[Scope] = Field(
        default_factory=list,
        max_length=SCOPES_MAX,
        description="One of these has to be in the token's scope (authorizationScopes); for jwt authorizers.",
    )

    api_key_required: bool | None = Field(
        None, description="Whether it asks for an API key of a usage plan; without it, what the gateway says."
    )
    throttle: ThrottleSpec | None = Field(None, description="How often it may be called; beyond that, 429.")
    concurrency: InFlightMax | None = Field(None, description="Requests on their way at once, on a node; beyond, 503.")
    canary: CanarySpec | None = Field(None, description="Another version of the function, for a part of the requests.")

    @model_validator(mode="after")
    def _one_integration(self) -> Self:
        given = [name for name in INTEGRATIONS if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(given) if given else "none"
            raise ValueError(f"a route has exactly one of {', '.join(INTEGRATIONS)}; this one has {what}")
        if self.canary is not None and self.function is None:
            raise ValueError("a canary is another version of the route's function, and this route has no function")
        called = self.function is not None or self.invoke is not None
        if self.invocation_type == "Event" and not called:
            raise ValueError(f"invocationType is for function and invoke, not for {given[0]}: remove it")
        streams = self.response_transfer_mode == "STREAM"
        if streams and not called:
            raise ValueError(f"responseTransferMode is for function and invoke, not for {given[0]}: remove it")
        if streams and self.invocation_type == "Event":
            raise ValueError("what is invoked later has no response to stream: remove responseTransferMode")
        if self.rewrite is not None and not (called or self.http):
            raise ValueError(f"rewrite is for function, invoke and http, not for {given[0]}: remove it")
        if self.request_parameters and not (called or self.http):
            raise ValueError(f"requestParameters are for function, invoke and http, not for {given[0]}: remove them")
        if self.rewrite is not None and self.http is not None and re.search(r"\?|(?<!\$)\{", self.http.uri):
            raise ValueError("with rewrite, http.uri has no query and no {parameter}: rewrite is added to it")
        return self

    def functions(self) -> Iterator[tuple[str, str]]:
        """The functions that it names: path of the field, and what is written there."""
        if self.function is not None:
            yield "function", self.function
        if self.canary is not None:
            yield "canary.function", self.canary.function


class DomainSpec(Document):
    """A host name, or a part of one, that a stage answers for."""

    name: HostName = Field(description="Host name in lower case, or *.domain for every name one label below.")
    base_path: BasePath = Field("", description="What paths begin with, such as /v1; routes do not see it.")
    stage: str = Field(DEFAULT, description="The stage that answers.")
    certificate: CertificateSpec | None = Field(
        None, description="The certificate for this name; by default that of tls of the gateway."
    )

    @property
    def segments(self) -> tuple[str, ...]:
        return segments_of(self.base_path)


class GatewaySpec(Suspendable, Guarded):
    """A REST, HTTP or WebSocket API: a port on every node, and the routes behind it."""

    description: str | None = Field(None, max_length=1024, description="What the API is for.")
    policy: GatewayPolicy | None = Field(None, description="The resource policy: who may call it, and from where.")
    protocol: Literal["HTTP", "WEBSOCKET"] = Field("HTTP", description="What clients speak (protocolType).")
    route_selection_expression: SelectionExpression = Field(
        SELECTION, description="Of a WebSocket API: where a message says its route, $request.body.name."
    )
    web_socket: WebSocketSpec = Field(
        default_factory=WebSocketSpec, description="Of a WebSocket API: limits of its connections."
    )
    port: Port = Field(description="TCP port on which every node serves this API; gateways may share one.")
    domains: list[DomainSpec] = Field(
        default_factory=list,
        max_length=DOMAINS_MAX,
        description="The host names that it answers for; without any, it answers for all that no other gateway has.",
    )
    cors: CorsSpec | None = Field(None, description="What pages of other origins may do.")
    tls: PortTlsSpec | None = Field(None, description="How the port is served with TLS; without it, it is plain HTTP.")
    stages: dict[StageName, StageSpec] = Field(
        default_factory=lambda: {DEFAULT: StageSpec()},
        min_length=1,
        max_length=STAGES_MAX,
        description="Stages by name: each serves all routes, $default at /, the others at /<stage>.",
    )
    authorizers: dict[AuthorizerName, AuthorizerSpec] = Field(
        default_factory=dict, max_length=AUTHORIZERS_MAX, description="Authorizers by name, for routes to name."
    )
    auth: Auth = Field(
        NONE, description="What routes that do not say have as auth: none, iam, or an authorizer's name."
    )
    api_key_required: bool = Field(False, description="Whether routes that do not say ask for an API key.")
    api_key_source: Literal["HEADER", "AUTHORIZER"] = Field(
        "HEADER", description="Where API keys come from: x-api-key, or an authorizer's usageIdentifierKey."
    )
    throttle: ThrottleSpec | None = Field(None, description="How often each stage may be called; beyond that, 429.")
    concurrency: InFlightMax | None = Field(
        None, description="Requests of a stage on their way at once, on a node; beyond, 503."
    )
    limits: LimitsSpec = Field(
        default_factory=lambda: LimitsSpec.model_validate({}), description="What is taken from a client."
    )
    compression: CompressionSpec | None = Field(
        None, description="Compress responses as clients accept it; absent: compress none."
    )
    binary_media_types: list[MediaType] = Field(
        default_factory=list,
        max_length=MEDIA_TYPES_MAX,
        description="As of REST APIs, for routes of format 1.0: types whose bodies are base64 in events, and are "
        "decoded in answers if the client accepts one first; */* is all. Without any, what is not text is base64.",
    )
    access_log: AccessLogSpec | None = Field(None, description="A line for each request; absent: none.")
    routes: dict[Annotated[str, AfterValidator(_route_key)], RouteSpec] = Field(
        max_length=ROUTES_MAX,
        description="By route key: 'METHOD /path' with {parameter} and {parameter+}, 'ANY /path', or '$default'; of "
        "a WebSocket API: '$connect', '$disconnect', '$default', or what a message says.",
    )

    models: dict[ModelName, JsonSchema] = Field(
        default_factory=dict,
        max_length=MODELS_MAX,
        description="JSON Schemas by name, for requests to refer to: draft 4, or what $schema says.",
    )
    responses: dict[ResponseKind, GatewayResponse] = Field(
        default_factory=dict,
        description="By type of gateway response (DEFAULT_4XX, THROTTLED, ...): what is answered where a request goes "
        "no further.",
    )
    info: InfoSpec | None = Field(None, description="What OpenAPI documents call the API.")
    docs: DocsSpec | None = Field(None, description="An interactive page of the API; without it there is none.")

    @model_validator(mode="after")
    def _fits_protocol(self) -> Self:
        given = {"route_selection_expression", "web_socket"} & self.model_fields_set
        if self.protocol == HTTP and given:
            name = to_camel(min(given))
            raise PlacedError(f'{name} is for WebSocket APIs: remove it, or add "protocol": "WEBSOCKET"', name)
        if self.protocol != HTTP and self.auth != NONE and CONNECT not in self.routes:
            raise PlacedError(f"auth of a WebSocket API is asked at {CONNECT!r}: add that route", "auth")
        for key, route in self.routes.items():
            check_route(key, route, self.protocol)
        return self

    @model_validator(mode="after")
    def _routes_differ(self) -> Self:
        if self.protocol != HTTP:
            return self
        seen: dict[object, str] = {}
        for text in self.routes:
            other = seen.setdefault((parse_key(text).shape, text == DEFAULT), text)
            if other != text:
                words = f"the routes {other!r} and {text!r} match the same requests: remove one"
                raise PlacedError(words, "routes", text)
        return self

    @model_validator(mode="after")
    def _authorizers_are_there(self) -> Self:
        check_auth(self.authorizers, self.auth, self.routes)
        return self

    def auth_of(self, route: RouteSpec) -> str:
        """Who may call a route: none, iam, or an authorizer's name."""
        return self.auth if route.auth is None else route.auth

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for index, domain in enumerate(self.domains):
            if domain.stage not in self.stages:
                known = ", ".join(self.stages)
                words = f"domains[{index}] names the stage {domain.stage!r}; there are {known}"
                raise PlacedError(words, "domains", index, "stage")
        self._check_tls()
        places = [(host, base) for host, base, _ in self.places()]
        for place in places:
            if places.count(place) > 1:
                raise ValueError(f"two stages are served at {'/' + '/'.join(place[1])} of {place[0] or 'every host'}")
        for key, route in self.routes.items():
            for stage, about in self.stages.items():
                check(key if self.protocol == HTTP else DEFAULT, route, about.variables, stage)
        for who, at, function in self._functions():
            for stage, about in self.stages.items():
                name = resolved(function, about.variables)
                if re.fullmatch(r"[^${}]+", name) is None:
                    raise PlacedError(missing_variable(f"{who}: {function!r}", stage), *at)
                check_version(f"{who}: {name!r}", name, *at)
        for key, route in self.routes.items():
            check_canary(key, route, [about.variables for about in self.stages.values()])
        return self

    def _functions(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """The functions that it calls: who says so, where, and which."""
        for key, route in self.routes.items():
            for field, function in route.functions():
                yield f"route {key!r}", ("routes", key, *field.split(".")), function
        for name, authorizer in self.authorizers.items():
            if isinstance(authorizer, RequestAuthorizer | TokenAuthorizer):
                yield f"authorizer {name!r}", ("authorizers", name, "function"), authorizer.function

    def _check_tls(self) -> None:
        tls = self.tls
        if tls is None:
            for index, domain in enumerate(self.domains):
                if domain.certificate is not None:
                    words = f"domains[{index}] has a certificate, and the gateway has no tls: add it"
                    raise PlacedError(words, "domains", index, "certificate")
            return
        if tls.redirect_port == self.port:
            words = "tls.redirectPort is the port of the gateway itself: give another one, such as 80"
            raise PlacedError(words, "tls", "redirectPort")
        hosts: dict[str, CertificateSpec] = {}
        for index, domain in enumerate(self.domains):
            certificate = domain.certificate or tls.certificate
            if certificate is None:
                words = f"domains[{index}] has no certificate: give it one, or one for all in tls.certificate"
                raise PlacedError(words, "domains", index)
            if hosts.setdefault(domain.name, certificate) != certificate:
                words = f"domains[{index}]: {domain.name} has two certificates: give it the same everywhere"
                raise PlacedError(words, "domains", index, "certificate")
        if not self.domains and tls.certificate is None:
            raise PlacedError("tls has no certificate: give one in tls.certificate", "tls")
        for host, certificate in hosts.items() or [("", tls.certificate)]:
            if certificate is not None and certificate.acme is not None:
                self._check_acme(host, certificate.acme, tls)

    def _check_acme(self, host: str, acme: AcmeSpec, tls: PortTlsSpec) -> None:
        if not host or host.startswith("*."):
            raise PlacedError(
                f"acme cannot order a certificate for {host or 'every name'}: list the host names in domains, "
                "or give the certificate as a secret or as files",
                "domains" if self.domains else "tls",
            )
        if acme.challenge == "http-01" and tls.redirect_port is None:
            words = 'http-01 is asked for at port 80: add "redirectPort": 80 to tls, or choose tls-alpn-01'
            raise PlacedError(words, "tls")

    def certificates(self) -> Iterator[tuple[str, CertificateSpec, str]]:
        """With TLS, each host (empty: every host), where its certificate comes from, and the path that says so."""
        if self.tls is None:
            return
        seen: set[str] = set()
        for index, domain in enumerate(self.domains):
            certificate = domain.certificate or self.tls.certificate
            if certificate is not None and domain.name not in seen:
                seen.add(domain.name)
                own = f"$.domains[{index}].certificate"
                yield domain.name, certificate, own if domain.certificate is not None else "$.tls.certificate"
        if not self.domains and self.tls.certificate is not None:
            yield "", self.tls.certificate, "$.tls.certificate"

    @model_validator(mode="after")
    def _schemas_are_schemas(self) -> Self:
        asked = {key: route.request for key, route in self.routes.items() if route.request is not None}
        if self.models or asked:
            requests.check(self.models, asked, {key: parse_key(key).names for key in asked})
        return self

    @model_validator(mode="after")
    def _docs_have_room(self) -> Self:
        if self.docs is None:
            return self
        if self.docs.auth is not None and self.docs.auth not in (*RESERVED, *self.authorizers):
            raise PlacedError(f"docs.auth names {self.docs.auth!r}, and there is no such authorizer", "docs", "auth")
        taken = {parse_key(key).shape for key in self.routes if key != DEFAULT}
        for key in self.docs.route_keys:
            if parse_key(key).shape in taken:
                words = f"docs.path: the route {key!r} is there already: choose another path"
                raise PlacedError(words, "docs", "path")
        return self

    def places(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Where it is served: host (empty: every host), base path, stage."""
        for domain in self.domains:
            yield domain.name, domain.segments, domain.stage
        if not self.domains:
            for stage in self.stages:
                yield "", () if stage == DEFAULT else (stage,), stage

    def warnings(self, file: str) -> Iterator[Problem]:
        name = file.rsplit("/", 1)[-1].removesuffix(".json")
        for path, resource in unmatched(self.policy, name, self.stages) if self.policy is not None else ():
            message = f"{resource} is no call of this gateway, which has the stages {', '.join(self.stages)}"
            remedy = f"write execute-api:/{next(iter(self.stages))}/..., or execute-api:/*/... for every stage"
            yield Problem(message, file, f"$.policy.{path}", remedy)

    def asks_for_key(self, route: RouteSpec) -> bool:
        return self.api_key_required if route.api_key_required is None else route.api_key_required

    @property
    def asks_for_key_of_docs(self) -> bool:
        """Not where it says itself who may see them: a browser sends no key."""
        return self.api_key_required and self.docs is not None and self.docs.auth is None

    def lacks(self, need: str) -> str | None:
        """A usage plan names stages and routes."""
        if need.startswith(STAGE_NEED) and (stage := need.removeprefix(STAGE_NEED)) not in self.stages:
            return f"it has no stage {stage!r}, only {', '.join(self.stages)}"
        if need.startswith(ROUTE_NEED) and (route := need.removeprefix(ROUTE_NEED)) not in self.routes:
            return f"it has no route {route!r}"
        return None

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        for _, place, function in self._functions():
            names = {resolved(function, stage.variables) for stage in self.stages.values()}
            found = [version_reference(name, problem_path(place)) for name in names]
            yield from sorted(found, key=lambda each: (each.name, each.need, each.commit))
        if self.tls is not None:
            yield from self.tls.references()
        for index, domain in enumerate(self.domains):
            yield from certificate_references(domain.certificate, f"$.domains[{index}].certificate")
        for key, route in self.routes.items():
            if route.files is not None:
                path = f"{join('$.routes', key)}.files"
                yield Reference("website", route.files.website, f"{path}.website")
                for field, files in route.files.needed(key):
                    yield Reference("website", route.files.website, f"{path}.{field}", files=files)
            if route.invoke is not None:
                yield Reference(route.invoke.kind, route.invoke.name, f"{join('$.routes', key)}.invoke.name")

    def claims(self) -> Iterator[Claim]:
        for host, base_path, _ in self.places():
            place = f"{host or 'every host'}/{'/'.join(base_path)}"
            yield Claim("port", str(self.port) if place == "every host/" else f"{self.port} at {place}", "$.port")
        way = "with TLS" if self.tls is not None else "without TLS"
        yield Claim("TLS of port", str(self.port), "$.port", way)
        if self.tls is not None:
            yield from self._tls_claims(self.tls)

    def _tls_claims(self, tls: PortTlsSpec) -> Iterator[Claim]:
        """Gateways that share a host name agree on how it is served: it is chosen before a path is known."""
        for host, certificate, path in self.certificates():
            told = tls.model_dump_json(include={"min_version", "http2", "mutual_tls"})
            yield Claim(
                "TLS of port", f"{self.port} for {host or 'every host'}", path, certificate.model_dump_json() + told
            )
        if tls.redirect_port is not None:
            yield Claim("TLS of port", str(tls.redirect_port), "$.tls.redirectPort", "without TLS")
            for host in {domain.name for domain in self.domains} or {""}:
                shown = f"{tls.redirect_port} at {host}/" if host else str(tls.redirect_port)
                yield Claim("port", shown, "$.tls.redirectPort", f"for {self.port}")


def segments_of(base_path: str) -> tuple[str, ...]:
    return tuple(base_path[1:].split("/")) if base_path else ()
