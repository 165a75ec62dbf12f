"""The step that asks requests for a bearer token (RFC 6750), in front of an integration."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response, Step
from owsgit.gateway.issuers import IssuerError
from owsgit.gateway.payload import query_pairs

if TYPE_CHECKING:
    from owsgit.gateway.tokens import TokenVerifier, Verified

Source = Callable[[Exchange], bytes | None]


class TokenError(Exception):
    """A token that is not taken. `told` is for the client, `why` for the log."""

    def __init__(self, told: str, why: str = "") -> None:
        super().__init__(why or told)
        self.told = told


def source(text: str) -> Source:
    """How to find the token in a request: $request.header.NAME or $request.querystring.NAME."""
    place, _, name = text.removeprefix("$request.").partition(".")
    return partial(_of_query, name) if place == "querystring" else partial(_of_header, name.lower().encode())


def _of_header(name: bytes, exchange: Exchange) -> bytes | None:
    found: bytes | None = None
    for key, value in exchange.headers:
        if key == name:
            if found is not None:  # of two, a proxy could have looked at the other one
                return None
            found = value.strip()
    if found is None:
        return None
    return found[7:].strip() if found[:7].lower() == b"bearer " else found


def _of_query(name: str, exchange: Exchange) -> bytes | None:
    values = [value for key, value in query_pairs(exchange) if key == name]
    return values[0].encode("utf-8", "replace") if len(values) == 1 else None


def bearer_step(verifier: "TokenVerifier", found: Source, scopes: Sequence[str], payload_version: str) -> Step:
    """Lets requests pass that have a good token with one of `scopes`, if there are any."""
    return partial(_Bearer, verifier, found, tuple(scopes), payload_version)


class _Bearer:
    """A handler that is asked only with a good token."""

    def __init__(
        self, verifier: "TokenVerifier", found: Source, scopes: tuple[str, ...], payload_version: str, inner: Handler
    ) -> None:
        self._verifier, self._found, self._inner = verifier, found, inner
        self._scopes, self._wanted = scopes, frozenset(scopes)
        self._is_flat = payload_version == "1.0"

    def __call__(self, exchange: Exchange) -> Awaitable[Response]:
        token = self._found(exchange)
        if not token:
            raise _unauthorized(exchange, "there is no token", b"Bearer")
        verified = self._verifier.known(token)
        return self._verify(token, exchange) if verified is None else self._pass(verified, exchange)

    async def _verify(self, token: bytes, exchange: Exchange) -> Response:
        try:
            verified = await self._verifier.verify(token)
        except TokenError as error:
            told = f'Bearer scope="" error="invalid_token" error_description="{error.told}"'
            raise _unauthorized(exchange, str(error), told.encode()) from None
        except IssuerError as problem:
            exchange.facts["authorizer.error"] = f"the issuer's keys cannot be had: {problem}"
            raise RefusedError(500, "Internal Server Error", "AUTHORIZER_FAILURE") from None
        return await self._pass(verified, exchange)

    def _pass(self, verified: "Verified", exchange: Exchange) -> Awaitable[Response]:
        if self._wanted and self._wanted.isdisjoint(verified.scopes):
            exchange.facts["authorizer.error"] = "the token has none of the scopes that the route asks for"
            told = f'Bearer scope="{" ".join(self._scopes)}" error="insufficient_scope"'
            raise RefusedError(403, "Forbidden", "ACCESS_DENIED", [(b"www-authenticate", told.encode())])
        claims = {"claims": verified.claims, "scopes": list(verified.scopes) or None}
        exchange.authorizer = claims if self._is_flat else {"jwt": claims}
        return self._inner(exchange)


def _unauthorized(exchange: Exchange, why: str, challenge: bytes) -> RefusedError:
    exchange.facts["authorizer.error"] = why
    return RefusedError(401, "Unauthorized", "UNAUTHORIZED", [(b"www-authenticate", challenge)])
