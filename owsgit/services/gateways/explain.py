"""What a gateway would do with a request, told without doing it: by the code that serves requests, on the same tables.

Nothing is sent, invoked or counted. What only a node knows, such as the keys of issuers or what functions answer, is
named and not decided.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from owsgit.gateway import payload
from owsgit.gateway.app import Api, wrapped
from owsgit.gateway.exchange import Client, Exchange, Handler, Headers, Mount, RefusedError, Response
from owsgit.gateway.hosts import ANY_HOST, Binding, VirtualHosts
from owsgit.gateway.refusals import Refuse
from owsgit.gateway.table import ANY, DEFAULT, METHODS, RoutingTable, parse_key
from owsgit.model.errors import InvalidError
from owsgit.model.service import Site
from owsgit.model.state import State
from owsgit.services.gateways.authorization import Asked, asked_of_docs
from owsgit.services.gateways.integrate import Integrations, keys_of
from owsgit.services.gateways.offline import KEY_ERROR, Admission, site_of
from owsgit.services.gateways.schemas import Schemas
from owsgit.services.gateways.spec import INTEGRATIONS, GatewaySpec, RouteSpec
from owsgit.services.gateways.stages import StageSpec, resolved

NEAR_MAX = 5
LIMITS = ("apiKeyRequired", "throttle", "concurrency", "request", "cache", "canary", "scopes")
"""Fields of a route that bound or ask something, and are told in short."""

INHERITED = ("apiKeyRequired",)
SHARED = ("throttle", "concurrency")
"""Fields that a route has of its gateway if it does not say; and what the gateway counts for all its routes."""


REASONS = ("authorize.error", "authorizer.error", KEY_ERROR)
"""Facts of an exchange that say why it was refused."""

Place = tuple[str, tuple[str, ...], str]
"""Where a stage is served: its host, its base path, and its name."""


@dataclass(frozen=True)
class RouteFacts:
    """A route in short."""

    key: str
    method: str
    path: str
    integration: str
    auth: str
    limits: tuple[str, ...]


def facts(spec: GatewaySpec) -> Iterator[RouteFacts]:
    """The routes of a gateway, in short."""
    document = spec.document()
    for key, route in document["routes"].items():
        yield _facts(key, route, document)


def _facts(key: str, route: Mapping[str, Any], gateway: Mapping[str, Any]) -> RouteFacts:
    sockets = gateway.get("protocol") == "WEBSOCKET"
    parsed = None if sockets else parse_key(key)
    auth = str(route.get("auth", gateway.get("auth", "none")))
    asked = {**{name: gateway[name] for name in INHERITED if name in gateway}, **route}
    limits = [f"{route.get('timeout', 29)} s", *(_limit(name, asked[name]) for name in LIMITS if asked.get(name))]
    limits += [f"all routes: {_limit(name, gateway[name])}" for name in SHARED if gateway.get(name)]
    return RouteFacts(
        key, parsed.method if parsed else "", parsed.path if parsed else key, _integration(route), auth, tuple(limits)
    )


def _integration(route: Mapping[str, Any]) -> str:
    name = next((name for name in INTEGRATIONS if name in route), "?")
    what = route.get(name)
    if isinstance(what, str):
        return f"{name} {what}"
    told = what if isinstance(what, dict) else {}
    return " ".join([name, *(str(value) for value in told.values() if isinstance(value, str | int))][:2])


def _limit(name: str, value: Any) -> str:
    if name == "request":
        return f"validates {' and '.join(value.get('validate', ['body', 'parameters'])) or 'nothing'}"
    if value is True:
        return name
    if isinstance(value, dict):
        return f"{name} " + " ".join(
            f"{key}={each}" for key, each in value.items() if isinstance(each, str | int | float)
        )
    return f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"


@dataclass(frozen=True)
class Request:
    """A request as somebody would send it. `stage` stands for the place where that stage is served."""

    method: str
    target: str
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    gateway: str | None = None
    stage: str | None = None
    port: int | None = None
    source_ip: str = "127.0.0.1"


@dataclass
class Explanation:
    """What would become of a request. Empty where it does not come so far."""

    gateway: str = ""
    port: int = 0
    host: str = ""
    stage: str = ""
    base_path: str = ""
    path: str = ""
    route: RouteFacts | None = None
    why: str = ""
    others: list[str] = field(default_factory=list)  # routes that match too, and come after
    near: list[str] = field(default_factory=list)  # routes that would match another method
    parameters: dict[str, str] = field(default_factory=dict)
    integration: str = ""  # with the stage's variables in it
    event: Any = None
    status: int = 200
    answer: str = ""  # what the gateway itself answers, if it does
    reason: str = ""  # what its log would say
    notes: list[str] = field(default_factory=list)  # what only a node can decide
    errors: list[dict[str, str]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        route = self.route
        return {
            "gateway": self.gateway or None,
            "port": self.port or None,
            "host": self.host,
            "stage": self.stage or None,
            "basePath": self.base_path,
            "path": self.path,
            "routeKey": route.key if route else None,
            "why": self.why,
            "alsoMatching": self.others,
            "near": self.near,
            "pathParameters": self.parameters,
            "auth": route.auth if route else None,
            "limits": list(route.limits) if route else [],
            "integration": self.integration or None,
            "notDecided": self.notes,
            "refusal": self._refusal() if self.answer else None,
        }

    def _refusal(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "message": self.answer,
            "reason": self.reason or None,
            "errors": self.errors,
        }


def explain(gateways: Mapping[str, GatewaySpec], request: Request, state: State) -> Explanation:
    """`gateways` are those of `state` that may be meant. Raises InvalidError if it cannot be known which one is."""
    ports = sorted({spec.port for name, spec in gateways.items() if request.gateway in (None, name)})
    if request.gateway is None and request.port is not None:
        ports = [port for port in ports if port == request.port]
    if not ports:
        raise InvalidError("no gateway listens there", remedy="owsgit gateway routes lists them")
    if request.stage is not None:
        ports = [port for port in ports if any(_stands_for(request, port, *each) for each in gateways.items())]
    if not ports:
        raise InvalidError(f"no gateway there serves a stage {request.stage!r:.60}")
    site = site_of(state)
    found = [_on_port(port, gateways, request, site) for port in ports]
    answered = (
        [each for each in found if each.route is not None] or [each for each in found if each.gateway] or found[:1]
    )
    if len(answered) > 1:
        names = ", ".join(f"{each.gateway} (port {each.port})" for each in answered)
        raise InvalidError(f"several gateways would answer: {names}", remedy="name one by --gateway")
    return answered[0]


def _stands_for(request: Request, port: int, name: str, spec: GatewaySpec) -> bool:
    """Whether the stage that is asked for may be one of this gateway."""
    return spec.port == port and request.gateway in (None, name) and request.stage in spec.stages


class _Probe:
    """Stands where integrations do: what comes to it is what they would get."""

    def __init__(self) -> None:
        self.reached: RouteFacts | None = None
        self.event = b""
        self.notes: list[str] = []

    def api(self, site: Site, name: str, spec: GatewaySpec, place: Place, refuse: Refuse) -> Api:
        """What serves a stage, as the Builder has it, with steps that need nothing but the request."""
        host, base, stage = place
        admission = Admission(site, name, spec, self.notes.append)
        mount = Mount(name, site.scope().account, stage, base, spec.stages[stage].variables, is_mapped=bool(host))
        return Api(mount, self._routes(spec, stage, admission), admission.stage_steps(), refuse=refuse)

    def _routes(self, spec: GatewaySpec, stage: str, admission: Admission) -> Iterator[tuple[str, Handler]]:
        schemas, document = Schemas(spec.models), spec.document()
        for key, route in spec.routes.items():
            checked = self._integration(key, route, spec.stages[stage], schemas)
            asked, by_key = Asked.by(spec, route), spec.asks_for_key(route)
            admitted = wrapped(checked, admission.route_steps(key, asked, stage, by_key=by_key))
            for each in keys_of(key, route, spec.routes):
                yield each, self._arrived(_facts(key, document["routes"][key], document), admitted)
        if spec.docs is not None:
            asked = asked_of_docs(spec, spec.docs)
            for key in spec.docs.route_keys:
                steps = admission.route_steps(key, asked, stage, by_key=spec.asks_for_key_of_docs)
                method, path = key.split(" ")
                yield key, self._arrived(RouteFacts(key, method, path, "docs", asked.auth, ()), wrapped(_shown, steps))

    def _arrived(self, route: RouteFacts, handler: Handler) -> Handler:
        async def arrived(exchange: Exchange) -> Response:
            self.reached = route
            return await handler(exchange)

        return arrived

    def _integration(self, key: str, route: RouteSpec, stage: StageSpec, schemas: Schemas) -> Handler:

        async def integration(exchange: Exchange) -> Response:
            if route.function is not None or route.invoke is not None:
                self.event = payload.event(route.payload_format_version, exchange, await exchange.read())
            return Response(200, [])

        shown = Integrations.shown(key, route, stage, integration)
        return route.request.check(schemas).step(shown) if route.request is not None else shown


async def _shown(exchange: Exchange) -> Response:
    """In place of the interactive page."""
    return Response(200, [])


class _Given:
    """A body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def next(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def on_gone(self, act: Callable[[], object] | None) -> None:
        """Nobody is there who could go."""

    def rest(self) -> bytes | None:
        body, self._body = self._body, b""
        return body


def _on_port(port: int, gateways: Mapping[str, GatewaySpec], request: Request, site: Site) -> Explanation:
    here = {name: spec for name, spec in gateways.items() if spec.port == port}
    probe, refused = _Probe(), list[RefusedError]()

    def refuse(exchange: Exchange, refusal: RefusedError) -> Response:
        refused.append(refusal)
        return Response(refusal.status, [], refusal.message.encode())

    bindings = [
        Binding(place[0], place[1], probe.api(site, name, spec, place, refuse))
        for name, spec in here.items()
        for place in spec.places()
    ]
    exchange = _exchange(request, here)
    response = asyncio.run(_answered(VirtualHosts(bindings), exchange))
    return _told(exchange, response, port, here, probe, refused)


async def _answered(hosts: VirtualHosts, exchange: Exchange) -> Response:
    return await hosts.handle(exchange)


def _exchange(request: Request, here: Mapping[str, GatewaySpec]) -> Exchange:
    host, target = request.host, request.target
    places = [
        place
        for name, spec in here.items()
        if request.gateway in (None, name)
        for place in spec.places()
        if request.stage in (None, place[2])
    ]
    if request.stage is not None:
        target = "".join(f"/{segment}" for segment in places[0][1]) + target
    if not host and (request.stage or request.gateway) and places and places[0][0] != ANY_HOST:
        host = places[0][0].replace("*", "any")
    headers: Headers = [(b"host", (host or "localhost").encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in request.headers]
    if request.body and not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", str(len(request.body)).encode()))
    client, scheme = Client(request.source_ip), "https" if any(spec.tls for spec in here.values()) else "http"
    made = Exchange(request.method, target.encode(), headers, _Given(request.body), client, scheme, "HTTP/1.1")
    made.names = {name.lower().encode(): name.encode() for name, _ in request.headers}
    return made


def _told(
    exchange: Exchange,
    response: Response,
    port: int,
    here: Mapping[str, GatewaySpec],
    probe: _Probe,
    refused: list[RefusedError],
) -> Explanation:
    mount = exchange.mount
    found = Explanation(port=port, host=exchange.host, status=response.status)
    if response.status >= 400:
        found.answer = refused[0].message if refused else _message(response)
        found.errors = refused[0].validation if refused else []
        found.reason = next((str(exchange.facts[name]) for name in REASONS if name in exchange.facts), "")
    found.notes = probe.notes
    if not mount.api:
        found.why = "no gateway of this port serves that host and path"
        return found
    found.gateway, found.stage, found.path = mount.api, mount.stage, exchange.path
    found.base_path = "/" + "/".join(mount.base_path) if mount.base_path else ""
    spec = here[mount.api]
    found.route, found.parameters = probe.reached, exchange.parameters
    _compare(found, exchange, spec)
    if found.route is not None:
        found.integration = resolved(found.route.integration, mount.variables)
        found.event = json.loads(probe.event) if probe.event else None
    return found


def _message(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return str(json.loads(response.body).get("message", ""))


def _compare(found: Explanation, exchange: Exchange, spec: GatewaySpec) -> None:
    """Say why this route and no other: each route on a table of its own."""
    segments = exchange.segments[:-1] if exchange.segments[-1] == "" else exchange.segments
    chosen = found.route.key if found.route else None
    for key in spec.routes:
        table = RoutingTable([(key, None)])
        if key == chosen:
            continue
        if table.match(exchange.method, segments) is not None:
            found.others.append(key)
        elif len(found.near) < NEAR_MAX and any(table.match(method, segments) for method in METHODS):
            found.near.append(key)
    if chosen is None and found.others:  # what the whole stage asks of a request comes before its routes
        found.others = []
        found.why = "refused before a route is looked for"
    elif chosen is None:
        found.why = "no route matches" + ("; another method would" if found.near else "")
    else:
        found.why = _why(chosen)


def _why(key: str) -> str:
    parsed = parse_key(key)
    if key == DEFAULT:
        return "no other route matches"
    path = "the path matches, parameter by parameter" if parsed.names else "the path matches literally"
    if parsed.greedy:
        path = f"the rest of the path is taken by {{{parsed.names[-1]}+}}"
    return f"{path}; {'any method' if parsed.method == ANY else 'the method'} matches"
