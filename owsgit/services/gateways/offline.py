"""What a gateway asks its clients, without a node: by the steps that serve requests, as far as these can decide it.

What only a node knows (the keys of issuers, what functions answer, who has which secret) is not decided: it is noted,
and the request passes.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt

from owsgit.aws import sigv4
from owsgit.aws.sigv4 import SignatureError
from owsgit.gateway.api_keys import HEADER, Count
from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response, Step
from owsgit.gateway.issuers import Fetcher, Issuer
from owsgit.gateway.tokens import TokenVerifier, Verified, header_of
from owsgit.model.errors import UnavailableError
from owsgit.model.resource import Resource
from owsgit.model.service import SecretValue, Site
from owsgit.model.state import State
from owsgit.services.gateways.authorization import (
    Asked,
    Authorization,
    AuthorizerState,
    identity_of,
    read_signature,
    request_of,
    unsigned,
)
from owsgit.services.gateways.authorizers import JwtAuthorizer
from owsgit.services.gateways.function_authorizers import RequestAuthorizer, TokenAuthorizer
from owsgit.services.gateways.protecting import Protection
from owsgit.services.gateways.shared import usage_plans
from owsgit.services.gateways.spec import GatewaySpec
from owsgit.services.gateways.stages import StageSpec, resolved
from owsgit.services.gateways.usage_handler import plan_of
from owsgit.services.gateways.usage_plans import UsagePlanSpec

UNTOLD_SIGNATURE = "the token's signature is not verified here: the node does, with the issuer's keys"
UNTOLD_SIGNER = "who signed, and whether policies let them, is not decided here: the node does"
UNTOLD_KEY = "the API key is what the authorizer's function gives: only the node knows it"

KEY_ERROR = "apiKey.error"
"""Where an exchange says why its key is not good, as authorizers do in authorizer.error and authorize.error."""


def site_of(state: State) -> Site:
    """A site that decides by `state` and has nothing else: all usage plans of it, and nothing used of them."""
    site = Site(Path(), "", lambda: state.scope, lambda tree: (), {}, {}, _sealed, decide=state.decide_call)
    plans = usage_plans(site)
    for resource in state.of_kind("usageplan"):
        assert isinstance(resource.spec, UsagePlanSpec)
        plans.put(plan_of(resource.name, resource.spec), lambda key: Count())
    return site


def _sealed(resource: Resource) -> SecretValue:
    raise UnavailableError("only nodes can open secrets", file=resource.file)


class Admission:
    """Who may call the routes of one gateway. `note` is told what is left open."""

    def __init__(self, site: Site, name: str, spec: GatewaySpec, note: Callable[[str], None]) -> None:
        self._name, self._spec, self._note = name, spec, note
        self._plans = usage_plans(site)
        self._protection = Protection(name, self._plans)
        self._authorization = _Authorization(site, name, spec, note)

    def stage_steps(self) -> list[Step]:
        return self._authorization.stage_steps()

    def route_steps(self, key: str, asked: Asked, stage: str, *, by_key: bool) -> list[Step]:
        """As the Builder orders them."""
        steps = self._authorization.route_steps(asked, self._spec.stages[stage])
        if not by_key:
            return steps
        if self._spec.api_key_source == "AUTHORIZER":
            return [*steps, _noting(self._note, UNTOLD_KEY)]
        return [*steps, self._telling(stage), *self._protection.of_key(self._spec, stage, key)]

    def _telling(self, stage: str) -> Step:
        """Says why an API key is not good: the client is not told."""

        def step(inner: Handler) -> Handler:
            async def handle(exchange: Exchange) -> Response:
                try:
                    return await inner(exchange)
                except RefusedError as refusal:
                    if refusal.kind == "INVALID_API_KEY":
                        exchange.facts[KEY_ERROR] = self._plans.problem(self._name, stage, exchange.header(HEADER))
                    raise

            return handle

        return step


def _noting(note: Callable[[str], None], text: str) -> Step:
    def step(inner: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            note(text)
            return await inner(exchange)

        return handle

    return step


class _Authorization(Authorization):
    """Asks what can be seen of a request."""

    def __init__(self, site: Site, name: str, spec: GatewaySpec, note: Callable[[str], None]) -> None:
        self._note = note
        super().__init__(site, name, spec, AuthorizerState())

    def _signed(self, asked: Asked) -> Step:
        def step(inner: Handler) -> Handler:
            async def handle(exchange: Exchange) -> Response:
                try:
                    request = request_of(exchange)
                    signed = read_signature(request, self._site.scope().region)
                    sigv4.check_time(signed, time.time())
                    sigv4.check_headers(signed, request)
                except SignatureError as error:
                    exchange.facts["authorize.error"] = str(error)
                    raise unsigned(error) from None
                self._note(UNTOLD_SIGNER)
                return await inner(exchange)

            return handle

        return step

    def _verifier(self, about: JwtAuthorizer) -> TokenVerifier:
        return _UnverifiedTokens(about, self._note)

    def _asks_function(
        self, name: str, about: RequestAuthorizer | TokenAuthorizer
    ) -> Callable[[Asked, StageSpec], Step]:
        identity = identity_of(about)

        def made(asked: Asked, stage: StageSpec) -> Step:
            function = resolved(about.function, stage.variables)

            def step(inner: Handler) -> Handler:
                async def handle(exchange: Exchange) -> Response:
                    if identity.shown(exchange) is None:
                        exchange.facts["authorizer.error"] = "what identitySource names is missing, or is not valid"
                        raise RefusedError(401, "Unauthorized", "UNAUTHORIZED")
                    self._note(f"the authorizer {name} asks the function {function}: on the node, not here")
                    return await inner(exchange)

                return handle

            return step

        return made


class _UnverifiedTokens(TokenVerifier):
    """Reads tokens and checks what they say, but not who wrote it: for nothing that is served."""

    def __init__(self, about: JwtAuthorizer, note: Callable[[str], None]) -> None:
        super().__init__(Issuer(Fetcher(), about.issuer, None), about.issuer, about.audience, about.clock_skew)
        self._note = note

    async def _verify(self, token: bytes) -> Verified:
        header_of(token)
        checks: dict[str, Any] = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_iss"), True)
        verified = self._read(partial(jwt.decode, token), 0, verify_signature=False, **checks)
        self._note(UNTOLD_SIGNATURE)
        return verified
