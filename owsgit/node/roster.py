"""All nodes of a project as one of them sees them, and what somebody has to do something about."""

import asyncio
from typing import Any

from owsgit.ledger.ledger import Ledger
from owsgit.model.core import NodeSpec
from owsgit.model.errors import OwsgitError
from owsgit.model.state import State
from owsgit.node.home import Home, NodeSettings
from owsgit.peers.council import Council
from owsgit.peers.statuses import NodeStatus
from owsgit.reconcile.inventory import now
from owsgit.services.secrets import watch

LOOK_AROUND_SECONDS = 1.0
"""How long a status waits for the other nodes to say how they are."""


class Roster:
    """For status."""

    def __init__(self, home: Home, settings: NodeSettings, key: str, ledger: Ledger, council: Council) -> None:
        """`key` is the fingerprint of this node's."""
        self._home, self._settings, self._key = home, settings, key
        self._ledger, self._council = ledger, council

    async def rows(self) -> list[dict[str, Any]]:
        """All nodes of the project, as this one sees them."""
        await self._council.look_around(LOOK_AROUND_SECONDS)
        found = [self._node_row(self._council.own_status().status, self._key, True, now(), "", 0)]
        for id_, link in self._council.links().items():
            seen = self._council.seen[id_]
            status = seen.status.status if seen.status is not None else None
            behind = await self._behind(status.head if status is not None else None)
            row = self._node_row(status, id_, link.up, seen.contact, link.problem or seen.problem, behind)
            found.append({**row, "node": link.member.name, "address": f"{link.member.address}:{link.member.port}"})
        found[0]["address"] = f"{self._settings.address}:{self._settings.ssh_port}"
        return sorted(found, key=lambda row: str(row["node"]))

    @staticmethod
    def _node_row(
        status: NodeStatus | None, id_: str, up: bool, contact: str, problem: str, behind: int | None
    ) -> dict[str, Any]:
        return {
            "node": status.node if status else "",
            "id": id_,
            "reachable": up,
            "head": status.head if status else None,
            "behind": behind,
            "applied": status.applied if status else None,
            "failed": list(status.failed) if status else [],
            "lastContact": contact,
            "version": status.version if status else None,
            "problem": problem or (status.problem if status else ""),
        }

    async def _behind(self, head: str | None) -> int | None:
        """By how many commits another node is behind this one; None if that is not known, or if it is ahead."""
        mine = self._ledger.head
        if head is None or mine is None:
            return None
        if head == mine.commit:
            return 0
        try:
            return await asyncio.to_thread(self._ledger.repository.count_between, head, mine.commit)
        except OwsgitError:
            return None

    def warnings(self) -> list[str]:
        """What somebody has to do something about."""
        head = self._ledger.head
        state = head.state if head is not None else None
        secrets = watch.standings(state) if state is not None else ()
        return [
            *([lack] if (lack := self._home.lack()) else []),
            *self._own_warnings(state),
            *(f"{each.resource.file}: {each.problem}" for each in secrets if each.problem),
        ]

    def _own_warnings(self, state: State | None) -> list[str]:
        """Where the ledger and this machine's settings say different things."""
        mine = state.holder("key", self._key) if state else None
        if mine is None or not isinstance(mine.spec, NodeSpec):
            if state is None:
                return []
            if self._council.problem:  # removed; the problem says so
                return ["it serves nothing; stop it, or add it to the ledger again"]
            show = f"owsgit node show --home {self._home.folder}"
            return [f"the ledger does not name this node yet, so it serves nothing: commit what {show} prints"]
        if self._council.abstains:
            return ["restored from a backup: it only follows until the others have decided two more heads"]
        if mine.spec.ports.ssh != self._settings.ssh_port or mine.spec.address != self._settings.address:
            told = f"{mine.spec.address}:{mine.spec.ports.ssh}"
            own = f"{self._settings.address}:{self._settings.ssh_port}"
            return [f"{mine.file} says {told}, but this node is at {own}: change the one or {self._home.settings_file}"]
        return []
