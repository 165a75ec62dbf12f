"""Who may call a route: the steps that ask tokens, signatures and the gateway's policy.

How these add up is API Gateway's: a policy decides together with the policies of who signs; anybody else it has to
allow by itself, before an authorizer is asked.
https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-authorization-flow.html
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from owsgit.aws import signer, sigv4
from owsgit.aws.sigv4 import Request, SignatureError, Signed
from owsgit.gateway.exchange import DeniedError, Exchange, Handler, Mount, RefusedError, Response, Step
from owsgit.gateway.identity import Identity, source
from owsgit.gateway.table import CONNECT
from owsgit.model.iam.context import Context, iso, of_request
from owsgit.model.iam.decision import AttachedPolicy, Decision, ResourcePolicy
from owsgit.model.names import Scope
from owsgit.model.service import Credential, CredentialError, Site, Target
from owsgit.services.gateways.authorizers import IAM, NONE, AuthorizerSpec, JwtAuthorizer
from owsgit.services.gateways.documentation import DocsSpec
from owsgit.services.gateways.function_authorizers import RequestAuthorizer, TokenAuthorizer, matcher
from owsgit.services.gateways.sockets import HTTP, WEBSOCKET
from owsgit.services.gateways.spec import GatewaySpec, RouteSpec
from owsgit.services.gateways.stages import StageSpec, resolved

if TYPE_CHECKING:
    from owsgit.gateway.function_authorizer import Asking, Verdicts
    from owsgit.gateway.issuers import Issuers
    from owsgit.gateway.tokens import TokenVerifier

ACTION = "execute-api:Invoke"
MANAGE = "execute-api:ManageConnections"
"""Of what @connections of a WebSocket API does."""

SERVICE = "execute-api"


class AuthorizerState:
    """What authorizers know for longer than a deployment: the keys of issuers, the verdicts of functions."""

    def __init__(self) -> None:
        self._issuers: Issuers | None = None
        self._verdicts: dict[tuple[str, str], tuple[AuthorizerSpec, Verdicts]] = {}

    def verdicts(self, gateway: str, name: str, about: AuthorizerSpec) -> "Verdicts":
        """Those of an authorizer; of one that has changed, none."""
        from owsgit.gateway.function_authorizer import Verdicts  # noqa: PLC0415 - for who asks functions

        found = self._verdicts.get((gateway, name))
        if found is None or found[0] != about:
            found = self._verdicts[gateway, name] = about, Verdicts()
        return found[1]

    def forget(self, gateway: str) -> None:
        for key in [key for key in self._verdicts if key[0] == gateway]:
            del self._verdicts[key]

    @property
    def issuers(self) -> "Issuers":
        if self._issuers is None:
            from owsgit.gateway.issuers import Issuers  # noqa: PLC0415 - an HTTP client, for who has issuers

            self._issuers = Issuers()
        return self._issuers

    async def close(self) -> None:
        if self._issuers is not None:
            await self._issuers.close()


@dataclass(frozen=True)
class Asked:
    """What is asked of the callers of a route, and in which payload format its integration is told who they are."""

    auth: str
    scopes: Sequence[str] = ()
    payload_format_version: str = "2.0"

    @classmethod
    def by(cls, spec: GatewaySpec, route: RouteSpec) -> "Asked":
        version = "1.0" if spec.protocol == WEBSOCKET else route.payload_format_version
        return cls(spec.auth_of(route), route.scopes, version)


def asked_of_docs(spec: GatewaySpec, docs: DocsSpec) -> Asked:
    """What the page of a gateway asks of those who want to see it."""
    return Asked(spec.auth if docs.auth is None else docs.auth)


class Authorization:
    """The steps of one deployment of a gateway."""

    def __init__(self, site: Site, name: str, spec: GatewaySpec, state: AuthorizerState) -> None:
        self._site, self._name, self._spec, self._state = site, name, spec, state
        self._policy = policy_of(name, spec)
        asked = {spec.auth_of(route) for route in spec.routes.values()}
        if spec.docs is not None:
            asked.add(asked_of_docs(spec, spec.docs).auth)
        self._signs = IAM in asked
        self._authorizers = {each: self._authorizer(each, about) for each, about in spec.authorizers.items()}

    def stage_steps(self) -> list[Step]:
        """The policy, before anything is routed: where no route asks who signs, which would have to be known first."""
        return [self._guarded] if self._policy is not None and not self._signs else []

    def route_steps(self, asked: Asked, stage: StageSpec) -> list[Step]:
        """What a route asks of its callers, the outermost first."""
        if asked.auth == IAM:
            return [self._signed(asked)]
        steps: list[Step] = [self._guarded] if self._policy is not None and self._signs else []
        return steps if asked.auth == NONE else [*steps, self._authorizers[asked.auth](asked, stage)]

    def manage_steps(self) -> list[Step]:
        """What @connections of a WebSocket API asks: a signature, always."""
        return [_SignedStep(self._site, self._policy, "1.0", MANAGE)]

    def _signed(self, asked: Asked) -> Step:
        return _SignedStep(self._site, self._policy, asked.payload_format_version)

    def _guarded(self, inner: Handler) -> Handler:
        site, policy = self._site, self._policy

        async def handle(exchange: Exchange) -> Response:
            scope = site.scope()
            arn = arn_of(exchange, scope)
            decision = site.decide(None, ACTION, arn, context_of(exchange), policy)
            if not decision.allowed:
                raise denied(exchange, "anonymous", arn, scope, decision)
            return await inner(exchange)

        return handle

    def _authorizer(self, name: str, about: AuthorizerSpec) -> "Callable[[Asked, StageSpec], Step]":
        if not isinstance(about, JwtAuthorizer):
            return self._asks_function(name, about)
        from owsgit.gateway import bearer  # noqa: PLC0415 - PyJWT, for who has tokens

        verifier, found = self._verifier(about), bearer.source(about.identity_source)
        return lambda asked, stage: bearer.bearer_step(verifier, found, asked.scopes, asked.payload_format_version)

    def _verifier(self, about: JwtAuthorizer) -> "TokenVerifier":
        from owsgit.gateway.tokens import TokenVerifier  # noqa: PLC0415 - as above

        issuer = self._state.issuers.get(about.issuer, about.jwks_uri)
        return TokenVerifier(issuer, about.issuer, about.audience, about.clock_skew)

    def _asks_function(
        self, name: str, about: RequestAuthorizer | TokenAuthorizer
    ) -> "Callable[[Asked, StageSpec], Step]":
        from owsgit.gateway.function_authorizer import FunctionAuthorizer  # noqa: PLC0415 - for who asks functions

        site, verdicts = self._site, self._state.verdicts(self._name, name, about)
        protocol = self._spec.protocol

        def step(asked: Asked, stage: StageSpec) -> Step:
            function = resolved(about.function, stage.variables)
            asking = asking_of(about, site.targets["function"], function, protocol)
            authorizer = FunctionAuthorizer(
                name, asking, verdicts, lambda exchange: arn_of(exchange, site.scope()), context_of
            )
            return authorizer.step(asked.payload_format_version)

        return step


def asking_of(
    about: RequestAuthorizer | TokenAuthorizer, target: Target, function: str, protocol: str = HTTP
) -> "Asking":
    """How a function is asked. About a WebSocket that is with the event of its handshake, and answers are read as those
    of format 1.0: payload formats are of HTTP APIs alone, on AWS too."""
    from owsgit.gateway.function_authorizer import Asking  # noqa: PLC0415 - for who asks functions

    version: Literal["1.0", "2.0"] = "1.0"
    simple = False
    if isinstance(about, RequestAuthorizer):
        simple = about.enable_simple_responses
        if protocol == HTTP:
            version = about.payload_format_version
    return Asking(
        kind=about.type,
        target=target,
        function=function,
        version=version,
        identity=identity_of(about),
        simple=simple,
        ttl=about.result_ttl,
        timeout=about.timeout,
    )


def identity_of(about: RequestAuthorizer | TokenAuthorizer) -> Identity:
    """Whom an authorizer's function is asked about."""
    if isinstance(about, RequestAuthorizer):
        return Identity([source(each) for each in about.identity_source])
    expression = about.identity_validation_expression
    return Identity([source(about.identity_source)], matcher(expression) if expression is not None else None)


class _SignedStep:
    """Lets requests pass that are signed, by whom policies allow it."""

    def __init__(self, site: Site, policy: ResourcePolicy | None, payload_version: str, action: str = ACTION) -> None:
        self._site, self._policy, self._version, self._action = site, policy, payload_version, action

    def __call__(self, inner: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            credential = await self._signer(exchange)
            self._decide(exchange, credential)
            self._tell(exchange, credential)
            return await inner(exchange)

        return handle

    async def _signer(self, exchange: Exchange) -> Credential:
        """Whose signature a request has. Raises RefusedError."""
        request = request_of(exchange)
        try:
            signed = read_signature(request, self._site.scope().region)
            secure = exchange.scheme == "https"
            return await signer.signer(signed, request, exchange.read, self._site.credential, secure=secure)
        except CredentialError as error:
            exchange.facts["authorize.error"] = f"the credentials are not good: {error}"
            raise unsigned(signer.not_good(error)) from None
        except SignatureError as error:
            exchange.facts["authorize.error"] = str(error)
            raise unsigned(error) from None

    def _decide(self, exchange: Exchange, credential: Credential) -> None:
        """Raises RefusedError."""
        scope = self._site.scope()
        arn = arn_of(exchange, scope)
        context = context_of(exchange, {"aws:TokenIssueTime": iso(credential.issued)})
        decision = self._site.decide(credential.who, self._action, arn, context, self._policy)
        if decision.allowed:
            return
        if self._policy is not None:
            raise denied(exchange, credential.arn, arn, scope, decision, self._action)
        exchange.facts["authorize.error"] = f"{credential.arn} may not {self._action} on {arn}: {decision.reason}"
        raise RefusedError(403, "Forbidden", "ACCESS_DENIED")

    def _tell(self, exchange: Exchange, credential: Credential) -> None:
        """Who signed, as events show it."""
        account = exchange.mount.account
        exchange.identity.update(
            accessKey=credential.access_key,
            accountId=account,
            caller=credential.user_id,
            user=credential.user_id,
            userArn=credential.arn,
        )
        if self._version == "2.0":
            exchange.authorizer = {
                "iam": {
                    "accessKey": credential.access_key,
                    "accountId": account,
                    "callerId": credential.user_id,
                    "cognitoIdentity": None,
                    "principalOrgId": None,
                    "userArn": credential.arn,
                    "userId": credential.user_id,
                }
            }


_KINDS = {
    "MissingAuthenticationTokenException": "MISSING_AUTHENTICATION_TOKEN",
    "ExpiredTokenException": "EXPIRED_TOKEN",
    "InvalidSignatureException": "INVALID_SIGNATURE",
}
"""AWS's errors, as API Gateway calls their responses."""


def read_signature(request: Request, region: str) -> Signed:
    """What a request says of its signature, which is for a gateway here. Raises SignatureError."""
    signed = signer.read(request)
    sigv4.check_scope(signed, region, SERVICE)
    return signed


def request_of(exchange: Exchange) -> Request:
    """What is signed of a request, but for its body."""
    path, _, query = exchange.target.partition(b"?")
    return Request(exchange.method, path, query, exchange.headers)


def unsigned(error: SignatureError) -> RefusedError:
    """The refusal of a request whose signature is missing or not taken."""
    headers = [(b"x-amzn-errortype", error.code.encode())]
    return RefusedError(403, str(error), _KINDS.get(error.code, "ACCESS_DENIED"), headers)


def policy_of(name: str, spec: GatewaySpec) -> ResourcePolicy | None:
    """The gateway's own."""
    if not spec.policy:
        return None
    return ResourcePolicy(AttachedPolicy(f"gateways/{name}.json", "$.policy", spec.policy))


def call_arn(scope: Scope, mount: Mount, call: str) -> str:
    """`call` is METHOD/PATH, or a route key of a WebSocket API."""
    return f"arn:aws:{SERVICE}:{scope.region}:{scope.account}:{mount.api}/{mount.stage}/{call}"


def arn_of(exchange: Exchange, scope: Scope) -> str:
    """What a request is a call of: a slash within a segment of its path stays encoded, and one at its end counts for
    nothing, as in routes."""
    if exchange.socket is not None:
        return call_arn(scope, exchange.mount, CONNECT)
    segments = exchange.segments[:-1] if exchange.segments[-1] == "" else exchange.segments
    path = "/".join(segment.replace("/", "%2F") for segment in segments)
    return call_arn(scope, exchange.mount, f"{exchange.method}/{path}")


def context_of(exchange: Exchange, more: Mapping[str, str] | None = None) -> Context:
    """The condition keys of a request."""
    secure = exchange.scheme == "https"
    context = of_request(exchange.client.address, exchange.headers, time.time(), secure=secure)
    return context.with_values(more) if more else context


def denied(
    exchange: Exchange, who: str, arn: str, scope: Scope, decision: Decision, action: str = ACTION
) -> DeniedError:
    """The refusal of a gateway with a policy, in IAM's words: of the account it tells four digits."""
    exchange.facts["authorize.error"] = f"{who} may not {action} on {arn}: {decision.reason}"
    shown = arn.replace(f":{scope.account}:", f":{'*' * 8}{scope.account[-4:]}:", 1)
    ending = " with an explicit deny" if decision.explicit else ""
    return DeniedError(f"User: {who} is not authorized to perform: {action} on resource: {shown}{ending}")
