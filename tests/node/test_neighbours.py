"""The other nodes, as services know them."""

import asyncio
import time
from typing import Any

import pytest

from owsgit.node import neighbours
from owsgit.node.neighbours import LinkedNeighbours
from owsgit.peers.links import Link
from owsgit.peers.members import Member


def test_the_other_nodes_are_those_of_the_ledger_also_while_there_are_no_links() -> None:
    """A node that has just started has none, and is not alone: it would take the tables of others for its own."""
    known = LinkedNeighbours("b", lambda: ["a", "b", "c"], list)
    assert known.others() == ["a", "c"]


def test_a_node_that_was_lost_a_moment_ago_is_waited_for_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BACK_SECONDS_MAX", 0.2)
    nothing: Any = None

    async def waited(link: Link, *, back_after: float | None = None) -> float:
        if back_after is not None:
            asyncio.get_running_loop().call_later(back_after, link._up.set)
        began = time.monotonic()
        await LinkedNeighbours("b", lambda: ["a", "b"], lambda: [link]).await_back("a")
        return time.monotonic() - began

    async def main() -> None:
        link = Link(nothing, Member("id", "a", nothing, "192.0.2.1", 1), nothing)
        assert await waited(link) < 0.1, "it was never there"
        link._up.set()
        assert await waited(link) < 0.1, "it is there"
        link._down()
        assert await waited(link) >= 0.2, "it may be back"
        assert await waited(link, back_after=0.02) < 0.2 and link.up
        link._down()
        monkeypatch.setattr(neighbours, "WAITING_MAX", 0)
        assert await waited(link) < 0.1, "enough wait already"
        monkeypatch.setattr(neighbours, "WAITING_MAX", 1)
        monkeypatch.setattr(neighbours, "RESTART_SECONDS", 0.0)
        assert await waited(link) < 0.1, "it is gone for longer"

    asyncio.run(main())
