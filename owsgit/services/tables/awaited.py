"""A work that an engine is asked for, and whose caller waits until it is durable."""

import asyncio
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False, kw_only=True)
class Awaited:
    answer: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Give the caller what became of it, in the loop that it waits in."""
        if self.answer.done():  # nobody waits any more
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)
