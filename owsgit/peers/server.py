"""The answering side of a link: frames in, frames out, a bounded number at once."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import asyncssh

from owsgit.peers import wire
from owsgit.peers.wire import Frame, WireError

REQUESTS_MAX = 32
"""Of one neighbour, at once; it waits with the next one."""

log = logging.getLogger("owsgit.peers")


async def serve(process: "asyncssh.SSHServerProcess[bytes]", answer: Callable[[Frame], Awaitable[Frame]]) -> int:
    """Answer a neighbour's requests until it goes. The exit status of its session."""
    slots = asyncio.Semaphore(REQUESTS_MAX)
    writing = asyncio.Lock()
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, frame: Frame) -> None:
        try:
            given = await answer(frame)
            async with writing:
                process.stdout.write(Frame({**given.head, "id": number}, given.body).encode())
                await process.stdout.drain()
        except (asyncssh.Error, ConnectionError, BrokenPipeError):
            pass
        except Exception:
            log.exception("a neighbour's request failed")
            with contextlib.suppress(Exception):
                process.stdout.write(Frame({"id": number, "problem": "internal error"}).encode())
        finally:
            slots.release()

    try:
        while True:
            await slots.acquire()
            frame = await wire.read(process.stdin)
            if frame is None:
                return 0
            number = frame.head.get("id")
            if not isinstance(number, int):
                raise WireError("a request has no number")
            task = asyncio.ensure_future(one(number, frame))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except WireError as error:
        process.stderr.write(f"owsgit: {error}\n".encode())
        return 1
    finally:
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
