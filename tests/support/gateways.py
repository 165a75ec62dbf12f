"""Gateways of a project without nodes around it: deployed by their own handler, decided on by a real state."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from owsgit.aws import credentials
from owsgit.aws.credentials import Desk, Given, Holder
from owsgit.model import keys
from owsgit.model.change import Change
from owsgit.model.iam.decision import Decision, Session
from owsgit.model.resource import Resource
from owsgit.model.service import Alone, Credential, Neighbours, Site
from owsgit.model.state import State
from owsgit.services import KINDS
from owsgit.services.gateways.handler import GatewayHandler
from tests.gateway.served import Echo
from tests.support.nodes import free_port


class Key:
    """An Ed25519 key, as nodes and users have them."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        self.line = self.private.public_key().public_bytes(*openssh).decode()
        self.public = keys.parse_ssh(self.line)
        self.pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )


class Account:
    """A project with the nodes a and b, the root alice, and bob; its state can be changed as the ledger would."""

    def __init__(self) -> None:
        self.nodes = {"a": Key(), "b": Key()}
        self.users = {"alice": Key(), "bob": Key()}
        self.state = State.empty(KINDS).born("ab" * 20)
        files: dict[tuple[str, str], Any] = {("project", ""): {"name": "shop", "roots": ["alice"]}}
        files |= {("node", name): {"key": key.line, "address": f"{name}.test"} for name, key in self.nodes.items()}
        files |= {("user", name): {"keys": [key.line]} for name, key in self.users.items()}
        self.change(files)
        self.desk = self.desk_of("b")

    def desk_of(self, node: str) -> Desk:
        return Desk(self.nodes[node].pem, lambda: self.state, self.user_of)

    def user_of(self, fingerprint: str) -> str | None:
        holder = self.state.holder("key", fingerprint)
        return holder.name if holder is not None and holder.kind.name == "user" else None

    def change(self, files: dict[tuple[str, str], Any]) -> None:
        """Documents by kind and name; None deletes."""
        changes = []
        for (kind, name), document in files.items():
            before = self.state.get(kind, name)
            changes.append(Change(before, self.resource(kind, name, document) if document is not None else None))
        self.state = self.state.after(changes)

    def resource(self, kind: str, name: str, document: Any) -> Resource:
        found = KINDS[kind]
        return Resource(found, name, found.spec.parse(json.dumps(document).encode(), found.file(name)), "0" * 40)

    def give(self, user: str, node: str = "a", session: Session | None = None, now: float | None = None) -> Given:
        key = self.nodes[node]
        holder = Holder(user, self.users[user].public.fingerprint, session)
        return credentials.give(holder, key.private, key.public, self.state, time.time() if now is None else now)


class Gateways:
    """A handler of gateways in an event loop of its own thread."""

    def __init__(self, home: Path, account: Account, neighbours: Neighbours | None = None) -> None:
        self.account = account
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = free_port()
        self.site = site = Site(
            home=home,
            listen="127.0.0.1",
            scope=lambda: account.state.scope,
            read_files=lambda tree: (),
            targets={"function": Echo()},  # type: ignore[dict-item]
            settings={},
            unseal=lambda resource: None,  # type: ignore[arg-type,return-value]
            decide=self._decide,
            credential=self._credential,
            neighbours=neighbours or Alone(),
        )
        self.handler = self.do(self._made(lambda: GatewayHandler(site)))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}")

    def _decide(self, *given: Any) -> Decision:
        return self.account.state.decide_call(*given)

    def _credential(self, token: str) -> Credential:
        return self.account.desk.check(token)

    async def _made(self, make: Callable[[], GatewayHandler]) -> GatewayHandler:
        return make()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def serve(self, **document: Any) -> None:
        """Deploy the gateway `api`."""
        resource = self.account.resource("gateway", "api", {"port": self.port, **document})
        self.do(self.handler.apply(resource, "0" * 40))

    def close(self) -> None:
        self.client.close()
        self.do(self.handler.close())
        self.loop.call_soon_threadsafe(self.loop.stop)


def deployed(home: Path, **document: Any) -> Gateways:
    """A handler of gateways with the gateway `api`, of a project of its own."""
    made = Gateways(home, Account())
    made.serve(**document)
    return made
