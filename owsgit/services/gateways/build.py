"""A gateway's file, made into what serves it: here the order of all that a route can ask for is decided, once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from owsgit.gateway.app import Api, wrapped
from owsgit.gateway.cache import Store
from owsgit.gateway.canary import CanaryIntegration, Releases
from owsgit.gateway.cors import Cors
from owsgit.gateway.docs import Docs
from owsgit.gateway.exchange import Exchange, Handler, Mount, Step
from owsgit.gateway.hosts import Binding
from owsgit.gateway.redirects import with_header
from owsgit.gateway.socket_api import Deployed, Selection, SocketRoute, WebSocketApi
from owsgit.gateway.sockets import SocketLimits
from owsgit.gateway.table import CONNECT, DEFAULT, DISCONNECT
from owsgit.model.service import Site
from owsgit.services.gateways import caching
from owsgit.services.gateways.authorization import Asked, Authorization, AuthorizerState, asked_of_docs
from owsgit.services.gateways.integrate import Integrations, keys_of
from owsgit.services.gateways.openapi.writing import document
from owsgit.services.gateways.protecting import Protection
from owsgit.services.gateways.responses import refuse_of
from owsgit.services.gateways.schemas import Schemas
from owsgit.services.gateways.seen import Seen
from owsgit.services.gateways.sockets import HTTP, names
from owsgit.services.gateways.spec import GatewaySpec, RouteSpec
from owsgit.services.gateways.stages import StageSpec, resolved


@dataclass(frozen=True)
class Lasting:
    """What outlives deployments, and is every gateway's of a node."""

    integrations: Integrations
    seen: Seen
    sockets: Deployed  # the WebSockets that are open
    releases: Releases = field(default_factory=Releases)
    authorizers: AuthorizerState = field(default_factory=AuthorizerState)
    cache: Store = field(default_factory=Store)


class Builder:
    """Builds one deployment of one gateway."""

    def __init__(self, site: Site, name: str, spec: GatewaySpec, lasting: Lasting, protection: Protection) -> None:
        """`protection` is what has been counted of this gateway."""
        self._site, self._name, self._spec = site, name, spec
        self._lasting, self._protection = lasting, protection
        self._apis: dict[str, Api | WebSocketApi] = {}
        self._authorization = Authorization(site, name, spec, lasting.authorizers)
        self._schemas = Schemas(spec.models)
        self.fingerprints: set[str] = set()  # of what is cached
        self.route_keys: set[str] = set()

    def bindings(self) -> list[Binding]:
        """What to serve, and where."""
        make = self._http_api if self._spec.protocol == HTTP else self._socket_api
        self._apis = {stage: make(stage, about) for stage, about in self._spec.stages.items()}
        return [
            Binding(host, base_path, self._apis[stage].below(base_path, is_mapped=bool(host)))
            for host, base_path, stage in self._spec.places()
        ]

    def sockets(self) -> dict[str, WebSocketApi]:
        """What `bindings` serves of it to WebSockets, by stage."""
        return {stage: api for stage, api in self._apis.items() if isinstance(api, WebSocketApi)}

    def _socket_api(self, stage: str, about: StageSpec) -> WebSocketApi:
        """Who may connect may send: of other routes only what protects them counts."""
        spec = self._spec
        mount = Mount(self._name, self._site.scope().account, stage, (), about.variables)
        self.route_keys.update(spec.routes)
        routes = {
            key: SocketRoute(self._socket_integration(key, route, stage, about), route.route_response)
            for key, route in spec.routes.items()
        }
        connect = spec.routes.get(CONNECT)
        return WebSocketApi(
            mount,
            routes,
            self._lasting.sockets,
            Selection(names(spec.route_selection_expression)),
            SocketLimits(**dict(spec.web_socket)),
            connect_steps=self._route_steps(CONNECT, connect, stage) if connect else (),
            steps=self._steps(stage),
            observers=self._observers(stage),
            seen=self._lasting.seen.observers(self._name, stage),
            manage_steps=self._authorization.manage_steps(),
            http=spec.limits.value(spec.web_socket.connections),
        )

    def _socket_integration(self, key: str, route: RouteSpec, stage: str, about: StageSpec) -> Handler:
        """An answer that decides or is sent has to be of format 1.0, which AWS asks for here; others are not read."""
        read = key == CONNECT or route.route_response
        route = route.model_copy(update={"payload_format_version": "1.0" if read else "2.0"})
        made = self._integration(key, route, stage, about)
        if key == CONNECT:  # which has the steps of a request
            return made
        protection = [] if key == DISCONNECT else self._protection.of_route(stage, key, route)
        return wrapped(made, [*protection, *self._lasting.seen.around_integration()])

    def _http_api(self, stage: str, about: StageSpec) -> Api:
        binary = frozenset(self._spec.binary_media_types)
        mount = Mount(self._name, self._site.scope().account, stage, (), about.variables, binary)
        routes = [
            (name, wrapped(self._integration(name, route, stage, about), self._route_steps(key, route, stage)))
            for key, route in self._spec.routes.items()
            for name in keys_of(key, route, self._spec.routes)
        ]
        routes += self._docs(stage, about)
        self.route_keys.update(name for name, _ in routes)
        refuse = refuse_of(self._spec.responses)
        return Api(mount, routes, self._steps(stage), self._observers(stage), self._spec.limits.value(), refuse)

    def _docs(self, stage: str, about: StageSpec) -> list[tuple[str, Handler]]:
        """The routes of the interactive page, which are asked for like any other."""
        spec = self._spec.docs
        if spec is None:
            return []
        info, seen = self._spec.info, self._lasting.seen.around_integration()
        title = (info.title if info else None) or self._name
        docs = Docs(title, lambda exchange: document(self._name, self._spec, base_path(exchange)))
        asked, by_key = asked_of_docs(self._spec, spec), self._spec.asks_for_key_of_docs
        return [
            (key, wrapped(handler, [*self._admission(key, asked, stage, by_key=by_key), *seen]))
            for key, handler in zip(spec.route_keys, (docs.redirect, docs.file), strict=True)
        ]

    def _integration(self, key: str, route: RouteSpec, stage: str, about: StageSpec) -> Handler:
        return self._lasting.integrations.shown(key, route, about, self._answering(key, route, stage, about))

    def _answering(self, key: str, route: RouteSpec, stage: str, about: StageSpec) -> Handler:
        if route.function is None:
            return self._lasting.integrations.of(key if self._spec.protocol == HTTP else DEFAULT, route, about)
        name = resolved(route.function, about.variables)
        main = self._function(name, route)
        if route.canary is None:
            return main
        other = resolved(route.canary.function, about.variables)
        release = self._lasting.releases.of((self._name, stage, key), (name, other))
        canary = route.canary
        return CanaryIntegration(main, self._function(other, route), canary.percent_traffic, canary.patterns(), release)

    def _function(self, name: str, route: RouteSpec) -> Handler:
        return self._lasting.integrations.invoked("function", name, route)

    def _route_steps(self, key: str, route: RouteSpec, stage: str) -> Sequence[Step]:
        """The steps of one route, the outermost first."""
        asked, by_key = Asked.by(self._spec, route), self._spec.asks_for_key(route)
        return [
            *self._admission(key, asked, stage, by_key=by_key),
            *self._protection.of_route(stage, key, route),
            *self._validation(route),
            *self._cache(route, stage),
            *self._lasting.seen.around_integration(),
        ]

    def _admission(self, key: str, asked: Asked, stage: str, *, by_key: bool) -> list[Step]:
        """Who may call a route."""
        keys = self._protection.of_key(self._spec, stage, key) if by_key else []
        return [*self._authorization.route_steps(asked, self._spec.stages[stage]), *keys]

    def _validation(self, route: RouteSpec) -> list[Step]:
        return [route.request.check(self._schemas).step] if route.request is not None else []

    def _cache(self, route: RouteSpec, stage: str) -> list[Step]:
        if route.cache is None and not route.etag:
            return []
        about = [route.model_dump(), self._spec.stages[stage].variables, self._spec.binary_media_types]
        print_ = caching.fingerprint(about)
        self.fingerprints.add(print_)
        return caching.steps(route.cache, route.etag, self._lasting.cache, self._name, print_)

    def _steps(self, stage: str) -> Sequence[Step]:
        """The steps of the whole stage, which see every request before it is routed, the outermost first."""
        compression = [self._spec.compression.step()] if self._spec.compression is not None else []
        return [*compression, *self._authorization.stage_steps(), *self._protection.of_stage(self._spec, stage)]

    def _observers(self, stage: str) -> Sequence[Step]:
        """What sees every request and its response, refusals included, the outermost first."""
        tls, cors = self._spec.tls, self._spec.cors
        found: list[Step] = [*self._lasting.seen.observers(self._name, stage)]
        if tls is not None and tls.hsts is not None:
            found.append(with_header(b"strict-transport-security", tls.hsts.header))
        if cors is not None:
            found.append(Cors(cors.sharing()))
        return found


def base_path(exchange: Exchange) -> str:
    """What a client writes before the paths of routes."""
    return "/" + "/".join(exchange.mount.base_path)
