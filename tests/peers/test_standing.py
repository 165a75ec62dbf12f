"""What a node's parts share: what is forgotten after a move, and what never is."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from owsgit.ledger.repository import Repository
from owsgit.node.node import hooks_folder
from owsgit.peers import standing, transfer
from owsgit.peers.paxos import Ballot, Seat, Vote
from owsgit.peers.standing import Standing
from owsgit.peers.store import Store

NODE = "SHA256:" + "a" * 43
OLD, NEW, NEXT = "1" * 40, "2" * 40, "3" * 40


class Ledger:
    """A ledger that is at a head, and nothing else."""

    def __init__(self, repository: Repository, head: str) -> None:
        self.repository = repository
        self.head = SimpleNamespace(commit=head)

    def head_is_not(self, commit: str) -> bool:
        return bool(self.head.commit != commit)


def made(tmp_path: Path, head: str) -> Standing:
    own: Any = SimpleNamespace(id=NODE, key=None, dialing=None, listen="")
    ledger: Any = Ledger(Repository.create(tmp_path / "ledger.git", hooks_folder()), head)
    host: Any = None
    return Standing(own, ledger, Store(tmp_path / "votes.db"), host)


def test_tidying_after_one_head_forgets_nothing_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tidying of the head OLD comes late: the node is at NEW already, and has voted there."""
    monkeypatch.setattr(standing, "TIDY_SECONDS", 0)
    at = made(tmp_path, NEW)
    seat = Seat(Ballot(1, NODE), Vote(Ballot(1, NODE), NEXT))
    at.store.put_seat(OLD, Seat(Ballot(5, NODE)))
    at.store.put_seat(NEW, seat)
    at.core.seats[NEW] = seat
    transfer.hold(at.ledger.repository, NEXT)
    transfer.hold(at.ledger.repository, OLD)
    asyncio.run(at._tidy(OLD, {}))
    assert at.store.seats()[NEW] == seat
    asyncio.run(at._tidy(NEW, {NODE: "gone"}))
    assert at.store.seats() == {NEW: seat}
    held = at.ledger.repository.path / transfer.HELD
    assert [ref.name for ref in held.iterdir()] == [NEXT], "what was voted for is kept, the rest is let go"
    assert at.store.former(NODE) == ("gone", NEW)
