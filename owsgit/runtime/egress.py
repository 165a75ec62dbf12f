"""What a worker may reach of the network: hosts by name and port, each through a listener inside of its sandbox.

A worker's own network has nothing but its loopback. For each allowed host the node listens there, on an address of its
own to which the sandbox's /etc/hosts points, and passes on what comes. So TLS sees the host's own name, no address of
the machine can be reached, and what is not allowed does not exist.
"""

import asyncio
import ipaddress
import logging
import socket

from owsgit.runtime.config import Network
from owsgit.runtime.relay import pass_on

CONNECTIONS_MAX = 256
"""Of one worker: each costs the node two sockets."""

CONNECT_SECONDS_MAX = 10.0
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
log = logging.getLogger("owsgit.egress")


def split(allowed: str) -> tuple[str, int]:
    """'host:port' in its parts."""
    host, _, port = allowed.rpartition(":")
    return host, int(port)


def is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def inside(network: Network) -> tuple[list[tuple[str, int]], list[str], str]:
    """Where to listen in the sandbox for each allowed host, further addresses to have there, and /etc/hosts."""
    places: dict[str, str] = {}
    listen: list[tuple[str, int]] = []
    lines = []
    for allowed in network.allowed:
        host, port = split(allowed)
        if host not in places:
            number = len(places)
            places[host] = host if is_address(host) else f"127.1.{number // 250}.{number % 250 + 1}"
            if not is_address(host):
                lines.append(f"{places[host]} {host}\n")
        listen.append((places[host], port))
    addresses = [place for place in places.values() if not ipaddress.IPv4Address(place).is_loopback]
    return listen, addresses, "".join(lines) + HOSTS


def is_forbidden(address: str, network: Network) -> bool:
    """Whether nobody may be let through to an address: this machine itself, or a provider's metadata service."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_unspecified:
        return not network.loopback
    return found.is_link_local or found.is_multicast


class Egress:
    """Passes on the connections of one worker."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, listeners: list[socket.socket]) -> None:
        """Take what comes to `listeners`, one for each allowed host, in order."""
        for allowed, listener in zip(self._network.allowed, listeners, strict=True):
            host, port = split(allowed)

            async def accepted(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = host, port: int = port
            ) -> None:
                await self._accepted(reader, writer, host, port)

            self._servers.append(await asyncio.start_server(accepted, sock=listener))

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                there, back = await self._connect(host, port)
        except (OSError, TimeoutError) as error:
            log.info("%s:%s was not reached: %s", host, port, error)
            writer.transport.abort()
            return
        else:
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(pass_on(reader, back))
                    both.create_task(pass_on(there, writer))
            except* OSError:
                pass
            finally:
                writer.transport.abort()
                back.transport.abort()
        finally:
            self._connections.discard(task)

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Looked up here and connected to the very address that was looked at."""
        loop = asyncio.get_running_loop()
        problem: OSError = OSError("no address")
        for _, _, _, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if is_forbidden(str(address[0]), self._network):
                problem = OSError(f"{host} is at {address[0]}, which no function may reach")
                continue
            try:
                return await asyncio.open_connection(str(address[0]), port)
            except OSError as error:
                problem = error
        raise problem

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
