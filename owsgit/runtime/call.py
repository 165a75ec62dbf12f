"""A request on its way to a worker."""

import asyncio
from collections.abc import Callable

from owsgit.model.service import Answer, Invocation


class Call:
    """A request, and the answer that somebody waits for; who stops waiting does not stop it."""

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
