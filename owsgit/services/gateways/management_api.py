"""API Gateway's management API behind the front door: what @connections of every WebSocket API does, at one address.

That address says nothing of an API or a stage: the connection itself does, and so its node decides who may do it.
https://docs.aws.amazon.com/apigatewaymanagementapi/latest/developerguide/
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from owsgit.aws.api import Caller, Need, ServiceError
from owsgit.gateway.socket_api import CONNECTIONS, KINDS
from owsgit.gateway.sockets import MESSAGE_BYTES_MAX, Connections, node_of
from owsgit.model.iam.decision import ResourcePolicy
from owsgit.model.service import Site
from owsgit.services.gateways.authorization import MANAGE, call_arn

METHODS = {"PostToConnection": "POST", "GetConnection": "GET", "DeleteConnection": "DELETE"}

_TOLD = {
    410: "The connection is gone.",
    413: f"A message has at most {MESSAGE_BYTES_MAX:,} bytes.",
    429: "The client has not taken what was sent to it before: send again later.",
}


class ManagementApi:
    """The operations."""

    service = "apigatewaymanagementapi"
    data_events = frozenset(METHODS)

    def __init__(self, site: Site, connections: Connections, policy: Callable[[str], ResourcePolicy | None]) -> None:
        """`policy` is that of a gateway, by its name."""
        self._site, self._connections, self._policy = site, connections, policy

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        """Nothing for what another node has, which decides about it as this one does about its own."""
        if len(parameters.get("Data", b"")) > MESSAGE_BYTES_MAX:
            raise _error(413)
        connection = self._connections.find(parameters["ConnectionId"])
        if connection is None:
            if self.home(operation, parameters) is None:
                raise _error(410)
            return ()
        mount = connection.mount
        arn = call_arn(self._site.scope(), mount, f"{METHODS[operation]}/{CONNECTIONS}/{connection.id}")
        return (Need(MANAGE, arn, policy=self._policy(mount.api), refusal=KINDS[403]),)

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        """None also for a node that is no longer the project's: its connections are gone."""
        node = node_of(parameters["ConnectionId"])
        return node if node in self._site.neighbours.others() else None

    async def post_to_connection(self, caller: Caller, *, connection_id: str, data: bytes) -> None:
        await self._manage("POST", connection_id, data)

    async def get_connection(self, caller: Caller, *, connection_id: str) -> Mapping[str, Any]:
        shown = orjson.loads(await self._manage("GET", connection_id))
        identity = shown["identity"]
        return {
            "ConnectedAt": datetime.fromisoformat(shown["connectedAt"]),
            "LastActiveAt": datetime.fromisoformat(shown["lastActiveAt"]),
            "Identity": {"SourceIp": identity["sourceIp"], "UserAgent": identity["userAgent"]},
        }

    async def delete_connection(self, caller: Caller, *, connection_id: str) -> None:
        await self._manage("DELETE", connection_id)

    async def _manage(self, method: str, connection_id: str, body: bytes = b"") -> bytes:
        """Of a connection of this node. Raises ServiceError."""
        connection = self._connections.find(connection_id)
        if connection is None:
            raise _error(410)
        outcome = await self._connections.manage(method, connection.mount, connection_id, body)
        if outcome.status in KINDS:
            raise _error(outcome.status)
        return outcome.body


def _error(status: int) -> ServiceError:
    return ServiceError(KINDS[status], _TOLD[status], status=status)
