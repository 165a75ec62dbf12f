"""Connections that are given to another process, between two requests."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Connection, Exchange, Mount, Response
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.listener import Listener, Place

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Giving:
    """A port whose connections are offered after each request. `told`: whether each could be given."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.taken: list[socket.socket] = []
        self.files: int | None = None  # at most open, while one is offered

    async def answer(self, exchange: Exchange) -> Response:
        exchange.rests = self._offer
        return Response(200, [], b"")

    def _offer(self, connection: Connection) -> None:
        if self.files is not None:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, most))
        connection.give_away(self._take)

    def _take(self, given: socket.socket | None) -> bool:
        self.told.append(given is not None)
        if given is not None:
            self.taken.append(given.dup())
        return given is not None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        listener = Listener("127.0.0.1", 0)
        listener.serve("x", Place((Binding(ANY_HOST, (), Api(Mount("x", ""), [("$default", self.answer)])),)))
        await listener.open()
        reader, writer = await asyncio.open_connection(*listener.place)
        try:
            yield reader, writer
        finally:
            writer.close()
            for each in self.taken:
                each.close()
            await listener.close()


def test_a_connection_that_cannot_be_given_goes_on_where_it_is() -> None:
    giving = Giving()

    async def run() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with asyncio.timeout(5), giving.client() as (reader, writer):
            giving.files = 3  # lower than any file that would be opened
            try:
                for _ in range(2):
                    writer.write(REQUEST)
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                    await asyncio.sleep(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            giving.files = None
            assert giving.told == [False, False], "whoever is promised a connection is told that it does not come"
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.01)
            assert giving.told == [False, False, True]
            giving.taken[0].sendall(b"mine")
            assert await reader.readexactly(4) == b"mine"

    asyncio.run(run())
