"""Takes the connections of a port that is served with TLS.

A connection's first message is looked at before the handshake (see `hello`), then the handshake is made with what is
meant for its host, then it is handed to HTTP/2 or HTTP/1.1, whichever the client chose (ALPN, RFC 7301).
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

from owsgit.gateway import hello
from owsgit.gateway.hello import Hello, NotTlsError
from owsgit.gateway.secure_transport import SecureTransport
from owsgit.gateway.tls import ACME_PROTOCOL, Context, HandshakeError, Security

HANDSHAKE_SECONDS_MAX = 20.0
"""From a connection's start to the end of its handshake."""

HANDSHAKES_MAX = 1000
"""At once; further connections wait in the backlog."""

ALERT_SECONDS_MAX = 1.0
ALERT_READS_MAX = 8
"""How long, and how often, what a refused client sends is read."""

ACCEPTS_AT_ONCE_MAX = 64
UNSENT_BYTES_MAX = 64 * 1024
"""Of a connection, before whoever writes has to wait: without TLS the loops have the same bound, with it eight times as
much."""

SHUTDOWN_SECONDS_MAX = 24 * 3600.0
"""A bound that the loop wants; the one that counts is kept by SecureTransport."""

PAUSE_SECONDS = 1.0
"""When there are no file descriptors left."""

_UNRECOGNIZED_NAME = bytes((21, 3, 3, 0, 2, 2, 112))
"""The alert that says that a host name is not served here (RFC 6066 3)."""

log = logging.getLogger("owsgit.gateway")


class Greeter:
    """Makes the handshakes of connections, and hands them over to what was agreed on."""

    def __init__(self, security: Callable[[], Security], protocol: Callable[[str], asyncio.Protocol]) -> None:
        """`protocol` makes what speaks a protocol, by its ALPN name."""
        self._security, self._protocol = security, protocol
        self._loop = asyncio.get_running_loop()
        self._greeting: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Handshakes that are under way."""
        return len(self._greeting)

    def greet(self, connection: socket.socket, over: Callable[[], None] = lambda: None) -> None:
        """`over` is called when the handshake is over, in whatever way."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._greet(connection))
        self._greeting.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._greeting.discard(task)
            over()

        task.add_done_callback(ended)

    async def _greet(self, connection: socket.socket) -> None:
        taken = False
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                offered = await _peek(connection)
                context = self._security().choose(offered)
                if context is None:
                    connection.recv(hello.HELLO_BYTES_MAX)  # what is left unread would be answered with a reset
                    connection.send(_UNRECOGNIZED_NAME)
                    return
                with connection.dup() as kept:
                    taken = True  # the loop closes it from here on, and no alert is sent any more
                    try:
                        await self._shake(connection, context)
                    except HandshakeError as error:
                        await _alert(kept, error.alert)
        except (OSError, NotTlsError, TimeoutError, EOFError):  # ssl.SSLError is an OSError
            pass  # whoever it was is gone, or was told by an alert
        except Exception:
            log.exception("a handshake failed")
        finally:
            if not taken:
                connection.close()

    async def _shake(self, connection: socket.socket, context: Context) -> None:
        await self._loop.connect_accepted_socket(
            lambda: _Opening(self._protocol),
            connection,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
        )

    def close(self) -> None:
        """Handshakes that have begun are given up."""
        for task in self._greeting:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._greeting, return_exceptions=True)


class Door:
    """One listening socket. It looks like an asyncio.Server to uvicorn."""

    def __init__(
        self,
        listening: socket.socket,
        greeter: Greeter,
        full: Callable[[], bool],
        elsewhere: Callable[[socket.socket], bool],
    ) -> None:
        """`full`: no more connections are taken. `elsewhere` gets each, and says whether another process has it now."""
        self._listening, self._greeter, self._full, self._elsewhere = listening, greeter, full, elsewhere
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._waiting = False
        self._listen()

    def _listen(self) -> None:
        if self._open and not self._waiting:
            self._waiting = True
            self._loop.add_reader(self._listening, self._accept)

    def _pause(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_reader(self._listening)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE_MAX):
            if self._greeter.count >= HANDSHAKES_MAX:
                self._pause()
                return
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be taken: %s", error.strerror)
                self._pause()
                self._loop.call_later(PAUSE_SECONDS, self._listen)
                return
            if self._full() or self._elsewhere(connection):
                connection.close()
            else:
                self._greeter.greet(connection, self._listen)

    def close(self) -> None:
        """Take no more connections."""
        self._open = False
        self._pause()
        self._greeter.close()

    async def wait_closed(self) -> None:
        await self._greeter.wait_closed()


async def _peek(connection: socket.socket) -> Hello:
    """The client's first message, which stays to be read. Raises NotTlsError, EOFError, OSError."""
    needed = 5
    while True:
        # the kernel wakes this when there is as much, not for every byte
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
        await _readable(connection)
        data = connection.recv(hello.HELLO_BYTES_MAX, socket.MSG_PEEK)
        found = hello.read(data)
        if isinstance(found, Hello):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return found
        if len(data) < needed:
            raise EOFError
        needed = found


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


async def _alert(connection: socket.socket, alert: bytes) -> None:
    """Say why a handshake is refused. What the client has sent meanwhile is read: else it would get a reset, and not
    the alert (RFC 9112 9.6 has the same)."""
    loop = asyncio.get_running_loop()
    connection.send(alert)
    connection.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(ALERT_SECONDS_MAX):
        for _ in range(ALERT_READS_MAX):
            if not await loop.sock_recv(connection, hello.HELLO_BYTES_MAX):
                return


class _Opening(asyncio.Protocol):
    """A connection whose handshake is made: hands over to what was agreed on."""

    def __init__(self, protocol: Callable[[str], asyncio.Protocol]) -> None:
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = SecureTransport(cast(asyncio.Transport, transport))  # uvloop's are not of that class
        transport.set_write_buffer_limits(UNSENT_BYTES_MAX)
        secured: ssl.SSLObject = transport.get_extra_info("ssl_object")
        chosen = secured.selected_alpn_protocol() or ""
        if chosen == ACME_PROTOCOL:
            transport.close()
            return
        protocol = self._protocol(chosen)
        with contextlib.suppress(OSError):
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
