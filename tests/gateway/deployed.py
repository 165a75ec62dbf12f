"""A gateway as a node deploys it: its file, applied by the handler of gateways, in front of small real functions."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx

from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.services.gateways import KIND
from owsgit.services.gateways.handler import GatewayHandler
from owsgit.services.gateways.spec import GatewaySpec
from tests.gateway.served import Echo
from tests.support.nodes import free_port


def site(home: Path) -> Site:
    return Site(
        home=home,
        listen="127.0.0.1",
        scope=lambda: Scope("us-east-1", "1" * 12),
        read_files=lambda tree: [],
        targets={"function": Echo()},  # type: ignore[dict-item]
        settings={},
        unseal=lambda resource: None,  # type: ignore[arg-type,return-value]
    )


async def _made(site: Site) -> GatewayHandler:
    return GatewayHandler(site)  # within the loop in which it runs


class Deployed:
    """A GatewayHandler in an event loop of its own thread; functions are those of Echo."""

    def __init__(self, home: Path, spec: dict[str, Any]) -> None:
        """`spec` without its port."""
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.handler = self.do(_made(site(home)))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")
        self.apply(spec)

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def apply(self, spec: dict[str, Any]) -> None:
        file = KIND.file("api")
        parsed = GatewaySpec.parse(json.dumps({"port": self.port, **spec}).encode(), file)
        self.do(self.handler.apply(Resource(KIND, "api", parsed, "0" * 40), "0" * 40))

    def close(self) -> None:
        self.client.close()
        self.do(self.handler.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
