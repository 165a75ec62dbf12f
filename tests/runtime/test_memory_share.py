import asyncio

import pytest

from owsgit.runtime.memory_share import MemoryShare


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_does_not_fit_waits_until_memory_is_given_back() -> None:
    async def play() -> None:
        share = MemoryShare(100)
        await share.take("a", 50)
        await share.take("b", 50)
        waiting = asyncio.create_task(share.take("c", 30))
        await settled()
        assert not waiting.done()
        share.give("a", 50)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(play())


def test_one_owner_holds_at_most_half_and_others_pass_it() -> None:
    async def play() -> None:
        share = MemoryShare(100)
        await share.take("greedy", 50)
        more = asyncio.create_task(share.take("greedy", 10))
        await settled()
        await asyncio.wait_for(share.take("modest", 10), 5)
        assert not more.done()
        share.give("greedy", 50)
        await asyncio.wait_for(more, 5)

    asyncio.run(play())


def test_a_large_request_is_not_overtaken_for_ever_by_small_ones() -> None:
    async def play() -> None:
        share = MemoryShare(100)
        await share.take("a", 40)
        await share.take("b", 40)
        large = asyncio.create_task(share.take("c", 50))
        small = asyncio.create_task(share.take("d", 10))
        await settled()
        assert not large.done() and not small.done()
        share.give("a", 40)
        await asyncio.wait_for(asyncio.gather(large, small), 5)

    asyncio.run(play())


@pytest.mark.parametrize("granted_meanwhile", [False, True])
def test_who_is_cancelled_while_waiting_holds_nothing(granted_meanwhile: bool) -> None:
    async def play() -> None:
        share = MemoryShare(100)
        await share.take("a", 50)
        await share.take("b", 50)
        waiting = asyncio.create_task(share.take("c", 50))
        await settled()
        if granted_meanwhile:
            share.give("a", 50)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not granted_meanwhile:
            share.give("a", 50)
        share.give("b", 50)
        await asyncio.wait_for(asyncio.gather(share.take("d", 50), share.take("e", 50)), 5)

    asyncio.run(play())
