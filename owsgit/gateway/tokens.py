"""JSON Web Tokens as HTTP APIs check them: RFC 7519, with the care of RFC 8725.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jwt

from owsgit.gateway.exchange import Exchange, Handler, RefusedError, Response, Step
from owsgit.gateway.issuers import Issuer, IssuerError
from owsgit.gateway.payload import query_pairs

TOKEN_BYTES_MAX = 16 * 1024
VERIFIED_MAX = 10_000
"""Tokens that one authorizer remembers as good."""

ALGORITHMS = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"))
"""Only with public keys: whoever can check a token could make one otherwise."""

Source = Callable[[Exchange], bytes | None]


class TokenError(Exception):
    """A token that is not taken. `told` is for the client, `why` for the log."""

    def __init__(self, told: str, why: str = "") -> None:
        super().__init__(why or told)
        self.told = told


@dataclass(frozen=True)
class Verified:
    """What a good token says: its claims as events show them, until when (seconds since 1970), under which keys."""

    claims: dict[str, str]
    scopes: tuple[str, ...]
    until: float
    generation: int


def source(text: str) -> Source:
    """How to find the token in a request: $request.header.NAME or $request.querystring.NAME."""
    place, _, name = text.removeprefix("$request.").partition(".")
    return _of_query(name) if place == "querystring" else _of_header(name.lower().encode())


def _of_header(name: bytes) -> Source:
    def find(exchange: Exchange) -> bytes | None:
        values = [value for key, value in exchange.headers if key == name]
        if len(values) != 1:  # of two, a proxy could have looked at the other one
            return None
        value = values[0].strip()
        return value[7:].strip() if value[:7].lower() == b"bearer " else value

    return find


def _of_query(name: str) -> Source:
    def find(exchange: Exchange) -> bytes | None:
        values = [value for key, value in query_pairs(exchange) if key == name]
        return values[0].encode("utf-8", "replace") if len(values) == 1 else None

    return find


class TokenVerifier:
    """Checks the tokens of one authorizer, and remembers which were good."""

    def __init__(self, issuer: Issuer, name: str, audience: Sequence[str], clock_skew: float) -> None:
        """`name` is what iss has to be, `clock_skew` in seconds."""
        self._issuer, self._name, self._skew = issuer, name, clock_skew
        self._audience = frozenset(audience)
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()

    async def verify(self, token: bytes) -> Verified:
        """Raises TokenError, IssuerError."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenError("the token is too long")
        digest = hashlib.sha256(token).digest()
        found = self._verified.get(digest)
        if found is not None and found.generation == self._issuer.generation and self._issuer.is_fresh:
            if time.time() < found.until:
                self._verified.move_to_end(digest)
                return found
            raise TokenError("the token has expired")
        verified = await self._verify(token)
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)
        return verified

    async def _verify(self, token: bytes) -> Verified:
        algorithm, key_id = header_of(token)
        key = await self._issuer.key(key_id, algorithm)
        if key is None:
            raise TokenError("the token's key is not known", f"no key {key_id!r:.80} for {algorithm}")
        return self._read(partial(jwt.decode, token, key.public, algorithms=[algorithm]), self._issuer.generation)

    def _read(self, decode: Callable[..., dict[str, Any]], generation: int, **options: bool) -> Verified:
        """What a token says, which `decode` knows. Raises TokenError."""
        asked = {"require": ["exp", "iss"], "verify_aud": False, "verify_sub": False, "verify_jti": False, **options}
        try:
            claims = decode(issuer=self._name, leeway=self._skew, options=asked)
            shown = {name: shown_as_text(value) for name, value in claims.items()}
            until = float(claims["exp"]) + self._skew
        except jwt.ExpiredSignatureError:
            raise TokenError("the token has expired") from None
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise TokenError("the token is not valid", f"{type(error).__name__}: {error}"[:300]) from None
        self._check_audience(claims)
        return Verified(shown, scopes_of(claims), until, generation)

    def _check_audience(self, claims: dict[str, Any]) -> None:
        """aud; client_id if the token has none."""
        given = claims.get("aud", claims.get("client_id"))
        values = given if isinstance(given, list) and "aud" in claims else [given]
        if not any(isinstance(value, str) and value in self._audience for value in values):
            raise TokenError("the token is for another audience")


def header_of(token: bytes) -> tuple[str, str | None]:
    """The algorithm, which is one of ours, and the key's id. Raises TokenError."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError) as error:
        raise TokenError("the token is malformed", f"{type(error).__name__}: {error}"[:300]) from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenError("the token's algorithm is not taken", f"alg {algorithm!r:.80}")
    if "crit" in header or header.get("b64", True) is not True:
        raise TokenError("the token asks for what is not understood", "crit, b64")
    return algorithm, key_id if isinstance(key_id, str) else None


def scopes_of(claims: dict[str, Any]) -> tuple[str, ...]:
    """scope (RFC 8693: one text, with spaces) or scp, as a text or a list."""
    given = claims.get("scope", claims.get("scp"))
    if isinstance(given, str):
        return tuple(given.split(" "))
    return tuple(each for each in given if isinstance(each, str)) if isinstance(given, list) else ()


def shown_as_text(value: Any) -> str:
    """A claim as API Gateway shows it to functions: everything is text, a list is [a b]."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "<nil>"}[value]
    if isinstance(value, list):
        return "[" + " ".join(map(shown_as_text, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{name}:{shown_as_text(each)}" for name, each in sorted(value.items())) + "]"
    return str(value)


def bearer_step(verifier: TokenVerifier, found: Source, scopes: Sequence[str], payload_version: str) -> Step:
    """Lets requests pass that have a good token with one of `scopes`, if there are any."""
    wanted = frozenset(scopes)

    def step(inner: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Response:
            token = found(exchange)
            if not token:
                raise _unauthorized(exchange, "there is no token", b"Bearer")
            try:
                verified = await verifier.verify(token)
            except TokenError as error:
                told = f'Bearer scope="" error="invalid_token" error_description="{error.told}"'
                raise _unauthorized(exchange, str(error), told.encode()) from None
            except IssuerError as error:
                exchange.facts["authorizer.error"] = f"the issuer's keys cannot be had: {error}"
                raise RefusedError(500, "Internal Server Error", "AUTHORIZER_FAILURE") from None
            if wanted and wanted.isdisjoint(verified.scopes):
                raise _out_of_scope(exchange, scopes)
            claims = {"claims": verified.claims, "scopes": list(verified.scopes) or None}
            exchange.authorizer = claims if payload_version == "1.0" else {"jwt": claims}
            return await inner(exchange)

        return handle

    return step


def _unauthorized(exchange: Exchange, why: str, challenge: bytes) -> RefusedError:
    exchange.facts["authorizer.error"] = why
    return RefusedError(401, "Unauthorized", "UNAUTHORIZED", [(b"www-authenticate", challenge)])


def _out_of_scope(exchange: Exchange, scopes: Sequence[str]) -> RefusedError:
    exchange.facts["authorizer.error"] = "the token has none of the scopes that the route asks for"
    told = f'Bearer scope="{" ".join(scopes)}" error="insufficient_scope"'
    return RefusedError(403, "Forbidden", "ACCESS_DENIED", [(b"www-authenticate", told.encode())])
