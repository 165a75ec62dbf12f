"""A gateway of handlers, listening in an event loop of its own thread, and ways to talk to it."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx

from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Handler, Mount, Step
from owsgit.gateway.functions import FunctionIntegration
from owsgit.gateway.hosts import ANY_HOST, Binding
from owsgit.gateway.limits import Limits
from owsgit.gateway.listener import Listeners
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from tests.support.loops import end_tasks
from tests.support.nodes import free_port


class Echo:
    """A target: 'echo' answers with its event, 'say' with what the body says, others fail in their way."""

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        event = json.loads(invocation.payload)
        if name == "echo":
            return Answer(json.dumps({"statusCode": 200, "body": json.dumps(event)}).encode())
        if name == "say":
            return Answer(event["body"].encode())
        if name == "slow":
            await asyncio.sleep(30)
        if name == "gone":
            raise UnavailableError("not running")
        return Answer(b'{"errorType": "X"}', "Unhandled")

    def logs(self, name: str) -> Path:
        raise NotImplementedError


class Served:
    """A gateway in an event loop of its own thread."""

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self.port = free_port()
        self.loop = loop()
        self.listeners = Listeners("127.0.0.1")
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")
        self.serve({})

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def serve(self, routes: dict[str, tuple[str, str]], timeout: float = 5.0) -> None:
        """Routes to Echo's functions: by route key, the function and the payload format."""
        target = Echo()
        self.handle(
            [(key, FunctionIntegration(target, name, version, timeout)) for key, (name, version) in routes.items()]
        )

    def handle(
        self,
        routes: Iterable[tuple[str, Handler]],
        steps: Sequence[Step] = (),
        observers: Sequence[Step] = (),
        mount: Mount = Mount("api", "123456789012"),
        limits: Limits = Limits(),
    ) -> None:
        """Routes to handlers, whatever they are."""
        api = Api(mount, routes, steps, observers, limits)
        self.do(self.listeners.serve("api", self.port, [Binding(ANY_HOST, (), api)]))

    def close(self) -> None:
        self.client.close()
        self.do(self.listeners.close())
        self.do(end_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(data)
        pieces = b""
        try:
            while piece := client.recv(65536):
                pieces += piece
        except ConnectionError:
            pass
        return pieces
