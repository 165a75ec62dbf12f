"""The other nodes, for services: over the links that deciding uses."""

from collections.abc import Awaitable, Callable, Iterable

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Told
from owsgit.peers.links import Link

ANSWER_SECONDS_MAX = 5.0

RESTART_SECONDS = 20.0
BACK_SECONDS_MAX = 8.0
"""Who needs a node that was lost so lately waits for it, and so long: it may only be restarted."""

WAITING_MAX = 200
"""Who wait for nodes; what they have come with is held meanwhile."""


class LinkedNeighbours:
    """See owsgit.model.service.Neighbours."""

    def __init__(self, own: str, nodes: Callable[[], Iterable[str]], links: Callable[[], Iterable[Link]]) -> None:
        self._own, self._nodes, self._links = own, nodes, links
        self.topics: dict[str, Callable[[str, Told], Awaitable[Told]]] = {}
        self._waiting = 0

    @property
    def own(self) -> str:
        return self._own

    def others(self) -> list[str]:
        """Of the ledger, not of the links: those come after the first resources are applied, and who asks whether a
        table is on this node must not hear then that there is no other."""
        return [name for name in self._nodes() if name != self._own]

    async def ask(self, node: str, topic: str, told: Told) -> Told:
        for link in self._links():
            if link.member.name == node:
                fields = {"topic": topic, "fields": dict(told.fields)}
                frame = await link.request("service", fields, told.body, seconds=ANSWER_SECONDS_MAX)
                answered = frame.head.get("fields")
                return Told(answered if isinstance(answered, dict) else {}, frame.body)
        raise UnavailableError(f"there is no node {node}")

    async def await_back(self, node: str) -> None:
        for link in self._links():
            if link.member.name == node and link.was_lost_within(RESTART_SECONDS) and self._waiting < WAITING_MAX:
                self._waiting += 1
                try:
                    await link.wait_up(BACK_SECONDS_MAX)
                finally:
                    self._waiting -= 1

    def answer(self, topic: str, answer: Callable[[str, Told], Awaitable[Told]]) -> None:
        self.topics[topic] = answer
