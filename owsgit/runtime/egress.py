"""What a worker may reach of the network: hosts by name and port, each through a listener inside of its sandbox.

A worker's own network has nothing but its loopback. For each allowed host the node listens there, on an address of its
own to which the sandbox's /etc/hosts points, and passes on what comes. So TLS sees the host's own name, no address of
the machine can be reached, and what is not allowed does not exist.
"""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from owsgit.model import addresses
from owsgit.runtime.config import Closing, Inner, Network
from owsgit.runtime.relay import pass_on

CONNECTIONS_MAX = 256
"""Of one worker: each costs the node two sockets."""

CONNECT_SECONDS_MAX = 10.0
OUTSIDE_SECONDS_MAX = 1.0
"""Of these, to reach a host outside for which this machine answers too."""

_PLACES = tuple(f"127.1.{number // 250}.{number % 250 + 1}" for number in range(500))
"""More than the hosts and the addresses that a function may name."""

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


@dataclass(frozen=True)
class Route:
    """An allowed host, and the address inside of the sandbox that leads to it; or what the node gives itself."""

    host: str
    port: int
    place: str
    inner: Inner | None = None


def routes(network: Network) -> list[Route]:
    """Each allowed host and port once, however often and in whatever letters it is written."""
    wanted = dict.fromkeys(split(allowed.lower()) for allowed in network.allowed)
    literal = {host for host, _ in wanted if is_address(host)}
    free = (place for place in _PLACES if place not in literal)
    places: dict[str, str] = {}
    for host, _ in wanted:
        if host not in places:
            places[host] = host if host in literal else next(free)
    own = {(inner.address, inner.port) for inner in network.inner}
    named = [
        Route(host, port, places[host])
        for host, port in wanted
        if host != "0.0.0.0" and (host, port) not in own  # noqa: S104 - leads nowhere
    ]
    return [*named, *(Route(inner.address, inner.port, inner.address, inner) for inner in network.inner)]


def inside(network: Network) -> tuple[list[tuple[str, int]], list[str], str]:
    """Where to listen in the sandbox for each route, further addresses to have there, and /etc/hosts."""
    found = routes(network)
    names = dict.fromkeys((each.place, each.host) for each in found if each.place != each.host)
    places = dict.fromkeys(each.place for each in found)
    further = [place for place in places if not ipaddress.IPv4Address(place).is_loopback]
    lines = [f"{place} {host}\n" for place, host in names]
    return [(each.place, each.port) for each in found], further, "".join(lines) + HOSTS


def is_forbidden(address: str, network: Network) -> bool:
    """Whether nobody may be let through to an address: this machine itself, or a provider's metadata service."""
    found = addresses.parsed(address)
    if found.is_loopback or found.is_unspecified:
        return not network.loopback
    return addresses.is_metadata(found) or (not network.loopback and _is_own(found))


def _is_own(address: addresses.Address) -> bool:
    """Whether it is of an interface of this machine: what is sent there has it as its source, too."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((str(address), 9))  # of UDP: nothing is sent
        except OSError:  # there is no way to it
            return False
        return addresses.parsed(asking.getsockname()[0]) == address


LOOKUPS_AT_ONCE = 16
LOOKUPS_OF_A_WORKER = 2
"""A lookup that is given up goes on in its thread: without bounds, a worker's would keep all others from theirs."""

_lookups = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="lookup")  # never the threads of the node itself


class Egress:
    """Passes on the connections of one worker."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._servers: list[Closing] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._at_home: set[tuple[str, int]] = set()  # what was not reached outside, and is answered here
        self._looking_up = asyncio.Semaphore(LOOKUPS_OF_A_WORKER)

    async def open(self, listeners: list[socket.socket]) -> None:
        """Take what comes to `listeners`, one for each route, in order."""
        for route, listener in zip(routes(self._network), listeners, strict=True):
            if route.inner is not None and route.inner.serve is not None:
                self._servers.append(route.inner.serve(listener))
                continue

            async def accepted(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: Route = route
            ) -> None:
                with contextlib.suppress(asyncio.CancelledError):  # the worker is gone: nothing to tell anybody
                    await self._accepted(reader, writer, route)

            self._servers.append(await asyncio.start_server(accepted, sock=listener))

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: Route) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                there, back = await self._connect(route)
        except (OSError, TimeoutError) as error:
            log.info("%s:%s was not reached: %s", route.host, route.port, error)
            return
        else:
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(pass_on(reader, back))
                    both.create_task(pass_on(there, writer))
            except* OSError:
                pass
            finally:
                back.transport.abort()
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _connect(self, route: Route) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if route.inner is not None and route.inner.to is not None:
            return await asyncio.open_connection(*route.inner.to())
        own = self._network.own(route.host, route.port)
        if own is None:
            return await self._connect_outside(route.host, route.port)
        place = route.host, route.port
        if place not in self._at_home:
            try:
                async with asyncio.timeout(OUTSIDE_SECONDS_MAX):
                    return await self._connect_outside(*place)
            except OSError:  # the name leads to this machine, or to a router that passes nothing back, or nowhere
                self._at_home.add(place)
        return await asyncio.open_connection(*own)

    async def _connect_outside(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Looked up here and connected to the very address that was looked at."""
        problem: OSError = OSError("no address")
        for _, _, _, _, address in await self._look_up(host, port):
            if is_forbidden(str(address[0]), self._network):
                problem = OSError(f"{host} is at {address[0]}, which no function may reach")
                continue
            try:
                return await asyncio.open_connection(str(address[0]), port)
            except OSError as error:
                problem = error
        raise problem

    async def _look_up(self, host: str, port: int) -> list[tuple[Any, ...]]:
        await self._looking_up.acquire()
        ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        asked: asyncio.Future[list[tuple[Any, ...]]]
        asked = asyncio.get_running_loop().run_in_executor(_lookups, ask)
        asked.add_done_callback(self._looked_up)
        return await asyncio.shield(asked)

    def _looked_up(self, asked: "asyncio.Future[list[tuple[Any, ...]]]") -> None:
        """Its thread is free now, whether anyone still waits for the answer or not."""
        self._looking_up.release()
        if not asked.cancelled():
            asked.exception()

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
