"""The end of event loops that tests run by hand."""

import asyncio


async def end_tasks() -> None:
    """End what else goes on in this loop, before it is closed, as asyncio.run does for a node: a task that waits when
    its loop is closed fails later, in some other test. What ends may begin something new, so until there is nothing."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
