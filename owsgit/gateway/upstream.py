"""The integration with another HTTP service: requests and responses are passed on as they come, in both directions."""

import asyncio
import errno
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from owsgit.gateway import pieces
from owsgit.gateway.exchange import BrokenError, ClientGoneError, Exchange, Headers, RefusedError, Response
from owsgit.gateway.template import PathTemplate
from owsgit.model import addresses

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

CONNECTIONS_MAX = 1024
"""Of a node to all the services behind its gateways; further requests wait for one."""

CONNECTIONS_EACH_MAX = 256
"""To one host and port."""

HEADER_BYTES_MAX = 64 * 1024
"""Of one header of a response."""

PIECE_BYTES = 256 * 1024
"""Of a response, that are read ahead of a slow client."""

REPLAY_BYTES_MAX = 1024 * 1024
"""Of a body that is kept so that the request can be made again; a longer one is streamed, and not repeated."""

RETRY_SECONDS = 0.05
"""Before the first retry; twice as long before each further one."""

LOOPS_MAX = 8
"""How often a request may pass gateways on its way, before it is taken for one that goes round."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""RFC 9110 9.2.2."""

_NAMED = "1.1 owsgit"
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_OWN = frozenset(
    {b"host", b"expect", b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}
)
"""Headers that a proxy writes itself."""

_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

log = logging.getLogger("owsgit.gateway")


def is_forbidden(address: str) -> bool:
    """Whether no gateway connects there: where providers tell a machine its credentials, and what is no address of one
    host."""
    try:
        found = addresses.parsed(address)
    except ValueError:
        return False
    return addresses.is_metadata(found) or found.is_unspecified


class Upstreams:
    """The connections of a node to the services behind its gateways: one pool, made when it is first needed."""

    def __init__(self) -> None:
        self._session: ClientSession | None = None

    @property
    def session(self) -> "ClientSession":
        if self._session is None:
            self._session = _session()
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _session() -> "ClientSession":
    import aiohttp  # noqa: PLC0415 - 15 MiB that a node without such a route does without
    from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415 - as above

    class Guarded(AbstractResolver):
        """Names that lead where no gateway connects lead nowhere."""

        def __init__(self) -> None:
            self._inner = aiohttp.ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = [each for each in await self._inner.resolve(host, port, family) if not is_forbidden(each["host"])]
            if not found:
                raise OSError(errno.EADDRNOTAVAIL, f"{host} is at no address that a gateway may connect to")
            return found

        async def close(self) -> None:
            await self._inner.close()

    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_EACH_MAX, resolver=Guarded())
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_field_size=HEADER_BYTES_MAX,
        read_bufsize=PIECE_BYTES,
    )


@dataclass(frozen=True)
class Upstream:
    """Where requests go, and how. `timeout` (seconds) is the longest silence: before the response, and within it."""

    uri: PathTemplate
    method: str | None = None  # None: the client's
    timeout: float = 29.0
    connect_timeout: float = 5.0
    retries: int = 0
    preserve_host: bool = False
    tls: "ssl.SSLContext | bool" = True  # False: certificates are not verified


class HttpIntegration:
    """Passes requests on to an upstream."""

    def __init__(self, upstreams: Upstreams, upstream: Upstream) -> None:
        self._upstreams, self._upstream = upstreams, upstream

    async def __call__(self, exchange: Exchange) -> Response:
        upstream = self._upstream
        call = _Call(self._upstreams.session, upstream, exchange)
        for attempt in range(upstream.retries + 1):
            try:
                return await call.make()
            except _AgainError as again:
                if attempt == upstream.retries:
                    raise again.refusal from None
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        raise AssertionError


class _AgainError(Exception):
    """It failed in a way that allows another attempt."""

    def __init__(self, refusal: RefusedError) -> None:
        super().__init__()
        self.refusal = refusal


class _Call:
    """One request, in one or more attempts."""

    def __init__(self, session: "ClientSession", upstream: Upstream, exchange: Exchange) -> None:
        self._session, self._upstream, self._exchange = session, upstream, exchange
        self._method = upstream.method or exchange.method
        self._headers: list[tuple[str, str]] = []
        self._body: bytes | None = None
        self._first = b""
        self._pieces: AsyncIterator[bytes] = pieces.received(exchange)
        self._began = self._sent = False  # a body that cannot be sent again
        self._upload_error: BaseException | None = None
        self._left = False
        self._deadline: asyncio.Timeout | None = None

    async def make(self) -> Response:
        """One attempt. Raises _AgainError, RefusedError, ClientGoneError."""
        import aiohttp  # noqa: PLC0415 - loaded with the session
        from yarl import URL  # noqa: PLC0415 - comes with aiohttp

        exchange, upstream = self._exchange, self._upstream
        if not self._began:
            await self._prepare()
        uri = upstream.uri.fill(exchange)
        if exchange.query:
            uri += ("&" if "?" in uri else "?") + exchange.query
        exchange.on_gone(self._leave)
        try:
            async with asyncio.timeout(upstream.timeout + upstream.connect_timeout) as self._deadline:
                response = await self._session.request(
                    self._method,
                    URL(uri, encoded=True),
                    headers=self._headers,
                    data=self._data(),
                    ssl=upstream.tls,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None, connect=upstream.connect_timeout, sock_read=upstream.timeout
                    ),
                )
        except (TimeoutError, aiohttp.ClientError, ValueError, OSError) as error:
            raise self._failure(error) from None
        finally:
            self._deadline = None
            exchange.on_gone(None)
        return await self._passed_on(response)

    def _leave(self) -> None:
        self._left = True
        self._reschedule(0)

    def _reschedule(self, when: float) -> None:
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(when)

    async def _prepare(self) -> None:
        """Headers and body, before the first attempt."""
        exchange, upstream = self._exchange, self._upstream
        self._headers = forwarded(exchange, preserve_host=upstream.preserve_host)
        announced = exchange.header(b"content-length")
        short = announced.isdigit() and int(announced) <= REPLAY_BYTES_MAX
        if short and upstream.retries and self._method in IDEMPOTENT:
            self._body = await exchange.read()
        elif announced != b"0":  # from HTTP/2 on, and after a step that decoded it, nothing need announce a body
            self._first = await anext(self._pieces, b"")
        self._began = True

    def _data(self) -> Any:
        return self._body or (self._upload() if self._first else None)

    async def _upload(self) -> AsyncIterator[bytes]:
        self._sent = True
        try:
            yield self._first
            async for piece in self._pieces:
                if not self._left:
                    self._reschedule(asyncio.get_running_loop().time() + self._upstream.timeout)
                yield piece
        except (ClientGoneError, RefusedError) as error:
            self._upload_error = error
            raise

    def _failure(self, error: Exception) -> Exception:
        import aiohttp  # noqa: PLC0415 - loaded with the session

        if self._left:
            return ClientGoneError()
        if self._upload_error is not None:
            return self._upload_error if isinstance(self._upload_error, Exception) else ClientGoneError()
        self._note(error)
        nothing_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        if isinstance(error, TimeoutError):
            refusal = RefusedError(504, "Endpoint request timed out", "INTEGRATION_TIMEOUT")
        elif nothing_sent:
            refusal = RefusedError(503, "Service Unavailable", "INTEGRATION_FAILURE")
        else:
            refusal = RefusedError(502, "Bad Gateway", "INTEGRATION_FAILURE")
        lost = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
        if nothing_sent or (lost and self._method in IDEMPOTENT and not self._sent):
            return _AgainError(refusal)
        return refusal

    def _note(self, error: Exception) -> None:
        exchange = self._exchange
        text = f"{type(error).__name__}: {error}"[:300]
        log.warning("%s %s: the service behind it: %s", exchange.mount.api, exchange.route_key, text)
        exchange.facts["integration.error"] = text

    async def _passed_on(self, response: "ClientResponse") -> Response:
        headers = returned(response.raw_headers)
        status = response.status
        if headers is None or not 200 <= status <= 599:
            response.close()
            self._note(ValueError(f"status {status}, or headers that are none"))
            raise RefusedError(502, "Bad Gateway", "INTEGRATION_FAILURE")
        self._exchange.facts["integration.status"] = status
        length = response.content_length
        if response.content.is_eof():  # all of it came with its head
            return Response(status, headers, await response.read(), length if self._method == "HEAD" else None)
        return Response(status, headers, _Streamed(self, response), length)

    async def stream(self, response: "ClientResponse") -> AsyncIterator[bytes]:
        import aiohttp  # noqa: PLC0415 - loaded with the session

        def leave() -> None:
            self._left = True
            response.close()

        self._exchange.on_gone(leave)
        try:
            while piece := await response.content.readany():
                yield piece
            response.release()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if self._left:
                raise ClientGoneError from None
            self._note(error)
            raise BrokenError from None
        finally:
            self._exchange.on_gone(None)
            response.close()  # of no effect once it was released


class _Streamed:
    """The body of a response. It is closed with the upstream's connection, also if nobody has begun to read it."""

    def __init__(self, call: _Call, response: "ClientResponse") -> None:
        self._response = response
        self._pieces = call.stream(response)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        self._response.close()
        await self._pieces.aclose()  # type: ignore[attr-defined]


def _dropped(headers: Headers) -> frozenset[bytes]:
    """What goes no further than this connection (RFC 9110 7.6.1)."""
    named = [value for name, value in headers if name == b"connection"]
    if not named:
        return _HOP_BY_HOP
    return _HOP_BY_HOP | {each.strip().lower() for value in named for each in value.split(b",")}


def forwarded(exchange: Exchange, *, preserve_host: bool) -> list[tuple[str, str]]:
    """The headers for an upstream. Raises RefusedError for a request that goes round in circles.

    A client's own X-Forwarded-For and Forwarded are kept, and what this gateway saw is added at the end, as all
    proxies do: only as many of the last entries can be trusted as there are trusted proxies.
    """
    before: dict[bytes, str] = {}  # of the headers that a proxy writes itself, what came
    headers: list[tuple[str, str]] = []
    dropped = _dropped(exchange.headers)
    for name, value in exchange.headers:
        if name in _OWN:
            before[name] = _after(before.get(name, ""), _text(value))
        elif name not in dropped:
            headers.append((_text(name), _text(value)))
    via = before.get(b"via", "")
    if via.count(_NAMED) >= LOOPS_MAX:
        raise RefusedError(508, "Loop Detected", "INTEGRATION_FAILURE")
    host, address = _text(exchange.header(b"host")), exchange.client.address
    node = f'"[{address}]"' if ":" in address else address or "unknown"
    element = f'for={node};host="{_quoted(host)}";proto={exchange.scheme}'
    headers += [
        ("x-forwarded-for", _after(before.get(b"x-forwarded-for", ""), address)),
        ("x-forwarded-proto", exchange.scheme),
        ("x-forwarded-host", host),
        ("forwarded", _after(before.get(b"forwarded", ""), element)),
        ("via", _after(via, _NAMED)),
    ]
    if preserve_host and host:
        headers.append(("host", host))
    return headers


def returned(raw: tuple[tuple[bytes, bytes], ...]) -> Headers | None:
    """The headers for the client; None if one of them is no header."""
    headers = [(name.lower(), value) for name, value in raw]
    dropped = _dropped(headers) | {b"content-length"}
    kept = [pair for pair in headers if pair[0] not in dropped and pair[0] != b"via"]
    if not all(_VALUE.fullmatch(value) for _, value in kept):
        return None
    via = ", ".join(_text(value) for name, value in headers if name == b"via")
    return [*kept, (b"via", _after(via, _NAMED).encode())]


def _after(before: str, added: str) -> str:
    return f"{before}, {added}" if before else added


def _quoted(host: str) -> str:
    return host.replace("\\", "").replace('"', "")


def _text(value: bytes) -> str:
    """As text that is written as the same bytes again; bytes that are not UTF-8 are taken for Latin-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
