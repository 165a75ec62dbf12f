"""Who signed a request: its signature held against the credentials that its token stands for."""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from owsgit.aws import sigv4
from owsgit.aws.sigv4 import Request, SignatureError, Signed
from owsgit.model.service import Credential, CredentialError

_HASH = re.compile(r"[0-9a-f]{64}")
_INVALID = "The security token included in the request is invalid."
_EXPIRED = "The security token included in the request is expired"


def read(request: Request) -> Signed:
    """What a request says of its signature. Raises SignatureError, also for one without."""
    signed = sigv4.read(request)
    if signed is None:
        raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
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
    sigv4.check_time(signed, datetime.now(UTC))
    sigv4.check_headers(signed, request)
    found = credential(signed.token)
    if not hmac.compare_digest(found.access_key, signed.access_key):
        raise CredentialError("the access key is not the one that the token is for")
    _check_payload(signed, secure)
    said = signed.payload or hashlib.sha256(await body()).hexdigest()
    sigv4.check_signature(signed, request, found.secret, said)
    if signed.payload in ("", sigv4.UNSIGNED_PAYLOAD):
        return found
    if not hmac.compare_digest(hashlib.sha256(await body()).hexdigest(), signed.payload):
        raise SignatureError(
            "InvalidSignatureException", "The provided 'x-amz-content-sha256' header does not match what was computed."
        )
    return found


def not_good(error: CredentialError) -> SignatureError:
    """What a client is told whose credentials are not good."""
    if error.expired:
        return SignatureError("ExpiredTokenException", _EXPIRED)
    return SignatureError("UnrecognizedClientException", _INVALID)


def _check_payload(signed: Signed, secure: bool) -> None:
    """Whether what a request says of its body can be held against it. Raises SignatureError."""
    if signed.payload == sigv4.UNSIGNED_PAYLOAD:
        if not secure:
            raise SignatureError("InvalidSignatureException", "A body that is not signed is taken over https alone.")
    elif signed.payload and _HASH.fullmatch(signed.payload) is None:
        raise SignatureError("InvalidSignatureException", "x-amz-content-sha256 must be the SHA-256 of the body.")
