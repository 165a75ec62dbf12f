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

from owsgit.gateway.bearer import TokenError
from owsgit.gateway.issuers import Issuer

TOKEN_BYTES_MAX = 16 * 1024
VERIFIED_MAX = 10_000
"""Tokens that one authorizer remembers as good."""

ALGORITHMS = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"))
"""Only with public keys: whoever can check a token could make one otherwise."""


@dataclass(frozen=True)
class Verified:
    """What a good token says: its claims as events show them, until when (seconds since 1970), under which keys."""

    claims: dict[str, str]
    scopes: tuple[str, ...]
    until: float
    generation: int


class TokenVerifier:
    """Checks the tokens of one authorizer, and remembers which were good."""

    def __init__(self, issuer: Issuer, name: str, audience: Sequence[str], clock_skew: float) -> None:
        """`name` is what iss has to be, `clock_skew` in seconds."""
        self._issuer, self._name, self._skew = issuer, name, clock_skew
        self._audience = frozenset(audience)
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()

    def known(self, token: bytes) -> Verified | None:
        """What is known of a token that was good before, and is. Of others nothing is said."""
        digest = hashlib.sha256(token).digest()
        found = self._remembered(digest)
        if found is None or time.time() >= found.until:
            return None
        self._verified.move_to_end(digest)
        return found

    def _remembered(self, digest: bytes) -> Verified | None:
        found = self._verified.get(digest)
        is_current = found is not None and found.generation == self._issuer.generation and self._issuer.is_fresh
        return found if is_current else None

    async def verify(self, token: bytes) -> Verified:
        """Of one that is not known. Raises TokenError, IssuerError."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenError("the token is too long")
        digest = hashlib.sha256(token).digest()
        if self._remembered(digest) is not None:
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
