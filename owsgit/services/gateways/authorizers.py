"""Authorizers of a gateway, and which of its routes ask which of them: `authorizers`, `auth` and `scopes`.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-access-control.html
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field, StringConstraints

from owsgit.gateway.addresses import LOOPBACK, is_safe
from owsgit.model.spec import Document, PlacedError, nearest
from owsgit.services.gateways.function_authorizers import RequestAuthorizer, TokenAuthorizer

AUTHORIZERS_MAX = 100
AUDIENCES_MAX = 50
SCOPES_MAX = 50

NONE = "none"
IAM = "iam"
RESERVED = (NONE, IAM)
"""What `auth` can say beside the names of authorizers."""


def _url(text: str) -> str:
    if not is_safe(text) or "@" in text or "#" in text:
        raise ValueError(
            f"{text!r:.120} is not taken: write an https address, such as https://login.example.com/realm "
            f"(http is for {', '.join(LOOPBACK)} alone)"
        )
    return text


def _name(text: str) -> str:
    if text in RESERVED:
        raise ValueError(f"{text!r} means something else in auth: choose another name")
    return text


Url = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_url)]
AuthorizerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"), AfterValidator(_name)]
Auth = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$")]
"""RFC 6749, 3.3."""


class JwtAuthorizer(Document):
    """Takes requests with a JSON Web Token (RFC 7519) of an OpenID Connect issuer."""

    type: Literal["jwt"] = Field(description="A JSON Web Token.")
    issuer: Url = Field(description="What the token's iss has to be; its keys are found by OpenID Connect Discovery.")
    audience: list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]] = Field(
        min_length=1,
        max_length=AUDIENCES_MAX,
        description="One of these has to be in the token's aud; without aud, it has to be its client_id.",
    )
    identity_source: str = Field(
        "$request.header.Authorization",
        pattern=r"^\$request\.(header|querystring)\.[A-Za-z0-9_-]{1,128}$",
        description="Where the token is: $request.header.NAME (after 'Bearer', if that is there), or "
        "$request.querystring.NAME.",
    )
    jwks_uri: Url | None = Field(None, description="Where the issuer's keys are, if not where its discovery says.")
    clock_skew: int = Field(0, ge=0, le=300, description="Seconds that the issuer's clock may differ from this one's.")


AuthorizerSpec = Annotated[JwtAuthorizer | RequestAuthorizer | TokenAuthorizer, Field(discriminator="type")]
"""One authorizer, told from others by its `type`."""


class Authorized(Protocol):
    """What a route says of who may call it."""

    @property
    def auth(self) -> str | None: ...

    @property
    def scopes(self) -> list[str]: ...


def check_auth(authorizers: Mapping[str, AuthorizerSpec], default: str, routes: Mapping[str, Authorized]) -> None:
    """Raises ValueError if something names an authorizer that there is not, or asks for scopes that nobody shows."""
    _known(default, "auth", authorizers, "auth")
    for key, route in routes.items():
        auth = default if route.auth is None else route.auth
        _known(auth, f"route {key!r}: auth", authorizers, "routes", key, "auth")
        if route.scopes and not isinstance(authorizers.get(auth), JwtAuthorizer):
            words = f"route {key!r}: scopes are of JSON Web Tokens, and its auth is {auth!r}: name a jwt authorizer"
            raise PlacedError(words, "routes", key, "scopes")


def _known(auth: str, place: str, authorizers: Iterable[str], *at: str) -> None:
    if auth not in RESERVED and auth not in authorizers:
        known = nearest(auth, (*RESERVED, *authorizers), "authorizer", "authorizers")
        raise PlacedError(f"{place} names {auth!r}, and there is no such authorizer: {known}", *at)
