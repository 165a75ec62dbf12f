"""Makes gateways listen: what serves them built whole, then swapped in."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Mount
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listeners
from owsgit.gateway.redirects import challenges, to_https
from owsgit.gateway.socket_api import Deployed
from owsgit.gateway.sockets import Connections, Outcome
from owsgit.gateway.table import DEFAULT
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError
from owsgit.model.iam.decision import ResourcePolicy
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site, Told
from owsgit.services.gateways.authorization import policy_of
from owsgit.services.gateways.build import Builder, Lasting
from owsgit.services.gateways.certificates import Certificates, Shown
from owsgit.services.gateways.integrate import Integrations
from owsgit.services.gateways.management_api import ManagementApi
from owsgit.services.gateways.orders import Orders
from owsgit.services.gateways.protecting import Protection
from owsgit.services.gateways.seen import Seen
from owsgit.services.gateways.shared import usage_plans
from owsgit.services.gateways.sockets import HTTP
from owsgit.services.gateways.spec import GatewaySpec

ORDER_SECONDS_MAX = 60.0
"""How long a deployment waits for certificates that are ordered; they may also come later."""

TOPIC = "websockets"
"""What nodes ask each other: see Connections."""

log = logging.getLogger("owsgit.gateways")


class GatewayHandler:
    """The handler of gateways."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._listeners = Listeners(site.listen)
        self._protections: dict[str, Protection] = {}  # by gateway
        self._orders = Orders(site.home / "acme", site.neighbours, self._renewed, self._listeners.prove)
        self._certificates = Certificates(site, self._orders)
        self._specs: dict[str, GatewaySpec] = {}  # what serves now
        sockets = Deployed(Connections(site.neighbours.own, self._ask))
        self._lasting = Lasting(Integrations(site), Seen(site), sockets)
        self.apis = (ManagementApi(site, sockets.connections, self._policy),)
        site.neighbours.answer(TOPIC, self._on_asked)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec, name = resource.spec, resource.name
        assert isinstance(spec, GatewaySpec)
        self._want(name, spec)
        shown = self._certificates.read(name, spec)
        if shown.problems and name in self._specs:
            raise InvalidError.of(shown.problems)
        urls = await self._serve(name, spec, shown)
        if shown.pending:
            await self._orders.settle(name, ORDER_SECONDS_MAX)
            shown = self._renew(name, spec)
        if left := (*shown.problems, *shown.pending):
            raise InvalidError.of(left)  # what is well is served, and the status says what is not
        count = len(spec.routes)
        return Applied(f"{count} route{'s' if count != 1 else ''}", urls)

    def _want(self, name: str, spec: GatewaySpec) -> None:
        acme = {host: about.acme for host, about, _ in spec.certificates() if about.acme is not None}
        self._orders.want(name, acme)

    async def _serve(self, name: str, spec: GatewaySpec, shown: Shown) -> tuple[str, ...]:
        """Swap in a deployment, with the certificates that are there. Its addresses. Raises OwsgitError."""
        lasting = self._lasting
        await lasting.integrations.prepare(spec)
        protection = self._protections.setdefault(name, Protection(name, usage_plans(self._site)))
        lasting.seen.prepare(name, spec)
        builder = Builder(self._site, name, spec, lasting, protection)
        bindings = builder.bindings()
        lasting.releases.keep(name, [key for key, route in spec.routes.items() if route.canary is not None])
        secured = shown.secured if spec.tls is not None else None
        listener = await self._listeners.serve(name, spec.port, bindings, secured, self._redirects(name, spec))
        lasting.sockets.deploy(name, builder.sockets())
        protection.forget_but(spec)
        self._certificates.keep(name, shown)
        self._specs[name] = spec
        self._site.hosts[name] = dict.fromkeys(
            (domain.name for domain in spec.domains if spec.tls is not None), listener.place
        )
        lasting.cache.retain(name, builder.fingerprints)
        await lasting.seen.deployed(name, spec.stages, builder.route_keys)
        return (listener.url if spec.protocol == HTTP else listener.url.replace("http", "ws", 1),)

    def _redirects(self, name: str, spec: GatewaySpec) -> Mapping[int, Sequence[Binding]]:
        """What the plain port before one with TLS answers."""
        if spec.tls is None or spec.tls.redirect_port is None:
            return {}
        mount = Mount(name, self._site.scope().account)
        api = Api(mount, [(DEFAULT, to_https(spec.port))], [challenges(self._orders.answer)])
        hosts = dict.fromkeys(domain.name for domain in spec.domains) or {ANY_HOST: None}
        return {spec.tls.redirect_port: [Binding(host, (), api) for host in hosts]}

    def _renewed(self, name: str) -> None:
        """An authority gave a certificate."""
        spec = self._specs.get(name)
        try:
            if spec is not None:
                self._renew(name, spec)
        except OwsgitError as error:
            log.warning("%s: %s", name, error)

    def _renew(self, name: str, spec: GatewaySpec) -> Shown:
        """Have what is new of a gateway's certificates shown. Raises OwsgitError."""
        shown = self._certificates.read(name, spec)
        if shown.secured != self._certificates.shown(name).secured:
            self._listeners.secure(name, spec.port, shown.secured)
        self._certificates.keep(name, shown)
        return shown

    async def delete(self, name: str) -> None:
        lasting = self._lasting
        lasting.sockets.deploy(name, {})
        await self._listeners.release(name)
        self._protections.pop(name, None)
        lasting.authorizers.forget(name)
        lasting.releases.keep(name, [])
        self._orders.want(name, {})
        self._certificates.forget(name)
        self._specs.pop(name, None)
        self._site.hosts.pop(name, None)
        lasting.cache.retain(name, ())
        await lasting.seen.remove(name)

    async def observe(self, resource: Resource) -> str | None:
        """Certificates that changed are taken over at once: that is no drift."""
        spec, name = resource.spec, resource.name
        assert isinstance(spec, GatewaySpec)
        listeners = self._listeners.all_of(name)
        if not listeners or not all(listener.is_open for listener in listeners):
            return "the port is not open"
        if spec.tls is not None and (left := self._renew(name, spec).problems):
            return left[0].message
        return None

    def details(self, name: str) -> Mapping[str, Any]:
        spec = self._specs.get(name)
        found = list(self._certificates.facts(name, spec)) if spec is not None else []
        more = {"certificates": found, "connections": self._lasting.sockets.connections.count(name)}
        shown = {key: value for key, value in more.items() if value}
        return {**self._lasting.seen.details(name), **self._lasting.releases.details(name), **shown}

    def logs(self, name: str) -> Path:
        """The folder of the access log."""
        return self._lasting.seen.log_folder(name)

    def _policy(self, name: str) -> ResourcePolicy | None:
        """That of a gateway that serves now."""
        spec = self._specs.get(name)
        return policy_of(name, spec) if spec is not None else None

    async def _on_asked(self, node: str, told: Told) -> Told:
        """Another node, about a WebSocket that is open here."""
        outcome = await self._lasting.sockets.connections.here(told.fields, told.body)
        return Told({"status": outcome.status}, outcome.body)

    async def _ask(self, node: str, fields: Mapping[str, str], body: bytes) -> Outcome:
        """Another node, about one that is open there. Raises OwsgitError if that node is there, and cannot be asked."""
        if node not in self._site.neighbours.others():
            return Outcome(410)
        told = await self._site.neighbours.ask(node, TOPIC, Told(fields, body))
        status = told.fields.get("status")
        if status not in (200, 204, 410, 429):
            raise UnavailableError(f"{node} answered with nonsense")
        return Outcome(status, told.body)

    async def close(self) -> None:
        await self._orders.close()
        await self._listeners.close()
        await self._lasting.integrations.close()
        await self._lasting.authorizers.close()
        await self._lasting.seen.close()
