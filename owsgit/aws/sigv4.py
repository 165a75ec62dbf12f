"""AWS Signature Version 4: what a signed request says, and whether its signature is the one that its secret makes.

Pure: no clock, no state. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import contextlib
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
SKEW_SECONDS_MAX = 300
"""How far the client's clock may be from this one's."""

EXPIRES_SECONDS_MAX = 604_800
"""For how long a request can be signed in advance: a week."""

TOKEN_CHARACTERS_MAX = 32_768
HEADERS_MAX, NAMES_CHARACTERS_MAX = 100, 8192
OF_AWS = b"x-amz-"
"""What the names of AWS's own headers begin with."""

SINGLE = (b"host", b"content-type")
"""Headers that decide what is asked for, beside AWS's own. Two of a name are signed like one with both values, so that
whoever has a signed request could make one header of it two."""

UNRESERVED = "-_.~"
S3 = "s3"
"""The service that has ways of its own: paths are signed as they are, as names of objects have empty and relative
segments; bodies may come in signed chunks, or without a signature."""

_CREDENTIAL = re.compile(r"([A-Za-z0-9_]{16,128})/([0-9]{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_NAMES = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+(;[a-z0-9!#$%&'*+.^_`|~-]+)*")
_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")
_OF_SIGNATURES = (
    "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature",
    "X-Amz-Security-Token", "X-Amz-Content-Sha256",
)  # fmt: skip
_NOTHING = hashlib.sha256(b"").hexdigest()
_SPACES = re.compile(rb"[ \t]+")

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, in the order of the wire."""


class SignatureError(Exception):
    """A request that is not signed as it has to be. The text is for the client, in AWS's words; `code` is AWS's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Request:
    """A request as it came: path and query undecoded."""

    method: str
    path: bytes
    query: bytes
    headers: Headers
    _values: Mapping[bytes, tuple[bytes, ...]] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def values(self) -> Mapping[bytes, tuple[bytes, ...]]:
        """The values of each header, by its name."""
        if self._values is None:  # no cached_property, whose lock costs as much as this
            found: dict[bytes, tuple[bytes, ...]] = {}
            for name, value in self.headers:
                found[name] = (*found[name], value) if name in found else (value,)
            self._values = found
        return self._values


@dataclass(slots=True)
class Signed:
    """What a request says of its signature."""

    access_key: str
    day: str
    region: str
    service: str
    date: str  # as it was written
    at: float  # the same, in seconds since 1970
    headers: tuple[str, ...]
    signature: str
    token: str
    payload: str  # what it says of its body: a SHA-256 in hex, UNSIGNED-PAYLOAD, '' if nothing
    expires: int | None = None  # in seconds after `at`, for what is signed in advance
    presigned: bool = False

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def read(request: Request) -> Signed | None:
    """What `request` says of its signature; None if it has none. Raises SignatureError for what is not whole."""
    query: dict[str, str] = {}
    for name, value in _query(request.query) if request.query else ():
        if name.startswith("X-Amz-") and query.setdefault(name, value) is not value:
            raise _incomplete(f"the query has {name[:40]} more than once")
    authorization = _only(request, b"authorization")
    if authorization is not None and authorization.startswith("AWS"):
        if "X-Amz-Algorithm" in query:
            raise _incomplete("the request is signed twice, in its headers and in its query")
        return _of_header(authorization, request)
    return _of_query(query, request) if "X-Amz-Algorithm" in query else None


def _incomplete(message: str) -> SignatureError:
    return SignatureError("IncompleteSignatureException", message)


def _only(request: Request, name: bytes) -> str | None:
    values = request.values.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise _incomplete(f"the header {name.decode()} is there more than once")
    return values[0].decode("latin-1").strip()


def _of_header(text: str, request: Request) -> Signed:
    date = _only(request, b"x-amz-date")
    token = _only(request, b"x-amz-security-token") or ""
    payload = _only(request, b"x-amz-content-sha256") or ""
    before, name, signature = text.rpartition("Signature=")
    kept = len(before) + len(date or "")
    if name and date is not None and kept <= USUAL_CHARACTERS_MAX and len(token) <= TOKEN_CHARACTERS_MAX:
        usual = _usual(before, date)
        if usual is not None and _SIGNATURE.fullmatch(signature) is not None:
            access_key, day, region, service, at, names = usual
            return Signed(access_key, day, region, service, date, at, names, signature, token, payload)
    algorithm, _, rest = text.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm[:40]}'.")
    parts = [part.strip().partition("=") for part in rest.split(",")]
    said = {name: value for name, _, value in parts}
    if said.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise _incomplete("Authorization header requires 'Credential', 'Signature' and 'SignedHeaders' parameters.")
    if date is None:
        raise _incomplete("Authorization header requires existence of a 'X-Amz-Date' header.")
    return _signed(said["Credential"], date, said["SignedHeaders"], said["Signature"], token, payload)


@lru_cache(maxsize=256)
def _usual(before: str, date: str) -> tuple[str, str, str, str, float, tuple[str, ...]] | None:
    """What an Authorization header says before its signature, and the time: a client's requests of one second have all
    of it in common. Access key, day, region, service, time and names; None if it is not in order as SDKs write it."""
    match = _USUAL.fullmatch(before)
    if match is None:
        return None
    try:
        access_key, day, region, service = _scoped(match[1])
        at, names = _date(date), _names(match[2])
    except SignatureError:
        return None
    return (access_key, day, region, service, at, names) if day == date[:8] else None


USUAL_CHARACTERS_MAX = 2048
_USUAL = re.compile(ALGORITHM + r" Credential=([^,=\s]+), ?SignedHeaders=([^,=\s]+), ?")
"""As SDKs write it."""


def _of_query(query: dict[str, str], request: Request) -> Signed:
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{query['X-Amz-Algorithm'][:40]}'.")
    needed = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")
    if missing := [name for name in needed if name not in query]:
        raise _incomplete(f"AWS query-string parameters must include {', '.join(missing)}.")
    expires = query["X-Amz-Expires"]
    if re.fullmatch(r"[0-9]{1,6}", expires) is None or not 1 <= int(expires) <= EXPIRES_SECONDS_MAX:
        raise _incomplete(f"X-Amz-Expires must be from 1 to {EXPIRES_SECONDS_MAX} seconds.")
    payload = _only(request, b"x-amz-content-sha256") or query.get("X-Amz-Content-Sha256", "")
    credential, date, headers, signature = (query[name] for name in needed if name != "X-Amz-Expires")
    token = query.get("X-Amz-Security-Token", "")
    return _signed(credential, date, headers, signature, token, payload, int(expires), presigned=True)


def _signed(
    credential: str,
    date: str,
    headers: str,
    signature: str,
    token: str,
    payload: str,
    expires: int | None = None,
    *,
    presigned: bool = False,
) -> Signed:
    access_key, day, region, service = _scoped(credential)
    names = _names(headers)
    if _SIGNATURE.fullmatch(signature) is None:
        raise _incomplete("Signature must be 64 hexadecimal digits.")
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise SignatureError("UnrecognizedClientException", "The security token included in the request is invalid.")
    at = _date(date)
    if day != date[:8]:
        raise SignatureError(
            "InvalidSignatureException",
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' "
            f"!= '{date[:8]}', from '{date}'.",
        )
    return Signed(
        access_key, day, region, service, date, at, names, signature, token, payload, expires, presigned=presigned
    )


@lru_cache(maxsize=256)
def _scoped(credential: str) -> tuple[str, str, str, str]:
    """Access key, day, region and service."""
    match = _CREDENTIAL.fullmatch(credential)
    if match is None:
        raise _incomplete("Credential must have the form KEY/YYYYMMDD/REGION/SERVICE/aws4_request.")
    return match[1], match[2], match[3], match[4]


@lru_cache(maxsize=256)
def _names(headers: str) -> tuple[str, ...]:
    if len(headers) > NAMES_CHARACTERS_MAX or _NAMES.fullmatch(headers) is None or headers.count(";") >= HEADERS_MAX:
        raise _incomplete("SignedHeaders must be names of headers in lower case, with ';' in between.")
    return tuple(headers.split(";"))


@lru_cache(maxsize=256)
def _date(text: str) -> float:
    match = _DATE.fullmatch(text)
    with contextlib.suppress(ValueError):
        if match is not None:
            year, month, day, hour, minute, second = map(int, match.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    raise _incomplete(f"Date must be in ISO-8601 'basic format'. Got '{text[:40]}'.")


def check_time(signed: Signed, now: float) -> None:
    """Raises SignatureError for what was signed too long ago, or will be. `now` is in seconds since 1970."""
    age = now - signed.at
    limit = signed.expires if signed.expires is not None else SKEW_SECONDS_MAX
    if -SKEW_SECONDS_MAX <= age <= limit:
        return
    at, today = signed.date, datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    if age < -SKEW_SECONDS_MAX:
        raise SignatureError(
            "InvalidSignatureException", f"Signature not yet current: {at} is still later than {today}"
        )
    raise SignatureError("InvalidSignatureException", f"Signature expired: {at} is now earlier than {today}")


def check_scope(signed: Signed, region: str, service: str) -> None:
    """Raises SignatureError for what was signed for another region or service."""
    if signed.service != service:
        message = f"Credential should be scoped to correct service: '{service}'. "
        raise SignatureError("InvalidSignatureException", message)
    if signed.region != region:
        message = f"Credential should be scoped to a valid region, not '{signed.region}'. "
        raise SignatureError("InvalidSignatureException", message)


def check_headers(signed: Signed, request: Request) -> None:
    """Raises SignatureError unless the host and all of AWS's own headers are signed, and are there."""
    values = request.values
    if len(values) < len(request.headers):
        for name, several in values.items():
            if len(several) > 1 and (name.startswith(OF_AWS) or name in SINGLE):
                raise _incomplete(f"the header {name[:40].decode('latin-1')} is there more than once")
    check = _check_names if len(values) <= HEADERS_MAX else _check_names.__wrapped__
    check(signed.headers, tuple(values))


@lru_cache(maxsize=256)
def _check_names(signed: tuple[str, ...], there: tuple[bytes, ...]) -> None:
    """Clients send the same headers again and again."""
    wanted = {b"host", *(name for name in there if name.startswith(OF_AWS))}
    names = _wire_names(signed)
    if missing := wanted.difference(names):
        raise SignatureError(
            "InvalidSignatureException",
            f"'{min(missing).decode('latin-1')}' must be a 'SignedHeader' in the AWS Authorization.",
        )
    if list(names) != sorted(set(names)) or not set(there) >= set(names):
        raise mismatch()


def check_signature(signed: Signed, request: Request, secret: str, body_hash: str) -> None:
    """Raises SignatureError unless the signature is the one that `secret` makes of all of this. In constant time."""
    key = _signing_key(secret, signed.day, signed.region, signed.service)
    queries = [*_canonical_queries(request.query, presigned=signed.presigned)] if request.query else [b""]
    for path in _canonical_paths(request.path, plain=signed.service == S3) if request.path != b"/" else (b"/",):
        for query in queries:
            canonical = _canonical(signed, request, path, query, body_hash)
            digest = hashlib.sha256(canonical).hexdigest()
            text = f"{ALGORITHM}\n{signed.date}\n{signed.scope}\n{digest}"
            if hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), signed.signature):
                return
    raise mismatch()


def hoisted(signed: Signed, request: Request) -> list[tuple[bytes, bytes]]:
    """Headers of AWS's own that stand in the query of a request that was signed ahead: SDKs put them there, so that
    whoever has the address need not know them. Raises SignatureError for what is in both places."""
    if not signed.presigned:
        return []
    pairs = ((name.lower(), value) for name, value in _query(request.query) if name not in _OF_SIGNATURES)
    found = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs if name.startswith("x-amz-")]
    names = [name for name, _ in (*request.headers, *found) if name.startswith(b"x-amz-")]
    if len(set(names)) < len(names):
        raise _incomplete("one of AWS's headers is there more than once, in the query as well")
    return found


def chunk_signature(signed: Signed, secret: str, kind: str, previous: str, digest: str) -> str:
    """That of a chunk (`kind` PAYLOAD) or of the trailers (TRAILER), which have this SHA-256, after the one before.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
    """
    key = _signing_key(secret, signed.day, signed.region, signed.service)
    empty = [_NOTHING] if kind == "PAYLOAD" else []
    lines = [f"{ALGORITHM}-{kind}", signed.date, signed.scope, previous, *empty, digest]
    return hmac.digest(key, "\n".join(lines).encode(), "sha256").hex()


def mismatch() -> SignatureError:
    return SignatureError(
        "InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details.",
    )


@lru_cache(maxsize=4096)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical(signed: Signed, request: Request, path: bytes, query: bytes, body_hash: str) -> bytes:
    names = _wire_names(signed.headers)
    lines = [request.method.encode(), path, query]
    given = request.values
    for name in names:
        values = given.get(name, _ABSENT)
        if len(values) == 1:
            [value] = values
            if b" " in value or b"\t" in value:
                value = _trimmed(value)
        else:
            value = b",".join(map(_trimmed, values))
        lines.append(name + b":" + value)
    lines += [b"", b";".join(names), body_hash.encode()]
    return b"\n".join(lines)


_ABSENT = (b"",)


@lru_cache(maxsize=256)
def _wire_names(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names)


def _trimmed(value: bytes) -> bytes:
    value = value.strip()
    return _SPACES.sub(b" ", value) if b"  " in value or b"\t" in value else value


def _canonical_paths(path: bytes, *, plain: bool) -> Iterator[bytes]:
    """The path in the forms that clients sign: of a service with plain paths as AWS encodes it, and as it came."""
    if not plain:
        yield _canonical_path(path)
        return
    first = quote(unquote_to_bytes(path), safe="/" + UNRESERVED).encode()
    yield first
    if path != first:
        yield path


def _canonical_path(path: bytes) -> bytes:
    """Encoded once more than it came, as for every service but S3; without empty and relative segments."""
    if path == b"/":
        return path
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    normal = b"/" + b"/".join(kept) + (b"/" if kept and path.endswith(b"/") else b"")
    return quote(normal, safe="/" + UNRESERVED).encode()


def _query(query: bytes) -> Iterator[tuple[str, str]]:
    for part in query.split(b"&") if query else ():
        name, _, value = part.partition(b"=")
        yield unquote_to_bytes(name).decode("latin-1"), unquote_to_bytes(value).decode("latin-1")


def _canonical_queries(query: bytes, *, presigned: bool) -> Iterator[bytes]:
    """The query in the forms that clients sign: every octet encoded in one way, as AWS says; and sorted as it came, as
    botocore does it, which leaves a plus or a comma of the address as it is."""
    parts = [part for part in query.split(b"&") if part and not (presigned and _name(part) == b"X-Amz-Signature")]
    pairs = sorted(tuple(_encoded(each) for each in part.partition(b"=")[::2]) for part in parts)
    first = b"&".join(name + b"=" + value for name, value in pairs)
    yield first
    raw = b"&".join(name + b"=" + value for name, value in sorted(part.partition(b"=")[::2] for part in parts))
    if raw != first:
        yield raw


def _name(part: bytes) -> bytes:
    return unquote_to_bytes(part.partition(b"=")[0])


def _encoded(text: bytes) -> bytes:
    return quote(unquote_to_bytes(text), safe=UNRESERVED).encode()
