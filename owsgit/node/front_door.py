"""The node's endpoint for AWS's SDKs over HTTP(S): the door (owsgit/aws/door.py) on a port of its own."""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial

from owsgit.aws.api import Api, Pieces, ServiceError
from owsgit.aws.audit import Audit
from owsgit.aws.door import BODY_BYTES_MAX, Arrival, Door, House
from owsgit.aws.eventstream import Encoded
from owsgit.aws.payload import STREAM_BYTES_MAX
from owsgit.aws.protocols.wire import Reply
from owsgit.aws.sigv4 import Request
from owsgit.gateway import pieces
from owsgit.gateway.certificates import Certificate
from owsgit.gateway.exchange import ClientGoneError, Exchange, Handler, RefusedError, Response
from owsgit.gateway.limits import Limits
from owsgit.gateway.listener import own_address
from owsgit.model.service import Site
from owsgit.node.door_processes import DoorProcesses
from owsgit.node.home import AUDIT_FOLDER
from owsgit.node.own_certificate import OwnCertificate
from owsgit.node.own_port import OwnPort
from owsgit.runtime import logs

OWNER = "aws"
LOOPBACK = "127.0.0.1"
IN_CLEAR = (
    "AWS's SDKs are answered at %s, port %d, without TLS: others on the way can read what is asked and answered, not "
    "change it or sign. Set awsTls in node.json, unless the network is private"
)
REQUEST_ID = b"x-amzn-requestid"
"""Every response of the listener's has it: here it is the one of the audit log, which may be another node's."""

TARGET = b"x-amz-target"
"""Names the operation, in the protocols that have it in a header."""

HEAD_BYTES_MAX = 64 * 1024
"""Session tokens stand in the head, and name every node of the project."""

WIRE_BYTES_MAX = STREAM_BYTES_MAX + STREAM_BYTES_MAX // 16
"""Of a body that is taken as it comes, with what frames its chunks."""

_CODES = {413: "RequestEntityTooLarge", 408: "RequestTimeout"}
"""What AWS calls bodies that are not read to their end. https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html"""


log = logging.getLogger("owsgit.node")


class FrontDoor:
    """Listens on `address` and `port`. With TLS, also without it on this machine alone: for functions, whose sandboxes
    reach the node and nobody in between."""

    def __init__(
        self,
        site: Site,
        apis: Iterable[Api],
        address: str,
        port: int,
        file: str,
        certificate: OwnCertificate | None = None,
        processes: DoorProcesses | None = None,
    ) -> None:
        """`file` is where the port is set; with a certificate it has TLS. `processes` take over connections of busy
        clients."""
        self._audit = Audit(site.home / AUDIT_FOLDER, site.neighbours.own)
        self._door = Door(apis, House(site.scope, site.credential, site.decide, site.neighbours, self._audit))
        self._certificate = certificate
        self._processes = processes
        if processes is not None:
            processes.serve(self._door.answer, self._audit, lambda: self._connections)
        self._port = OwnPort(address, port, file, "$.awsPort", tls=certificate is not None)
        self._inner = OwnPort(LOOPBACK, 0, file, "$.awsPort") if certificate is not None else None
        self._working: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Raises OwsgitError that names the setting."""
        routes: dict[str, Handler] = {"$default": self._answer}
        shown = self._certificate.read() if self._certificate is not None else None
        await self._port.open(OWNER, routes, limits(), shown)
        if self._inner is not None:
            await self._inner.open(OWNER, routes, limits())
        self._working.append(asyncio.ensure_future(logs.sweep_daily(self._audit.folder.parent, self._logs)))
        if self._certificate is not None and shown is not None:
            if self._processes is not None:
                self._processes.show(shown)
                self._port.elsewhere(self._processes.elsewhere)
            self._working.append(asyncio.ensure_future(self._certificate.watch(self._show)))
        elif not _is_loopback(self._port.address[0]):
            log.warning(IN_CLEAR, *self._port.address)

    def _show(self, certificate: Certificate) -> None:
        self._port.show(certificate)
        if self._processes is not None:
            self._processes.show(certificate)

    @property
    def _connections(self) -> int:
        """Those that this process has."""
        return self._port.connections + (self._inner.connections if self._inner is not None else 0)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._port.address

    @property
    def inner(self) -> tuple[str, int]:
        """Host and port on this machine, without TLS."""
        host, port = (self._inner or self._port).address
        return own_address(host), port

    def _logs(self) -> dict[str, logs.Swept]:
        return {self._audit.folder.name: self._audit}

    def _answer(self, exchange: Exchange) -> Awaitable[Response]:
        if self._processes is not None and exchange.header(TARGET) in self._processes.operations:
            exchange.rests = self._processes.consider
        return respond(self._door.answer, exchange)

    async def close(self) -> None:
        closing = [self._port.close()]
        if self._inner is not None:
            closing.append(self._inner.close())
        if self._processes is not None:
            closing.append(self._processes.close())
        await asyncio.gather(*closing)
        for task in self._working:
            task.cancel()
        self._audit.close()


async def respond(answer: Callable[[Arrival], Awaitable[Reply]], exchange: Exchange) -> Response:
    """What a door answers to an exchange of HTTP."""
    exchange.prompt = True  # writes that are committed together are answered one by one, and asked for again as one
    path, _, query = exchange.target.partition(b"?")
    arrival = Arrival(
        exchange.id,
        Request(exchange.method, path, query, exchange.headers),
        partial(_body, exchange),
        partial(_pieces, exchange),
        exchange.client.address,
        exchange.scheme == "https",
    )
    reply = await answer(arrival)
    body = reply.body
    headers = []
    for pair in reply.headers:
        if pair[0] == REQUEST_ID:
            exchange.id = pair[1].decode("latin-1")
        else:
            headers.append(pair)
    if type(body) is bytes and exchange.method != "HEAD":
        return Response(reply.status, headers, body)
    if not isinstance(body, bytes):  # or a silent stream would be held for nobody
        exchange.on_gone(partial(_close, body))
    return Response(reply.status, headers, body, reply.length)


async def _body(exchange: Exchange) -> bytes:
    try:
        return await exchange.read(BODY_BYTES_MAX)
    except (RefusedError, ClientGoneError) as error:
        raise _unread(error) from None


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces.received(exchange):
            yield piece
    except (RefusedError, ClientGoneError) as error:
        raise _unread(error) from None


def limits() -> Limits:
    """Of the door's ports."""
    return Limits(body_bytes=WIRE_BYTES_MAX, head_bytes=HEAD_BYTES_MAX)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unread(error: RefusedError | ClientGoneError) -> ServiceError:
    if isinstance(error, ClientGoneError):
        return ServiceError("RequestAborted", "The client went away.")
    return ServiceError(_CODES.get(error.status, "ServiceUnavailable"), error.message, status=error.status)


_closing: set[asyncio.Task[None]] = set()


def _close(body: Encoded | Pieces) -> None:
    task = asyncio.ensure_future(body.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
