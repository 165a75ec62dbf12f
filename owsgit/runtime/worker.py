"""The contract of workers: one warm instance of a function, asked one request at a time.

Each runtime has a class of its own: `framed` for the managed ones, and others beside it. The pool knows only this.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from owsgit.model.service import Answer, Invocation

INIT_SECONDS_MAX = 10.0
"""Lambda's limit for the init phase."""

PROCESSES_MAX = 1024
"""Lambda's limit for processes and threads."""

MEBIBYTE = 1024 * 1024


class NotBegunError(EOFError):
    """The worker ended before it took the whole of a request: another can answer it, and nothing is done twice."""


def given_to_another(request_id: str) -> str:
    """What the log tells of a request whose worker had ended."""
    return f"RequestId: {request_id} its worker had ended: it is given to another"


class Call:
    """A request on its way to a worker, and the answer that somebody waits for; who stops waiting does not stop it."""

    __slots__ = ("answer", "invocation", "is_small", "moved", "number", "unheard")

    def __init__(self, invocation: Invocation, answer: "asyncio.Future[Answer]") -> None:
        self.invocation, self.answer = invocation, answer
        self.is_small: bool | None = None  # whether it can wait behind others, once that was looked at
        self.number = 0  # that its worker knows it by
        self.moved = 0  # how often its worker ended before it began
        self.unheard: Callable[[Answer], None] | None = None  # told of an answer that nobody waits for any more

    def resolve(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
        elif self.unheard is not None:
            self.unheard(answer)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Worker(Protocol):
    """A started worker. Not for concurrent use: the pool hands it to one request at a time."""

    alive: bool  # whether it can be asked
    last_used: float  # by time.monotonic()
    memory_bytes: int  # the most that it was seen to use; 0 if that is not known

    async def invoke(self, invocation: Invocation) -> Answer:
        """Answer one request. Never raises for what the function does; a worker that failed is not `alive` after.
        Raises NotBegunError."""
        ...

    def exited(self) -> bool:
        """Whether it has ended on its own."""
        ...

    def close(self) -> None:
        """End it at once; idempotent."""
        ...
