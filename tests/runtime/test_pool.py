"""A pool has as many workers as its function asks for, and as the node's budget has room for."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime.budget import Budget, ThrottledError
from owsgit.runtime.config import InitError
from owsgit.runtime.pool import WAITING_MAX, Pool, Size

MEBIBYTE = 1024 * 1024


class SmallWorker:
    """A worker without a process: the I/O edge of the pool's logic."""

    def __init__(self, memory_bytes: int = 8 * MEBIBYTE) -> None:
        self.alive = True
        self.last_used = time.monotonic()
        self.memory_bytes = memory_bytes
        self.ended = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def invoke(self, invocation: Invocation) -> Answer:
        await self.gate.wait()
        if invocation.payload == b"die":
            self.alive = False
        self.last_used = time.monotonic()
        return Answer(invocation.payload)

    def exited(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.alive = False


class Nursery:
    """Starts SmallWorkers and keeps them."""

    def __init__(self, memory_bytes: int = 8 * MEBIBYTE) -> None:
        self.made: list[SmallWorker] = []
        self.memory_bytes = memory_bytes
        self.error: Exception | None = None

    async def __call__(self) -> SmallWorker:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.made.append(SmallWorker(self.memory_bytes))
        return self.made[-1]


def event(payload: bytes = b"1") -> Invocation:
    return Invocation(payload, "r")


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def inner() -> None:
        await test()

    asyncio.run(inner())


def test_provisioned_workers_are_there_before_any_request_and_again_after_one_died() -> None:
    async def test() -> None:
        nursery = Nursery()
        pool = Pool(nursery, Size(10, provisioned=6, idle_seconds=0.02), Budget())
        await pool.warm()
        assert len(pool.idle) == len(nursery.made) == 6
        await pool.invoke(event(b"die"))
        nursery.made[0].ended = True
        async with asyncio.timeout(10):
            while len(nursery.made) < 8 or len(pool.idle) < 6:
                await asyncio.sleep(0.005)
        assert all(worker.alive and not worker.ended for worker in pool.idle)
        pool.close()

    run(test)


def test_workers_that_nobody_asks_end_but_for_the_provisioned() -> None:
    async def test() -> None:
        nursery = Nursery()
        pool = Pool(nursery, Size(10, provisioned=1, idle_seconds=0.02), Budget())
        await asyncio.gather(*(pool.invoke(event()) for _ in range(5)))
        assert len(pool.idle) > 1
        async with asyncio.timeout(10):
            while len(pool.idle) > 1:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert len(pool.idle) == 1
        pool.close()

    run(test)


def test_a_provisioned_pool_whose_code_does_not_load_says_so() -> None:
    async def test() -> None:
        nursery = Nursery()
        nursery.error = InitError({"errorType": "Runtime.ImportModuleError", "errorMessage": "no"})
        pool = Pool(nursery, Size(10, provisioned=3), Budget())
        with pytest.raises(InitError):
            await pool.warm()
        answer = await pool.invoke(event())
        assert answer.error == "Unhandled" and json.loads(answer.payload)["errorType"] == "Runtime.ImportModuleError"
        pool.close()

    run(test)


def test_no_more_is_reserved_than_leaves_a_share_to_the_others() -> None:
    async def test() -> None:
        budget = Budget(1024 * MEBIBYTE)
        budget.check_reserved(6, 128 * MEBIBYTE)
        for workers in (7, 900):
            with pytest.raises(
                UnavailableError, match=f"{workers} workers of 128 MiB free.*there is room for 6"
            ) as error:
                budget.check_reserved(workers, 128 * MEBIBYTE)
            assert error.value.problems[0].path == "$.reservedConcurrency"
        pool = Pool(Nursery(), Size(4, reserved=4, worker_bytes=128 * MEBIBYTE), budget)
        budget.check_reserved(2, 128 * MEBIBYTE)
        with pytest.raises(UnavailableError, match="there is room for 2"):
            budget.check_reserved(3, 128 * MEBIBYTE)
        budget.check_reserved(6, 128 * MEBIBYTE, instead_of=pool)
        pool.close()
        budget.check_reserved(6, 128 * MEBIBYTE)
        with pytest.raises(UnavailableError, match="there is room for 15"):
            Budget(1 << 40, workers_max=20).check_reserved(16, MEBIBYTE)

    run(test)


def test_what_is_reserved_is_kept_from_all_others() -> None:
    async def test() -> None:
        budget = Budget(workers_max=20)
        greedy, modest = Nursery(), Nursery()
        reserved = Pool(modest, Size(8, reserved=8), budget)
        pool = Pool(greedy, Size(100), budget)
        calls = []
        for worker in range(20):
            calls.append(asyncio.ensure_future(pool.invoke(event())))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for made in greedy.made:
                made.gate.clear()
        await asyncio.sleep(0.01)
        assert len(greedy.made) <= 20 * 0.75 - 8
        answers = await asyncio.gather(*(reserved.invoke(event()) for _ in range(8)))
        assert len(answers) == 8 and len(modest.made) <= 8
        for made in greedy.made:
            made.gate.set()
        await asyncio.gather(*calls, return_exceptions=True)
        pool.close()
        reserved.close()

    run(test)


def test_memory_is_made_room_for_by_whoever_has_been_idle_longest() -> None:
    async def test() -> None:
        budget = Budget(memory_bytes=100 * MEBIBYTE)
        old, new = Nursery(20 * MEBIBYTE), Nursery(20 * MEBIBYTE)
        first, second = Pool(old, Size(10), budget), Pool(new, Size(10), budget)
        await asyncio.gather(*(first.invoke(event()) for _ in range(4)))
        assert budget.used_bytes <= 100 * MEBIBYTE
        oldest = first.idle[0]
        await asyncio.gather(*(second.invoke(event()) for _ in range(3)), return_exceptions=True)
        assert budget.used_bytes <= 100 * MEBIBYTE
        assert not oldest.alive and len(second.idle) >= 1
        first.close()
        second.close()
        assert budget.used_bytes == 0 and budget.count == 0

    run(test)


def test_without_room_a_request_is_throttled_and_not_queued_for_ever() -> None:
    async def test() -> None:
        budget = Budget(memory_bytes=40 * MEBIBYTE)
        nursery = Nursery(38 * MEBIBYTE)
        pool = Pool(nursery, Size(10), budget)
        await pool.invoke(event())
        nursery.made[0].gate.clear()
        busy = asyncio.ensure_future(pool.invoke(event()))
        await asyncio.sleep(0.01)
        other = Pool(Nursery(), Size(10), budget)
        with pytest.raises(ThrottledError, match="busy"):
            await other.invoke(event())
        nursery.made[0].gate.set()
        await busy
        await other.invoke(event())
        pool.close()
        other.close()

    run(test)


def test_a_thousand_requests_wait_for_one_worker_and_no_more_do() -> None:
    async def test() -> None:
        nursery = Nursery()
        pool = Pool(nursery, Size(1), Budget())
        await pool.warm()
        nursery.made[0].gate.clear()
        calls = [asyncio.ensure_future(pool.invoke(event(b"%d" % n))) for n in range(WAITING_MAX + 1)]
        await asyncio.sleep(0.05)
        with pytest.raises(ThrottledError, match="Rate Exceeded"):
            await pool.invoke(event())
        nursery.made[0].gate.set()
        answers = await asyncio.gather(*calls)
        assert [answer.payload for answer in answers] == [b"%d" % n for n in range(WAITING_MAX + 1)]
        assert len(nursery.made) == 1
        pool.close()

    run(test)


def test_a_closed_pool_finishes_what_it_has_begun() -> None:
    async def test() -> None:
        nursery = Nursery()
        pool = Pool(nursery, Size(2), Budget())
        await pool.warm()
        nursery.made[0].gate.clear()
        call = asyncio.ensure_future(pool.invoke(event(b"7")))
        await asyncio.sleep(0.01)
        pool.close()
        nursery.made[0].gate.set()
        assert (await call).payload == b"7" and not nursery.made[0].alive

    run(test)


def test_a_provisioning_that_is_cancelled_keeps_no_worker_that_nobody_knows() -> None:
    async def test() -> None:
        nursery, numbers = Nursery(), iter(range(100))

        async def spawn() -> SmallWorker:
            if next(numbers) == 2:  # one of those that start together never comes
                await asyncio.Event().wait()
            return await nursery()

        pool = Pool(spawn, Size(10, provisioned=4), Budget())
        warming = asyncio.ensure_future(pool.warm())
        async with asyncio.timeout(10):
            while len(nursery.made) < 3:
                await asyncio.sleep(0.005)
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
        pool.close()
        assert len(nursery.made) == 3 and not any(each.alive for each in nursery.made)

    run(test)


def test_a_function_that_nobody_asked_after_its_deployment_soon_has_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.runtime.pool.UNASKED_SECONDS", 0.02)
    monkeypatch.setattr("owsgit.runtime.pool.REAP_SECONDS_MAX", 0.01)

    async def test() -> None:
        asked, unasked = Pool(Nursery(), Size(1), Budget()), Pool(Nursery(), Size(1), Budget())
        await asked.invoke(event())
        await unasked.warm()
        async with asyncio.timeout(10):
            while unasked.idle:
                await asyncio.sleep(0.005)
        assert len(asked.idle) == 1
        assert (await unasked.invoke(event(b"2"))).payload == b"2"
        asked.close()
        unasked.close()

    run(test)
