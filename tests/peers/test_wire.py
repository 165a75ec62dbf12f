"""Frames and messages: what is sent comes back, and nothing else gets in."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owsgit.peers import wire
from owsgit.peers.paxos import Accept, Ballot, Instance, Message, Nack, Prepare, Promise, Vote, Voted
from owsgit.peers.wire import Frame, WireError

COMMITS = st.text("0123456789abcdef", min_size=40, max_size=40)
NODES = st.text("ABCDEFabcdef0123456789+/", min_size=43, max_size=43).map(lambda text: f"SHA256:{text}")
BALLOTS = st.builds(Ballot, st.integers(1, 2**62), NODES)
INSTANCES = st.builds(Instance, COMMITS, st.one_of(st.just(""), st.text("0123456789abcdef", min_size=64, max_size=64)))
MESSAGES = st.one_of(
    st.builds(Prepare, INSTANCES, BALLOTS),
    st.builds(Promise, INSTANCES, BALLOTS, st.one_of(st.none(), st.builds(Vote, BALLOTS, COMMITS))),
    st.builds(Accept, INSTANCES, BALLOTS, COMMITS),
    st.builds(Voted, INSTANCES, BALLOTS, COMMITS, st.just("A" * 86 + "==")),
    st.builds(Nack, INSTANCES, BALLOTS, BALLOTS),
)


def read(data: bytes) -> Frame | None:
    async def reading() -> Frame | None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await wire.read(reader)

    return asyncio.run(reading())


@given(MESSAGES, st.binary(max_size=100))
def test_every_message_comes_back_as_it_was(message: Message, body: bytes) -> None:
    frame = read(Frame({"message": wire.message_to_json(message)}, body).encode())
    assert frame is not None and frame.body == body
    assert wire.message_from_json(frame.head["message"]) == message


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda below: st.lists(below) | st.dictionaries(st.text(), below)
    )
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(WireError):
        wire.message_from_json(value)


@pytest.mark.parametrize("kind", ["accept", "voted", "nack", "nothing"])
def test_a_message_that_lacks_its_fields_is_refused(kind: str) -> None:
    with pytest.raises(WireError):
        wire.message_from_json({"kind": kind, "head": "0" * 40, "ballot": [1, "SHA256:" + "a" * 43]})


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0" * 7,
        b"\xff" * 8,
        b"\0\0\0\2\0\0\0\0{",
        b"\0\0\0\2\0\0\0\5{}abc",
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0{,",
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read(data)


def test_the_end_between_frames_is_no_error() -> None:
    assert read(b"") is None
