"""Who signed a request: its signature held against the credentials that its token stands for."""

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from owsgit.aws import payload, sigv4
from owsgit.aws.sigv4 import Request, SignatureError, Signed
from owsgit.model.service import Credential, CredentialError

_HASH = re.compile(r"[0-9a-f]{64}")
_OVER_HTTPS = "A body that is not signed is taken over https alone."
_INVALID = "The security token included in the request is invalid."
_EXPIRED = "The security token included in the request is expired"


def read(request: Request) -> Signed:
    """What a request says of its signature. Raises SignatureError, also for one without."""
    signed = sigv4.read(request)
    if signed is None:
        raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
    if signed.presigned and not signed.payload and signed.service == sigv4.S3:
        return replace(signed, payload=sigv4.UNSIGNED_PAYLOAD)
    return signed


async def signer(
    signed: Signed,
    request: Request,
    body: Callable[[], Awaitable[bytes]],
    credential: Callable[[str], Credential],
    *,
    secure: bool,
) -> Credential:
    """Whose signature it is. `body` is read once all else is in order; `secure`: the request came over TLS.

    Raises SignatureError, and CredentialError with why credentials are not good, which the client need not know.
    """
    found = known(signed, request, credential)
    _check_payload(signed, secure)
    said = signed.payload or hashlib.sha256(await body()).hexdigest()
    sigv4.check_signature(signed, request, found.secret, said)
    if signed.payload not in ("", sigv4.UNSIGNED_PAYLOAD):
        await check_body(signed, body)
    return credential(signed.token)  # a body may come slowly: by what the token stands for when all of it is there


def streaming_signer(
    signed: Signed, request: Request, credential: Callable[[str], Credential], *, unseen: bool
) -> Credential:
    """Whose signature it is, of a request whose body is yet to be held against what it says of it (payload.py).

    `unseen`: nobody is between here and the client. Raises as `signer` does.
    """
    found = known(signed, request, credential)
    if signed.payload in (sigv4.UNSIGNED_PAYLOAD, payload.UNSIGNED_TRAILER):
        if not (unseen or signed.presigned):  # whoever sees a presigned request can send it with another body anyway
            raise SignatureError("InvalidSignatureException", _OVER_HTTPS)
    elif signed.payload not in payload.CHUNKED and _HASH.fullmatch(signed.payload) is None:
        raise SignatureError(
            "InvalidSignatureException",
            f"x-amz-content-sha256 must be UNSIGNED-PAYLOAD, {', '.join(payload.CHUNKED)}, or a valid sha256 value.",
        )
    sigv4.check_signature(signed, request, found.secret, signed.payload)
    return found


def known(signed: Signed, request: Request, credential: Callable[[str], Credential]) -> Credential:
    """The credentials that a request is signed with, if its time and its headers are in order. Raises as `signer`."""
    sigv4.check_time(signed, time.time())
    sigv4.check_headers(signed, request)
    found = credential(signed.token)
    if not hmac.compare_digest(found.access_key, signed.access_key):
        raise CredentialError("the access key is not the one that the token is for")
    return found


async def check_body(signed: Signed, body: Callable[[], Awaitable[bytes]]) -> None:
    """Raises SignatureError unless the body has the SHA-256 that is signed."""
    if not hmac.compare_digest(hashlib.sha256(await body()).hexdigest(), signed.payload):
        raise SignatureError(
            "InvalidSignatureException", "The provided 'x-amz-content-sha256' header does not match what was computed."
        )


def not_good(error: CredentialError) -> SignatureError:
    """What a client is told whose credentials are not good."""
    if error.expired:
        return SignatureError("ExpiredTokenException", _EXPIRED)
    return SignatureError("UnrecognizedClientException", _INVALID)


def _check_payload(signed: Signed, secure: bool) -> None:
    """Whether what a request says of its body can be held against it. Raises SignatureError."""
    if signed.payload == sigv4.UNSIGNED_PAYLOAD:
        if not secure:
            raise SignatureError("InvalidSignatureException", _OVER_HTTPS)
    elif signed.payload and _HASH.fullmatch(signed.payload) is None:
        raise SignatureError("InvalidSignatureException", "x-amz-content-sha256 must be the SHA-256 of the body.")
