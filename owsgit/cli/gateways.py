"""What the commands of `owsgit gateway` share: the gateways of the working tree, or of a node."""

from collections.abc import Iterable
from pathlib import Path

from owsgit.cli import remote
from owsgit.ledger import verify
from owsgit.ledger.repository import Clone
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.spec import nearest
from owsgit.model.state import GENESIS_UNKNOWN, State
from owsgit.reconcile import inventory
from owsgit.services import KINDS
from owsgit.services.gateways.spec import GatewaySpec


def working_tree() -> State:
    """The working tree of the clone that the command runs in. Raises OwsgitError."""
    clone = Clone(Path())
    head = clone.head()
    genesis = clone.genesis(head) if head else GENESIS_UNKNOWN
    with clone.snapshot() as (objects, tree):
        return verify.load_tree(objects, KINDS, genesis, tree)


def of(state: State) -> dict[str, GatewaySpec]:
    """The gateways of a state, by name."""
    return _specs(state.of_kind("gateway"))


def of_node(name: str) -> dict[str, GatewaySpec]:
    """The gateways that a node has applied."""
    lines = remote.find(Clone(Path()), name).call("applied").splitlines()
    resources = [inventory.restore(KINDS, line.decode()) for line in lines]
    return _specs(resource for resource in resources if resource is not None and resource.kind.name == "gateway")


def _specs(resources: Iterable[Resource]) -> dict[str, GatewaySpec]:
    return {each.name: each.spec for each in resources if isinstance(each.spec, GatewaySpec)}


def one(gateways: dict[str, GatewaySpec], name: str) -> GatewaySpec:
    """Raises InvalidError if there is none of that name."""
    if name not in gateways:
        raise InvalidError(f"there is no gateway {name!r}", remedy=nearest(name, gateways, "gateway", "gateways"))
    return gateways[name]


def http(gateways: dict[str, GatewaySpec], name: str | None = None) -> dict[str, GatewaySpec]:
    """Those that are HTTP APIs. Raises InvalidError if `name` is given and is none of them."""
    if name is not None and one(gateways, name).protocol == "WEBSOCKET":
        raise InvalidError(
            f"the gateway {name!r} is a WebSocket API: it has no requests of HTTP to test, and no OpenAPI document",
            remedy=f"owsgit gateway routes {name} lists its routes",
        )
    return {key: spec for key, spec in gateways.items() if spec.protocol != "WEBSOCKET"}
