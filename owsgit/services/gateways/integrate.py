"""From a route's fields to what answers it."""

import asyncio
import ssl
from collections.abc import Collection
from functools import lru_cache

from owsgit.gateway.app import wrapped
from owsgit.gateway.exchange import Handler, Step
from owsgit.gateway.files import Contents, Files, Folder, Shelf, indexed
from owsgit.gateway.fixed import FixedResponse, Redirect
from owsgit.gateway.functions import EventIntegration, FunctionIntegration
from owsgit.gateway.mapping import Changes, Shown, answered
from owsgit.gateway.streaming import StreamingFunctionIntegration
from owsgit.gateway.table import RouteKey, parse_key
from owsgit.gateway.template import PathTemplate
from owsgit.gateway.upstream import HttpIntegration, Upstream, Upstreams
from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.service import Site, Target
from owsgit.services.gateways.integrations import FilesSpec, HttpSpec, TlsSpec
from owsgit.services.gateways.spec import GatewaySpec, RouteSpec
from owsgit.services.gateways.stages import StageSpec, resolved

_SPEC_FILE = frozenset({"website.json"})


class Integrations:
    """Makes what answers routes, with what outlives a deployment: connections, the content of files."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._upstreams = Upstreams()
        self._contents = Contents()

    async def close(self) -> None:
        await self._upstreams.close()

    async def prepare(self, spec: GatewaySpec) -> None:
        """Read the websites of a gateway beforehand, as they may have many files."""
        for name in sorted({route.files.website for route in spec.routes.values() if route.files is not None}):
            await asyncio.to_thread(self._folder, name)

    def of(self, key: str, route: RouteSpec, stage: StageSpec) -> Handler:
        """What answers a route that names no function. Raises InvalidError, UnavailableError."""
        parsed = parse_key(key)
        if route.http is not None:
            return HttpIntegration(self._upstreams, _upstream(parsed, route, route.http, stage))
        if route.response is not None:
            response = route.response
            return FixedResponse(response.status_code, response.headers, response.content())
        if route.redirect is not None:
            location = PathTemplate(resolved(route.redirect.location, stage.variables), parsed)
            return Redirect(location, route.redirect.status_code, keep_query=route.redirect.keep_query)
        if route.files is not None:
            return Files(self._shelf(route.files), parsed, self._contents)
        assert route.invoke is not None
        return self.invoked(route.invoke.kind, route.invoke.name, route)

    def invoked(self, kind: str, name: str, route: RouteSpec) -> Handler:
        """What invokes a resource, as the route says."""
        target = self._target(kind)
        if route.invocation_type == "Event":
            return EventIntegration(target, name, route.payload_format_version)
        if route.response_transfer_mode == "STREAM":
            return StreamingFunctionIntegration(target, name, route.payload_format_version, float(route.timeout))
        return FunctionIntegration(target, name, route.payload_format_version, float(route.timeout))

    def _target(self, kind: str) -> Target:
        target = self._site.targets.get(kind)
        if target is None:
            known = ", ".join(sorted(self._site.targets))
            raise InvalidError(f"a {kind} cannot be invoked", remedy=f"invoke one of these kinds: {known}")
        return target

    def _folder(self, website: str) -> Folder:
        laid_out = self._site.websites.get(website)
        if laid_out is None:
            raise UnavailableError(f"the website {website} is not laid out on this node yet")
        return indexed(laid_out.folder, laid_out.key, _SPEC_FILE)

    def _shelf(self, files: FilesSpec) -> Shelf:
        folder = self._folder(files.website)
        for path in (files.path, files.not_found):
            if path is not None and path not in folder.files and path not in folder.folders:
                raise InvalidError(f"the website {files.website} has no {path!r}", remedy="correct the path, or add it")
        return Shelf(folder, files.path or "", files.index, files.not_found or "", files.spa, files.cache_control or "")

    @staticmethod
    def shown(key: str, route: RouteSpec, stage: StageSpec, handler: Handler) -> Handler:
        """With what changes requests and responses around it."""
        steps: list[Step] = []
        if route.response_parameters:
            steps.append(
                answered({int(code): Changes.of(each, "response") for code, each in route.response_parameters.items()})
            )
        path = route.rewrite if route.http is None else None
        if path is not None or route.request_parameters:
            template = None if path is None else PathTemplate(resolved(path, stage.variables), parse_key(key))
            steps.append(Shown(template, Changes.of(route.request_parameters, "request")))
        return wrapped(handler, steps)


def keys_of(key: str, route: RouteSpec, others: Collection[str]) -> list[str]:
    """Of a route: who gets files may ask for their heads too, if no route says otherwise."""
    head = f"HEAD {key.removeprefix('GET ')}"
    return [key, head] if route.files is not None and key.startswith("GET ") and head not in others else [key]


def _upstream(key: RouteKey, route: RouteSpec, http: HttpSpec, stage: StageSpec) -> Upstream:
    uri = http.uri if route.rewrite is None else http.uri.rstrip("/") + route.rewrite
    return Upstream(
        PathTemplate(resolved(uri, stage.variables), key),
        http.method,
        float(route.timeout),
        http.connect_timeout,
        http.retries,
        http.preserve_host,
        _trust(http.tls.ca, http.tls.verify),
    )


@lru_cache(maxsize=64)
def _trust(ca: str | None, verify: bool) -> "ssl.SSLContext | bool":
    """One for all routes with the same certificates: connections are kept by it."""
    return TlsSpec(ca=ca, verify=verify).context()
