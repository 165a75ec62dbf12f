"""ETags, and requests on the condition that something has changed (RFC 9110 13)."""

import hashlib
import re
from email.utils import parsedate_to_datetime

from owsgit.gateway.exchange import Exchange, Handler, Response

_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_OF_A_BODY = frozenset({b"content-type", b"content-length", b"content-encoding", b"content-language", b"content-range"})


def tagged(handler: Handler) -> Handler:
    """A step: gives buffered responses of status 200 a strong ETag of their bytes, if they have none."""

    async def answer(exchange: Exchange) -> Response:
        response = await handler(exchange)
        body = response.body
        if (
            response.status == 200
            and isinstance(body, bytes)
            and (body or exchange.method != "HEAD")
            and not response.header(b"etag")
        ):
            digest = hashlib.blake2b(body, digest_size=16).hexdigest()
            response.headers.append((b"etag", f'"{digest}"'.encode()))
        return response

    return answer


def conditional(handler: Handler) -> Handler:
    """A step: a client that has a response already is answered 304 in its place."""

    async def answer(exchange: Exchange) -> Response:
        wanted, since = exchange.header(b"if-none-match"), exchange.header(b"if-modified-since")
        response = await handler(exchange)
        if (
            (wanted or since)
            and response.status == 200
            and exchange.method in ("GET", "HEAD")
            and _has(response, wanted, since)
        ):
            await response.drop()
            return Response(304, [pair for pair in response.headers if pair[0] not in _OF_A_BODY])
        return response

    return answer


def _has(response: Response, wanted: bytes, since: bytes) -> bool:
    """Whether the client has this response. If-None-Match counts before If-Modified-Since, and compares weakly."""
    if wanted:
        return is_among(response.header(b"etag"), wanted)
    modified = response.header(b"last-modified")
    try:
        return bool(modified) and parsedate_to_datetime(modified.decode()) <= parsedate_to_datetime(since.decode())
    except (ValueError, TypeError):
        return False


def is_among(tag: bytes, wanted: bytes) -> bool:
    """Whether an If-None-Match names an ETag, weak or strong."""
    found = _TAG.fullmatch(tag)
    return wanted.strip() == b"*" or (found is not None and found[1] in _TAG.findall(wanted))
