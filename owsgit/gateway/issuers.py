"""The public keys of token issuers: OpenID Connect Discovery 1.0 and JSON Web Key Sets (RFC 7517), kept and renewed.

https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import aiohttp
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt import algorithms
from jwt.exceptions import InvalidKeyError

from owsgit.gateway.addresses import is_safe

DOCUMENT_BYTES_MAX = 256 * 1024
FETCH_SECONDS_MAX = 5.0
REDIRECTS_MAX = 3
KEYS_MAX = 100
KEY_BITS_MIN, KEY_BITS_MAX = 2048, 8192
"""Of RSA. NIST SP 800-131A takes no shorter ones; longer ones only cost time."""

FRESH_SECONDS_MIN, FRESH_SECONDS_DEFAULT, FRESH_SECONDS_MAX = 60.0, 300.0, 86_400.0
"""How long keys are taken as they are: what Cache-Control says, within bounds."""

STALE_SECONDS_MAX = 86_400.0
"""How long keys are used after that, while their issuer does not answer."""

PAUSE_SECONDS = 10.0
"""Between two requests to an issuer, whatever tokens come."""

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

log = logging.getLogger("owsgit.gateway")


class IssuerError(Exception):
    """The issuer's keys cannot be had: it is away, or what it says is no key set."""


@dataclass(frozen=True)
class Key:
    """A public key, and the algorithms (RFC 7518) that it may be used with."""

    id: str
    algorithms: tuple[str, ...]
    public: PublicKey


def read_keys(document: object) -> list[Key]:
    """The keys of a key set that can check signatures; others are passed over (RFC 7517, 5). Raises IssuerError."""
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > KEYS_MAX:
        raise IssuerError(f"it is no key set of at most {KEYS_MAX} keys")
    return [key for each in found if isinstance(each, dict) and (key := _key(each)) is not None]


def _key(given: Mapping[str, Any]) -> Key | None:
    operations = given.get("key_ops")
    if given.get("use", "sig") != "sig" or (operations is not None and "verify" not in operations):
        return None
    try:
        public, fitting = _public(given)
    except (InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    wanted = given.get("alg")
    allowed = tuple(name for name in fitting if wanted is None or name == wanted)
    id_ = given.get("kid", "")
    return Key(id_, allowed, public) if allowed and isinstance(id_, str) else None


def _public(given: Mapping[str, Any]) -> tuple[PublicKey, tuple[str, ...]]:
    """Raises InvalidKeyError, ValueError, TypeError, KeyError; what is private or symmetric is no key here."""
    if "d" in given:
        raise ValueError("a private key")
    kind = given["kty"]
    public: Any
    if kind == "RSA":
        public = algorithms.RSAAlgorithm.from_jwk(dict(given))
        if not KEY_BITS_MIN <= public.key_size <= KEY_BITS_MAX:
            raise ValueError("too short, or too long")
        return public, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    if kind == "EC":
        public = algorithms.ECAlgorithm.from_jwk(dict(given))
        return public, ({"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}[public.curve.name],)
    if kind == "OKP":
        return algorithms.OKPAlgorithm.from_jwk(dict(given)), ("EdDSA",)  # type: ignore[return-value]
    raise ValueError("another kind of key")


class Fetcher:
    """Reads small JSON documents over HTTPS."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> tuple[object, float]:
        """The document, and for how many seconds it may be kept. Raises IssuerError."""
        try:
            async with asyncio.timeout(FETCH_SECONDS_MAX):
                return await self._get(url)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise IssuerError(f"{url}: {type(error).__name__}: {error}"[:500]) from None

    async def _get(self, url: str) -> tuple[object, float]:
        for _ in range(REDIRECTS_MAX + 1):
            if not is_safe(url):
                raise IssuerError(f"{url:.200} could be changed on its way: it is no https address")
            headers = {"accept": "application/json", "accept-encoding": "identity"}
            async with self._opened().get(url, allow_redirects=False, headers=headers) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status != 200:
                    raise IssuerError(f"{url} answered with {response.status}")
                return orjson.loads(await _body(response)), _kept(response.headers.get("cache-control", ""))
        raise IssuerError(f"{url:.200}: more than {REDIRECTS_MAX} redirects")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > DOCUMENT_BYTES_MAX:
            raise IssuerError(f"{response.url} sends more than {DOCUMENT_BYTES_MAX:,} bytes")
    return bytes(data)


def _kept(cache_control: str) -> float:
    match = _MAX_AGE.search(cache_control)
    seconds = float(match[1]) if match else FRESH_SECONDS_DEFAULT
    return min(max(seconds, FRESH_SECONDS_MIN), FRESH_SECONDS_MAX)


class Issuer:
    """The keys of one issuer. `generation` changes whenever they do."""

    def __init__(self, fetcher: Fetcher, issuer: str, keys_at: str | None) -> None:
        """`keys_at` is the address of the key set, if it is not to be discovered."""
        self._fetcher, self._issuer, self._keys_at = fetcher, issuer, keys_at
        self._keys: list[Key] | None = None
        self._document: object = None
        self._fresh_until = self._next_try = -1.0
        self._problem = "it was not asked yet"
        self._asking: asyncio.Task[None] | None = None
        self.generation = 0

    @property
    def is_fresh(self) -> bool:
        return self._keys is not None and time.monotonic() < self._fresh_until

    async def key(self, id_: str | None, algorithm: str) -> Key | None:
        """The key that a token names, if it may be used with the algorithm; without a name, the only one that may.

        Raises IssuerError if there are no keys to look in. A key that is not known has the issuer asked again.
        """
        if not self.is_fresh:
            await self._renew(wait=self._keys is None or not self._problem)
        found = self._find(id_, algorithm)
        if found is None and time.monotonic() >= self._next_try:
            await self._renew(wait=True)
            found = self._find(id_, algorithm)
        return found

    def _find(self, id_: str | None, algorithm: str) -> Key | None:
        if self._keys is None or time.monotonic() > self._fresh_until + STALE_SECONDS_MAX:
            raise IssuerError(self._problem)
        fitting = [key for key in self._keys if algorithm in key.algorithms and (id_ is None or key.id == id_)]
        return fitting[0] if len(fitting) == 1 else None

    async def _renew(self, *, wait: bool) -> None:
        """Ask once, for all who wait; not while the last time was just now."""
        if self._asking is None or self._asking.done():
            if time.monotonic() < self._next_try:
                return
            self._next_try = time.monotonic() + PAUSE_SECONDS
            self._asking = asyncio.create_task(self._ask())
        if wait:
            await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            document, seconds = await self._fetcher.get(self._keys_at or await self._discovered())
            keys = read_keys(document)
        except Exception as error:  # whatever an issuer sends, its former keys stay
            self._problem = str(error) or type(error).__name__
            log.warning("the keys of %s cannot be had: %s", self._issuer, error)
            return
        self._problem = ""
        self._fresh_until = time.monotonic() + seconds
        if document != self._document or self._keys is None:
            self._keys, self._document = keys, document
            self.generation += 1

    async def _discovered(self) -> str:
        """Where the key set is. Raises IssuerError."""
        document, _ = await self._fetcher.get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        match document:
            case {"issuer": str(issuer), "jwks_uri": str(address)}:
                if issuer != self._issuer:
                    raise IssuerError(f"its discovery document is of the issuer {issuer:.200}")
                return address
        raise IssuerError("its discovery document has no issuer and jwks_uri")


class Issuers:
    """All issuers that a node's gateways trust: their keys outlive a deployment."""

    def __init__(self) -> None:
        self._fetcher = Fetcher()
        self._known: dict[tuple[str, str | None], Issuer] = {}

    def get(self, issuer: str, keys_at: str | None) -> Issuer:
        return self._known.setdefault((issuer, keys_at), Issuer(self._fetcher, issuer, keys_at))

    async def close(self) -> None:
        await self._fetcher.close()
