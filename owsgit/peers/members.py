"""The nodes that a state names, as voters and as neighbours."""

from collections.abc import Mapping
from dataclasses import dataclass

from owsgit.model import keys
from owsgit.model.core import NodeSpec
from owsgit.model.keys import SshKey
from owsgit.model.state import State
from owsgit.peers.paxos import Electorate


@dataclass(frozen=True)
class Member:
    """A node as the ledger names it. `id`, its key's fingerprint, is who it is: a name may get another key."""

    id: str
    name: str
    key: SshKey
    address: str
    port: int


def of(state: State) -> Mapping[str, Member]:
    """The nodes of `state`, by id."""
    found = {}
    for node in state.of_kind("node"):
        assert isinstance(node.spec, NodeSpec)
        key = keys.parse_ssh(node.spec.key)
        found[key.fingerprint] = Member(key.fingerprint, node.name, key, node.spec.address, node.spec.ports.ssh)
    return found


def electorate(state: State, lost: frozenset[str] | None = None) -> Electorate:
    """Who decides the successor of the head that `state` is at; after a recovery, those who are not `lost`."""
    ids = of(state).keys()
    return Electorate.majority(ids) if lost is None else Electorate.survivors(ids - lost)
