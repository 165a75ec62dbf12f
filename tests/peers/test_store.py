"""What has to survive: on the disk when the call returns, and the same after a start."""

import itertools
import sqlite3
from pathlib import Path

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.peers.certificates import Certificate
from owsgit.peers.paxos import Ballot, Instance, Seat, Vote
from owsgit.peers.store import Store

NODE = "SHA256:" + "a" * 43
HEADS = [f"{number:040x}" for number in range(5)]


def test_seats_decisions_and_facts_are_there_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    seats = {
        HEADS[0]: Seat(Ballot(3, NODE), Vote(Ballot(2, NODE), HEADS[1])),
        HEADS[4]: Seat(Ballot(1, NODE)),
    }
    for head, seat in seats.items():
        store.put_seat(head, seat)
    store.put_former(NODE, "c", HEADS[2])
    store.put_fact("x", "y")
    again = Store(tmp_path / "votes.db")  # the first one was not closed: as after a kill
    assert again.seats() == seats
    assert again.former(NODE) == ("c", HEADS[2]) and again.fact("x") == "y"
    made = [Certificate(Instance(head), Ballot(1, NODE), value, {}) for head, value in itertools.pairwise(HEADS)]
    again.put_decisions(made)
    again.drop_seats_but(HEADS[4])
    assert again.seats() == {HEADS[4]: seats[HEADS[4]]}  # the others are of no use any more
    again.put_decisions([Certificate(Instance(HEADS[0]), Ballot(9, NODE), HEADS[3], {})])
    assert again.decision(HEADS[0]) == made[0], "the first decision is the one that counts"
    assert again.is_before(HEADS[1], HEADS[3]) and not again.is_before(HEADS[3], HEADS[1])
    assert again.decisions_after(HEADS[1], 2) == made[1:3]
    assert again.decision_for(HEADS[1]) == made[0] and again.decision(HEADS[4]) is None


def test_every_write_is_synced(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    (mode,) = store._database.execute("PRAGMA synchronous").fetchone()
    assert mode == 2  # FULL: a commit is on the disk when it returns


def test_a_damaged_file_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "votes.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(UnavailableError, match="votes cannot be read"):
        Store(tmp_path / "votes.db")


def test_a_write_that_fails_leaves_what_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    store.put_seat(HEADS[0], Seat(Ballot(1, NODE)))
    other = sqlite3.connect(tmp_path / "votes.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._database.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(UnavailableError, match="cannot be written"):
        store.put_seat(HEADS[0], Seat(Ballot(2, NODE)))
    other.execute("ROLLBACK")
    assert store.seats() == {HEADS[0]: Seat(Ballot(1, NODE))}
    store.put_seat(HEADS[0], Seat(Ballot(3, NODE)))
