"""Exchanges that come by ASGI."""

import asyncio
from typing import Any

from owsgit.gateway import asgi
from owsgit.gateway.exchange import Client, Exchange, Response
from owsgit.gateway.limits import DEFAULT, Connections

SCOPE: dict[str, Any] = {
    "type": "http", "method": "POST", "path": "/a", "query_string": b"", "headers": [(b"Host", b"x")],
    "http_version": "2",
}  # fmt: skip


class Waiting:
    """An application that answers when its client has left, or at once."""

    limits = DEFAULT
    connections = Connections()

    websockets = None

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self.body = b""

    async def handle(self, exchange: Exchange) -> Response:
        left = asyncio.Event()
        exchange.on_gone(left.set)
        self.body = await exchange.read()
        if self.waits:
            await left.wait()
        return Response(200, [], b"")


async def serve(application: Waiting, *messages: dict[str, Any]) -> list[Any]:
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for message in messages:
        incoming.put_nowait(message)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(10):
        await asgi.serve(application, SCOPE, incoming.get, send, Client("127.0.0.1"))
    return sent


def test_a_client_that_leaves_after_its_request_is_noticed() -> None:
    pieces = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
    application = Waiting(waits=True)
    asyncio.run(serve(application, *pieces, {"type": "http.disconnect"}))
    assert application.body == b"ab"


def test_nobody_waits_for_it_when_the_response_is_over() -> None:
    async def run() -> None:
        sent = await serve(Waiting(waits=False), {"type": "http.request", "body": b""})
        assert sent[0]["status"] == 200
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
